//! Streams whose tracks come on requests of their own: one long request per track, or one per segment.
//!
//! What the requests of one stream bring is aligned and muxed ([`Aligner`]), and goes the way of any publication from
//! there. A stream ends when every track has ended; a gap between two requests is a gap.

use crate::live::{Arrival, Arrived, Publication, PublishError, Streams};
use crate::media::mp4::align::{Aligner, Taken};
use crate::media::mp4::arrival::{self as mp4, ArrivalError, Wrong};
use crate::net::Traffic;
use bytes::Bytes;
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A request that has sent nothing for this long may be replaced by another one for the same track.
const SILENT: Duration = Duration::from_secs(5);

/// How long a request waits for the one before it on its track, whose last byte may be on its way on another core.
const OVERLAP: Duration = Duration::from_secs(1);
const OVERLAP_STEP: Duration = Duration::from_millis(10);

/// All streams that are published in tracks.
pub struct Tracks {
    streams: Arc<Streams>,
    traffic: Arc<Traffic>,
    /// How long a stream's first track waits for others.
    patience: Duration,
    started: Instant,
    requests: AtomicU64,
    again: AtomicU64,
    sessions: Mutex<HashMap<String, Arc<Mutex<Session>>>>,
}

/// The requests that publish one stream.
struct Session {
    aligner: Aligner,
    arrival: Arrival,
    arrived: Vec<Arrived>,
    copied_bytes: u64,
    publication: Option<Publication>,
    /// The stream's numbers are kept, so that parts may be appended.
    kept: bool,
    open: HashMap<String, Open>,
    /// Tracks that were ended by their publisher.
    over: HashSet<String>,
    tracks: HashSet<String>,
}

struct Open {
    request: u64,
    last_byte: Instant,
    held_bytes: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Tracks {
    pub fn new(streams: Arc<Streams>, traffic: Arc<Traffic>, patience: Duration) -> Self {
        let (requests, again) = (AtomicU64::new(1), AtomicU64::new(0));
        Self { streams, traffic, patience, started: Instant::now(), requests, again, sessions: Mutex::default() }
    }

    /// Fragments that had come before, since the start.
    pub fn again(&self) -> &AtomicU64 {
        &self.again
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Begins a request for one track of a stream.
    pub async fn begin(&self, stream: &str, track: &str, peer: SocketAddr) -> Result<TrackIntake<'_>, PublishError> {
        let request = self.requests.fetch_add(1, Relaxed);
        let asked = Instant::now();
        let (session, init) = loop {
            let session = self.session(stream);
            let begun = lock(&session).begin(track, request, self.streams.allows_takeover());
            match begun {
                Err(PublishError::Busy) if asked.elapsed() < OVERLAP => tokio::time::sleep(OVERLAP_STEP).await,
                begun => break (session, begun?),
            }
        };
        let arrival = match init {
            Some(init) => mp4::Arrival::after(init, self.streams.targets()),
            None => mp4::Arrival::new(self.streams.targets()),
        };
        Ok(TrackIntake {
            tracks: self,
            session,
            stream: stream.to_owned(),
            track: track.to_owned(),
            peer,
            request,
            arrival,
            events: Vec::new(),
            received: 0,
            copied_bytes: 0,
            brought: (false, false),
        })
    }

    /// The session of a stream, a new one if the last one's stream is not its own any more.
    fn session(&self, stream: &str) -> Arc<Mutex<Session>> {
        let mut sessions = lock(&self.sessions);
        if let Some(session) = sessions.get(stream)
            && lock(session).is_current()
        {
            return Arc::clone(session);
        }
        let session = Arc::new(Mutex::new(Session {
            aligner: Aligner::new(self.patience),
            arrival: Arrival::new(self.streams.targets()),
            arrived: Vec::new(),
            copied_bytes: 0,
            publication: None,
            kept: false,
            open: HashMap::new(),
            over: HashSet::new(),
            tracks: HashSet::new(),
        }));
        sessions.insert(stream.to_owned(), Arc::clone(&session));
        session
    }

    /// Sends on all that waits of one stream, which is about to end.
    pub fn flush(&self, stream: &str) {
        let session = lock(&self.sessions).get(stream).cloned();
        let flushed = session.map(|session| lock(&session).pump(self.now(), true, &self.traffic));
        if let Some(Err(error)) = flushed {
            tracing::debug!(stream, %error, "end a stream of tracks");
        }
    }

    /// Sends on what has waited long enough, and forgets what has ended. Called every now and then.
    pub fn tidy(&self) {
        let now = self.now();
        lock(&self.sessions).retain(|stream, session| {
            let mut session = lock(session);
            if let Err(error) = session.pump(now, false, &self.traffic) {
                tracing::debug!(stream, %error, "end a stream of tracks");
            }
            session.is_current() && (session.publication.is_some() || !session.open.is_empty())
        });
    }
}

impl Session {
    /// Nobody else has taken the stream, and it has not ended.
    fn is_current(&self) -> bool {
        self.publication.as_ref().is_none_or(Publication::is_current)
    }

