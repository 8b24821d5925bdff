//! Files that are not visible yet: `<library>/.weir/uploads/` and `<library>/.weir/recordings/`, in the library's own
//! file system so that a rename publishes them.
//!
//! Each is locked (`flock`) by the process that writes it, so that a second server on the same library takes none of
//! them for an orphan.

use super::scan::Root;
use std::collections::HashSet;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// Attempts to create a file under a random name before giving up.
const ATTEMPTS: u32 = 8;

pub(super) struct Hidden {
    library: PathBuf,
    directory: PathBuf,
}

/// A hidden file; dropping it removes the file unless it was kept or published. Dropping blocks: not on a core.
pub(super) struct HiddenFile {
    pub(super) name: String,
    pub(super) path: PathBuf,
    pub(super) file: File,
    keep: AtomicBool,
}

impl Hidden {
    pub(super) fn uploads(root: &Root) -> Self {
        Self::new(root, "uploads")
    }

    pub(super) fn recordings(root: &Root) -> Self {
        Self::new(root, "recordings")
    }

    fn new(root: &Root, name: &str) -> Self {
        let library = root.path().to_owned();
        let directory = library.join(".weir").join(name);
        Self { library, directory }
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) fn create(&self) -> io::Result<HiddenFile> {
        self.make_directory()?;
        for _ in 0..ATTEMPTS {
            let mut random = [0u8; 8];
            getrandom::fill(&mut random).map_err(|error| io::Error::other(error.to_string()))?;
            let name = format!("{:016x}", u64::from_le_bytes(random));
            if let Some(file) = self.create_as(name)? {
                return Ok(file);
            }
        }
        Err(io::Error::other("no hidden file could be created"))
    }

    /// Creates a hidden file of a name that the caller made; `None` when the name is taken.
    pub(super) fn create_as(&self, name: String) -> io::Result<Option<HiddenFile>> {
        self.make_directory()?;
        let path = self.directory.join(&name);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC);
        let file = match options.open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
            Err(error) => return Err(error),
        };
        // Another server that starts right now may take the file for an orphan before it is locked.
        Ok(may_use(&file)?.then_some(HiddenFile { name, path, file, keep: AtomicBool::new(false) }))
    }

    /// Names of the hidden files.
    pub(super) fn names(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(&self.directory) else { return Vec::new() };
        entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }

    /// Opens a hidden file of an earlier process; `None` when it is gone or in use by another.
    pub(super) fn reopen(&self, name: &str) -> io::Result<Option<HiddenFile>> {
        let plain = name.len() == 16 && name.bytes().all(|b| b.is_ascii_hexdigit());
        if !plain {
            return Ok(None);
        }
        self.reopen_listed(name)
    }

    /// The same for a name that came from [`Hidden::names`].
    pub(super) fn reopen_listed(&self, name: &str) -> io::Result<Option<HiddenFile>> {
        let path = self.directory.join(name);
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK);
        match options.open(&path) {
            Ok(file) if file.metadata()?.is_file() && may_use(&file)? => {
                Ok(Some(HiddenFile { name: name.to_owned(), path, file, keep: AtomicBool::new(true) }))
            }
            Ok(_) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes what no upload owns.
    pub(super) fn remove_orphans(&self, owned: &HashSet<String>) {
        let Ok(entries) = fs::read_dir(&self.directory) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            if owned.contains(name) || name.ends_with(".journal") {
                continue;
            }
            if let Ok(Some(orphan)) = self.reopen(name) {
                tracing::info!(name, bytes = orphan.file.metadata().map_or(0, |m| m.len()), "abandoned upload removed");
                orphan.discard();
            }
        }
    }

    /// Creates the directory, and refuses one that leads elsewhere.
    fn make_directory(&self) -> io::Result<()> {
        for directory in [self.library.join(".weir"), self.directory.clone()] {
            match fs::create_dir(&directory) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    if !fs::symlink_metadata(&directory)?.is_dir() {
                        return Err(io::Error::new(
                            io::ErrorKind::NotADirectory,
                            "a directory below .weir is something else",
                        ));
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl HiddenFile {
    /// The file stays when this value goes: published, or an upload that outlives the process.
    pub(super) fn keep(&self) {
        self.keep.store(true, Ordering::Relaxed);
    }

    /// The file goes with this value.
    pub(super) fn discard(&self) {
        self.keep.store(false, Ordering::Relaxed);
    }
}

impl Drop for HiddenFile {
    fn drop(&mut self) {
        if !self.keep.load(Ordering::Relaxed)
            && let Err(error) = fs::remove_file(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.path.display(), %error, "hidden file of an upload not removed");
        }
    }
}

/// Locks the file for this process; `false` when another has it or it was removed meanwhile.
fn may_use(file: &File) -> io::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(file.metadata()?.nlink() > 0),
        Err(TryLockError::WouldBlock) => Ok(false),
        // A file system without locks: one server is assumed.
        Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
    }
}
