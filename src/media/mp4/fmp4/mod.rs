//! A chunk of an MP4 as something that plays on its own: an init segment and fragments made from a keyframe on.
//!
//! PURE. Only boxes are generated; samples stay slices of the file. Lengths are computed first ([`plan`]), bytes last
//! ([`Fmp4::fragment`]), so that a range of a long chunk costs what it contains.
//! Source: ISO/IEC 14496-12 §8.8 (movie fragments), QuickTime File Format (`tmcd`).

mod chunk;
mod init;
mod moof;
mod plan;

pub(crate) use chunk::ChunkStart;
pub use chunk::{Along, Chunk};
pub(crate) use moof::traf;

use crate::media::index::SeekError;
use crate::media::mp4::sample::Sample;
use crate::media::slices::Piece;
use bytes::Bytes;
use std::collections::VecDeque;
use std::ops::Range;

/// Samples of one tick, which only PCM has, become one entry of at most this many, as muxers write them: players make a
/// packet of each entry.
const JOINED_TICKS_MAX: u32 = 1024;

/// Makes one entry of a sample and the next, where that is sound and its bytes lie behind it.
fn join(sample: &mut Sample, next: &Sample) -> bool {
    let behind = sample.offset.checked_add(u64::from(sample.size)) == Some(next.offset);
    let size = sample.size.checked_add(next.size).filter(|_| behind && sample.description == next.description);
    match size {
        Some(size) if next.duration == 1 && sample.duration < JOINED_TICKS_MAX => {
            (sample.size, sample.duration) = (size, sample.duration + 1);
            true
        }
        _ => false,
    }
}

/// What the planner and the writer read: the samples of the tracks of one chunk, their times relative to its start.
/// Decode times are never negative: the chunk begins with its first sample.
pub(crate) trait Source {
    /// Samples of a track from its `first`th sample of the chunk on, in decoding order, to the end of the track.
    fn samples(
        &self,
        track: usize,
        first: u64,
    ) -> Result<Box<dyn Iterator<Item = Result<Sample, SeekError>> + '_>, SeekError>;
}

/// A planned chunk.
#[derive(Debug)]
pub(crate) struct Fmp4 {
    init: Bytes,
    tracks: Vec<TrackKindOut>,
    fragments: Vec<Fragment>,
    /// Of all fragments, one after another.
    runs: Vec<Run>,
    length: u64,
    /// The bytes of the file from the first sample's to the last's.
    source_range: Range<u64>,
    /// Frame number of the first frame, for the sample of the timecode track.
    timecode: Option<TimecodeSample>,
}

/// How samples of a track are written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TrackKindOut {
    pub(crate) id: u32,
    pub(crate) timescale: u32,
    /// With composition offsets and sync flags.
    pub(crate) video: bool,
    /// Composition time that is presented at time 0.
    pub(crate) media_time: i64,
    /// Neither pictures nor sound: samples may last long beyond the chunk, and do not make it longer.
    pub(crate) sparse: bool,
    /// Where a sparse track is cut, in ticks.
    pub(crate) end: Option<i64>,
}

impl TrackKindOut {
    /// For a `moof` whose `moov` is somebody else's.
    pub(crate) fn new(id: u32, video: bool) -> Self {
        Self { id, timescale: 0, video, media_time: 0, sparse: false, end: None }
    }

    /// When a sample is presented, in ticks from the start of the chunk.
    fn presented(self, sample: &Sample) -> i64 {
        sample.dts.saturating_add(i64::from(sample.cts_offset)).saturating_sub(self.media_time)
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct TimecodeSample {
    pub(crate) track_id: u32,
    pub(crate) frame_number: u32,
    /// Ticks of the timecode track that the chunk covers.
    pub(crate) duration: u32,
}

/// One movie fragment: a `moof` and its `mdat`.
#[derive(Debug)]
pub(crate) struct Fragment {
    /// Where it begins in the chunk.
    start: u64,
    /// Length of the `moof` and of the `mdat` header.
    head_bytes: u64,
    media_bytes: u64,
    /// Decode time of the leading track at its start, in ticks.
    start_ticks: i64,
    /// Which runs of the chunk are its.
    runs: Range<usize>,
}

/// The samples of one track in one fragment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) track: usize,
    pub(crate) first: u64,
    pub(crate) count: u32,
}

impl Fmp4 {
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    pub(crate) fn source_range(&self) -> Range<u64> {
        self.source_range.clone()
    }

    /// Everything that the bytes follow from besides the file and where its tracks begin, as numbers.
    pub(super) fn facts(&self) -> impl Iterator<Item = u64> + '_ {
        let init = self.init.iter().map(|&byte| u64::from(byte));
        let timecode = self.timecode.map_or(u64::MAX, |t| u64::from(t.frame_number) << 32 | u64::from(t.duration));
        let runs = self.runs.iter().flat_map(|run| [run.track as u64, run.first, u64::from(run.count)]);
        let fragments = self.fragments.iter().flat_map(|fragment| [fragment.start, fragment.media_bytes]);
        init.chain([timecode]).chain(runs).chain(fragments)
    }

    /// When part `part` begins, in microseconds from the start of the chunk; the init segment is at 0.
    pub(crate) fn part_start_us(&self, part: usize) -> i64 {
        let Some(fragment) = part.checked_sub(1).and_then(|n| self.fragments.get(n)) else { return 0 };
        let timescale = self.tracks.first().map_or(1, |track| track.timescale.max(1));
        i64::try_from(i128::from(fragment.start_ticks) * 1_000_000 / i128::from(timescale)).unwrap_or(i64::MAX)
    }

    /// The parts that hold bytes `range` of the chunk: 0 is the init segment, n the nth fragment.
    pub(crate) fn parts(&self, range: &Range<u64>) -> Range<usize> {
        let first = self.fragments.partition_point(|f| f.start <= range.start);
        let end = self.fragments.partition_point(|f| f.start < range.end);
        first..end + 1
    }

    /// The pieces of one part, cut to `range` of the chunk.
    pub(crate) fn part(
        &self,
        source: &dyn Source,
        part: usize,
        range: &Range<u64>,
    ) -> Result<VecDeque<Piece>, SeekError> {
        if part == 0 {
            return Ok(cut([Piece::Generated(self.init.clone())].into(), 0, range));
        }
        let fragment = &self.fragments[part - 1];
        Ok(cut(moof::pieces(self, source, part - 1)?, fragment.start, range))
    }
}

/// Cuts pieces that begin at `start` of the chunk to a range of it.
fn cut(pieces: VecDeque<Piece>, start: u64, range: &Range<u64>) -> VecDeque<Piece> {
    let mut at = start;
    let mut kept = VecDeque::new();
    for piece in pieces {
        let len = piece.len();
        let from = range.start.saturating_sub(at).min(len);
        let to = range.end.saturating_sub(at).min(len);
        at += len;
        if from < to {
            kept.push_back(piece.slice(from..to));
        }
    }
    kept
}
