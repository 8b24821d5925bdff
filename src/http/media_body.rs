//! The body of a media answer: slices of a mapped file and generated boxes, in order, each slice resident before a
//! core gets it.
//!
//! A body is a few large slices, never a stream of small buffers, and hyper hands them to `writev` as they are.
//! While one window is sent, the next is read in if it is cold, so a viewer of cold data waits for the disk once and
//! viewers of hot data never.

use crate::media::slices::Piece;
use crate::net::{Conn, Wait};
use crate::observe::latency;
use crate::profile::clock::Stopwatch;
use crate::profile::{Profiled, SpanExt, Stage, site, span};
use crate::store::pool::Running;
use crate::store::residency::WINDOW_BYTES;
use crate::store::{MappedFile, Pool};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

/// Gives a body its pieces, some at a time.
pub trait Pieces: Send {
    /// The pieces that follow those given so far, or a job on `pool` that finds them.
    fn next(&mut self, pool: &Pool) -> Next;
}

/// The next pieces of a body.
pub enum Next {
    Pieces(VecDeque<Piece>),
    /// They have to be read first.
    Job(Running<io::Result<VecDeque<Piece>>>),
    End,
}

/// Pieces that are known beforehand.
impl Pieces for Option<VecDeque<Piece>> {
    fn next(&mut self, _: &Pool) -> Next {
        self.take().map_or(Next::End, Next::Pieces)
    }
}

/// A body of planned pieces over one file.
pub struct MediaBody {
    file: Arc<MappedFile>,
    pool: Pool,
    conn: Arc<Conn>,
    /// `None`: the whole body is `current`.
    pieces: Option<Box<dyn Pieces>>,
    queue: VecDeque<Piece>,
    /// The rest of the piece that is being sent.
    current: Range<u64>,
    /// Up to here `current` was found resident.
    resident_to: u64,
    populate: Option<Profiled<Running<io::Result<()>>>>,
    locate: Option<Profiled<Running<io::Result<VecDeque<Piece>>>>>,
    /// Bytes that are still promised by Content-Length.
    left: u64,
}

impl MediaBody {
    /// `length` is the sum of the pieces, and what Content-Length says.
    pub fn new(
        file: Arc<MappedFile>,
        pool: Pool,
        conn: Arc<Conn>,
        pieces: Option<Box<dyn Pieces>>,
        length: u64,
    ) -> Self {
        let (current, resident_to, queue) = (0..0, 0, VecDeque::new());
        Self { file, pool, conn, pieces, queue, current, resident_to, populate: None, locate: None, left: length }
    }

    /// One range of the file.
    pub fn of_range(file: Arc<MappedFile>, pool: Pool, conn: Arc<Conn>, range: Range<u64>) -> Self {
        let length = range.end - range.start;
        let mut body = Self::new(file, pool, conn, None, length);
        body.resident_to = range.start;
        body.current = range;
        body
    }

    /// Ready when the window at the front of `current` is in memory.
    fn poll_resident(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Range<u64>>> {
        let window = window(self.current.start, self.current.end);
        if self.populate.is_none() && self.resident_to < window.end {
            if self.is_resident(&window) {
                self.resident_to = window.end;
            } else {
                self.populate = Some(self.start_populate(window.clone()));
            }
        }
        if let Some(job) = &mut self.populate {
            let Poll::Ready(done) = Pin::new(job).poll(cx) else {
                self.conn.waits(Wait::Pages);
                return Poll::Pending;
            };
            self.conn.waits(Wait::Core);
            self.populate = None;
            done.map_err(io::Error::other)??;
            self.resident_to = window.end;
        }
        Poll::Ready(Ok(window))
    }

    /// Whether there is nothing to wait for. That is all there is to the stage then.
    fn is_resident(&self, window: &Range<u64>) -> bool {
        let _span = span!(Stage::Resident.name());
        let since = Stopwatch::start();
        let resident = self.file.is_resident(window);
        if resident {
            latency::observe(Stage::Resident, since.ns());
        }
        resident
    }

    fn start_populate(&self, window: Range<u64>) -> Profiled<Running<io::Result<()>>> {
        let file = Arc::clone(&self.file);
        let since = Stopwatch::start();
        let populate = move || {
            let done = file.populate(&window);
            latency::observe(Stage::Resident, since.ns());
            done
        };
        self.pool.run(populate).span(site!(Stage::Resident.name()))
    }

    /// Reads the next window in while this one is sent.
    fn prefetch(&mut self) {
        if self.current.is_empty() {
            return;
        }
        let next = window(self.current.start, self.current.end);
        if self.is_resident(&next) {
            self.resident_to = next.end;
        } else {
            self.populate = Some(self.start_populate(next));
        }
    }

    fn yield_frame(&mut self, bytes: Bytes) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let length = bytes.len() as u64;
        if length > self.left {
            return Poll::Ready(Some(Err(io::Error::other("a body is longer than was planned"))));
        }
        self.left -= length;
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    /// Takes the next piece, asking for more when the queue is empty.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Piece>>> {
        loop {
            if let Some(piece) = self.queue.pop_front() {
                return Poll::Ready(Ok(Some(piece)));
            }
            if let Some(job) = &mut self.locate {
                let Poll::Ready(found) = Pin::new(job).poll(cx) else {
                    self.conn.waits(Wait::Job);
                    return Poll::Pending;
                };
                self.conn.waits(Wait::Core);
                self.locate = None;
                self.queue = found.map_err(io::Error::other).flatten()?;
                continue;
            }
            match self.pieces.as_mut().map(|pieces| pieces.next(&self.pool)) {
                Some(Next::Pieces(pieces)) => self.queue = pieces,
                Some(Next::Job(job)) => self.locate = Some(job.span(site!(Stage::Slice.name()))),
                Some(Next::End) | None => return Poll::Ready(Ok(None)),
            }
        }
    }
}

