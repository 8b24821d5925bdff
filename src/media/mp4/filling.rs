//! An `mdat` that is arriving, and the fragments without all tracks that wait for each other.
//!
//! PURE. Encoders that send each frame as a fragment have one track in each. Such fragments wait, for a tenth of a
//! second at most, until every track has something, and become one with a new `moof`; whether players need that is not
//! shown. Media bytes stay in the buffers they came in.

use super::arrival::{Fragment, Init};
use super::boxes::Broken;
use super::sample::Sample;
use super::split::{self, Planned};
use crate::media::cadence::Mark;
use crate::media::time::ticks_to_us;
use bytes::Bytes;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

/// Bytes of a piece that is not kept alone, and how many of them are.
const SHORT: usize = 64;
const SHORT_MAX: usize = 256;
/// How long a fragment waits for other tracks, in its own time.
const WAIT_US: i64 = 100_000;

/// An `mdat` box that is arriving.
pub(super) struct Filling {
    /// The chunks of it that are still to come.
    planned: VecDeque<Planned>,
    /// What arrived, each piece with its place in the box.
    pieces: Vec<(u64, Bytes)>,
    got: u64,
    size: u64,
    /// How many of the last pieces are short.
    short: usize,
    /// Bytes of short pieces that were joined.
    pub(super) copied_bytes: u64,
}

impl Filling {
    pub(super) fn new(planned: VecDeque<Planned>, size: u64) -> Self {
        Self { planned, pieces: Vec::new(), got: 0, size, short: 0, copied_bytes: 0 }
    }

    /// Bytes that are still to come.
    pub(super) fn missing(&self) -> u64 {
        self.size - self.got
    }

    pub(super) fn push(&mut self, piece: Bytes) {
        let at = self.got;
        self.got += piece.len() as u64;
        self.short = if piece.len() < SHORT { self.short + 1 } else { 0 };
        self.pieces.push((at, piece));
        if self.short == SHORT_MAX {
            self.join_short();
        }
    }

    /// Joins the last pieces: kept one by one they would take more memory than their bytes.
    fn join_short(&mut self) {
        let short = self.pieces.split_off(self.pieces.len() - self.short);
        let Some(at) = short.first().map(|(at, _)| *at) else { return };
        let whole: Vec<u8> = short.iter().flat_map(|(_, piece)| piece.iter().copied()).collect();
        self.copied_bytes += whole.len() as u64;
        self.pieces.push((at, whole.into()));
        self.short = 0;
    }

    /// Runs of bytes that are there.
    fn rope(&self, ranges: &[Range<u64>]) -> Vec<Bytes> {
        let mut rope = Vec::with_capacity(ranges.len());
        for range in ranges {
            let first = self.pieces.partition_point(|(at, piece)| at + piece.len() as u64 <= range.start);
            for (at, piece) in self.pieces[first..].iter().take_while(|(at, _)| *at < range.end) {
                // Both are within the piece.
                let from = range.start.saturating_sub(*at) as usize;
                let to = (range.end - at).min(piece.len() as u64) as usize;
                rope.push(piece.slice(from..to));
            }
        }
        rope
    }

    /// The next chunk, if its bytes are there, and what of it can wait; and the bytes that were made for it.
    pub(super) fn next(&mut self) -> Option<(Fragment, Option<Lone>, u64)> {
        let got = self.got;
        let planned = self.planned.pop_front_if(|planned| planned.need() <= got)?;
        let lone = planned.lone.as_ref().map(|tracks| Lone {
            tracks: tracks.iter().map(|track| track.samples.clone()).collect(),
            media: tracks.iter().map(|track| self.rope(&track.ranges)).collect(),
        });
        let Planned { moof, mdat, ranges, runs, keyframe, begins, ends, .. } = planned;
        let made = if mdat.is_empty() { 0 } else { (moof.len() + mdat.len()) as u64 };
        let mut rope = vec![moof];
        rope.extend(Some(mdat).filter(|mdat| !mdat.is_empty()));
        rope.extend(self.rope(&ranges));
        let len = rope.iter().map(|piece| piece.len() as u64).sum();
        Some((Fragment { rope, len, runs, keyframe, begins, ends }, lone, made))
    }
}

