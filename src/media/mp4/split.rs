//! A fragment that arrives, divided into chunks: new `moof`s over the same media bytes, each as soon as they are there.
//!
//! PURE. What is longer than fits its part is divided where the [`Cadence`] says so, and at keyframes,
//! where viewers can join; other tracks follow by decode time. What this file does not know how to divide (encryption,
//! sample groups, data outside the `mdat`) stays whole. Source: ISO/IEC 14496-12 §8.8.

use super::arrival::{Init, TrackRun};
use super::boxes::{Broken, be32, children, find};
use super::fmp4::{TrackKindOut, traf};
use super::fragments::{self, FragmentTrack, Place};
use super::sample::Sample;
use super::write::Boxes;
use crate::media::cadence::{Cadence, Mark, Unit};
use crate::media::time::ticks_to_us;
use bytes::Bytes;
use std::collections::VecDeque;
use std::ops::Range;

/// Samples of one fragment: three hours of sound.
const SAMPLES_MAX: u64 = 1 << 19;
const MDAT_HEADER: u64 = 8;
/// Decode times: the year 2255, for those who count from 1970. What is computed with them cannot overflow.
const TIME_MAX_US: i64 = 1 << 53;
const TICKS_MAX: i64 = 1 << 61;
/// Chunks of one fragment: a keyframe at each of 1,000 pictures.
const CHUNKS_MAX: usize = 1024;

/// A fragment whose `moof` is there and whose `mdat` begins.
pub(super) struct Head<'a> {
    pub(super) moof: &'a Bytes,
    /// Where both boxes begin in the publication.
    pub(super) moof_at: u64,
    pub(super) mdat_at: u64,
    /// Bytes of the `mdat` with its header, and of that.
    pub(super) mdat_size: u64,
    pub(super) mdat_header: u64,
}

/// A chunk to be, and which bytes of the `mdat` box it consists of.
#[derive(Debug)]
pub(super) struct Planned {
    /// The `moof`, and the new header of the media unless that box stays whole.
    pub(super) head: Bytes,
    pub(super) moof_len: usize,
    pub(super) ranges: Vec<Range<u64>>,
    pub(super) runs: Vec<TrackRun>,
    pub(super) keyframe: bool,
    pub(super) begins: Mark,
    pub(super) ends: Mark,
}

impl Planned {
    /// Bytes of the `mdat` box that must be there.
    pub(super) fn need(&self) -> u64 {
        self.ranges.iter().map(|range| range.end).max().unwrap_or(0)
    }
}

/// The samples of a fragment, by track.
struct Samples {
    tracks: Vec<Vec<Sample>>,
    /// Each of them lies in the `mdat`, and nothing else in the `moof` speaks of them.
    divisible: bool,
    /// The `moof` is wrong: viewers who join in mid-stream could not find the media as it is addressed, or a time was
    /// mended.
    misplaced: bool,
}

/// The part of each track's samples that a chunk has.
struct Cut {
    ranges: Vec<Range<usize>>,
    begins: Mark,
}

/// How far a track has come: where its last sample ends, and how long that is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reached {
    end: i64,
    length: i64,
}

/// Plans the chunks of a fragment. `reached` is how far each track has come, `sequence` the number of the last chunk.
pub(super) fn plan(
    head: &Head<'_>,
    init: &Init,
    reached: &mut [Reached],
    cadence: &mut Cadence,
    sequence: &mut u32,
) -> Result<VecDeque<Planned>, Broken> {
    let samples = read(head, init, reached)?;
    let main = init.main();
    let (cuts, last) = cuts(&samples, init, main, cadence);
    let whole = !samples.divisible || (cuts.len() == 1 && !samples.misplaced);
    let mut planned = VecDeque::with_capacity(cuts.len());
    let of_all = 0..reached.len();
    for (n, cut) in cuts.iter().enumerate() {
        let of = |track: usize| &samples.tracks[track][cut.ranges[track].clone()];
        let runs: Vec<TrackRun> = of_all.clone().filter_map(|track| run(init, track, of(track))).collect();
        // A chunk without pictures is no place to join a stream that has some.
        let keyframe = match of(main).first() {
            Some(first) => first.sync,
            None => !init.is_video(main) && !runs.is_empty(),
        };
        let (new, moof_len, ranges) = if whole {
            (head.moof.clone(), head.moof.len(), std::iter::once(0..head.mdat_size).collect())
        } else {
            *sequence = sequence.wrapping_add(1);
            let (new, moof_len) = write(*sequence, init, of)?;
            (new, moof_len, ranges(of_all.clone().flat_map(of), head.mdat_at))
        };
        let ends = cuts.get(n + 1).map_or(last, |next| next.begins);
        planned.push_back(Planned { head: new, moof_len, ranges, runs, keyframe, begins: cut.begins, ends });
    }
    Ok(planned)
}

