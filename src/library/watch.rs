//! Follows changes in the library's tree, on a thread of its own.
//!
//! Each directory has its own inotify watch, set before the directory is read, so that nothing falls between. A
//! message only says where to look: what is true is read from the disk under the catalogue's lock. Where inotify does
//! not work (some network file systems, too many directories) the tree is read again at an interval.

use super::listing::{Looked, Trust};
use super::open::Inner;
use super::scan::Listing;
use super::video::Stamp;
use notify::event::{AccessKind, AccessMode, CreateKind, EventKind, ModifyKind, RemoveKind};
use notify::{Config, RecommendedWatcher, RecursiveMode, Watcher};
use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

/// Events that belong together (a write and its close) arrive within this time.
const GATHER: Duration = Duration::from_millis(10);
/// How often a file that may be growing is looked at.
const SETTLE_TICK: Duration = Duration::from_millis(200);
/// How often abandoned uploads are looked for.
const HOUSEKEEPING: Duration = Duration::from_secs(60);

/// What the thread is told.
pub enum Message {
    /// The file may have changed.
    Look(PathBuf),
    /// From inotify.
    Event(notify::Result<notify::Event>),
    Stop,
}

/// A file that is listed once it has settled.
struct Candidate {
    stamp: Stamp,
    since: Instant,
}

struct Watch {
    inner: Weak<Inner>,
    sender: Sender<Message>,
    received: Receiver<Message>,
    inotify: Option<RecommendedWatcher>,
    watched: HashSet<PathBuf>,
    candidates: HashMap<PathBuf, Candidate>,
    /// Symbolic links were followed: one change may show under several ids.
    links: bool,
    poll: Duration,
    last_scan: Instant,
    last_housekeeping: Instant,
}

/// What a batch of events asks for.
#[derive(Default)]
struct Batch {
    /// In the order of arrival; a later event about the same path may settle it.
    look: Vec<(PathBuf, Trust)>,
    /// Found changed while a request was answered; what inotify says about the same path is more precise.
    hints: Vec<PathBuf>,
    /// Directories that came, went or moved: their watches are stale.
    directories: Vec<PathBuf>,
    overflow: bool,
}

/// Starts the thread. It ends when the library is dropped.
pub(super) fn start(inner: &Arc<Inner>, received: Receiver<Message>) -> io::Result<()> {
    let sender = super::video::lock(&inner.opener.changed).clone();
    let now = Instant::now();
    let watch = Watch {
        inner: Arc::downgrade(inner),
        poll: inner.config.poll.unwrap_or(inner.config.poll_fallback),
        inotify: None,
        sender,
        received,
        watched: HashSet::new(),
        candidates: HashMap::new(),
        links: false,
        last_scan: now,
        last_housekeeping: now,
    };
    let by_choice = inner.config.poll.is_some();
    thread::Builder::new().name("weir-watch".to_owned()).spawn(move || watch.run(by_choice))?;
    Ok(())
}

