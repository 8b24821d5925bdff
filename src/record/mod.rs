//! Recording: what a live stream sends is written to a file that becomes a video.
//!
//! A recorder is a viewer that skips nothing. For each stream it writes init segment and parts, byte for byte, to a
//! hidden file of the library, synced at every segment; at the end of the stream, or when its coding changes, the file
//! is published. A full disk or a broken one stops that recording and nothing else. Files are written on a pool of
//! their own.
//! Does not belong here: HTTP words, sockets, how parts are found in bytes.

pub mod numbers;
pub mod recover;
pub mod tape;
mod task;

pub use numbers::NumberFile;
pub use tape::{Span, Status, Tape};

use crate::library::Library;
use crate::live::Stream;
use crate::store::Pool;
use crate::store::pool::Load;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Threads that write and sync recordings.
const THREADS: usize = 4;

/// What is recorded, of all streams.
pub struct Recorder {
    library: Library,
    pool: Pool,
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
    /// A recorder that is off.
    pub fn off(library: Library) -> Self {
        Self { library, pool: Pool::new("record", THREADS), tapes: Mutex::default(), begin: Mutex::default() }
    }

    /// A recorder, and the streams that [`Recorder::run`] will record.
    pub fn new(library: Library) -> (Self, mpsc::UnboundedReceiver<Job>) {
        let (begin, jobs) = mpsc::unbounded_channel();
        let recorder = Self::off(library);
        *lock(&recorder.begin) = Some(begin);
        (recorder, jobs)
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
        self.pool.load()
    }

    /// Takes no more streams; [`Recorder::run`] returns when those that it has are ended and stored.
    pub fn close(&self) {
        lock(&self.begin).take();
    }

    /// Records until [`Recorder::close`].
    pub async fn run(&self, mut jobs: mpsc::UnboundedReceiver<Job>) {
        let mut tasks = JoinSet::new();
        while let Some(job) = jobs.recv().await {
            let (library, pool) = (self.library.clone(), self.pool.clone());
            tasks.spawn(async move {
                task::record(&job.stream, &job.tape, &library, &pool).await;
                job.tape.finish();
            });
            while tasks.try_join_next().is_some() {}
        }
        while tasks.join_next().await.is_some() {}
    }

    /// Bytes of a stream that have left its window, from an offset on; up to `max` of them. `None` when they are not
    /// there, or not any more.
    pub async fn read(&self, tape: &Tape, offset: u64, max: usize) -> Option<bytes::Bytes> {
        tape.read(offset, max, &self.library, &self.pool).await
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
