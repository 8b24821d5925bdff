//! `/live/{name}/file`: the bytes of a stream as a resource that grows, at offsets that never change.
//!
//! What is in the window is sent as the very buffers that came in; what has left it is read back from the recording.

use super::answer::{Answer, Body, Call, empty, header};
use super::live;
use super::live_body;
use super::live_range::{self, Readable, Resolved};
use super::problem::Problem;
use super::state::Edge;
use crate::live::{Located, Part, Reader, Stream, Viewing};
use crate::net::{Conn, Wait};
use crate::record::Span;
use bytes::Bytes;
use http::header::{ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, IF_RANGE, RANGE};
use http::{HeaderValue, Method, StatusCode};
use http_body::{Frame, SizeHint};
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

/// Bytes that are read back from a recording at a time.
const READ_BYTES: usize = 1 << 20;

/// `GET, HEAD /live/{name}/file`. HEAD honours Range (RFC 8673 §2.1).
pub fn file(call: &Call) -> Answer {
    let stream = live::find(call)?;
    let spans = readable(&call.edge, &stream);
    let ranges: Vec<Range<u64>> = spans.iter().map(|span| span.range.clone()).collect();
    let (_, grows) = stream.extent();
    let resolved = match range(call) {
        Some(value) => live_range::resolve(value.as_bytes(), &Readable { spans: &ranges, grows }),
        None => Resolved::Whole,
    };
    let newest = spans.last().map_or(0..0, |span| span.range.clone());
    let mut response = empty(StatusCode::PARTIAL_CONTENT);
    let (start, end, content_range, prefix) = match resolved {
        Resolved::Unsatisfiable => return Err(Problem::range_not_within(newest)),
        Resolved::Bytes { range, content_range } => (range.start, Some(range.end), Some(content_range), None),
        Resolved::Open { from, content_range } => (from, None, Some(content_range), None),
        Resolved::Whole => {
            *response.status_mut() = StatusCode::OK;
            let prefix = spans.into_iter().next_back().and_then(|span| span.init);
            (newest.start, (!grows).then_some(newest.end), None, prefix)
        }
    };
    let headers = response.headers_mut();
    if let Some(end) = end {
        let prefix = prefix.as_ref().map_or(0, |prefix| prefix.len() as u64);
        headers.insert(CONTENT_LENGTH, HeaderValue::from(end - start + prefix));
    }
    if let Some(content_range) = content_range {
        headers.insert(CONTENT_RANGE, header(content_range)?);
    }
    let content_type = stream.status().init.map_or("application/octet-stream", |init| init.content_type());
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if call.method == Method::GET {
        let body = FileBody::new(call, stream, start..end.unwrap_or(u64::MAX), prefix).viewed();
        *response.body_mut() = Body::LiveFile(Box::new(body));
    }
    Ok(response)
}

/// The only `Range` field; `None` when there is none that counts. There is no validator, so no `If-Range` holds.
fn range(call: &Call) -> Option<&HeaderValue> {
    let mut lines = call.headers.get_all(RANGE).iter();
    match (lines.next(), lines.next()) {
        (Some(value), None) if !call.headers.contains_key(IF_RANGE) => Some(value),
        _ => None,
    }
}

/// What can be read of a stream, from the window and from recordings. The last span is the one that grows; there is
/// one, if only an empty one.
pub fn readable(edge: &Edge, stream: &Arc<Stream>) -> Vec<Span> {
    let mut spans = edge.recorder.tape(stream).map_or_else(Vec::new, |tape| tape.spans(&edge.library));
    let (extent, _) = stream.extent();
    let init = match stream.locate(extent.start) {
        Located::Part(part) => Some(part.init.bytes()).filter(|init| !init.is_empty()),
        Located::Init(_) | Located::Before | Located::Ahead => None,
    };
    let mut newest = Span { range: extent, init, grows: true };
    while let Some(last) = spans.pop_if(|last| last.range.end >= newest.range.start || last.grows) {
        if last.range.start < newest.range.start {
            newest.range.start = last.range.start;
            newest.init = last.init;
        }
    }
    spans.push(newest);
    spans
}

type Reading = Pin<Box<dyn Future<Output = Option<Bytes>> + Send>>;

/// The bytes of a stream from one offset to another.
pub struct FileBody {
    edge: Arc<Edge>,
    stream: Arc<Stream>,
    reader: Reader,
    conn: Arc<Conn>,
    /// What is still to be sent; `u64::MAX` as its end: whatever comes.
    left: Range<u64>,
    prefix: Option<Bytes>,
    /// The part that is sent, its next buffer, and the bytes of that to leave out.
    part: Option<(Arc<Part>, usize, usize)>,
    reading: Option<Reading>,
    /// The body ends where the coding changes.
    one_coding: bool,
    ended: bool,
    /// Of a body that counts as a viewer.
    viewing: Option<Viewing>,
}

