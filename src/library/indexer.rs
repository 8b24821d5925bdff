//! Indexes on demand and in the background: each is built once, whoever asks and however many do.
//!
//! Order of sources: the open index, the cache, the parser. A request builds on the `index` pool; the background
//! indexer is one thread of low priority that goes over what is pending and steps aside while requests build.

use super::cache::Cached;
use super::open::{Inner, Library};
use super::video::{FlightOutcome, Known, NoIndex, Video, lock};
use crate::media::ReadAt;
use crate::media::index::{BuildError, Index};
use crate::observe::latency;
use crate::profile::{Stage, span};
use bytes::Bytes;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::thread;
use std::time::Duration;
use tokio::sync::watch;

/// Turns a file into an index entry. [`Index::build`], unless a test puts something in its place.
pub type Parser = Arc<dyn Fn(&dyn ReadAt) -> Result<Vec<u8>, BuildError> + Send + Sync>;

/// Nice value of the background indexer's thread.
const BACKGROUND_NICE: i32 = 10;

/// Why there is no index for a video.
#[derive(Clone, Debug, thiserror::Error)]
pub enum IndexError {
    /// Not a container with an index; the text says which have one.
    #[error("{0}")]
    Unsupported(String),
    /// Broken media; the text says what and where.
    #[error("{0}")]
    Malformed(String),
    /// The file could not be read, or is not what was listed. Not kept: the next request tries again.
    #[error("read the video: {0}")]
    Io(Arc<io::Error>),
}

/// What stays in memory of an index that was found.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keep {
    /// All of it: a request needs it.
    Open,
    /// What the list of videos tells. The entry is opened by the first request that needs it.
    Summary,
}

/// How far the background indexer is. `done == total`: nothing is pending.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    pub done: u64,
    pub total: u64,
}

pub(super) struct Indexing {
    progress: watch::Sender<Progress>,
    /// Requests that build right now.
    requests: AtomicUsize,
    /// Requests that found their index open, and that did not.
    hits: AtomicU64,
    misses: AtomicU64,
    parsed: AtomicU64,
    started: AtomicBool,
    poke: Arc<Poke>,
}

/// Wakes the background indexer.
#[derive(Default)]
pub(super) struct Poke {
    state: Mutex<Poked>,
    wake: Condvar,
}

#[derive(Default)]
struct Poked {
    changed: bool,
    /// Videos left, so there may be entries to prune; also so at the start.
    left: bool,
    stop: bool,
}

impl Indexing {
    pub(super) fn new() -> Self {
        Self {
            progress: watch::Sender::new(Progress::default()),
            requests: AtomicUsize::new(0),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            parsed: AtomicU64::new(0),
            started: AtomicBool::new(false),
            poke: Arc::new(Poke::default()),
        }
    }

    /// Something was listed, or something left.
    pub(super) fn catalogue_changed(&self, left: bool) {
        let mut poked = lock(&self.poke.state);
        poked.changed = true;
        poked.left |= left;
        drop(poked);
        self.poke.wake.notify_one();
    }

    pub(super) fn stop(&self) {
        lock(&self.poke.state).stop = true;
        self.poke.wake.notify_one();
    }
}

/// The indexes that are open, and how often the one that was asked for was among them.
#[derive(Clone, Copy, Debug)]
pub struct Indexes {
    pub open: usize,
    pub bytes: u64,
    pub hits: u64,
    pub misses: u64,
}

impl Library {
    /// Figures of the open indexes.
    pub fn indexes(&self) -> Indexes {
        let (open, bytes) = self.inner.indexes.held();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Indexes { open, bytes, hits: count(&self.inner.indexing.hits), misses: count(&self.inner.indexing.misses) }
    }

    /// The index of a video: open, cached, or built now. Concurrent calls share one build, and it goes on when the
    /// caller that started it goes away.
    pub async fn index(&self, video: &Arc<Video>) -> Result<Arc<Index>, IndexError> {
        self.index_for(video, || format!("video {}", video.id())).await
    }

