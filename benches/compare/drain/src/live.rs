//! `drain live`: one publisher at the pace of a camera and many viewers of its endless stream, on one epoll instance.
//!
//! Every tenth viewer, a hundred at most, looks for the publisher's marks and so knows how long each fragment took from
//! the publisher's write to its own read. The others discard in the kernel. Some may stall: they ask, and never read.

use crate::args::Args;
use crate::clock;
use crate::fragments::{Fragments, Scanner};
use crate::publish::{self, Sent};
use crate::socket::{Poller, connect, discard, loopback, raise_file_limit, receive};
use crate::stats::{Latencies, Object};
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Viewers that look for marks.
const WATCHING_MAX: usize = 100;
const WATCHING_EVERY: usize = 10;
const BUFFER_BYTES: usize = 256 << 10;
const DISCARD_MAX: usize = 16 << 20;

struct Viewer {
    stream: TcpStream,
    /// Looks for marks.
    scanner: Option<Scanner>,
    answered: bool,
}

struct Watch {
    poller: Rc<Poller>,
    viewers: Vec<Option<Viewer>>,
    buffer: Vec<u8>,
    bytes: u64,
    lost: u64,
    delays: Latencies,
    measuring: bool,
}

pub fn run(args: &Args) -> Result<(), String> {
    let addr = loopback(args.text("addr")?)?;
    let (seconds, warmup): (f64, f64) = (args.number("seconds", 4.0)?, args.number("warmup", 1.5)?);
    let pids = clock::pids(args.all("pid"))?;
    let (count, stalled): (usize, usize) = (args.number("viewers", 1)?, args.number("stalled", 0)?);
    raise_file_limit(count as u64 + stalled as u64 + 64);
    let publisher = Publisher::start(args, addr, seconds + warmup + 20.0)?;
    let (memory_before, buffers_before) = (clock::resident_kb(&pids), clock::tcp_buffers_kb());
    let mut watch = Watch::open(addr, args.text("view")?, count)?;
    let asleep = stall(addr, args.text("view")?, stalled)?;
    publisher.go();
    watch.run_for(warmup, &publisher.sent)?;

    watch.measuring = true;
    watch.bytes = 0;
    let (began, first) = (Instant::now(), publisher.sent.count.load(Ordering::Acquire));
    let (server_before, own_before) = (clock::cpu_ns(&pids)?, clock::own_cpu_ns()?);
    watch.run_for(seconds, &publisher.sent)?;
    let elapsed = began.elapsed().as_secs_f64();
    let server_ns = clock::cpu_ns(&pids)?.saturating_sub(server_before);
    let own_ns = clock::own_cpu_ns()?.saturating_sub(own_before);
    let published = publisher.sent.count.load(Ordering::Acquire) - first;
    let memory = clock::resident_kb(&pids).saturating_sub(memory_before);
    let buffers = clock::tcp_buffers_kb().saturating_sub(buffers_before);
    let published_bytes = publisher.bytes_per_second * (elapsed + warmup);
    publisher.sent.stop();
    drop(asleep);

    let [p50, _, p99, _, max] = watch.delays.summary();
    let due = publisher.bytes_per_second * elapsed * count as f64;
    let report = Object::default()
        .number("seconds", elapsed)
        .integer("viewers", count as u64)
        .integer("lost", watch.lost)
        .integer("fragments", published.into())
        .integer("bytes", watch.bytes)
        .number("received_of_due", if due > 0.0 { watch.bytes as f64 / due } else { 0.0 })
        .integer("server_cpu_ns", server_ns)
        .number("server_cpu_ms_per_gb", server_ns as f64 / 1e6 / (watch.bytes as f64 / 1e9).max(1e-9))
        .number("client_cores", own_ns as f64 / 1e9 / elapsed)
        .integer("delays", watch.delays.len() as u64)
        .number("delay_p50_us", p50)
        .number("delay_p99_us", p99)
        .number("delay_max_us", max)
        .number("published_bytes", published_bytes)
        .integer("server_memory_bytes", memory * 1024)
        .integer("kernel_buffer_bytes", buffers * 1024);
    println!("{}", report.finish());
    publisher.end()
}

/// The publisher, if there is a file to publish; else somebody else publishes.
pub struct Publisher {
    pub sent: Arc<Sent>,
    start: Option<Arc<std::sync::atomic::AtomicBool>>,
    thread: Option<std::thread::JoinHandle<Result<(), String>>>,
    pub bytes_per_second: f64,
}

