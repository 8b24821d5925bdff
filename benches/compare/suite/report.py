"""Turns the results of a run into docs/benchmarks.md: tables, ratios, and what the budgets say."""

import statistics

from . import beside, report_live, segments, startup, upload
from .rows import SIZES, interval
from .servers import NGINX_COLD_VARIANTS, NGINX_VARIANTS
from .tables import number, ratio, show, table, verdict

# Largest allowed ratio of Weir's CPU per GB to nginx's best and to the write loop's best (DESIGN.md section 9).
CPU_BUDGETS = {"20m": (0.55, 1.10), "1m": (0.85, 1.08), "256k": (0.97, 1.08)}
REQUESTS_BUDGET_4K = 1.2
IDLE_BUDGET_BYTES = 12 * 1024
START_BUDGET_MS = 20
SEEK_BUDGET_US = 1000
INDEX_BUDGET_SECONDS, INDEX_BUDGET_BYTES = 1.0, 64 << 20
COLD_BUDGET = 2.0

INTRO = """# Weir beside its peers and beside the physical limit

This page is written by `benches/compare/run`; edit `benches/compare/suite/report.py`, not this page.

Every figure comes from one run, on one machine, over loopback. Ratios are what to look at: they are taken within a
round, in which all servers are measured one after the other, forwards and then backwards. A ratio's brackets hold a
95 % bootstrap interval over the rounds. CPU times are those of all the server's threads and processes, from their CPU
clocks.
"""

WHY = """
Why some are not kept:

- **CPU per GB to nginx, 20 MiB and 1 MiB.** 0.55 and 0.85 were measured on another machine, where `sendfile` cost more
  than twice a copy on paced connections. How much it costs here is in the table below (write loop, sendfile loop):
  Weir keeps close to the write loop, so where the write loop itself is not half of nginx's best, nobody who copies is.
- **20 MiB and 1 MiB at one connection, 20 MiB at 256.** `sendfile` is cheaper there than a copy even with pacing; at 16
  connections both cost the same, and with two workers (`2w`) it costs twice the copy. To change over behind a crowd of
  long answers, with 4 MiB queued in each socket, was tried: at 256 connections 1.28 of nginx's best instead of 1.28 for
  20 MiB, and 1.08 instead of 0.98 for 1 MiB. So Weir copies wherever the connection paces.
- **Without pacing (`cubic`), CPU per GB to nginx.** Both send by `sendfile`, both pass pages by reference, and the
  client discards them unread: nothing is left that could be half of it. With a client that copies (`copy`) the
  difference gets smaller still.
- **256 KiB and less, to the write loop.** The loop has no routes, no log, no conditions, no limits, and sends a head of
  165 bytes where Weir's has 470. What a request costs beyond it is paid once per request: the smaller the range, the
  larger the ratio.
- **4 KiB requests per second.** Five sixths of such a request are the kernel's. The bare loop, which does nothing but
  read and write, reaches about 1.4 times nginx's rate; hyper's parser and header map alone take half of what lies
  between the loop and Weir. What a request costs in user space is counted in `benches/instructions.txt`.
- **Beside cold data.** A p99 over a few thousand requests meets whatever else runs on the machine; the case alone and
  the case beside a hot stream of the same rate show how much. The pool that reads shares the one core with everybody,
  at a lower priority and in steps of 256 KiB.
- **Segments and playlists of a live stream.** A segment is a rope of the buffers that the publisher's fragments came in,
  here twenty kilobytes each, so a `writev` takes sixteen small pieces where nginx reads a mebibyte of a file. Playlists
  cost what small requests cost (see 4 KiB).
- **Uploads.** Weir syncs before it answers, which nginx does not. To the loop that syncs, too, it costs more: hyper
  hands the body over in pieces of its read buffer, and each goes to the thread that writes.
- **Live, to the bare loop.** The loop keeps a queue and a socket per viewer. Weir has a connection with its limits, its
  HTTP chunks and its place in the window for each, and a wake-up for each part: some 6,000 instructions, most of them
  in hyper, and more cache misses than the loop has. With parts of a third of a second it matters less.
"""

