"""The live rows: one publisher and its viewers, and many publishers.

The publisher sends fragments at the pace of a camera and marks each; a tenth of the viewers look for the marks, so the
delay of a fragment is known from the publisher's write to the viewer's read. Whoever does not take part in a row (no
nginx, no xiu) is left out of it.
"""

import os
import shutil
import subprocess
import time
import urllib.request

from . import servers
from .rows import Entrant

KEY = "a-key-for-benchmarks"
FRAME_SECONDS, BATCH_SECONDS = 0.04, 0.36
# name: viewers that read, viewers that never do, seconds between two writes of the publisher.
ROWS = {
    "live-1": (1, 0, FRAME_SECONDS),
    "live-100": (100, 0, FRAME_SECONDS),
    "live-1000": (1000, 0, FRAME_SECONDS),
    "live-1000-360ms": (1000, 0, BATCH_SECONDS),
    "live-1000-stalled": (900, 100, FRAME_SECONDS),
}
HLS_ROWS = {"hls-1000": 1000}
INGEST_ROWS = {"ingest-1": 1, "ingest-32": 32}
NAMES = [*ROWS, *HLS_ROWS, *INGEST_ROWS]
SEGMENT_SECONDS = 1
# Of the publisher's file.
BYTES_PER_SECOND = 4_000_000 / 8


def row(bench, name):
    if name in INGEST_ROWS:
        return ingest_row(bench, name, INGEST_ROWS[name])
    if name in HLS_ROWS:
        return hls_row(bench, name, HLS_ROWS[name])
    return viewers_row(bench, name, *ROWS[name])


def start_weir(bench):
    """A fresh server without recordings; returns it and where its metrics are."""
    fixtures = bench.fixtures
    state = os.path.join(fixtures.work, "state-live")
    shutil.rmtree(state, ignore_errors=True)
    command, address = servers.weir_command(bench.weir, fixtures.library, state)
    admin = command[command.index("--admin") + 1]
    server = servers.Server("weir", [*command, "--write-key", KEY, "--record", "false"], {"weir": address}, 0,
                            {"WEIR_LOG": "warn"})
    return server, admin


