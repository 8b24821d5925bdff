//! One video of the catalogue: what was found on disk, its open file and its index.
//!
//! A `Video` never changes what it stands for. When the file on disk changes, the catalogue gets a new `Video` with a
//! new ETag; this one refuses to open ([`FileError::Changed`]).

use super::shelf::{Kind, Shelf, Slot};
use crate::media::index::{Index, Summary};
use crate::store::{MappedFile, Pool, coarse_ms};
use bytes::Bytes;
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, mpsc};
use std::time::SystemTime;
use tokio::sync::watch;

/// Which bytes a file held when it was listed. Times in ns since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub device: u64,
    pub inode: u64,
    pub size: u64,
    pub modified_ns: i128,
    pub changed_ns: i128,
}

impl Stamp {
    pub fn of(metadata: &Metadata) -> Self {
        let ns = |seconds: i64, ns: i64| i128::from(seconds) * 1_000_000_000 + i128::from(ns);
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            modified_ns: ns(metadata.mtime(), metadata.mtime_nsec()),
            changed_ns: ns(metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Same file, same size, not written since. The change time is left out: a rename or a link moves it, too.
    fn same_bytes(&self, other: &Self) -> bool {
        (self.device, self.inode, self.size, self.modified_ns)
            == (other.device, other.inode, other.size, other.modified_ns)
    }
}

/// A file as it was found: what a [`Video`] is made of.
#[derive(Clone, Debug)]
pub struct Found {
    pub id: Arc<str>,
    /// The name in the library that is listed, below a resolved directory; deleting the video removes this name.
    pub entry: PathBuf,
    /// The resolved file; differs from `entry` when that is a symbolic link.
    pub path: PathBuf,
    pub stamp: Stamp,
    pub modified: SystemTime,
}

impl Found {
    pub(super) fn without_file(id: &str) -> Self {
        let stamp = Stamp { device: 0, inode: 0, size: 0, modified_ns: 0, changed_ns: 0 };
        let (id, modified) = (Arc::from(id), SystemTime::UNIX_EPOCH);
        Self { id, entry: PathBuf::new(), path: PathBuf::new(), stamp, modified }
    }
}

/// What an index can be for a video.
#[derive(Clone, Debug)]
pub enum IndexState {
    /// Not looked at yet.
    Pending,
    Ready(Arc<Summary>),
    None(NoIndex),
}

/// Why a video has no index; stays so until the file changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoIndex {
    /// Not a container with an index; the text says which have one.
    Unsupported(String),
    /// Broken media; the text says what and where.
    Malformed(String),
}

/// What the parser said about a video.
#[derive(Clone, Debug)]
pub(super) enum Known {
    Ready(Arc<Summary>),
    None(NoIndex),
}

#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file is not what was listed; the catalogue is being brought up to date.
    #[error("the file of {id} has changed since it was listed")]
    Changed { id: String },
    #[error("open the file of {id}: {source}")]
    Io { id: String, source: io::Error },
}

/// An open file is checked at most this often: a system call less for each small request.
const CHECK_EVERY_MS: u64 = 200;

/// What opening files needs: where it runs, how many stay open, whom to tell about changes.
pub(super) struct Opener {
    pub(super) pool: Pool,
    pub(super) files: Shelf,
    pub(super) changed: Mutex<mpsc::Sender<super::watch::Message>>,
}

impl Opener {
    /// One that no file is opened with.
    pub(super) fn none() -> Arc<Self> {
        let files = Kind { used: |video| video.file.used(), clear: |video| video.file.clear() };
        Arc::new(Self {
            pool: Pool::new("open", 1),
            files: Shelf::new(files, 1, 1),
            changed: Mutex::new(mpsc::channel().0),
        })
    }
}

/// The outcome of one index flight, for everyone who waits for it.
pub(super) type FlightOutcome = Option<Result<Arc<Index>, super::IndexError>>;

/// A video of the catalogue.
pub struct Video {
    found: Found,
    etag: Bytes,
    /// Listed while the server ran, so that an older cache entry of the same id is no surprise.
    pub(super) came_later: bool,
    opener: Arc<Opener>,
    opening: Mutex<()>,
    /// When the open file is to be checked again, in ms of [`coarse_ms`].
    check_at_ms: AtomicU64,
    pub(super) file: Slot<MappedFile>,
    pub(super) index: Slot<Index>,
    pub(super) known: OnceLock<Known>,
    pub(super) flight: Mutex<Option<watch::Receiver<FlightOutcome>>>,
}

impl Video {
    pub(super) fn new(found: Found, came_later: bool, opener: Arc<Opener>) -> Self {
        let s = &found.stamp;
        let etag = format!("\"{:x}-{:x}-{:x}-{:x}-{:x}\"", s.device, s.inode, s.size, s.modified_ns, s.changed_ns);
        Self {
            found,
            etag: Bytes::from(etag),
            came_later,
            opener,
            opening: Mutex::new(()),
            check_at_ms: AtomicU64::new(0),
            file: Slot::default(),
            index: Slot::default(),
            known: OnceLock::new(),
            flight: Mutex::new(None),
        }
    }

