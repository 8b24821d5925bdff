//! Uploads in parts over time: taken up again at a start, removed when nobody continues them.

use super::journal::Journal;
use super::open::Inner;
use super::parts::PartUpload;
use super::upload::Condition;
use super::video::lock;
use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

impl Inner {
    /// Takes up what an earlier process left, and removes what belongs to nothing.
    pub(super) fn resume_uploads(&self) {
        let mut owned = HashSet::new();
        if let Ok(entries) = fs::read_dir(&self.parts.journals) {
            for entry in entries.flatten() {
                let path = entry.path();
                if path.extension().is_some_and(|extension| extension == "journal") {
                    match self.resume(&path) {
                        Ok(Some(data)) => {
                            owned.insert(data);
                        }
                        Ok(None) => {}
                        Err(error) => tracing::warn!(path = %path.display(), %error, "upload not taken up again"),
                    }
                } else if path.extension().is_some_and(|extension| extension == "tmp") {
                    // A journal that was being written anew; the old one holds.
                    let _ = fs::remove_file(&path);
                }
            }
        }
        self.hidden.remove_orphans(&owned);
        let complete = |upload: &&Arc<PartUpload>| lock(&upload.state).covered.missing(upload.total).is_empty();
        let complete: Vec<_> = lock(&self.parts.open).values().filter(complete).cloned().collect();
        for upload in complete {
            if lock(&upload.state).close()
                && let Err(error) = self.complete(&upload, &Condition::Always)
            {
                tracing::warn!(id = upload.id, %error, "an upload that is whole could not be published");
            }
        }
    }

    /// Takes up one upload; says which hidden file must stay, if any.
    fn resume(&self, path: &Path) -> io::Result<Option<String>> {
        let Some((journal, covered)) = Journal::open(path)? else {
            // A header that cannot be read: the crash came before the first part was acknowledged.
            fs::remove_file(path)?;
            return Ok(None);
        };
        let header = journal.header().clone();
        if header.library != self.root.path().to_string_lossy() {
            return Ok(None);
        }
        let Some(file) = self.hidden.reopen(&header.data)? else {
            // Published just before the crash, or in the hands of another server.
            if !self.hidden.directory().join(&header.data).exists() {
                journal.remove();
            }
            return Ok(None);
        };
        // Between a crash and a start only the wall clock tells how long ago something was.
        let touched = fs::metadata(path)?.modified()?;
        let idle = SystemTime::now().duration_since(touched).unwrap_or(Duration::ZERO);
        let whole = file.file.metadata()?.len() == header.total;
        let newer = lock(&self.parts.open).contains_key(&header.id);
        if !whole || newer || idle > self.config.upload_expiry {
            tracing::info!(id = header.id, "upload that was not continued removed");
            journal.remove();
            file.discard();
            return Ok(None);
        }
        let promise = self.room.promise_again(header.total - covered.bytes().min(header.total));
        let upload = Arc::new(PartUpload::new(journal, Arc::new(file), covered, promise, idle));
        lock(&self.parts.open).insert(header.id, upload);
        Ok(Some(header.data))
    }

    /// Removes uploads that nobody continued for too long.
    pub(super) fn expire_uploads(&self) {
        let expiry = self.config.upload_expiry;
        let open: Vec<_> = lock(&self.parts.open).values().cloned().collect();
        for upload in open {
            let expired = {
                let mut state = lock(&upload.state);
                state.idle() > expiry && state.close()
            };
            if expired {
                tracing::info!(id = upload.id, "upload that was not continued removed");
                self.discard(&upload);
            }
        }
    }
}
