//! Which samples go into a chunk, and how they are grouped into fragments.
//!
//! The first track leads (the video track where there is one): its samples are taken in decoding order, and before
//! each of them the samples of the other tracks up to the same time. A fragment begins at each keyframe, and within a
//! long group of pictures every [`FRAGMENT_SECONDS`].

use super::init::{self, Header};
use super::moof::{fragment_head_bytes, run_head_bytes, timecode_data_bytes};
use super::{Fmp4, Fragment, Run, Sample, Source, TimecodeSample, TrackKindOut};
use crate::media::index::SeekError;
use crate::media::time::Seconds;
use bytes::Bytes;
use std::cmp::Ordering;
use std::ops::Range;

/// A fragment of a long group of pictures is cut after this time, so that a player can begin before it is all there.
const FRAGMENT_SECONDS: i64 = 2;
/// A fragment is cut before it has this many bytes of media: `mdat` has a 32-bit size, and a fragment is made whole.
const FRAGMENT_BYTES_MAX: u64 = 256 << 20;
/// Samples in one chunk at most: planning walks over all of them.
const SAMPLES_MAX: u64 = 16_000_000;

/// Where a chunk ends: at whichever comes first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut {
    /// With the sample that brings the chunk to this many bytes.
    pub(crate) bytes: u64,
    /// Before the first moment that is not wanted, relative to the start of the chunk.
    pub(crate) end: Seconds,
}

type Samples<'a> = Box<dyn Iterator<Item = Result<Sample, SeekError>> + 'a>;

/// A track while it is walked over.
struct Walk<'a> {
    track: TrackKindOut,
    samples: std::iter::Peekable<Samples<'a>>,
    /// Samples taken so far.
    taken: u64,
    /// First sample of the open fragment.
    first: u64,
    /// The last entry of its run.
    last: Option<Sample>,
}

struct Planner<'a> {
    walks: Vec<Walk<'a>>,
    fragments: Vec<Fragment>,
    /// Where the open fragment begins, and what it holds.
    start: u64,
    media_bytes: u64,
    head_bytes: u64,
    /// Decode time of the leading track at the start of the open fragment.
    fragment_ticks: i64,
    timecode: Option<TimecodeSample>,
    source_range: Range<u64>,
    /// When the last picture taken of the leading track has been shown, in its ticks.
    end: i64,
}

/// Plans a chunk. The first of `tracks` leads; `timecode` gives the first frame's number.
pub(crate) fn plan(
    source: &dyn Source,
    mut header: Header<'_>,
    tracks: Vec<TrackKindOut>,
    timecode: Option<TimecodeSample>,
    cut: Cut,
) -> Result<Fmp4, SeekError> {
    // The duration is a number of fixed width: the init segment has its final length already.
    let init_bytes = init::segment(&header).len() as u64;
    let mut walks = Vec::with_capacity(tracks.len());
    for (n, track) in tracks.iter().enumerate() {
        walks.push(Walk { track: *track, samples: source.samples(n, 0)?.peekable(), taken: 0, first: 0, last: None });
    }
    let mut planner = Planner {
        walks,
        fragments: Vec::new(),
        start: init_bytes,
        media_bytes: 0,
        head_bytes: 0,
        fragment_ticks: 0,
        timecode,
        source_range: Range { start: u64::MAX, end: 0 },
        end: 0,
    };
    planner.open();
    let pictures = planner.pictures_before(source, cut)?;
    planner.take_all(cut, pictures)?;
    planner.close();
    if planner.fragments.is_empty() {
        return Err(SeekError::Unanswerable("the video has no sample at this moment".to_owned()));
    }
    let lead = tracks[0].timescale;
    header.duration_ms = u64::try_from(i128::from(planner.end) * 1000 / i128::from(lead.max(1))).unwrap_or(0);
    let timecode =
        planner.timecode.map(|t| TimecodeSample { duration: timecode_ticks(&header, planner.end, lead), ..t });
    Ok(Fmp4 {
        init: Bytes::from(init::segment(&header)),
        tracks,
        length: planner.start,
        fragments: planner.fragments,
        source_range: planner.source_range,
        timecode,
    })
}

/// The chunk's duration in ticks of the timecode track.
fn timecode_ticks(header: &Header<'_>, end: i64, timescale: u32) -> u32 {
    let Some((_, counting)) = header.timecode else { return 0 };
    u32::try_from(i128::from(end) * i128::from(counting.rate.num) / i128::from(timescale.max(1))).unwrap_or(u32::MAX)
}

