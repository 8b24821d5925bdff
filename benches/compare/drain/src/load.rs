//! The measured run: all groups on one thread and one epoll instance, for a fixed time.

use crate::args::Args;
use crate::clock;
use crate::connection::{Connection, Progress};
use crate::group::Group;
use crate::rng::Rng;
use crate::socket::{Poller, loopback, raise_file_limit};
use crate::stats::Object;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// A run ends early after this many errors of a group: the server is broken, not slow.
const ERRORS_MAX: u64 = 100;
/// Longest sleep when nothing is due.
const POLL_MS: i32 = 50;

struct Load {
    addr: SocketAddr,
    copy: bool,
    groups: Vec<Group>,
    connections: Vec<Connection>,
    /// Open loop: the number of requests each group has started.
    started: Vec<u64>,
    /// Open loop: connections without a request.
    free: Vec<Vec<usize>>,
    poller: Poller,
    rng: Rng,
    request: String,
    began: Instant,
    measuring: bool,
}

pub fn run(args: &Args) -> Result<(), String> {
    let addr = loopback(args.text("addr")?)?;
    let seconds: f64 = args.number("seconds", 5.0)?;
    let warmup: f64 = args.number("warmup", 0.5)?;
    let pids = clock::pids(args.all("pid"))?;
    let host = addr.to_string();
    let groups = args.all("group").iter().map(|spec| Group::parse(spec, &host)).collect::<Result<Vec<_>, _>>()?;
    if groups.is_empty() {
        return Err("--group is missing".to_owned());
    }
    let mut load = Load::open(addr, groups, args.flag("copy"), args.number("seed", 1)?)?;
    load.start_all()?;
    load.run_until(load.began + Duration::from_secs_f64(warmup))?;

    load.measuring = true;
    let (began, server_before, own_before) = (Instant::now(), clock::cpu_ns(&pids)?, clock::own_cpu_ns()?);
    load.run_until(began + Duration::from_secs_f64(seconds))?;
    let elapsed = began.elapsed().as_secs_f64();
    let server_ns = clock::cpu_ns(&pids)?.saturating_sub(server_before);
    let own_ns = clock::own_cpu_ns()?.saturating_sub(own_before);
    println!("{}", load.report(elapsed, server_ns, own_ns));
    Ok(())
}

impl Load {
    fn open(addr: SocketAddr, groups: Vec<Group>, copy: bool, seed: u64) -> Result<Self, String> {
        let total: usize = groups.iter().map(|group| group.connections).sum();
        raise_file_limit(total as u64 + 64);
        let io = |error: std::io::Error| format!("connect to {addr}: {error}");
        let poller = Poller::new().map_err(io)?;
        let mut connections = Vec::with_capacity(total);
        for (index, group) in groups.iter().enumerate() {
            for _ in 0..group.connections {
                let connection = Connection::open(addr, index, group.body_size(), copy).map_err(io)?;
                poller.add(connection.fd(), connections.len() as u64).map_err(io)?;
                connections.push(connection);
            }
        }
        let free = vec![Vec::new(); groups.len()];
        let (started, rng, began) = (vec![0; groups.len()], Rng::new(seed), Instant::now());
        let request = String::new();
        Ok(Self { addr, copy, groups, connections, started, free, poller, rng, request, began, measuring: false })
    }

    fn start_all(&mut self) -> Result<(), String> {
        self.began = Instant::now();
        for index in 0..self.connections.len() {
            self.next(index)?;
        }
        Ok(())
    }

    /// A connection has nothing to do: closed loop asks again at once, open loop waits for its time.
    fn next(&mut self, index: usize) -> Result<(), String> {
        let group = self.connections[index].group;
        if self.groups[group].rate > 0.0 {
            self.free[group].push(index);
            return Ok(());
        }
        self.send(index, Instant::now())
    }

    fn send(&mut self, index: usize, since: Instant) -> Result<(), String> {
        let group = self.connections[index].group;
        if !self.groups[group].request(&mut self.rng, &mut self.request) {
            return Ok(());
        }
        match self.connections[index].send(&self.request, since) {
            Ok(()) => Ok(()),
            Err(error) => self.fail(index, error.to_string()),
        }
    }

