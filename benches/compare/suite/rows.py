"""The rows: what is asked of which server, how often, and what comes out of it.

Servers that are compared run at the same time and are measured in turn, forwards and then backwards (A B C C B A), so
that a slow drift of the machine meets all of them. A round gives one value per server; ratios are taken within a round.
"""

import json
import os
import random
import statistics
import subprocess
import sys
import time
import urllib.request

from . import machine, servers
from .fixtures import START_VIDEOS

MIB = 1 << 20
SIZES = {"20m": 20 * MIB, "1m": MIB, "256k": 256 * 1024, "4k": 4096}
CONNECTIONS = (1, 16, 256)
FOREIGN_CORES_MAX = 0.10
# Socket buffers hold this much; with more in flight a window must be long, or it counts bytes sent before it began.
BUFFERED_BYTES = 2_000_000_000
IDLE_CONNECTIONS = 10_000
COLD_STREAM_RATE = 10


class Bench:
    """Everything a row needs: options, the load client, the fixtures, and where progress goes."""

    def __init__(self, options, programs, fixtures, say):
        self.options, self.fixtures, self.say = options, fixtures, say
        self.drain, self.floor, self.fanout, self.sink, self.weir, self.xiu, self.sws = (
            programs.get(name) for name in ("drain", "floor", "fanout", "sink", "weir", "xiu", "static-web-server"))
        self.retries_left = options.retries
        self.congestion = ""
        self.noisy = self.measured = 0

    def wants(self, server):
        return not self.options.only or server in self.options.only.split(",")

    def client(self, *arguments, core=1, timeout=60):
        """Runs the load client and returns the JSON it printed."""
        pin = [] if core is None else ["taskset", "-c", str(core)]
        done = subprocess.run([*pin, self.drain, *arguments], capture_output=True, text=True, timeout=timeout)
        if done.returncode != 0:
            raise RuntimeError(done.stderr.strip() or "the load client failed")
        return json.loads(done.stdout.splitlines()[-1])

    def load(self, entrant, groups, seconds, warmup, seed, core=1, copy=False):
        """One measurement of the load client."""
        command = ["load", "--addr", entrant.address, "--seconds", str(seconds), "--warmup", str(warmup),
                   "--seed", str(seed), "--pid", ",".join(map(str, entrant.server.pids()))]
        if copy:
            command.append("--copy")
        for group in groups:
            command += ["--group", group]
        return self.quietly(entrant.server, lambda: self.client(*command, core=core, timeout=seconds + warmup + 60))

    def quietly(self, server, measure):
        """Measures, again if somebody else used the machine meanwhile, as long as there are retries."""
        while True:
            clock = machine.Clock()
            before = own_cpu_seconds(server)
            try:
                result = measure()
            except RuntimeError as error:
                ended = server.process.poll()
                state = "runs" if ended is None else f"has ended with {ended}"
                raise RuntimeError(f"{server.name}, which {state}: {error}") from error
            result["foreign_cores"] = clock.foreign(own_cpu_seconds(server) - before)
            quiet = result["foreign_cores"] <= FOREIGN_CORES_MAX
            if quiet or self.retries_left == 0:
                self.measured += 1
                self.noisy += not quiet
                return result
            self.retries_left -= 1
            time.sleep(0.3)


class Entrant:
    """A server in one of its variants."""

    def __init__(self, server, variant, path):
        self.server, self.variant, self.path = server, variant, path
        self.address = server.addresses[variant]
        self.label = server.name if len(server.addresses) == 1 else f"{server.name}: {variant}"


def own_cpu_seconds(server):
    """CPU time of a server, of this program and of the clients it has waited for."""
    total = sum(os.times()[:4])
    for pid in server.pids():
        try:
            total += time.clock_gettime(((~pid) << 3) | 2)  # clock_getcpuclockid(3)
        except OSError:
            continue
    return total


def interval(values, draws=2000):
    """Median with a 95 % bootstrap interval."""
    if not values:
        return None
    rng = random.Random(1)
    medians = sorted(statistics.median(rng.choices(values, k=len(values))) for _ in range(draws))
    low, high = medians[int(draws * 0.025)], medians[int(draws * 0.975)]
    return {"median": statistics.median(values), "low": low, "high": high}


