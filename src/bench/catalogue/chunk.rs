//! A chunk taken out of a video, and bytes received into a live cache: what a copy costs.

use crate::bench::report::{Report, bytes_per_second, scaled, time};
use crate::bench::{Benchmark, Statement};
use crate::store::MappedFile;
use std::fs::File;
use std::hint::black_box;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::os::unix::net::UnixStream;

const MIB: u64 = 1 << 20;
/// Of the mapped file; a chunk begins at 7 MiB and is no multiple of a page away.
const FILE_BYTES: u64 = 64 * MIB;
const OFFSET: u64 = 7 * MIB + 4321;
const CHUNK_MAX: u64 = FILE_BYTES - 8 * MIB;
/// Of the cache that is received into.
const CACHE_BYTES: usize = 20 << 20;
const CACHE_OFFSET: usize = 7 << 20;

pub(super) fn slice() -> Benchmark {
    Benchmark::new(
        "chunk-slice",
        "What does it cost to take a chunk out of a video?",
        "a copy costs what its bytes cost; a slice of the mapped file costs a reference count, whatever its size",
    )
    .sized("bytes of a chunk", 20 * MIB, 1..=CHUNK_MAX)
    .per("byte")
    .implying(limits)
    .way("copy", |size| chunk(size, |file, range| file.slice(range).to_vec()))
    .way("slice", |size| chunk(size, |file, range| file.slice(range)))
    .way("borrow", |size| {
        let whole = mapped().map_err(|error| error.to_string())?.slice(0..FILE_BYTES);
        let (start, end) = (OFFSET as usize, (OFFSET + size) as usize);
        Ok(Statement::new(size, move || black_box(&whole[black_box(start)..black_box(end)]).len()))
    })
}

fn chunk<R>(size: u64, take: impl Fn(&MappedFile, Range<u64>) -> R + 'static) -> Result<Statement, String> {
    let file = mapped().map_err(|error| error.to_string())?;
    Ok(Statement::new(size, move || take(black_box(&file), black_box(OFFSET)..black_box(OFFSET + size))))
}

/// A file in memory, its pages present.
fn mapped() -> io::Result<MappedFile> {
    let file = rustix::fs::memfd_create("weir-bench", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut file = File::from(file);
    let block: Vec<u8> = (0..MIB).map(|n| (n * 31 % 251) as u8).collect();
    for _ in 0..FILE_BYTES / MIB {
        file.write_all(&block)?;
    }
    MappedFile::from_file(file)
}

/// What one core could do if this were all it did: bytes per second, and clients that ask for a chunk each second.
fn limits(report: &Report) -> Vec<String> {
    let limit = |figures: &crate::bench::report::Figures| {
        let per_second = 1e9 / figures.best_ns;
        let bytes = bytes_per_second(figures.elements as f64 * per_second);
        let (name, clients) = (&figures.name, scaled(per_second));
        let text = format!("{name}: at most {bytes}, or {} clients in parallel", clients.trim_end());
        format!("{text} (one CPU second by {} a chunk)", time(figures.best_ns))
    };
    report.alternatives.iter().map(limit).collect()
}

pub(super) fn receive() -> Benchmark {
    Benchmark::new(
        "live-receive",
        "What does it cost to receive bytes into a live cache at an offset?",
        "a new buffer that is joined copies the whole cache; receiving in place costs the bytes that came",
    )
    .sized("bytes received", MIB, 1..=12 * MIB)
    .per("byte")
    .way("join, dummy", |size| Ok(joining(size, Dummy)))
    .way("in place, dummy", |size| Ok(in_place(size, Dummy)))
    .way("join, sockets", |size| Ok(joining(size, sender(size)?)))
    .way("in place, sockets", |size| Ok(in_place(size, sender(size)?)))
}

/// A socket that has always received: reading copies from memory, as the kernel would.
struct Dummy;

static RECEIVED: [u8; 64 << 10] = [7; 64 << 10];

impl Read for Dummy {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = buf.len().min(RECEIVED.len());
        buf[..len].copy_from_slice(&RECEIVED[..len]);
        Ok(len)
    }
}

/// One end of a socket pair, whose other end is written to without end.
fn sender(size: u64) -> Result<UnixStream, String> {
    let (ours, mut theirs) = UnixStream::pair().map_err(|error| error.to_string())?;
    let block = vec![7; usize::try_from(size.min(256 << 10)).unwrap_or(1)];
    let writer = std::thread::Builder::new().name("weir-bench-send".to_owned());
    // It ends when our end is dropped.
    let started = writer.spawn(move || while theirs.write_all(&block).is_ok() {});
    started.map_err(|error| error.to_string())?;
    Ok(ours)
}

/// Receives into a new buffer, and joins it with what stands before and after it in the cache.
fn joining(size: u64, mut socket: impl Read + 'static) -> Statement {
    let size = size as usize;
    let mut cache = vec![0u8; CACHE_BYTES];
    Statement::new(size as u64, move || {
        let mut received = vec![0; size];
        let read = socket.read_exact(&mut received).is_ok();
        cache = [&cache[..CACHE_OFFSET], &received, &cache[CACHE_OFFSET + size..]].concat();
        read
    })
}

/// Receives where the bytes belong.
fn in_place(size: u64, mut socket: impl Read + 'static) -> Statement {
    let size = size as usize;
    let mut cache = vec![0u8; CACHE_BYTES];
    Statement::new(size as u64, move || socket.read_exact(&mut cache[CACHE_OFFSET..CACHE_OFFSET + size]).is_ok())
}
