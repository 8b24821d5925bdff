"""The start of Weir with a library of a thousand videos, with and without its cache of indexes, and with the files in
the page cache and not: from exec to the first byte of a chunk that is asked for by time, so that its index is needed."""

import os
import shutil

from . import servers
from .rows import START_VIDEOS, index_all, interval
from .tables import number, show, table, verdict

NAME = "start-cases"
REQUEST = "/videos/v0500.mp4/chunk?time=30&size=65536"
# Whether there is a cache of indexes; the names say what of the files is in the page cache.
CASES = {"no cache, cold": False, "no cache, warm": False, "cache, cold": True, "cache, warm": True}
NGINX_CASES = ("nginx, cold", "nginx, warm")
BUDGET_MS, BUDGET_BYTES = 20, 20_000_000

NOTE = """
The request is for a chunk at 30 s of one video. Without a cache its index is built for it, the others by the background
indexer; with one its entry is opened. Cold: library, cache and binary are dropped from the page cache before each start
(`posix_fadvise`); directories and inodes stay. Memory: RSS when the first byte is there. nginx knows no times: it sends
the first byte of the same file, and its memory is that of the master alone.
"""


def row(bench):
    fixtures = bench.fixtures
    full, empty = f"{fixtures.work}/state-many", f"{fixtures.work}/state-none"
    pending = index_all(bench, fixtures.many, full, 20 if bench.options.quick else 90)
    results = {case: [] for case in CASES}
    nginx = shutil.which("nginx") if bench.wants("nginx") else None
    if nginx:
        results.update({case: [] for case in NGINX_CASES})
    for turn in range(3 if bench.options.quick else 9):
        for case in list(results) if turn % 2 == 0 else reversed(results):
            path, warm = REQUEST, case.endswith("warm")
            if case in NGINX_CASES:
                path = "/v0500.mp4"
                command, addresses = servers.nginx_command(fixtures.work, fixtures.many, {"one": "sendfile on;"}, 1)
                address = addresses["one"]
            else:
                state = full if CASES[case] else empty
                if state == empty:
                    shutil.rmtree(empty, ignore_errors=True)
                command, address = servers.weir_command(bench.weir, fixtures.many, state)
            touch([fixtures.many, full, bench.weir, *filter(None, [nginx])], drop=not warm)
            run = bench.client("start", "--addr", address, "--path", path, "--timeout", "30", "--", *command, core=None)
            if run["status"] != "206":
                raise RuntimeError(f"{case}: answered {run['status']}")
            results[case].append(run)
    return {"row": NAME, "kind": NAME, "cases": results, "pending": pending}


def touch(paths, drop):
    """Reads the files, so that they are in the page cache, or drops them from it."""
    for path in (file for path in paths for file in files(path)):
        with open(path, "rb", buffering=0) as file:
            if drop:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            else:
                while file.read(1 << 20):
                    pass


def files(path):
    if os.path.isfile(path):
        return [path]
    return [os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names]


def section(rows, verdicts):
    lines, found = [], rows[0]
    for case, runs in found["cases"].items():
        times = [run["first_byte_ms"] for run in runs]
        memory = [run["rss_bytes"] / 1e6 for run in runs]
        lines.append([case, show(interval(times), 1), f"{min(times):.1f}", f"{max(times):.1f}", number(memory, 1)])
        if case == "cache, warm" and not found["pending"]:
            kept = interval(times)["median"] <= BUDGET_MS
            verdict(verdicts, f"exec to the first byte of a chunk by time, {START_VIDEOS:,} videos",
                    f"≤ {BUDGET_MS} ms", f"{show(interval(times), 1)} ms", kept)
            verdict(verdicts, "memory at that point", "≤ 20 MB", f"{number(memory, 1)} MB",
                    max(memory) * 1e6 <= BUDGET_BYTES)
    title = f"## Start with {START_VIDEOS:,} videos: exec to the first byte of a chunk by time, ms"
    return table(title, ["case", "median", "least", "most", "RSS, MB"], lines) + NOTE
