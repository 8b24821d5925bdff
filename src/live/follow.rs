//! Followers of a stream that skip nothing: by part (the recorder) and by byte (`/file`).
//!
//! Unlike a [`super::Cursor`] they never jump: what has left the window is reported to the caller, who knows what to
//! do. Like every viewer they cost the publisher nothing.

use super::stream::Stream;
use super::window::{Located, Part};
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

/// One that takes every part, from a number on.
pub struct Follower {
    stream: Arc<Stream>,
    waiter: u64,
    next: u64,
}

/// What a follower gets.
pub enum Followed {
    Part(Arc<Part>),
    /// The next part has left the window before it was taken.
    Lost,
    /// The stream has ended, and every part was taken.
    End,
}

impl Follower {
    /// Takes every part of the stream's life.
    pub fn from_first(stream: &Arc<Stream>) -> Self {
        Self { stream: Arc::clone(stream), waiter: stream.waiter(), next: stream.start().part }
    }

    /// The next part, waiting for it.
    pub async fn next(&mut self) -> Followed {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// The next part; it is taken when it is given.
    pub fn poll_next(&mut self, cx: &Context<'_>) -> Poll<Followed> {
        let next = self.next;
        let found = self.stream.poll_window(self.waiter, cx, |window| match window.first() {
            Some(first) if first.number > next => Some(None),
            _ => window.get(next).cloned().map(Some),
        });
        Poll::Ready(match ready!(found) {
            Some(Some(part)) => {
                self.next = part.number + 1;
                Followed::Part(part)
            }
            Some(None) => Followed::Lost,
            None => Followed::End,
        })
    }

    /// Goes on at the newest part, after [`Followed::Lost`].
    pub fn skip(&mut self) {
        let (extent, _) = self.stream.extent();
        if let Located::Part(part) = self.stream.locate(extent.end.saturating_sub(1)) {
            self.next = self.next.max(part.number);
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.stream.forget(self.waiter);
    }
}

/// One that waits for a byte.
pub struct Reader {
    stream: Arc<Stream>,
    waiter: u64,
}

impl Reader {
    pub fn new(stream: Arc<Stream>) -> Self {
        let waiter = stream.waiter();
        Self { stream, waiter }
    }

    /// What lies at a byte offset, waiting for it; `None` when the stream ended before it. Never [`Located::Ahead`].
    pub fn poll_at(&self, offset: u64, cx: &Context<'_>) -> Poll<Option<Located>> {
        self.stream.poll_window(self.waiter, cx, |window| match window.at(offset) {
            Located::Ahead => None,
            located => Some(located),
        })
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.stream.forget(self.waiter);
    }
}
