//! Which samples go into a chunk, and how they are grouped into fragments.
//!
//! The first track leads (the video track where there is one): its samples are taken in decoding order, and before
//! each of them the samples of the other tracks up to the same time; sound that outlasts the picture follows. A
//! fragment begins at a keyframe, unless the one before is still short, and within a long group of pictures anyhow.

use super::init::{self, Header};
use super::moof::{fragment_head_bytes, run_head_bytes, timecode_data_bytes};
use super::{Fmp4, Fragment, Run, Source, TimecodeSample, TrackKindOut, join};
use crate::media::index::SeekError;
use crate::media::mp4::sample::Sample;
use crate::media::time::Seconds;
use bytes::Bytes;
use std::cmp::Ordering;
use std::ops::Range;

/// A keyframe ends a fragment of at least this time: fewer, and a chunk of a whole day takes megabytes to plan.
const FRAGMENT_MIN_MS: i64 = 1_500;
/// A fragment is cut after this time anyhow, so that a player can begin before a long group of pictures is all there.
const FRAGMENT_MAX_MS: i64 = 3_000;
/// A fragment is cut before it has this many bytes of media: `mdat` has a 32-bit size, and a fragment is made whole.
const FRAGMENT_BYTES_MAX: u64 = 256 << 20;
/// Samples in one chunk at most: planning walks over all of them.
const SAMPLES_MAX: u64 = 16_000_000;

/// Where a chunk ends: at whichever comes first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut {
    /// With the sample that brings the chunk to this many bytes.
    pub(crate) bytes: u64,
    /// The leading track before this moment, relative to the start of the chunk.
    pub(crate) pictures: Seconds,
    /// All tracks before this moment; `None`: as far as they go.
    pub(crate) end: Option<Seconds>,
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
    /// The last entry of its run in the open fragment.
    last: Option<Sample>,
}

struct Planner<'a> {
    walks: Vec<Walk<'a>>,
    fragments: Vec<Fragment>,
    runs: Vec<Run>,
    /// Where the open fragment begins, and what it holds.
    start: u64,
    media_bytes: u64,
    head_bytes: u64,
    /// Decode time of the leading track at the start of the open fragment.
    fragment_ticks: i64,
    timecode: Option<TimecodeSample>,
    source_range: Range<u64>,
    /// Samples of all tracks.
    taken: u64,
    /// When the last picture taken of the leading track has been shown, and when everything has, in its ticks.
    end: i64,
    whole_end: i64,
}