fn read(head: &Head<'_>, init: &Init, reached: &mut [Reached]) -> Result<Samples, Broken> {
    let body_at = if be32(head.moof, 0) == 1 { 16 } else { 8 };
    let body = head.moof.get(body_at..).unwrap_or_default();
    let tracks: Vec<FragmentTrack> = init.tracks();
    let found = fragments::parse(body, head.moof_at, &tracks)?;
    let claimed = found.iter().fold(0_u64, |sum, fragment| sum.saturating_add(fragment.claim().samples));
    if claimed > SAMPLES_MAX {
        return Err(Broken::new(format!("{claimed} samples in one fragment; up to {SAMPLES_MAX} are taken"), 0));
    }
    let media = head.mdat_at + head.mdat_header..head.mdat_at + head.mdat_size;
    let (is_plain, is_absolute) = addressing(body)?;
    let mut samples = Samples { tracks: Vec::with_capacity(found.len()), divisible: is_plain, misplaced: is_absolute };
    samples.misplaced |= head.moof_at + head.moof.len() as u64 != head.mdat_at;
    let mut bytes = 0;
    for (n, fragment) in found.iter().enumerate() {
        let mut list: Vec<Sample> = Vec::new();
        for mut sample in fragment.cursor_at(body, Place::start(reached[n].end), tracks[n].video) {
            samples.misplaced |= init.is_sound(n) && mend(&mut sample, reached[n]);
            let end = sample.offset.saturating_add(u64::from(sample.size));
            bounded(sample.dts, init.timescale(n))?;
            samples.divisible &= sample.offset >= media.start && end <= media.end;
            samples.divisible &= list.first().is_none_or(|first| first.description == sample.description);
            samples.divisible &= sample.dts >= 0 && (tracks[n].video || sample.cts_offset == 0);
            bytes += u64::from(sample.size);
            let length = i64::from(sample.duration);
            reached[n] = Reached { end: sample.dts.saturating_add(length), length };
            list.push(sample);
        }
        samples.tracks.push(list);
    }
    // Samples that share bytes would be sent more than once.
    samples.divisible &= bytes <= media.end.saturating_sub(media.start);
    Ok(samples)
}

/// Mends a sample of sound without a duration, if it is one. Of two that it flushes together, ffmpeg writes the first
/// so, and at the time of the second (`frag_every_frame`): it begins where the one before ended.
fn mend(sample: &mut Sample, before: Reached) -> bool {
    let late = sample.dts.saturating_sub(before.end).min(before.length);
    let Some(length) = u32::try_from(late).ok().filter(|late| sample.duration == 0 && *late > 0) else { return false };
    sample.dts -= late;
    sample.duration = length;
    true
}

fn bounded(dts: i64, timescale: u32) -> Result<(), Broken> {
    let is_bounded = dts.saturating_abs() <= TICKS_MAX && ticks_to_us(dts, timescale).saturating_abs() <= TIME_MAX_US;
    let wrong = || Broken::new(format!("a decode time of {dts} ticks of 1/{timescale} s"), 0);
    is_bounded.then_some(()).ok_or_else(wrong)
}

/// Whether a `moof` has nothing but what is written anew, and whether it counts offsets from the start of a file.
fn addressing(body: &[u8]) -> Result<(bool, bool), Broken> {
    let (mut is_plain, mut is_absolute) = (true, false);
    for child in children(body, 0..body.len()) {
        let child = child?;
        is_plain &= matches!(&child.kind, b"mfhd" | b"traf");
        if &child.kind == b"traf" {
            for inner in children(body, child.body.clone()) {
                is_plain &= matches!(&inner?.kind, b"tfhd" | b"tfdt" | b"trun");
            }
            let header = find(body, child.body, b"tfhd")?;
            is_absolute |= header.is_some_and(|header| be32(body, header.start) & 1 != 0);
        }
    }
    Ok((is_plain, is_absolute))
}

