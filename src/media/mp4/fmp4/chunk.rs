//! A chunk of an indexed MP4: which tracks go in, where each begins, and how its times are shifted to start at 0.
//!
//! Presentation begins with the keyframe. Leading pictures that do not decode from it are left out; when the moment
//! asked for is itself a leading picture that decodes (HEVC RADL), they stay, and the first of them is time 0.

use super::init::{Header, TrackHeader};
use super::plan::{Cut, plan};
use super::{Fmp4, Source, TimecodeSample, TrackKindOut};
use crate::media::index::{Position, Seek, SeekError, Until};
use crate::media::mp4::sample::Sample;
use crate::media::mp4::seek::Seeker;
use crate::media::mp4::tracks::{MediaTrack, Tracks};
use crate::media::slices::Piece;
use crate::media::time::{Counting, Seconds};
use std::collections::VecDeque;
use std::iter::Peekable;
use std::ops::Range;

/// Samples after a keyframe that are looked at for leading pictures (16 is the most that H.264 and HEVC reorder).
const LEADING_MAX: usize = 64;
/// Samples of sound before the first that is presented, which decoders need to begin with.
const PRIMING_MAX: u64 = 16;

/// Which tracks go along with the leading one; hints and timecodes of the file never do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Along {
    /// Other pictures, sound, text and metadata.
    All,
    Sound,
}

/// A planned chunk of one video.
#[derive(Debug)]
pub struct Chunk {
    plan: Fmp4,
    picks: Vec<Pick>,
    content_type: String,
}

/// A track of the chunk and where it begins.
#[derive(Clone, Copy, Debug)]
struct Pick {
    /// Position among the tracks of the file.
    track: usize,
    /// First sample, and how many after it are left out.
    first: u64,
    skipped: u64,
    /// Taken from every decode time.
    dts_shift: i64,
    /// Added to every composition offset, so that none is negative: players disagree on what those mean.
    cts_raise: i64,
    /// What is presented at time 0, on the clock of the chunk.
    media_time: i64,
}

impl Pick {
    /// From sample `first` on; the moment `zero` (in ticks of the track) becomes 0.
    fn at(track: usize, first: u64, zero: i64) -> Self {
        Self { track, first, skipped: 0, dts_shift: zero, cts_raise: 0, media_time: 0 }
    }
}