/// A whole fragment in which tracks are missing: of each track its samples, and their bytes.
pub(super) struct Lone {
    tracks: Vec<Vec<Sample>>,
    media: Vec<Vec<Bytes>>,
}

/// Fragments that wait for other tracks.
#[derive(Default)]
pub(super) struct Waiting {
    lone: Option<Lone>,
    /// As they came.
    fragments: Vec<Fragment>,
}

impl Waiting {
    /// Takes a fragment; gives those that are ready into `out`, and the bytes that were made for them.
    pub(super) fn take(
        &mut self,
        (fragment, lone): (Fragment, Option<Lone>),
        init: &Arc<Init>,
        sequence: &mut u32,
        out: &mut Vec<Fragment>,
    ) -> Result<u64, Broken> {
        let leads = |fragment: &Fragment| fragment.runs.iter().any(|run| run.track == init.main());
        let begins = fragment.begins != Mark::Nothing || (fragment.keyframe && leads(&fragment));
        let mut made = 0;
        if lone.is_none() || (begins && self.fragments.iter().any(leads)) {
            made += self.release(init, sequence, out)?;
        }
        let Some(lone) = lone else {
            out.push(fragment);
            return Ok(made);
        };
        let ends = fragment.ends != Mark::Nothing;
        self.fragments.push(fragment);
        match &mut self.lone {
            None => self.lone = Some(lone),
            Some(waiting) => waiting.append(lone),
        }
        if ends || self.lone.as_ref().is_none_or(|lone| lone.is_ready(init)) {
            made += self.release(init, sequence, out)?;
        }
        Ok(made)
    }

    /// Gives what waits, as one.
    pub(super) fn release(&mut self, init: &Init, sequence: &mut u32, out: &mut Vec<Fragment>) -> Result<u64, Broken> {
        let Some(lone) = self.lone.take() else { return Ok(0) };
        let mut fragments = std::mem::take(&mut self.fragments);
        if fragments.len() < 2 {
            out.append(&mut fragments);
            return Ok(0);
        }
        *sequence = sequence.wrapping_add(1);
        let of = |track: usize| lone.tracks.get(track).map_or(&[][..], Vec::as_slice);
        let (moof, mdat) = split::write(*sequence, init, of)?;
        let made = (moof.len() + mdat.len()) as u64;
        let mut rope = vec![moof, mdat];
        rope.extend(lone.media.iter().flatten().cloned());
        let len = rope.iter().map(|piece| piece.len() as u64).sum();
        let runs = (0..lone.tracks.len()).filter_map(|track| split::run(init, track, of(track))).collect();
        let begins = fragments.iter().map(|fragment| fragment.begins).max().unwrap_or_default();
        let ends = fragments.last().map(|last| last.ends).unwrap_or_default();
        let keyframe = of(init.main()).first().map_or(!init.is_video(init.main()), |first| first.sync);
        out.push(Fragment { rope, len, runs, keyframe, begins, ends });
        Ok(made)
    }
}

impl Lone {
    fn append(&mut self, other: Self) {
        self.tracks.iter_mut().zip(other.tracks).for_each(|(to, from)| to.extend(from));
        self.media.iter_mut().zip(other.media).for_each(|(to, from)| to.extend(from));
    }

    /// Every track has something, or one of them has waited for long.
    fn is_ready(&self, init: &Init) -> bool {
        let waited = |track: usize, samples: &[Sample]| {
            let us = |dts: i64| ticks_to_us(dts, init.timescale(track));
            samples.first().zip(samples.last()).is_some_and(|(first, last)| us(last.dts) - us(first.dts) >= WAIT_US)
        };
        let mut tracks = self.tracks.iter().enumerate();
        self.tracks.iter().all(|samples| !samples.is_empty()) || tracks.any(|(track, samples)| waited(track, samples))
    }
}
