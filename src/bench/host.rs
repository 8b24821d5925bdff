//! The machine and the binary that a figure was measured on, as far as two reports need it to be compared.
//!
//! Read from procfs; what is not there is told as unknown. Must not know benchmarks.

use rustix::time::{ClockId, clock_gettime};
use std::fs;
use std::io::Read;
use std::sync::OnceLock;
use std::time::Duration;

/// Where and with what a benchmark ran.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Host {
    pub cpu: String,
    pub cores: usize,
    /// The kernel's clock source behind the monotonic clock.
    pub clock: String,
    /// Processes that wanted to run, averaged over a minute, when it began.
    pub load: f64,
    /// Share of the CPU time that the hypervisor gave to others meanwhile.
    pub steal: f64,
}

impl Host {
    /// As it is now; `steal` is told by [`Ticks`].
    pub fn now() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let info = read("/proc/cpuinfo");
        let cpu = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        let clock = read("/sys/devices/system/clocksource/clocksource0/current_clocksource");
        let known = |text: &str| if text.is_empty() { "unknown".to_owned() } else { text.to_owned() };
        Self {
            cpu: known(cpu.map_or("", |(_, name)| name.trim())),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            clock: known(clock.trim()),
            load: read("/proc/loadavg").split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(0.0),
            steal: 0.0,
        }
    }
}

/// CPU time of the machine so far, in ticks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ticks {
    total: u64,
    stolen: u64,
}

impl Ticks {
    pub fn now() -> Self {
        Self::of(&fs::read_to_string("/proc/stat").unwrap_or_default())
    }

    /// Of the first line of `/proc/stat`: user, nice, system, idle, iowait, irq, softirq, steal (proc_stat(5)).
    fn of(stat: &str) -> Self {
        let fields = stat.lines().next().unwrap_or_default().split_ascii_whitespace().skip(1).take(8);
        let fields: Vec<u64> = fields.filter_map(|field| field.parse().ok()).collect();
        Self { total: fields.iter().sum(), stolen: fields.get(7).copied().unwrap_or(0) }
    }

    /// The share that was stolen since then.
    pub fn stolen_since(self, then: Self) -> f64 {
        let total = self.total.saturating_sub(then.total);
        if total == 0 { 0.0 } else { self.stolen.saturating_sub(then.stolen) as f64 / total as f64 }
    }
}

/// Version and checksum of the running binary: equal for equal builds only.
pub fn build() -> &'static str {
    static BUILD: OnceLock<String> = OnceLock::new();
    BUILD.get_or_init(|| {
        let profile = if cfg!(debug_assertions) { "-debug" } else { "" };
        let version = env!("CARGO_PKG_VERSION");
        match checksum() {
            Ok(checksum) => format!("{version}{profile}+{checksum:08x}"),
            Err(_) => format!("{version}{profile}"),
        }
    })
}

fn checksum() -> std::io::Result<u32> {
    let mut file = fs::File::open("/proc/self/exe")?;
    let (mut hasher, mut buf) = (crc32fast::Hasher::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut buf)? {
            0 => return Ok(hasher.finalize()),
            n => hasher.update(&buf[..n]),
        }
    }
}

/// CPU time of this process so far, all threads.
pub fn process_cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let (seconds, ns) = (u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0));
    Duration::new(seconds, ns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stolen_time_is_a_share() {
        let before = Ticks::of("cpu  100 0 100 800 0 0 0 0 0 0\ncpu0 1 1 1");
        let after = Ticks::of("cpu  150 0 100 830 0 0 0 20 0 0\n");
        assert!((after.stolen_since(before) - 0.2).abs() < 1e-9);
        assert_eq!(before.stolen_since(before), 0.0);
        assert_eq!(Ticks::of("").stolen_since(Ticks::of("")), 0.0);
    }
}
