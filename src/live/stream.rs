//! One live stream: its window, its publisher, and the cursors of its viewers.
//!
//! The lock is held for the time it takes to append or to clone one part, never across an await; a viewer waits for the
//! next part with a waker that the publisher wakes.

use super::arrival::{Arrived, Init};
use super::cursor::Cursor;
use super::numbers::{Keeper, Kept, Numbers};
use super::playlist::Playlist;
use super::segments::{Appended, Progress, Segments};
use super::streams::LiveConfig;
use super::times::{shift_us, shifts, span_us};
use super::window::{Bounds, Located, Part, Window};
use crate::media::cadence::Mark;
use crate::media::mp4::arrival::{ArrivalError, Fragment, shift_times};
use crate::media::ts::arrival as ts;
use crate::media::ts::rope::mark_discontinuity;
use crate::observe::latency;
use crate::profile::Stage;
use bytes::Bytes;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::watch;

/// A publisher that has sent nothing for this long may be replaced.
const SILENT: Duration = Duration::from_secs(5);

pub struct Stream {
    name: String,
    pub(super) config: LiveConfig,
    start: Numbers,
    keeper: Arc<dyn Keeper>,
    inner: Mutex<Inner>,
    /// Tells of parts and segments that became whole.
    pub(super) progress: watch::Sender<Progress>,
    /// The playlist that was asked for last, and of which version of the segments it is.
    pub(super) playlist: Mutex<Option<(u64, Arc<Playlist>)>>,
    pub(super) viewers: AtomicU64,
    pub(super) lagged: AtomicU64,
    next_viewer: AtomicU64,
}

/// What a stream is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// A publisher is connected.
    Live,
    /// The publisher is gone, and may come back.
    Waiting,
    Ended,
}

/// Who publishes.
#[derive(Clone, Debug)]
pub struct Publisher {
    pub address: SocketAddr,
    pub since: SystemTime,
}

pub(super) struct Inner {
    pub(super) state: State,
    pub(super) window: Window,
    pub(super) segments: Segments,
    pub(super) init: Option<Arc<Init>>,
    pub(super) publisher: Option<Publisher>,
    /// Which publication may append; an older one that still runs was taken over.
    epoch: u64,
    last_byte: Instant,
    left: Option<Instant>,
    ended: Option<Instant>,
    /// The numbers that come next, and where those end that were reserved.
    pub(super) next: Numbers,
    reserved: Numbers,
    /// End of the last part.
    end_us: i64,
    pub(super) discontinuities: u64,
    pub(super) received_bytes: u64,
    pub(super) wakers: HashMap<u64, Waker>,
}

#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// Another request publishes this stream and has not been silent.
    #[error("the stream has a publisher; end that one first, or wait until it has sent nothing for 5 s")]
    Busy,
    /// A newer request took the stream over.
    #[error("another publisher took the stream over")]
    TakenOver,
    #[error("the stream was ended")]
    Ended,
    #[error("there are {max} live streams, which is the limit")]
    TooMany { max: usize },
    #[error(transparent)]
    Broken(#[from] ArrivalError),
}

