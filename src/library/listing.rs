//! Changes to the catalogue: one at a time, each decided by what is on disk at that moment.
//!
//! Uploads, deletes and the watcher meet here. Looking at the disk and replacing the snapshot happen under one lock,
//! so that an old look can never overwrite a newer one. Runs on pools and on the watcher's thread, never on a core.

use super::catalogue::Change;
use super::open::Inner;
use super::scan::{Entry, Listing};
use super::video::{Found, Video, lock};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, MutexGuard};

/// Whether a file that was just seen may be listed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    /// It was closed by its writer or renamed in: list it.
    Settled,
    /// It may still be growing: list it only after it has not changed for a while.
    MayGrow,
    /// Its times or permissions were set: that does not make it listed, nor does it make a listed one leave.
    AsListed,
}

/// What a look at one path found.
pub(super) enum Looked {
    /// The catalogue agrees with the disk.
    Done,
    /// A file that must settle first.
    Unsettled,
    /// A directory: to be scanned.
    Directory,
}

impl Inner {
    /// The right to change the catalogue, and to rename and unlink in the library.
    pub(super) fn change(&self) -> MutexGuard<'_, ()> {
        lock(&self.changing)
    }

    /// Replaces the snapshot. The guard is the caller's proof of [`Inner::change`].
    pub(super) fn apply(&self, changes: Vec<Change>, _guard: &MutexGuard<'_, ()>) {
        if changes.is_empty() {
            return;
        }
        let left = changes.iter().any(|change| matches!(change, Change::Remove(_)));
        let next = self.catalogue.load().changed(changes);
        self.catalogue.store(Arc::new(next));
        self.indexing.catalogue_changed(left);
    }

    pub(super) fn new_video(&self, found: Found) -> Arc<Video> {
        Arc::new(Video::new(found, true, Arc::clone(&self.opener)))
    }

    /// Makes the catalogue agree with what one path is now.
    pub(super) fn look(&self, path: &Path, trust: Trust) -> Looked {
        let guard = self.change();
        let Some(id) = self.root.id_of(path) else {
            return if path == self.root.path() { Looked::Directory } else { Looked::Done };
        };
        let catalogue = self.catalogue.load();
        let mut changes = Vec::new();
        let listed = catalogue.get(&id);
        let looked = match self.root.look(path) {
            Entry::File(found) => {
                // What stood here as a directory is gone.
                changes.extend(catalogue.below(&id).iter().map(|v| Change::Remove(v.key())));
                let same = listed.is_some_and(|v| v.matches(&found));
                if same {
                    Looked::Done
                } else if trust == Trust::Settled || (trust == Trust::AsListed && listed.is_some()) {
                    changes.push(Change::Put(self.new_video(found)));
                    Looked::Done
                } else {
                    // Written in place: the listed bytes are no more. It comes back when it has settled.
                    changes.extend(listed.map(|v| Change::Remove(v.key())));
                    Looked::Unsettled
                }
            }
            Entry::Directory => {
                changes.extend(listed.map(|v| Change::Remove(v.key())));
                Looked::Directory
            }
            Entry::None => {
                changes.extend(listed.map(|v| Change::Remove(v.key())));
                changes.extend(catalogue.below(&id).iter().map(|v| Change::Remove(v.key())));
                Looked::Done
            }
        };
        self.apply(changes, &guard);
        looked
    }

    /// Makes the catalogue agree with a directory and everything below; `trust` says which new or changed files may
    /// be listed. Returns what was found there and the files that must settle first.
    pub(super) fn rescan(&self, directory: &Path, trust: &dyn Fn(&Found) -> Trust) -> (Listing, Vec<PathBuf>) {
        let guard = self.change();
        let listing = self.root.scan_below(directory);
        let catalogue = self.catalogue.load();
        let found: HashMap<&str, &Found> = listing.files.iter().map(|f| (&*f.id, f)).collect();
        let before = match self.root.id_of(directory) {
            Some(id) => catalogue.below(&id),
            None => catalogue.videos(),
        };
        let gone = before.iter().filter(|v| !found.contains_key(v.id()));
        let mut changes: Vec<Change> = gone.map(|v| Change::Remove(v.key())).collect();
        let mut unsettled = Vec::new();
        for file in &listing.files {
            match catalogue.get(&file.id) {
                Some(video) if video.matches(file) => {}
                listed => {
                    if trust(file) == Trust::Settled {
                        changes.push(Change::Put(self.new_video(file.clone())));
                    } else {
                        changes.extend(listed.map(|v| Change::Remove(v.key())));
                        unsettled.push(file.entry.clone());
                    }
                }
            }
        }
        drop(found);
        self.apply(changes, &guard);
        (listing, unsettled)
    }
}
