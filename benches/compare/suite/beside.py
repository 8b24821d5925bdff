"""A viewer of hot chunks alone, and beside other work of the same server: still frames, and a benchmark that runs."""

import os
import random
import shutil
import statistics
import threading
import time
import urllib.error
import urllib.request

from . import servers
from .rows import Entrant, interval
from .tables import number, show, table, verdict

KIND = "beside"
# name: what runs beside, and the largest ratio of p99 to that alone.
ROWS = {"beside-stills": ("still frames, 4 clients", 1.5), "beside-bench": ("a benchmark at a time", 1.2)}
NAMES = list(ROWS)
FRAMES, STILL_CLIENTS = 600, 4
HOT_BYTES = 256 << 20
BENCHMARKS = ("chunk-slice", "dot-product", "mp4-index", "part-fanout")

NOTE = """
One core for the server, the client on the other. A client reads hot 256 KiB chunks (of 256 MiB, read in before each
measurement) at 200 per second on four connections, alone and beside the other work, in turn; the order is reversed every other round. Stills: each another frame and
width of a 1280x720 H.264 video, enhanced, so that every one is decoded. Benchmarks: one run after the other of `POST
/debug/bench/{name}`.
"""


def row(bench, name):
    state = os.path.join(bench.fixtures.work, "state-beside")
    shutil.rmtree(state, ignore_errors=True)
    library = os.path.join(bench.fixtures.work, "stills")
    os.makedirs(library, exist_ok=True)
    bench.fixtures.moving(os.path.join(library, "v.mp4"), FRAMES)
    hot = os.path.join(library, "hot.bin")
    if not os.path.exists(hot):
        os.link(bench.fixtures.path("hot.bin"), hot)
    command, address = servers.weir_command(bench.weir, library, state)
    admin = command[command.index("--admin") + 1]
    server = servers.Server("weir", [*command, "--record", "false"], {"one": address}, 0, {"WEIR_LOG": "warn"})
    entrant, seconds = Entrant(server, "one", ""), 2.0 if bench.options.quick else 6.0
    hot_group = f"name=hot,path=/videos/hot.bin/file,size=256k,file-size={HOT_BYTES},connections=4,rate=200"
    stills = f"name=stills,urls={still_urls(bench)},connections={STILL_CLIENTS}"

    def load(groups, turn):
        # A kernel that reclaims what was not used for a while (DAMON) leaves nothing hot by itself.
        with open(hot, "rb", buffering=0) as file:
            for _ in range(HOT_BYTES >> 20):
                file.read(1 << 20)
        return bench.load(entrant, groups, seconds, 0.5, turn)

    def beside(turn):
        if name == "beside-stills":
            run = load([hot_group, stills], turn)
            return run, run["groups"][1]["requests_per_second"]
        with Benchmarks(admin) as benchmarks:
            run = load([hot_group], turn)
        return run, benchmarks.done / seconds

    rounds = []
    try:
        load([hot_group], 0)
        for turn in range(3 if bench.options.quick else 7):
            if turn % 2 == 0:
                alone, (busy, rate) = load([hot_group], turn), beside(turn)
            else:
                (busy, rate), alone = beside(turn), load([hot_group], turn)
            figures = lambda run: {key: run["groups"][0]["whole_us"][key] for key in ("p50", "p99")}
            rounds.append({"alone": figures(alone), "beside": figures(busy), "other_per_second": rate,
                           "errors": sum(group["errors"] for group in busy["groups"])})
    finally:
        servers.stop_all()
    if not any(found["other_per_second"] for found in rounds):
        raise RuntimeError(f"{name}: nothing ran beside the viewer")
    return {"row": name, "kind": KIND, "rounds": rounds}


def still_urls(bench):
    rng, path = random.Random(3), os.path.join(bench.fixtures.work, "stills.urls")
    with open(path, "w", encoding="utf-8") as file:
        for _ in range(5000):
            frame, width = rng.randrange(FRAMES), rng.randrange(200, 1200)
            file.write(f"/videos/v.mp4/frame.jpg?frame={frame}&width={width}&enhance=.5\n")
    return path


class Benchmarks:
    """Runs benchmarks of the server, one after the other, until it is left; `done` counts those that ended well."""

    def __init__(self, admin):
        self.admin, self.done, self.left = admin, 0, threading.Event()
        self.thread = threading.Thread(target=self._go, daemon=True)

    def __enter__(self):
        self.thread.start()
        time.sleep(0.3)
        return self

    def __exit__(self, *_):
        self.left.set()
        self.thread.join(60)

    def _go(self):
        turn = 0
        while not self.left.is_set():
            name = BENCHMARKS[turn % len(BENCHMARKS)]
            turn += 1
            request = urllib.request.Request(f"http://{self.admin}/debug/bench/{name}?repeat=1&format=json", b"",
                                             method="POST")
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    answer.read()
                self.done += 1
            except urllib.error.HTTPError as error:
                if error.code != 503:
                    raise
                time.sleep(0.1)


def section(rows, verdicts):
    lines = []
    for found in rows:
        what, budget = ROWS[found["row"]]
        take = lambda case, key: [turn[case][key] for turn in found["rounds"]]
        factor = interval([turn["beside"]["p99"] / turn["alone"]["p99"] for turn in found["rounds"]])
        lines.append([what, number(take("alone", "p50")), number(take("beside", "p50")), number(take("alone", "p99")),
                      number(take("beside", "p99")), show(factor),
                      f"{statistics.median(turn['other_per_second'] for turn in found['rounds']):.1f}",
                      sum(turn["errors"] for turn in found["rounds"])])
        verdict(verdicts, f"p99 of hot chunks beside {what}", f"≤ {budget} of alone", show(factor),
                factor["median"] <= budget)
    head = ["beside", "p50 alone, µs", "p50 beside", "p99 alone", "p99 beside", "p99 to alone", "of these per second",
            "errors"]
    return table("## A viewer of hot chunks beside other work of the server, one core", head, lines) + NOTE
