//! A request as handlers see it, and what they answer with.

use super::credentials::{self, Access};
use super::live_body::LiveBody;
use super::live_file::FileBody;
use super::media_body::MediaBody;
use super::problem::Problem;
use super::query::Query;
use super::state::Edge;
use super::timing::Timing;
use crate::net::{Conn, Wait};
use crate::profile::{SpanExt, Stage, site, span};
use bytes::Bytes;
use http::header::{ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// One request of the media listener.
pub struct Call {
    pub edge: Arc<Edge>,
    pub conn: Arc<Conn>,
    pub method: Method,
    pub uri: Uri,
    pub headers: HeaderMap,
    pub body: Incoming,
    pub timing: Timing,
}

impl Call {
    /// The request as the table of components names it: without its query, which may hold a key.
    pub fn asked(&self) -> String {
        format!("{} {}", self.method, self.uri.path())
    }

    /// The next bytes of the request's body, as they came; `None`: that was all.
    pub async fn next_bytes(&mut self) -> Result<Option<Bytes>, Problem> {
        let _timed = self.timing.stage(Stage::Receive);
        let stall = self.edge.config.stall_limit.0;
        loop {
            let arriving = tokio::time::timeout(stall, self.body.frame()).span(site!(Stage::Receive.name()));
            let Ok(frame) = self.conn.while_waiting(Wait::Bytes, arriving).await else {
                let detail = format!("no byte of the body came for {} s", stall.as_secs());
                return Err(Problem::new(StatusCode::REQUEST_TIMEOUT, detail));
            };
            match frame {
                None => return Ok(None),
                Some(Err(error)) => return Err(Problem::bad_request(format!("the body broke off: {error}"))),
                // Trailers say nothing that is needed.
                Some(Ok(frame)) => {
                    if let Ok(bytes) = frame.into_data() {
                        return Ok(Some(bytes));
                    }
                }
            }
        }
    }

    /// Writes need the key; asked before the body is read.
    pub fn authorize(&self) -> Result<(), Problem> {
        match credentials::authorized(self.headers.get(AUTHORIZATION), &self.edge.write_key) {
            Access::Granted => Ok(()),
            Access::Missing => {
                Err(Problem::unauthorized("this needs the write key, as Bearer token or Basic password"))
            }
            Access::Wrong => Err(Problem::unauthorized("the write key is wrong")),
        }
    }

    /// Publishing needs it too; encoders that can send no `Authorization` may put it into the query.
    pub fn authorize_publisher(&self) -> Result<(), Problem> {
        let query = Query::parse(self.uri.query())?;
        match query.get("key") {
            Some(key) if self.edge.write_key.matches(key.as_bytes()) => Ok(()),
            Some(_) => Err(Problem::unauthorized("the write key is wrong")),
            None => self.authorize(),
        }
    }
}

/// What a handler returns: a problem is an answer too.
pub type Answer = Result<Response<Body>, Problem>;

/// The body of an answer. An enum, not a trait object: it is what every request pays for.
pub enum Body {
    Empty,
    Text(Bytes),
    Media(Box<MediaBody>),
    Live(Box<LiveBody>),
    LiveFile(Box<FileBody>),
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Media(media) => Pin::new(&mut **media).poll_frame(cx),
            Self::Live(live) => Pin::new(&mut **live).poll_frame(cx),
            Self::LiveFile(file) => Pin::new(&mut **file).poll_frame(cx),
            Self::Text(text) => {
                let text = std::mem::take(text);
                Poll::Ready((!text.is_empty()).then(|| Ok(Frame::data(text))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Text(text) => text.is_empty(),
            Self::Media(media) => media.is_end_stream(),
            Self::Live(live) => live.is_end_stream(),
            Self::LiveFile(file) => file.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Text(text) => SizeHint::with_exact(text.len() as u64),
            Self::Media(media) => media.size_hint(),
            Self::Live(live) => live.size_hint(),
            Self::LiveFile(file) => file.size_hint(),
        }
    }
}

/// A response without a body.
pub fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = status;
    response
}

/// An answer of JSON.
pub fn json(timing: &Timing, value: &serde_json::Value, cache: &'static str) -> Answer {
    let _span = span!(Stage::Render.name());
    let _timed = timing.stage(Stage::Render);
    let mut text = value.to_string();
    text.push('\n');
    Ok(text_of(text, "application/json", cache))
}

/// A response of text.
pub fn text_of(text: impl Into<Bytes>, content_type: &'static str, cache: &'static str) -> Response<Body> {
    let text = text.into();
    let length = text.len();
    let mut response = Response::new(Body::Text(text));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(cache));
    response
}

/// A method that a route does not have: OPTIONS tells which it has, any other is 405.
pub fn other_method(method: &Method, allow: &'static str) -> Answer {
    if method != Method::OPTIONS {
        return Err(Problem::method_not_allowed(allow));
    }
    let mut response = empty(StatusCode::NO_CONTENT);
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    Ok(response)
}

/// A header value that was made from checked text.
pub fn header(value: String) -> Result<HeaderValue, Problem> {
    HeaderValue::try_from(value).map_err(|_| Problem::bad_request("a value cannot stand in a header field"))
}
