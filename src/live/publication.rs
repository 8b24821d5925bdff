//! One publication: from a publisher's parser into the stream, at times that go on where the stream stands.
//!
//! Must not know sockets, nor how parts are found in bytes (`media`).

use super::arrival::{Arrived, Init};
use super::meter::Share;
use super::numbers::Kept;
use super::stream::{Inner, PublishError, Publisher, State, Stream};
use super::times::{shift_us, shifts, span_us};
use crate::media::cadence::Mark;
use crate::media::mp4::arrival::{Fragment, TrackRun, shift_times};
use crate::media::time::ticks_to_us;
use crate::media::ts::arrival as ts;
use crate::media::ts::rope::mark_discontinuity;
use bytes::Bytes;
use std::sync::{Arc, MutexGuard};
use std::time::Instant;

/// The right to append to a stream. Dropping it without [`Publication::finish`] leaves the stream waiting.
pub struct Publication {
    stream: Arc<Stream>,
    epoch: u64,
    publisher: Publisher,
    init: Option<Arc<Init>>,
    joined: Option<Joined>,
    finished: bool,
}

/// How a publication goes on where the stream stands; worked out at its first part.
enum Joined {
    /// What is added to each track's decode times.
    Mp4 { shifts: Vec<(u32, i64)> },
    /// What is added to the times of parts, which is not written into them; PIDs that are not marked yet, and for how
    /// many parts they are looked for.
    Ts { shift_us: i64, unmarked: Vec<u16>, patience: u32 },
}

/// A part before it has its place in the stream.
pub(super) struct Piece {
    pub(super) rope: Vec<Bytes>,
    pub(super) len: u64,
    pub(super) start_us: i64,
    pub(super) end_us: i64,
    pub(super) keyframe: bool,
    pub(super) cut: Cut,
    pub(super) shares: Vec<Share>,
}

/// How a part lies among the parts and segments of playlists.
pub(super) struct Cut {
    /// Start and end of what it has of the track that is cut.
    pub(super) leading_us: Option<(i64, i64)>,
    pub(super) discontinuity: bool,
    pub(super) begins: Mark,
    pub(super) ends: Mark,
}

impl Publication {
    pub(super) fn new(stream: Arc<Stream>, epoch: u64, publisher: Publisher) -> Self {
        Self { stream, epoch, publisher, init: None, joined: None, finished: false }
    }

    /// Takes what the parser found. Gives the bytes that had to be copied.
    pub fn take(&mut self, event: Arrived) -> Result<u64, PublishError> {
        match event {
            Arrived::Init(init) => {
                if matches!(init, Init::Mp4(_)) {
                    self.joined = None;
                }
                self.init = Some(Arc::new(init));
                Ok(0)
            }
            Arrived::Fragment(fragment) => self.fragment(fragment),
            Arrived::Part(part) => self.part(part),
        }
    }

    /// Resolves when the stream's numbers are kept where a crash does not reach.
    pub fn kept(&self) -> Kept {
        self.stream.kept()
    }

    /// Notes that the publisher is still there, between two fragments.
    pub fn alive(&self, bytes: u64) {
        let mut inner = self.stream.lock();
        inner.last_byte = Instant::now();
        inner.received_bytes += bytes;
        if inner.epoch == self.epoch && inner.state != State::Ended {
            inner.left = None;
            inner.state = State::Live;
            inner.publisher.get_or_insert_with(|| self.publisher.clone());
        }
    }

    /// Notes that no request is open; the publisher is back with its next byte.
    pub fn rest(&self) {
        let mut inner = self.stream.lock();
        if inner.epoch == self.epoch && inner.state == State::Live {
            inner.left = Some(Instant::now());
        }
    }

    /// Whether this publication may still append.
    pub fn is_current(&self) -> bool {
        self.inner().is_ok()
    }

