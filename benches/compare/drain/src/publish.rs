//! Publishers: one that sends fragments at the pace of a camera and notes when, and some that send as fast as they can.

use crate::args::Args;
use crate::clock;
use crate::fragments::Fragments;
use crate::socket::{connect, loopback};
use crate::stats::Object;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// When each fragment was sent, in ns since `epoch`; 0 is not yet.
pub struct Sent {
    epoch: Instant,
    times: Vec<AtomicU64>,
    stop: AtomicBool,
    /// Fragments that were sent.
    pub count: AtomicU32,
}

impl Sent {
    pub fn new(fragments: usize) -> Self {
        let times = (0..fragments).map(|_| AtomicU64::new(0)).collect();
        Self { epoch: Instant::now(), times, stop: AtomicBool::new(false), count: AtomicU32::new(0) }
    }

    pub fn now_ns(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }

    /// When a fragment was sent.
    pub fn at(&self, number: u32) -> Option<u64> {
        self.times.get(number as usize).map(|time| time.load(Ordering::Acquire)).filter(|&time| time > 0)
    }

    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// One publication: a chunked PUT, one chunk per fragment.
struct Publisher {
    stream: TcpStream,
    fragments: Arc<Fragments>,
    buffer: Vec<u8>,
    chunk: Vec<u8>,
}

impl Publisher {
    fn open(addr: SocketAddr, path: &str, key: &str, fragments: Arc<Fragments>) -> io::Result<Self> {
        let mut stream = connect(addr)?;
        write!(
            stream,
            "PUT {path} HTTP/1.1\r\nHost: {addr}\r\nAuthorization: Bearer {key}\r\nContent-Type: video/mp4\r\n\
             Transfer-Encoding: chunked\r\n\r\n"
        )?;
        let mut publisher = Self { stream, fragments, buffer: Vec::new(), chunk: Vec::new() };
        publisher.buffer.extend_from_slice(&publisher.fragments.init);
        publisher.fragments.write(0, &mut publisher.buffer);
        publisher.send()?;
        Ok(publisher)
    }

    /// Sends the buffer as one chunk in one write.
    fn send(&mut self) -> io::Result<()> {
        self.chunk.clear();
        write!(self.chunk, "{:x}\r\n", self.buffer.len())?;
        self.chunk.extend_from_slice(&self.buffer);
        self.chunk.extend_from_slice(b"\r\n");
        self.stream.write_all(&self.chunk)?;
        self.buffer.clear();
        Ok(())
    }

    /// What the server says instead of listening on.
    fn refusal(&mut self, error: &io::Error) -> String {
        let mut answer = [0; 1024];
        let _ = self.stream.set_read_timeout(Some(Duration::from_millis(200)));
        let n = self.stream.read(&mut answer).unwrap_or(0);
        format!("publish: {error}: {}", String::from_utf8_lossy(&answer[..n]).lines().next().unwrap_or_default())
    }
}

/// Publishes the first fragment at once, and one per period from `start` on.
pub fn paced(
    addr: SocketAddr,
    path: &str,
    key: &str,
    fragments: Arc<Fragments>,
    period: Duration,
    sent: Arc<Sent>,
) -> Result<(Arc<AtomicBool>, JoinHandle<Result<(), String>>), String> {
    let mut publisher = Publisher::open(addr, path, key, fragments).map_err(|error| format!("publish: {error}"))?;
    let start = Arc::new(AtomicBool::new(false));
    let go = Arc::clone(&start);
    let thread = thread::spawn(move || {
        while !go.load(Ordering::Acquire) {
            thread::sleep(Duration::from_millis(1));
        }
        let began = Instant::now();
        for number in 1..u32::try_from(sent.times.len()).unwrap_or(u32::MAX) {
            let due = began + period * number;
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if sent.stop.load(Ordering::Relaxed) {
                break;
            }
            publisher.fragments.clone().write(number, &mut publisher.buffer);
            sent.times[number as usize].store(sent.now_ns(), Ordering::Release);
            sent.count.store(number, Ordering::Release);
            publisher.send().map_err(|error| publisher.refusal(&error))?;
        }
        let _ = publisher.stream.write_all(b"0\r\n\r\n");
        Ok(())
    });
    Ok((start, thread))
}

/// `drain ingest`: publishers that send as fast as the server takes it, for some seconds.
pub fn ingest(args: &Args) -> Result<(), String> {
    let addr = loopback(args.text("addr")?)?;
    let seconds: f64 = args.number("seconds", 2.0)?;
    let count: usize = args.number("publishers", 1)?;
    let pids = clock::pids(args.all("pid"))?;
    let fragments = Arc::new(Fragments::open(args.text("file")?)?);
    let key = args.text("key")?;
    let bytes = Arc::new(AtomicU64::new(0));
    let end = Instant::now() + Duration::from_secs_f64(seconds);
    let (began, before) = (Instant::now(), clock::cpu_ns(&pids)?);
    let mut threads = Vec::new();
    for number in 0..count {
        let (fragments, bytes) = (Arc::clone(&fragments), Arc::clone(&bytes));
        let path = format!("{}{number}", args.text("path")?);
        let publisher = Publisher::open(addr, &path, key, fragments);
        let mut publisher = publisher.map_err(|error| format!("publish {path}: {error}"))?;
        threads.push(thread::spawn(move || -> Result<(), String> {
            let mut number = 1;
            while Instant::now() < end {
                // As many as make a write of a reasonable size.
                while publisher.buffer.len() < 64 << 10 {
                    publisher.fragments.clone().write(number, &mut publisher.buffer);
                    number += 1;
                }
                let length = publisher.buffer.len() as u64;
                publisher.send().map_err(|error| publisher.refusal(&error))?;
                bytes.fetch_add(length, Ordering::Relaxed);
            }
            let _ = publisher.stream.write_all(b"0\r\n\r\n");
            Ok(())
        }));
    }
    for thread in threads {
        thread.join().map_err(|_| "a publisher panicked")??;
    }
    let (elapsed, server_ns) = (began.elapsed().as_secs_f64(), clock::cpu_ns(&pids)?.saturating_sub(before));
    let bytes = bytes.load(Ordering::Relaxed);
    println!("{}", report(elapsed, bytes, server_ns));
    Ok(())
}

/// What so many bytes, received in so many seconds, cost the server.
pub fn report(elapsed: f64, bytes: u64, server_ns: u64) -> String {
    let report = Object::default()
        .number("seconds", elapsed)
        .integer("bytes", bytes)
        .integer("server_cpu_ns", server_ns)
        .number("server_cpu_ms_per_gb", server_ns as f64 / 1e6 / (bytes as f64 / 1e9).max(1e-9))
        .number("mb_per_second", bytes as f64 / 1e6 / elapsed);
    report.finish()
}
