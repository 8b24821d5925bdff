//! The physical limit of live streams: a loop that writes each chunk that a publisher sends to every viewer.
//!
//! `fanout ADDR`: whoever sends PUT is the publisher, whoever sends GET a viewer. Nothing is parsed but the publisher's
//! chunk lines, nothing is kept, nobody is timed; a viewer that takes nothing keeps its place in a queue.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, IoSlice, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

struct Viewer {
    stream: TcpStream,
    /// Chunks that wait, and what was written of the first.
    queue: VecDeque<Arc<Vec<u8>>>,
    written: usize,
}

type Joining = Arc<Mutex<Vec<TcpStream>>>;

fn main() -> io::Result<()> {
    let addr = std::env::args().nth(1).ok_or_else(|| io::Error::other("usage: fanout ADDR"))?;
    let addr: std::net::SocketAddr = addr.parse().map_err(io::Error::other)?;
    if !addr.ip().is_loopback() {
        return Err(io::Error::other("not a loopback address"));
    }
    let (listener, joining) = (TcpListener::bind(addr)?, Joining::default());
    let (mut first, mut started) = (None, false);
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        let mut reader = BufReader::with_capacity(1 << 20, stream);
        let Ok(line) = head(&mut reader) else { continue };
        if line.starts_with("PUT") {
            // What viewers get first: the init segment and the first fragment.
            first = Some(chunk(&mut reader)?);
            let joining = Arc::clone(&joining);
            thread::spawn(move || fan_out(reader, &joining));
            started = true;
        } else if started {
            let mut stream = reader.into_inner();
            stream.set_nodelay(true)?;
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: video/mp4\r\nTransfer-Encoding: chunked\r\n\r\n")?;
            if let Some(first) = &first {
                stream.write_all(first)?;
            }
            stream.set_nonblocking(true)?;
            joining.lock().unwrap_or_else(PoisonError::into_inner).push(stream);
        }
    }
    Ok(())
}

/// The first line of a head, which is read to its end.
fn head(reader: &mut impl BufRead) -> io::Result<String> {
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let mut line = String::new();
    while reader.read_line(&mut line)? > 2 {
        line.clear();
    }
    Ok(first)
}

/// A chunk with its lines, as it is sent on; empty at the end.
fn chunk(reader: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let size = usize::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
    if size == 0 {
        return Ok(Vec::new());
    }
    let mut whole = line.into_bytes();
    let start = whole.len();
    whole.resize(start + size + 2, 0);
    reader.read_exact(&mut whole[start..])?;
    Ok(whole)
}

fn fan_out(mut reader: BufReader<TcpStream>, joining: &Joining) {
    let mut viewers: Vec<Viewer> = Vec::new();
    while let Ok(chunk) = chunk(&mut reader) {
        if chunk.is_empty() {
            break;
        }
        let chunk = Arc::new(chunk);
        let joined = std::mem::take(&mut *joining.lock().unwrap_or_else(PoisonError::into_inner));
        viewers.extend(joined.into_iter().map(|stream| Viewer { stream, queue: VecDeque::new(), written: 0 }));
        viewers.retain_mut(|viewer| {
            viewer.queue.push_back(Arc::clone(&chunk));
            viewer.write()
        });
    }
}

impl Viewer {
    /// Writes what the socket takes; false when the viewer is gone.
    fn write(&mut self) -> bool {
        while let Some(chunk) = self.queue.front() {
            match self.stream.write_vectored(&[IoSlice::new(&chunk[self.written..])]) {
                Ok(n) => self.written += n,
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            }
            if self.written == chunk.len() {
                self.queue.pop_front();
                self.written = 0;
            }
        }
        true
    }
}
