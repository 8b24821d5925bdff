//! Bounds on what stays open: the least recently used opened files and indexes are let go.
//!
//! The value lives in a [`Slot`] of its video, so that it goes with the video; the [`Shelf`] only knows which slots
//! are filled and how much they hold. It knows nothing about files or indexes.

use super::video::{Video, lock};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};

/// A value that can be let go and made again.
pub(super) struct Slot<T> {
    value: Mutex<Option<Arc<T>>>,
    /// Tick of the last use.
    used: AtomicU64,
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self { value: Mutex::new(None), used: AtomicU64::new(0) }
    }
}

impl<T> Slot<T> {
    pub(super) fn get(&self, tick: u64) -> Option<Arc<T>> {
        let value = lock(&self.value).clone()?;
        self.used.store(tick, Ordering::Relaxed);
        Some(value)
    }

    pub(super) fn put(&self, value: Arc<T>, tick: u64) {
        self.used.store(tick, Ordering::Relaxed);
        *lock(&self.value) = Some(value);
    }

    pub(super) fn clear(&self) {
        let value = lock(&self.value).take();
        // Unmapping happens after the lock is free.
        drop(value);
    }

    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }
}

/// How a shelf reaches its kind of slot: tick of the last use, and letting go.
pub(super) struct Kind {
    pub(super) used: fn(&Video) -> u64,
    pub(super) clear: fn(&Video),
}

pub(super) struct Shelf {
    kind: Kind,
    count_max: usize,
    bytes_max: u64,
    clock: AtomicU64,
    held: Mutex<Vec<Held>>,
}

struct Held {
    video: Weak<Video>,
    bytes: u64,
}

impl Shelf {
    pub(super) fn new(kind: Kind, count_max: usize, bytes_max: u64) -> Self {
        Self { kind, count_max, bytes_max, clock: AtomicU64::new(1), held: Mutex::new(Vec::new()) }
    }

    /// The present tick. It advances when something is added, which is all that least-recently-used needs, and keeps
    /// a hit free of shared writes.
    pub(super) fn tick(&self) -> u64 {
        self.clock.load(Ordering::Relaxed)
    }

    /// How many slots are filled, and with how much.
    pub(super) fn held(&self) -> (usize, u64) {
        let held = lock(&self.held);
        (held.len(), held.iter().fold(0, |sum, h| sum.saturating_add(h.bytes)))
    }

    /// Notes that the video's slot was filled, and lets others go when that is too much. The new one always stays.
    pub(super) fn add(&self, video: &Arc<Video>, bytes: u64) {
        self.clock.fetch_add(1, Ordering::Relaxed);
        let mut held = lock(&self.held);
        held.push(Held { video: Arc::downgrade(video), bytes });
        let total = |held: &[Held]| held.iter().fold(0u64, |sum, h| sum.saturating_add(h.bytes));
        if held.len() <= self.count_max && total(&held) <= self.bytes_max {
            return;
        }
        held.retain(|h| h.video.strong_count() > 0);
        let newest = held.pop();
        held.sort_by_cached_key(|h| h.video.upgrade().map_or(0, |v| (self.kind.used)(&v)));
        // Down to 7/8, so that sorting is paid once in many additions.
        let (count_max, bytes_max) = (self.count_max - self.count_max / 8, self.bytes_max - self.bytes_max / 8);
        let mut bytes = total(&held).saturating_add(bytes);
        let mut gone = 0;
        while gone < held.len() && (held.len() - gone + 1 > count_max || bytes > bytes_max) {
            bytes = bytes.saturating_sub(held[gone].bytes);
            gone += 1;
        }
        let evicted: Vec<Held> = held.drain(..gone).collect();
        held.extend(newest);
        drop(held);
        for one in evicted {
            if let Some(video) = one.video.upgrade() {
                (self.kind.clear)(&video);
            }
        }
    }
}
