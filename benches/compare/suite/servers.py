"""Starts and ends the servers under test, each pinned as the row asks, and knows their process ids."""

import ctypes
import os
import re
import shutil
import signal
import socket
import subprocess
import time

from . import machine

PR_SET_PDEATHSIG = 1
HOST = "127.0.0.1"

# The settings of io.md section 8; each is a server block of its own on one worker, so that they compare like with like.
NGINX_VARIANTS = {
    "sendfile, tcp_nopush": "sendfile on; tcp_nopush on;",
    "sendfile": "sendfile on; tcp_nopush off;",
    "sendfile, tcp_nopush, chunk 512k": "sendfile on; tcp_nopush on; sendfile_max_chunk 512k;",
    "sendfile, chunk 0": "sendfile on; tcp_nopush off; sendfile_max_chunk 0;",
    "no sendfile, 2 x 1m": "sendfile off; tcp_nopush off; output_buffers 2 1m;",
    "no sendfile, tcp_nopush, 2 x 1m": "sendfile off; tcp_nopush on; output_buffers 2 1m;",
    "no sendfile, 2 x 128k": "sendfile off; tcp_nopush off; output_buffers 2 128k;",
}
NGINX_COLD_VARIANTS = {
    "sendfile": "sendfile on; tcp_nopush off;",
    "aio threads": "sendfile on; tcp_nopush off; aio threads;",
    "aio threads, directio": "sendfile on; tcp_nopush off; aio threads; output_buffers 2 1m;"
                             " location /cold.bin { open_file_cache off; directio 4m; }",
}

NGINX_CONF = """
user root; daemon off; pid {conf}.pid; error_log stderr crit; worker_processes {workers};

events {{ worker_connections 16384; }}
http {{
  access_log off; default_type video/mp4; tcp_nodelay on;
  keepalive_timeout 600s; keepalive_requests 1000000000; reset_timedout_connection on;
  open_file_cache max=20000 inactive=600s; open_file_cache_valid 600s; open_file_cache_errors on;
  client_body_temp_path {work}/nginx-body; proxy_temp_path {work}/nginx-proxy; fastcgi_temp_path {work}/nginx-fcgi;
  uwsgi_temp_path {work}/nginx-uwsgi; scgi_temp_path {work}/nginx-scgi;
{blocks}}}
"""
NGINX_BLOCK = """  server {{ listen {host}:{port} backlog=4096{reuseport}; root {root}; {settings}
    location /day.mp4 {{ mp4; mp4_buffer_size 1m; mp4_max_buffer_size 64m; }} }}
"""

running = []

def prepare_child():
    """Runs in the child, which has a session of its own and needs this program's priority for it. The kernel ends the
    child when this program is gone, however that happened."""
    machine.set_priority(os.nice(0))
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)

def free_port():
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]

class Server:
    """One process tree. `addresses` maps a variant to where it listens. What a quiet one says on stderr is not shown."""

    def __init__(self, name, command, addresses, core, environment=None, quiet=False):
        self.name, self.addresses = name, addresses
        pin = [] if core is None else ["taskset", "-c", str(core)]
        self.log = open(os.devnull, "wb")
        env = {**os.environ, **(environment or {})}
        self.process = subprocess.Popen([*pin, *command], stdin=subprocess.DEVNULL, stdout=self.log,
                                        stderr=self.log if quiet else None, env=env,
                                        start_new_session=True, preexec_fn=prepare_child)
        running.append(self)
        for address in addresses.values():
            self._wait(address)

    def _wait(self, address, seconds=20):
        host, port = address.split(":")
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.name} ended with {self.process.returncode}")
            try:
                socket.create_connection((host, int(port)), 1).close()
                return
            except OSError:
                time.sleep(0.02)
        raise RuntimeError(f"{self.name} does not listen on {address}")

    def pids(self):
        """The process and its children (the workers of nginx)."""
        parent = self.process.pid
        try:
            with open(f"/proc/{parent}/task/{parent}/children", encoding="utf-8") as file:
                return [parent, *map(int, file.read().split())]
        except OSError:
            return [parent]

    def stop(self):
        if self in running:
            running.remove(self)
        for sign in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, sign)
                self.process.wait(3)
                break
            except ProcessLookupError:
                break
            except subprocess.TimeoutExpired:
                continue
        self.log.close()

def stop_all():
    for server in list(running):
        server.stop()

