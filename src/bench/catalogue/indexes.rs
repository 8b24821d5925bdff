//! Indexes: what building one takes, and what finding a moment in one takes.

use super::sample::{self, DAY, FRAME_RATE, Mp4};
use crate::bench::{Benchmark, Statement};
use crate::media::index::{Index, Position};
use crate::media::mp4::Tracks;
use crate::media::time::DecimalTime;
use std::hint::black_box;

const HOUR: u64 = 3600 * FRAME_RATE as u64;
/// An odd step visits frames all over a file, so that no look-up finds the tables of the one before in the caches.
const STEP: u64 = 1_234_567;

pub(super) fn seek() -> Benchmark {
    Benchmark::new(
        "seek-lookup",
        "How is the sample of a moment found?",
        "a linear scan of the sample tables grows with the file, a binary search in them, as they lie mapped, does \
         not; the index also counts frames, reads the time's text and finds the keyframe",
    )
    .sized("frames of the video", HOUR, 60..=u64::from(DAY))
    .way("linear scan", |size| {
        tables(size, |tracks, time| tracks.samples(0, 0).position(|sample| sample.is_ok_and(|s| s.dts >= time)))
    })
    .way("binary search", |size| tables(size, |tracks, time| tracks.sample_at_or_after(0, time).ok()?.try_into().ok()))
    .way("index", |size| {
        let (file, index) = indexed(size)?;
        let frames = file.frames();
        let mut frame = 0;
        Ok(Statement::new(1, move || {
            frame = (frame + STEP) % frames;
            let time = DecimalTime::parse(&format!("{}.5", frame / u64::from(FRAME_RATE)));
            time.ok().map(|time| index.resolve(&file, black_box(&Position::Time(time))))
        }))
    })
}

/// A video, and its index: an entry that is mapped, as those of the cache are.
fn indexed(size: u64) -> Result<(Mp4, Index), String> {
    let file = sample::mp4(u32::try_from(size).unwrap_or(DAY));
    let entry = Index::build(&file).map_err(|error| error.to_string())?;
    let entry = sample::in_memory([entry.as_slice()]).map_err(|error| error.to_string())?;
    let index = Index::open(entry.slice(0..entry.len())).map_err(|error| error.to_string())?;
    Ok((file, index))
}

/// Look-ups of a decode time in the sample tables of an index. Each finds what it has to, or there is no statement.
fn tables(size: u64, find: impl Fn(&Tracks<'_>, i64) -> Option<usize> + 'static) -> Result<Statement, String> {
    let (file, index) = indexed(size)?;
    let frames = file.frames();
    let last = index.tracks(&file).and_then(|tracks| find(&tracks, frames as i64 - 1));
    if last.map(|found| found as u64) != Some(frames - 1) {
        return Err("the look-up does not find the last frame".to_owned());
    }
    let mut frame = 0;
    Ok(Statement::new(1, move || {
        frame = (frame + STEP) % frames;
        // A tick of the sample is a frame.
        index.tracks(&file).and_then(|tracks| find(&tracks, black_box(frame as i64)))
    }))
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
