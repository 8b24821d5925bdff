//! A viewer's place in a stream: joins at a keyframe, and skips to the newest one when it falls out of the window.

use super::arrival::Init;
use super::audience::Viewing;
use super::stream::{State, Stream};
use super::window::{Part, Window};
use crate::media::ts::rope::{Marker, Rope};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};

/// A viewer's place in a stream.
pub struct Cursor {
    stream: Arc<Stream>,
    _viewing: Viewing,
    id: u64,
    next: Option<u64>,
    init: Option<Arc<Init>>,
    back_us: Option<i64>,
    lags: u32,
    /// What of MPEG-TS must still be marked since the last skip.
    marker: Marker,
    copied_bytes: u64,
}

/// What a viewer gets next.
pub enum Next {
    /// Play this first.
    Init(Arc<Init>),
    Part(Arc<Part>),
    /// The stream has ended, its coding changed, or this viewer is too slow.
    End,
}

impl Cursor {
    pub(super) fn new(stream: Arc<Stream>, id: u64, back_us: Option<i64>) -> Self {
        let (_viewing, marker) = (stream.audience().view(), Marker::default());
        Self { stream, _viewing, id, next: None, init: None, back_us, lags: 0, marker, copied_bytes: 0 }
    }

    /// Bytes that were written anew since the last call.
    pub fn take_copied_bytes(&mut self) -> u64 {
        std::mem::take(&mut self.copied_bytes)
    }

    /// The next thing to send; pending until there is one.
    pub fn poll_next(&mut self, cx: &Context<'_>) -> Poll<Next> {
        let stream = Arc::clone(&self.stream);
        let mut inner = stream.lock();
        let part = match self.next {
            None => self.join(&inner.window),
            Some(next) => self.follow(&inner.window, next),
        };
        let Some(part) = part else {
            if inner.state == State::Ended {
                return Poll::Ready(Next::End);
            }
            inner.wakers.insert(self.id, cx.waker().clone());
            return Poll::Pending;
        };
        drop(inner);
        match &self.init {
            None => {
                self.init = Some(Arc::clone(&part.init));
                self.next = Some(part.number);
                Poll::Ready(Next::Init(Arc::clone(&part.init)))
            }
            // A body has one init segment: a player must ask again.
            Some(init) if !Arc::ptr_eq(init, &part.init) => Poll::Ready(Next::End),
            Some(_) if self.lags > self.stream.config.lags_max => Poll::Ready(Next::End),
            Some(_) => {
                self.next = Some(part.number + 1);
                Poll::Ready(Next::Part(self.marked(part)))
            }
        }
    }

    fn join(&self, window: &Window) -> Option<Arc<Part>> {
        let last_us = window.last()?.end_us;
        match self.back_us {
            None => window.newest_keyframe().cloned(),
            Some(back) => window.keyframe_at(last_us.saturating_sub(back)).cloned(),
        }
    }

    /// The next part, or the newest keyframe if that one has left the window.
    fn follow(&mut self, window: &Window, next: u64) -> Option<Arc<Part>> {
        if window.first().is_some_and(|first| first.number > next) {
            self.lags += 1;
            self.stream.lagged.fetch_add(1, Relaxed);
            let newest = window.newest_keyframe().cloned();
            if let Some(Init::Ts(init)) = newest.as_ref().map(|part| &*part.init) {
                self.marker = Marker::new(init.pids());
            }
            return newest;
        }
        window.get(next).cloned()
    }

    /// A part behind a gap says so in its packets; fragments of MP4 do by their times.
    fn marked(&mut self, part: Arc<Part>) -> Arc<Part> {
        if self.marker.is_done() {
            return part;
        }
        let mut rope = Rope::of(part.rope.clone());
        self.copied_bytes += self.marker.mark(&mut rope);
        let len = rope.len();
        Arc::new(Part { len, rope: rope.into_pieces(), ..Part::clone(&part) })
    }
}

impl Drop for Cursor {
    fn drop(&mut self) {
        self.stream.lock().wakers.remove(&self.id);
    }
}
