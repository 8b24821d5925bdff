//! Shows that the engine's figures are true: a stopwatch around a million calls, written without it, beside what it says.
//!
//! `cargo bench --bench stopwatch`. The last two rows are `memcpy` out of the mapped file, into a block that is
//! allocated for each call, and the engine's loop over nothing.
#![allow(unsafe_code, reason = "memory is copied by hand")]

use std::hint::black_box;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;
use weir::bench::catalogue::sample;
use weir::bench::job::{Jobs, Request};
use weir::http::range;
use weir::library::Catalogue;
use weir::observe::latency::Histogram;
use weir::store::MappedFile;

const CALLS: u32 = 1_000_000;
const COPIES: u32 = 50;
const MIB: u64 = 1 << 20;

fn main() {
    // `cargo test --benches` starts every benchmark: there is nothing to test.
    if std::env::args().any(|word| word == "--test") || !std::env::args().any(|word| word == "--bench") {
        return;
    }
    let jobs = Arc::new(Jobs::default());
    println!("{:42}{:>12}{:>12}{:>8}", "", "engine, ns", "by hand, ns", "ratio");
    let file = video();
    let chunk = 7 * MIB + 4321..27 * MIB + 4321;
    compare(&jobs, "chunk-slice", "slice", || {
        by_hand(CALLS, || black_box(&file).slice(black_box(chunk.start)..black_box(chunk.end)))
    });
    let field = b"bytes=1234567890-1255539409";
    compare(&jobs, "range-parse", "chunk", || {
        by_hand(CALLS, || range::resolve(black_box(field), black_box(5_000_000_000)))
    });
    let catalogue = Catalogue::of_ids((0..1000).map(|n| format!("v{n:06}.mp4")));
    compare(&jobs, "catalogue-lookup", "catalogue", || {
        by_hand(CALLS, || black_box(&catalogue).get(black_box("v000500.mp4")).is_some())
    });
    let histogram = Histogram::new();
    let took = Duration::from_micros(350);
    compare(&jobs, "histogram-observe", "observe", || by_hand(CALLS, || histogram.observe(black_box(took))));
    let whole = file.slice(0..file.len());
    compare(&jobs, "chunk-slice", "copy", || {
        by_hand(COPIES, || copied(&whole[chunk.start as usize..chunk.end as usize]))
    });
    compare(&jobs, "empty", "nothing", || by_hand(CALLS, || ()));
}

/// Of the same bytes as the benchmark's.
fn video() -> MappedFile {
    let block: Vec<u8> = (0..MIB).map(|n| (n * 31 % 251) as u8).collect();
    sample::in_memory((0..64).map(|_| block.as_slice())).expect("a file in memory")
}

/// What one call takes, in ns: the best of five.
fn by_hand<R>(calls: u32, mut call: impl FnMut() -> R) -> f64 {
    let mut best = f64::INFINITY;
    for _ in 0..5 {
        let began = now_ns();
        for _ in 0..calls {
            black_box(call());
        }
        best = best.min((now_ns() - began) as f64 / f64::from(calls));
    }
    best
}

fn now_ns() -> i128 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live local of the right type.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)
}

/// `memcpy` into a new block, which is released again.
fn copied(from: &[u8]) -> u8 {
    // SAFETY: the block is as large as what is copied, does not overlap it, is read inside, and is released once.
    unsafe {
        let block = libc::malloc(from.len());
        assert!(!block.is_null(), "no memory");
        libc::memcpy(block, from.as_ptr().cast(), from.len());
        let last = *block.cast::<u8>().add(from.len() - 1);
        libc::free(block);
        last
    }
}

/// The engine before and after the stopwatch, so that a drift of the machine meets both.
fn compare(jobs: &Arc<Jobs>, name: &str, alternative: &str, mut stopwatch: impl FnMut() -> f64) {
    let engine = || {
        let request = Request { only: Some(alternative.to_owned()), ..Request::default() };
        let turn = jobs.turn(name, request, Duration::from_secs(60)).expect("nothing else runs");
        let report = turn.run(|_| true).expect("measured");
        report.figures(alternative).expect("its figures").best_ns
    };
    let (before, by_hand, after) = (engine(), stopwatch(), engine());
    let best = before.min(after);
    println!("{:42}{best:>12.2}{by_hand:>12.2}{:>8.2}", format!("{name}, {alternative}"), best / by_hand);
    std::io::stdout().flush().ok();
}
