"""What the run knows about the machine: versions, cores, and CPU time used by anybody else."""

import ctypes
import fcntl
import os
import platform
import re
import socket
import struct
import subprocess
import time

CLONE_NEWNET = 0x40000000
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1
CONGESTION = "/proc/sys/net/ipv4/tcp_congestion_control"
TICK_SECONDS = 1 / os.sysconf("SC_CLK_TCK")


def read(path):
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError:
        return ""


def first_line(*command):
    """The first line a command prints, on either stream."""
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip().splitlines()[0] if done.stdout.strip() else "unknown"


def describe():
    """Facts for the report."""
    cpu = re.search(r"model name\s*:\s*(.*)", read("/proc/cpuinfo"))
    memory = re.search(r"MemTotal:\s*(\d+)", read("/proc/meminfo"))
    virtual = "hypervisor" in read("/proc/cpuinfo")
    return {
        "cpu": cpu.group(1) if cpu else "unknown",
        "cores": os.cpu_count(),
        "virtual_machine": virtual,
        "memory_gb": round(int(memory.group(1)) / 1e6, 1) if memory else 0,
        "kernel": platform.release(),
        "tcp_wmem": read("/proc/sys/net/ipv4/tcp_wmem").split(),
        "tcp_rmem": read("/proc/sys/net/ipv4/tcp_rmem").split(),
        "congestion_control": read(CONGESTION).strip(),
        "transparent_hugepage": read("/sys/kernel/mm/transparent_hugepage/enabled").strip(),
        "nginx": first_line("nginx", "-v"),
        "rustc": first_line("rustc", "--version"),
        "ffmpeg": first_line("ffmpeg", "-version").split(" Copyright")[0],
    }


def own_network():
    """Gives this program and its children a loopback interface of their own, so that no setting of it touches the rest
    of the machine. False where that is not permitted."""
    if ctypes.CDLL(None).unshare(CLONE_NEWNET) != 0:
        return False
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack("16sh14x", fcntl.ioctl(control, SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | IFF_UP))
    return True


def set_congestion(name):
    """The algorithm of connections made from now on, in this network namespace. Set on the route: the default may only
    be set to what tcp_allowed_congestion_control names, which belongs to the whole machine. OSError where it cannot."""
    command = ["ip", "route", "change", "local", "127.0.0.1", "dev", "lo", "table", "local", "proto", "kernel",
               "scope", "host", "src", "127.0.0.1", "congctl", name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    found = congestion_of_a_connection()
    if done.returncode != 0 or found != name:
        raise OSError(f"connections have {found}: {done.stderr.strip() or 'the route does not decide it'}")


def congestion_of_a_connection():
    """The algorithm of a connection over loopback, at the side that accepts."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with socket.create_connection(listener.getsockname(), 5), listener.accept()[0] as accepted:
            return accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0").decode()


def cannot_set(name):
    """Why connections cannot be given this algorithm, or None. Leaves them with it."""
    try:
        set_congestion(name)
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    return None


def set_priority(nice):
    """Of this program and of the session it is in: with autogroups (sched(7)) a nice value counts only among the
    processes of one session, and what decides between sessions is their group's."""
    os.nice(nice - os.nice(0))
    try:
        with open("/proc/self/autogroup", "w", encoding="utf-8") as file:
            file.write(str(nice))
    except OSError:
        return


class Clock:
    """CPU seconds of the whole machine since this object was made: busy, and stolen by the host."""

    def __init__(self):
        self.began = time.monotonic()
        self.busy, self.stolen = self._read()

    @staticmethod
    def _read():
        user, nice, system, _idle, _wait, irq, softirq, steal = map(int, read("/proc/stat").split()[1:9])
        return (user + nice + system + irq + softirq) * TICK_SECONDS, steal * TICK_SECONDS

    def foreign(self, own_seconds):
        """Cores used by others and stolen by the host, on average since the start; own_seconds is what is ours."""
        elapsed = time.monotonic() - self.began
        busy, stolen = self._read()
        others = max(0.0, busy - self.busy - own_seconds) + (stolen - self.stolen)
        return others / elapsed if elapsed > 0 else 0.0


def memory_kb(pids):
    """Resident memory of processes, in KiB: all of it, and the part that is not file pages."""
    total = anonymous = 0
    for pid in pids:
        status = read(f"/proc/{pid}/status")
        for key, value in re.findall(r"(VmRSS|RssAnon):\s*(\d+)", status):
            if key == "VmRSS":
                total += int(value)
            else:
                anonymous += int(value)
    return total, anonymous


def kernel_kb():
    """Kernel memory that connections use on this machine, in KiB: slab, and TCP buffers."""
    slab = re.search(r"Slab:\s*(\d+)", read("/proc/meminfo"))
    tcp = re.search(r"TCP: .* mem (\d+)", read("/proc/net/sockstat"))
    pages = int(tcp.group(1)) if tcp else 0
    return int(slab.group(1)) if slab else 0, pages * os.sysconf("SC_PAGE_SIZE") // 1024


def read_from_disk(pids):
    """Bytes that processes made the disk deliver."""
    total = 0
    for pid in pids:
        found = re.search(r"read_bytes: (\d+)", read(f"/proc/{pid}/io"))
        total += int(found.group(1)) if found else 0
    return total
