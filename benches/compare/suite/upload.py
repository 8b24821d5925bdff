"""Uploads: bodies sent with PUT to Weir, to nginx's dav module, and to loops that receive and do nothing else."""

import filecmp
import os
import shutil
import statistics

from . import servers
from .live import KEY
from .tables import number, ratio, show, table

KIND = "upload"
# name: bodies that are sent at the same time.
ROWS = {"upload-1": 1, "upload-8": 8}
NAMES = list(ROWS)
NGINX = {
    "dav, buffer 1m": "dav_methods PUT; client_max_body_size 0; client_body_buffer_size 1m;",
    "dav, buffer 16k": "dav_methods PUT; client_max_body_size 0; client_body_buffer_size 16k;",
}
LOOPS = {"memory": "loop: receive", "write": "loop: receive and write", "sync": "loop: receive, write and sync"}
# What each server does with a body, as the loop that does the same.
SAME_WORK = {"weir": LOOPS["sync"], "nginx": LOOPS["write"]}

NOTE = """
Bodies are pieces of one hot file, 1 GiB together (256 MiB in quick mode), sent with sendfile to a server on one core.
Weir answers when the file is synced and has its name; nginx when it is renamed, and syncs nothing. So each is
compared with the loop that does the same work. What the disk takes is in MB/s; CPU time is what the server costs. The
first upload to each server is compared with what was sent, byte for byte.
"""


def row(bench, name):
    total = (256 if bench.options.quick else 1024) << 20
    entrants = starts(bench)
    results = {label: [] for label in entrants}
    for label, start in entrants.items():
        run(bench, start, 1, 4 << 20, check=True)
    for _ in range(1 if bench.options.quick else 3):
        for label in (*entrants, *reversed(entrants)):
            results[label].append(run(bench, entrants[label], ROWS[name], total // ROWS[name]))
    return {"row": name, "kind": KIND, "uploads": ROWS[name], "servers": results}


def starts(bench):
    """{label: what starts that server for a directory; gives it and the path of its uploads}"""
    entrants, work = {}, bench.fixtures.work

    def weir(directory):
        state = os.path.join(work, "state-upload")
        shutil.rmtree(state, ignore_errors=True)
        command, address = servers.weir_command(bench.weir, directory, state)
        command += ["--write-key", KEY, "--record", "false"]
        return servers.Server("weir", command, {"one": address}, 0, {"WEIR_LOG": "warn"}), "/videos/upload"

    def nginx(settings):
        return lambda directory: (servers.nginx(work, directory, {"one": settings}), "/upload")

    def loop(mode):
        def start(directory):
            address = f"{servers.HOST}:{servers.free_port()}"
            return servers.Server(LOOPS[mode], [bench.sink, address, directory, mode], {"one": address}, 0), "/upload"
        return start

    if bench.weir and bench.wants("weir"):
        entrants["weir"] = weir
    if bench.wants("nginx"):
        entrants.update({f"nginx: {name}": nginx(settings) for name, settings in NGINX.items()})
    if bench.wants("floor"):
        entrants.update({label: loop(mode) for mode, label in LOOPS.items()})
    return entrants


def run(bench, start, uploads, size, check=False):
    """One measurement, on a fresh server with an empty directory."""
    directory = os.path.join(bench.fixtures.work, "uploads")
    shutil.rmtree(directory, ignore_errors=True)
    os.makedirs(directory)
    server, path = start(directory)
    source = bench.fixtures.path("hot.bin")
    arguments = ["upload", "--addr", server.addresses["one"], "--path", path, "--file", source, "--bytes", str(size),
                 "--uploads", str(uploads), "--key", KEY, "--pid", ",".join(map(str, server.pids()))]
    try:
        answer = bench.quietly(server, lambda: bench.client(*arguments))
        if check and server.name != LOOPS["memory"]:
            compare(os.path.join(directory, "upload0"), source, size, directory)
        return answer
    finally:
        servers.stop_all()
        shutil.rmtree(directory, ignore_errors=True)


def compare(received, source, size, directory):
    expected = os.path.join(directory, "expected")
    with open(source, "rb") as original, open(expected, "wb") as copy:
        copy.write(original.read(size))
    if not filecmp.cmp(received, expected, shallow=False):
        raise RuntimeError(f"{received} is not what was sent")


def section(rows, _verdicts):
    lines = []
    for found in rows:
        cpu = {label: [run["server_cpu_ms_per_gb"] for run in runs] for label, runs in found["servers"].items()}
        best = min((label for label in cpu if label.startswith("nginx")), key=lambda l: statistics.median(cpu[l]),
                   default=None)
        for label, values in cpu.items():
            same = SAME_WORK.get(label.split(":")[0])
            to_loop = ratio(values, cpu[same]) if same in cpu else None
            to_nginx = ratio(values, cpu[best]) if best and label == "weir" else None
            rate = [run["mb_per_second"] for run in found["servers"][label]]
            lines.append([found["uploads"], label, number(values), number(rate), show(to_loop), show(to_nginx)])
    head = ["uploads", "server", "CPU ms/GB", "MB/s", "CPU to the loop of the same work", "CPU to nginx's best"]
    return table("## Uploads", head, lines) + NOTE
