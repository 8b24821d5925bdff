//! The boundary between publishers' sockets and live streams: bytes in, parts in a stream, and what happens when a
//! publisher goes.
//!
//! Must not know HTTP words, nor how parts are found in bytes (`media`).

pub mod tcp;
pub mod tracks;

use crate::live::{Arrival, Arrived, Publication, PublishError, Streams};
use crate::media::mp4::arrival::ArrivalError;
use crate::net::Traffic;
use crate::observe::latency;
use crate::profile::{Stage, span};
use bytes::Bytes;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// One publication from its first byte to its last. Dropped without [`Intake::end`], it leaves the stream waiting for
/// the publisher to return.
pub struct Intake<'a> {
    streams: &'a Streams,
    traffic: Arc<Traffic>,
    name: String,
    peer: SocketAddr,
    arrival: Arrival,
    arrived: Vec<Arrived>,
    publication: Option<Publication>,
    received: u64,
    copied_bytes: u64,
    flushed: bool,
}

impl<'a> Intake<'a> {
    pub fn new(streams: &'a Streams, traffic: Arc<Traffic>, name: String, peer: SocketAddr) -> Self {
        let (arrival, arrived) = (Arrival::new(streams.targets()), Vec::new());
        Self {
            streams,
            traffic,
            name,
            peer,
            arrival,
            arrived,
            publication: None,
            received: 0,
            copied_bytes: 0,
            flushed: false,
        }
    }

    /// Takes bytes as they came. The stream is taken with the first thing that is one: what cannot be parsed publishes
    /// nothing.
    pub async fn push(&mut self, bytes: Bytes) -> Result<(), PublishError> {
        let received = bytes.len() as u64;
        self.received += received;
        let pushed = {
            let _span = span!(Stage::Parse.name());
            let _timed = latency::stage(Stage::Parse);
            self.arrival.push(bytes, &mut self.arrived)
        };
        let copied = self.arrival.copied_bytes();
        self.traffic.copied.fetch_add(copied - self.copied_bytes, Relaxed);
        self.copied_bytes = copied;
        self.begin().await?;
        // What is whole comes into the stream, whatever is wrong behind it.
        let held = self.hold();
        self.append()?;
        if let Some(publication) = &self.publication {
            publication.alive(received);
        }
        Ok(pushed.and(held)?)
    }

    fn hold(&self) -> Result<(), ArrivalError> {
        let Some(publication) = &self.publication else { return Ok(()) };
        publication.hold(self.arrival.held_bytes(), self.received)
    }

    /// Takes the stream when there is something for it. Its first part waits until its numbers are kept.
    async fn begin(&mut self) -> Result<(), PublishError> {
        if self.publication.is_none() && !self.arrived.is_empty() {
            let publication = self.publication.insert(self.streams.publish(&self.name, self.peer)?);
            publication.kept().await;
        }
        Ok(())
    }

    fn append(&mut self) -> Result<(), PublishError> {
        let Some(publication) = &mut self.publication else { return Ok(()) };
        for event in self.arrived.drain(..) {
            let _span = span!(Stage::Append.name());
            self.traffic.copied.fetch_add(publication.take(event)?, Relaxed);
        }
        Ok(())
    }

    /// The publisher said that this was all: the stream ends.
    pub async fn end(mut self) -> Result<(), PublishError> {
        self.flush(false);
        self.begin().await?;
        self.append()?;
        if let Some(publication) = self.publication.take() {
            publication.finish();
        }
        Ok(())
    }

    /// The publisher is gone without a word, between two packets or boxes as far as can be seen.
    pub async fn leave(mut self) -> Result<(), PublishError> {
        self.flush(false);
        self.begin().await?;
        self.append()
    }

    fn flush(&mut self, broke_off: bool) {
        self.flushed = true;
        self.arrival.finish(broke_off, &mut self.arrived);
    }
}

impl Drop for Intake<'_> {
    fn drop(&mut self) {
        if !self.flushed {
            // Whoever took the stream over has it now; there is nobody left to tell.
            self.flush(true);
            let _ = self.append();
        }
    }
}