impl Stream {
    /// A stream whose numbers go on where those of its name ended.
    pub fn new(name: String, config: LiveConfig, keeper: Arc<dyn Keeper>) -> Arc<Self> {
        let start = keeper.begin(&name);
        let listed_us = config.window.duration_us;
        let segments = Segments::new(config.targets, listed_us, start.segment, start.discontinuity);
        let progress = watch::Sender::new(segments.progress());
        let inner = Inner {
            state: State::Waiting,
            window: Window::from(start.part),
            segments,
            init: None,
            publisher: None,
            epoch: 0,
            last_byte: Instant::now(),
            left: None,
            ended: None,
            next: start,
            reserved: start.block_end(),
            end_us: 0,
            discontinuities: 0,
            received_bytes: 0,
            wakers: HashMap::new(),
        };
        let counter = || AtomicU64::new(0);
        Arc::new(Self {
            name,
            config,
            start,
            keeper,
            inner: Mutex::new(inner),
            progress,
            playlist: Mutex::default(),
            viewers: counter(),
            lagged: counter(),
            next_viewer: counter(),
        })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The numbers that the stream began with.
    pub fn start(&self) -> Numbers {
        self.start
    }

    /// Resolves when the numbers that the stream may use are kept.
    pub(super) fn kept(&self) -> Kept {
        self.keeper.kept()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the stream for one publication; with `takeover` from another one, too.
    pub fn publish(self: &Arc<Self>, address: SocketAddr, takeover: bool) -> Result<Publication, PublishError> {
        let mut inner = self.lock();
        match inner.state {
            State::Ended => return Err(PublishError::Ended),
            State::Live if !takeover && inner.last_byte.elapsed() < SILENT => return Err(PublishError::Busy),
            State::Live | State::Waiting => {}
        }
        inner.state = State::Live;
        inner.epoch += 1;
        inner.left = None;
        inner.last_byte = Instant::now();
        inner.publisher = Some(Publisher { address, since: SystemTime::now() });
        let epoch = inner.epoch;
        drop(inner);
        Ok(Publication { stream: Arc::clone(self), epoch, init: None, joined: None, finished: false })
    }

    /// Ends the stream for every viewer.
    pub fn end(&self) {
        let mut inner = self.lock();
        if inner.state != State::Ended {
            inner.state = State::Ended;
            inner.segments.end();
            inner.count();
            inner.ended = Some(Instant::now());
            self.keeper.settle(&self.name, inner.next);
        }
        inner.publisher = None;
        inner.wake();
        self.tell(&inner.segments);
    }

    /// Whether the stream ended at least this long ago.
    pub(super) fn ended_for(&self, time: Duration) -> bool {
        self.lock().ended.is_some_and(|ended| ended.elapsed() >= time)
    }

    /// Reserves the next block of numbers in time.
    pub(super) fn reserve(&self, inner: &mut Inner) {
        if inner.next.nears(inner.reserved) {
            inner.reserved = inner.reserved.max(inner.next).block_end();
            self.keeper.reserve(&self.name, inner.reserved);
        }
    }

    /// Ends the stream if its publisher has been gone for `window`; whether it has ended.
    pub fn end_if_left(&self, window: Duration) -> bool {
        let inner = self.lock();
        let gone = inner.state == State::Waiting && inner.left.is_none_or(|left| left.elapsed() >= window);
        let ended = inner.state == State::Ended;
        drop(inner);
        if gone {
            self.end();
        }
        gone || ended
    }

    /// A cursor at the newest keyframe, or `back` microseconds before the end.
    pub fn view(self: &Arc<Self>, back_us: Option<i64>) -> Cursor {
        self.viewers.fetch_add(1, Relaxed);
        let id = self.next_viewer.fetch_add(1, Relaxed);
        Cursor::new(Arc::clone(self), id, back_us)
    }

    /// A number for one that waits for parts; [`Stream::forget`] takes it back.
    pub(super) fn waiter(&self) -> u64 {
        self.next_viewer.fetch_add(1, Relaxed)
    }

    pub(super) fn forget(&self, waiter: u64) {
        self.lock().wakers.remove(&waiter);
    }

    /// Asks the window; pending when it says that what is asked for is not there yet, `None` when it never will be.
    pub(super) fn poll_window<T>(
        &self,
        waiter: u64,
        cx: &Context<'_>,
        ask: impl FnOnce(&Window) -> Option<T>,
    ) -> Poll<Option<T>> {
        let mut inner = self.lock();
        match ask(&inner.window) {
            Some(found) => Poll::Ready(Some(found)),
            None if inner.state == State::Ended => Poll::Ready(None),
            None => {
                inner.wakers.insert(waiter, cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// What the window has at a byte offset.
    pub fn locate(&self, offset: u64) -> Located {
        self.lock().window.at(offset)
    }

    /// The bytes of the stream that are in the window, and whether more will come. Empty at the end before the first
    /// part.
    pub fn extent(&self) -> (Range<u64>, bool) {
        let inner = self.lock();
        let end = inner.next.offset;
        (inner.window.first_byte().unwrap_or(end)..end, inner.state != State::Ended)
    }
}

impl Inner {
    /// Whether players must start anew at what comes with this coding.
    fn changes(&self, init: &Init) -> bool {
        self.init.as_ref().is_some_and(|old| !old.same_coding(init))
    }

    fn append(&mut self, piece: Piece, init: Arc<Init>, bounds: Bounds) {
        let _timed = latency::stage(Stage::Append);
        // The same coding keeps its init segment, so that bodies go on.
        let init = match &self.init {
            Some(old) if old.same_coding(&init) => Arc::clone(old),
            _ => {
                self.next.offset += init.bytes().len() as u64;
                self.init = Some(Arc::clone(&init));
                init
            }
        };
        let Piece { rope, len, start_us, end_us, keyframe, cut } = piece;
        let (number, offset) = (self.next.part, self.next.offset);
        self.next.part += 1;
        self.next.offset += len;
        self.end_us = self.end_us.max(end_us);
        let appended = Appended {
            range: offset..offset + len,
            init: &init,
            span_us: cut.leading_us.unwrap_or((start_us, end_us)),
            leads: cut.leading_us.is_some(),
            keyframe,
            discontinuity: cut.discontinuity,
            begins: cut.begins,
            ends: cut.ends,
        };
        self.segments.append(&appended, SystemTime::now());
        self.window.push(Arc::new(Part { number, offset, len, rope, start_us, end_us, keyframe, init }), bounds);
        self.wake();
    }

    /// Notes how far the numbers of segments and discontinuities have come.
    pub(super) fn count(&mut self) {
        (self.next.segment, self.next.discontinuity) = self.segments.next();
    }

    fn wake(&mut self) {
        for (_, waker) in self.wakers.drain() {
            waker.wake();
        }
    }
}

/// The right to append to a stream. Dropping it without [`Publication::finish`] leaves the stream waiting.
pub struct Publication {
    stream: Arc<Stream>,
    epoch: u64,
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
struct Piece {
    rope: Vec<Bytes>,
    len: u64,
    start_us: i64,
    end_us: i64,
    keyframe: bool,
    cut: Cut,
}

/// How a part lies among the parts and segments of playlists.
struct Cut {
    /// Start and end of what it has of the track that is cut.
    leading_us: Option<(i64, i64)>,
    discontinuity: bool,
    begins: Mark,
    ends: Mark,
}

impl Publication {
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
        let first_of_all = inner.next.part == stream.start.part;
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
        let Fragment { rope, len, keyframe, begins, ends, .. } = fragment;
        let cut = Cut { leading_us, discontinuity, begins, ends };
        inner.append(Piece { rope, len, start_us, end_us, keyframe, cut }, current.clone(), stream.config.window);
        stream.appended(&mut inner);
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
        let first_of_all = inner.next.part == stream.start.part;
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
        let piece = Piece { rope, len, start_us, end_us, keyframe: part.keyframe, cut };
        inner.append(piece, current.clone(), stream.config.window);
        stream.appended(&mut inner);
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
            inner.state = State::Waiting;
            inner.publisher = None;
            inner.left = Some(Instant::now());
            inner.segments.close_part();
            self.stream.tell(&inner.segments);
        }
    }
}
