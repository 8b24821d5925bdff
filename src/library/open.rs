//! The library as a whole: its configuration, how it starts, what its parts share.

use super::cache::Cache;
use super::catalogue::{Catalogue, Change};
use super::indexer::{Indexing, Parser};
use super::room::Room;
use super::scan::Root;
use super::shelf::{Kind, Shelf};
use super::video::{Opener, Video};
use super::watch::{self, Message};
use super::{hidden::Hidden, parts::Parts};
use crate::lazy::Tally;
use crate::media::index::Index;
use crate::store::Pool;
use crate::store::pool::Load;
use arc_swap::{ArcSwap, Guard};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, SystemTime};

/// How a library is opened. [`LibraryConfig::new`] has the defaults.
#[derive(Clone)]
pub struct LibraryConfig {
    /// The directory of the videos. May be read-only; then uploads and deletes are denied.
    pub library: PathBuf,
    /// Index cache, upload journals, write key. `None`: no cache, and journals stand beside the uploads.
    pub state_dir: Option<PathBuf>,
    /// Look for changes at this interval instead of by inotify.
    pub poll: Option<Duration>,
    /// Interval of looking where inotify does not work, and of looking again at what may have escaped it.
    pub poll_fallback: Duration,
    /// A file that nobody closed is listed when it has not changed for this long.
    pub settle: Duration,
    /// Largest upload.
    pub upload_bytes_max: u64,
    /// Free space that uploads leave on the library's file system.
    pub space_reserve: u64,
    /// An upload in parts that nobody continued for this long is removed.
    pub upload_expiry: Duration,
    /// Uploads in parts that may be open at once.
    pub uploads_open_max: usize,
    /// Bytes of index entries that stay open (mapped, where there is a cache).
    pub index_bytes_max: u64,
    /// Indexes and files that stay open. Each takes a mapping, a file also a descriptor.
    pub indexes_open_max: usize,
    pub files_open_max: usize,
    /// Threads that write and sync uploads.
    pub write_threads: usize,
    /// Threads that index on request.
    pub index_threads: usize,
    /// What turns a file into an index entry.
    pub parser: Parser,
    /// Where it is written down what requests paid for opening index entries, and what the background indexer does.
    pub opened: Tally,
    pub indexed: Tally,
    /// Bytes an upload may write before writing fails as on a full disk; `None`: the disk decides. For tests.
    pub write_fails_after: Option<u64>,
}

impl LibraryConfig {
    pub fn new(library: impl Into<PathBuf>) -> Self {
        Self {
            library: library.into(),
            state_dir: None,
            poll: None,
            poll_fallback: Duration::from_secs(10),
            settle: Duration::from_secs(2),
            upload_bytes_max: 64 << 30,
            space_reserve: 256 << 20,
            upload_expiry: Duration::from_secs(24 * 3600),
            uploads_open_max: 256,
            index_bytes_max: 256 << 20,
            indexes_open_max: 4096,
            files_open_max: 512,
            write_threads: 4,
            index_threads: 2,
            parser: Arc::new(|file| Index::build(file)),
            opened: Tally::unlisted(),
            indexed: Tally::unlisted(),
            write_fails_after: None,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("library {path}: {source}")]
    Library { path: PathBuf, source: io::Error },
    #[error("start the library's watcher: {0}")]
    Watcher(io::Error),
}

/// A handle; clones share the library. It may be used from any thread and any runtime.
#[derive(Clone)]
pub struct Library {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) config: LibraryConfig,
    pub(super) root: Root,
    pub(super) catalogue: ArcSwap<Catalogue>,
    pub(super) changing: Mutex<()>,
    pub(super) opener: Arc<Opener>,
    pub(super) cache: Cache,
    pub(super) parser: Parser,
    pub(super) index_pool: Pool,
    pub(super) indexes: Shelf,
    pub(super) indexing: Indexing,
    pub(super) write_pool: Pool,
    pub(super) hidden: Hidden,
    pub(super) recordings: Hidden,
    pub(super) room: Arc<Room>,
    pub(super) parts: Parts,
    /// Modification time given to the newest upload.
    pub(super) last_modified: Mutex<SystemTime>,
    messages: Mutex<mpsc::Sender<Message>>,
}

impl Library {
    /// What its pools do: opening files, indexing, writing.
    pub fn pools(&self) -> [Load; 3] {
        [&self.inner.opener.pool, &self.inner.index_pool, &self.inner.write_pool].map(Pool::load)
    }

    /// Lists the library, takes up the uploads that were open, and starts to watch. Blocks; for the start of a server.
    pub fn open(config: LibraryConfig) -> Result<Self, OpenError> {
        let root = Root::open(&config.library);
        let root = root.map_err(|source| OpenError::Library { path: config.library.clone(), source })?;
        let (messages, received) = mpsc::channel();
        let files = Kind { used: |video| video.file.used(), clear: |video| video.file.clear() };
        let opener = Arc::new(Opener {
            pool: Pool::new("open", 2),
            files: Shelf::new(files, config.files_open_max, u64::MAX),
            changed: Mutex::new(messages.clone()),
        });
        let listing = root.scan();
        if listing.passed_over > 0 {
            let passed_over = listing.passed_over;
            tracing::warn!(
                passed_over,
                "not listed: names that are not UTF-8, or what may not be read; see level debug"
            );
        }
        let changes =
            listing.files.into_iter().map(|found| Change::Put(Arc::new(Video::new(found, false, Arc::clone(&opener)))));
        let catalogue = Catalogue::default().changed(changes.collect());
        let indexes = Kind { used: |video| video.index.used(), clear: |video| video.index.clear() };
        let hidden = Hidden::uploads(&root);
        let inner = Inner {
            catalogue: ArcSwap::from_pointee(catalogue),
            changing: Mutex::new(()),
            opener,
            cache: Cache::new(config.state_dir.as_deref(), root.path()),
            parser: Arc::clone(&config.parser),
            index_pool: Pool::new("index", config.index_threads),
            indexes: Shelf::new(indexes, config.indexes_open_max, config.index_bytes_max),
            indexing: Indexing::new(),
            write_pool: Pool::new("write", config.write_threads),
            room: Arc::new(Room::new(root.path(), config.space_reserve)),
            parts: Parts::new(config.state_dir.as_deref(), &hidden),
            recordings: Hidden::recordings(&root),
            hidden,
            last_modified: Mutex::new(SystemTime::UNIX_EPOCH),
            messages: Mutex::new(messages),
            root,
            config,
        };
        let inner = Arc::new(inner);
        inner.resume_uploads();
        watch::start(&inner, received).map_err(OpenError::Watcher)?;
        Ok(Self { inner })
    }

    /// The videos at this moment. Lock-free.
    pub fn catalogue(&self) -> Guard<Arc<Catalogue>> {
        self.inner.catalogue.load()
    }

    /// One video. Lock-free; the id is a key and nothing else.
    pub fn video(&self, id: &str) -> Option<Arc<Video>> {
        self.inner.catalogue.load().get(id).cloned()
    }
}

impl Inner {
    pub(super) fn tell_watcher(&self, message: Message) {
        let _ = super::video::lock(&self.messages).send(message);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.tell_watcher(Message::Stop);
        self.indexing.stop();
    }
}