impl Chunk {
    /// Plans the chunk from the keyframe of a moment on.
    pub(crate) fn plan(
        seeker: &Seeker<'_>,
        tracks: &Tracks<'_>,
        position: &Position,
        until: Until,
        along: Along,
    ) -> Result<(Seek, Self), SeekError> {
        let mut kinds = (0..tracks.len()).filter_map(|n| tracks.get(n)?.stsd.get(12..16));
        if kinds.any(|kind| kind == b"encv" || kind == b"enca") {
            let text = "as=fmp4 is not made of encrypted video: its samples cannot be told apart; fetch the bytes";
            return Err(SeekError::Unsupported(text.to_owned()));
        }
        let (number, seek) = seeker.resolve_number(position)?;
        let start = seeker.start_of(number)?;
        let lead = lead(tracks, &start)?;
        let zero_cts = lead.media_time.saturating_sub(lead.cts_raise).saturating_add(lead.dts_shift);
        let timescale = seeker.frames.timescale();
        let into = |cts: i64| Seconds::from_ticks(cts.saturating_sub(zero_cts), timescale);
        // On the clock on which players show picture and sound of the file together.
        let ahead = into(start.key.cts());
        let zero = seek.keyframe.time.checked_sub(ahead).unwrap_or(seek.keyframe.time);
        let zero = seeker.player_origin().checked_add(zero).unwrap_or(zero);
        let mut picks = vec![lead];
        for track in 0..tracks.len() {
            if let Some(pick) = beside(tracks, track, &lead, zero, along)? {
                picks.push(pick);
            }
        }
        let (bytes, wanted) = match until {
            Until::Size(bytes) => (bytes, None),
            Until::Duration(duration) => (u64::MAX, into(start.frame.cts).checked_add(duration.seconds())),
        };
        let pictures = wanted.map_or(into(start.end_cts), |wanted| wanted.min(into(start.end_cts)));
        // Behind an edit that is not the last comes other sound than what follows in the file.
        let cut = Cut { bytes, pictures, end: if start.in_last_edit { wanted } else { Some(pictures) } };
        let quicktime = seeker.summary.content_type.starts_with("video/quicktime");
        let timecode = timecode(seeker, tracks, &seek, ahead)?;
        let header = Header {
            quicktime,
            duration_ms: 0,
            tracks: picks.iter().filter_map(|pick| describe(tracks, pick)).collect(),
            timecode: timecode.map(|(sample, counting)| (sample.track_id, counting)),
        };
        let outs = header.tracks.iter();
        let outs = outs.map(|t| TrackKindOut {
            id: t.id,
            timescale: t.timescale,
            video: &t.handler == b"vide",
            media_time: t.media_time,
            sparse: !matches!(&t.handler, b"vide" | b"soun"),
            end: None,
        });
        let outs = outs.collect();
        let source = Shifted { tracks, picks: &picks };
        let plan = plan(&source, header, outs, timecode.map(|(sample, _)| sample), cut)?;
        let codecs = seeker.summary.content_type.split_once(';').map_or("", |(_, codecs)| codecs);
        let separator = if codecs.is_empty() { "" } else { ";" };
        let kind = if seeker.summary.content_type.starts_with("audio/") { "audio/mp4" } else { "video/mp4" };
        Ok((seek, Self { plan, picks, content_type: format!("{kind}{separator}{codecs}") }))
    }

    pub fn length(&self) -> u64 {
        self.plan.length()
    }

    pub fn content_type(&self) -> &str {
        &self.content_type
    }

    /// A number that two chunks of one file share only when their bytes are the same (FNV-1a).
    pub fn fingerprint(&self) -> u64 {
        let picks = self.picks.iter().flat_map(|pick| {
            let shifts = [pick.dts_shift as u64, pick.cts_raise as u64, pick.media_time as u64];
            [pick.track as u64, pick.first, pick.skipped].into_iter().chain(shifts)
        });
        let facts = picks.chain(self.plan.facts()).flat_map(u64::to_le_bytes);
        facts.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
    }

    /// The bytes of the file from the first sample's to the last one's.
    pub fn source_range(&self) -> Range<u64> {
        self.plan.source_range()
    }

    /// When a part begins, in microseconds from the start of the chunk.
    pub fn part_start_us(&self, part: usize) -> i64 {
        self.plan.part_start_us(part)
    }

    /// The parts that hold a range of the chunk.
    pub fn parts(&self, range: &Range<u64>) -> Range<usize> {
        self.plan.parts(range)
    }

    pub(crate) fn part(
        &self,
        tracks: &Tracks<'_>,
        part: usize,
        range: &Range<u64>,
    ) -> Result<VecDeque<Piece>, SeekError> {
        self.plan.part(&Shifted { tracks, picks: &self.picks }, part, range)
    }
}

/// Where a chunk begins in the leading track.
pub(crate) struct ChunkStart {
    pub(crate) frame: crate::media::mp4::frames::Frame,
    pub(crate) key: Sample,
    /// Composition time at which the edit that shows the frame ends, and whether it is the last one.
    pub(crate) end_cts: i64,
    pub(crate) in_last_edit: bool,
    pub(crate) track: usize,
}