def nginx_command(work, root, variants, workers):
    """Writes the configuration; returns the command and where each variant listens."""
    addresses, blocks = {}, ""
    for name, settings in variants.items():
        port = free_port()
        addresses[name] = f"{HOST}:{port}"
        reuseport = " reuseport" if workers > 1 else ""
        blocks += NGINX_BLOCK.format(host=HOST, port=port, root=root, settings=settings, reuseport=reuseport)
    conf = os.path.join(work, f"nginx-{os.getpid()}-{next(iter(addresses.values())).split(':')[1]}.conf")
    with open(conf, "w", encoding="utf-8") as file:
        file.write(NGINX_CONF.format(work=work, conf=conf, workers=workers, blocks=blocks))
    return ["nginx", "-p", work, "-e", "stderr", "-c", conf], addresses

def nginx(work, root, variants, core=0, workers=1):
    command, addresses = nginx_command(work, root, variants, workers)
    return Server("nginx", command, addresses, core)

def floor(binary, file, name, mode, core=0, threads=1):
    address = f"{HOST}:{free_port()}"
    return Server(f"{name}, {mode}", [binary, address, file, str(threads), mode], {mode: address}, core)

def weir_command(binary, library, state):
    address = f"{HOST}:{free_port()}"
    command = [binary, "serve", "--library", library, "--listen", address, "--admin", f"{HOST}:{free_port()}",
               "--state-dir", state]
    return command, address

def weir(binary, library, work, core=0):
    state = os.path.join(work, "state")
    os.makedirs(state, exist_ok=True)
    command, address = weir_command(binary, library, state)
    return Server("weir", command, {"weir": address}, core, {"WEIR_LOG": "warn"})

def sws(binary, root, core=0):
    """static-web-server without what costs and is not asked for; on one core it has one thread."""
    port = free_port()
    command = [binary, "--host", HOST, "--port", str(port), "--root", root, "--log-level", "error",
               "--cache-control-headers", "false", "--security-headers", "false", "--threads-multiplier", "1"]
    return Server("static-web-server", command, {"static-web-server": f"{HOST}:{port}"}, core)


# The programs that the run starts, and the packages of Debian that they are in.
DEBIAN = {"nginx": "nginx", "ffmpeg": "ffmpeg", "ip": "iproute2", "taskset": "util-linux"}
# Peers from the crate registry: what cargo builds, what Debian has to have for it, and the longest it may take.
PEERS = {
    "static-web-server": (["static-web-server", "--version", "^2", "--no-default-features"], [], 15 * 60),
    "xiu": (["xiu"], ["libopus-dev", "pkg-config"], 40 * 60),
}


def peer(name, target, build, say):
    """The program of a peer below the target directory; builds it there if it is missing and wanted. Else None."""
    crate, debian, seconds = PEERS[name]
    root = os.path.join(target, name)
    binary = os.path.join(root, "bin", name)
    if os.path.exists(binary) or not build:
        if not os.path.exists(binary):
            say(f"{name} is not there and takes no part (--peers {name} builds it)")
        return binary if os.path.exists(binary) else None
    say(f"build {name}, at most {seconds // 60} minutes")
    try:
        if debian:
            install(debian, say)
        subprocess.run(["cargo", "install", "--quiet", "--locked", *crate, "--root", root], check=True, timeout=seconds)
    except (OSError, subprocess.SubprocessError) as error:
        say(f"{name} CANNOT BE BUILT and takes no part: {error}")
        return None
    return binary


def peer_version(name, program):
    """Of the crate it was built from, as cargo noted it; what xiu prints is older."""
    noted = machine.read(os.path.join(os.path.dirname(os.path.dirname(program)), ".crates.toml"))
    found = re.search(rf'^"{name} (\S+)', noted, re.MULTILINE)
    return found.group(1) if found else machine.first_line(program, "--version")


def install_programs(say):
    """What the run needs from Debian, where it is missing."""
    missing = [package for program, package in DEBIAN.items() if not shutil.which(program)]
    if missing:
        install(missing, say)


def install(packages, say):
    """Packages of Debian; its lists are fetched when they are not there or too old."""
    say(f"install {' '.join(packages)}")
    apt = [*([] if os.geteuid() == 0 else ["sudo"]), "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q"]
    command = [*apt, "install", "-y", "--no-install-recommends", *packages]
    quiet = {"stdout": subprocess.DEVNULL, "timeout": 600}
    if subprocess.run(command, stderr=subprocess.DEVNULL, **quiet).returncode != 0:
        subprocess.run([*apt, "update"], check=True, **quiet)
        subprocess.run(command, check=True, **quiet)
