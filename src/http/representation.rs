//! One immutable representation of a video's bytes, answered by the rules of RFC 9110: conditions first, then ranges,
//! HEAD like GET without the body.
//!
//! `/file`, `/chunk` and `as=fmp4` differ in what the bytes are, not in how HTTP treats them: all end here.

use super::answer::{Answer, Body, Call, empty, header};
use super::conditional::{self, Decision, http_date};
use super::media_body::{MediaBody, Next, Pieces};
use super::multipart;
use super::problem::Problem;
use super::range::{self, Resolved};
use crate::media::slices::Piece;
use crate::store::{MappedFile, Pool};
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderName, LAST_MODIFIED, RANGE,
};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

/// Header fields of an answer, so that their map is allocated once.
const HEADERS: usize = 12;

/// Where a representation's bytes come from.
#[derive(Clone)]
pub enum Content {
    /// A run of the file, as it is.
    File(Range<u64>),
    /// A plan of generated boxes and slices.
    Planned(Arc<dyn Plan>),
}

/// A body whose length is known before its bytes are.
pub trait Plan: Send + Sync {
    fn length(&self) -> u64;

    /// The pieces of a byte range of the body, in order.
    fn pieces(self: Arc<Self>, range: Range<u64>) -> Box<dyn Pieces>;
}

pub struct Representation {
    pub file: Arc<MappedFile>,
    pub content: Content,
    pub content_type: HeaderValue,
    /// Strong, with its quotes.
    pub etag: HeaderValue,
    pub modified: Option<SystemTime>,
    pub cache: HeaderValue,
    /// Headers of this resource alone, such as `Media-Seek`.
    pub more: Vec<(HeaderName, HeaderValue)>,
}

impl Representation {
    fn length(&self) -> u64 {
        match &self.content {
            Content::File(range) => range.end - range.start,
            Content::Planned(plan) => plan.length(),
        }
    }

    /// The answer to GET or HEAD.
    pub fn answer(self, call: &Call) -> Answer {
        match conditional::read(&call.headers, self.etag.as_bytes(), self.modified, SystemTime::now) {
            Decision::NotModified => self.not_modified(),
            Decision::PreconditionFailed => {
                Err(Problem::precondition_failed("the video is not the one that If-Match or If-Unmodified-Since names"))
            }
            Decision::Proceed { range: by_if_range } => {
                // Ranges are defined for GET only (RFC 9110 §14.2).
                let ranged = by_if_range && call.method == Method::GET;
                let lines = call.headers.get_all(RANGE).iter().map(HeaderValue::as_bytes);
                let resolved = if ranged { range::resolve_lines(lines, self.length()) } else { Resolved::Whole };
                self.send(call, resolved)
            }
        }
    }

    fn send(self, call: &Call, resolved: Resolved) -> Answer {
        let length = self.length();
        match resolved {
            Resolved::Whole => {
                let body = self.body(call, 0..length);
                self.finish(call, StatusCode::OK, None, None, body)
            }
            Resolved::One(range) => {
                let content_range = range::content_range(&range, length);
                let body = self.body(call, range);
                self.finish(call, StatusCode::PARTIAL_CONTENT, Some(content_range), None, body)
            }
            Resolved::Many(ranges) => {
                let boundary = multipart::boundary(random()?);
                let part_type = self.content_type.to_str().unwrap_or("application/octet-stream");
                let plan = multipart::plan(&boundary, part_type, &ranges, length);
                let pieces = Nested { outer: plan.pieces.into_iter(), content: self.content.clone(), inner: None };
                let conn = Arc::clone(&call.conn);
                let pool = call.edge.read_pool.clone();
                let file = Arc::clone(&self.file);
                let body = MediaBody::new(file, pool, conn, Some(Box::new(pieces)), plan.content_length);
                let content_type = header(plan.content_type)?;
                self.finish(call, StatusCode::PARTIAL_CONTENT, None, Some(content_type), body)
            }
            Resolved::Unsatisfiable => Err(Problem::range_not_satisfiable(length)),
        }
    }