    /// A request begins; gives the init segment of its track, if that came before.
    fn begin(&mut self, track: &str, request: u64, takeover: bool) -> Result<Option<Arc<mp4::Init>>, PublishError> {
        if self.open.get(track).is_some_and(|open| !takeover && open.last_byte.elapsed() < SILENT) {
            return Err(PublishError::Busy);
        }
        self.open.insert(track.to_owned(), Open { request, last_byte: Instant::now(), held_bytes: 0 });
        Ok(self.aligner.init(track).cloned())
    }

    /// Notes bytes of a request, unless another one has its track.
    fn alive(&mut self, track: &str, request: u64, bytes: u64) -> Result<(), PublishError> {
        let open = self.open.get_mut(track).filter(|open| open.request == request);
        open.ok_or(PublishError::TakenOver)?.last_byte = Instant::now();
        if let Some(publication) = &self.publication {
            publication.alive(bytes);
        }
        Ok(())
    }

    /// Notes how much of all of it waits for more, up to a position in a request.
    fn hold(&self, position: u64) -> Result<(), ArrivalError> {
        let Some(publication) = &self.publication else { return Ok(()) };
        let of_requests: u64 = self.open.values().map(|open| open.held_bytes).sum();
        publication.hold(of_requests + self.aligner.held_bytes() + self.arrival.held_bytes(), position)
    }

    /// Takes what a request brought; whether it had come before.
    fn take(&mut self, track: &str, request: u64, event: mp4::Event, now: Duration) -> Result<bool, PublishError> {
        match event {
            mp4::Event::Init(init) => {
                let admitted = self.aligner.admits(track, &init);
                admitted.map_err(|refused| wrong(Wrong::Format, refused.to_string()))?;
                self.tracks.insert(track.to_owned());
                self.over.remove(track);
                let mut out = Vec::new();
                self.aligner.take_init(track, init, now, &mut out)?;
                self.mux(out)?;
                Ok(false)
            }
            mp4::Event::Fragment(fragment) => Ok(self.aligner.take(track, request, fragment, now) == Taken::Again),
        }
    }

    fn mux(&mut self, out: Vec<Bytes>) -> Result<(), PublishError> {
        for bytes in out {
            self.arrival.push(bytes, &mut self.arrived)?;
        }
        Ok(())
    }

    /// Appends to the stream what is due, or all there is.
    fn pump(&mut self, now: Duration, all: bool, traffic: &Traffic) -> Result<(), PublishError> {
        let Some(publication) = &mut self.publication else { return Ok(()) };
        if !self.kept {
            return Ok(());
        }
        let mut out = Vec::new();
        if all {
            self.aligner.flush(&mut out)?
        } else {
            self.aligner.poll(now, &mut out)?
        }
        for bytes in out {
            self.arrival.push(bytes, &mut self.arrived)?;
        }
        if all {
            // What waits in the parser for fragments of other tracks.
            self.arrival.finish(false, &mut self.arrived);
        }
        for event in self.arrived.drain(..) {
            traffic.copied.fetch_add(publication.take(event)?, Relaxed);
        }
        let copied = self.arrival.copied_bytes() + self.aligner.copied_bytes;
        traffic.copied.fetch_add(copied.saturating_sub(self.copied_bytes), Relaxed);
        self.copied_bytes = copied;
        Ok(())
    }

    /// A request is gone; `over`: with it its track.
    fn close(&mut self, track: &str, request: u64, over: bool) {
        if self.open.get(track).is_none_or(|open| open.request != request) {
            return;
        }
        self.open.remove(track);
        let _ = self.hold(0);
        if over {
            self.over.insert(track.to_owned());
        }
        if let Some(publication) = self.publication.as_ref().filter(|_| self.open.is_empty()) {
            publication.rest();
        }
    }

