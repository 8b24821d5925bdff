//! Pictures on demand: bounded, made once for all who ask at the same time, and kept for those who ask later.
//!
//! The work runs on threads of its own that yield to everything else, at most so many at a time; beyond a queue's
//! length nobody waits. Results are kept by bytes, under a key that names everything they depend on. Whoever asks
//! first pays; that the first goes away stops nothing. Must not know HTTP, or what a key means.

use super::{FrameError, Limits};
use crate::store::Pool;
use bytes::Bytes;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// A cached result is charged for its key and its place too.
const OVERHEAD_BYTES: u64 = 128;
/// Results of about this size are expected; the cache sizes its tables by it.
const TYPICAL_BYTES: u64 = 32 << 10;

/// What all who asked get.
pub type Outcome = Result<Bytes, Arc<FrameError>>;

/// How pictures are made.
#[derive(Clone, Copy, Debug)]
pub struct StillsConfig {
    pub threads: usize,
    pub queue_max: usize,
    pub cache_bytes: u64,
    pub limits: Limits,
}

/// The pool, the cache, and who waits for what.
pub struct Stills {
    pool: Pool,
    queue_max: usize,
    cache: Cache<Arc<str>, Bytes, ByBytes>,
    flights: Mutex<HashMap<Arc<str>, watch::Receiver<Option<Outcome>>>>,
    pub made: AtomicU64,
}

#[derive(Clone)]
struct ByBytes;

impl Weighter<Arc<str>, Bytes> for ByBytes {
    fn weight(&self, key: &Arc<str>, bytes: &Bytes) -> u64 {
        key.len() as u64 + bytes.len() as u64 + OVERHEAD_BYTES
    }
}

impl Stills {
    /// The pool may have run other work, of a queue that was released.
    pub fn new(pool: Pool, config: &StillsConfig) -> Self {
        let items = usize::try_from(config.cache_bytes / TYPICAL_BYTES).unwrap_or(0).max(16);
        let cache = Cache::with_weighter(items, config.cache_bytes, ByBytes);
        Self { pool, queue_max: config.queue_max, cache, flights: Mutex::default(), made: AtomicU64::new(0) }
    }

    /// The picture of a key, made by `make` unless it is there or being made.
    pub async fn get(
        self: &Arc<Self>,
        key: &str,
        make: impl FnOnce() -> Result<Vec<u8>, FrameError> + Send + 'static,
    ) -> Outcome {
        let mut outcome = match self.join(key, make) {
            Ok(joined) => joined?,
            Err(cached) => return Ok(cached),
        };
        match outcome.wait_for(Option::is_some).await {
            Ok(made) => made.clone().unwrap_or_else(|| Err(Arc::new(FrameError::Panicked))),
            Err(_) => Err(Arc::new(FrameError::Panicked)),
        }
    }

    /// Runs work that nobody else can ask for, in the same queue.
    pub async fn run(self: &Arc<Self>, work: impl FnOnce() -> Result<Vec<u8>, FrameError> + Send + 'static) -> Outcome {
        self.check_queue()?;
        let done = self.pool.run(work).await;
        self.made.fetch_add(1, Relaxed);
        done.unwrap_or(Err(FrameError::Panicked)).map(Bytes::from).map_err(Arc::new)
    }

    /// Takes part in the making of a picture, begins it, or finds it made.
    fn join(
        self: &Arc<Self>,
        key: &str,
        make: impl FnOnce() -> Result<Vec<u8>, FrameError> + Send + 'static,
    ) -> Result<Result<watch::Receiver<Option<Outcome>>, Arc<FrameError>>, Bytes> {
        let mut flights = self.flights();
        if let Some(flight) = flights.get(key) {
            return Ok(Ok(flight.clone()));
        }
        // Looked up under the lock: what ends just now is in the cache before it is no longer in flight.
        if let Some(bytes) = self.cache.get(key) {
            return Err(bytes);
        }
        if let Err(busy) = self.check_queue() {
            return Ok(Err(busy));
        }
        let key: Arc<str> = key.into();
        let (done, flight) = watch::channel(None);
        flights.insert(Arc::clone(&key), flight.clone());
        drop(flights);
        let stills = Arc::clone(self);
        self.pool.spawn(move || {
            let mut landing = Landing { stills, key, done: Some(done) };
            let outcome = super::decode::guarded(make);
            landing.land(outcome.map(Bytes::from).map_err(Arc::new));
        });
        Ok(Ok(flight))
    }

    fn check_queue(&self) -> Result<(), Arc<FrameError>> {
        let queued = self.pool.load().queued;
        if queued < self.queue_max { Ok(()) } else { Err(Arc::new(FrameError::Busy { queued })) }
    }