impl Publisher {
    pub fn start(args: &Args, addr: SocketAddr, seconds: f64) -> Result<Self, String> {
        let period: f64 = args.number("period", 0.04)?;
        let sent = Arc::new(Sent::new((seconds / period) as usize + 2));
        if args.all("file").is_empty() {
            return Ok(Self { sent, start: None, thread: None, bytes_per_second: 0.0 });
        }
        let fragments = Arc::new(Fragments::open(args.text("file")?)?);
        let bytes_per_second = fragments.bytes_per_second(period);
        let (path, key, period) = (args.text("publish")?, args.text("key")?, Duration::from_secs_f64(period));
        let (start, thread) = publish::paced(addr, path, key, fragments, period, Arc::clone(&sent))?;
        // The stream is there as soon as its first fragment was parsed.
        std::thread::sleep(Duration::from_millis(100));
        Ok(Self { sent, start: Some(start), thread: Some(thread), bytes_per_second })
    }

    pub fn go(&self) {
        if let Some(start) = &self.start {
            start.store(true, Ordering::Release);
        }
    }

    pub fn end(self) -> Result<(), String> {
        self.thread.map_or(Ok(()), |thread| thread.join().map_err(|_| "the publisher panicked".to_owned())?)
    }
}

fn ask(addr: SocketAddr, path: &str) -> Result<TcpStream, String> {
    let io = |error: io::Error| format!("view {path}: {error}");
    let mut stream = connect(addr).map_err(io)?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {addr}\r\n\r\n").map_err(io)?;
    stream.set_nonblocking(true).map_err(io)?;
    Ok(stream)
}

/// Viewers that never read.
fn stall(addr: SocketAddr, path: &str, count: usize) -> Result<Vec<TcpStream>, String> {
    (0..count).map(|_| ask(addr, path)).collect()
}

impl Watch {
    fn open(addr: SocketAddr, path: &str, count: usize) -> Result<Self, String> {
        let poller = Rc::new(Poller::new().map_err(|error| error.to_string())?);
        let mut viewers = Vec::with_capacity(count);
        let every = if count <= WATCHING_MAX { 1 } else { WATCHING_EVERY };
        for index in 0..count {
            let stream = ask(addr, path)?;
            poller.add(stream.as_raw_fd(), index as u64).map_err(|error| error.to_string())?;
            let watches = index % every == 0 && index / every < WATCHING_MAX;
            viewers.push(Some(Viewer { stream, scanner: watches.then(Scanner::default), answered: false }));
        }
        let (buffer, delays) = (vec![0; BUFFER_BYTES], Latencies::default());
        Ok(Self { poller, viewers, buffer, bytes: 0, lost: 0, delays, measuring: false })
    }

    fn run_for(&mut self, seconds: f64, sent: &Sent) -> Result<(), String> {
        Rc::clone(&self.poller).run_for(seconds, |index| self.readable(index, sent))
    }

    fn readable(&mut self, index: usize, sent: &Sent) -> Result<(), String> {
        let Some(Some(viewer)) = self.viewers.get_mut(index) else { return Ok(()) };
        let fd = viewer.stream.as_raw_fd();
        // The first read is looked at: it has the status.
        let seen = if viewer.answered && viewer.scanner.is_none() {
            discard(fd, DISCARD_MAX)
        } else {
            receive(fd, &mut self.buffer)
        };
        let n = match seen {
            Ok(0) => {
                self.viewers[index] = None;
                self.lost += 1;
                return Ok(());
            }
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(format!("a viewer: {error}")),
        };
        if !viewer.answered {
            viewer.answered = true;
            if !self.buffer[..n].starts_with(b"HTTP/1.1 200") {
                let line = String::from_utf8_lossy(&self.buffer[..n.min(200)]).into_owned();
                return Err(format!("a viewer was answered {}", line.lines().next().unwrap_or_default()));
            }
        }
        self.bytes += n as u64;
        if let Some(scanner) = &mut viewer.scanner {
            let (now, delays, measuring) = (sent.now_ns(), &mut self.delays, self.measuring);
            scanner.scan(&self.buffer[..n], |number| {
                if let (true, Some(at)) = (measuring, sent.at(number)) {
                    delays.push(now.saturating_sub(at));
                }
            });
        }
        Ok(())
    }
}
