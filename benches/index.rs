//! Shows what opening an index and finding a moment in it cost, for a day of 60 frames per second: the largest moov box
//! that Weir is measured with (DESIGN.md section 9: a seek within 1 ms).
//!
//! The file is the one of `weir bench mp4-index`: its sample tables are whole, its media is zeros that take no memory.

use bytes::Bytes;
use divan::{Bencher, black_box};
use std::sync::OnceLock;
use weir::bench::catalogue::sample::{self, DAY, FRAME_RATE, Mp4};
use weir::media::index::{Index, Position, Seek};
use weir::media::time::{DecimalTime, Label};

const FRAMES: u32 = DAY;

fn main() {
    divan::main();
}

fn day() -> &'static Mp4 {
    static DAY_FILE: OnceLock<Mp4> = OnceLock::new();
    DAY_FILE.get_or_init(|| sample::mp4(FRAMES))
}

fn entry() -> Bytes {
    static ENTRY: OnceLock<Bytes> = OnceLock::new();
    ENTRY.get_or_init(|| Index::build(day()).expect("an index").into()).clone()
}

fn opened() -> Index {
    Index::open(entry()).expect("our own entry")
}

/// The first index: every table is walked once.
#[divan::bench(sample_count = 10, sample_size = 1)]
fn build() -> Vec<u8> {
    Index::build(black_box(day())).expect("an index")
}

/// From the index cache: the checksum of all of it is verified.
#[divan::bench]
fn open(bencher: Bencher<'_, '_>) {
    let entry = entry();
    bencher.bench_local(|| Index::open(black_box(&entry).clone()).expect("our own entry"));
}

/// Just built: nothing is verified.
#[divan::bench]
fn open_trusted(bencher: Bencher<'_, '_>) {
    let entry = entry();
    bencher.bench_local(|| Index::open_trusted(black_box(&entry).clone()).expect("our own entry"));
}

fn resolve(bencher: Bencher<'_, '_>, positions: impl Fn(u32) -> Position) {
    let index = opened();
    // An odd step visits frames all over the day, so that no look-up finds the tables of the one before in the caches.
    let mut frame = 0;
    bencher.bench_local(move || -> Seek {
        frame = (frame + 1_234_567) % FRAMES;
        index.resolve(day(), black_box(&positions(frame))).expect("a frame of the day")
    });
}

#[divan::bench]
fn frame_to_offset(bencher: Bencher<'_, '_>) {
    resolve(bencher, |frame| Position::Frame(frame.into()));
}

#[divan::bench]
fn timecode_to_offset(bencher: Bencher<'_, '_>) {
    resolve(bencher, |frame| {
        let seconds = frame / FRAME_RATE;
        let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
        let text = format!("{hours:02}:{minutes:02}:{:02}:{:02}", seconds % 60, frame % FRAME_RATE);
        Position::Timecode { label: Label::parse(&text).expect("a label"), drop: None }
    });
}

#[divan::bench]
fn time_to_offset(bencher: Bencher<'_, '_>) {
    resolve(bencher, |frame| {
        let text = format!("{}.5", frame / FRAME_RATE);
        Position::Time(DecimalTime::parse(&text).expect("a time"))
    });
}
