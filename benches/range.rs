//! Shows what the `Range` field costs a request: one range, as players send it, and the most that are accepted.

use divan::{Bencher, black_box};
use weir::http::range;

const FILE_BYTES: u64 = 5_000_000_000;

fn main() {
    divan::main();
}

/// Spelled as clients spell them: a browser's first request, a chunk, a suffix, what a PDF reader sends, nonsense.
const FIELDS: [&str; 5] = [
    "bytes=0-",
    "bytes=1234567890-1255539409",
    "bytes=-500",
    "bytes=0-99, 1000-1999, 5000-5999, 10000-10999",
    "bytes=9-5",
];

#[divan::bench(args = FIELDS)]
fn resolve(field: &str) -> range::Resolved {
    range::resolve(black_box(field.as_bytes()), black_box(FILE_BYTES))
}

/// As many ranges as are looked at, and far more than that.
#[divan::bench(args = [16, 4096])]
fn resolve_many(bencher: Bencher<'_, '_>, ranges: u64) {
    let list: Vec<String> = (0..ranges).map(|n| format!("{}-{}", n * 1000, n * 1000 + 99)).collect();
    let field = format!("bytes={}", list.join(","));
    bencher.bench_local(|| range::resolve(black_box(field.as_bytes()), black_box(FILE_BYTES)));
}

#[divan::bench]
fn content_range() -> String {
    range::content_range(black_box(&(1_234_567_890..1_255_539_410)), black_box(FILE_BYTES))
}
