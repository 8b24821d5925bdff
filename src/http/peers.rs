//! Request rate per peer address: a token bucket each, off unless configured.
//!
//! Bounded: addresses whose bucket is full again are
//! forgotten, and when too many are not, newcomers are let through uncounted.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Addresses remembered at most (about 4 MiB).
const PEERS_MAX: usize = 65_536;
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

pub struct Peers {
    /// Requests per second; 0 is no limit.
    rate: u32,
    buckets: Mutex<Buckets>,
}

#[derive(Default)]
struct Buckets {
    of: HashMap<IpAddr, Bucket>,
    /// When full buckets were last looked for: all are walked through, so not for every newcomer.
    swept: Option<Instant>,
}

struct Bucket {
    tokens: f64,
    filled: Instant,
}

impl Peers {
    pub fn new(rate: u32) -> Self {
        Self { rate, buckets: Mutex::default() }
    }

    /// Takes one request from the peer's bucket (twice the rate deep), or says how long to wait for the next.
    pub fn admit(&self, peer: IpAddr) -> Result<(), Duration> {
        if self.rate == 0 { Ok(()) } else { self.admit_at(peer, Instant::now()) }
    }

    fn admit_at(&self, peer: IpAddr, now: Instant) -> Result<(), Duration> {
        let rate = f64::from(self.rate);
        let depth = rate * 2.0;
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.of.len() >= PEERS_MAX && !buckets.of.contains_key(&peer) {
            if buckets.swept.is_none_or(|swept| now.saturating_duration_since(swept) >= SWEEP_INTERVAL) {
                buckets.swept = Some(now);
                let is_used =
                    |b: &Bucket| b.tokens + now.saturating_duration_since(b.filled).as_secs_f64() * rate < depth;
                buckets.of.retain(|_, bucket| is_used(bucket));
            }
            if buckets.of.len() >= PEERS_MAX {
                return Ok(());
            }
        }
        let bucket = buckets.of.entry(peer).or_insert(Bucket { tokens: depth, filled: now });
        let gained = now.saturating_duration_since(bucket.filled).as_secs_f64() * rate;
        bucket.tokens = (bucket.tokens + gained).min(depth);
        bucket.filled = now;
        if bucket.tokens >= 1.0 {
            bucket.tokens -= 1.0;
            Ok(())
        } else {
            Err(Duration::from_secs_f64((1.0 - bucket.tokens) / rate))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_of_twice_the_rate_then_the_rate() {
        let peers = Peers::new(5);
        let (a, b) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let start = Instant::now();
        assert_eq!((0..20).filter(|_| peers.admit_at(a, start).is_ok()).count(), 10);
        assert!(peers.admit_at(b, start).is_ok(), "another address has its own bucket");
        let later = start + Duration::from_secs(1);
        assert_eq!((0..20).filter(|_| peers.admit_at(a, later).is_ok()).count(), 5);
        assert_eq!(peers.admit_at(a, later), Err(Duration::from_millis(200)));
    }

    #[test]
    fn memory_is_bounded_whatever_the_number_of_addresses() {
        let peers = Peers::new(1);
        let start = Instant::now();
        let address = |n: u32| IpAddr::from(n.to_be_bytes());
        for n in 0..PEERS_MAX as u32 + 1000 {
            assert!(peers.admit_at(address(n), start).is_ok());
        }
        assert_eq!(peers.buckets.lock().expect("whole").of.len(), PEERS_MAX);
        assert!(peers.admit_at(address(u32::MAX), start + Duration::from_secs(10)).is_ok());
        assert_eq!(peers.buckets.lock().expect("whole").of.len(), 1, "full buckets are forgotten");
    }

    #[test]
    fn without_a_rate_nobody_is_counted() {
        let peers = Peers::new(0);
        assert!((0..1000).all(|_| peers.admit(IpAddr::from([10, 0, 0, 1])).is_ok()));
    }
}
