//! What every request of the media listener passes, in this order:
//! 1. it gets an id and a start time,
//! 2. a head that is too long or names no host, or a peer that asks too often, is answered here,
//! 3. the route table answers,
//! 4. what every answer may carry is added: CORS, `Server-Timing`, the request id of an error,
//! 5. when the last byte has been handed on, it is counted and logged, once.

use super::answer::{Body, Call};
use super::cors;
use super::peers::Peers;
use super::problem::Problem;
use super::state::Edge;
use super::timing::Timing;
use crate::net::Conn;
use crate::observe::metrics::Route;
use crate::profile::{Call as SpanCall, Stage, span};
use bytes::Bytes;
use http::header::{CONNECTION, HOST};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

/// Target of the request log, so that it can be silenced alone: `WEIR_LOG=info,weir::request=off`.
const REQUEST_LOG: &str = "weir::request";

/// The service of one connection.
pub struct EdgeService {
    edge: Arc<Edge>,
    peers: Arc<Peers>,
    conn: Arc<Conn>,
}

impl EdgeService {
    pub fn new(edge: Arc<Edge>, peers: Arc<Peers>, conn: Arc<Conn>) -> Self {
        Self { edge, peers, conn }
    }

    /// Step 2.
    fn refuse(&self, request: &Request<Incoming>) -> Option<Problem> {
        let limit = self.edge.config.head_bytes_max.0;
        if head_bytes(request) > limit {
            return Some(Problem::header_fields_too_large(format!("the head of a request may have {limit} bytes")));
        }
        if let Some(problem) = wrong_host(request) {
            return Some(problem);
        }
        let wait = self.peers.admit(self.conn.peer.ip()).err()?;
        let rate = self.edge.config.peer_requests_per_second;
        let detail = format!("this address asks too often; {rate} requests per second are allowed");
        Some(Problem::too_many_requests(detail, wait.as_secs() + 1))
    }
}

/// HTTP/1.1 asks for exactly one Host (RFC 9112 §3.2): two are read differently by the servers on a request's way.
fn wrong_host(request: &Request<Incoming>) -> Option<Problem> {
    match request.headers().get_all(HOST).iter().count() {
        1 => None,
        0 if request.version() < Version::HTTP_11 => None,
        0 => Some(Problem::bad_request("the request has no Host field; HTTP/1.1 asks for one")),
        _ => Some(Problem::bad_request("the request has several Host fields; send one")),
    }
}

/// Step 3.
async fn answer(route: Route, call: Call) -> Response<Body> {
    super::route(route, call).await.unwrap_or_else(refused)
}

fn refused(problem: Problem) -> Response<Body> {
    problem.into_response().map(Body::Text)
}

/// Ends the connection after an answer that did not wait for its request's body: the client is told, and given the
/// time to read the answer while it may still be sending (RFC 9112 §9.6).
fn end_after(conn: &Conn, response: &mut Response<Body>) {
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    conn.linger();
}

/// Bytes of the request line and the header fields.
fn head_bytes(request: &Request<Incoming>) -> u64 {
    let fields: usize = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    let line = request.uri().path().len() + request.uri().query().map_or(0, str::len) + 16;
    (fields + line) as u64
}

impl hyper::service::Service<Request<Incoming>> for EdgeService {
    type Response = Response<Logged>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let span = span!(Stage::Route.name());
        let timing = Timing::new(self.edge.config.server_timing);
        if let Some(ns) = self.conn.head_ns() {
            timing.passed(Stage::Head, ns);
        }
        let routing = timing.stage(Stage::Route);
        let mut entry = Entry::begin(&self.edge, &self.conn, &request);
        let problem = self.refuse(&request);
        let (edge, conn) = (Arc::clone(&self.edge), Arc::clone(&self.conn));
        let route = entry.route;
        self.conn.serves(route as u8, route.stream_of(request.uri().path()));
        drop((routing, span));
        let answering = async move {
            let has_body = !request.body().is_end_stream();
            let (preflight, head) = (request.method() == Method::OPTIONS, request.method() == Method::HEAD);
            let takes_body = match entry.route {
                Route::Video => request.method() == Method::PUT,
                Route::Adjust | Route::Enhance => request.method() == Method::POST,
                Route::LiveStream | Route::LiveTrack | Route::LivePlaylist | Route::LiveMaster => {
                    matches!(*request.method(), Method::PUT | Method::POST)
                }
                _ => false,
            };
            let mut response = match problem {
                Some(problem) => refused(problem),
                None => {
                    let (parts, body) = request.into_parts();
                    let (method, uri, headers) = (parts.method, parts.uri, parts.headers);
                    let (conn, timing) = (Arc::clone(&conn), timing.clone());
                    answer(entry.route, Call { edge, conn, method, uri, headers, body, timing }).await
                }
            };
            entry.status = response.status();
            if has_body && !(takes_body && entry.status.is_success()) {
                end_after(&conn, &mut response);
            }
            entry.describe(&mut response, preflight, &timing);
            // hyper asks such a body for nothing.
            entry.finished = head || response.body().is_end_stream();
            response.map(|inner| Logged { inner, entry, span: None })
        };
        Box::pin(Answering { inner: answering, span: Some(SpanCall::new(route.site(), None)) })
    }
}