impl FileBody {
    pub(super) fn new(call: &Call, stream: Arc<Stream>, left: Range<u64>, prefix: Option<Bytes>) -> Self {
        let reader = Reader::new(Arc::clone(&stream));
        let (edge, conn) = (Arc::clone(&call.edge), Arc::clone(&call.conn));
        Self {
            edge,
            stream,
            reader,
            conn,
            left,
            prefix,
            part: None,
            reading: None,
            one_coding: false,
            ended: false,
            viewing: None,
        }
    }

    /// It counts as a viewer.
    pub(super) fn viewed(mut self) -> Self {
        self.viewing = Some(self.stream.audience().view());
        self
    }

    /// From a byte on as long as the stream goes on in one coding, which begins with `init`.
    pub(super) fn of_one_coding(call: &Call, stream: Arc<Stream>, from: u64, init: Bytes) -> Self {
        let prefix = Some(init).filter(|init| !init.is_empty());
        Self { one_coding: true, ..Self::new(call, stream, from..u64::MAX, prefix) }.viewed()
    }

    /// What is still to be sent of some bytes that lie at the place reached.
    fn send(&mut self, mut bytes: Bytes) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let left = usize::try_from(self.left.end - self.left.start).unwrap_or(usize::MAX);
        bytes.truncate(left);
        self.left.start += bytes.len() as u64;
        self.conn.hand_out(&bytes, None);
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    /// What comes next, from memory or from the recording.
    fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let Some(prefix) = self.prefix.take() {
            return Poll::Ready(Some(Ok(Frame::data(prefix))));
        }
        loop {
            if self.ended || self.left.is_empty() {
                self.ended = true;
                return Poll::Ready(None);
            }
            if let Some(buffer) = self.next_of_part() {
                return self.send(buffer);
            }
            self.part = None;
            if let Some(reading) = &mut self.reading {
                let Poll::Ready(read) = reading.as_mut().poll(cx) else {
                    self.conn.waits(Wait::Job);
                    return Poll::Pending;
                };
                self.conn.waits(Wait::Core);
                self.reading = None;
                // Deleted, or it was never recorded: the connection is cut, so that nobody takes this for the end.
                let gone = || io::Error::new(io::ErrorKind::NotFound, "these bytes of the stream are gone");
                return match read.filter(|bytes| !bytes.is_empty()) {
                    Some(bytes) => self.send(bytes),
                    None => Poll::Ready(Some(Err(gone()))),
                };
            }
            let polled = self.reader.poll_at(self.left.start, cx);
            self.conn.waits(if polled.is_pending() { Wait::Part } else { Wait::Core });
            match ready!(polled) {
                Some(Located::Part(part)) => {
                    let (next, skip) = buffer_at(&part, self.left.start - part.offset);
                    self.part = Some((part, next, skip));
                }
                Some(Located::Init(_)) if self.one_coding => self.ended = true,
                Some(Located::Init(init)) => return self.send(init),
                Some(Located::Before | Located::Ahead) => {
                    if self.one_coding
                        && let Some(end) = self.stream.coding_end(self.left.start)
                    {
                        self.left.end = end.max(self.left.start);
                    }
                    self.reading = Some(self.read_back());
                }
                None => self.ended = true,
            }
        }
    }

    /// The next buffer of the part that is sent.
    fn next_of_part(&mut self) -> Option<Bytes> {
        let (part, next, skip) = self.part.as_mut()?;
        let buffer = part.rope.get(*next)?.slice(*skip..);
        (*next, *skip) = (*next + 1, 0);
        Some(buffer)
    }

    fn read_back(&self) -> Reading {
        let (edge, stream, at) = (Arc::clone(&self.edge), Arc::clone(&self.stream), self.left.start);
        Box::pin(async move {
            let tape = edge.recorder.tape(&stream)?;
            edge.recorder.read(&tape, at, READ_BYTES).await
        })
    }
}

/// The buffer of a part in which its byte `skip` lies, and the bytes of the buffer before it.
fn buffer_at(part: &Part, skip: u64) -> (usize, usize) {
    let mut skip = usize::try_from(skip).unwrap_or(usize::MAX);
    for (number, buffer) in part.rope.iter().enumerate() {
        if skip < buffer.len() {
            return (number, skip);
        }
        skip -= buffer.len();
    }
    (part.rope.len(), 0)
}

impl http_body::Body for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        live_body::send(|| self.poll_bytes(cx))
    }

    fn is_end_stream(&self) -> bool {
        self.ended || (self.left.is_empty() && self.prefix.is_none())
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
