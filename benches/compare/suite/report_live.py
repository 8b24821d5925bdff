"""The live rows of docs/benchmarks.md."""

import statistics

from .tables import number, ratio, show, table, verdict

# DESIGN.md section 9.
DELAY_BUDGET_US = 5000
LOOP_BUDGET = 1.25
EACH_WRITE_BUDGET_MS, BATCHED_BUDGET_MS = 500, 190
VIEWER_BUDGET_BYTES = 64 * 1024

LIVE_NOTE = """
A 4 Mb/s publisher, one core for the server. Delay: from the publisher's write of a fragment to the viewer's read of its
last byte, both in the client, whose own work on its one core is part of it; every tenth viewer is timed. nginx has no
live streams: it sends the same bytes as files of one second, each viewer one per second. xiu is published to over RTMP
and watched over HTTP-FLV; before each of its runs a second of it is compared with the file, sample by sample. Memory:
what the server's RSS grew by, less the bytes that were published (the window), per viewer that reads or stalls; kernel
buffers are those of both ends. Copied: bytes that were written or parsed out of place, heads and chunk lines of viewers
among them, per byte received and per byte sent. "of due" is how much of what was published reached the viewers in time;
well below 1, the figures of a row mean little.
"""


def take(runs, key):
    return [run[key] for run in runs if key in run]


def live_section(rows, verdicts):
    lines = []
    for row in rows:
        loop = take(row["servers"].get("bare loop", []), "server_cpu_ms_per_gb")
        for label, runs in row["servers"].items():
            cpu = take(runs, "server_cpu_ms_per_gb")
            to_loop = ratio(cpu, loop) if label != "bare loop" else None
            viewers = row["viewers"] + row["stalled"]
            per_viewer = [(run["server_memory_bytes"] - run["published_bytes"] * (label == "weir")) / viewers
                          for run in runs if "server_memory_bytes" in run]
            buffers = [run["kernel_buffer_bytes"] / viewers for run in runs if "kernel_buffer_bytes" in run]
            seen = statistics.median(take(runs, "delays") or [0]) > 0
            lines.append([row["row"], label, number(cpu), show(to_loop),
                          number(take(runs, "delay_p50_us") if seen else []),
                          number(take(runs, "delay_p99_us") if seen else []),
                          number(per_viewer), number(buffers), number(take(runs, "copied_per_received"), 3),
                          number(take(runs, "copied_per_sent"), 4), number(take(runs, "received_of_due"), 2),
                          number(take(runs, "lost"))])
            if label == "weir":
                judge(row, verdicts, cpu, to_loop, runs, per_viewer)
    head = ["row", "server", "CPU ms/GB", "to the bare loop", "delay p50 µs", "delay p99 µs", "bytes per viewer",
            "kernel buffers per viewer", "copied per received", "copied per sent", "of due", "viewers lost"]
    return table("## Live: viewers of one stream", head, lines) + LIVE_NOTE


def judge(row, verdicts, cpu, to_loop, runs, per_viewer):
    name, median = row["row"], statistics.median(cpu)
    if row["viewers"] == 100:
        p99 = statistics.median(take(runs, "delay_p99_us"))
        verdict(verdicts, f"{name}: last byte in to last byte out, p99", f"≤ {DELAY_BUDGET_US:,} µs", f"{p99:,.0f} µs",
                p99 <= DELAY_BUDGET_US)
    if row["viewers"] == 1000 and row["period"]:
        budget = EACH_WRITE_BUDGET_MS if row["period"] < 0.1 else BATCHED_BUDGET_MS
        verdict(verdicts, f"{name}: CPU per GB sent", f"≤ {budget} ms", f"{median:.0f} ms", median <= budget)
        if to_loop:
            verdict(verdicts, f"{name}: CPU per GB to the bare loop", f"≤ {LOOP_BUDGET}", show(to_loop),
                    to_loop["median"] <= LOOP_BUDGET)
    if row["viewers"] >= 100:
        memory = statistics.median(per_viewer)
        verdict(verdicts, f"{name}: memory per viewer beyond the window", "≤ 64 KiB", f"{memory / 1024:.1f} KiB",
                memory <= VIEWER_BUDGET_BYTES)


def ingest_section(rows, verdicts):
    lines = [[row["publishers"], number(take(row["runs"], "server_cpu_ms_per_gb")),
              number(take(row["runs"], "mb_per_second")), number(take(row["runs"], "copied_per_received"), 4)]
             for row in rows]
    note = ("\nfMP4 in chunked PUT requests, a fragment per frame (20 KB), sent as fast as they are taken; nobody "
            "watches,\nnothing is recorded. Copied: boxes that straddle two buffers, and heads whose times are moved.\n")
    return table("## Live: publishers", ["publishers", "CPU ms per GB received", "MB/s", "copied per received"],
                 lines) + note
