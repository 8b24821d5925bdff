//! The way of an upload's bytes to the disk: a short queue of `Bytes` as they came, written by vectored `pwrite`.
//!
//! A job on the `write` pool takes what is queued and ends when the queue is empty, so a slow uploader holds no
//! thread. The queue is bounded in bytes and in pieces; a full one makes the uploader wait. It knows nothing about
//! ids, ranges or names.

use super::hidden::HiddenFile;
use super::room::{Full, Promise};
use super::video::lock;
use crate::store::Pool;
use bytes::{Buf, Bytes};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use tokio::sync::Notify;

/// Bytes that may wait. One more piece is taken when fewer wait, whatever its size.
const QUEUE_BYTES: usize = 2 << 20;
/// Pieces that may wait: bounds the bookkeeping of an upload in tiny pieces, and one `pwritev` (IOV_MAX is 1024).
const QUEUE_PIECES: usize = 1024;
/// Bytes that one job writes before it lets other uploads have the thread.
const TURN_BYTES: u64 = 16 << 20;
/// Room that an upload of unknown length asks for at a time.
const ROOM_STEP: u64 = 64 << 20;

/// Why writing stopped. Stays for all later writes.
#[derive(Clone, Debug)]
pub(super) enum WriteError {
    Full(Option<Full>),
    /// The bytes may no longer be written: another part, or the finished video, has their place.
    Superseded,
    Io(Arc<io::Error>),
}

/// Where the bytes go.
pub(super) struct Target {
    pub(super) file: Arc<HiddenFile>,
    pub(super) offset: u64,
    pub(super) promise: Arc<Promise>,
    /// Every write holds `gate` for reading and stops once `revoked`.
    pub(super) gate: Arc<RwLock<()>>,
    pub(super) revoked: Arc<AtomicBool>,
    /// Bytes after which writing fails as on a full disk.
    pub(super) fails_after: Option<u64>,
}

/// The uploader's end.
pub(super) struct Writer {
    /// `None` only while it is dropped.
    shared: Option<Arc<Shared>>,
}

struct Shared {
    target: Target,
    pool: Pool,
    state: Mutex<State>,
    moved: Notify,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Bytes>,
    queued: usize,
    writing: bool,
    written: u64,
    failed: Option<WriteError>,
    abandoned: bool,
}

impl Writer {
    pub(super) fn new(target: Target, pool: Pool) -> Self {
        let shared = Shared { target, pool, state: Mutex::new(State::default()), moved: Notify::new() };
        Self { shared: Some(Arc::new(shared)) }
    }

    /// Queues one piece, waiting for space in the queue.
    pub(super) async fn write(&mut self, bytes: Bytes) -> Result<(), WriteError> {
        if bytes.is_empty() {
            return Ok(());
        }
        let Some(shared) = &self.shared else { return Err(WriteError::Superseded) };
        loop {
            // Created before the look at the queue, so that no wake-up falls between.
            let moved = shared.moved.notified();
            {
                let mut state = lock(&shared.state);
                if let Some(error) = &state.failed {
                    return Err(error.clone());
                }
                if state.queued < QUEUE_BYTES && state.queue.len() < QUEUE_PIECES {
                    state.queued += bytes.len();
                    state.queue.push_back(bytes);
                    if !state.writing {
                        state.writing = true;
                        Shared::start(shared);
                    }
                    return Ok(());
                }
            }
            moved.await;
        }
    }

    /// Waits until everything queued is written; says how much that was.
    pub(super) async fn flushed(&mut self) -> Result<u64, WriteError> {
        let Some(shared) = &self.shared else { return Err(WriteError::Superseded) };
        loop {
            let moved = shared.moved.notified();
            {
                let state = lock(&shared.state);
                if let Some(error) = &state.failed {
                    return Err(error.clone());
                }
                if !state.writing {
                    return Ok(state.written);
                }
            }
            moved.await;
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let Some(shared) = self.shared.take() else { return };
        {
            let mut state = lock(&shared.state);
            state.abandoned = true;
            state.queue.clear();
            state.queued = 0;
        }
        // With the last handle the hidden file may go, and removing a large file takes a while.
        let pool = shared.pool.clone();
        pool.spawn(move || drop(shared));
    }
}

impl Shared {
    fn start(shared: &Arc<Self>) {
        let job = Arc::clone(shared);
        shared.pool.spawn(move || Self::turn(&job));
    }

    /// Writes what is queued; ends when nothing is, or gives way after its turn.
    fn turn(shared: &Arc<Self>) {
        let mut turn = 0;
        loop {
            let (mut batch, offset) = {
                let mut state = lock(&shared.state);
                if state.queue.is_empty() || state.abandoned {
                    state.writing = false;
                    drop(state);
                    shared.moved.notify_one();
                    return;
                }
                if turn >= TURN_BYTES {
                    drop(state);
                    Self::start(shared);
                    return;
                }
                (std::mem::take(&mut state.queue), state.written)
            };
            let bytes: usize = batch.iter().map(Bytes::len).sum();
            let result = shared.target.write(&mut batch, offset);
            let mut state = lock(&shared.state);
            state.queued = state.queued.saturating_sub(bytes);
            match result {
                Ok(()) => state.written += bytes as u64,
                Err(error) => {
                    state.failed = Some(error);
                    state.queue.clear();
                    state.queued = 0;
                    state.writing = false;
                    drop(state);
                    shared.moved.notify_one();
                    return;
                }
            }
            drop(state);
            shared.moved.notify_one();
            turn += bytes as u64;
        }
    }
}

impl Target {
    /// Writes the pieces at `written` bytes from the target's start.
    pub(super) fn write(&self, pieces: &mut VecDeque<Bytes>, mut written: u64) -> Result<(), WriteError> {
        let bytes: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
        self.promise.cover(bytes, ROOM_STEP).map_err(|full| WriteError::Full(Some(full)))?;
        while !pieces.is_empty() {
            let n = {
                let _writing = self.gate.read().unwrap_or_else(|poisoned| poisoned.into_inner());
                if self.revoked.load(Ordering::Relaxed) {
                    return Err(WriteError::Superseded);
                }
                if self.fails_after.is_some_and(|bytes| written >= bytes) {
                    return Err(WriteError::Full(None));
                }
                let slices: Vec<IoSlice<'_>> =
                    pieces.iter().take(QUEUE_PIECES).map(|piece| IoSlice::new(piece)).collect();
                rustix::io::pwritev(&self.file.file, &slices, self.offset + written)
            };
            match n {
                Ok(0) => return Err(WriteError::Io(Arc::new(io::ErrorKind::WriteZero.into()))),
                Ok(n) => {
                    written += n as u64;
                    self.promise.spend(n as u64);
                    advance(pieces, n);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(io::Error::from(errno).into()),
            }
        }
        Ok(())
    }
}

impl From<io::Error> for WriteError {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT) => Self::Full(None),
            _ => Self::Io(Arc::new(error)),
        }
    }
}

/// Drops the first `n` bytes.
fn advance(pieces: &mut VecDeque<Bytes>, mut n: usize) {
    while let Some(first) = pieces.front_mut() {
        if n < first.len() {
            first.advance(n);
            return;
        }
        n -= first.len();
        pieces.pop_front();
    }
}
