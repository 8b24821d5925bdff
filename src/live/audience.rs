//! How many viewers a stream has: bodies that are open, and clients of its playlist.
//!
//! A client of a playlist comes with request after request, so it is counted by what it takes, not by who it is: behind
//! one address may be a whole office, and a browser has six connections. Who watches takes a second of media a second,
//! in parts or in segments, at the end of the stream or far behind it. Some also wait for the playlist, and there are
//! at least as many as do so at once, which is known sooner. Memory does not grow with them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// The viewers of one stream.
pub struct Audience {
    bodies: AtomicU64,
    begun: Instant,
    clients: Mutex<Clients>,
}

/// What clients of a playlist do, by turns of a target duration. Times in microseconds.
struct Clients {
    turn_us: u64,
    now_us: u64,
    waiting: u64,
    /// The current turn and those before it, newest first.
    turns: [Turn; 4],
}

#[derive(Clone, Copy, Default)]
struct Turn {
    /// The most that waited at once.
    waiting_max: u64,
    /// Media that was sent.
    sent_us: u64,
}

/// Counts as the viewer of a body for as long as it lives.
pub struct Viewing(Arc<Audience>);

/// Counts as a client that waits for the playlist for as long as it lives.
pub struct Waiting(Arc<Audience>);

impl Audience {
    pub(super) fn new(target_seconds: i64) -> Arc<Self> {
        let clients = Mutex::new(Clients::new(target_seconds.unsigned_abs().max(1) * 1_000_000));
        Arc::new(Self { bodies: AtomicU64::new(0), begun: Instant::now(), clients })
    }

    pub fn view(self: &Arc<Self>) -> Viewing {
        self.bodies.fetch_add(1, Relaxed);
        Viewing(Arc::clone(self))
    }

    /// A client waits for a playlist.
    pub fn wait(self: &Arc<Self>) -> Waiting {
        self.clients().wait();
        Waiting(Arc::clone(self))
    }

    /// A client is sent so much of a segment or a part.
    pub fn send(&self, duration_us: u64) {
        self.clients().turns[0].sent_us += duration_us;
    }

    /// Bodies that are open, and clients of the playlist.
    pub(super) fn count(&self) -> (u64, u64) {
        (self.bodies.load(Relaxed), self.clients().count())
    }

    /// As of now.
    fn clients(&self) -> MutexGuard<'_, Clients> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.advance(u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX));
        clients
    }
}

impl Clients {
    fn new(turn_us: u64) -> Self {
        Self { turn_us, now_us: 0, waiting: 0, turns: Default::default() }
    }

    fn advance(&mut self, now_us: u64) {
        let passed = (now_us / self.turn_us).saturating_sub(self.now_us / self.turn_us);
        for _ in 0..passed.min(self.turns.len() as u64) {
            self.turns.rotate_right(1);
            // Who waits from one turn to the next waits in both.
            self.turns[0] = Turn { waiting_max: self.waiting, sent_us: 0 };
        }
        self.now_us = self.now_us.max(now_us);
    }

    fn wait(&mut self) {
        self.waiting += 1;
        self.turns[0].waiting_max = self.turns[0].waiting_max.max(self.waiting);
    }

    /// Between two answers nobody waits, so the turn before counts, too.
    fn count(&self) -> u64 {
        let [now, before @ ..] = &self.turns;
        let time_us = self.now_us % self.turn_us + before.len() as u64 * self.turn_us;
        let sent_us: u64 = self.turns.iter().map(|turn| turn.sent_us).sum();
        now.waiting_max.max(before[0].waiting_max).max((sent_us + time_us / 2) / time_us)
    }
}

impl Drop for Viewing {
    fn drop(&mut self) {
        self.0.bodies.fetch_sub(1, Relaxed);
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.clients().waiting -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TURN_US: u64 = 4_000_000;

    #[test]
    fn who_waits_counts_until_a_turn_has_passed_without() {
        let mut clients = Clients::new(TURN_US);
        for half in 0..80 {
            clients.advance(half * 500_000);
            (0..3).for_each(|_| clients.wait());
            assert_eq!(clients.count(), 3);
            clients.waiting -= 3;
            assert_eq!(clients.count(), 3, "between two parts");
        }
        clients.advance(11 * TURN_US - 1);
        assert_eq!(clients.count(), 3);
        clients.advance(11 * TURN_US);
        assert_eq!(clients.count(), 0);
        clients.wait();
        clients.advance(u64::MAX);
        assert_eq!(clients.count(), 1, "one that waits for a long time");
    }

    #[test]
    fn who_takes_a_second_of_media_a_second_counts_as_one() {
        let mut clients = Clients::new(TURN_US);
        let mut seen = Vec::new();
        for second in 0..90 {
            clients.advance(second * 1_000_000);
            // One takes parts; another one, for a minute, two segments every eight seconds.
            clients.turns[0].sent_us += 1_000_000 + if second % 8 == 5 && second < 60 { 8_000_000 } else { 0 };
            seen.push(clients.count());
        }
        assert_eq!(seen[..6], [0, 0, 0, 0, 0, 1], "it takes a while until what was sent tells");
        assert!(seen[16..60].iter().all(|count| (2..=3).contains(count)), "{seen:?}");
        assert!(seen[16..60].iter().filter(|count| **count == 2).count() > 30, "{seen:?}");
        assert!(seen[75..].iter().all(|count| *count == 1), "{seen:?}");
    }
}