METHOD = """
## Method

- The client (`benches/compare/drain`) has one thread and one epoll instance. It discards bodies inside the kernel
  with `recv(NULL, n, MSG_TRUNC)`, so it costs little beside the server it measures. Latency counts from the request
  to the last byte; with a fixed rate, from the moment the request was due.
- Before anything is measured, bodies of five sizes are compared with the file byte for byte, for every server and
  variant.
- One worker (nginx), one core (Weir), one thread (write loop), pinned to core 0; the client is pinned to core 1. Rows
  that end in `2w` have two workers, and nothing is pinned.
- The run has a network namespace of its own. Rows that end in `cubic` use that congestion control, which does not
  pace; the others use what the machine is set to (see the table above). Where that is `bbr`, its pacing decides much
  of what a byte costs on loopback, so both are shown.
- The write loop (`benches/compare/drain/src/bin/floor.rs`) is what remains when a server does nothing but map the
  file and call `writev` with head and slice. It has two forms, an event loop and a thread per connection; the best
  one counts. The sendfile loop is the event loop with `sendfile` for the body.
- Of nginx the variants below are tried first, row by row. The one with the least CPU per byte and the one with the
  most requests go into the rounds, and of each figure the better one counts.
- The servers of range rows are started once, and the largest ranges come first, so the file is mapped when small ones
  are measured. A row of small ranges that is run alone meets pages that Weir's mapping has not touched: each 64 KiB
  cost a page fault once in a server's life, 20 µs on a virtual machine (28 µs per 4 KiB request instead of 10).
- On loopback the receiver's TCP work runs in the sender's context, so server CPU includes it, for all servers alike.
- Measurements during which others used more than 0.1 of a core, or the host stole as much, are repeated while the
  run's budget for it lasts.
- Idle connections: each does one request of 100 bytes and stays open. Kernel figures are those of the whole machine
  and include the client's end of each connection.
- Cold beside hot: a client reads hot 256 KiB chunks at 400 per second on four connections. Beside it, four
  connections stream a second file in 20 MiB ranges, each range once. For each case the server is started afresh and
  that file dropped from the page cache before. The hot stream of the same rate shows what sharing the core costs in
  any case.
- Live: see below its table, as for segments, uploads and what runs beside a viewer. The publisher's file is 4 Mb/s at 25 frames per second; marks in the last bytes of each
  fragment tell the viewers which one it is, so bytes need not be counted. The bare loop
  (`benches/compare/drain/src/bin/fanout.rs`) writes each chunk of the publisher to every viewer, and does nothing else.

How to repeat: `benches/compare/run` (an hour at most, and the first time half an hour for the peers),
`benches/compare/run --quick` (a quarter of an hour), `--rows 'range-20m-*'` for some rows, `--help` for the rest. It
needs Linux, two cores, Python 3, cargo, and 10 GB of disk below `target/compare`. nginx, ffmpeg and iproute2 come from
Debian, static-web-server and xiu from the crate registry, where they are missing; `--quick` builds no peer, those that
are there take part.
"""


def render(results, images):
    """The page; `images` are links to the plots, by the kind of their rows."""
    rows, facts = results["rows"], results["machine"]
    parts = [INTRO, machine_table(results, facts)]
    sections = (("range", range_section), ("idle", idle_section), ("index", index_section), ("seek", seek_section),
                ("cold", cold_section), (beside.KIND, beside.section), (segments.KIND, segments.section), ("live", report_live.live_section), ("ingest", report_live.ingest_section),
                (upload.KIND, upload.section), ("start", start_section), (startup.NAME, startup.section))
    verdicts = []
    bodies = []
    for kind, section in sections:
        found = [row for row in rows if row["kind"] == kind]
        if found:
            bodies.append(section(found, verdicts) + (f"\n{images[kind]}\n" if kind in images else ""))
    if verdicts:
        parts.append(table("## Budgets", ["what", "budget", "measured", "kept"], verdicts) + WHY)
    parts += bodies
    parts += [METHOD, nginx_section()]
    return "\n".join(part.strip("\n") + "\n" for part in parts)


def machine_table(results, facts):
    virtual = ", a virtual machine" if facts["virtual_machine"] else ""
    lines = [
        ["processor", f"{facts['cpu']}, {facts['cores']} cores{virtual}"],
        ["memory", f"{facts['memory_gb']} GB"],
        ["kernel", f"Linux {facts['kernel']}, {facts['congestion_control']}, tcp_wmem {' '.join(facts['tcp_wmem'])}, "
                   f"tcp_rmem {' '.join(facts['tcp_rmem'])}"],
        ["nginx", facts["nginx"].removeprefix("nginx version: ")],
        ["Weir", f"{facts.get('weir', 'not part of this run')}; {facts['rustc']}"],
        ["other servers", f"static-web-server {facts.get('static-web-server', 'took no part')}, "
                          f"xiu {facts.get('xiu', 'took no part')}"],
        ["rows that are missing", "; ".join([*results["failed"], *results["left_out"]]) or "none"],
        ["run", f"{results['mode']}, {results['rounds']} rounds, {results['minutes']} minutes; "
                f"{results['noisy']} of {results['measured']} measurements were disturbed by others"],
    ]
    return table("## Machine", ["what", "value"], lines)


