//! Bytes received into a live cache: joined, in place, and as the server does it.

use super::chunk::limits;
use crate::bench::{Benchmark, Statement};
use crate::ingest::tcp::Reader;
use bytes::Bytes;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::hint::black_box;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::rc::Rc;

const MIB: u64 = 1 << 20;
/// Of the cache that is received into: a minute of 14 Mb/s. A smaller one beside it shows what grows with the cache.
const CACHE_BYTES: usize = 100 << 20;
const SMALL_BYTES: usize = 20 << 20;
const CACHE_OFFSET: usize = 7 << 20;

pub(super) fn receive() -> Benchmark {
    Benchmark::new(
        "live-receive",
        "What does it cost to receive bytes into a live cache at an offset?",
        "a new buffer that is joined copies the whole cache, here 100 MiB, or 20; receiving in place, or into slabs \
         that are the cache, costs the bytes that came, whatever the cache",
    )
    .sized("bytes received", MIB, 1..=12 * MIB)
    .per("byte")
    .implying(limits)
    .way("join, dummy", |size| Ok(joining(size, CACHE_BYTES, Dummy::default())))
    .way("join, dummy, 20 MiB", |size| Ok(joining(size, SMALL_BYTES, Dummy::default())))
    .way("in place, dummy", |size| Ok(in_place(size, CACHE_BYTES, Dummy::default())))
    .way("in place, dummy, 20 MiB", |size| Ok(in_place(size, SMALL_BYTES, Dummy::default())))
    .way("join, sockets", |size| Ok(joining(size, CACHE_BYTES, sender(size)?)))
    .way("in place, sockets", |size| Ok(in_place(size, CACHE_BYTES, sender(size)?)))
    .way("slabs of the server, sockets", slabs)
}

/// A socket that has always received: reading copies a mebibyte from memory, as the kernel would.
struct Dummy(Vec<u8>);

impl Default for Dummy {
    fn default() -> Self {
        Self(vec![7; MIB as usize])
    }
}

impl Read for Dummy {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.as_slice().read(buf)
    }
}

/// One end of a connection over loopback, whose other end is written to without end.
fn sender(size: u64) -> Result<TcpStream, String> {
    let connected = || -> io::Result<(TcpStream, TcpStream)> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let ours = TcpStream::connect(listener.local_addr()?)?;
        Ok((ours, listener.accept()?.0))
    };
    let (ours, mut theirs) = connected().map_err(|error| error.to_string())?;
    let block = vec![7; usize::try_from(size.min(256 << 10)).unwrap_or(1)];
    let writer = std::thread::Builder::new().name("weir-bench-send".to_owned());
    // It ends when our end is dropped.
    let started = writer.spawn(move || while theirs.write_all(&block).is_ok() {});
    started.map_err(|error| error.to_string())?;
    Ok(ours)
}

/// Receives into a new buffer, and joins it with what stands before and after it in the cache.
fn joining(size: u64, cache_bytes: usize, mut socket: impl Read + 'static) -> Statement {
    let size = size as usize;
    let mut cache = cache(cache_bytes);
    Statement::new(size as u64, move || {
        let mut received = vec![0; size];
        let read = socket.read_exact(&mut received).is_ok();
        cache = [&cache[..CACHE_OFFSET], &received, &cache[CACHE_OFFSET + size..]].concat();
        read
    })
}

/// Receives where the bytes belong.
fn in_place(size: u64, cache_bytes: usize, mut socket: impl Read + 'static) -> Statement {
    let size = size as usize;
    let mut cache = cache(cache_bytes);
    Statement::new(size as u64, move || {
        let place = &mut cache[CACHE_OFFSET..CACHE_OFFSET + size];
        socket.read_exact(black_box(place)).is_ok()
    })
}

/// Its pages are there: memory of zeros would take none until it is written to.
fn cache(bytes: usize) -> Vec<u8> {
    vec![1; bytes]
}

/// What a publisher's connection does: slabs are read into, and slices of them are the cache. The oldest leave it.
struct Slabs {
    reader: Reader,
    connection: tokio::net::TcpStream,
    cache: VecDeque<Bytes>,
    bytes: usize,
}

impl Slabs {
    async fn receive(&mut self, size: usize) -> io::Result<()> {
        let mut left = size;
        while left > 0 {
            let bytes = self.reader.read(&self.connection).await?;
            if bytes.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            left = left.saturating_sub(bytes.len());
            self.bytes += bytes.len();
            self.cache.push_back(bytes);
            while self.bytes > CACHE_BYTES {
                self.bytes -= self.cache.pop_front().map_or(self.bytes, |oldest| oldest.len());
            }
        }
        Ok(())
    }
}

/// The connection is handed to the runtime that awaits the statement when that first runs.
fn slabs(size: u64) -> Result<Statement, String> {
    let socket = sender(size)?;
    socket.set_nonblocking(true).map_err(|error| error.to_string())?;
    let (socket, state) = (RefCell::new(Some(socket)), Rc::new(tokio::sync::Mutex::new(None)));
    Statement::of_async(size, move || {
        let (socket, state) = (socket.take(), Rc::clone(&state));
        async move {
            let mut state = state.lock().await;
            if let Some(socket) = socket {
                let connection = tokio::net::TcpStream::from_std(socket).ok();
                *state = connection.map(|connection| Slabs {
                    reader: Reader::default(),
                    connection,
                    cache: VecDeque::new(),
                    bytes: 0,
                });
            }
            match state.as_mut() {
                Some(slabs) => slabs.receive(size as usize).await.is_ok(),
                None => false,
            }
        }
    })
}
