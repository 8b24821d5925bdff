//! The moment a hidden file becomes a video: synced, renamed, listed, the directory synced.

use super::catalogue::Change;
use super::hidden::HiddenFile;
use super::name::NewName;
use super::open::Inner;
use super::scan::Entry;
use super::upload::{Condition, Stored, UploadError};
use super::video::lock;
use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;
use std::fs::{self, File, FileTimes};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

impl Inner {
    /// Publishes the file under the id. On failure the file is still hidden. Blocks.
    pub(super) fn publish(&self, id: &str, file: &HiddenFile, condition: &Condition) -> Result<Stored, UploadError> {
        file.file.set_times(FileTimes::new().set_modified(self.next_modified()))?;
        file.file.sync_all()?;
        let (stored, entry) = self.rename_and_list(id, file, condition)?;
        file.keep();
        sync_parent(&entry)?;
        Ok(stored)
    }

    fn rename_and_list(
        &self,
        id: &str,
        file: &HiddenFile,
        condition: &Condition,
    ) -> Result<(Stored, PathBuf), UploadError> {
        let guard = self.change();
        self.check_condition(id, condition)?;
        let entry = match (self.catalogue.load().get(id), NewName::parse(id)) {
            (Some(video), _) => video.entry().to_owned(),
            (None, Some(name)) => self.root.path().join(name.as_str()),
            (None, None) => return Err(UploadError::InvalidId { id: id.to_owned() }),
        };
        let replaced = match fs::symlink_metadata(&entry) {
            Ok(metadata) if metadata.is_dir() => return Err(UploadError::NameTaken { id: id.to_owned() }),
            Ok(_) => true,
            Err(_) => false,
        };
        rename(&file.path, &entry, *condition == Condition::Absent).map_err(|error| match error.raw_os_error() {
            Some(libc::EEXIST) => UploadError::AlreadyExists { id: id.to_owned() },
            Some(libc::EISDIR | libc::ENOTEMPTY) => UploadError::NameTaken { id: id.to_owned() },
            Some(libc::EXDEV) => {
                UploadError::Denied { reason: "the video lies on another file system than the library".to_owned() }
            }
            _ => error.into(),
        })?;
        let Entry::File(mut found) = self.root.look(&entry) else {
            let gone = io::Error::new(io::ErrorKind::NotFound, "the video was removed as soon as it was there");
            return Err(gone.into());
        };
        // Under a link to a directory the id is not the path below the library.
        found.id = Arc::from(id);
        let video = self.new_video(found);
        self.apply(vec![Change::Put(Arc::clone(&video))], &guard);
        Ok((if replaced { Stored::Replaced(video) } else { Stored::Created(video) }, entry))
    }

    /// A modification time that no earlier upload got: the kernel's own advances in steps of milliseconds, in which an
    /// inode number may be used twice.
    fn next_modified(&self) -> SystemTime {
        let mut last = lock(&self.last_modified);
        let next = SystemTime::now().max(*last + Duration::from_nanos(1));
        *last = next;
        next
    }
}

fn rename(from: &Path, to: &Path, only_if_absent: bool) -> io::Result<()> {
    if !only_if_absent {
        return fs::rename(from, to);
    }
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // The file system or the kernel has no such rename; a link fails on an existing name, too.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            fs::hard_link(from, to)?;
            let _ = fs::remove_file(from);
            Ok(())
        }
        other => other.map_err(io::Error::from),
    }
}

/// Makes a rename or an unlink in the directory of `entry` durable.
pub(super) fn sync_parent(entry: &Path) -> io::Result<()> {
    match entry.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}
