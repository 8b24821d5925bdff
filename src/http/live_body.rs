//! The endless body of a viewer: the init segment, then each part as it arrives, as the very buffers it came in.

use crate::live::Next;
use crate::live::{Cursor, Part};
use crate::net::Conn;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

pub struct LiveBody {
    cursor: Cursor,
    conn: Arc<Conn>,
    /// The part being sent, and its next buffer.
    part: Option<(Arc<Part>, usize)>,
    ended: bool,
}

impl LiveBody {
    pub fn new(cursor: Cursor, conn: Arc<Conn>) -> Self {
        Self { cursor, conn, part: None, ended: false }
    }
}

impl Body for LiveBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = &mut *self;
        loop {
            if this.ended {
                return Poll::Ready(None);
            }
            if let Some((part, next)) = &mut this.part {
                if let Some(buffer) = part.rope.get(*next) {
                    *next += 1;
                    let buffer = buffer.clone();
                    this.conn.hand_out(&buffer, None);
                    return Poll::Ready(Some(Ok(Frame::data(buffer))));
                }
                this.part = None;
            }
            match ready!(this.cursor.poll_next(cx)) {
                Next::Init(init) => {
                    let bytes = init.bytes();
                    if !bytes.is_empty() {
                        return Poll::Ready(Some(Ok(Frame::data(bytes))));
                    }
                }
                Next::Part(part) => this.part = Some((part, 0)),
                Next::End => this.ended = true,
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
