//! Many small things of one kind that are each built at their first use, as one row of the table: the index entries of
//! the videos. Their number is not bounded, so the table has their sum and their slowest.

use super::record::{Book, Record, State, Waiting};
use super::table::{Entry, Row};
use super::{lock, microseconds};
use crate::profile::heap::allocated_bytes;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A handle; clones share the row.
#[derive(Clone)]
pub struct Tally(Arc<Shared>);

struct Shared {
    name: &'static str,
    record: Mutex<Record>,
    slowest: Mutex<Duration>,
    running: Mutex<u64>,
    book: Arc<Book>,
}

impl Tally {
    pub(super) fn new(name: &'static str, book: Arc<Book>) -> Self {
        let (record, slowest, running) = (Mutex::default(), Mutex::default(), Mutex::default());
        Self(Arc::new(Shared { name, record, slowest, running, book }))
    }

    /// One that stands in no table.
    pub fn unlisted() -> Self {
        Self::new("unlisted", Arc::new(Book::new(Instant::now())))
    }

    pub(super) fn entry(&self) -> Arc<dyn Entry> {
        Arc::clone(&self.0) as Arc<dyn Entry>
    }

    /// Builds one of them; `paid_by` tells for whom.
    pub fn build<R>(&self, paid_by: &str, build: impl FnOnce() -> R) -> R {
        *lock(&self.0.running) += 1;
        let (started, since, allocated) = (self.0.book.now_us(), Instant::now(), allocated_bytes());
        let built = build();
        let (took, bytes) = (since.elapsed(), allocated_bytes().wrapping_sub(allocated));
        *lock(&self.0.running) -= 1;
        let mut slowest = lock(&self.0.slowest);
        let mut record = lock(&self.0.record);
        if *slowest <= took {
            *slowest = took;
            record.begin(paid_by, 0, started);
        }
        record.state = State::Ready;
        record.initialised += 1;
        record.self_us = record.self_us.saturating_add(microseconds(took));
        record.cumulative_us = record.self_us;
        record.bytes = Some(record.bytes.unwrap_or(0).saturating_add(bytes));
        if record.rank == 0 {
            record.rank = self.0.book.next_rank();
        }
        built
    }

    /// Counts one who waits, until the result is dropped.
    pub fn waiting(&self) -> impl Drop + '_ {
        Waiting::new(&self.0.record)
    }
}

impl Entry for Shared {
    fn name(&self) -> &'static str {
        self.name
    }

    fn row(&self) -> Row {
        let mut record = lock(&self.record).clone();
        if *lock(&self.running) > 0 {
            record.state = State::Initialising;
        }
        Row::new(self.name, record)
    }
}