    /// The stream, if this publication may append to it.
    fn inner(&self) -> Result<MutexGuard<'_, Inner>, PublishError> {
        let inner = self.stream.lock();
        match inner.state {
            _ if inner.epoch != self.epoch => Err(PublishError::TakenOver),
            State::Ended => Err(PublishError::Ended),
            State::Live | State::Waiting => Ok(inner),
        }
    }

    fn fragment(&mut self, mut fragment: Fragment) -> Result<u64, PublishError> {
        let Some(current) = self.init.clone() else { return Ok(0) };
        let Init::Mp4(init) = &*current else { return Ok(0) };
        if fragment.runs.is_empty() {
            return Ok(0);
        }
        let stream = Arc::clone(&self.stream);
        let mut inner = self.inner()?;
        let first_of_all = inner.next.part == stream.start().part;
        if first_of_all && !fragment.keyframe {
            // Nothing could be decoded from it.
            return Ok(0);
        }
        let changed = inner.changes(&current);
        let discontinuity = !first_of_all && (changed || self.joined.is_none());
        let (end_us, mut new) = (inner.end_us, None);
        let shifts = match &self.joined {
            Some(Joined::Mp4 { shifts }) if !changed => shifts,
            _ => {
                inner.discontinuities += u64::from(!first_of_all);
                new.insert(shifts(&fragment, init, end_us, first_of_all))
            }
        };
        let mut copied = 0;
        if shifts.iter().any(|(_, shift)| *shift != 0) {
            fragment.rope[0] = shift_times(&fragment.rope[0], shifts)?;
            copied = fragment.rope[0].len() as u64;
        }
        let (start_us, end_us) = span_us(&fragment.runs, init, shifts);
        let leading = fragment.runs.iter().find(|run| run.track == init.main()).map(std::slice::from_ref);
        let leading_us = leading.map(|run| span_us(run, init, shifts));
        let Fragment { rope, len, runs, keyframe, begins, ends } = fragment;
        let cut = Cut { leading_us, discontinuity, begins, ends };
        let share = |run: &TrackRun| Share {
            track: init.track_id(run.track),
            bytes: run.bytes,
            samples: Some((run.samples, ticks_to_us(run.end.saturating_sub(run.start), run.timescale))),
        };
        let shares = runs.iter().map(share).collect();
        let piece = Piece { rope, len, start_us, end_us, keyframe, cut, shares };
        stream.append(&mut inner, piece, current.clone());
        drop(inner);
        if let Some(shifts) = new {
            self.joined = Some(Joined::Mp4 { shifts });
        }
        Ok(copied)
    }

    fn part(&mut self, mut part: ts::Part) -> Result<u64, PublishError> {
        /// Parts in which streams that send seldom are looked for.
        const PATIENCE: u32 = 20;
        let Some(current) = self.init.clone() else { return Ok(0) };
        let Init::Ts(init) = &*current else { return Ok(0) };
        let mut joined = self.joined.take();
        let stream = Arc::clone(&self.stream);
        let mut inner = self.inner()?;
        let first_of_all = inner.next.part == stream.start().part;
        let changed = inner.changes(&current);
        let discontinuity = !first_of_all && (joined.is_none() || changed || part.jump);
        if joined.is_none() {
            if !part.keyframe {
                // Nothing could be decoded from it.
                return Ok(0);
            }
            let unmarked = if first_of_all { Vec::new() } else { init.pids() };
            let shift_us = shift_us(part.start_us, inner.end_us, first_of_all);
            inner.discontinuities += u64::from(!first_of_all);
            joined = Some(Joined::Ts { shift_us, unmarked, patience: PATIENCE });
        } else {
            inner.discontinuities += u64::from(changed || part.jump);
        }
        let mut copied = 0;
        let mut shift = 0;
        if let Some(Joined::Ts { shift_us, unmarked, patience }) = &mut joined {
            shift = *shift_us;
            if *patience > 0 && !unmarked.is_empty() {
                *patience -= 1;
                copied = mark_discontinuity(&mut part.rope, unmarked);
            }
        }
        let (start_us, end_us) = (part.start_us.saturating_add(shift), part.end_us.saturating_add(shift));
        let (len, rope) = (part.rope.len(), part.rope.into_pieces());
        let leading_us = Some((start_us, end_us));
        let cut = Cut { leading_us, discontinuity, begins: part.begins, ends: part.ends };
        let share = |(pid, bytes)| Share { track: u32::from(pid), bytes, samples: None };
        let shares = part.shares.into_iter().map(share).collect();
        let piece = Piece { rope, len, start_us, end_us, keyframe: part.keyframe, cut, shares };
        stream.append(&mut inner, piece, current.clone());
        drop(inner);
        self.joined = joined;
        Ok(copied)
    }

    /// The publisher said that this was all: the stream ends.
    pub fn finish(mut self) {
        self.finished = true;
        self.stream.end();
    }
}

impl Drop for Publication {
    fn drop(&mut self) {
        let mut inner = self.stream.lock();
        if !self.finished && inner.epoch == self.epoch && inner.state == State::Live {
            (inner.state, inner.publisher) = (State::Waiting, None);
            inner.left = Some(Instant::now());
            inner.segments.close_part();
            self.stream.tell(&inner.segments);
        }
    }
}