    /// The same; `payer` tells who asked, should it have to be opened or built.
    pub async fn index_for(
        &self,
        video: &Arc<Video>,
        payer: impl FnOnce() -> String,
    ) -> Result<Arc<Index>, IndexError> {
        if let Some(index) = self.inner.opened_index(video) {
            self.inner.indexing.hits.fetch_add(1, Ordering::Relaxed);
            return Ok(index);
        }
        self.inner.indexing.misses.fetch_add(1, Ordering::Relaxed);
        if let Some(Known::None(reason)) = video.known.get() {
            return Err(reason.clone().into());
        }
        let (mut outcome, start) = join(video);
        let _waiting = start.is_none().then(|| self.inner.config.opened.waiting());
        if let Some(start) = start {
            let (inner, video, payer) = (Arc::clone(&self.inner), Arc::clone(video), payer());
            inner.indexing.requests.fetch_add(1, Ordering::Relaxed);
            self.inner.index_pool.spawn(move || {
                inner.fly(&video, Keep::Open, &payer, &start);
                inner.indexing.requests.fetch_sub(1, Ordering::Relaxed);
            });
        }
        landed(outcome.wait_for(Option::is_some).await.map(|value| value.clone()))
    }

    /// Indexes what is pending, one video at a time, now and whenever videos come. To be called once the listeners
    /// are up; further calls do nothing.
    pub fn start_background(&self) {
        if self.inner.indexing.started.swap(true, Ordering::Relaxed) {
            return;
        }
        self.inner.indexing.catalogue_changed(true);
        let poke = Arc::clone(&self.inner.indexing.poke);
        let library = Arc::downgrade(&self.inner);
        let started = thread::Builder::new().name("weir-indexer".to_owned()).spawn(move || background(&library, &poke));
        if let Err(error) = started {
            tracing::error!(%error, "start the background indexer; indexes are built on request");
        }
    }

    /// Follows the background indexer.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.inner.indexing.progress.subscribe()
    }

    /// How many files were parsed since the start; what the cache answered does not count.
    pub fn parsed(&self) -> u64 {
        self.inner.indexing.parsed.load(Ordering::Relaxed)
    }
}

impl Inner {
    fn opened_index(&self, video: &Video) -> Option<Arc<Index>> {
        video.index.get(self.indexes.tick())
    }

    /// Brings one flight to its end on this thread and tells everyone who waits.
    fn fly(&self, video: &Arc<Video>, keep: Keep, payer: &str, outcome: &watch::Sender<FlightOutcome>) {
        let tally = if keep == Keep::Open { &self.config.opened } else { &self.config.indexed };
        let load = || catch_unwind(AssertUnwindSafe(|| self.load_or_build(video, keep)));
        let result = tally.build(payer, load).unwrap_or_else(|_| {
            let error = io::Error::other("panic while loading the index");
            Err(IndexError::Io(Arc::new(error)))
        });
        // The flight ends before its outcome is told, so that whoever comes now finds the outcome or starts anew.
        *lock(&video.flight) = None;
        outcome.send_replace(Some(result));
    }

    fn load_or_build(&self, video: &Arc<Video>, keep: Keep) -> Result<Arc<Index>, IndexError> {
        if let Some(index) = self.opened_index(video) {
            return Ok(index);
        }
        match self.cache.load(video) {
            Some(Cached::Index(index, bytes)) => return Ok(self.learn(video, index, bytes, keep)),
            Some(Cached::None(reason)) => return Err(self.keep_none(video, reason)),
            None => {}
        }
        match self.parse(video) {
            Ok(entry) => {
                self.cache.store_index(video, &entry);
                // The mapped entry takes no memory of ours, so it is preferred to the one just built.
                if let Some(Cached::Index(index, bytes)) = self.cache.load(video) {
                    return Ok(self.learn(video, index, bytes, keep));
                }
                let bytes = entry.len() as u64;
                let index = Index::open(Bytes::from(entry));
                let index = index.map_err(|error| IndexError::Malformed(error.to_string()))?;
                Ok(self.learn(video, Arc::new(index), bytes, keep))
            }
            Err(IndexError::Unsupported(text)) => Err(self.learn_none(video, NoIndex::Unsupported(text))),
            Err(IndexError::Malformed(text)) => Err(self.learn_none(video, NoIndex::Malformed(text))),
            Err(error) => Err(error),
        }
    }

    fn parse(&self, video: &Arc<Video>) -> Result<Vec<u8>, IndexError> {
        let _span = span!(Stage::Index.name());
        let _timed = latency::stage(Stage::Index);
        let file = video.open_file().map_err(|error| IndexError::Io(Arc::new(io::Error::other(error))))?;
        self.indexing.parsed.fetch_add(1, Ordering::Relaxed);
        let parsed = catch_unwind(AssertUnwindSafe(|| (self.parser)(&*file)));
        let built = parsed.unwrap_or_else(|_| {
            tracing::error!(video = video.id(), "the parser panicked");
            Err(BuildError::Malformed { what: "the parser gave up on this file".to_owned(), offset: 0 })
        });
        match built {
            Ok(entry) => Ok(entry),
            Err(error @ BuildError::Unsupported) => Err(IndexError::Unsupported(error.to_string())),
            Err(error @ BuildError::Malformed { .. }) => Err(IndexError::Malformed(error.to_string())),
            Err(BuildError::Io(error)) => Err(IndexError::Io(Arc::new(error))),
        }
    }