/// One line of the request log, written when the answer is done or given up.
struct Entry {
    edge: Arc<Edge>,
    started: Instant,
    id: u64,
    /// Kept only when the line will be written.
    line: Option<(Method, Uri, std::net::SocketAddr)>,
    route: Route,
    status: StatusCode,
    sent_bytes: u64,
    finished: bool,
}

/// The status of a request whose client left before there was an answer, as nginx logs it.
fn gone() -> StatusCode {
    StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST)
}

static REQUESTS: AtomicU64 = AtomicU64::new(0);

impl Entry {
    fn begin(edge: &Arc<Edge>, conn: &Conn, request: &Request<Incoming>) -> Self {
        let logged = tracing::enabled!(target: REQUEST_LOG, tracing::Level::INFO);
        let line = logged.then(|| (request.method().clone(), request.uri().clone(), conn.peer));
        Self {
            edge: Arc::clone(edge),
            started: Instant::now(),
            // An odd factor walks through all 2^64 values: ids differ within a run and look unlike each other.
            id: edge.run_id.wrapping_add(REQUESTS.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            line,
            route: Route::of(request.uri().path()),
            status: gone(),
            sent_bytes: 0,
            finished: false,
        }
    }

    /// Step 4: the fields that every answer may have.
    fn describe(&self, response: &mut Response<Body>, preflight: bool, timing: &Timing) {
        let (status, headers) = (self.status, response.headers_mut());
        let origin = &self.edge.config.cors_origin;
        cors::allow(origin, preflight, headers);
        if let Some(stages) = timing.header(self.started.elapsed()) {
            headers.insert("server-timing", stages);
            if let (false, Ok(origin)) = (origin.is_empty(), HeaderValue::try_from(origin)) {
                headers.insert("timing-allow-origin", origin);
            }
        }
        if (status.is_client_error() || status.is_server_error())
            && let Ok(id) = HeaderValue::try_from(format!("{:016x}", self.id))
        {
            headers.insert("request-id", id);
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let took = self.started.elapsed();
        self.edge.metrics.count_request(self.route, self.status.as_u16(), took);
        let Some((method, uri, peer)) = &self.line else { return };
        let query = uri.query().map(|query| without_key(shortened(query)));
        tracing::info!(
            target: REQUEST_LOG,
            id = format_args!("{:016x}", self.id),
            %peer,
            %method,
            path = shortened(uri.path()),
            query = query.as_deref(),
            status = self.status.as_u16(),
            bytes = self.sent_bytes,
            us = took.as_micros() as u64,
            complete = self.finished,
            "request"
        );
    }
}

/// A text of a client as far as a log line shows it.
fn shortened(text: &str) -> &str {
    const SHOWN_BYTES_MAX: usize = 1024;
    &text[..text.floor_char_boundary(SHOWN_BYTES_MAX)]
}

/// A query as it may be logged: the value of `key` is a secret.
fn without_key(query: &str) -> String {
    let is_key = |pair: &str| {
        let name = pair.split('=').next().unwrap_or_default().as_bytes();
        percent_encoding::percent_decode(name).eq("key".bytes())
    };
    let shown = query.split('&').map(|pair| if is_key(pair) { "key=…" } else { pair });
    shown.collect::<Vec<_>>().join("&")
}

pin_project_lite::pin_project! {
    /// The making of an answer: the beginning of a span that ends with the last byte of its body.
    struct Answering<F> {
        #[pin]
        inner: F,
        span: Option<SpanCall>,
    }
}

impl<F: Future<Output = Response<Logged>>> Future for Answering<F> {
    type Output = Result<Response<Logged>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let inner = this.inner;
        let answered = in_span(this.span, || {
            let answered = inner.poll(cx);
            let done = matches!(&answered, Poll::Ready(response) if response.body().entry.finished);
            (answered, done)
        });
        answered.map(|response| Ok(response.map(|body| Logged { span: this.span.take(), ..body })))
    }
}

fn in_span<T>(span: &mut Option<SpanCall>, work: impl FnOnce() -> (T, bool)) -> T {
    match span {
        Some(span) => span.poll(work),
        None => work().0,
    }
}

pin_project_lite::pin_project! {
    /// A body that ends its request's log line.
    pub struct Logged {
        #[pin]
        inner: Body,
        entry: Entry,
        span: Option<SpanCall>,
    }
}

impl http_body::Body for Logged {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let mut this = self.project();
        in_span(this.span, || {
            let frame = this.inner.as_mut().poll_frame(cx);
            match &frame {
                Poll::Ready(Some(Ok(frame))) => {
                    this.entry.sent_bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
                    this.entry.finished = this.inner.is_end_stream();
                }
                Poll::Ready(Some(Err(error))) => {
                    tracing::info!(target: REQUEST_LOG, %error, "cut a response short");
                }
                Poll::Ready(None) => this.entry.finished = true,
                Poll::Pending => {}
            }
            (frame, this.entry.finished)
        })
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_lines_are_bounded() {
        assert_eq!(shortened("/videos"), "/videos");
        assert_eq!(shortened(&"é".repeat(5000)).len(), 1024);
        assert_eq!(shortened(&format!("x{}", "é".repeat(5000))).len(), 1023);
    }

    #[test]
    fn a_key_in_a_query_is_not_logged() {
        assert_eq!(without_key("time=1&key=secret&a=b"), "time=1&key=…&a=b");
        assert_eq!(without_key("%6bey=secret&key&keys=b"), "key=…&key=…&keys=b");
    }
}