def open_servers(bench, core=0, workers=1):
    """The entrants for hot ranges."""
    fixtures, entrants = bench.fixtures, []
    if bench.weir and bench.wants("weir"):
        server = servers.weir(bench.weir, fixtures.library, fixtures.work, core)
        entrants.append(Entrant(server, "weir", "/videos/hot.bin/file"))
    if bench.wants("nginx"):
        server = servers.nginx(fixtures.work, fixtures.library, servers.NGINX_VARIANTS, core, workers)
        entrants += [Entrant(server, variant, "/hot.bin") for variant in servers.NGINX_VARIANTS]
    if bench.sws and bench.wants("static-web-server"):
        server = servers.sws(bench.sws, fixtures.library, core)
        entrants.append(Entrant(server, "static-web-server", "/hot.bin"))
    if bench.wants("floor"):
        for name, mode in (("write loop", "epoll"), ("write loop", "blocking"), ("sendfile loop", "sendfile")):
            server = servers.floor(bench.floor, fixtures.path("hot.bin"), name, mode, core, workers)
            entrants.append(Entrant(server, mode, "/hot.bin"))
    return entrants


def verify(bench, entrants):
    """Every server must send the very bytes of the file before it is measured."""
    for entrant in entrants:
        answer = bench.client("verify", "--addr", entrant.address, "--path", entrant.path, "--file",
                              bench.fixtures.path("hot.bin"), "--sizes", "1,4k,256k,1m,20m", "--count", "3")
        if answer.get("equal") is not True:
            raise RuntimeError(f"{entrant.label}: bodies differ from the file")


def family(entrant):
    return entrant.server.name.split(",")[0]


def range_row(bench, entrants, size, connections, core=1, copy=False):
    """Random ranges of the hot file. The best variants of nginx and of the write loop go into the rounds."""
    options = bench.options
    seconds, warmup = (0.3 if options.quick else 0.6), 0.15
    if connections * SIZES[size] > BUFFERED_BYTES:
        seconds, warmup = 4 * seconds, 0.8
    aligned = ",align=4096" if options.aligned else ""

    def once(entrant, seed, scale=1.0):
        group = f"path={entrant.path},size={size},file-size={bench.fixtures.hot_bytes},connections={connections}"
        group += aligned
        return bench.load(entrant, [group], seconds * scale, warmup, seed, core, copy)

    finalists, trials = choose(entrants, lambda entrant: once(entrant, 99, 0.7), connections)
    results = {entrant.label: [] for entrant in finalists}
    for turn in range(options.rounds):
        for entrant in [*finalists, *reversed(finalists)]:
            results[entrant.label].append(once(entrant, 1000 + turn))
    return {"row": f"range-{size}-c{connections}", "kind": "range", "size": size, "connections": connections,
            "trials": trials, "servers": {e.label: summarise(results[e.label], SIZES[size]) for e in finalists},
            "families": {e.label: family(e) for e in finalists}}


def choose(entrants, measure, connections):
    """Weir as it is; of each other family the variants with the least CPU per byte and with the most requests."""
    trials, finalists = {}, []
    for name in dict.fromkeys(map(family, entrants)):
        members = [e for e in entrants if family(e) == name]
        if name == "write loop" and connections > 16:
            members = [e for e in members if e.variant == "epoll"]
        if len(members) == 1:
            finalists += members
            continue
        scores = {}
        for member in members:
            result = measure(member)
            scores[member] = result["server_cpu_ms_per_gb"], result["bytes"] / result["seconds"]
            trials[member.label] = {"cpu_ms_per_gb": scores[member][0], "mb_per_second": scores[member][1] / 1e6}
        cheapest = min(members, key=lambda m: scores[m][0] or float("inf"))
        fastest = max(members, key=lambda m: scores[m][1])
        finalists += dict.fromkeys([cheapest, fastest])
    return finalists, trials