def counters(admin):
    """Weir's own counters: {name: value}."""
    with urllib.request.urlopen(f"http://{admin}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if line.startswith("weir_bytes"))
    return {name: float(value) for name, value in pairs}


def viewers_row(bench, name, viewers, stalled, period):
    """Each server in turn, forwards and backwards, started afresh: memory counts from an empty window."""
    seconds, warmup = (2.0, 1.0) if bench.options.quick else (4.0, 1.5)
    fixture = bench.fixtures.camera(period)
    common = ["--viewers", str(viewers), "--stalled", str(stalled), "--seconds", str(seconds), "--warmup", str(warmup)]
    publish = ["--publish", "/live/cam", "--view", "/live/cam/stream", "--key", KEY, "--file", fixture, "--period",
               str(period)]

    def weir():
        server, admin = start_weir(bench)
        before = counters(admin)
        run = measure(bench, server, [*publish, *common])
        run.update(copied(before, counters(admin)))
        return run

    def fanout():
        address = f"{servers.HOST}:{servers.free_port()}"
        server = servers.Server("bare loop", [bench.fanout, address], {"bare loop": address}, 0)
        return measure(bench, server, [*publish, *common])

    def nginx():
        variants = {"sendfile": "sendfile on; tcp_nopush off;"}
        server = servers.nginx(bench.fixtures.work, bench.fixtures.library, variants)
        urls = bench.fixtures.segments(SEGMENT_SECONDS)
        group = f"urls={urls},connections={viewers},rate={viewers / SEGMENT_SECONDS}"
        run = bench.load(Entrant(server, "sendfile", ""), [group], seconds, warmup, 1)
        return {"server_cpu_ms_per_gb": run["server_cpu_ms_per_gb"], "lost": run["groups"][0]["errors"],
                "foreign_cores": run["foreign_cores"]}

    def xiu():
        return measure_xiu(bench, common)

    entrants = {"weir": weir} if bench.weir and bench.wants("weir") else {}
    if bench.wants("floor"):
        entrants["bare loop"] = fanout
    if bench.wants("nginx") and viewers >= 100 and not stalled:
        entrants["nginx: segments as files"] = nginx
    if bench.xiu and bench.wants("xiu") and viewers >= 100 and period == FRAME_SECONDS:
        entrants["xiu: HTTP-FLV"] = xiu
    results = {label: [] for label in entrants}
    for _ in range(1 if bench.options.quick else 3):
        for label in (*entrants, *reversed(entrants)):
            try:
                results[label].append(entrants[label]())
            except (RuntimeError, OSError, subprocess.SubprocessError) as error:
                bench.say(f"  {label}: {error}")
            finally:
                servers.stop_all()
    return {"row": name, "kind": "live", "viewers": viewers, "stalled": stalled, "period": period,
            "servers": {label: runs for label, runs in results.items() if runs}}


def hls_row(bench, name, viewers):
    """Clients of the low-latency playlist, in blocking reload. nginx has none; its segments are in the other rows."""
    seconds, warmup = (4.0, 6.0) if bench.options.quick else (8.0, 8.0)
    arguments = ["--publish", "/live/cam", "--view", "/live/cam/index.m3u8", "--key", KEY, "--file",
                 bench.fixtures.camera(FRAME_SECONDS, 50), "--period", str(FRAME_SECONDS), "--viewers", str(viewers),
                 "--seconds", str(seconds), "--warmup", str(warmup)]
    runs = []
    for _ in range(1 if bench.options.quick else 3):
        server, admin = start_weir(bench)
        before = counters(admin)
        try:
            run = measure(bench, server, arguments, "hls")
            run.update(copied(before, counters(admin)))
            runs.append(run)
        finally:
            servers.stop_all()
    return {"row": name, "kind": "live", "viewers": viewers, "stalled": 0, "period": 0, "servers": {"weir": runs}}


def copied(before, after):
    """Bytes copied per byte received and per byte sent, out of two looks at Weir's counters."""
    grown = {key: after[key] - before.get(key, 0) for key in after}
    total = grown["weir_bytes_copied_total"]
    return {"copied_per_received": total / max(1, grown["weir_bytes_received_total"]),
            "copied_per_sent": total / max(1, grown["weir_bytes_sent_total"])}


def measure(bench, server, arguments, command="live"):
    pids = ",".join(map(str, server.pids()))
    address = next(iter(server.addresses.values()))
    return bench.quietly(server, lambda: bench.client(command, "--addr", address, "--pid", pids, *arguments))


def measure_xiu(bench, common):
    """xiu takes RTMP; ffmpeg publishes a like file at its own speed, with a keyframe every two seconds, since xiu sends
    all from the last one on to whoever joins. Its viewers see no marks."""
    rtmp, flv = servers.free_port(), servers.free_port()
    address, fixture = f"{servers.HOST}:{flv}", bench.fixtures.camera(FRAME_SECONDS, 50)
    # Its least log level has a line for each viewer that comes too early or goes.
    server = servers.Server("xiu", [bench.xiu, "-r", str(rtmp), "-f", str(flv), "-l", "error"], {"xiu": address}, 0,
                            quiet=True)
    command = ["ffmpeg", "-v", "error", "-re", "-stream_loop", "-1", "-i", fixture, "-c", "copy", "-f", "flv",
               f"rtmp://{servers.HOST}:{rtmp}/live/cam"]
    publisher = subprocess.Popen(["taskset", "-c", "1", *command], stdin=subprocess.DEVNULL,
                                 stderr=subprocess.DEVNULL, preexec_fn=servers.prepare_child)
    try:
        check_samples(f"http://{address}/live/cam.flv", fixture)
        run = measure(bench, server, ["--view", "/live/cam.flv", *common])
        run["received_of_due"] = run["bytes"] / (BYTES_PER_SECOND * run["seconds"] * run["viewers"])
        return run
    finally:
        publisher.kill()
        publisher.wait()


def check_samples(url, file, seconds=20):
    """A second of a stream has the very samples of the file that is published, by digest and in their order. Waits for
    the stream to be there."""
    published, deadline = digests(file), time.monotonic() + seconds
    while not (seen := digests(url, "-analyzeduration", "500000", "-read_intervals", "%+1")):
        if time.monotonic() > deadline:
            raise RuntimeError(f"{url}: no samples in {seconds} s")
        time.sleep(0.2)
    first = published.index(seen[0]) if seen[0] in published else 0
    if len(seen) < 10 or seen != (published * 2)[first:first + len(seen)]:
        raise RuntimeError(f"{url}: samples differ from those of {file}")


def digests(source, *arguments):
    """Of each video sample, as ffprobe finds them."""
    command = ["ffprobe", "-v", "error", "-select_streams", "v", "-show_entries", "packet=data_hash", "-show_data_hash",
               "md5", "-of", "csv=p=0", *arguments, source]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    return done.stdout.split()


def ingest_row(bench, name, publishers):
    """Publishers that send as fast as they can; nobody watches."""
    results, seconds = [], 1.0 if bench.options.quick else 2.0
    for _ in range(2 if bench.options.quick else 5):
        server, admin = start_weir(bench)
        before = counters(admin)
        pids = ",".join(map(str, server.pids()))
        arguments = ["ingest", "--addr", server.addresses["weir"], "--path", "/live/cam", "--key", KEY, "--file",
                     bench.fixtures.camera(FRAME_SECONDS), "--publishers", str(publishers), "--seconds", str(seconds),
                     "--pid", pids]
        run = bench.quietly(server, lambda: bench.client(*arguments))
        run.update(copied(before, counters(admin)))
        results.append(run)
        servers.stop_all()
    return {"row": name, "kind": "ingest", "publishers": publishers, "runs": results}