def pick(row, family, figure, largest=False):
    """The per-round values of a family's best server for this figure, and its label."""
    members = {label: row["servers"][label][figure] for label, name in row["families"].items() if name == family}
    members = {label: values for label, values in members.items() if values}
    if not members:
        return None, []
    best = max if largest else min
    label = best(members, key=lambda name: statistics.median(members[name]))
    return label, members[label]


def range_section(rows, verdicts):
    cpu, rates, latencies = [], [], []
    for row in rows:
        name = row["row"].removeprefix("range-")
        _, weir = pick(row, "weir", "cpu_ms_per_gb")
        nginx_label, nginx = pick(row, "nginx", "cpu_ms_per_gb")
        _, floor = pick(row, "write loop", "cpu_ms_per_gb")
        to_nginx, to_floor = ratio(weir, nginx), ratio(weir, floor)
        _, sendfile = pick(row, "sendfile loop", "cpu_ms_per_gb")
        _, sws = pick(row, "static-web-server", "cpu_ms_per_gb")
        cpu.append([name, number(weir), number(nginx), number(sws), number(floor), number(sendfile), show(to_nginx),
                    show(to_floor),
                    (nginx_label or "–").removeprefix("nginx: ")])
        _, weir_rate = pick(row, "weir", "requests_per_second", largest=True)
        _, nginx_rate = pick(row, "nginx", "requests_per_second", largest=True)
        _, floor_rate = pick(row, "write loop", "requests_per_second", largest=True)
        to_nginx_rate, size = ratio(weir_rate, nginx_rate), SIZES[row["size"]]
        mb = [r * size / 1e6 for r in weir_rate]
        _, sws_rate = pick(row, "static-web-server", "requests_per_second", largest=True)
        rates.append([name, number(weir_rate), number(nginx_rate), number(sws_rate), number(floor_rate), show(to_nginx_rate), number(mb)])
        line = [name]
        for family in ("weir", "nginx", "write loop"):
            line += [number(pick(row, family, "p50_us")[1]), number(pick(row, family, "p99_us")[1])]
        latencies.append(line)
        judge_range(row, name, verdicts, to_nginx, to_floor, to_nginx_rate)
    return "\n".join([
        table("## Random ranges of a hot file: server CPU, ms per GB",
              ["range, connections", "Weir", "nginx", "static-web-server", "write loop", "sendfile loop", "Weir / nginx",
               "Weir / write loop", "nginx's best"], cpu),
        table("### Requests per second",
              ["range, connections", "Weir", "nginx", "static-web-server", "write loop", "Weir / nginx", "Weir, MB/s"], rates),
        table("### Latency, µs",
              ["range, connections", "Weir p50", "Weir p99", "nginx p50", "nginx p99", "loop p50", "loop p99"],
              latencies),
    ])


def judge_range(row, name, verdicts, to_nginx, to_floor, to_nginx_rate):
    if row["size"] in CPU_BUDGETS and to_nginx and to_floor:
        nginx_max, floor_max = CPU_BUDGETS[row["size"]]
        verdict(verdicts, f"{name}: CPU per GB to nginx's best", f"≤ {nginx_max}", show(to_nginx),
                to_nginx["median"] <= nginx_max)
        verdict(verdicts, f"{name}: CPU per GB to the write loop", f"≤ {floor_max}", show(to_floor),
                to_floor["median"] <= floor_max)
    if row["size"] == "4k" and to_nginx_rate:
        verdict(verdicts, f"{name}: requests per second to nginx's best", f"≥ {REQUESTS_BUDGET_4K}",
                show(to_nginx_rate), to_nginx_rate["median"] >= REQUESTS_BUDGET_4K)


def idle_section(rows, verdicts):
    lines = []
    for name, r in rows[0]["servers"].items():
        lines.append([name, f"{r['open']:,}", f"{r['alive_after_hold']:,}", f"{r['rss_per_connection']:,.0f}",
                      f"{r['anonymous_per_connection']:,.0f}", f"{r['rss_total'] / 1e6:,.1f}",
                      f"{r['kernel_slab_per_connection']:,.0f}", f"{r['kernel_buffers_per_connection']:,.0f}"])
        if name == "weir":
            kept = r["open"] >= 10_000 and r["rss_per_connection"] <= IDLE_BUDGET_BYTES
            found = f"{r['rss_per_connection'] / 1024:.1f} KiB, {r['open']:,} open"
            verdict(verdicts, "idle keep-alive connection", "≤ 12 KiB at 10,000", found, kept)
    return table("## Idle connections: bytes per connection",
                 ["server", "open", "still open", "RSS", "of it anonymous", "RSS of the server, MB",
                  "kernel slab, both ends", "kernel buffers"], lines)


