//! Indexes: what building one takes, and what finding a moment in one takes.

use super::sample::{self, DAY, FRAME_RATE};
use crate::bench::{Benchmark, Statement};
use crate::media::index::{Index, Position};
use crate::media::time::DecimalTime;
use std::hint::black_box;

const HOUR: u64 = 3600 * FRAME_RATE as u64;
/// An odd step visits frames all over a file, so that no look-up finds the tables of the one before in the caches.
const STEP: u64 = 1_234_567;

pub(super) fn seek() -> Benchmark {
    Benchmark::new(
        "seek-lookup",
        "How is the sample of a moment found?",
        "a linear scan grows with the file, a binary search does not; the index is searched in the tables as they lie",
    )
    .sized("frames of the video", HOUR, 60..=u64::from(DAY))
    .way("linear scan", |size| {
        Ok(times(size, |times, time| times.iter().position(|start| *start > time).unwrap_or(times.len())))
    })
    .way("binary search", |size| Ok(times(size, |times, time| times.partition_point(|start| *start <= time))))
    .way("index", |size| {
        let file = sample::mp4(u32::try_from(size).unwrap_or(DAY));
        let entry = Index::build(&file).map_err(|error| error.to_string())?;
        let index = Index::open(entry.into()).map_err(|error| error.to_string())?;
        let frames = size / 60 * 60;
        let mut frame = 0;
        Ok(Statement::new(1, move || {
            frame = (frame + STEP) % frames;
            let time = DecimalTime::parse(&format!("{}.5", frame / u64::from(FRAME_RATE)));
            time.ok().map(|time| index.resolve(&file, black_box(&Position::Time(time))))
        }))
    })
}

/// Look-ups in a table with the start of each frame, in microseconds.
fn times(size: u64, find: impl Fn(&[u64], u64) -> usize + 'static) -> Statement {
    let start = |frame: u64| frame * 1_000_000 / u64::from(FRAME_RATE);
    let times: Vec<u64> = (0..size).map(start).collect();
    let mut frame = 0;
    Statement::new(1, move || {
        frame = (frame + STEP) % size;
        find(black_box(&times), black_box(start(frame)))
    })
}

pub(super) fn mp4() -> Benchmark {
    Benchmark::new(
        "mp4-index",
        "What does the index of an MP4 file cost, before and after it is in the cache?",
        "building walks the sample tables once; opening the entry of the cache verifies its checksum",
    )
    .sized("frames of the video", HOUR, 60..=u64::from(DAY))
    .per("frame")
    .way("build", |size| {
        let file = sample::mp4(u32::try_from(size).unwrap_or(DAY));
        Ok(Statement::new(size, move || Index::build(black_box(&file)).map(|entry| entry.len())))
    })
    .way("open", |size| {
        let file = sample::mp4(u32::try_from(size).unwrap_or(DAY));
        let entry = bytes::Bytes::from(Index::build(&file).map_err(|error| error.to_string())?);
        Ok(Statement::new(size, move || Index::open(black_box(&entry).clone()).is_ok()))
    })
}

pub(super) fn ts() -> Benchmark {
    Benchmark::new(
        "ts-scan",
        "How fast is an MPEG-TS file scanned for keyframes and times?",
        "one pass over all packets: this bounds how soon a new file can be asked for moments",
    )
    .sized("frames of the video", 20_000, 60..=1_000_000)
    .per("byte")
    .way("scan", |size| {
        let file = sample::ts(u32::try_from(size).unwrap_or(60));
        let entry = Index::build(&file.as_slice()).map_err(|error| error.to_string())?;
        Index::open(entry.into()).map_err(|error| error.to_string())?;
        Ok(Statement::new(file.len() as u64, move || {
            Index::build(black_box(&file.as_slice())).map(|entry| entry.len())
        }))
    })
}