    /// All tracks that there were have ended.
    fn is_over(&self) -> bool {
        self.open.is_empty() && !self.over.is_empty() && self.over == self.tracks
    }
}

fn wrong(kind: Wrong, what: String) -> PublishError {
    ArrivalError { what, position: 0, kind }.into()
}

/// One request of a track. Dropped without [`TrackIntake::end`], it is one that broke off.
pub struct TrackIntake<'a> {
    tracks: &'a Tracks,
    session: Arc<Mutex<Session>>,
    stream: String,
    track: String,
    peer: SocketAddr,
    request: u64,
    arrival: mp4::Arrival,
    events: Vec<mp4::Event>,
    received: u64,
    copied_bytes: u64,
    /// It brought an init segment, and fragments.
    brought: (bool, bool),
}

impl TrackIntake<'_> {
    /// Takes bytes as they came.
    pub async fn push(&mut self, bytes: Bytes) -> Result<(), PublishError> {
        let received = bytes.len() as u64;
        self.received += received;
        lock(&self.session).alive(&self.track, self.request, received)?;
        let pushed = self.arrival.push(bytes, &mut self.events);
        let traffic = &self.tracks.traffic;
        traffic.copied.fetch_add(self.arrival.copied_bytes - self.copied_bytes, Relaxed);
        self.copied_bytes = self.arrival.copied_bytes;
        if !self.events.is_empty() {
            self.publish().await?;
        }
        Ok(pushed.and(self.hold())?)
    }

    /// Notes what is here of the next fragment.
    fn hold(&self) -> Result<(), ArrivalError> {
        let mut session = lock(&self.session);
        if let Some(open) = session.open.get_mut(&self.track).filter(|open| open.request == self.request) {
            open.held_bytes = self.arrival.held_bytes();
        }
        session.hold(self.received)
    }

    async fn publish(&mut self) -> Result<(), PublishError> {
        let kept = lock(&self.session).publish(self.tracks, &self.stream, self.peer)?;
        if let Some(kept) = kept {
            kept.await;
            lock(&self.session).kept = true;
        }
        let now = self.tracks.now();
        let mut session = lock(&self.session);
        for event in self.events.drain(..) {
            match &event {
                mp4::Event::Init(_) => self.brought.0 = true,
                mp4::Event::Fragment(_) => self.brought.1 = true,
            }
            let again = session.take(&self.track, self.request, event, now)?;
            self.tracks.again.fetch_add(u64::from(again), Relaxed);
        }
        session.pump(now, false, &self.tracks.traffic)
    }

    /// The request ended as it should. One that `may_end` its track and brought all of it, from the init segment on,
    /// ends it; the stream ends with its last track.
    pub fn end(self, may_end: bool) -> Result<(), PublishError> {
        let over = may_end && self.brought == (true, true);
        let mut session = lock(&self.session);
        if over {
            session.aligner.leave(&self.track);
        }
        session.close(&self.track, self.request, over);
        if session.is_over() {
            session.pump(self.tracks.now(), true, &self.tracks.traffic)?;
            if let Some(publication) = session.publication.take() {
                publication.finish();
            }
            drop(session);
            lock(&self.tracks.sessions).remove(&self.stream);
        }
        Ok(())
    }
}

impl Drop for TrackIntake<'_> {
    fn drop(&mut self) {
        let mut session = lock(&self.session);
        if session.open.get(&self.track).is_some_and(|open| open.request == self.request) {
            session.aligner.leave(&self.track);
        }
        session.close(&self.track, self.request, false);
    }
}

impl Session {
    /// Takes the stream with its first track; gives what to wait for before parts are appended.
    fn publish(
        &mut self,
        tracks: &Tracks,
        stream: &str,
        peer: SocketAddr,
    ) -> Result<Option<crate::live::numbers::Kept>, PublishError> {
        if self.publication.is_none() {
            let publication = tracks.streams.publish(stream, peer)?;
            let kept = publication.kept();
            self.publication = Some(publication);
            return Ok(Some(kept));
        }
        Ok((!self.kept).then(|| self.publication.as_ref().map(Publication::kept)).flatten())
    }
}