    /// Starts what is due in the open-loop groups; true when some group has to be looked at again soon.
    fn start_due(&mut self) -> Result<bool, String> {
        let mut open_loop = false;
        for group in 0..self.groups.len() {
            let rate = self.groups[group].rate;
            if rate <= 0.0 {
                continue;
            }
            open_loop = true;
            loop {
                let due = self.began + Duration::from_secs_f64(self.started[group] as f64 / rate);
                if due > Instant::now() {
                    break;
                }
                let Some(index) = self.free[group].pop() else { break };
                self.started[group] += 1;
                self.send(index, due)?;
            }
        }
        Ok(open_loop)
    }

    fn run_until(&mut self, end: Instant) -> Result<(), String> {
        let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; 256];
        while Instant::now() < end {
            let timeout_ms = if self.start_due()? { 0 } else { POLL_MS };
            let ready = self.poller.wait(&mut events, timeout_ms).map_err(|error| error.to_string())?;
            for event in &events[..ready] {
                self.readable(usize::try_from(event.u64).unwrap_or(usize::MAX))?;
            }
        }
        Ok(())
    }

    fn readable(&mut self, index: usize) -> Result<(), String> {
        let connection = &mut self.connections[index];
        let group = &mut self.groups[connection.group];
        match connection.read(group.expect, group.body_size()) {
            Progress::More(bytes) => {
                if self.measuring {
                    group.counts.bytes += bytes;
                }
                Ok(())
            }
            Progress::Done(bytes) => {
                if self.measuring {
                    let ns = |at: Instant| at.duration_since(connection.sent_at).as_nanos() as u64;
                    group.counts.bytes += bytes;
                    group.counts.whole.push(ns(Instant::now()));
                    if let Some(at) = connection.first_byte_at {
                        group.counts.first_byte.push(ns(at));
                    }
                }
                self.next(index)
            }
            Progress::Failed(error) => self.fail(index, error),
        }
    }

    /// Counts the error and replaces the connection.
    fn fail(&mut self, index: usize, error: String) -> Result<(), String> {
        let group = self.connections[index].group;
        let counts = &mut self.groups[group].counts;
        counts.errors += 1;
        if counts.errors > ERRORS_MAX {
            return Err(format!("more than {ERRORS_MAX} errors; the last one: {error}"));
        }
        counts.first_error.get_or_insert(error);
        let body_size = self.groups[group].body_size();
        let io = |error: std::io::Error| format!("connect again: {error}");
        let connection = Connection::open(self.addr, group, body_size, self.copy).map_err(io)?;
        self.poller.add(connection.fd(), index as u64).map_err(io)?;
        self.connections[index] = connection;
        if self.connections[index].is_free() { self.next(index) } else { Ok(()) }
    }

    fn report(&mut self, seconds: f64, server_ns: u64, own_ns: u64) -> String {
        let (bytes, requests) = self.groups.iter().fold((0, 0), |(bytes, requests), group| {
            (bytes + group.counts.bytes, requests + group.counts.whole.len() as u64)
        });
        let per = |total: u64, unit: f64| if unit > 0.0 { total as f64 / unit } else { 0.0 };
        let groups: Vec<String> = self.groups.iter_mut().map(|group| group.report(seconds)).collect();
        Object::default()
            .number("seconds", seconds)
            .integer("bytes", bytes)
            .integer("requests", requests)
            .integer("server_cpu_ns", server_ns)
            .integer("client_cpu_ns", own_ns)
            .number("server_cpu_ms_per_gb", per(server_ns, bytes as f64 / 1e9) / 1e6)
            .number("server_cpu_us_per_request", per(server_ns, requests as f64) / 1e3)
            .number("client_cpu_ms_per_gb", per(own_ns, bytes as f64 / 1e9) / 1e6)
            .raw("groups", &format!("[{}]", groups.join(",")))
            .finish()
    }
}
