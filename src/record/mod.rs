//! Recording: what a live stream sends is written to a file that becomes a video.
//!
//! A recorder is a viewer that skips nothing. For each stream it writes init segment and parts, byte for byte, to a
//! hidden file of the library, synced at every segment; at the end of the stream, or when its coding changes, the file
//! is published. A full disk or a broken one stops that recording and nothing else. Files are written on a pool of
//! their own.
//! Does not belong here: HTTP words, sockets, how parts are found in bytes.

mod kept;
pub mod numbers;
pub mod recover;
pub mod tape;
mod task;

pub use kept::{Keep, Made};
pub use numbers::NumberFile;
pub use tape::{Span, Status, Tape};

use crate::library::Library;
use crate::live::Stream;
use crate::profile::{Stage, site, spawned};
use crate::store::Pool;
use crate::store::pool::Load;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// How often it is looked for recordings that have been kept long enough.
const TIDY_EVERY: Duration = Duration::from_secs(5);
/// Threads that write and sync recordings.
const THREADS: usize = 4;

/// What recorders share.
pub(in crate::record) struct Desk {
    library: Library,
    pool: Pool,
    made: Arc<Made>,
    counts: Counts,
    /// Media between two syncs at least.
    sync_us: i64,
}

/// What is counted, of all recordings.
#[derive(Default)]
pub struct Counts {
    /// Recordings that are being written.
    pub active: AtomicU64,
    /// Recordings that an error stopped, or kept from beginning.
    pub failed: AtomicU64,
    /// Bytes that were written.
    pub bytes: AtomicU64,
    /// Recordings that were deleted because they had been kept long enough, and their bytes.
    pub retired: AtomicU64,
    pub retired_bytes: AtomicU64,
}

/// What is recorded, of all streams.
pub struct Recorder {
    desk: Arc<Desk>,
    /// The tape of the newest stream of each name.
    tapes: Mutex<HashMap<String, (Weak<Stream>, Arc<Tape>)>>,
    /// Streams to record; `None` when nothing is recorded (any more).
    begin: Mutex<Option<mpsc::UnboundedSender<Job>>>,
}

/// A stream to record.
pub struct Job {
    stream: Arc<Stream>,
    tape: Arc<Tape>,
}

impl Recorder {
    /// A recorder that is off. `sync` is how much media may come between two syncs at least.
    pub fn off(library: Library, made: Arc<Made>, sync: Duration) -> Self {
        let sync_us = i64::try_from(sync.as_micros()).unwrap_or(i64::MAX);
        let pool = Pool::new("record", THREADS);
        let desk = Desk { library, pool, made, counts: Counts::default(), sync_us };
        Self { desk: Arc::new(desk), tapes: Mutex::default(), begin: Mutex::default() }
    }

    /// A recorder, and the streams that [`Recorder::run`] will record.
    pub fn new(library: Library, made: Arc<Made>, sync: Duration) -> (Self, mpsc::UnboundedReceiver<Job>) {
        let (begin, jobs) = mpsc::unbounded_channel();
        let recorder = Self::off(library, made, sync);
        *lock(&recorder.begin) = Some(begin);
        (recorder, jobs)
    }

    /// What is counted, of all recordings.
    pub fn counts(&self) -> &Counts {
        &self.desk.counts
    }

    /// Records a new stream. Does not block.
    pub fn begin(&self, stream: &Arc<Stream>) {
        let begin = lock(&self.begin);
        let Some(begin) = &*begin else { return };
        let tape = Arc::new(Tape::default());
        let job = Job { stream: Arc::clone(stream), tape: Arc::clone(&tape) };
        if begin.send(job).is_ok() {
            let mut tapes = lock(&self.tapes);
            tapes.retain(|_, (stream, _)| stream.strong_count() > 0);
            tapes.insert(stream.name().to_owned(), (Arc::downgrade(stream), tape));
        }
    }

    /// What is recorded of a stream.
    pub fn tape(&self, stream: &Arc<Stream>) -> Option<Arc<Tape>> {
        let tapes = lock(&self.tapes);
        let (of, tape) = tapes.get(stream.name())?;
        Weak::ptr_eq(of, &Arc::downgrade(stream)).then(|| Arc::clone(tape))
    }

    /// Waits until what was recorded of the newest stream of a name is a video.
    pub async fn finished(&self, name: &str) {
        let tape = lock(&self.tapes).get(name).map(|(_, tape)| Arc::clone(tape));
        if let Some(tape) = tape {
            tape.finished().await;
        }
    }

    /// What its pool does.
    pub fn pool(&self) -> Load {
        self.desk.pool.load()
    }

    /// Takes no more streams; [`Recorder::run`] returns when those that it has are ended and stored.
    pub fn close(&self) {
        lock(&self.begin).take();
    }

    /// Records until [`Recorder::close`].
    pub async fn run(&self, mut jobs: mpsc::UnboundedReceiver<Job>) {
        let mut tasks = JoinSet::new();
        loop {
            let job = match tokio::time::timeout(TIDY_EVERY, jobs.recv()).await {
                Ok(Some(job)) => job,
                Ok(None) => break,
                Err(_) => {
                    retire(&self.desk).await;
                    continue;
                }
            };
            let desk = Arc::clone(&self.desk);
            tasks.spawn(spawned(site!(Stage::Record.name()), async move {
                task::record(&job.stream, &job.tape, &desk).await;
                job.tape.finish();
                retire(&desk).await;
            }));
            while tasks.try_join_next().is_some() {}
        }
        while tasks.join_next().await.is_some() {}
    }

    /// Bytes of a stream that have left its window, from an offset on; up to `max` of them. `None` when they are not
    /// there, or not any more.
    pub async fn read(&self, tape: &Tape, offset: u64, max: usize) -> Option<bytes::Bytes> {
        tape.read(offset, max, &self.desk.library, &self.desk.pool).await
    }
}

/// Deletes recordings that have been kept long enough.
async fn retire(desk: &Arc<Desk>) {
    let due = {
        let desk = Arc::clone(desk);
        let look = Arc::clone(&desk);
        desk.pool.run(move || look.made.due(&look.library)).await.unwrap_or_default()
    };
    let mut gone = Vec::new();
    for (id, bytes) in due {
        match desk.library.delete(&id).await {
            Ok(()) => {
                tracing::info!(id, bytes, "a recording was kept long enough and is deleted");
                desk.counts.retired.fetch_add(1, Relaxed);
                desk.counts.retired_bytes.fetch_add(bytes, Relaxed);
                gone.push(id);
            }
            Err(error) => tracing::warn!(id, %error, "an old recording cannot be deleted"),
        }
    }
    if !gone.is_empty() {
        let desk = Arc::clone(desk);
        let shared = Arc::clone(&desk);
        if let Ok(Err(error)) = desk.pool.run(move || shared.made.remove(&gone)).await {
            tracing::warn!(%error, "the list of recordings cannot be written");
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
