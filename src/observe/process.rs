//! The process as the system sees it: the figures that every Prometheus client gives, under their usual names.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

/// What the system says of the process now; zero where it says nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Process {
    pub cpu_seconds: f64,
    pub resident_bytes: u64,
    pub virtual_bytes: u64,
    pub threads: u64,
    pub open_files: u64,
    pub open_files_max: u64,
    /// Since 1970.
    pub start_seconds: f64,
}

impl Process {
    pub fn read() -> Self {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let mut process = parse(&stat, system("/proc/uptime"));
        process.open_files = fs::read_dir("/proc/self/fd").map_or(0, |list| list.count() as u64);
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        process.open_files_max = limit.current.unwrap_or(u64::MAX);
        process
    }
}

fn system(path: &str) -> f64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0.0)
}

/// Fields of proc_pid_stat(5), counted from the one after the name.
fn parse(stat: &str, uptime_seconds: f64) -> Process {
    let ticks_per_second = rustix::param::clock_ticks_per_second() as f64;
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    let age = uptime_seconds - field(22) as f64 / ticks_per_second;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |now| now.as_secs_f64());
    Process {
        cpu_seconds: (field(14) + field(15)) as f64 / ticks_per_second,
        threads: field(20),
        virtual_bytes: field(23),
        resident_bytes: field(24) * rustix::param::page_size() as u64,
        start_seconds: now - age,
        ..Process::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_counted_after_the_name() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 0 1 0 0 0 250 50 0 0 20 0 9 0 1000 4096000 25 18446744073709551615";
        let process = parse(stat, 20.0);
        assert_eq!((process.threads, process.virtual_bytes), (9, 4_096_000));
        assert_eq!(process.resident_bytes, 25 * rustix::param::page_size() as u64);
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        assert!((process.cpu_seconds - 300.0 / ticks).abs() < 1e-9);
    }

    #[test]
    fn this_process_uses_something() {
        let process = Process::read();
        assert!(process.resident_bytes > 1 << 20 && process.open_files >= 3 && process.threads >= 1, "{process:?}");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64();
        assert!((0.0..86_400.0).contains(&(now - process.start_seconds)), "{process:?}");
    }
}
