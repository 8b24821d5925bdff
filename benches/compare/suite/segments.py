"""Segments and playlists of a live stream: out of Weir's window, and the same bytes as files of nginx and others."""

import os
import shutil
import statistics
import time
import urllib.error
import urllib.request

from . import servers
from .live import KEY
from .rows import Entrant, summarise_seeks
from .tables import number, ratio, show, table

KIND = "segments"
ROWS = {"segments-c16": 16, "playlists-c16": 16}
NAMES = list(ROWS)

NOTE = """
Forty seconds of a 4 Mb/s stream, published at once; its whole segments and its playlist (without gzip, which nobody asked
for) are read again and again. Weir takes them out of the live window. The others have the same bytes as files: all
bodies are compared before anything is measured. The write loop sends as many bytes per answer. nginx and
static-web-server have no playlist that changes; theirs is the file that it was at one moment.
"""


def row(bench, name):
    server = publish(bench)
    try:
        base = f"http://{server.addresses['weir']}/live/cam/"
        bodies = {"index.m3u8": fetch(base + "index.m3u8")}
        for line in bodies["index.m3u8"].decode().splitlines():
            if line.startswith("segment-"):
                bodies[line] = fetch(base + line)
        if len(bodies) < 3:
            raise RuntimeError("the playlist has no segments")
        wanted = [item for item in bodies if item.startswith("segment-") == name.startswith("segments")]
        size = round(statistics.mean(len(bodies[item]) for item in wanted))
        entrants = open_others(bench, bodies)
        if bench.wants("weir"):
            entrants.insert(0, ("weir", server, "/live/cam/"))
        check(entrants, bodies)
        return measure(bench, name, entrants, wanted, size)
    finally:
        servers.stop_all()


def publish(bench):
    """Weir with a stream whose publisher has gone and may come back for as long as the row lasts."""
    fixtures, state = bench.fixtures, os.path.join(bench.fixtures.work, "state-segments")
    shutil.rmtree(state, ignore_errors=True)
    command, address = servers.weir_command(bench.weir, fixtures.library, state)
    command += ["--write-key", KEY, "--record", "false", "--reconnect-window", "600 s"]
    server = servers.Server("weir", command, {"weir": address}, 0, {"WEIR_LOG": "warn"})
    with open(fixtures.camera(0.04, 50), "rb") as file:
        request = urllib.request.Request(f"http://{address}/live/cam", file.read(), method="PUT",
                                         headers={"Authorization": f"Bearer {KEY}", "Content-Type": "video/mp4"})
    with urllib.request.urlopen(request, timeout=30):
        return server


def fetch(url):
    deadline = time.monotonic() + 10
    while True:
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return answer.read()
        except urllib.error.HTTPError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def open_others(bench, bodies):
    """The bodies as files; [(label, server, path of the directory)]."""
    directory = os.path.join(bench.fixtures.work, "segments")
    shutil.rmtree(directory, ignore_errors=True)
    os.makedirs(directory)
    for name, body in bodies.items():
        with open(os.path.join(directory, name), "wb") as file:
            file.write(body)
    entrants = []
    if bench.wants("nginx"):
        for variant, settings in {"sendfile": "sendfile on; tcp_nopush off;",
                                  "no sendfile": "sendfile off; output_buffers 2 1m;"}.items():
            server = servers.nginx(bench.fixtures.work, directory, {"one": settings})
            entrants.append((f"nginx: {variant}", server, "/"))
    if bench.sws and bench.wants("static-web-server"):
        entrants.append(("static-web-server", servers.sws(bench.sws, directory), "/"))
    return entrants


def check(entrants, bodies):
    for label, server, path in entrants:
        address = next(iter(server.addresses.values()))
        for name, body in bodies.items():
            if fetch(f"http://{address}{path}{name}") != body:
                raise RuntimeError(f"{label}: {name} differs")


def measure(bench, name, entrants, wanted, size):
    groups, connections = {}, ROWS[name]
    for label, server, path in entrants:
        urls = os.path.join(bench.fixtures.work, f"{label.replace(':', '').replace(' ', '-')}-{name}.urls")
        with open(urls, "w", encoding="utf-8") as file:
            file.writelines(f"{path}{item}\n" for item in wanted)
        groups[label] = (Entrant(server, next(iter(server.addresses)), ""), f"urls={urls},connections={connections}")
    if bench.wants("floor"):
        loop = servers.floor(bench.floor, bench.fixtures.path("hot.bin"), "write loop", "epoll")
        spec = f"path=/,size={size},file-size={bench.fixtures.hot_bytes},connections={connections}"
        groups["write loop"] = (Entrant(loop, "epoll", ""), spec)
    results = {label: [] for label in groups}
    seconds = 0.4 if bench.options.quick else 1.0
    for turn in range(max(2, bench.options.rounds)):
        for label in (*groups, *reversed(groups)):
            entrant, group = groups[label]
            results[label].append(bench.load(entrant, [group], seconds, 0.2, turn))
    return {"row": name, "kind": KIND, "size": size,
            "servers": {label: summarise_seeks(runs) for label, runs in results.items()}}


def section(rows, _verdicts):
    lines = []
    for found in rows:
        rates = {label: r["requests_per_second"] for label, r in found["servers"].items()}
        nginx = max((label for label in rates if label.startswith("nginx")),
                    key=lambda l: statistics.median(rates[l]), default=None)
        for label, r in found["servers"].items():
            to_nginx = ratio(rates[label], rates[nginx]) if nginx and label != nginx else None
            lines.append([found["row"], label, number(rates[label]), show(to_nginx), number(r["cpu_us_per_request"], 1),
                          number(r["p50_us"]), number(r["p99_us"]), f"{found['size']:,}"])
    head = ["row", "server", "requests/s", "to nginx's best", "CPU µs/request", "p50 µs", "p99 µs", "bytes/answer"]
    return table("## Segments and playlists of a live stream", head, lines) + NOTE