    fn learn(&self, video: &Arc<Video>, index: Arc<Index>, bytes: u64, keep: Keep) -> Arc<Index> {
        let _ = video.known.set(Known::Ready(Arc::new(index.summary().clone())));
        if keep == Keep::Open {
            video.index.put(Arc::clone(&index), self.indexes.tick());
            self.indexes.add(video, bytes);
        }
        index
    }

    fn learn_none(&self, video: &Video, reason: NoIndex) -> IndexError {
        self.cache.store_none(video, &reason);
        self.keep_none(video, reason)
    }

    fn keep_none(&self, video: &Video, reason: NoIndex) -> IndexError {
        let _ = video.known.set(Known::None(reason.clone()));
        reason.into()
    }
}

/// Joins the flight for this video, or becomes the one who must start it.
fn join(video: &Video) -> (watch::Receiver<FlightOutcome>, Option<watch::Sender<FlightOutcome>>) {
    let mut flight = lock(&video.flight);
    if let Some(running) = &*flight {
        return (running.clone(), None);
    }
    let (sender, receiver) = watch::channel(None);
    *flight = Some(receiver.clone());
    (receiver, Some(sender))
}

fn landed(outcome: Result<FlightOutcome, watch::error::RecvError>) -> Result<Arc<Index>, IndexError> {
    match outcome {
        Ok(Some(outcome)) => outcome,
        Ok(None) | Err(_) => Err(IndexError::Io(Arc::new(io::Error::other("the build was abandoned")))),
    }
}

impl From<NoIndex> for IndexError {
    fn from(reason: NoIndex) -> Self {
        match reason {
            NoIndex::Unsupported(text) => IndexError::Unsupported(text),
            NoIndex::Malformed(text) => IndexError::Malformed(text),
        }
    }
}

/// The background indexer, until the library goes.
fn background(library: &Weak<Inner>, poke: &Poke) {
    if let Err(error) = rustix::process::setpriority_process(Some(rustix::thread::gettid()), BACKGROUND_NICE) {
        tracing::debug!(%error, "background indexer at normal priority");
    }
    loop {
        let left = {
            let mut poked = lock(&poke.state);
            while !poked.changed && !poked.stop {
                poked = poke.wake.wait(poked).unwrap_or_else(|poisoned| poisoned.into_inner());
            }
            if poked.stop {
                return;
            }
            poked.changed = false;
            std::mem::take(&mut poked.left)
        };
        if index_pending(library, poke, left).is_none() {
            return;
        }
    }
}

/// One pass over what is pending; `None` when the library is gone.
fn index_pending(library: &Weak<Inner>, poke: &Poke, prune: bool) -> Option<()> {
    let pending: Vec<Weak<Video>> = {
        let inner = library.upgrade()?;
        let catalogue = inner.catalogue.load();
        let pending = catalogue.videos().iter().filter(|v| v.known.get().is_none());
        pending.map(Arc::downgrade).collect()
    };
    let total = pending.len() as u64;
    for (done, video) in (0u64..).zip(&pending) {
        let inner = library.upgrade()?;
        inner.indexing.progress.send_replace(Progress { done, total });
        // A replaced or deleted video is dropped from the catalogue and need not be indexed.
        if let Some(video) = video.upgrade().filter(|v| v.known.get().is_none()) {
            // Otherwise a request is at it.
            if let (_, Some(start)) = join(&video) {
                inner.fly(&video, Keep::Summary, "start", &start);
            }
        }
        let busy = || inner.indexing.requests.load(Ordering::Relaxed) > 0;
        // Bounded, so that a stream of requests cannot stop the pass for good.
        for _ in 0..20 {
            if !busy() {
                break;
            }
            thread::sleep(Duration::from_millis(5));
        }
        if lock(&poke.state).stop {
            return None;
        }
    }
    let inner = library.upgrade()?;
    inner.indexing.progress.send_replace(Progress { done: total, total });
    if prune {
        let catalogue = inner.catalogue.load_full();
        inner.cache.prune(catalogue.videos().iter().map(|v| v.id().to_owned()));
    }
    Some(())
}