impl Watch {
    fn run(mut self, poll_by_choice: bool) {
        if !poll_by_choice {
            self.start_inotify();
        }
        let Some(inner) = self.inner.upgrade() else { return };
        self.rescan(&inner, inner.root.path(), Trust::MayGrow);
        drop(inner);
        loop {
            let mut batch = Batch::default();
            match self.received.recv_timeout(self.patience()) {
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Ok(message) => {
                    batch.take(message);
                    thread::sleep(GATHER);
                    while let Ok(message) = self.received.try_recv() {
                        if matches!(message, Message::Stop) {
                            return;
                        }
                        batch.take(message);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            let Some(inner) = self.inner.upgrade() else { return };
            self.process(&inner, batch);
            self.settle(&inner);
            if self.polls(&inner) && self.last_scan.elapsed() >= self.poll {
                self.rescan(&inner, inner.root.path(), Trust::MayGrow);
            }
            if self.last_housekeeping.elapsed() >= HOUSEKEEPING.min(inner.config.upload_expiry / 4) {
                self.last_housekeeping = Instant::now();
                inner.expire_uploads();
            }
        }
    }

    /// Nothing tells of changes; also when the library's directory itself was moved away.
    fn polls(&self, inner: &Inner) -> bool {
        self.inotify.is_none() || !self.watched.contains(inner.root.path())
    }

    /// How long to wait for a message.
    fn patience(&self) -> Duration {
        let mut patience = HOUSEKEEPING;
        if let Some(inner) = self.inner.upgrade() {
            patience = patience.min(inner.config.upload_expiry / 4);
            if self.polls(&inner) {
                patience = patience.min(self.poll.saturating_sub(self.last_scan.elapsed()));
            }
        }
        if !self.candidates.is_empty() {
            patience = patience.min(SETTLE_TICK);
        }
        patience.max(Duration::from_millis(1))
    }

    fn start_inotify(&mut self) {
        let sender = self.sender.clone();
        let handler = move |event: notify::Result<notify::Event>| {
            // The server's own opening of videos is of no interest.
            let open = matches!(&event, Ok(e) if matches!(e.kind, EventKind::Access(AccessKind::Open(_))));
            if !open {
                let _ = sender.send(Message::Event(event));
            }
        };
        match RecommendedWatcher::new(handler, Config::default()) {
            Ok(watcher) => self.inotify = Some(watcher),
            Err(error) => self.fall_back(&error),
        }
    }

    fn fall_back(&mut self, error: &notify::Error) {
        let interval = self.poll;
        tracing::warn!(%error, ?interval, "the library cannot be watched and is read again at an interval");
        self.inotify = None;
        self.watched.clear();
    }

    fn process(&mut self, inner: &Arc<Inner>, batch: Batch) {
        for directory in &batch.directories {
            self.forget_watches(directory);
        }
        if batch.overflow {
            self.rescan(inner, inner.root.path(), Trust::MayGrow);
            return;
        }
        let mut latest: HashMap<&Path, Trust> = HashMap::new();
        let mut order = Vec::new();
        for (path, trust) in &batch.look {
            if !latest.contains_key(path.as_path()) {
                order.push(path);
            } else if *trust == Trust::AsListed {
                continue;
            }
            latest.insert(path, *trust);
        }
        for path in &batch.hints {
            if !latest.contains_key(path.as_path()) {
                order.push(path);
                latest.insert(path, Trust::MayGrow);
            }
        }
        let mut settled = HashSet::new();
        for path in order {
            let trust = latest[path.as_path()];
            if trust == Trust::Settled {
                self.candidates.remove(path);
                settled.insert(path.clone());
            }
            match inner.look(path, trust) {
                Looked::Done => {}
                Looked::Unsettled => self.note(path),
                Looked::Directory => self.rescan(inner, path, trust),
            }
        }
        if self.links && !settled.is_empty() {
            self.rescan_links(inner, &settled);
        } else if self.links && !(batch.look.is_empty() && batch.hints.is_empty()) {
            self.rescan_links(inner, &HashSet::new());
        }
    }

    /// Reads a directory and all below again, watching each directory before it is read.
    fn rescan(&mut self, inner: &Arc<Inner>, directory: &Path, trust: Trust) {
        if directory == inner.root.path() {
            self.last_scan = Instant::now();
            self.links = false;
        }
        // A directory that appears between the walk and its watch shows in the next walk; each round watches at least
        // one new directory or ends.
        loop {
            if self.inotify.is_some() {
                self.watch(directory);
            }
            let (listing, unsettled) = inner.rescan(directory, &|_| trust);
            for path in unsettled {
                self.note(&path);
            }
            self.links |= listing.links;
            if !self.watch_all(&listing) {
                return;
            }
        }
    }

    /// Brings every id of files that links lead to up to date.
    fn rescan_links(&mut self, inner: &Arc<Inner>, settled: &HashSet<PathBuf>) {
        let trust = |found: &super::video::Found| {
            let known = settled.contains(&found.entry) || settled.contains(&found.path);
            if known { Trust::Settled } else { Trust::MayGrow }
        };
        let (listing, unsettled) = inner.rescan(inner.root.path(), &trust);
        for path in unsettled {
            self.note(&path);
        }
        self.watch_all(&listing);
    }

    /// Watches what is not watched yet; says whether there was any.
    fn watch_all(&mut self, listing: &Listing) -> bool {
        let mut added = false;
        for directory in &listing.directories {
            if self.inotify.is_none() {
                return false;
            }
            added |= self.watch(directory);
        }
        added
    }

    fn watch(&mut self, directory: &Path) -> bool {
        if self.watched.contains(directory) {
            return false;
        }
        let Some(inotify) = &mut self.inotify else { return false };
        match inotify.watch(directory, RecursiveMode::NonRecursive) {
            Ok(()) => self.watched.insert(directory.to_owned()),
            Err(error) if matches!(error.kind, notify::ErrorKind::MaxFilesWatch) => {
                self.fall_back(&error);
                false
            }
            // Gone again, or not readable: then it is not listed either.
            Err(_) => false,
        }
    }

    /// The kernel's watch follows a directory that moves, under its old name, so the watch is set anew.
    fn forget_watches(&mut self, directory: &Path) {
        let stale: Vec<PathBuf> = self.watched.iter().filter(|w| w.starts_with(directory)).cloned().collect();
        for path in stale {
            self.watched.remove(&path);
            if let Some(inotify) = &mut self.inotify {
                let _ = inotify.unwatch(&path);
            }
        }
    }

    fn note(&mut self, path: &Path) {
        let Ok(metadata) = fs::metadata(path) else { return };
        let stamp = Stamp::of(&metadata);
        let now = Instant::now();
        let candidate = self.candidates.entry(path.to_owned()).or_insert(Candidate { stamp, since: now });
        if candidate.stamp != stamp {
            *candidate = Candidate { stamp, since: now };
        }
    }

    /// Lists the candidates that have not changed for long enough.
    fn settle(&mut self, inner: &Arc<Inner>) {
        let mut settled = HashSet::new();
        self.candidates.retain(|path, candidate| {
            let Ok(metadata) = fs::metadata(path) else { return false };
            let stamp = Stamp::of(&metadata);
            if candidate.stamp != stamp {
                *candidate = Candidate { stamp, since: Instant::now() };
            }
            let done = candidate.since.elapsed() >= inner.config.settle;
            if done {
                settled.insert(path.clone());
            }
            !done
        });
        for path in &settled {
            inner.look(path, Trust::Settled);
        }
        if self.links && !settled.is_empty() {
            self.rescan_links(inner, &settled);
        }
    }
}

impl Batch {
    fn take(&mut self, message: Message) {
        match message {
            Message::Look(path) => self.hints.push(path),
            Message::Event(Ok(event)) => self.take_event(event),
            Message::Event(Err(error)) => {
                tracing::debug!(%error, "watching reported an error; everything is read again");
                self.overflow = true;
            }
            Message::Stop => {}
        }
    }

    fn take_event(&mut self, event: notify::Event) {
        if event.need_rescan() {
            self.overflow = true;
            return;
        }
        let (trust, directory) = match event.kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => (Trust::Settled, false),
            EventKind::Access(_) => return,
            EventKind::Modify(ModifyKind::Name(_)) => (Trust::Settled, true),
            EventKind::Modify(ModifyKind::Metadata(_)) => (Trust::AsListed, false),
            EventKind::Create(CreateKind::Folder) => (Trust::MayGrow, true),
            EventKind::Remove(RemoveKind::File) => (Trust::MayGrow, false),
            EventKind::Remove(_) => (Trust::MayGrow, true),
            _ => (Trust::MayGrow, false),
        };
        for path in event.paths {
            if directory {
                self.directories.push(path.clone());
            }
            self.look.push((path, trust));
        }
    }
}
