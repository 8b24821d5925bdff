//! `drain hls`: clients of a low-latency playlist. Each asks for the playlist that has the next part, which the server
//! answers when it is there (RFC 8216bis, blocking reload), then for that part, and so on.
//!
//! Clients that look for the publisher's marks know how long the last fragment of each part took from the publisher's
//! write to their own read of the part's last byte.

use crate::args::Args;
use crate::clock;
use crate::connection::parse_head;
use crate::fragments::Scanner;
use crate::live::Publisher;
use crate::publish::Sent;
use crate::socket::{Poller, connect, discard, loopback, raise_file_limit, receive};
use crate::stats::{Latencies, Object};
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

const WATCHING_EVERY: usize = 10;
const HEAD_BYTES_MAX: usize = 4096;
const BUFFER_BYTES: usize = 256 << 10;

enum State {
    /// Of a playlist or a part; what came of it.
    Head(Vec<u8>),
    Body {
        left: u64,
    },
}

struct Client {
    stream: TcpStream,
    state: State,
    /// The answer under way is a playlist.
    playlist: bool,
    text: Vec<u8>,
    watches: bool,
    last_mark: Option<u32>,
}

struct Load<'a> {
    host: String,
    base: &'a str,
    clients: Vec<Client>,
    poller: Rc<Poller>,
    buffer: Vec<u8>,
    bytes: u64,
    parts: u64,
    playlists: u64,
    delays: Latencies,
    measuring: bool,
}

pub fn run(args: &Args) -> Result<(), String> {
    let addr = loopback(args.text("addr")?)?;
    let (seconds, warmup): (f64, f64) = (args.number("seconds", 5.0)?, args.number("warmup", 6.0)?);
    let pids = clock::pids(args.all("pid"))?;
    let count: usize = args.number("viewers", 1000)?;
    raise_file_limit(count as u64 + 64);
    let publisher = Publisher::start(args, addr, seconds + warmup + 30.0)?;
    publisher.go();
    // A playlist needs a few parts before it can be followed.
    std::thread::sleep(Duration::from_secs_f64(warmup / 2.0));
    let memory_before = clock::resident_kb(&pids);
    let mut load = Load::open(addr, args.text("view")?, count)?;
    load.run_for(warmup / 2.0, &publisher.sent)?;

    load.measuring = true;
    (load.bytes, load.parts, load.playlists) = (0, 0, 0);
    let (began, server_before) = (Instant::now(), clock::cpu_ns(&pids)?);
    let first = publisher.sent.count.load(Ordering::Acquire);
    load.run_for(seconds, &publisher.sent)?;
    let (elapsed, server_ns) = (began.elapsed().as_secs_f64(), clock::cpu_ns(&pids)?.saturating_sub(server_before));
    let published = publisher.sent.count.load(Ordering::Acquire) - first;
    let memory = clock::resident_kb(&pids).saturating_sub(memory_before);
    publisher.sent.stop();
    let [p50, _, p99, _, max] = load.delays.summary();
    let due = publisher.bytes_per_second * elapsed * count as f64;
    let report = Object::default()
        .number("seconds", elapsed)
        .integer("viewers", count as u64)
        .integer("lost", 0)
        .integer("fragments", published.into())
        .integer("bytes", load.bytes)
        .integer("parts", load.parts)
        .integer("playlists", load.playlists)
        .number("received_of_due", if due > 0.0 { load.bytes as f64 / due } else { 0.0 })
        .number("server_cpu_ms_per_gb", server_ns as f64 / 1e6 / (load.bytes as f64 / 1e9).max(1e-9))
        .integer("delays", load.delays.len() as u64)
        .number("delay_p50_us", p50)
        .number("delay_p99_us", p99)
        .number("delay_max_us", max)
        .number("published_bytes", publisher.bytes_per_second * (elapsed + warmup / 2.0))
        .integer("server_memory_bytes", memory * 1024);
    println!("{}", report.finish());
    publisher.end()
}

impl<'a> Load<'a> {
    /// `playlist` is a path; parts lie beside it.
    fn open(addr: SocketAddr, playlist: &'a str, count: usize) -> Result<Self, String> {
        let base = playlist.rsplit_once('/').map_or("", |(base, _)| base);
        let poller = Rc::new(Poller::new().map_err(|error| error.to_string())?);
        let (buffer, delays, host) = (vec![0; BUFFER_BYTES], Latencies::default(), addr.to_string());
        let clients = Vec::with_capacity(count);
        let mut load =
            Self { host, base, clients, poller, buffer, bytes: 0, parts: 0, playlists: 0, delays, measuring: false };
        for index in 0..count {
            let stream = connect(addr).map_err(|error| error.to_string())?;
            load.poller.add(stream.as_raw_fd(), index as u64).map_err(|error| error.to_string())?;
            stream.set_nonblocking(true).map_err(|error| error.to_string())?;
            let (state, text, watches) = (State::Head(Vec::new()), Vec::new(), index % WATCHING_EVERY == 0);
            load.clients.push(Client { stream, state, playlist: true, text, watches, last_mark: None });
            load.ask(index, playlist)?;
        }
        Ok(load)
    }

