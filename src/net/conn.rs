//! What is known of one connection: its peer, what is in flight, and which slices of media it was given to write.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};

/// hyper queues at most this many buffers before it flushes (hyper 1.12, `MAX_BUF_LIST_BUFFERS`), so a slice that is
/// still to be written is among the last this many that were handed out.
const HANDED_MAX: usize = 16;

/// Bytes on their way out, over all connections. All counters only grow.
#[derive(Default)]
pub struct Traffic {
    /// Bytes written to sockets.
    pub sent: AtomicU64,
    /// Those of them that were not slices of media: heads, boxes, text. Everything, if hyper began to copy bodies.
    pub copied: AtomicU64,
    /// Write system calls.
    pub writes: AtomicU64,
    /// Bytes read from sockets.
    pub received: AtomicU64,
    /// Connections now open.
    pub open: AtomicUsize,
    /// Connections accepted.
    pub accepted: AtomicU64,
    /// Connections refused because too many were open.
    pub refused: AtomicU64,
    /// Connections dropped because the peer took no byte for the stall limit.
    pub stalled: AtomicU64,
}

/// One connection, shared by its IO, its service and its bodies. All on one core, so relaxed order is enough.
pub struct Conn {
    pub peer: SocketAddr,
    pub traffic: Arc<Traffic>,
    in_flight: AtomicU32,
    read_bytes: AtomicU64,
    written_bytes: AtomicU64,
    /// `read_bytes` when the last request ended: more means that a head is arriving.
    boundary: AtomicU64,
    write_blocked: AtomicBool,
    linger: AtomicBool,
    handed: [(AtomicUsize, AtomicUsize); HANDED_MAX],
    handed_next: AtomicUsize,
}

/// What a connection is doing, as its time limits see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Waiting for a request.
    Idle,
    /// A request's head has begun.
    Head,
    /// A request is being served.
    Serving,
    /// The socket takes no more bytes.
    WriteBlocked,
}

impl Conn {
    pub fn new(peer: SocketAddr, traffic: Arc<Traffic>) -> Self {
        Self {
            peer,
            traffic,
            in_flight: AtomicU32::new(0),
            read_bytes: AtomicU64::new(0),
            written_bytes: AtomicU64::new(0),
            boundary: AtomicU64::new(0),
            write_blocked: AtomicBool::new(false),
            linger: AtomicBool::new(false),
            handed: std::array::from_fn(|_| (AtomicUsize::new(0), AtomicUsize::new(0))),
            handed_next: AtomicUsize::new(0),
        }
    }

    /// A body hands this slice of media to the connection; a write of it is no copy.
    pub fn hand_out(&self, slice: &[u8]) {
        let slot = self.handed_next.load(Relaxed);
        self.handed_next.store((slot + 1) % HANDED_MAX, Relaxed);
        let start = slice.as_ptr() as usize;
        self.handed[slot].0.store(start, Relaxed);
        self.handed[slot].1.store(start + slice.len(), Relaxed);
    }

    /// Whether a buffer about to be written lies in a slice that was handed out.
    pub(super) fn is_media(&self, buffer: &[u8]) -> bool {
        let start = buffer.as_ptr() as usize;
        let end = start + buffer.len();
        let newest = self.handed_next.load(Relaxed) + HANDED_MAX - 1;
        (0..HANDED_MAX).any(|back| {
            let slot = &self.handed[(newest - back) % HANDED_MAX];
            slot.0.load(Relaxed) <= start && end <= slot.1.load(Relaxed)
        })
    }

    /// A request was answered before its body was read: at the end, wait for the client to see the answer. A close
    /// with unread bytes would reset the connection and could take the answer away (RFC 9112 §9.6).
    pub fn linger(&self) {
        self.linger.store(true, Relaxed);
    }

    pub(super) fn lingers(&self) -> bool {
        self.linger.load(Relaxed)
    }

    pub(super) fn request_began(&self) {
        self.in_flight.fetch_add(1, Relaxed);
    }

    pub(super) fn request_ended(&self) {
        self.in_flight.fetch_sub(1, Relaxed);
        self.boundary.store(self.read_bytes.load(Relaxed), Relaxed);
    }

    pub(super) fn count_read(&self, bytes: u64) {
        self.read_bytes.fetch_add(bytes, Relaxed);
        self.traffic.received.fetch_add(bytes, Relaxed);
    }

    pub(super) fn count_write(&self, bytes: u64, media: u64) {
        self.written_bytes.fetch_add(bytes, Relaxed);
        self.traffic.sent.fetch_add(bytes, Relaxed);
        self.traffic.copied.fetch_add(bytes - media, Relaxed);
        self.traffic.writes.fetch_add(1, Relaxed);
    }

    pub(super) fn set_write_blocked(&self, blocked: bool) {
        self.write_blocked.store(blocked, Relaxed);
    }

    pub(super) fn phase(&self) -> Phase {
        if self.write_blocked.load(Relaxed) {
            Phase::WriteBlocked
        } else if self.in_flight.load(Relaxed) > 0 {
            Phase::Serving
        } else if self.read_bytes.load(Relaxed) > self.boundary.load(Relaxed) {
            Phase::Head
        } else {
            Phase::Idle
        }
    }

    /// Grows with every byte written: a stall is a blocked phase in which it stands still.
    pub(super) fn written(&self) -> u64 {
        self.written_bytes.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_slices_that_were_handed_out_are_media() {
        let conn = Conn::new(SocketAddr::from(([127, 0, 0, 1], 1)), Arc::default());
        let file = vec![0u8; 4096];
        let head = vec![0u8; 64];
        conn.hand_out(&file[1024..2048]);
        assert!(conn.is_media(&file[1024..2048]));
        assert!(conn.is_media(&file[2000..2048]), "the rest of a slice");
        assert!(!conn.is_media(&file[1000..1100]));
        assert!(!conn.is_media(&head));
        for _ in 0..HANDED_MAX {
            conn.hand_out(&head);
        }
        assert!(!conn.is_media(&file[1024..2048]), "handed out too long ago to be queued still");
    }
}