def summarise(runs, size):
    """Per-round means of the two turns of each round, for each figure. Requests are counted in bytes, so that long
    answers at the edges of the window count for what was seen of them."""
    def figures(run):
        group = run["groups"][0]
        return {
            "cpu_ms_per_gb": run["server_cpu_ms_per_gb"],
            "cpu_us_per_request": run["server_cpu_ns"] / 1e3 / max(1, group["bytes"] / size),
            "client_cpu_ms_per_gb": run["client_cpu_ms_per_gb"],
            "requests_per_second": group["bytes"] / run["seconds"] / size,
            "mb_per_second": group["mb_per_second"],
            "p50_us": group["whole_us"]["p50"],
            "p99_us": group["whole_us"]["p99"],
            "first_byte_p50_us": group["first_byte_us"]["p50"],
            "errors": group["errors"],
            "foreign_cores": run["foreign_cores"],
        }
    # In the order A B C C B A the two runs of a round are neighbours in each server's own list.
    pairs = [(figures(a), figures(b)) for a, b in zip(runs[::2], runs[1::2])]
    return {key: [(a[key] + b[key]) / 2 for a, b in pairs] for key in pairs[0][0]}


def seek_row(bench, connections):
    """Seeks in a day-long file, each to another moment; nginx sends a second of it with a new moov box."""
    fixtures, entrants = bench.fixtures, []
    urls, times = {}, fixtures.seek_times()
    if bench.wants("nginx"):
        server = servers.nginx(fixtures.work, fixtures.library, {"sendfile": "sendfile on; tcp_nopush off;"})
        nginx, template = Entrant(server, "sendfile", ""), "/day.mp4?start={start}&end={end}"
        # Of some moments it says that there is no data between start and end: nobody is asked for those.
        times = [start for start in times if answers(nginx.address, template.format(start=start, end=start + 1))]
        bench.say(f"  nginx answers {len(times)} of {len(fixtures.seek_times())} seeks")
        entrants.append(("nginx mp4", nginx))
        urls["nginx mp4"] = fixtures.seek_urls("nginx-mp4", template, times)
    if bench.weir and bench.wants("weir"):
        server = servers.weir(bench.weir, fixtures.library, fixtures.work)
        for name, template in {
            "weir /seek": "/videos/day.mp4/seek?time={start}",
            "weir /chunk": "/videos/day.mp4/chunk?time={start}&size=65536",
            "weir /chunk as=fmp4": "/videos/day.mp4/chunk?time={start}&as=fmp4&duration=1",
        }.items():
            entrants.append((name, Entrant(server, "weir", "")))
            urls[name] = fixtures.seek_urls(name.replace(" ", "-").replace("/", ""), template, times)
    seconds, results = (0.5 if bench.options.quick else 1.5), {}
    for turn in range(max(2, bench.options.rounds // 2)):
        for name, entrant in [*entrants, *reversed(entrants)]:
            try:
                run = bench.load(entrant, [f"urls={urls[name]},connections={connections}"], seconds, 0.3, turn)
            except RuntimeError as error:
                bench.say(f"  {name}: {error}")
                entrants = [other for other in entrants if other[0] != name]
                continue
            results.setdefault(name, []).append(run)
    servers.stop_all()
    rows = {name: summarise_seeks(runs) for name, runs in results.items()}
    return {"row": f"seek-c{connections}", "kind": "seek", "connections": connections, "servers": rows}


def summarise_seeks(runs):
    pairs = list(zip(runs[::2], runs[1::2]))
    mean = lambda pick: [(pick(a) + pick(b)) / 2 for a, b in pairs]
    return {
        "requests_per_second": mean(lambda r: r["groups"][0]["requests_per_second"]),
        "cpu_us_per_request": mean(lambda r: r["server_cpu_us_per_request"]),
        "p50_us": mean(lambda r: r["groups"][0]["whole_us"]["p50"]),
        "p99_us": mean(lambda r: r["groups"][0]["whole_us"]["p99"]),
        "errors": mean(lambda r: r["groups"][0]["errors"]),
        "bytes_per_answer": mean(lambda r: r["bytes"] / max(1, r["requests"])),
    }


def index_row(bench):
    """The first index of the day-long file: time and peak memory of a process that does only this."""
    command = [bench.weir, "inspect", bench.fixtures.path("day.mp4"), "--timecode", "12:34:56:07", "--json"]
    # By a process of its own: a peak is inherited from whoever starts a program, and this one has read large files.
    measure = ("import os, subprocess, sys, time; began = time.monotonic(); "
               "process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL); "
               "_, status, usage = os.wait4(process.pid, 0); "
               "print(status, time.monotonic() - began, usage.ru_maxrss)")
    seconds, peak_bytes = [], []
    for _ in range(3 if bench.options.quick else 7):
        done = subprocess.run([sys.executable, "-c", measure, *command], capture_output=True, text=True, check=True)
        status, took, peak_kib = done.stdout.split()
        if int(status) != 0:
            raise RuntimeError(f"weir inspect ended with {os.waitstatus_to_exitcode(int(status))}")
        seconds.append(float(took))
        peak_bytes.append(int(peak_kib) * 1024)
    return {"row": "index", "kind": "index", "seconds": seconds, "peak_bytes": peak_bytes}


def idle_row(bench):
    """Memory of ten thousand connections that each did one request and stay open."""
    results, fixtures = {}, bench.fixtures
    starts = {}
    if bench.weir and bench.wants("weir"):
        starts["weir"] = (lambda: servers.weir(bench.weir, fixtures.library, fixtures.work), "/videos/hot.bin/file")
    if bench.wants("nginx"):
        variants = {"sendfile": "sendfile on; tcp_nopush off;"}
        starts["nginx"] = (lambda: servers.nginx(fixtures.work, fixtures.library, variants), "/hot.bin")
    for name, (start, path) in starts.items():
        server = start()
        address = next(iter(server.addresses.values()))
        hold_idle(bench, address, path, 20, lambda: None)
        time.sleep(0.5)
        before, kernel_before = machine.memory_kb(server.pids()), machine.kernel_kb()
        seen = {}

        def look():
            seen["after"], seen["kernel"] = machine.memory_kb(server.pids()), machine.kernel_kb()

        opened, alive, error = hold_idle(bench, address, path, IDLE_CONNECTIONS, look)
        server.stop()
        per = lambda kib: kib * 1024 / opened if opened else 0
        results[name] = {
            "open": opened, "alive_after_hold": alive, "error": error,
            "rss_per_connection": per(seen["after"][0] - before[0]),
            "anonymous_per_connection": per(seen["after"][1] - before[1]),
            "rss_before": before[0] * 1024, "rss_total": seen["after"][0] * 1024,
            "kernel_slab_per_connection": per(seen["kernel"][0] - kernel_before[0]),
            "kernel_buffers_per_connection": per(seen["kernel"][1] - kernel_before[1]),
        }
    return {"row": "idle", "kind": "idle", "servers": results}


def hold_idle(bench, address, path, count, look):
    """Opens connections, calls `look` while they are held, and returns how many opened and how many lasted."""
    what = ["--addr", address, "--path", path, "--connections", str(count)]
    command = ["taskset", "-c", "1", bench.drain, "idle", *what]
    client = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                              preexec_fn=servers.prepare_child)
    try:
        opened = json.loads(client.stdout.readline())
        time.sleep(1)
        look()
        client.stdin.close()
        alive = json.loads(client.stdout.readline() or "{}").get("alive", 0)
        return opened["open"], alive, opened["error"]
    finally:
        client.kill()
        client.wait()


def cold_row(bench):
    """A client that reads hot 256 KiB chunks at a fixed rate: alone, beside hot bulk, and beside a cold file."""
    fixtures, results = bench.fixtures, {}
    seconds = 1.5 if bench.options.quick else 4.0
    starts = {}
    if bench.weir and bench.wants("weir"):
        starts["weir"] = (lambda: servers.weir(bench.weir, fixtures.library, fixtures.work), "weir",
                          "/videos/hot.bin/file", "/videos/cold.bin/file")
    if bench.wants("nginx"):
        for name, settings in servers.NGINX_COLD_VARIANTS.items():
            def start(settings=settings):
                return servers.nginx(fixtures.work, fixtures.library, {"one": settings})
            starts[f"nginx: {name}"] = (start, "one", "/hot.bin", "/cold.bin")
    turns = 1 if bench.options.quick else 3
    for turn in range(turns):
        names = list(starts) if turn % 2 == 0 else list(reversed(starts))
        for name in names:
            start, variant, hot, cold = starts[name]
            for case, figures in cold_cases(bench, start, variant, hot, cold, seconds).items():
                results.setdefault(name, {}).setdefault(case, []).append(figures)
    return {"row": "cold-beside-hot", "kind": "cold", "seconds": seconds, "servers": results}


def cold_cases(bench, start, variant, hot, cold, seconds):
    """Each case on a fresh server, because pages that a server has mapped cannot be dropped from the cache."""
    fixtures = bench.fixtures
    hot_group = f"name=hot,path={hot},size=256k,file-size={fixtures.hot_bytes},connections=4,rate=400"
    bulk = f"name=other,path={hot},size=20m,file-size={fixtures.hot_bytes},connections=4,rate={COLD_STREAM_RATE}"
    stream = f"name=other,path={cold},size=20m,file-size={fixtures.cold_bytes},connections=4,order=once"
    cases = {
        "alone": [hot_group],
        "beside a hot stream of 210 MB/s": [hot_group, bulk],
        "beside a cold stream of 210 MB/s": [hot_group, f"{stream},rate={COLD_STREAM_RATE}"],
        "beside a cold stream at full speed": [hot_group, stream],
    }
    answers = {}
    for case, groups in cases.items():
        bench.client("evict", "--file", fixtures.path("cold.bin"))
        server = start()
        try:
            entrant = Entrant(server, variant, hot)
            disk = machine.read_from_disk(server.pids())
            run = bench.load(entrant, groups, seconds, 0.3, 5)
            disk = machine.read_from_disk(server.pids()) - disk
        finally:
            server.stop()
        figures = run["groups"][0]
        other = run["groups"][1] if len(groups) > 1 else {"mb_per_second": 0}
        answers[case] = {
            "p50_us": figures["whole_us"]["p50"], "p99_us": figures["whole_us"]["p99"],
            "max_us": figures["whole_us"]["max"],
            "requests_per_second": figures["requests_per_second"], "errors": figures["errors"],
            "other_mb_per_second": other["mb_per_second"], "disk_mb": disk / 1e6, "foreign_cores": run["foreign_cores"],
        }
    return answers


def start_row(bench):
    """From exec to the first byte of an answer, with a library of a thousand videos whose indexes are cached."""
    fixtures, commands, pending = bench.fixtures, {}, 0
    if bench.weir and bench.wants("weir"):
        state = f"{fixtures.work}/state-many"
        command, address = servers.weir_command(bench.weir, fixtures.many, state)
        pending = index_all(bench, fixtures.many, state, 20 if bench.options.quick else 90)
        commands["weir"] = (command, address, "/videos/v0500.mp4/file")
    if bench.wants("nginx"):
        command, addresses = servers.nginx_command(fixtures.work, fixtures.many, {"one": "sendfile on;"}, 1)
        commands["nginx"] = (command, addresses["one"], "/v0500.mp4")
    results = {name: [] for name in commands}
    for turn in range(5 if bench.options.quick else 15):
        for name in commands if turn % 2 == 0 else reversed(commands):
            command, address, path = commands[name]
            run = bench.client("start", "--addr", address, "--path", path, "--timeout", "20", "--", *command, core=None)
            if run["status"] != "206":
                raise RuntimeError(f"{name} answered {run['status']}")
            results[name].append(run["first_byte_ms"])
    return {"row": "start", "kind": "start", "servers": results, "pending": pending}


def answers(address, target):
    """Whether a GET of the target is answered 200."""
    try:
        with urllib.request.urlopen(f"http://{address}{target}", timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


def index_all(bench, library, state, seconds):
    """Lets Weir index the library once, so that the measured starts find its index cache. Returns what is missing."""
    command, address = servers.weir_command(bench.weir, library, state)
    server = servers.Server("weir", command, {"weir": address}, None, {"WEIR_LOG": "warn"})
    deadline = time.monotonic() + seconds
    pending = [f"v{n:04}.mp4" for n in range(START_VIDEOS)]
    while pending and time.monotonic() < deadline:
        pending = [video for video in pending if not answers(address, f"/videos/{video}/seek?frame=0")]
        time.sleep(0.2 if pending else 0)
    pending = len(pending)
    server.stop()
    if pending:
        bench.say(f"  {pending} videos were not indexed in {seconds} s")
    return pending
