//! The endless body of a viewer: the init segment, then each part as it arrives, as the very buffers it came in; or
//! what arrived in some time together.

use crate::live::Next;
use crate::live::{Cursor, Part};
use crate::net::{Conn, Wait};
use crate::observe::latency;
use crate::profile::clock::Stopwatch;
use crate::profile::{Stage, span};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::Sleep;

pub struct LiveBody {
    cursor: Cursor,
    conn: Arc<Conn>,
    /// The part being sent, and its next buffer.
    part: Option<(Arc<Part>, usize)>,
    /// How long parts are collected before they are sent together; zero: each at once.
    merge: Duration,
    pause: Option<Pin<Box<Sleep>>>,
    /// Something was sent since the last pause.
    sent: bool,
    ended: bool,
}

impl LiveBody {
    pub fn new(cursor: Cursor, conn: Arc<Conn>, merge: Duration) -> Self {
        Self { cursor, conn, part: None, merge, pause: None, sent: false, ended: false }
    }

    /// The next thing of the stream. When all that there was has been sent, what comes is left to collect for a while.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        let polled = self.poll_merged(cx);
        self.conn.waits(if polled.is_pending() { Wait::Part } else { Wait::Core });
        polled
    }

    /// The next buffer of the part that is sent, or of the one that comes.
    fn poll_buffer(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            if self.ended {
                return Poll::Ready(None);
            }
            if let Some((part, next)) = &mut self.part {
                if let Some(buffer) = part.rope.get(*next) {
                    *next += 1;
                    let buffer = buffer.clone();
                    self.conn.hand_out(&buffer, None);
                    return Poll::Ready(Some(buffer));
                }
                self.part = None;
            }
            match ready!(self.poll_next(cx)) {
                Next::Init(init) => {
                    let bytes = init.bytes();
                    if !bytes.is_empty() {
                        return Poll::Ready(Some(bytes));
                    }
                }
                Next::Part(part) => {
                    self.conn.traffic.copied.fetch_add(self.cursor.take_copied_bytes(), Relaxed);
                    self.part = Some((part, 0));
                }
                Next::End => self.ended = true,
            }
        }
    }

    fn poll_merged(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(cx));
            self.pause = None;
        }
        match self.cursor.poll_next(cx) {
            Poll::Pending if self.sent && !self.merge.is_zero() => {
                self.sent = false;
                let mut pause = Box::pin(tokio::time::sleep(self.merge));
                // A short pause may be over already.
                if pause.as_mut().poll(cx).is_pending() {
                    self.pause = Some(pause);
                }
                Poll::Pending
            }
            Poll::Ready(next) => {
                self.sent = true;
                Poll::Ready(next)
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

/// Gives a viewer the next buffer: the stage `send`, in which waiting for a part does not count.
pub fn send<T>(poll: impl FnOnce() -> Poll<T>) -> Poll<T> {
    let _span = span!(Stage::Send.name());
    let since = Stopwatch::start();
    let polled = poll();
    if polled.is_ready() {
        latency::observe(Stage::Send, since.ns());
    }
    polled
}

impl Body for LiveBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = &mut *self;
        send(|| this.poll_buffer(cx)).map(|buffer| buffer.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