/// The first window of a range; windows end at multiples of the window size, so that those of many viewers coincide.
fn window(start: u64, end: u64) -> Range<u64> {
    let limit = (start / WINDOW_BYTES + 1).saturating_mul(WINDOW_BYTES);
    // A short rest is taken along: one more write for it costs more than a slightly longer window.
    start..if end <= limit.saturating_add(WINDOW_BYTES / 4) { end } else { limit }
}

impl Body for MediaBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = &mut *self;
        loop {
            if !this.current.is_empty() {
                let window = match ready!(this.poll_resident(cx)) {
                    Ok(window) => window,
                    Err(error) => return Poll::Ready(Some(Err(error))),
                };
                let slice = {
                    let _span = span!(Stage::Slice.name());
                    let _timed = latency::stage(Stage::Slice);
                    this.file.slice(window.clone())
                };
                this.current.start = window.end;
                this.prefetch();
                this.conn.hand_out(&slice, Some((this.file.shared_file(), window.start)));
                return this.yield_frame(slice);
            }
            if this.left == 0 {
                return Poll::Ready(None);
            }
            match ready!(this.poll_piece(cx)) {
                Ok(Some(Piece::Generated(bytes))) => return this.yield_frame(bytes),
                Ok(Some(Piece::Source { offset, len })) => {
                    this.current = offset..offset.saturating_add(len).min(this.file.len());
                    this.resident_to = offset;
                }
                Ok(None) => return Poll::Ready(Some(Err(io::Error::other("a body ended short of its length")))),
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;
    use std::io::Write;

    fn numbered_file(bytes: usize) -> (tempfile::NamedTempFile, Arc<MappedFile>, Vec<u8>) {
        let content: Vec<u8> = (0..bytes).map(|n| ((n * 31) >> 3) as u8).collect();
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(&content).expect("written");
        let mapped = MappedFile::open(file.path()).expect("mapped");
        (file, Arc::new(mapped), content)
    }

    fn conn() -> Arc<Conn> {
        Arc::new(Conn::new(std::net::SocketAddr::from(([127, 0, 0, 1], 1)), Arc::default()))
    }

    async fn collect(body: MediaBody) -> io::Result<Vec<u8>> {
        body.collect().await.map(|all| all.to_bytes().to_vec())
    }

    #[tokio::test]
    async fn a_range_over_several_windows_arrives_whole() {
        let (_keep, file, content) = numbered_file(11 << 20);
        let range = 1000..(11 << 20) - 7u64;
        let body = MediaBody::of_range(file, Pool::new("test", 1), conn(), range);
        assert_eq!(collect(body).await.expect("sent"), content[1000..(11 << 20) - 7]);
    }

    #[tokio::test]
    async fn pieces_arrive_in_order() {
        let (_keep, file, content) = numbered_file(5000);
        let pieces = vec![
            Piece::Generated(Bytes::from_static(b"head")),
            Piece::Source { offset: 4000, len: 10 },
            Piece::Source { offset: 0, len: 3 },
            Piece::Generated(Bytes::from_static(b"tail")),
        ];
        let body = MediaBody::new(file, Pool::new("test", 1), conn(), Some(Box::new(Some(VecDeque::from(pieces)))), 21);
        let expected = [b"head", &content[4000..4010], &content[..3], b"tail"].concat();
        assert_eq!(collect(body).await.expect("sent"), expected);
    }

    #[tokio::test]
    async fn a_body_that_does_not_keep_its_length_fails() {
        let (_keep, file, _) = numbered_file(50);
        let pieces = vec![Piece::Source { offset: 40, len: 20 }];
        let body = MediaBody::new(file, Pool::new("test", 1), conn(), Some(Box::new(Some(VecDeque::from(pieces)))), 20);
        assert!(collect(body).await.is_err(), "10 bytes are past the end of the file");
    }

    #[tokio::test]
    async fn a_cut_file_fails_the_body() {
        let (keep, file, _) = numbered_file(9 << 20);
        keep.as_file().set_len(4096).expect("cut");
        let body = MediaBody::of_range(file, Pool::new("test", 1), conn(), 0..9 << 20);
        assert!(collect_without_reading(body).await.is_err());
    }

    /// Counts frames only: reading them would be SIGBUS.
    async fn collect_without_reading(mut body: MediaBody) -> io::Result<usize> {
        let mut frames = 0;
        while let Some(frame) = body.frame().await {
            frame?;
            frames += 1;
        }
        Ok(frames)
    }

    #[test]
    fn windows_coincide_and_take_a_short_rest_along() {
        assert_eq!(window(0, 100), 0..100);
        assert_eq!(window(5, 20 << 20), 5..4 << 20);
        assert_eq!(window(4 << 20, 20 << 20), 4 << 20..8 << 20);
        assert_eq!(window(0, (4 << 20) + 10), 0..(4 << 20) + 10);
        assert_eq!(window(u64::MAX - 5, u64::MAX), u64::MAX - 5..u64::MAX);
    }
}
