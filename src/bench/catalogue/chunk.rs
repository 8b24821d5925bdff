//! A chunk taken out of a video: what a copy costs.

use super::sample::in_memory;
use crate::bench::report::{Report, bytes_per_second, scaled, time};
use crate::bench::{Benchmark, Statement};
use crate::store::MappedFile;
use std::hint::black_box;
use std::io;
use std::ops::Range;

const MIB: u64 = 1 << 20;
/// Of the mapped file; a chunk begins at 7 MiB and is no multiple of a page away.
const FILE_BYTES: u64 = 64 * MIB;
const OFFSET: u64 = 7 * MIB + 4321;
const CHUNK_MAX: u64 = FILE_BYTES - 8 * MIB;

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
    let block: Vec<u8> = (0..MIB).map(|n| (n * 31 % 251) as u8).collect();
    in_memory((0..FILE_BYTES / MIB).map(|_| block.as_slice()))
}

/// What one core could do if this were all it did: bytes per second, and clients with a chunk each second.
pub(super) fn limits(report: &Report) -> Vec<String> {
    let limit = |figures: &crate::bench::report::Figures| {
        let per_second = 1e9 / figures.best_ns;
        let bytes = bytes_per_second(figures.elements as f64 * per_second);
        let (name, clients) = (&figures.name, scaled(per_second));
        let text = format!("{name}: at most {bytes}, or {} clients in parallel", clients.trim_end());
        format!("{text} (one CPU second by {} a chunk)", time(figures.best_ns))
    };
    report.alternatives.iter().map(limit).collect()
}
