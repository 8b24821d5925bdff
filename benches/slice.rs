//! Shows that taking a chunk costs a reference count, whatever its size, where a copy costs milliseconds.
//!
//! Budget: a 20 MiB slice under 50 ns (DESIGN.md section 9). The copy reads a mapping, which the server itself never
//! does; this file is its own and nobody truncates it.

use bytes::Bytes;
use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use std::io::Write as _;
use weir::store::MappedFile;

const MIB: u64 = 1 << 20;
const FILE_BYTES: u64 = 64 * MIB;
const SIZES: [u64; 3] = [4 << 10, MIB, 20 * MIB];

fn main() {
    divan::main();
}

/// A mapped file whose pages are in the cache.
fn mapped() -> MappedFile {
    let mut file = tempfile::tempfile().expect("a temporary file");
    let block: Vec<u8> = (0..MIB).map(|n| (n * 31 % 251) as u8).collect();
    for _ in 0..FILE_BYTES / MIB {
        file.write_all(&block).expect("room for the file");
    }
    MappedFile::from_file(file).expect("a regular file can be mapped")
}

/// An offset that is not a page boundary, as a keyframe's is.
fn cut(file: &MappedFile, size: u64) -> Bytes {
    let offset = black_box(7 * MIB + 4321);
    file.slice(offset..offset + size)
}

#[divan::bench(args = SIZES)]
fn slice(bencher: Bencher<'_, '_>, size: u64) {
    let file = mapped();
    bencher.bench_local(|| cut(&file, black_box(size)));
}

#[divan::bench(args = SIZES)]
fn copy(bencher: Bencher<'_, '_>, size: u64) {
    let file = mapped();
    bencher.counter(BytesCount::new(size)).bench_local(|| cut(&file, black_box(size)).to_vec());
}
