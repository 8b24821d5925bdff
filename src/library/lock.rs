//! One server at a time on a directory that it writes: a lock (`flock`) on the directory itself.
//!
//! The kernel lets go of it when the process ends, however it ends, so none is ever stale. It knows nothing about what
//! the directory is for.

use rustix::fs::Access;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// Directories that this process alone writes, until it goes.
#[must_use = "the locks last as long as this value"]
pub struct Locks {
    _held: Vec<File>,
}

#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error("{what} {path}: another weir server uses this directory; give each its own, or end the other")]
    Taken { what: &'static str, path: PathBuf },
    #[error("{what} {path}: {source}")]
    Io { what: &'static str, path: PathBuf, source: io::Error },
}

impl Locks {
    /// Takes each of the directories (named by their config key) or none. One that is not there or cannot be written is
    /// left alone: nothing will be written there.
    pub fn take<'a>(directories: impl IntoIterator<Item = (&'static str, &'a Path)>) -> Result<Self, LockError> {
        let (mut held, mut taken) = (Vec::new(), Vec::new());
        for (what, path) in directories {
            let Ok(real) = fs::canonicalize(path) else { continue };
            // One directory for two purposes is the operator's choice; a second lock would exclude this very process.
            if taken.contains(&real) || rustix::fs::access(&real, Access::WRITE_OK).is_err() {
                continue;
            }
            let failed = |source| LockError::Io { what, path: path.to_owned(), source };
            let directory = File::open(&real).map_err(failed)?;
            match directory.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(LockError::Taken { what, path: path.to_owned() }),
                // A file system without locks on directories: one server is assumed.
                Err(TryLockError::Error(error)) => tracing::debug!(path = %real.display(), %error, "not locked"),
            }
            held.push(directory);
            taken.push(real);
        }
        Ok(Self { _held: held })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_taken_once_until_it_is_let_go() {
        let place = tempfile::tempdir().expect("a directory");
        let other = place.path().join("other");
        fs::create_dir(&other).expect("a directory");
        let both = [("library", place.path()), ("state_dir", place.path())];
        let first = Locks::take(both).expect("free, and one directory may serve twice");
        let second = Locks::take([("library", other.as_path()), ("state_dir", place.path())]);
        let Err(error) = second.map(|_| ()) else { panic!("taken twice") };
        assert!(error.to_string().starts_with("state_dir "), "{error}");
        let _freed = Locks::take([("library", other.as_path())]).expect("a failed attempt keeps nothing");
        drop(first);
        let _again = Locks::take(both).expect("free again");
    }
}
