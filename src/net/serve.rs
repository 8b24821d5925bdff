//! The accept loop of one core, and the task of one connection with its time limits.

use super::conn::{Conn, Phase, Traffic};
use super::sendfile;
use super::stream::Stream;
use crate::observe::latency;
use crate::profile::{Stage, site, span, spawned};
use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::TokioIo;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Limits of connections; all of them are configuration.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub connections_max: usize,
    /// hyper's buffers, and so the longest head it reads at all.
    pub buffer_bytes_max: usize,
    pub head_time: Duration,
    pub idle_time: Duration,
    pub stall_limit: Duration,
    pub drain_limit: Duration,
    /// A client that closes its side still waits for its answer. Where it does not, closing gives the request up.
    pub half_close: bool,
}

/// Serves the connections of one listener until it is told to drain.
pub struct Server<M> {
    /// Makes the service of a connection.
    pub service: M,
    pub limits: Limits,
    pub traffic: Arc<Traffic>,
    pub drain: CancellationToken,
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl<M, S, B> Server<M>
where
    M: Fn(Arc<Conn>) -> S + Send + Sync + 'static,
    S: Service<Request<Incoming>, Response = Response<B>, Error: Into<BoxError>> + Send + Unpin + 'static,
    S::Future: Send + Unpin + 'static,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    /// Accepts until drain, then waits for connections to finish, at most for the drain limit.
    pub async fn run(self, listener: std::net::TcpListener) -> io::Result<()> {
        let listener = TcpListener::from_std(listener)?;
        let server = Arc::new(self);
        let (tasks, refusals) = (TaskTracker::new(), TaskTracker::new());
        let mut backoff = Duration::ZERO;
        loop {
            let accepted = tokio::select! {
                biased;
                () = server.drain.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((socket, peer)) => {
                    backoff = Duration::ZERO;
                    server.start(&tasks, &refusals, socket, peer);
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    // Out of file descriptors or memory: the kernel keeps the queue; try again when some are back.
                    backoff = (backoff * 2).clamp(Duration::from_millis(5), Duration::from_secs(1));
                    tracing::error!(%error, "accept a connection");
                    tokio::time::sleep(backoff).await;
                }
            }
        }
        drop(listener);
        tasks.close();
        if tokio::time::timeout(server.limits.drain_limit, tasks.wait()).await.is_err() {
            tracing::info!(connections = tasks.len(), "cut connections at the drain limit");
        }
        Ok(())
    }

    fn start(self: &Arc<Self>, tasks: &TaskTracker, refusals: &TaskTracker, socket: TcpStream, peer: SocketAddr) {
        let _span = span!(Stage::Accept.name());
        let _timed = latency::stage(Stage::Accept);
        self.traffic.accepted.fetch_add(1, Relaxed);
        // Counted in before it is looked at: other cores accept at the same time.
        if self.traffic.open.fetch_add(1, Relaxed) >= self.limits.connections_max {
            self.traffic.open.fetch_sub(1, Relaxed);
            self.traffic.refused.fetch_add(1, Relaxed);
            // Into an empty send buffer: all of it is taken.
            let told = socket.try_write(BUSY).is_ok();
            if told && refusals.len() < REFUSALS_MAX {
                refusals.spawn(linger(socket, REFUSAL_LINGER));
            }
            return;
        }
        tasks.spawn(spawned(site!("connection"), Arc::clone(self).serve(socket, peer)));
    }

    /// Serves one connection that was accepted elsewhere.
    pub fn one(self, socket: TcpStream, peer: SocketAddr) -> impl Future<Output = ()> + Send {
        self.traffic.open.fetch_add(1, Relaxed);
        Arc::new(self).serve(socket, peer)
    }

    /// A connection that was counted in.
    fn serve(self: Arc<Self>, socket: TcpStream, peer: SocketAddr) -> impl Future<Output = ()> + Send + use<M, S, B> {
        let conn = Arc::new(Conn::new(peer, Arc::clone(&self.traffic)));
        let paced = sendfile::paces(&socket);
        let stream = Stream::new(socket, Arc::clone(&conn), paced);
        let (limits, drain) = (self.limits, self.drain.clone());
        let connect = move |stream: Stream| self.connect(stream);
        Watch::new(conn, limits).serve(stream, connect, drain)
    }

    /// hyper's connection on a stream.
    fn connect(&self, stream: Stream) -> impl Http + use<M, S, B> {
        let conn = stream.conn();
        let service = Counting { inner: (self.service)(Arc::clone(&conn)), conn };
        let http = http1::Builder::new()
            .max_buf_size(self.limits.buffer_bytes_max)
            // A client that has sent its request whole may close its side: ffmpeg does so after an upload and does not
            // wait for the answer. Without this hyper would drop the request in the middle of its work.
            .half_close(self.limits.half_close)
            .serve_connection(TokioIo::new(stream), service);
        Some(http)
    }
}