/// The leading track from its keyframe on.
fn lead(tracks: &Tracks<'_>, start: &ChunkStart) -> Result<Pick, SeekError> {
    let key = start.key;
    let keep_leading = start.frame.cts < key.cts();
    let mut zero = key.cts();
    let mut skipped = 0;
    for sample in tracks.samples(start.track, key.index.saturating_add(1)).take(LEADING_MAX) {
        let sample = sample?;
        if sample.cts() >= key.cts() {
            break;
        }
        if keep_leading {
            zero = zero.min(sample.cts());
        } else {
            skipped += 1;
        }
    }
    let cts_raise = tracks.offset_shift(start.track);
    let media_time = zero.saturating_sub(key.dts).saturating_add(cts_raise);
    let pick = Pick { track: start.track, first: key.index, skipped, dts_shift: key.dts, cts_raise, media_time };
    let is_first = |media: MediaTrack<'_>| &media.handler == b"soun" && key.dts <= media.edit_media_time;
    if tracks.get(start.track).is_some_and(is_first) { primed(tracks, pick) } else { Ok(pick) }
}

/// The same with the sound in front of it, if that is what a decoder begins with: hidden by an edit, as in the file.
fn primed(tracks: &Tracks<'_>, pick: Pick) -> Result<Pick, SeekError> {
    let first = tracks.samples(pick.track, 0).next().transpose()?;
    let Some(first) = first.filter(|_| (1..=PRIMING_MAX).contains(&pick.first)) else { return Ok(pick) };
    let hidden = pick.dts_shift.saturating_sub(first.dts);
    Ok(Pick { first: 0, dts_shift: first.dts, media_time: pick.media_time.saturating_add(hidden), ..pick })
}

/// Another track from the chunk's start on.
fn beside(
    tracks: &Tracks<'_>,
    track: usize,
    lead: &Pick,
    zero: Seconds,
    along: Along,
) -> Result<Option<Pick>, SeekError> {
    let Some(media) = tracks.get(track).filter(|_| track != lead.track) else { return Ok(None) };
    let Some(moment) = tracks.media_ticks(track, zero) else { return Ok(None) };
    let pick = match (&media.handler, along) {
        // From the first sample that begins with the chunk or later.
        (b"soun", _) => {
            let pick = Pick::at(track, tracks.sample_at_or_after(track, moment)?, moment);
            if lead.first == 0 { primed(tracks, pick)? } else { pick }
        }
        (b"vide", Along::All) => pictures(tracks, track, moment)?,
        // From the sample that is shown when the chunk begins.
        (b"text" | b"sbtl" | b"subt" | b"clcp" | b"meta", Along::All) => {
            let next = tracks.sample_at_or_after(track, moment.saturating_add(1))?;
            Pick::at(track, next.saturating_sub(1), moment)
        }
        _ => return Ok(None),
    };
    Ok((pick.first < media.samples).then_some(pick))
}

/// Pictures beside the leading ones: from the keyframe before the moment on, the time up to it hidden.
fn pictures(tracks: &Tracks<'_>, track: usize, moment: i64) -> Result<Pick, SeekError> {
    let first = |index: u64| tracks.samples(track, index).next().transpose();
    let next = tracks.sample_at_or_after(track, moment.saturating_add(1))?;
    let mut sync = tracks.sync_at_or_before(track, next.saturating_sub(1))?;
    while let Some(index) = sync {
        let Some(key) = first(index)? else { break };
        if key.cts() <= moment || index == 0 {
            let dts_shift = key.dts.min(moment);
            let media_time = moment.saturating_sub(dts_shift);
            return Ok(Pick { media_time, ..Pick::at(track, index, dts_shift) });
        }
        sync = tracks.sync_at_or_before(track, index - 1)?;
    }
    Ok(Pick::at(track, 0, moment))
}

fn describe<'a>(tracks: &Tracks<'a>, pick: &Pick) -> Option<TrackHeader<'a>> {
    let media: MediaTrack<'a> = tracks.get(pick.track)?;
    let mut presentation = [0; 60];
    if let Some(tail) = media.tkhd.last_chunk() {
        presentation = *tail;
    }
    // `mdhd`: version 1 has 64-bit times before the language.
    let at = if media.mdhd.first() == Some(&1) { 32 } else { 20 };
    let language = media.mdhd.get(at..at + 2).map_or(0, |bytes| u16::from_be_bytes([bytes[0], bytes[1]]));
    let timescale = media.timescale.get();
    Some(TrackHeader {
        id: media.id,
        timescale,
        handler: media.handler,
        language,
        presentation,
        media_time: pick.media_time,
        stsd: media.stsd,
    })
}

