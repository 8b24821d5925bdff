//! The write key: who may upload, delete and publish; and keys like it, which fit both schemes of HTTP credentials.
//!
//! Never logged and never shown, except by whoever asks for it with [`WriteKey::expose`] to print it once. It knows
//! nothing about HTTP credentials.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use subtle::ConstantTimeEq;

/// 32 characters of 6 bits each: 192 bits.
const CHARACTERS: usize = 32;
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
/// A key file longer than this is not a key.
const FILE_BYTES_MAX: u64 = 4096;

/// A key; `Debug` does not show it, and there is no `Display`.
#[derive(Clone)]
pub struct WriteKey(String);

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("write key file {path}: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("write key file {path} holds no key: one line of printable ASCII characters without spaces is expected")]
    Unusable { path: PathBuf },
    #[error("the key is empty")]
    Empty,
    #[error("the key must be made of printable ASCII characters without spaces")]
    Characters,
    #[error("generate a write key: {0}")]
    Random(String),
}

impl WriteKey {
    /// A configured key: visible ASCII, so that it can be sent as Bearer token and as Basic password.
    pub fn new(key: impl Into<String>) -> Result<Self, KeyError> {
        let key = key.into();
        if key.is_empty() {
            return Err(KeyError::Empty);
        }
        if !key.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(KeyError::Characters);
        }
        Ok(Self(key))
    }

    /// A new random key of 32 URL-safe characters.
    pub fn generate() -> Result<Self, KeyError> {
        let mut random = [0u8; CHARACTERS];
        getrandom::fill(&mut random).map_err(|error| KeyError::Random(error.to_string()))?;
        Ok(Self(random.iter().map(|byte| char::from(ALPHABET[usize::from(byte & 63)])).collect()))
    }

    /// The key kept in `state_dir/write_key`, or a new one that is kept there from now on. The flag says whether it
    /// is new, so that it can be printed once.
    pub fn load_or_generate(state_dir: &Path) -> Result<(Self, bool), KeyError> {
        let path = state_dir.join("write_key");
        if let Some(key) = Self::load(&path)? {
            return Ok((key, false));
        }
        let key = Self::generate()?;
        match key.keep(state_dir, &path) {
            Ok(()) => Ok((key, true)),
            // Another process was first: its key holds.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Self::load(&path)?.map(|key| (key, false)).ok_or(KeyError::Unusable { path })
            }
            Err(source) => Err(KeyError::File { path, source }),
        }
    }

    fn load(path: &Path) -> Result<Option<Self>, KeyError> {
        let failed = |source| KeyError::File { path: path.to_owned(), source };
        let metadata = match fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let unusable = || KeyError::Unusable { path: path.to_owned() };
        if !metadata.is_file() || metadata.len() > FILE_BYTES_MAX {
            return Err(unusable());
        }
        if metadata.permissions().mode() & 0o077 != 0 {
            tracing::warn!(path = %path.display(), "the write key could be read by others; its mode is set to 0600");
            fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
        }
        let text = fs::read_to_string(path).map_err(failed)?;
        Self::new(text.trim()).map(Some).map_err(|_| unusable())
    }

    /// Writes the whole key under another name first: a key file is never seen half written, whatever crashes.
    fn keep(&self, state_dir: &Path, path: &Path) -> io::Result<()> {
        fs::create_dir_all(state_dir)?;
        let temporary = state_dir.join(format!("write_key.{}.tmp", std::process::id()));
        let _ = fs::remove_file(&temporary);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        let kept = writeln!(file, "{}", self.0)
            .and_then(|()| file.sync_all())
            // A link instead of a rename: it fails when another process was first.
            .and_then(|()| fs::hard_link(&temporary, path));
        let _ = fs::remove_file(&temporary);
        kept.and_then(|()| File::open(state_dir)?.sync_all())
    }

    /// Compares in a time that does not depend on where the first difference is. The length is not secret.
    pub fn matches(&self, given: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(given).into()
    }

    /// The key itself, to be printed once.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for WriteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WriteKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_cannot_be_sent_are_refused() {
        assert!(matches!(WriteKey::new(""), Err(KeyError::Empty)));
        for bad in ["a b", "a\n", "é", "\t"] {
            assert!(matches!(WriteKey::new(bad), Err(KeyError::Characters)), "{bad:?}");
        }
    }

    #[test]
    fn debug_hides_the_key() {
        let key = WriteKey::new("s3cret").expect("a key");
        assert!(!format!("{key:?}").contains("s3cret"));
    }

    #[test]
    fn a_generated_key_is_kept_for_the_owner_only() {
        let dir = tempfile::tempdir().expect("a directory");
        let state = dir.path().join("state");
        let (key, new) = WriteKey::load_or_generate(&state).expect("generated");
        assert!(new);
        assert_eq!(key.expose().len(), 32);
        assert!(key.expose().bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'));
        let mode = fs::metadata(state.join("write_key")).expect("kept").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let (again, new) = WriteKey::load_or_generate(&state).expect("loaded");
        assert!(!new);
        assert!(again.matches(key.expose().as_bytes()));
        assert!(!again.matches(b""));
        assert!(!again.matches(&key.expose().as_bytes()[..31]));
        assert_eq!(fs::read_dir(&state).expect("a directory").count(), 1, "no temporary file is left");
    }

    #[test]
    fn open_permissions_are_closed_and_empty_files_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("write_key");
        fs::write(&path, "secret\n").expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("mode");
        let (key, new) = WriteKey::load_or_generate(dir.path()).expect("loaded");
        assert!(!new && key.matches(b"secret"));
        assert_eq!(fs::metadata(&path).expect("kept").permissions().mode() & 0o777, 0o600);
        fs::write(&path, "\n").expect("written");
        assert!(WriteKey::load_or_generate(dir.path()).is_err());
    }
}