/// Errors of the connection that was about to be accepted, not of the listener.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}

/// The answer to one connection too many; nothing is read for it.
const BUSY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 5\r\nconnection: close\r\n\
    content-type: application/problem+json\r\ncontent-length: 125\r\n\r\n\
    {\"type\":\"about:blank\",\"title\":\"Service Unavailable\",\"status\":503,\
    \"detail\":\"too many connections are open; come back in 5 s\"}\n";
/// Refused connections of one core that are left open until their clients have read so, and for how long.
const REFUSALS_MAX: usize = 256;
const REFUSAL_LINGER: Duration = Duration::from_secs(1);
/// How long a client may take to see an answer that did not wait for its request.
const LINGER: Duration = Duration::from_secs(5);

/// Watches one connection's time limits while hyper serves it; dropped in any way, it is counted out.
struct Watch {
    conn: Arc<Conn>,
    /// Its number among the open connections.
    number: u64,
    limits: Limits,
    phase: Phase,
    written: u64,
    since: Instant,
}

impl Watch {
    fn new(conn: Arc<Conn>, limits: Limits) -> Self {
        let number = conn.traffic.connections.insert(&conn);
        Self { conn, number, limits, phase: Phase::Idle, written: 0, since: Instant::now() }
    }

    /// Serves the connection to its end, or to the first limit it breaks.
    ///
    /// hyper's connection exists only while there is something for it to do: its two buffers and a map of fields make
    /// ten thousand idle connections ten times as large. It is boxed: an idle one costs what this future takes.
    fn serve<H: Http>(
        mut self,
        stream: Stream,
        connect: impl Fn(Stream) -> H + Send,
        drain: CancellationToken,
    ) -> impl Future<Output = ()> + Send {
        let mut parked = Some(stream);
        let mut http: Option<Box<H>> = None;
        let mut drained = Box::pin(drain.cancelled_owned());
        let mut draining = false;
        let mut sleep = Box::pin(tokio::time::sleep(self.limits.idle_time));
        let mut lingering: Option<Pin<Box<dyn Future<Output = ()> + Send>>> = None;
        poll_fn(move |cx| {
            if let Some(lingering) = &mut lingering {
                return lingering.as_mut().poll(cx);
            }
            if !draining && drained.as_mut().poll(cx).is_ready() {
                draining = true;
                http.iter_mut().for_each(|http| http.finish());
            }
            loop {
                if let Some(stream) = parked.take_if(|stream| stream.poll_readable(cx).is_ready()) {
                    let http = http.insert(Box::new(connect(stream)));
                    if draining {
                        http.finish();
                    }
                }
                match &mut http {
                    None if draining => return Poll::Ready(()),
                    None => {}
                    Some(open) => {
                        if let Poll::Ready(ended) = open.poll_serve(cx) {
                            // What follows a head that could not be read was not read either.
                            let unread = self.conn.lingers() || ended.as_ref().is_err_and(hyper::Error::is_parse);
                            if let Err(error) = ended {
                                tracing::debug!(peer = %self.conn.peer, %error, "connection ended");
                            }
                            let stream = if unread { open.take_stream() } else { None };
                            let Some(stream) = stream else { return Poll::Ready(()) };
                            return lingering.insert(Box::pin(linger(stream, LINGER))).as_mut().poll(cx);
                        }
                    }
                }
                match ready!(self.poll_limits(parked.is_some(), sleep.as_mut(), cx)) {
                    Rung::Broken => return Poll::Ready(()),
                    Rung::Park => {
                        let Some(stream) = http.take().and_then(|mut http| http.take_stream()) else {
                            return Poll::Ready(());
                        };
                        parked = Some(stream);
                    }
                }
            }
        })
    }

    /// Ready when the connection has broken a limit, or has been idle for long enough to be parked. The timer is only
    /// moved when it must ring earlier, or has rung.
    fn poll_limits(&mut self, parked: bool, mut sleep: Pin<&mut Sleep>, cx: &mut Context<'_>) -> Poll<Rung> {
        let (phase, written) = (self.conn.phase(), self.conn.written());
        if phase != self.phase || written != self.written {
            (self.phase, self.written, self.since) = (phase, written, Instant::now());
            if phase == Phase::Idle {
                self.conn.forget();
            }
        }
        let limit = match phase {
            // hyper has written everything: it would be blocked, or have given way, if it had not.
            Phase::Idle if !parked => PARK_AFTER,
            Phase::Idle => self.limits.idle_time,
            Phase::Head => self.limits.head_time,
            Phase::WriteBlocked => self.limits.stall_limit,
            // A handler bounds its own waits.
            Phase::Serving => return Poll::Pending,
        };
        let deadline = self.since + limit;
        if deadline < sleep.deadline() {
            sleep.as_mut().reset(deadline);
        }
        loop {
            ready!(sleep.as_mut().poll(cx));
            if Instant::now() >= deadline {
                break;
            }
            sleep.as_mut().reset(deadline);
        }
        if phase == Phase::Idle && !parked {
            sleep.as_mut().reset(self.since + self.limits.idle_time);
            return Poll::Ready(Rung::Park);
        }
        if phase == Phase::WriteBlocked {
            self.conn.traffic.stalled.fetch_add(1, Relaxed);
        }
        tracing::debug!(peer = %self.conn.peer, ?phase, "drop a connection at its time limit");
        Poll::Ready(Rung::Broken)
    }
}

/// A connection that waited this long for its next request gives its buffers back. Bodies and short pauses of a player
/// are not worth it: making them again costs about a microsecond.
const PARK_AFTER: Duration = Duration::from_millis(100);

/// What it means that a connection's timer rang.
enum Rung {
    /// A limit is broken.
    Broken,
    /// Nothing has happened for [`PARK_AFTER`].
    Park,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.conn.traffic.open.fetch_sub(1, Relaxed);
        self.conn.traffic.connections.remove(self.number);
    }
}

