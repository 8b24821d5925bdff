//! What is known of one connection: its peer, what is in flight, and which slices of media it was given to write.

use super::waits::{Open, Wait, Waiting};
use crate::profile::clock::Stopwatch;
use std::fs::File;
use std::io::IoSlice;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
    /// The connections now open.
    pub connections: Open,
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
    /// A [`Stopwatch`] since the first bytes of the head that is arriving; 0: none is.
    head_since: AtomicU64,
    write_blocked: AtomicBool,
    /// There is more to write, and it is the others' turn.
    gave_way: AtomicBool,
    linger: AtomicBool,
    waiting: Waiting,
    /// What the last request asked for, as a number of the service's own.
    route: AtomicU8,
    /// The stream that the last request was about, if any.
    stream: Mutex<Option<Arc<str>>>,
    handed: Mutex<Handed>,
}

/// A slice of media that a body gave to its connection.
#[derive(Clone)]
pub(super) struct Media {
    start: usize,
    end: usize,
    /// The file that the slice maps, and the offset of its first byte; `None` for slices of memory.
    source: Option<(Arc<File>, u64)>,
}

/// The last slices that were handed out, the oldest overwritten first.
#[derive(Default)]
struct Handed {
    slices: Vec<Media>,
    next: usize,
}

impl Handed {
    /// Whether a buffer lies in one of the slices. As a rule it is one of the last.
    fn holds(&self, buffer: &[u8]) -> bool {
        let start = buffer.as_ptr() as usize;
        let end = start + buffer.len();
        let (newer, older) = self.slices.split_at(self.next.min(self.slices.len()));
        newer.iter().rev().chain(older.iter().rev()).any(|m| m.start <= start && end <= m.end)
    }
}

impl Media {
    /// The file, and the offset in it, of a buffer that lies in this slice.
    pub(super) fn source_of(&self, buffer: &[u8]) -> Option<(&File, u64)> {
        let (file, offset) = self.source.as_ref()?;
        Some((file, offset + (buffer.as_ptr() as usize - self.start) as u64))
    }
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
            head_since: AtomicU64::new(0),
            write_blocked: AtomicBool::new(false),
            gave_way: AtomicBool::new(false),
            linger: AtomicBool::new(false),
            waiting: Waiting::new(),
            route: AtomicU8::new(u8::MAX),
            stream: Mutex::default(),
            handed: Mutex::default(),
        }
    }

    /// A body hands this slice of media to the connection; a write of it is no copy. `source` is the file that the
    /// slice maps and the offset of its first byte.
    pub fn hand_out(&self, slice: &[u8], source: Option<(Arc<File>, u64)>) {
        let start = slice.as_ptr() as usize;
        let media = Media { start, end: start + slice.len(), source };
        let mut handed = self.handed();
        let next = handed.next;
        if next < handed.slices.len() {
            handed.slices[next] = media;
        } else {
            handed.slices.push(media);
        }
        handed.next = (next + 1) % HANDED_MAX;
    }

    /// The slice in which a buffer about to be written lies, if it is media.
    pub(super) fn media_of(&self, buffer: &[u8]) -> Option<Media> {
        let start = buffer.as_ptr() as usize;
        let end = start + buffer.len();
        self.handed().slices.iter().find(|m| m.start <= start && end <= m.end).cloned()
    }

    /// How many of the first `written` bytes of these buffers are slices of media, untouched since `store` or `live`
    /// made them.
    pub(super) fn media_bytes(&self, buffers: &[IoSlice<'_>], written: usize) -> u64 {
        let (handed, mut left, mut media) = (self.handed(), written, 0);
        for buffer in buffers {
            if left == 0 {
                break;
            }
            let taken = buffer.len().min(left);
            left -= taken;
            if handed.holds(buffer) {
                media += taken as u64;
            }
        }
        media
    }

    /// Whether a buffer is media.
    pub(super) fn is_media(&self, buffer: &[u8]) -> bool {
        self.handed().holds(buffer)
    }

    /// Only the connection's own core locks it, so it never waits.
    fn handed(&self) -> MutexGuard<'_, Handed> {
        self.handed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets the slices of answers that are wholly sent, and with them their files.
    pub(super) fn forget(&self) {
        let mut handed = self.handed();
        handed.slices.clear();
        handed.next = 0;
    }

    /// A request was answered before its body was read: at the end, wait for the client to see the answer. A close
    /// with unread bytes would reset the connection and could take the answer away (RFC 9112 §9.6).
    pub fn linger(&self) {
        self.linger.store(true, Relaxed);
    }

    pub(super) fn waiting(&self) -> &Waiting {
        &self.waiting
    }

    /// What this request asks for, and of which stream: for those who ask what a connection does.
    pub fn serves(&self, route: u8, stream: Option<&str>) {
        self.route.store(route, Relaxed);
        if let Some(name) = stream {
            *self.stream.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::from(name));
        }
    }

    /// What [`Conn::serves`] said last.
    pub fn served(&self) -> (u8, Option<Arc<str>>) {
        (self.route.load(Relaxed), self.stream.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    pub(super) fn lingers(&self) -> bool {
        self.linger.load(Relaxed)
    }

    pub(super) fn request_began(&self) {
        self.in_flight.fetch_add(1, Relaxed);
        self.waiting.begin(Wait::Core);
    }

    pub(super) fn request_ended(&self) {
        self.in_flight.fetch_sub(1, Relaxed);
        self.boundary.store(self.read_bytes.load(Relaxed), Relaxed);
        self.waiting.begin(Wait::Core);
    }

    /// How long the head took that was just read, in nanoseconds. `None` for one that came together with others.
    pub fn head_ns(&self) -> Option<u64> {
        let since = self.head_since.load(Relaxed);
        self.head_since.store(0, Relaxed);
        (since != 0).then(|| Stopwatch::from_raw(since).ns())
    }

    /// `bytes` were read by a call that began at `since`.
    pub(super) fn count_read(&self, bytes: u64, since: Stopwatch) {
        if bytes > 0 && self.phase() == Phase::Idle {
            self.head_since.store(since.to_raw(), Relaxed);
        }
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
        if blocked != self.write_blocked.load(Relaxed) {
            self.write_blocked.store(blocked, Relaxed);
            self.waiting.begin(Wait::Core);
        }
    }

    pub(super) fn set_gave_way(&self, gave_way: bool) {
        self.gave_way.store(gave_way, Relaxed);
    }

    pub(super) fn phase(&self) -> Phase {
        if self.write_blocked.load(Relaxed) {
            Phase::WriteBlocked
        } else if self.in_flight.load(Relaxed) > 0 || self.gave_way.load(Relaxed) {
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
        conn.hand_out(&file[1024..2048], None);
        assert!(conn.is_media(&file[1024..2048]));
        assert!(conn.is_media(&file[2000..2048]), "the rest of a slice");
        assert!(!conn.is_media(&file[1000..1100]));
        assert!(!conn.is_media(&head));
        for _ in 0..HANDED_MAX {
            conn.hand_out(&head, None);
        }
        assert!(!conn.is_media(&file[1024..2048]), "handed out too long ago to be queued still");
    }
}
