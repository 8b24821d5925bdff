//! One publication: from a publisher's parser into the stream, at times that go on where the stream stands.
//!
//! Must not know sockets, nor how parts are found in bytes (`media`).

use super::arrival::{Arrived, Init};
use super::meter::Share;
use super::numbers::Kept;
use super::stream::{Inner, PublishError, Publisher, State, Stream};
use super::times::{shift_us, shifts, span_us};
use crate::media::cadence::{Mark, jumps};
use crate::media::mp4::arrival::{ArrivalError, Fragment, TrackRun, Wrong, shift_times};
use crate::media::time::ticks_to_us;
use crate::media::ts::arrival as ts;
use crate::media::ts::rope::Marker;
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::{Arc, MutexGuard};
use std::time::Instant;

/// The right to append to a stream. Dropping it without [`Publication::finish`] leaves the stream waiting.
pub struct Publication {
    stream: Arc<Stream>,
    epoch: u64,
    publisher: Publisher,
    init: Option<Arc<Init>>,
    joined: Option<Joined>,
    early: Early,
    finished: bool,
}

/// Sound of a stream that has no picture yet. A stream begins with a keyframe, and has behind it what belongs to it.
#[derive(Default)]
struct Early {
    fragments: VecDeque<Fragment>,
    bytes: u64,
}

impl Early {
    /// Bytes that may wait: a minute of sound.
    const BYTES_MAX: u64 = 1 << 20;

    fn push(&mut self, fragment: Fragment) {
        if fragment.runs.iter().any(|run| run.video) {
            return;
        }
        self.bytes += fragment.len;
        self.fragments.push_back(fragment);
        while self.bytes > Self::BYTES_MAX {
            self.bytes -= self.fragments.pop_front().map_or(self.bytes, |oldest| oldest.len);
        }
    }

    /// What belongs to pictures from a keyframe on.
    fn take(&mut self, keyframe: &Fragment) -> impl Iterator<Item = Fragment> + use<> {
        let starts = keyframe.runs.iter().filter(|run| run.video).map(|run| ticks_to_us(run.start, run.timescale));
        let start_us = starts.min().unwrap_or(i64::MAX);
        let belongs =
            move |fragment: &Fragment| fragment.runs.iter().any(|run| ticks_to_us(run.end, run.timescale) >= start_us);
        std::mem::take(self).fragments.into_iter().filter(belongs)
    }
}