    /// The path below the library, with `/` between names.
    pub fn id(&self) -> &str {
        &self.found.id
    }

    pub fn size_bytes(&self) -> u64 {
        self.found.stamp.size
    }

    pub fn modified(&self) -> SystemTime {
        self.found.modified
    }

    /// A strong ETag, quotes included. Made of device, inode, size, modification and change time.
    pub fn etag(&self) -> &str {
        std::str::from_utf8(&self.etag).unwrap_or_default()
    }

    /// The same, shared: for a header without a copy.
    pub fn etag_bytes(&self) -> Bytes {
        self.etag.clone()
    }

    /// What is known about the index right now; never waits.
    pub fn index_state(&self) -> IndexState {
        match self.known.get() {
            None => IndexState::Pending,
            Some(Known::Ready(summary)) => IndexState::Ready(Arc::clone(summary)),
            Some(Known::None(reason)) => IndexState::None(reason.clone()),
        }
    }

    /// The mapped file, opened at the first call and again after it was closed for room. Every now and then it is
    /// checked that the open file still holds the bytes that were listed.
    pub async fn file(self: &Arc<Self>) -> Result<Arc<MappedFile>, FileError> {
        if let Some(file) = self.file.get(self.opener.files.tick()) {
            let now_ms = coarse_ms();
            if now_ms >= self.check_at_ms.load(Ordering::Relaxed) {
                // One fstat of an open file: answered from the inode in memory.
                self.check(file.file())?;
                self.check_at_ms.store(now_ms + CHECK_EVERY_MS, Ordering::Relaxed);
            }
            return Ok(file);
        }
        let video = Arc::clone(self);
        let opened = self.opener.pool.run(move || video.open_file()).await;
        opened.unwrap_or_else(|panicked| Err(self.io_error(io::Error::other(panicked))))
    }

    /// Opens and maps on the calling thread, which must not be a core.
    pub(super) fn open_file(self: &Arc<Self>) -> Result<Arc<MappedFile>, FileError> {
        let _one_at_a_time = lock(&self.opening);
        if let Some(file) = self.file.get(self.opener.files.tick()) {
            self.check(file.file())?;
            return Ok(file);
        }
        let opened = self.open_checked()?;
        let mapped = MappedFile::from_file(opened).map_err(|source| self.io_error(source))?.without_read_ahead();
        if mapped.len() != self.size_bytes() {
            return Err(self.changed());
        }
        let mapped = Arc::new(mapped);
        self.file.put(Arc::clone(&mapped), self.opener.files.tick());
        self.opener.files.add(self, mapped.len());
        Ok(mapped)
    }

    /// Opens the file that was listed, or fails: a link in its place is refused, another file is noticed.
    fn open_checked(&self) -> Result<File, FileError> {
        // O_NONBLOCK: a FIFO that took the file's place must not hold the thread.
        let flags = libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK;
        match OpenOptions::new().read(true).custom_flags(flags).open(&self.found.path) {
            Ok(file) => {
                self.check(&file)?;
                Ok(file)
            }
            Err(error) => match error.raw_os_error() {
                Some(libc::ENOENT | libc::ELOOP | libc::ENOTDIR | libc::ENXIO | libc::EACCES) => Err(self.changed()),
                _ => Err(self.io_error(error)),
            },
        }
    }

    fn check(&self, file: &File) -> Result<(), FileError> {
        let metadata = file.metadata().map_err(|source| self.io_error(source))?;
        if metadata.is_file() && self.found.stamp.same_bytes(&Stamp::of(&metadata)) {
            Ok(())
        } else {
            Err(self.changed())
        }
    }

    /// The error, and a hint to the watcher to look again.
    fn changed(&self) -> FileError {
        let hint = super::watch::Message::Look(self.found.entry.clone());
        let _ = lock(&self.opener.changed).send(hint);
        FileError::Changed { id: self.id().to_owned() }
    }

    fn io_error(&self, source: io::Error) -> FileError {
        FileError::Io { id: self.id().to_owned(), source }
    }

    pub(super) fn stamp(&self) -> &Stamp {
        &self.found.stamp
    }

    pub(super) fn key(&self) -> Arc<str> {
        Arc::clone(&self.found.id)
    }

    pub(super) fn entry(&self) -> &Path {
        &self.found.entry
    }

    pub(super) fn path(&self) -> &Path {
        &self.found.path
    }

    pub(super) fn matches(&self, found: &Found) -> bool {
        self.found.stamp == found.stamp && self.found.path == found.path
    }
}

impl std::fmt::Debug for Video {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Video").field("id", &self.found.id).field("etag", &self.etag).finish_non_exhaustive()
    }
}

/// Locks whatever a panicking thread may have left: the values behind these locks are valid at every step.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