impl Planner<'_> {
    /// Samples of the leading track up to the last one in decoding order that is presented before the cut's end, as
    /// far as its bytes allow.
    fn pictures_before(&self, source: &dyn Source, cut: Cut) -> Result<u64, SeekError> {
        let (end, mut bytes) = (cut.end, 0u64);
        let track = self.walks[0].track;
        // Lowest distance of presentation from decoding so far: from it follows when no later sample is in time.
        let (mut count, mut lowest_offset) = (0, i64::MAX);
        for (n, sample) in (1..=SAMPLES_MAX).zip(source.samples(0, 0)?) {
            let sample = sample?;
            let offset = i64::from(sample.cts_offset).saturating_sub(track.media_time);
            lowest_offset = lowest_offset.min(offset);
            if !is_before(sample.dts.saturating_add(lowest_offset), track.timescale, end) {
                break;
            }
            if is_before(sample.dts.saturating_add(offset), track.timescale, end) {
                count = n;
            }
            bytes = bytes.saturating_add(u64::from(sample.size));
            if bytes >= cut.bytes {
                return Ok(n);
            }
        }
        Ok(count)
    }

    fn take_all(&mut self, cut: Cut, pictures: u64) -> Result<(), SeekError> {
        let timescale = self.walks[0].track.timescale;
        let mut description = None;
        let mut taken = 0;
        while self.walks[0].taken < pictures {
            let Some(sample) = self.peek(0)? else { break };
            let presented = i64::from(sample.cts_offset).saturating_sub(self.walks[0].track.media_time);
            let long = sample.dts - self.fragment_ticks >= FRAGMENT_SECONDS * i64::from(timescale);
            let big = self.media_bytes + u64::from(sample.size) > FRAGMENT_BYTES_MAX;
            let changed = description.replace(sample.description) != Some(sample.description);
            let begins = sample.sync && self.walks[0].track.video || long || big || changed;
            if self.walks[0].taken > self.walks[0].first && begins {
                self.close();
                self.open();
                self.fragment_ticks = sample.dts;
            }
            taken += self.take_others(sample.dts, timescale)? + 1;
            self.take(0, &sample);
            let presented_to = sample.dts.saturating_add(presented).saturating_add(i64::from(sample.duration));
            self.end = self.end.max(presented_to);
            if taken > SAMPLES_MAX {
                let limit = format!("a chunk has at most {SAMPLES_MAX} samples; ask for less");
                return Err(SeekError::Unanswerable(limit));
            }
            if self.length() >= cut.bytes {
                break;
            }
        }
        let taken_to = Seconds { num: i128::from(self.end), den: u64::from(timescale.max(1)) };
        let rest = if cut.end < taken_to { cut.end } else { taken_to };
        for n in 1..self.walks.len() {
            while let Some(sample) = self.peek(n)? {
                if !is_before(sample.dts, self.walks[n].track.timescale, rest) {
                    break;
                }
                self.take(n, &sample);
            }
        }
        Ok(())
    }

    /// Takes the other tracks' samples up to a time of the leading track.
    fn take_others(&mut self, dts: i64, timescale: u32) -> Result<u64, SeekError> {
        let until = Seconds { num: i128::from(dts), den: u64::from(timescale.max(1)) };
        let mut taken = 0;
        for n in 1..self.walks.len() {
            while let Some(sample) = self.peek(n)? {
                if !is_before(sample.dts, self.walks[n].track.timescale, until) {
                    break;
                }
                self.take(n, &sample);
                taken += 1;
            }
        }
        Ok(taken)
    }

    fn peek(&mut self, walk: usize) -> Result<Option<Sample>, SeekError> {
        match self.walks[walk].samples.peek() {
            None => Ok(None),
            Some(Ok(sample)) => Ok(Some(*sample)),
            Some(Err(_)) => match self.walks[walk].samples.next() {
                Some(Err(error)) => Err(error),
                _ => Ok(None),
            },
        }
    }

    fn take(&mut self, walk: usize, sample: &Sample) {
        let walk = &mut self.walks[walk];
        walk.samples.next();
        if walk.taken == walk.first {
            self.head_bytes += run_head_bytes(walk.track, 0);
            walk.last = None;
        }
        walk.taken += 1;
        if !walk.last.as_mut().is_some_and(|last| !walk.track.video && last.join(sample)) {
            self.head_bytes += run_head_bytes(walk.track, 1) - run_head_bytes(walk.track, 0);
            walk.last = Some(*sample);
        }
        self.media_bytes += u64::from(sample.size);
        self.source_range.start = self.source_range.start.min(sample.offset);
        self.source_range.end = self.source_range.end.max(sample.offset.saturating_add(u64::from(sample.size)));
    }

    /// Length of the chunk if it ended here.
    fn length(&self) -> u64 {
        self.start + self.head_bytes + self.media_bytes
    }

    fn open(&mut self) {
        let with_timecode = self.timecode.is_some() && self.fragments.is_empty();
        self.head_bytes = fragment_head_bytes(with_timecode) + if with_timecode { timecode_data_bytes() } else { 0 };
        self.media_bytes = 0;
        for walk in &mut self.walks {
            walk.first = walk.taken;
        }
    }

    fn close(&mut self) {
        let count = |walk: &Walk<'_>| u32::try_from(walk.taken - walk.first).unwrap_or(u32::MAX);
        let runs: Vec<Run> = (0..self.walks.len())
            .map(|n| Run { track: n, first: self.walks[n].first, count: count(&self.walks[n]) })
            .filter(|run| run.count > 0)
            .collect();
        if runs.is_empty() {
            return;
        }
        let (start, head_bytes, media_bytes) = (self.start, self.head_bytes, self.media_bytes);
        let start_ticks = self.fragment_ticks;
        self.start = self.length();
        self.fragments.push(Fragment { start, head_bytes, media_bytes, start_ticks, runs });
    }
}

/// `ticks / timescale` is earlier than `time`.
fn is_before(ticks: i64, timescale: u32, time: Seconds) -> bool {
    let left = i128::from(ticks).checked_mul(i128::from(time.den));
    let right = time.num.checked_mul(i128::from(timescale));
    match (left, right) {
        (Some(left), Some(right)) => left.cmp(&right) == Ordering::Less,
        _ => false,
    }
}
