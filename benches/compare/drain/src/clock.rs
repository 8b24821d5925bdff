//! CPU time of other processes, in nanoseconds, from their CPU clocks (`/proc/PID/stat` counts in ticks of 10 ms).

/// Process ids out of a comma-separated list.
pub fn pids(list: &[String]) -> Result<Vec<libc::pid_t>, String> {
    list.iter()
        .flat_map(|part| part.split(','))
        .map(|text| text.parse().map_err(|_| format!("not a process id: {text}")))
        .collect()
}

/// CPU time used by all threads of these processes together.
pub fn cpu_ns(pids: &[libc::pid_t]) -> Result<u64, String> {
    let mut sum = 0;
    for &pid in pids {
        let mut clock: libc::clockid_t = 0;
        // SAFETY: the pointer is to a live local of the right type.
        let failed = unsafe { libc::clock_getcpuclockid(pid, &mut clock) };
        if failed != 0 {
            return Err(format!("no CPU clock for process {pid}"));
        }
        sum += read(clock)?;
    }
    Ok(sum)
}

/// CPU time of this process.
pub fn own_cpu_ns() -> Result<u64, String> {
    read(libc::CLOCK_PROCESS_CPUTIME_ID)
}

fn read(clock: libc::clockid_t) -> Result<u64, String> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live local of the right type.
    if unsafe { libc::clock_gettime(clock, &mut time) } != 0 {
        return Err(format!("read a CPU clock: {}", std::io::Error::last_os_error()));
    }
    Ok(time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs())
}

/// Memory of these processes that is not pages of files, in KiB.
pub fn resident_kb(pids: &[libc::pid_t]) -> u64 {
    let of = |pid: &libc::pid_t| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
        line.trim().trim_end_matches(" kB").parse::<u64>().ok()
    };
    pids.iter().filter_map(of).sum()
}

/// What the kernel holds for TCP in this network namespace, both ends of every connection, in KiB.
pub fn tcp_buffers_kb() -> u64 {
    let text = std::fs::read_to_string("/proc/net/sockstat").unwrap_or_default();
    let pages = text.lines().find(|line| line.starts_with("TCP:")).and_then(|line| line.split("mem ").nth(1));
    // SAFETY: takes no pointers.
    let page = u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096);
    pages.and_then(|pages| pages.trim().parse::<u64>().ok()).unwrap_or(0) * page / 1024
}