    fn ask(&mut self, index: usize, path: &str) -> Result<(), String> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.host);
        self.clients[index].stream.write_all(request.as_bytes()).map_err(|error| format!("ask for {path}: {error}"))
    }

    fn run_for(&mut self, seconds: f64, sent: &Sent) -> Result<(), String> {
        Rc::clone(&self.poller).run_for(seconds, |index| self.readable(index, sent))
    }

    fn readable(&mut self, index: usize, sent: &Sent) -> Result<(), String> {
        let Some(client) = self.clients.get_mut(index) else { return Ok(()) };
        let fd = client.stream.as_raw_fd();
        let seen = match &client.state {
            State::Body { left } if !client.playlist && !client.watches => {
                discard(fd, usize::try_from(*left).unwrap_or(usize::MAX)).map(|n| (n, false))
            }
            _ => receive(fd, &mut self.buffer).map(|n| (n, true)),
        };
        let (n, copied) = match seen {
            Ok((0, _)) => return Err("the server closed a connection".to_owned()),
            Ok(seen) => seen,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.to_string()),
        };
        let body = match &mut client.state {
            State::Head(head) => {
                head.extend_from_slice(&self.buffer[..n]);
                let Some(end) = head.windows(4).position(|w| w == b"\r\n\r\n").map(|at| at + 4) else {
                    return if head.len() > HEAD_BYTES_MAX { Err("no end of a head".to_owned()) } else { Ok(()) };
                };
                let (status, length) = parse_head(&head[..end]).ok_or("no status or no Content-Length")?;
                if status != 200 {
                    return Err(format!("status {status}"));
                }
                let body = head.split_off(end);
                client.state = State::Body { left: length };
                body
            }
            State::Body { .. } if copied => self.buffer[..n].to_vec(),
            State::Body { .. } => Vec::new(),
        };
        let came = if copied { body.len() } else { n };
        client.take(&body);
        self.bytes += came as u64;
        let State::Body { left } = &mut client.state else { return Ok(()) };
        *left = left.saturating_sub(came as u64);
        if *left > 0 {
            return Ok(());
        }
        self.next(index, sent)
    }

    /// An answer is whole: asks for what comes after it.
    fn next(&mut self, index: usize, sent: &Sent) -> Result<(), String> {
        let client = &mut self.clients[index];
        client.state = State::Head(Vec::new());
        let text = String::from_utf8_lossy(&std::mem::take(&mut client.text)).into_owned();
        if client.playlist {
            self.playlists += 1;
            let part = newest_part(&text).ok_or("a playlist without a part")?;
            client.playlist = false;
            // What the next playlist must have is in this one.
            client.text = text.clone().into_bytes();
            return self.ask(index, &format!("{}/{part}", self.base));
        }
        self.parts += 1;
        if let (true, Some(at)) = (self.measuring, client.last_mark.take().and_then(|number| sent.at(number))) {
            self.delays.push(sent.now_ns().saturating_sub(at));
        }
        client.playlist = true;
        let (segment, part) = after(&text);
        self.ask(index, &format!("{}/index.m3u8?_HLS_msn={segment}&_HLS_part={part}", self.base))
    }
}

impl Client {
    fn take(&mut self, bytes: &[u8]) {
        if self.playlist {
            self.text.extend_from_slice(bytes);
        } else if self.watches {
            // A part comes in few pieces; a mark that is cut by one is missed.
            Scanner::default().scan(bytes, |number| self.last_mark = Some(number));
        }
    }
}

/// The URI of the newest part.
fn newest_part(playlist: &str) -> Option<&str> {
    let line = playlist.lines().rev().find(|line| line.starts_with("#EXT-X-PART:"))?;
    line.split_once("URI=\"")?.1.split('"').next()
}

/// Media sequence number and part number of what comes next.
fn after(playlist: &str) -> (u64, u64) {
    let first = playlist.lines().find_map(|line| line.strip_prefix("#EXT-X-MEDIA-SEQUENCE:"));
    let mut segment: u64 = first.and_then(|number| number.trim().parse().ok()).unwrap_or(0);
    let mut part = 0;
    for line in playlist.lines() {
        if line.starts_with("#EXTINF:") {
            (segment, part) = (segment + 1, 0);
        } else if line.starts_with("#EXT-X-PART:") {
            part += 1;
        }
    }
    (segment, part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_part_is_the_one_after_the_last() {
        let playlist = "#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:7\n#EXT-X-PART:DURATION=0.5,URI=\"7.0.m4s\"\n\
            #EXT-X-PART:DURATION=0.5,URI=\"7.1.m4s\"\n#EXTINF:1.0,\n7.m4s\n#EXT-X-PART:DURATION=0.5,URI=\"8.0.m4s\"\n\
            #EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"8.1.m4s\"\n";
        assert_eq!(newest_part(playlist), Some("8.0.m4s"));
        assert_eq!(after(playlist), (8, 1));
    }
}