def index_section(rows, verdicts):
    took, peak = interval(rows[0]["seconds"]), statistics.median(rows[0]["peak_bytes"]) / (1 << 20)
    verdict(verdicts, "first index of a day-long file", f"≤ {INDEX_BUDGET_SECONDS:.0f} s", f"{show(took)} s",
            took["median"] <= INDEX_BUDGET_SECONDS)
    verdict(verdicts, "its peak memory", f"≤ {INDEX_BUDGET_BYTES >> 20} MiB", f"{peak:.0f} MiB",
            peak <= INDEX_BUDGET_BYTES >> 20)
    return table("## First index of a day-long MP4 of 60 frames per second", ["what", "measured"], [
        ["`weir inspect --timecode`, from start to end", f"{show(took)} s"],
        ["peak memory of that process", f"{peak:.0f} MiB"],
    ])


def seek_section(rows, verdicts):
    lines = []
    for row in rows:
        nginx = row["servers"].get("nginx mp4", {}).get("requests_per_second", [])
        for name, r in row["servers"].items():
            to_nginx = ratio(r["requests_per_second"], nginx) if nginx and name != "nginx mp4" else None
            lines.append([name, row["connections"], number(r["requests_per_second"]), number(r["cpu_us_per_request"]),
                          number(r["p50_us"]), number(r["p99_us"]), number(r["bytes_per_answer"]), show(to_nginx, 1)])
        ours = row["servers"].get("weir /seek")
        if ours and row["connections"] == 1:
            p99 = statistics.median(ours["p99_us"])
            verdict(verdicts, "seek in a day-long file, p99", f"≤ {SEEK_BUDGET_US} µs", f"{p99:.0f} µs",
                    p99 <= SEEK_BUDGET_US)
    note = ("\nnginx answers a seek with a second of media and a moov box cut out of the whole one, which it reads\n"
            "each time (`mp4_max_buffer_size 64m`; its default refuses this file). Weir's like-for-like answer is\n"
            "`as=fmp4`; `/seek` says where to read, and `/chunk` sends 64 KiB from there.\n")
    return table("## Seeks in a day-long MP4 of 60 frames per second",
                 ["request", "connections", "requests/s", "CPU µs/request", "p50 µs", "p99 µs", "bytes/answer",
                  "to nginx"], lines) + note


def cold_section(rows, verdicts):
    lines, row = [], rows[0]
    for name, cases in row["servers"].items():
        alone = [run["p99_us"] for run in cases["alone"]]
        for case, runs in cases.items():
            take = lambda key: [run[key] for run in runs]
            factor = ratio(take("p99_us"), alone)
            lines.append([name, case, number(take("p50_us")), number(take("p99_us")), number(take("max_us")),
                          number(take("other_mb_per_second")), number(take("disk_mb")), show(factor)])
            if name == "weir" and case.startswith("beside a cold"):
                verdict(verdicts, f"p99 of a hot client {case}", f"≤ {COLD_BUDGET} of alone", show(factor),
                        factor["median"] <= COLD_BUDGET)
    return table("## A hot client beside cold data, one core",
                 ["server", "case", "p50 µs", "p99 µs", "max µs", "other MB/s", "read from disk, MB",
                  "p99 to alone"], lines)


def start_section(rows, verdicts):
    lines = []
    for name, values in rows[0]["servers"].items():
        found = interval(values)
        lines.append([name, show(found, 1), f"{min(values):.1f}", f"{max(values):.1f}"])
        if name == "weir" and not rows[0]["pending"]:
            verdict(verdicts, "start to first byte, 1,000 indexed videos", f"≤ {START_BUDGET_MS} ms",
                    f"{show(found, 1)} ms", found["median"] <= START_BUDGET_MS)
    pending = rows[0]["pending"]
    note = f"\nNot indexed when this was measured: {pending} of Weir's videos.\n" if pending else ""
    return table("## Start: exec to the first byte served, ms", ["server", "median", "least", "most"], lines) + note


def nginx_section():
    lines = [[name, f"`{settings}`"] for name, settings in {**NGINX_VARIANTS, **NGINX_COLD_VARIANTS}.items()]
    text = table("### nginx's settings", ["variant", "directives"], lines)
    return text + ("\nCommon to all: `access_log off; tcp_nodelay on; keepalive_requests 1000000000; open_file_cache "
                   "max=20000 inactive=600s; worker_connections 16384; reset_timedout_connection on;`, "
                   "and `reuseport` with two workers.\n")