    fn flights(&self) -> MutexGuard<'_, HashMap<Arc<str>, watch::Receiver<Option<Outcome>>>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends a flight, whatever happens to its work.
struct Landing {
    stills: Arc<Stills>,
    key: Arc<str>,
    /// Taken when the flight has ended.
    done: Option<watch::Sender<Option<Outcome>>>,
}

impl Landing {
    /// Keeps the outcome, ends the flight, then tells it: whoever asks again finds no flight that is over.
    fn land(&mut self, outcome: Outcome) {
        let Some(done) = self.done.take() else { return };
        self.stills.made.fetch_add(1, Relaxed);
        if let Ok(bytes) = &outcome {
            self.stills.cache.insert(Arc::clone(&self.key), bytes.clone());
        }
        self.stills.flights().remove(&self.key);
        done.send_replace(Some(outcome));
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.land(Err(Arc::new(FrameError::Panicked)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    fn stills(threads: usize, queue_max: usize, cache_bytes: u64) -> Arc<Stills> {
        let limits = Limits { pixels_max: 1, bytes_max: 1, time: Duration::from_secs(1) };
        let config = StillsConfig { threads, queue_max, cache_bytes, limits };
        Arc::new(Stills::new(Pool::background("test", threads), &config))
    }

    #[tokio::test]
    async fn a_hundred_who_ask_at_once_share_one_picture() {
        let stills = stills(2, 8, 1 << 20);
        let made = Arc::new(AtomicUsize::new(0));
        let mut asking = tokio::task::JoinSet::new();
        for _ in 0..100 {
            let (stills, made) = (Arc::clone(&stills), Arc::clone(&made));
            asking.spawn(async move {
                let make = move || {
                    std::thread::sleep(Duration::from_millis(20));
                    made.fetch_add(1, Relaxed);
                    Ok(b"picture".to_vec())
                };
                stills.get("key", make).await
            });
        }
        while let Some(outcome) = asking.join_next().await {
            assert_eq!(outcome.expect("no panic").expect("made"), "picture");
        }
        assert_eq!(made.load(Relaxed), 1);
        assert_eq!(stills.get("key", || panic!("is in the cache")).await.expect("cached"), "picture");
        assert!(stills.flights().is_empty());
    }

    #[tokio::test]
    async fn the_first_may_go_away() {
        let stills = stills(1, 8, 1 << 20);
        let first = stills.get("key", || {
            std::thread::sleep(Duration::from_millis(20));
            Ok(vec![1])
        });
        let gave_up = tokio::time::timeout(Duration::from_millis(1), first).await;
        assert!(gave_up.is_err());
        assert_eq!(stills.get("key", || panic!("is being made")).await.expect("made")[..], [1]);
    }

    #[tokio::test]
    async fn errors_and_panics_are_told_to_all_and_not_kept() {
        let stills = stills(1, 8, 1 << 20);
        let failed = stills.get("key", || Err(FrameError::NotAnImage)).await;
        assert!(matches!(*failed.expect_err("failed"), FrameError::NotAnImage));
        let panicked = stills.get("key", || panic!("on purpose")).await;
        assert!(matches!(*panicked.expect_err("failed"), FrameError::Panicked));
        assert_eq!(stills.get("key", || Ok(vec![2])).await.expect("made")[..], [2]);
    }

    #[tokio::test]
    async fn beyond_the_queue_nobody_waits() {
        let stills = stills(1, 1, 1 << 20);
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let slow = stills.join("slow", move || {
            let _ = wait.recv();
            Ok(vec![])
        });
        while stills.pool.load().queued > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let queued = stills.join("queued", || Ok(vec![]));
        let busy = stills.get("third", || Ok(vec![])).await.expect_err("busy");
        assert!(matches!(*busy, FrameError::Busy { queued: 1 }));
        assert!(matches!(*stills.run(|| Ok(vec![])).await.expect_err("busy"), FrameError::Busy { .. }));
        go.send(()).expect("the job waits");
        let mut queued = queued.expect("not cached").expect("there was room");
        assert!(queued.wait_for(Option::is_some).await.is_ok());
        drop(slow);
    }

    #[tokio::test]
    async fn the_cache_is_bounded_by_bytes() {
        let stills = stills(1, 8, 100_000);
        for n in 0..50 {
            stills.get(&format!("{n}"), || Ok(vec![0; 10_000])).await.expect("made");
        }
        assert!(stills.cache.weight() <= 100_000);
        assert!(stills.cache.len() >= 5, "{} pictures are kept", stills.cache.len());
    }
}
