//! One fragment: its `moof`, its `mdat` header, and the slices that are its samples.

use super::super::write::Boxes;
use super::{Fmp4, Fragment, Run, Source, TimecodeSample, TrackKindOut, join};
use crate::media::index::SeekError;
use crate::media::mp4::sample::Sample;
use crate::media::slices::Piece;
use bytes::Bytes;
use std::collections::VecDeque;

/// Sample flags (§8.8.3.1): depends on no other sample; depends on others and is no sync sample.
const SYNC: u32 = 0x0200_0000;
const NOT_SYNC: u32 = 0x0101_0000;
/// `tf_flags`: offsets count from the `moof`; the sample description is named.
const TF_FLAGS: u32 = 0x02_0000 | 0x2;
/// `tr_flags`: data offset; per sample duration, size, flags, composition offset.
const DATA_OFFSET: u32 = 0x1;
const PER_SAMPLE: u32 = 0x100 | 0x200;
const PER_VIDEO_SAMPLE: u32 = 0x400 | 0x800;

/// `moof` 8, `mfhd` 16, `mdat` header 8.
const FRAGMENT_BYTES: u64 = 32;
/// `traf` 8, `tfhd` 20, `tfdt` 20, `trun` 20.
const RUN_BYTES: u64 = 68;
/// The timecode sample's data.
const TIMECODE_BYTES: u64 = 4;

impl TrackKindOut {
    fn sample_bytes(self) -> u64 {
        if self.video { 16 } else { 8 }
    }
}

/// Bytes that a run costs besides its media.
pub(super) fn run_head_bytes(track: TrackKindOut, count: u64) -> u64 {
    RUN_BYTES + track.sample_bytes() * count
}

/// Bytes that a fragment costs besides its runs and media; the first one carries the timecode sample.
pub(super) fn fragment_head_bytes(timecode: bool) -> u64 {
    FRAGMENT_BYTES + if timecode { run_head_bytes(TIMECODE_TRACK, 1) } else { 0 }
}

const TIMECODE_TRACK: TrackKindOut =
    TrackKindOut { id: 0, timescale: 0, video: false, media_time: 0, sparse: false, end: None };

/// The pieces of the `n`th fragment, in order.
pub(super) fn pieces(chunk: &Fmp4, source: &dyn Source, n: usize) -> Result<VecDeque<Piece>, SeekError> {
    let fragment = &chunk.fragments[n];
    let timecode = chunk.timecode.filter(|_| n == 0);
    let mut runs = Vec::with_capacity(fragment.runs.len());
    for run in &chunk.runs[fragment.runs.clone()] {
        let track = chunk.tracks[run.track];
        runs.push((track, read(source, run, track)?));
    }
    let head = head(n, fragment, timecode, &runs)?;
    let mut pieces = VecDeque::from([Piece::Generated(Bytes::from(head))]);
    for (_, samples) in &runs {
        for sample in samples {
            append(&mut pieces, sample);
        }
    }
    Ok(pieces)
}

fn read(source: &dyn Source, run: &Run, track: TrackKindOut) -> Result<Vec<Sample>, SeekError> {
    let mut samples: Vec<Sample> = Vec::new();
    let mut count = 0;
    for sample in source.samples(run.track, run.first)?.take(run.count as usize) {
        let mut sample = sample?;
        count += 1;
        if let Some(end) = track.end {
            let left = u32::try_from(end.saturating_sub(sample.dts).max(0)).unwrap_or(u32::MAX);
            sample.duration = sample.duration.min(left);
        }
        if !samples.last_mut().is_some_and(|last| !track.video && join(last, &sample)) {
            samples.push(sample);
        }
    }
    if count < run.count {
        return Err(SeekError::Damaged("a track has fewer samples than when the chunk was planned".to_owned()));
    }
    Ok(samples)
}

/// Samples that lie behind each other in the file are one slice.
fn append(pieces: &mut VecDeque<Piece>, sample: &Sample) {
    if sample.size == 0 {
        return;
    }
    match pieces.back_mut() {
        Some(Piece::Source { offset, len }) if *offset + *len == sample.offset => *len += u64::from(sample.size),
        _ => pieces.push_back(Piece::Source { offset: sample.offset, len: u64::from(sample.size) }),
    }
}

type Runs = [(TrackKindOut, Vec<Sample>)];

fn head(n: usize, fragment: &Fragment, timecode: Option<TimecodeSample>, runs: &Runs) -> Result<Vec<u8>, SeekError> {
    let changed = || SeekError::Damaged("the samples are not those that the chunk was planned with".to_owned());
    let timecode_bytes = if timecode.is_some() { TIMECODE_BYTES } else { 0 };
    let media: u64 = runs.iter().flat_map(|(_, samples)| samples).map(|s| u64::from(s.size)).sum();
    if media != fragment.media_bytes {
        return Err(changed());
    }
    let mut out = Boxes::new();
    let mut data = u32::try_from(fragment.head_bytes - timecode_bytes).map_err(|_| changed())?;
    out.boxed(b"moof", |b| {
        b.full(b"mfhd", 0, 0, |b| b.u32(u32::try_from(n + 1).unwrap_or(u32::MAX)));
        if let Some(timecode) = timecode {
            let track = TrackKindOut { id: timecode.track_id, ..TIMECODE_TRACK };
            let sample = Sample {
                index: 0,
                offset: 0,
                size: 4,
                dts: 0,
                cts_offset: 0,
                duration: timecode.duration,
                sync: true,
                description: 1,
                moof: None,
            };
            traf(b, track, &[sample], &mut data);
        }
        for (track, samples) in runs {
            traf(b, *track, samples, &mut data);
        }
    });
    // The size of `mdat` is 32 bits: the planner cuts fragments long before.
    out.u32(u32::try_from(media + timecode_bytes + 8).map_err(|_| changed())?);
    out.raw(b"mdat");
    if let Some(timecode) = timecode {
        out.u32(timecode.frame_number);
    }
    let head = out.into_bytes();
    if head.len() as u64 == fragment.head_bytes { Ok(head) } else { Err(changed()) }
}

/// Samples of one track, whose data begins `data` bytes behind the start of the `moof`; moves `data` to their end.
pub(crate) fn traf(b: &mut Boxes, track: TrackKindOut, samples: &[Sample], data: &mut u32) {
    let flags = DATA_OFFSET | PER_SAMPLE | if track.video { PER_VIDEO_SAMPLE } else { 0 };
    let start = samples.first().map_or(0, |s| s.dts);
    b.boxed(b"traf", |b| {
        b.full(b"tfhd", 0, TF_FLAGS, |b| {
            b.u32(track.id);
            b.u32(samples.first().map_or(1, |s| s.description));
        });
        b.full(b"tfdt", 1, 0, |b| b.u64(u64::try_from(start).unwrap_or(0)));
        b.full(b"trun", 1, flags, |b| {
            b.u32(u32::try_from(samples.len()).unwrap_or(u32::MAX));
            b.u32(*data);
            for sample in samples {
                b.u32(sample.duration);
                b.u32(sample.size);
                if track.video {
                    b.u32(if sample.sync { SYNC } else { NOT_SYNC });
                    b.i32(sample.cts_offset);
                }
            }
        });
    });
    *data = samples.iter().fold(*data, |at, s| at.saturating_add(s.size));
}

pub(super) const fn timecode_data_bytes() -> u64 {
    TIMECODE_BYTES
}