/// Plans a chunk. The first of `tracks` leads; `timecode` gives the first frame's number.
pub(crate) fn plan(
    source: &dyn Source,
    mut header: Header<'_>,
    mut tracks: Vec<TrackKindOut>,
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
        runs: Vec::new(),
        start: init_bytes,
        media_bytes: 0,
        head_bytes: 0,
        fragment_ticks: 0,
        timecode,
        source_range: Range { start: u64::MAX, end: 0 },
        taken: 0,
        end: 0,
        whole_end: 0,
    };
    planner.open();
    let pictures = planner.pictures_before(source, cut)?;
    planner.take_pictures(cut, pictures)?;
    planner.take_rest(cut)?;
    planner.close();
    if planner.fragments.is_empty() {
        return Err(SeekError::Unanswerable("the video has no sample at this moment".to_owned()));
    }
    let lead = tracks[0].timescale;
    let whole_end = planner.whole_end.max(planner.end);
    header.duration_ms = u64::try_from(i128::from(whole_end) * 1000 / i128::from(lead.max(1))).unwrap_or(0);
    for track in tracks.iter_mut().filter(|track| track.sparse) {
        track.end = i64::try_from(i128::from(whole_end) * i128::from(track.timescale) / i128::from(lead.max(1))).ok();
    }
    let timecode =
        planner.timecode.map(|t| TimecodeSample { duration: timecode_ticks(&header, planner.end, lead), ..t });
    Ok(Fmp4 {
        init: Bytes::from(init::segment(&header)),
        tracks,
        length: planner.start,
        fragments: planner.fragments,
        runs: planner.runs,
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
        let (end, mut bytes) = (cut.pictures, 0u64);
        let track = self.walks[0].track;
        let mut count = 0;
        for (n, sample) in (1..=SAMPLES_MAX).zip(source.samples(0, 0)?) {
            let sample = sample?;
            // Composition offsets are not negative: no later sample is presented before this.
            if !is_before(sample.dts.saturating_sub(track.media_time), track.timescale, end) {
                break;
            }
            if is_before(track.presented(&sample), track.timescale, end) {
                count = n;
            }
            bytes = bytes.saturating_add(u64::from(sample.size));
            if bytes >= cut.bytes {
                return Ok(n);
            }
        }
        Ok(count)
    }

    /// The samples of the leading track, and before each of them those of the others up to the same time. Pictures
    /// that belong between those which are in it already are added: a chunk has no gaps.
    fn take_pictures(&mut self, cut: Cut, pictures: u64) -> Result<(), SeekError> {
        let track = self.walks[0].track;
        let mut latest = i64::MIN;
        while let Some(sample) = self.peek(0)? {
            let presented = track.presented(&sample);
            let taken = self.walks[0].taken;
            let wanted = taken < pictures && (taken == 0 || self.length() < cut.bytes);
            if !wanted && presented >= latest {
                break;
            }
            latest = latest.max(presented);
            let (keyframe, age) = (sample.sync && track.video, self.age_ms(sample.dts));
            let begins = age >= FRAGMENT_MAX_MS || keyframe && age >= FRAGMENT_MIN_MS;
            if self.walks[0].taken > self.walks[0].first && begins {
                self.begin_fragment(sample.dts);
            }
            let until = Seconds { num: i128::from(sample.dts), den: u64::from(track.timescale.max(1)) };
            while let Some((walk, sound)) = self.earliest(Some(until))? {
                self.take(walk, &sound, sample.dts)?;
            }
            self.take(0, &sample, sample.dts)?;
            self.end = self.end.max(presented.saturating_add(i64::from(sample.duration)));
        }
        Ok(())
    }

    /// What the other tracks have until the last picture ends; when nothing but the end of the pictures ended the
    /// chunk, all that they have.
    fn take_rest(&mut self, cut: Cut) -> Result<(), SeekError> {
        let timescale = self.walks[0].track.timescale.max(1);
        let pictures_end = Seconds { num: i128::from(self.end), den: u64::from(timescale) };
        let full = self.length() >= cut.bytes;
        let end = if full { Some(cut.end.map_or(pictures_end, |end| end.min(pictures_end))) } else { cut.end };
        while full || self.length() < cut.bytes {
            let Some((walk, sample)) = self.earliest(end)? else { break };
            let from = i128::from(self.walks[walk].track.timescale.max(1));
            let on_lead =
                |ticks: i64| i64::try_from(i128::from(ticks) * i128::from(timescale) / from).unwrap_or(i64::MAX);
            let ticks = on_lead(sample.dts);
            if ticks > self.end && self.age_ms(ticks) >= FRAGMENT_MAX_MS {
                self.begin_fragment(ticks);
            }
            self.take(walk, &sample, ticks)?;
            let track = self.walks[walk].track;
            let lasts = if track.sparse { 0 } else { i64::from(sample.duration) };
            let shown = sample.dts.saturating_sub(track.media_time).saturating_add(lasts);
            self.whole_end = self.whole_end.max(on_lead(shown));
        }
        Ok(())
    }

    /// The next sample in time of all tracks but the leading one, if it begins before `end`.
    fn earliest(&mut self, end: Option<Seconds>) -> Result<Option<(usize, Sample)>, SeekError> {
        let mut found: Option<(usize, Sample, Seconds)> = None;
        for n in 1..self.walks.len() {
            let Some(sample) = self.peek(n)? else { continue };
            let TrackKindOut { timescale, media_time, .. } = self.walks[n].track;
            // What is hidden comes with what is shown.
            let shown = sample.dts.saturating_sub(media_time);
            let before = |time| is_before(shown, timescale, time);
            if end.is_none_or(before) && found.is_none_or(|(_, _, first)| before(first)) {
                let time = Seconds { num: i128::from(shown), den: u64::from(timescale.max(1)) };
                found = Some((n, sample, time));
            }
        }
        Ok(found.map(|(n, sample, _)| (n, sample)))
    }

    /// Time from the start of the open fragment to a moment in ticks of the leading track.
    fn age_ms(&self, ticks: i64) -> i64 {
        let timescale = i128::from(self.walks[0].track.timescale.max(1));
        let age = i128::from(ticks) - i128::from(self.fragment_ticks);
        i64::try_from(age * 1000 / timescale).unwrap_or(i64::MAX)
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

    /// Takes the next sample of a track at a moment in ticks of the leading track.
    fn take(&mut self, walk: usize, sample: &Sample, ticks: i64) -> Result<(), SeekError> {
        let described_otherwise = |last: &Sample| last.description != sample.description;
        let big = self.media_bytes + u64::from(sample.size) > FRAGMENT_BYTES_MAX;
        if self.media_bytes > 0 && (big || self.walks[walk].last.as_ref().is_some_and(described_otherwise)) {
            self.begin_fragment(ticks);
        }
        self.taken += 1;
        if self.taken > SAMPLES_MAX {
            let limit = format!("a chunk has at most {SAMPLES_MAX} samples; ask for less");
            return Err(SeekError::Unanswerable(limit));
        }
        let walk = &mut self.walks[walk];
        walk.samples.next();
        if walk.taken == walk.first {
            self.head_bytes += run_head_bytes(walk.track, 0);
        }
        walk.taken += 1;
        if !walk.last.as_mut().is_some_and(|last| !walk.track.video && join(last, sample)) {
            self.head_bytes += run_head_bytes(walk.track, 1) - run_head_bytes(walk.track, 0);
            walk.last = Some(*sample);
        }
        self.media_bytes += u64::from(sample.size);
        self.source_range.start = self.source_range.start.min(sample.offset);
        self.source_range.end = self.source_range.end.max(sample.offset.saturating_add(u64::from(sample.size)));
        Ok(())
    }

    fn begin_fragment(&mut self, ticks: i64) {
        self.close();
        self.open();
        self.fragment_ticks = ticks;
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
            walk.last = None;
        }
    }

    fn close(&mut self) {
        let from = self.runs.len();
        for (track, walk) in self.walks.iter().enumerate() {
            let count = u32::try_from(walk.taken - walk.first).unwrap_or(u32::MAX);
            if count > 0 {
                self.runs.push(Run { track, first: walk.first, count });
            }
        }
        if self.runs.len() == from {
            return;
        }
        let (start, head_bytes, media_bytes) = (self.start, self.head_bytes, self.media_bytes);
        let start_ticks = self.fragment_ticks;
        self.start = self.length();
        self.fragments.push(Fragment { start, head_bytes, media_bytes, start_ticks, runs: from..self.runs.len() });
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