/// Where the samples are divided, and what ends with the last of them.
fn cuts(samples: &Samples, init: &Init, main: usize, cadence: &mut Cadence) -> (Vec<Cut>, Mark) {
    let all = || samples.tracks.iter().map(|list| 0..list.len()).collect::<Vec<_>>();
    let leading = samples.tracks.get(main).map_or(&[][..], Vec::as_slice);
    let timescale = init.timescale(main);
    let unit = |first: &Sample, last: &Sample| Unit {
        start_us: ticks_to_us(first.dts, timescale),
        end_us: ticks_to_us(last.dts.saturating_add(i64::from(last.duration)), timescale),
        keyframe: first.sync,
    };
    let (Some(first), Some(last)) = (leading.first(), leading.last()) else {
        return (vec![Cut { ranges: all(), begins: Mark::Nothing }], Mark::Nothing);
    };
    let whole = unit(first, last);
    let length = whole.length();
    if !samples.divisible {
        let begins = cadence.begin(whole, cadence.jumps(whole));
        return (vec![Cut { ranges: all(), begins }], cadence.end(length));
    }
    if cadence.would_end(whole) {
        cadence.close();
    }
    let mut starts = Vec::new();
    for (n, sample) in leading.iter().enumerate() {
        let unit = unit(sample, sample);
        let begins = cadence.begin(unit, cadence.jumps(unit));
        if n == 0 || begins != Mark::Nothing || (sample.sync && init.is_video(main)) {
            starts.push((n, begins));
        }
    }
    let next_us = if length <= cadence.targets().part_us { length } else { unit(last, last).length() };
    let ends = cadence.end(next_us);
    // Samples without bytes cost a publisher nothing.
    starts.truncate(CHUNKS_MAX);
    let mut cuts: Vec<Cut> = Vec::with_capacity(starts.len());
    for (n, (_, begins)) in starts.iter().enumerate() {
        let next = starts.get(n + 1).map(|(next, _)| *next);
        let until_us = next.map_or(i64::MAX, |next| unit(&leading[next], &leading[next]).start_us);
        let ranges = samples.tracks.iter().enumerate().map(|(track, list)| {
            let from = cuts.last().map_or(0, |before: &Cut| before.ranges[track].end);
            let to = match next {
                Some(next) if track == main => next,
                Some(_) => {
                    let scale = init.timescale(track);
                    from + list[from..].partition_point(|sample| ticks_to_us(sample.dts, scale) < until_us)
                }
                None => list.len(),
            };
            from..to
        });
        let ranges = ranges.collect();
        cuts.push(Cut { ranges, begins: *begins });
    }
    (cuts, ends)
}

/// The samples of one track in a chunk, if there are any.
fn run(init: &Init, track: usize, samples: &[Sample]) -> Option<TrackRun> {
    let start = samples.first()?.dts;
    let end = samples.iter().map(|s| s.dts.saturating_add(i64::from(s.duration))).max()?;
    let bytes = samples.iter().map(|s| u64::from(s.size)).sum();
    let (timescale, video, samples) = (init.timescale(track), init.is_video(track), samples.len() as u32);
    Some(TrackRun { track, timescale, start, end, video, samples, bytes })
}

/// A `moof` with the header of the `mdat` that follows it, and the length of the first.
fn write<'a>(sequence: u32, init: &Init, of: impl Fn(usize) -> &'a [Sample]) -> Result<(Bytes, usize), Broken> {
    let tracks = init.track_count();
    let write = |data: u32| {
        let (mut boxes, mut data) = (Boxes::new(), data);
        boxes.boxed(b"moof", |b| {
            b.full(b"mfhd", 0, 0, |b| b.u32(sequence));
            for track in (0..tracks).filter(|track| !of(*track).is_empty()) {
                traf(b, TrackKindOut::new(init.track_id(track), init.is_video(track)), of(track), &mut data);
            }
        });
        boxes
    };
    // Written twice: the first time for its length.
    let len = write(0).into_bytes().len();
    let too_long = || Broken::new("a fragment of 4 GiB", 0);
    let mut boxes = write(u32::try_from(len as u64 + MDAT_HEADER).map_err(|_| too_long())?);
    let media: u64 = (0..tracks).flat_map(&of).map(|sample| u64::from(sample.size)).sum();
    boxes.u32(u32::try_from(media + MDAT_HEADER).map_err(|_| too_long())?);
    boxes.raw(b"mdat");
    Ok((Bytes::from(boxes.into_bytes()), len))
}

