//! What `GET /live/{name}` says of a stream.

use super::arrival::Init;
use super::meter::Rates;
use super::stream::{Publisher, State, Stream};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// A stream at one moment.
pub struct Status {
    pub state: State,
    pub publisher: Option<Publisher>,
    pub from_us: Option<i64>,
    pub to_us: Option<i64>,
    pub window_bytes: u64,
    pub first_byte: Option<u64>,
    pub last_byte: Option<u64>,
    /// Of bodies, and clients of the playlist.
    pub body_viewers: u64,
    pub hls_viewers: u64,
    pub lagged: u64,
    pub discontinuities: u64,
    pub received_bytes: u64,
    pub init: Option<Arc<Init>>,
    pub rates: Vec<Rates>,
}

impl Status {
    pub fn viewers(&self) -> u64 {
        self.body_viewers + self.hls_viewers
    }
}

impl Stream {
    /// Figures for `GET /live/{name}`.
    pub fn status(&self) -> Status {
        let (body_viewers, hls_viewers) = self.audience.count();
        let inner = self.lock();
        let (first, last) = (inner.window.first(), inner.window.last());
        Status {
            state: inner.state,
            publisher: inner.publisher.clone(),
            from_us: first.map(|part| part.start_us),
            to_us: last.map(|part| part.end_us),
            window_bytes: inner.window.bytes(),
            first_byte: first.map(|part| part.offset),
            last_byte: last.map(|part| part.offset + part.len - 1),
            body_viewers,
            hls_viewers,
            lagged: self.lagged.load(Relaxed),
            discontinuities: inner.discontinuities,
            received_bytes: inner.received_bytes,
            init: inner.init.clone(),
            rates: inner.meter.rates(),
        }
    }
}
