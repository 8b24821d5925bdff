//! How many viewers a stream has: bodies that are open, and clients of its playlist.
//!
//! A client of a playlist comes with request after request, so it is counted by what it asks, not by who it is: behind
//! one address may be a whole office, and a browser has six connections. One that knows LL-HLS always has a request
//! open that waits for what comes next, so there are as many as wait at once. One that does not fetches the playlist
//! once per target duration. Memory does not grow with either.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The viewers of one stream.
pub struct Audience {
    bodies: AtomicU64,
    begun: Instant,
    /// How long a turn lasts: a target duration.
    turn: Duration,
    clients: Mutex<Clients>,
}

/// Clients of a playlist, turn by turn.
#[derive(Default)]
struct Clients {
    waiting: u64,
    /// Number of the current turn; it and those before it, newest first.
    number: u64,
    turns: [Turn; 4],
}

#[derive(Clone, Copy, Default)]
struct Turn {
    /// The most that waited at once.
    waiting_max: u64,
    /// Playlists given to who asked for no segment in particular.
    fetched: u64,
}

/// Counts as the viewer of a body for as long as it lives.
pub struct Viewing(Arc<Audience>);

/// Counts as a client that waits for the playlist for as long as it lives.
pub struct Waiting(Arc<Audience>);

impl Audience {
    pub(super) fn new(target_seconds: i64) -> Arc<Self> {
        let turn = Duration::from_secs(target_seconds.unsigned_abs().max(1));
        Arc::new(Self { bodies: AtomicU64::new(0), begun: Instant::now(), turn, clients: Mutex::default() })
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

    /// A client got the playlist of the moment.
    pub fn fetched(&self) {
        self.clients().turns[0].fetched += 1;
    }

    /// Bodies that are open, and clients of the playlist.
    pub(super) fn count(&self) -> (u64, u64) {
        (self.bodies.load(Relaxed), self.clients().count())
    }

    /// As of now.
    fn clients(&self) -> MutexGuard<'_, Clients> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.turn_to(self.begun.elapsed().as_secs() / self.turn.as_secs());
        clients
    }
}

impl Clients {
    fn turn_to(&mut self, number: u64) {
        let passed = number.saturating_sub(self.number).min(self.turns.len() as u64);
        for _ in 0..passed {
            self.turns.rotate_right(1);
            // Who waits from one turn to the next waits in both.
            self.turns[0] = Turn { waiting_max: self.waiting, fetched: 0 };
        }
        self.number = self.number.max(number);
    }

    fn wait(&mut self) {
        self.waiting += 1;
        self.turns[0].waiting_max = self.turns[0].waiting_max.max(self.waiting);
    }

    /// Between two answers nobody waits, and the current turn has just begun: the one before counts, too. What a turn
    /// has of fetches is one too few or too many now and then; one that knows LL-HLS has a single one, its first.
    fn count(&self) -> u64 {
        let [now, whole @ ..] = &self.turns;
        let fetched: u64 = whole.iter().map(|turn| turn.fetched).sum();
        let turns = whole.len() as u64;
        now.waiting_max.max(whole[0].waiting_max) + (fetched + turns / 2) / turns
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

    #[test]
    fn who_waits_counts_until_a_turn_has_passed_without() {
        let mut clients = Clients::default();
        for number in 0..10 {
            clients.turn_to(number);
            // Three clients, eight parts a turn.
            for _ in 0..8 {
                (0..3).for_each(|_| clients.wait());
                assert_eq!(clients.count(), 3, "turn {number}");
                clients.waiting -= 3;
                assert_eq!(clients.count(), 3, "turn {number}, between two parts");
            }
        }
        clients.turn_to(10);
        assert_eq!(clients.count(), 3);
        clients.turn_to(11);
        assert_eq!(clients.count(), 0);
        // One that waits for a long time.
        clients.wait();
        clients.turn_to(1_000_000_000);
        assert_eq!(clients.count(), 1);
    }

    #[test]
    fn who_fetches_once_a_turn_counts_as_one() {
        let mut clients = Clients::default();
        let mut fetch = |number, times| {
            clients.turn_to(number);
            (0..times).for_each(|_| clients.turns[0].fetched += 1);
            clients.count()
        };
        // Two of them; one is early in turn 5.
        let counts: Vec<u64> = [2, 2, 2, 2, 2, 3, 1, 2, 2].into_iter().zip(0..).map(|(n, at)| fetch(at, n)).collect();
        assert_eq!(counts, [0, 1, 1, 2, 2, 2, 2, 2, 2]);
        assert_eq!([9, 10, 11, 12].map(|number| fetch(number, 0)), [2, 1, 1, 0]);
        // The first playlist of one that goes on otherwise.
        assert_eq!([(20, 1), (21, 0), (22, 0)].map(|(number, times)| fetch(number, times)), [0, 0, 0]);
    }
}