/// Where samples lie in the `mdat` box, in their order; those behind each other are one run.
fn ranges<'a>(samples: impl Iterator<Item = &'a Sample>, mdat_at: u64) -> Vec<Range<u64>> {
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for sample in samples.filter(|sample| sample.size > 0) {
        let start = sample.offset.saturating_sub(mdat_at);
        let end = start + u64::from(sample.size);
        match ranges.last_mut() {
            Some(last) if last.end == start => last.end = end,
            _ => ranges.push(start..end),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::super::arrival::tests::{Seen, arrive_with, fragmented};
    use super::*;
    use crate::media::cadence::Targets;

    const WHOLE: Targets = Targets { part_us: 3_600_000_000, segment_us: 3_600_000_000 };
    const PARTS: Targets = Targets { part_us: 500_000, segment_us: 4_000_000 };

    /// Every sample of a run of fragments: track, decode time, composition offset, duration, sync, and its bytes.
    type Flat = Vec<(usize, i64, i32, u32, bool, Vec<u8>)>;

    fn flat(seen: &Seen) -> Flat {
        let tracks = seen.init.tracks();
        let mut samples = Vec::new();
        for fragment in &seen.fragments {
            let moof_size = be32(&fragment.bytes, 0) as usize;
            let found = fragments::parse(&fragment.bytes[8..moof_size], 0, &tracks).expect("a moof");
            for (track, runs) in found.iter().enumerate() {
                for s in runs.cursor_at(&fragment.bytes[8..moof_size], Place::start(0), tracks[track].video) {
                    let bytes = fragment.bytes[s.offset as usize..][..s.size as usize].to_vec();
                    samples.push((track, s.dts, s.cts_offset, s.duration, s.sync, bytes));
                }
            }
        }
        samples.sort_by_key(|sample| (sample.0, sample.1));
        samples
    }

    #[test]
    fn divided_fragments_have_the_samples_of_the_whole() {
        let whole = Bytes::from(fragmented());
        let undivided = arrive_with(WHOLE, std::iter::once(whole.clone()));
        let expected = flat(&undivided);
        // assets/demo.sh: 24 s at 29.97 Hz.
        assert_eq!(expected.iter().filter(|sample| sample.0 == 0).count(), 719);
        for size in [1, 997, 65_536, usize::MAX] {
            let buffers =
                (0..whole.len()).step_by(size).map(|at| whole.slice(at..whole.len().min(at.saturating_add(size))));
            let divided = arrive_with(PARTS, buffers);
            // Groups of 1.5 s in parts of up to 0.5 s.
            assert!(divided.fragments.len() >= 48, "{}", divided.fragments.len());
            assert!(flat(&divided) == expected, "buffers of {size} bytes");
            let keyframes = divided.fragments.iter().filter(|fragment| fragment.keyframe).count();
            assert_eq!(keyframes, 16);
            let segments = divided.fragments.iter().filter(|fragment| fragment.begins == Mark::Segment);
            assert!(segments.clone().all(|fragment| fragment.keyframe));
            // 3 s: a third group would be too long.
            assert_eq!(segments.count(), 8);
            assert!(divided.fragments.iter().all(|fragment| fragment.runs.iter().any(|run| run.video)));
            // Generated heads, and boxes that straddle buffers; no media.
            let media = if size < 64 { whole.len() as u64 } else { 0 };
            assert!(divided.copied_bytes < 60_000 + media, "{} bytes copied", divided.copied_bytes);
        }
    }

    #[test]
    fn chunks_come_while_the_fragment_still_arrives() {
        let whole = fragmented();
        let undivided = arrive_with(WHOLE, std::iter::once(Bytes::from(whole.clone())));
        let first = &undivided.fragments[0];
        // Samples of pictures and of sound alternate within a fragment, half a second of each.
        let head = whole.len() - undivided.fragments.iter().map(|fragment| fragment.bytes.len()).sum::<usize>();
        let some = head + first.bytes.len() * 3 / 4;
        let early = arrive_with(PARTS, std::iter::once(Bytes::copy_from_slice(&whole[..some])));
        assert!(!early.fragments.is_empty(), "nothing of the first fragment after three quarters of it");
    }

    #[test]
    fn what_cannot_be_divided_stays_whole() {
        // A box that nobody knows in the traf: `free` renamed would do, so one is put there.
        let whole = fragmented();
        let undivided = arrive_with(WHOLE, std::iter::once(Bytes::from(whole.clone())));
        let fragment = &undivided.fragments[0].bytes;
        let moof_size = be32(fragment, 0) as usize;
        let init_len = undivided.init.bytes.len();
        let mut strange = whole[..init_len].to_vec();
        strange.extend((moof_size as u32 + 8).to_be_bytes());
        strange.extend(&fragment[4..moof_size]);
        strange.extend(b"\0\0\0\x08senc");
        strange.extend(&fragment[moof_size..]);
        let seen = arrive_with(PARTS, std::iter::once(Bytes::from(strange.clone())));
        assert_eq!(seen.fragments.len(), 1);
        assert!(strange[init_len..] == seen.fragments[0].bytes);
    }
}
