//! How long requests and their stages take: histograms whose buckets double, from a microsecond on. An observation is
//! two additions to counters that threads of other cores do not share.
//!
//! Must not know what is measured, but for the names of stages.

use crate::profile::Stage;
use crate::profile::clock::Stopwatch;
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

/// Up to 1 µs, 2 µs, … 16.8 s; the last takes what is longer.
pub const BUCKETS: usize = 26;
/// Threads that observe at once without sharing a counter.
const SHARDS: usize = 8;

/// One histogram; all of its counters only grow.
#[derive(Default)]
pub struct Histogram {
    shards: [Shard; SHARDS],
}

/// On cache lines of its own.
#[derive(Default)]
#[repr(align(128))]
struct Shard {
    buckets: [AtomicU64; BUCKETS],
    sum_ns: AtomicU64,
}

impl Shard {
    const fn new() -> Self {
        Self { buckets: [const { AtomicU64::new(0) }; BUCKETS], sum_ns: AtomicU64::new(0) }
    }
}

/// A histogram at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Reading {
    /// Observations up to each bound, not counting those of smaller bounds.
    pub buckets: [u64; BUCKETS],
    pub sum_seconds: f64,
}

impl Reading {
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Each bucket's upper bound in seconds, and its observations.
    pub fn bounds(&self) -> [(f64, u64); BUCKETS] {
        std::array::from_fn(|at| (bound_seconds(at), self.buckets[at]))
    }
}

fn bound_seconds(bucket: usize) -> f64 {
    if bucket == BUCKETS - 1 { f64::INFINITY } else { (1u64 << bucket) as f64 / 1e6 }
}

/// The first bucket whose bound is not smaller.
fn bucket_of(ns: u64) -> usize {
    let us = ns.div_ceil(1000);
    let bits = u64::BITS - us.saturating_sub(1).leading_zeros();
    (bits as usize).min(BUCKETS - 1)
}

impl Histogram {
    pub const fn new() -> Self {
        Self { shards: [const { Shard::new() }; SHARDS] }
    }

    #[inline]
    pub fn observe(&self, took: Duration) {
        self.observe_ns(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }

    #[inline]
    pub fn observe_ns(&self, ns: u64) {
        let shard = &self.shards[shard()];
        shard.buckets[bucket_of(ns)].fetch_add(1, Relaxed);
        shard.sum_ns.fetch_add(ns, Relaxed);
    }

    pub fn read(&self) -> Reading {
        let mut reading = Reading::default();
        for shard in &self.shards {
            for (sum, bucket) in reading.buckets.iter_mut().zip(&shard.buckets) {
                *sum += bucket.load(Relaxed);
            }
            reading.sum_seconds += shard.sum_ns.load(Relaxed) as f64 / 1e9;
        }
        reading
    }
}

/// The shard of this thread.
fn shard() -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static SHARD: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    SHARD.with(|shard| {
        if shard.get() == usize::MAX {
            shard.set(THREADS.fetch_add(1, Relaxed) % SHARDS);
        }
        shard.get()
    })
}

/// Of each stage, over all requests and parts.
static STAGES: [Histogram; Stage::ALL.len()] = [const { Histogram::new() }; Stage::ALL.len()];

/// Counts the time until the result is dropped as one passage of a stage.
#[inline]
pub fn stage(stage: Stage) -> Timed {
    Timed { stage, since: Stopwatch::start() }
}

/// One passage of a stage that took so many nanoseconds.
#[inline]
pub fn observe(stage: Stage, ns: u64) {
    STAGES[stage as usize].observe_ns(ns);
}

/// The histogram of a stage.
pub fn of(stage: Stage) -> &'static Histogram {
    &STAGES[stage as usize]
}

/// A stage that is being passed.
pub struct Timed {
    stage: Stage,
    since: Stopwatch,
}

impl Drop for Timed {
    fn drop(&mut self) {
        observe(self.stage, self.since.ns());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_inclusive_and_double() {
        for (ns, bucket) in [(0, 0), (1, 0), (1000, 0), (1001, 1), (2000, 1), (2001, 2), (4000, 2), (1_024_000, 10)] {
            assert_eq!(bucket_of(ns), bucket, "{ns}");
        }
        assert_eq!(bucket_of(1_024_001), 11);
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
        assert!((bound_seconds(10) - 0.001_024).abs() < 1e-12);
    }

    #[test]
    fn observations_of_all_threads_are_read() {
        let histogram = Histogram::new();
        std::thread::scope(|scope| {
            for _ in 0..20 {
                scope.spawn(|| (0..100).for_each(|_| histogram.observe(Duration::from_millis(1))));
            }
        });
        let reading = histogram.read();
        assert_eq!((reading.count(), reading.buckets[10]), (2000, 2000));
        assert!((reading.sum_seconds - 2.0).abs() < 1e-9);
    }
}
