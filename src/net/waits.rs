//! What each open connection waits for, since when: written with one relaxed store where it changes, read by whoever
//! asks, without stopping or polling anything.
#![allow(unsafe_code, reason = "the coarse clock has no safe wrapper")]

use super::conn::{Conn, Phase};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What a request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Nothing but its core's turn.
    Core,
    /// A job of a pool: the index, the disk.
    Job,
    /// Pages of a file to be read in.
    Pages,
    /// The client's next bytes.
    Bytes,
    /// The next part of a stream.
    Part,
}

const WAITS: [Wait; 5] = [Wait::Core, Wait::Job, Wait::Pages, Wait::Bytes, Wait::Part];

/// A wait and when it began, in one word.
pub(super) struct Waiting(AtomicU64);

impl Waiting {
    pub(super) fn new() -> Self {
        Self(AtomicU64::new(now_ms() << 8))
    }

    /// The time stands for as long as it waits for the same thing.
    pub(super) fn set(&self, wait: Wait) {
        if self.0.load(Relaxed) & 0xff != wait as u64 {
            self.begin(wait);
        }
    }

    pub(super) fn begin(&self, wait: Wait) {
        self.0.store(now_ms() << 8 | wait as u64, Relaxed);
    }

    fn get(&self) -> (Wait, Duration) {
        let word = self.0.load(Relaxed);
        let wait = WAITS.get(word as usize & 0xff).copied().unwrap_or(Wait::Core);
        (wait, Duration::from_millis(now_ms().saturating_sub(word >> 8)))
    }
}

/// Milliseconds of the monotonic clock as of the kernel's last tick: a fraction of the price of an `Instant`.
fn now_ms() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the time is plain data; this clock exists since Linux 2.6.32.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &mut now) };
    now.tv_sec.cast_unsigned() * 1000 + now.tv_nsec.cast_unsigned() / 1_000_000
}

/// Every open connection.
#[derive(Default)]
pub struct Open {
    connections: Mutex<HashMap<u64, Arc<Conn>>>,
    next: AtomicU64,
}

impl Open {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<Conn>>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn insert(&self, conn: &Arc<Conn>) -> u64 {
        let number = self.next.fetch_add(1, Relaxed);
        self.lock().insert(number, Arc::clone(conn));
        number
    }

    pub(super) fn remove(&self, number: u64) {
        self.lock().remove(&number);
    }

    /// All of them with their numbers, in the order in which they came.
    pub fn list(&self) -> Vec<(u64, Arc<Conn>)> {
        let mut list: Vec<_> = self.lock().iter().map(|(number, conn)| (*number, Arc::clone(conn))).collect();
        list.sort_by_key(|(number, _)| *number);
        list
    }
}

impl Conn {
    /// What the connection waits for, in words, and for how long.
    pub fn waits_for(&self) -> (&'static str, Duration) {
        let (wait, since) = self.waiting().get();
        let what = match (self.phase(), wait) {
            (Phase::Idle, _) => "a request",
            (Phase::Head, _) => "the rest of a request's head",
            (Phase::WriteBlocked, _) => "the client to take bytes",
            (Phase::Serving, Wait::Core) => "nothing",
            (Phase::Serving, Wait::Job) => "a job of a pool",
            (Phase::Serving, Wait::Pages) => "pages of the file",
            (Phase::Serving, Wait::Bytes) => "bytes from the client",
            (Phase::Serving, Wait::Part) => "the next part of the stream",
        };
        (what, since)
    }

    /// A request waits for something until it says otherwise.
    pub fn waits(&self, wait: Wait) {
        self.waiting().set(wait);
    }

    /// A handler waits and has not said what for.
    pub(super) fn waits_in_general(&self) {
        if self.waiting().get().0 == Wait::Core {
            self.waits(Wait::Job);
        }
    }

    /// Waits for a future and says what for.
    pub async fn while_waiting<T>(&self, wait: Wait, future: impl Future<Output = T>) -> T {
        self.waits(wait);
        let outcome = future.await;
        self.waits(Wait::Core);
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    #[test]
    fn a_wait_is_told_with_its_time() {
        let conn = Conn::new(SocketAddr::from(([127, 0, 0, 1], 1)), Arc::default());
        assert_eq!(conn.waits_for().0, "a request");
        conn.request_began();
        conn.waits(Wait::Part);
        std::thread::sleep(Duration::from_millis(30));
        conn.waits(Wait::Part);
        let (what, since) = conn.waits_for();
        assert!(what == "the next part of the stream" && since >= Duration::from_millis(20), "{what} {since:?}");
        conn.request_ended();
        assert!(conn.waits_for().0 == "a request" && conn.waits_for().1 < Duration::from_millis(20));
    }

    #[test]
    fn open_connections_are_listed_until_they_close() {
        let open = Open::default();
        let conn = Arc::new(Conn::new(SocketAddr::from(([127, 0, 0, 1], 1)), Arc::default()));
        let (first, second) = (open.insert(&conn), open.insert(&conn));
        open.remove(first);
        assert_eq!(open.list().iter().map(|entry| entry.0).collect::<Vec<_>>(), [second]);
    }
}
