//! The connection's IO type: a TCP stream that counts, shares its core fairly, and says when its peer is slow.

use super::conn::{Conn, Phase};
use super::malformed;
use super::sendfile::{self, SENDFILE_MIN_BYTES};
use super::turn;
use crate::observe::latency;
use crate::profile::clock::Stopwatch;
use crate::profile::{Span, Stage, site, span};
use bytes::Bytes;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

/// hyper passes at most 64 slices (hyper 1.12, `MAX_WRITEV_BUFS`).
const SLICES_MAX: usize = 64;

pub struct Stream {
    socket: TcpStream,
    conn: Arc<Conn>,
    /// Bytes that this turn may still write.
    turn: usize,
    /// Large slices of files leave by sendfile.
    by_reference: bool,
    /// Bytes that were read and not used by the last reader.
    unread: Bytes,
    /// What is left of an answer that is sent in place of hyper's own.
    replacement: Option<Box<Replacement>>,
}

/// Boxed: an idle connection is not to pay for what hardly any ever needs.
struct Replacement {
    bytes: Vec<u8>,
    written: usize,
}

impl Stream {
    /// `paced`: the connection's congestion control paces, so everything is copied into the socket.
    pub fn new(socket: TcpStream, conn: Arc<Conn>, paced: bool) -> Self {
        let turn = turn::bytes(!paced);
        Self { socket, conn, turn, by_reference: !paced, unread: Bytes::new(), replacement: None }
    }

    /// Gives back what was read too much, for the next reader.
    pub(super) fn with_unread(mut self, unread: Bytes) -> Self {
        self.unread = unread;
        self
    }

    pub(super) fn conn(&self) -> Arc<Conn> {
        Arc::clone(&self.conn)
    }

    /// Ready when the peer has sent something, or is gone.
    pub(super) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.socket.poll_read_ready(cx).map(|_| ())
    }

    /// Writes the replacement of an answer of `total` bytes.
    fn poll_replacement(&mut self, cx: &mut Context<'_>, total: usize) -> Poll<io::Result<usize>> {
        while let Some(rest) = self.replacement.as_mut().filter(|rest| rest.written < rest.bytes.len()) {
            let written = ready!(Pin::new(&mut self.socket).poll_write(cx, &rest.bytes[rest.written..]))?;
            rest.written += written;
            self.conn.count_write(written as u64, 0);
        }
        self.replacement = None;
        Poll::Ready(Ok(total))
    }

    /// Ends the turn: the task is polled again after the others of this core.
    fn give_way(&mut self, cx: &Context<'_>) -> Poll<io::Result<usize>> {
        self.turn = turn::bytes(self.by_reference);
        self.conn.set_gave_way(true);
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// `brief`: there is no more to write than a short turn takes.
    fn write(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>], brief: bool) -> Poll<io::Result<usize>> {
        let _span = span!(Stage::Write.name());
        let _timed = latency::stage(Stage::Write);
        self.conn.set_gave_way(false);
        let by_reference = if self.by_reference { self.poll_sendfile(cx, slices) } else { None };
        let polled = match by_reference {
            Some(polled) => polled,
            None => Pin::new(&mut self.socket).poll_write_vectored(cx, slices),
        };
        match polled {
            Poll::Ready(Ok(written)) => {
                self.turn = self.turn.saturating_sub(written);
                self.conn.set_write_blocked(false);
                let media = self.conn.media_bytes(slices, written);
                // With a head in it, it is the beginning of an answer, and not the rest of a long one.
                if brief && media < written as u64 {
                    turn::note_brief();
                }
                self.conn.count_write(written as u64, media);
                Poll::Ready(Ok(written))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                self.turn = turn::bytes(self.by_reference);
                self.conn.set_write_blocked(true);
                Poll::Pending
            }
        }
    }

    /// Sends the first large slice of a file, and what stands before it, by reference. `None`: there is none.
    fn poll_sendfile(&self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Option<Poll<io::Result<usize>>> {
        let at = slices.iter().position(|slice| slice.len() >= SENDFILE_MIN_BYTES)?;
        let media = self.conn.media_of(&slices[at])?;
        let (file, offset) = media.source_of(&slices[at])?;
        loop {
            match self.socket.poll_write_ready(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Some(Poll::Ready(Err(error))),
                Poll::Pending => return Some(Poll::Pending),
            }
            let send = || sendfile::send(&self.socket, &slices[..at], file, offset, slices[at].len());
            match self.socket.try_io(Interest::WRITABLE, send) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return Some(Poll::Ready(done)),
            }
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.unread.is_empty() {
            let taken = self.unread.len().min(buf.remaining());
            buf.put_slice(&self.unread.split_to(taken));
            return Poll::Ready(Ok(()));
        }
        let in_request = || self.conn.phase() == Phase::Serving;
        let _span = Span::enter_one_of(|| match in_request() {
            true => site!(Stage::Receive.name()),
            false => site!(Stage::Head.name()),
        });
        let (since, before) = (Stopwatch::start(), buf.filled().len());
        ready!(Pin::new(&mut self.socket).poll_read(cx, buf))?;
        self.conn.count_read((buf.filled().len() - before) as u64, since);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.turn == 0 {
            return self.give_way(cx);
        }
        let total: usize = slices.iter().map(|s| s.len()).sum();
        // Only looked at when no request is in flight, and never in media: a load from a file that was cut is SIGBUS.
        let no_request = self.replacement.is_none() && self.conn.phase() != Phase::Serving;
        if no_request && !slices.iter().any(|slice| self.conn.is_media(slice)) {
            self.replacement = malformed::with_problem(slices).map(|bytes| Box::new(Replacement { bytes, written: 0 }));
        }
        if self.replacement.is_some() {
            return self.poll_replacement(cx, total);
        }
        if total <= self.turn {
            return self.write(cx, slices, total <= turn::SHORT_BYTES);
        }
        let mut cut = [IoSlice::new(&[]); SLICES_MAX];
        let mut left = self.turn;
        let mut count = 0;
        for slice in slices.iter().take(SLICES_MAX) {
            let taken = slice.len().min(left);
            cut[count] = IoSlice::new(&slice[..taken]);
            count += 1;
            left -= taken;
            if left == 0 {
                break;
            }
        }
        self.write(cx, &cut[..count], false)
    }

    /// True, or hyper copies every body into its own buffer.
    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
