//! What is written down about one component: when it was initialised, what that took, who paid, who waited.
//!
//! Must not know how components are built. Touched when something happens, never when a ready component is used.

use super::microseconds;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Whether a component can be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    #[default]
    Cold,
    Initialising,
    Ready,
    Failed,
}

impl State {
    pub fn word(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::Initialising => "initialising",
            Self::Ready => "ready",
            Self::Failed => "failed",
        }
    }
}

/// Longest text of who paid.
const PAYER_BYTES_MAX: usize = 200;

/// The history of one component; times are of its latest initialisation.
#[derive(Clone, Debug, Default)]
pub(super) struct Record {
    pub state: State,
    /// Since the process began.
    pub started_us: Option<u64>,
    pub self_us: u64,
    pub cumulative_us: u64,
    /// Allocated by the thread that initialised, dependencies included.
    pub bytes: Option<u64>,
    pub initialised: u64,
    pub failures: u64,
    pub released: u64,
    pub waiters: u64,
    pub waited_us: u64,
    pub waited_longest_us: u64,
    pub paid_by: Option<String>,
    /// How many components were being initialised around it.
    pub depth: usize,
    /// Rank by completion; 0 when it never completed.
    pub rank: u64,
    pub error: Option<String>,
}

impl Record {
    pub(super) fn begin(&mut self, paid_by: &str, depth: usize, started_us: u64) {
        let end = paid_by.floor_char_boundary(PAYER_BYTES_MAX);
        self.state = State::Initialising;
        self.paid_by = Some(paid_by[..end].to_owned());
        self.depth = depth;
        self.started_us = Some(started_us);
    }

    /// Writes down how an initialisation went; `nested` is what its dependencies took.
    pub(super) fn end(&mut self, took: Duration, nested: Duration, bytes: u64, rank: u64) {
        self.cumulative_us = microseconds(took);
        self.self_us = microseconds(took.saturating_sub(nested));
        self.bytes = Some(bytes);
        self.rank = rank;
    }

    pub(super) fn waited(&mut self, time: Duration) {
        let time = microseconds(time);
        self.waited_us = self.waited_us.saturating_add(time);
        self.waited_longest_us = self.waited_longest_us.max(time);
    }
}

/// Counts one who waits, however that ends.
pub(super) struct Waiting<'a> {
    record: &'a Mutex<Record>,
    since: Instant,
}

impl<'a> Waiting<'a> {
    pub(super) fn new(record: &'a Mutex<Record>) -> Self {
        super::lock(record).waiters += 1;
        Self { record, since: Instant::now() }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        super::lock(self.record).waited(self.since.elapsed());
    }
}

/// What all records of one table share: the clock and the order of completion.
pub(super) struct Book {
    pub began: Instant,
    ranks: AtomicU64,
}

impl Book {
    pub(super) fn new(began: Instant) -> Self {
        Self { began, ranks: AtomicU64::new(0) }
    }

    pub(super) fn now_us(&self) -> u64 {
        microseconds(self.began.elapsed())
    }

    pub(super) fn next_rank(&self) -> u64 {
        self.ranks.fetch_add(1, Relaxed) + 1
    }
}