    fn body(&self, call: &Call, range: Range<u64>) -> MediaBody {
        let conn = Arc::clone(&call.conn);
        let (file, pool) = (Arc::clone(&self.file), call.edge.read_pool.clone());
        match &self.content {
            Content::File(whole) => {
                let start = whole.start + range.start;
                MediaBody::of_range(file, pool, conn, start..start + (range.end - range.start))
            }
            Content::Planned(plan) => {
                let length = range.end - range.start;
                MediaBody::new(file, pool, conn, Some(Arc::clone(plan).pieces(range)), length)
            }
        }
    }

    /// 304: the headers that a cache updates (RFC 9110 §15.4.5).
    fn not_modified(self) -> Answer {
        let mut response = empty(StatusCode::NOT_MODIFIED);
        self.describe(response.headers_mut());
        Ok(response)
    }

    fn finish(
        self,
        call: &Call,
        status: StatusCode,
        content_range: Option<String>,
        content_type: Option<HeaderValue>,
        body: MediaBody,
    ) -> Answer {
        let head = call.method == Method::HEAD;
        // A GET's length is written by hyper, which asks its body.
        let length = head.then(|| http_body::Body::size_hint(&body).exact().unwrap_or(0));
        let mut response = Response::new(if head { Body::Empty } else { Body::Media(Box::new(body)) });
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.reserve(HEADERS);
        headers.insert(CONTENT_TYPE, content_type.unwrap_or_else(|| self.content_type.clone()));
        if let Some(length) = length {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        if let Some(range) = content_range {
            headers.insert(CONTENT_RANGE, header(range)?);
        }
        self.describe(headers);
        Ok(response)
    }

    /// Validators, cache policy, and what the resource says of itself.
    fn describe(self, headers: &mut HeaderMap) {
        headers.insert(ETAG, self.etag);
        headers.insert(CACHE_CONTROL, self.cache);
        if let Some(date) = self.modified.and_then(last_modified) {
            headers.insert(LAST_MODIFIED, date);
        }
        headers.extend(self.more);
    }
}

/// `Last-Modified`. Each core keeps the one it wrote last: viewers of one video ask for it again and again.
fn last_modified(time: SystemTime) -> Option<HeaderValue> {
    thread_local! {
        static LAST: RefCell<Option<(SystemTime, HeaderValue)>> = const { RefCell::new(None) };
    }
    LAST.with_borrow_mut(|last| {
        if let Some((_, value)) = last.as_ref().filter(|(of, _)| *of == time) {
            return Some(value.clone());
        }
        let value = HeaderValue::try_from(http_date(time)?).ok()?;
        *last = Some((time, value.clone()));
        Some(value)
    })
}

/// Pieces of a multipart body: its part headers, and between them ranges of the representation.
struct Nested {
    outer: std::vec::IntoIter<Piece>,
    content: Content,
    inner: Option<Box<dyn Pieces>>,
}

impl Pieces for Nested {
    fn next(&mut self, pool: &Pool) -> Next {
        loop {
            if let Some(inner) = &mut self.inner {
                match inner.next(pool) {
                    Next::End => self.inner = None,
                    found => return found,
                }
            }
            let piece = match (self.outer.next(), &self.content) {
                (None, _) => return Next::End,
                (Some(Piece::Source { offset, len }), Content::File(whole)) => {
                    Piece::Source { offset: whole.start + offset, len }
                }
                (Some(Piece::Source { offset, len }), Content::Planned(plan)) => {
                    self.inner = Some(Arc::clone(plan).pieces(offset..offset + len));
                    continue;
                }
                (Some(generated), _) => generated,
            };
            return Next::Pieces(VecDeque::from([piece]));
        }
    }
}

fn random() -> Result<[u8; 24], Problem> {
    let mut bytes = [0; 24];
    getrandom::fill(&mut bytes).map_err(|_| Problem::unavailable("the system has no random numbers yet", 1))?;
    Ok(bytes)
}