/// What is left to do after an answer that did not wait for its request's body: say that no more is coming, and read
/// what the client still sends, for a while.
async fn linger(mut stream: impl AsyncRead + AsyncWrite + Unpin, limit: Duration) {
    let read_on = async {
        stream.shutdown().await?;
        let mut scratch = [0u8; 4096];
        while stream.read(&mut scratch).await? > 0 {}
        io::Result::Ok(())
    };
    let _ = tokio::time::timeout(limit, read_on).await;
}

/// hyper's connection, as far as the watch needs it.
trait Http: Send {
    fn poll_serve(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), hyper::Error>>;
    /// Finish what is in flight, then close.
    fn finish(&mut self);
    /// The stream, when there is nothing more to write to it.
    fn take_stream(&mut self) -> Option<Stream>;
}

impl<S, B> Http for Option<http1::Connection<TokioIo<Stream>, Counting<S>>>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error: Into<BoxError>> + Send + Unpin,
    S::Future: Send + Unpin,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    fn poll_serve(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        let Some(connection) = self else { return Poll::Ready(Ok(())) };
        let ended = ready!(connection.poll_without_shutdown(cx));
        if ended.as_ref().is_err_and(|error| !error.is_parse()) {
            *self = None;
        }
        Poll::Ready(ended)
    }

    fn finish(&mut self) {
        if let Some(connection) = self {
            Pin::new(connection).graceful_shutdown();
        }
    }

    fn take_stream(&mut self) -> Option<Stream> {
        let parts = self.take()?.into_parts();
        Some(parts.io.into_inner().with_unread(parts.read_buf))
    }
}

/// Tells the connection when a request begins and ends.
struct Counting<S> {
    inner: S,
    conn: Arc<Conn>,
}

impl<S, B> Service<Request<Incoming>> for Counting<S>
where
    S: Service<Request<Incoming>, Response = Response<B>>,
{
    type Response = Response<CountedBody<B>>;
    type Error = S::Error;
    type Future = CountedFuture<S::Future>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let in_flight = InFlight::new(Arc::clone(&self.conn));
        CountedFuture { inner: self.inner.call(request), in_flight: Some(in_flight) }
    }
}

/// A request in flight, from its head to the last byte of its answer.
struct InFlight(Arc<Conn>);

impl InFlight {
    fn new(conn: Arc<Conn>) -> Self {
        conn.request_began();
        Self(conn)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.request_ended();
    }
}

pin_project_lite::pin_project! {
    struct CountedFuture<F> {
        #[pin]
        inner: F,
        in_flight: Option<InFlight>,
    }
}

impl<F, B, E> Future for CountedFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<CountedBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Poll::Ready(response) = this.inner.poll(cx) else {
            // Unless the handler knows better what for.
            this.in_flight.iter().for_each(|request| request.0.waits_in_general());
            return Poll::Pending;
        };
        let in_flight = this.in_flight.take();
        Poll::Ready(response.map(|r| r.map(|inner| CountedBody { inner, in_flight })))
    }
}

pin_project_lite::pin_project! {
    struct CountedBody<B> {
        #[pin]
        inner: B,
        in_flight: Option<InFlight>,
    }
}

impl<B: Body> Body for CountedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        self.project().inner.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
