//! Streams whose tracks come on requests of their own: one long request per track, or one per segment.
//!
//! What the requests of one stream bring is aligned and muxed ([`Aligner`]), and goes the way of any publication from
//! there. A stream ends when every track has ended; a gap between two requests is a gap.

use crate::live::{Arrival, Arrived, Publication, PublishError, Streams};
use crate::media::mp4::align::{Aligner, Taken, WAITING_MAX};
use crate::media::mp4::arrival::{self as mp4, ArrivalError, Wrong};
use crate::media::time::ticks_to_us;
use crate::net::Traffic;
use bytes::Bytes;
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A request that has sent nothing for this long may be replaced by another one for the same track.
const SILENT: Duration = Duration::from_secs(5);

/// How long a request waits for what was sent before it on other connections, which may be on its way on another core.
const OVERLAP: Duration = Duration::from_secs(2);
const OVERLAP_STEP: Duration = Duration::from_millis(10);

/// The longest segment whose next one is waited for beyond the time that publishers may be away.
const SEGMENT_MAX: Duration = Duration::from_secs(60);

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
    /// Where requests of a track wait for their turn, in order.
    lines: Mutex<HashMap<(String, String), Line>>,
}

type Line = Arc<tokio::sync::Mutex<()>>;

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
    /// When the next segment of some track is due, and whether there was one.
    due: Instant,
    has_begun: bool,
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
        let (sessions, lines) = (Mutex::default(), Mutex::default());
        Self { streams, traffic, patience, started: Instant::now(), requests, again, sessions, lines }
    }

    /// Fragments that had come before, since the start.
    pub fn again(&self) -> &AtomicU64 {
        &self.again
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Begins a request for one track of a stream, whose first bytes are `first`.
    pub async fn begin(
        &self,
        stream: &str,
        track: &str,
        first: &[u8],
        peer: SocketAddr,
    ) -> Result<TrackIntake<'_>, PublishError> {
        let request = self.requests.fetch_add(1, Relaxed);
        let (session, init) = self.turn(stream, track, request, mp4::needs_init(first)).await?;
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
            length_us: 0,
        })
    }

    /// Waits until a request may begin. Encoders do not wait for answers: what a request follows, the init segment or
    /// the segment before it, may have been sent in time and still be on its way.
    async fn turn(
        &self,
        stream: &str,
        track: &str,
        request: u64,
        needs_init: bool,
    ) -> Result<(Arc<Mutex<Session>>, Option<Arc<mp4::Init>>), PublishError> {
        let asked = Instant::now();
        let line = self.line(stream, track);
        // The init segment is what others in the line may be waiting for.
        let first = !needs_init && lock(&self.session(stream)).aligner.init(track).is_none();
        let in_line = async { if first { None } else { Some(line.lock().await) } };
        let _turn = tokio::time::timeout(OVERLAP, in_line).await.map_err(|_| PublishError::Busy)?;
        loop {
            let session = self.session(stream);
            let is_late = asked.elapsed() >= OVERLAP;
            let begun = lock(&session).begin(track, request, needs_init && !is_late, self.streams.allows_takeover());
            match begun {
                Err(PublishError::Busy) if !is_late => tokio::time::sleep(OVERLAP_STEP).await,
                begun => return begun.map(|init| (session, init)),
            }
        }
    }

    fn line(&self, stream: &str, track: &str) -> Line {
        let mut lines = lock(&self.lines);
        lines.retain(|_, line| Arc::strong_count(line) > 1);
        Arc::clone(lines.entry((stream.to_owned(), track.to_owned())).or_default())
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
            due: Instant::now(),
            has_begun: false,
            over: HashSet::new(),
            tracks: HashSet::new(),
        }));
        sessions.insert(stream.to_owned(), Arc::clone(&session));
        session
    }

    /// Sends on all that waits of one stream, which is about to end.
    pub async fn flush(&self, stream: &str) {
        let Some(session) = lock(&self.sessions).get(stream).cloned() else { return };
        kept(&session).await;
        let flushed = lock(&session).pump(self.now(), true, &self.traffic);
        if let Err(error) = flushed {
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

    /// A request begins, unless it must wait; gives the init segment of its track, if that came before.
    fn begin(
        &mut self,
        track: &str,
        request: u64,
        needs_init: bool,
        takeover: bool,
    ) -> Result<Option<Arc<mp4::Init>>, PublishError> {
        let init = self.aligner.init(track).cloned();
        let is_open = self.open.get(track).is_some_and(|open| !takeover && open.last_byte.elapsed() < SILENT);
        if is_open || (needs_init && init.is_none()) {
            return Err(PublishError::Busy);
        }
        self.open.insert(track.to_owned(), Open { request, last_byte: Instant::now(), held_bytes: 0 });
        Ok(init)
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
            mp4::Event::Fragment(fragment) => {
                if !std::mem::replace(&mut self.has_begun, true) {
                    self.due = Instant::now();
                }
                Ok(self.aligner.take(track, request, fragment, now) == Taken::Again)
            }
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
        if self.publication.is_none() || !self.kept {
            return Ok(());
        }
        let mut out = Vec::new();
        if all {
            self.aligner.flush(&mut out)?
        } else {
            self.aligner.poll(now, &mut out)?
        }
        self.mux(out)?;
        if all {
            // What waits in the parser for fragments of other tracks.
            self.arrival.finish(false, &mut self.arrived);
        }
        if let Some(publication) = &mut self.publication {
            for event in self.arrived.drain(..) {
                traffic.copied.fetch_add(publication.take(event)?, Relaxed);
            }
        }
        let copied = self.arrival.copied_bytes() + self.aligner.copied_bytes;
        traffic.copied.fetch_add(copied.saturating_sub(self.copied_bytes), Relaxed);
        self.copied_bytes = copied;
        Ok(())
    }

    /// A request is gone; `over`: with it its track. Otherwise the next one is due in `length`.
    fn close(&mut self, track: &str, request: u64, over: bool, length: Duration) {
        if self.open.get(track).is_none_or(|open| open.request != request) {
            return;
        }
        self.open.remove(track);
        let _ = self.hold(0);
        // The first one may be of any length.
        let length = if self.has_begun { length } else { SEGMENT_MAX };
        self.due = self.due.max(Instant::now() + length);
        if over {
            self.over.insert(track.to_owned());
        }
        if let Some(publication) = self.publication.as_ref().filter(|_| self.open.is_empty()) {
            publication.rest(self.due);
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
    /// Microseconds of media that it brought.
    length_us: u64,
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
        if lock(&self.session).publish(self.tracks, &self.stream, self.peer)? {
            self.append_when_kept();
        }
        let now = self.tracks.now();
        let is_full = {
            let mut session = lock(&self.session);
            for event in self.events.drain(..) {
                match &event {
                    mp4::Event::Init(_) => self.brought.0 = true,
                    mp4::Event::Fragment(fragment) => {
                        self.brought.1 = true;
                        self.length_us = self.length_us.saturating_add(length_us(fragment));
                    }
                }
                let again = session.take(&self.track, self.request, event, now)?;
                self.tracks.again.fetch_add(u64::from(again), Relaxed);
            }
            session.pump(now, false, &self.tracks.traffic)?;
            !session.kept && session.aligner.held_bytes() > WAITING_MAX
        };
        if is_full {
            kept(&self.session).await;
        }
        Ok(())
    }

    /// What waits for the stream's numbers. It is not this request, whose answer would come late, and the next one's
    /// turn with it.
    fn append_when_kept(&self) {
        let (session, traffic, started) =
            (Arc::clone(&self.session), Arc::clone(&self.tracks.traffic), self.tracks.started);
        tokio::spawn(async move {
            kept(&session).await;
            let pumped = lock(&session).pump(started.elapsed(), false, &traffic);
            pumped.unwrap_or_else(|error| tracing::debug!(%error, "end a stream of tracks"));
        });
    }

    /// The request ended as it should. One that `may_end` its track and brought all of it, from the init segment on,
    /// ends it; the stream ends with its last track.
    pub async fn end(self, may_end: bool) -> Result<(), PublishError> {
        let over = may_end && self.brought == (true, true);
        let is_over = {
            let mut session = lock(&self.session);
            if over {
                session.aligner.leave(&self.track);
            }
            let length = Duration::from_micros(self.length_us).min(SEGMENT_MAX);
            session.close(&self.track, self.request, over, length);
            session.is_over()
        };
        if is_over {
            kept(&self.session).await;
        }
        let mut session = lock(&self.session);
        if is_over && session.is_over() {
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
        session.close(&self.track, self.request, false, Duration::ZERO);
    }
}

impl Session {
    /// Takes the stream with its first track; whether it did.
    fn publish(&mut self, tracks: &Tracks, stream: &str, peer: SocketAddr) -> Result<bool, PublishError> {
        let is_new = self.publication.is_none();
        if is_new {
            self.publication = Some(tracks.streams.publish(stream, peer)?);
        }
        Ok(is_new)
    }
}

fn length_us(fragment: &mp4::Fragment) -> u64 {
    let of = |run: &mp4::TrackRun| ticks_to_us(run.end.saturating_sub(run.start), run.timescale);
    fragment.runs.iter().map(of).max().and_then(|us| u64::try_from(us).ok()).unwrap_or(0)
}

/// Waits until parts may be appended: the stream's numbers are kept.
async fn kept(session: &Mutex<Session>) {
    let waits = {
        let session = lock(session);
        session.publication.as_ref().filter(|_| !session.kept).map(Publication::kept)
    };
    if let Some(kept) = waits {
        kept.await;
        lock(session).kept = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::numbers::{Keeper, Kept, Numbers};
    use crate::live::window::Bounds;
    use crate::live::{LiveConfig, Stream};
    use crate::media::cadence::Targets;
    use crate::media::mp4::merge_test::{fragment_of, init_of};
    use tokio::sync::watch;

    /// A disk that takes its time.
    struct Slow(watch::Receiver<bool>);

    impl Keeper for Slow {
        fn begin(&self, _: &str) -> Numbers {
            Numbers::default()
        }

        fn reserve(&self, _: &str, _: Numbers) {}

        fn settle(&self, _: &str, _: Numbers) {}

        fn kept(&self) -> Kept {
            let mut done = self.0.clone();
            Box::pin(async move { done.wait_for(|done| *done).await.map(drop).expect("the disk is there") })
        }
    }

    fn tracks() -> (Arc<Streams>, Tracks, watch::Sender<bool>) {
        let config = LiveConfig {
            window: Bounds { duration_us: 60_000_000, bytes: 1 << 20 },
            targets: Targets { part_us: 500_000, segment_us: 4_000_000 },
            streams_max: 1,
            memory_max: 1 << 20,
            reconnect_window: Duration::from_millis(1),
            takeover: false,
            lags_max: 1,
        };
        let (disk, done) = watch::channel(false);
        let streams = Arc::new(Streams::new(config, Arc::new(Slow(done))));
        let tracks = Tracks::new(Arc::clone(&streams), Arc::new(Traffic::default()), Duration::ZERO);
        (streams, tracks, disk)
    }

    async fn put(tracks: &Tracks, bytes: Vec<u8>) -> Result<(), PublishError> {
        let mut intake = tracks.begin("cam", "sound", &bytes, SocketAddr::from(([127, 0, 0, 1], 1))).await?;
        intake.push(bytes.into()).await?;
        intake.end(false).await
    }

    fn init() -> Vec<u8> {
        init_of(b"soun", 1, 1)
    }

    /// A segment of half a second.
    fn segment(n: u64) -> Vec<u8> {
        fragment_of(1, n * 500, 5, b'a')
    }

    fn end(stream: &Stream) -> Option<i64> {
        stream.status().to_us
    }

    #[tokio::test]
    async fn no_request_waits_for_the_disk() {
        let (streams, tracks, disk) = tracks();
        for bytes in [init(), segment(0), segment(1)] {
            put(&tracks, bytes).await.expect("taken");
        }
        let stream = streams.get("cam").expect("published");
        assert_eq!(end(&stream), None, "a part before its number is kept");
        disk.send(true).expect("somebody waits");
        tracks.flush("cam").await;
        assert_eq!(end(&stream), Some(1_000_000));
    }

    #[tokio::test]
    async fn a_segment_may_overtake_its_init_segment() {
        let (streams, tracks, disk) = tracks();
        disk.send(true).expect("somebody waits");
        let (first, second, init) =
            tokio::join!(put(&tracks, segment(0)), put(&tracks, segment(1)), put(&tracks, init()));
        init.and(first).and(second).expect("all are taken");
        tracks.flush("cam").await;
        assert_eq!(end(&streams.get("cam").expect("published")), Some(1_000_000));
        assert_eq!(tracks.again().load(Relaxed), 0);
    }

    #[tokio::test]
    async fn a_publisher_is_away_when_its_next_segment_is_late() {
        for (segment, is_late) in [(fragment_of(1, 0, 100, b'a'), false), (segment(0), true)] {
            let (streams, tracks, disk) = tracks();
            disk.send(true).expect("somebody waits");
            let goes_on = || streams.get("cam").expect("published").extent().1;
            put(&tracks, init()).await.expect("taken");
            tokio::time::sleep(Duration::from_millis(5)).await;
            streams.tidy();
            put(&tracks, segment).await.expect("the stream is there, whenever its first segment comes");
            tokio::time::sleep(Duration::from_millis(5)).await;
            streams.tidy();
            // Of ten seconds, and of half a one.
            assert!(is_late || goes_on());
            while is_late && goes_on() {
                tokio::time::sleep(Duration::from_millis(20)).await;
                streams.tidy();
            }
        }
    }

    #[tokio::test]
    async fn requests_of_a_track_go_in_their_order() {
        let (streams, tracks, disk) = tracks();
        disk.send(true).expect("somebody waits");
        put(&tracks, init()).await.expect("taken");
        let bytes = segment(0);
        let peer = SocketAddr::from(([127, 0, 0, 1], 1));
        let mut open = tracks.begin("cam", "sound", &bytes, peer).await.expect("begun");
        let rest = async {
            tokio::time::sleep(OVERLAP_STEP * 3).await;
            open.push(bytes.into()).await?;
            open.end(false).await
        };
        let waiting = [1, 2, 3, 4].map(|n| put(&tracks, segment(n)));
        let [one, two, three, four] = waiting;
        let ended = tokio::join!(one, two, three, four, rest);
        ended.0.and(ended.1).and(ended.2).and(ended.3).and(ended.4).expect("all are taken");
        tracks.flush("cam").await;
        assert_eq!(end(&streams.get("cam").expect("published")), Some(2_500_000));
        assert_eq!(tracks.again().load(Relaxed), 0);
    }
}