/// How a publication goes on where the stream stands; worked out at its first part.
enum Joined {
    /// What is added to each track's decode times; start and end, in its own time, of what came last of the track that
    /// is cut.
    Mp4 { shifts: Vec<(u32, i64)>, last_us: Option<(i64, i64)> },
    /// What is added to the times of parts, which is not written into them; what must still be marked.
    Ts { shift_us: i64, marker: Marker },
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
        Self { stream, epoch, publisher, init: None, joined: None, early: Early::default(), finished: false }
    }

    /// Takes what the parser found. Gives the bytes that had to be copied.
    pub fn take(&mut self, event: Arrived) -> Result<u64, PublishError> {
        match event {
            Arrived::Init(init) => {
                if matches!(init, Init::Mp4(_)) {
                    self.joined = None;
                    self.early = Early::default();
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
        inner.received_bytes += bytes;
        if inner.epoch == self.epoch && inner.state != State::Ended {
            inner.last_byte = Instant::now();
            inner.left = None;
            inner.state = State::Live;
            inner.publisher.get_or_insert_with(|| self.publisher.clone());
        }
    }

    /// Notes how many bytes wait for the rest of their part; an error, at the last of them, when those are too many.
    pub fn hold(&self, bytes: u64, position: u64) -> Result<(), ArrivalError> {
        let mut inner = self.stream.lock();
        if inner.epoch != self.epoch {
            return Ok(());
        }
        self.stream.hold(&mut inner, bytes + self.early.bytes).map_err(|limit| {
            let what = format!("a part is not whole, and longer than the {limit} bytes that a stream may keep,");
            ArrivalError { what, position, kind: Wrong::TooLarge { limit } }
        })
    }

    /// Notes that no request is open; the publisher is back with its next byte, which is due at `due`.
    pub fn rest(&self, due: Instant) {
        let mut inner = self.stream.lock();
        if inner.epoch == self.epoch && inner.state == State::Live {
            inner.left = Some(due);
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

    fn fragment(&mut self, fragment: Fragment) -> Result<u64, PublishError> {
        let has_begun = self.inner()?.next.part != self.stream.start().part;
        if !has_begun && !fragment.keyframe {
            // Nothing could be decoded from it yet.
            self.early.push(fragment);
            return Ok(0);
        }
        let early = self.early.take(&fragment);
        let mut copied = self.append(fragment)?;
        for sound in early {
            copied += self.append(sound)?;
        }
        Ok(copied)
    }

    fn append(&mut self, mut fragment: Fragment) -> Result<u64, PublishError> {
        let Some(current) = self.init.clone() else { return Ok(0) };
        let Init::Mp4(init) = &*current else { return Ok(0) };
        if fragment.runs.is_empty() {
            return Ok(0);
        }
        let joined = self.joined.take();
        let stream = Arc::clone(&self.stream);
        let mut inner = self.inner()?;
        let first_of_all = inner.next.part == stream.start().part;
        let changed = inner.changes(&current);
        let leading = fragment.runs.iter().find(|run| run.track == init.main()).copied();
        let own_us = leading.map(|run| span_us(&[run], init, &[]));
        let (known, last_us) = match joined {
            Some(Joined::Mp4 { shifts, last_us }) => (Some(shifts), last_us),
            _ => (None, None),
        };
        let jumped = last_us.zip(own_us).is_some_and(|(last_us, own_us)| jumps(last_us, own_us.0));
        let known = known.filter(|_| !changed && !jumped);
        let discontinuity = !first_of_all && known.is_none();
        inner.discontinuities += u64::from(discontinuity);
        let shifts = known.unwrap_or_else(|| shifts(&fragment, init, inner.end_us, first_of_all));
        let mut copied = 0;
        if shifts.iter().any(|(_, shift)| *shift != 0) {
            copied = shift_times(&mut fragment.rope, &shifts)?;
            fragment.len = fragment.rope.iter().map(|piece| piece.len() as u64).sum();
        } else if let Some(front) = fragment.front {
            fragment.rope.splice(..2, [front]);
        }
        let (start_us, end_us) = span_us(&fragment.runs, init, &shifts);
        let leading_us = leading.map(|run| span_us(&[run], init, &shifts));
        let Fragment { rope, len, runs, keyframe, begins, ends, .. } = fragment;
        let (rope, joined_bytes) = joined_if_short(rope, len);
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
        self.joined = Some(Joined::Mp4 { shifts, last_us: own_us.or(last_us) });
        Ok(copied + joined_bytes)
    }

    fn part(&mut self, mut part: ts::Part) -> Result<u64, PublishError> {
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
            let marker = if first_of_all { Marker::default() } else { Marker::new(init.pids()) };
            let shift_us = shift_us(part.start_us, inner.end_us, first_of_all);
            inner.discontinuities += u64::from(!first_of_all);
            joined = Some(Joined::Ts { shift_us, marker });
        } else {
            inner.discontinuities += u64::from(changed || part.jump);
        }
        let mut copied = 0;
        let mut shift = 0;
        if let Some(Joined::Ts { shift_us, marker }) = &mut joined {
            shift = *shift_us;
            copied = marker.mark(&mut part.rope);
        }
        let (start_us, end_us) = (part.start_us.saturating_add(shift), part.end_us.saturating_add(shift));
        let len = part.rope.len();
        let (rope, joined_bytes) = joined_if_short(part.rope.into_pieces(), len);
        let leading_us = Some((start_us, end_us));
        let cut = Cut { leading_us, discontinuity, begins: part.begins, ends: part.ends };
        let share = |(pid, bytes)| Share { track: u32::from(pid), bytes, samples: None };
        let shares = part.shares.into_iter().map(share).collect();
        let piece = Piece { rope, len, start_us, end_us, keyframe: part.keyframe, cut, shares };
        stream.append(&mut inner, piece, current.clone());
        drop(inner);
        self.joined = joined;
        Ok(copied + joined_bytes)
    }

    /// The publisher said that this was all: the stream ends.
    pub fn finish(mut self) {
        self.finished = true;
        self.stream.end();
    }
}

/// Joins buffers that are so short that to keep and to send each of them, to every viewer, costs more than to copy them
/// once. Gives the bytes that were copied.
fn joined_if_short(rope: Vec<Bytes>, len: u64) -> (Vec<Bytes>, u64) {
    const BUFFERS_MIN: u64 = 32;
    const SHORT: u64 = 256;
    let buffers = rope.len() as u64;
    if buffers < BUFFERS_MIN || len / buffers >= SHORT {
        return (rope, 0);
    }
    (vec![rope.concat().into()], len)
}

impl Drop for Publication {
    fn drop(&mut self) {
        let _ = self.hold(0, 0);
        let mut inner = self.stream.lock();
        if !self.finished && inner.epoch == self.epoch && inner.state == State::Live {
            (inner.state, inner.publisher) = (State::Waiting, None);
            inner.left = Some(Instant::now());
            inner.segments.close_part();
            self.stream.tell(&inner.segments);
        }
    }
}
