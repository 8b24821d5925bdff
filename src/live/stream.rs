//! One live stream: its window, its publisher, and the cursors of its viewers.
//!
//! The lock is held for the time it takes to append or to clone one part, never across an await; a viewer waits for the
//! next part with a waker that the publisher wakes.

use super::arrival::Init;
use super::audience::Audience;
use super::cursor::Cursor;
use super::memory::Memory;
use super::meter::Meter;
use super::numbers::{Keeper, Kept, Numbers};
use super::playlist::Playlist;
use super::publication::{Piece, Publication};
use super::segments::{Appended, Progress, Segments};
use super::streams::LiveConfig;
use super::window::{Bounds, Located, Part, Window};
use crate::media::mp4::arrival::ArrivalError;
use crate::observe::latency;
use crate::profile::{Stage, span};
use std::collections::BTreeMap;
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
    memory: Arc<Memory>,
    inner: Mutex<Inner>,
    /// Tells of parts and segments that became whole.
    pub(super) progress: watch::Sender<Progress>,
    /// The playlist that was asked for last, and of which version of the segments it is.
    pub(super) playlist: Mutex<Option<(u64, Arc<Playlist>)>>,
    pub(super) audience: Arc<Audience>,
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
    pub(super) meter: Meter,
    pub(super) init: Option<Arc<Init>>,
    pub(super) publisher: Option<Publisher>,
    /// Which publication may append; an older one that still runs was taken over.
    pub(super) epoch: u64,
    pub(super) last_byte: Instant,
    pub(super) left: Option<Instant>,
    ended: Option<Instant>,
    /// The numbers that come next, and where those end that were reserved.
    pub(super) next: Numbers,
    reserved: Numbers,
    /// End of the last part.
    pub(super) end_us: i64,
    pub(super) discontinuities: u64,
    pub(super) received_bytes: u64,
    /// Of a part that is not whole yet.
    pub(super) held_bytes: u64,
    pub(super) wakers: BTreeMap<u64, Waker>,
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
    pub fn new(name: String, config: LiveConfig, keeper: Arc<dyn Keeper>, memory: Arc<Memory>) -> Arc<Self> {
        let start = keeper.begin(&name);
        memory.open();
        let listed_us = config.window.duration_us;
        let segments = Segments::new(config.targets, listed_us, start.segment, start.discontinuity);
        let progress = watch::Sender::new(segments.progress());
        let inner = Inner {
            state: State::Waiting,
            window: Window::from(start.part),
            meter: Meter::default(),
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
            held_bytes: 0,
            wakers: BTreeMap::new(),
        };
        let counter = || AtomicU64::new(0);
        Arc::new(Self {
            name,
            config,
            start,
            keeper,
            memory,
            inner: Mutex::new(inner),
            progress,
            playlist: Mutex::default(),
            audience: Audience::new(config.targets.duration_seconds()),
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
        let publisher = Publisher { address, since: SystemTime::now() };
        inner.publisher = Some(publisher.clone());
        let epoch = inner.epoch;
        drop(inner);
        Ok(Publication::new(Arc::clone(self), epoch, publisher))
    }

    /// Ends the stream for every viewer.
    pub fn end(&self) {
        self.end_locked(&mut self.lock());
    }

    fn end_locked(&self, inner: &mut Inner) {
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

    /// Puts a part into the window.
    pub(super) fn append(&self, inner: &mut Inner, piece: Piece, init: Arc<Init>) {
        let before = inner.window.bytes();
        let bounds = self.memory.bounds(self.config.window);
        let bounds = Bounds { bytes: bounds.bytes.saturating_sub(inner.held_bytes), ..bounds };
        inner.append(piece, init, bounds);
        self.memory.changed(before, inner.window.bytes());
        self.appended(inner);
    }

    /// Notes how much is here of a part that is not whole; an error gives how much may be.
    pub(super) fn hold(&self, inner: &mut Inner, bytes: u64) -> Result<(), u64> {
        self.memory.changed(inner.held_bytes, bytes);
        inner.held_bytes = bytes;
        let max = self.memory.bounds(self.config.window).bytes;
        if bytes > max { Err(max) } else { Ok(()) }
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
        let mut inner = self.lock();
        let gone = match inner.state {
            State::Waiting => inner.left.is_none_or(|left| left.elapsed() >= window),
            // Between two requests.
            State::Live => inner.left.is_some_and(|left| left.elapsed() >= window),
            State::Ended => false,
        };
        if inner.state == State::Live && inner.left.is_some_and(|left| left.elapsed() >= SILENT) {
            (inner.state, inner.publisher) = (State::Waiting, None);
        }
        if gone {
            // Under the same lock: a publisher that returns now finds a stream that has ended, or one that goes on.
            self.end_locked(&mut inner);
        }
        inner.state == State::Ended
    }

    /// Who watches.
    pub fn audience(&self) -> &Arc<Audience> {
        &self.audience
    }

    /// A cursor at the newest keyframe, or `back` microseconds before the end.
    pub fn view(self: &Arc<Self>, back_us: Option<i64>) -> Cursor {
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
    pub(super) fn changes(&self, init: &Init) -> bool {
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
        let Piece { rope, len, start_us, end_us, keyframe, cut, shares } = piece;
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
        self.meter.push(appended.span_us.0, appended.span_us.1, shares);
        self.segments.append(&appended, SystemTime::now());
        let leading_us = cut.leading_us;
        let part = Part { number, offset, len, rope, start_us, end_us, leading_us, keyframe, init };
        self.window.push(Arc::new(part), bounds);
        self.wake();
    }

    /// Notes how far the numbers of segments and discontinuities have come.
    pub(super) fn count(&mut self) {
        (self.next.segment, self.next.discontinuity) = self.segments.next();
    }

    fn wake(&mut self) {
        let _span = span!(Stage::Wake.name());
        let _timed = latency::stage(Stage::Wake);
        std::mem::take(&mut self.wakers).into_values().for_each(Waker::wake);
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let inner = self.lock();
        self.memory.close(inner.window.bytes() + inner.held_bytes);
    }
}