/// The sample of a timecode track: the number of the label of what is shown first, `ahead` of the keyframe. Only where
/// the source has such a track.
fn timecode(
    seeker: &Seeker<'_>,
    tracks: &Tracks<'_>,
    seek: &Seek,
    ahead: Seconds,
) -> Result<Option<(TimecodeSample, Counting)>, SeekError> {
    let counting = seeker.summary.start_timecode.as_ref().map(|(_, counting)| *counting);
    let Some(counting) = counting.filter(|_| seeker.summary.has_timecode_track) else { return Ok(None) };
    let time = seek.keyframe.time.checked_sub(ahead).unwrap_or(seek.keyframe.time);
    let number = counting.number_of(seeker.label_at(time, counting)?);
    let highest = (0..tracks.len()).filter_map(|track| tracks.get(track)).map(|media| media.id).max();
    let sample = |number: u64, highest: u32| {
        let (track_id, frame_number) = (highest.checked_add(1)?, u32::try_from(number).ok()?);
        Some((TimecodeSample { track_id, frame_number, duration: 0 }, counting))
    };
    Ok(number.ok().zip(highest).and_then(|(number, highest)| sample(number, highest)))
}

/// The samples of the picked tracks, shifted to the start of the chunk.
struct Shifted<'a> {
    tracks: &'a Tracks<'a>,
    picks: &'a [Pick],
}

impl Source for Shifted<'_> {
    fn samples(
        &self,
        track: usize,
        first: u64,
    ) -> Result<Box<dyn Iterator<Item = Result<Sample, SeekError>> + '_>, SeekError> {
        let pick = self.picks[track];
        let skipped = if first > 0 { pick.skipped } else { 0 };
        let from = pick.first.saturating_add(first).saturating_add(skipped);
        let cursor = self.tracks.samples(pick.track, from).peekable();
        Ok(Box::new(ShiftedSamples { cursor, pick, at_start: first == 0 }))
    }
}

struct ShiftedSamples<I: Iterator> {
    cursor: Peekable<I>,
    pick: Pick,
    at_start: bool,
}

impl<I: Iterator<Item = Result<Sample, SeekError>>> Iterator for ShiftedSamples<I> {
    type Item = Result<Sample, SeekError>;

    fn next(&mut self) -> Option<Self::Item> {
        let sample = match self.cursor.next()? {
            Ok(sample) => sample,
            Err(error) => return Some(Err(error)),
        };
        if self.at_start {
            self.at_start = false;
            for _ in 0..self.pick.skipped {
                if let Some(Err(error)) = self.cursor.next() {
                    return Some(Err(error));
                }
            }
        }
        // To the next decode time, which the left-out pictures and gaps between fragments may have moved.
        let next_dts = self.cursor.peek().and_then(|next| next.as_ref().ok()).map(|next| next.dts);
        // What begins before the chunk lasts as much shorter.
        let begins = sample.dts.max(self.pick.dts_shift);
        let to_next = next_dts.and_then(|next| u32::try_from(next.checked_sub(begins)?).ok());
        let cts_offset = i64::from(sample.cts_offset).saturating_add(self.pick.cts_raise);
        Some(Ok(Sample {
            dts: sample.dts.saturating_sub(self.pick.dts_shift).max(0),
            cts_offset: i32::try_from(cts_offset).unwrap_or(if cts_offset < 0 { i32::MIN } else { i32::MAX }),
            duration: to_next.unwrap_or(sample.duration),
            ..sample
        }))
    }
}
