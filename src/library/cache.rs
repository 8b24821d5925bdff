//! The index cache: one file per video in `state_dir/index/`, verified at every load, safe to delete at any time.
//!
//! A file is a head (which video, which bytes of it, checksummed) and the index entry as `media::index` made it,
//! which carries its own checksum. That a file has no index is kept, too. A file appears by rename, so it is never
//! seen half written; after a power cut a checksum tells. Nobody but Weir writes here, so entries may be mapped.

use super::video::{NoIndex, Stamp, Video, lock};
use crate::media::index::{self, Index};
use crate::store::MappedFile;
use bytes::Bytes;
use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// Format of the head, and what the parsers made of the file. Another version is rebuilt in silence: it is what an
/// upgrade leaves. That a file has no index is known of these parsers only.
const VERSION: u32 = HEAD_VERSION << 16 | index::VERSION;
const HEAD_VERSION: u32 = 2;
const MAGIC: &[u8; 8] = b"weir-idx";
/// Magic, version, length of the key, kind of entry, checksum of what precedes it and of the key.
const FIXED_BYTES: usize = 8 + 4 + 4 + 4 + 4;
/// Ids are file-system paths; a longer key is damage.
const KEY_BYTES_MAX: usize = 64 * 1024;
/// The entry begins at a multiple of this.
const ALIGN: usize = 64;

const KIND_INDEX: u32 = 1;
const KIND_UNSUPPORTED: u32 = 2;
const KIND_MALFORMED: u32 = 3;

/// What the cache holds for a video.
pub(super) enum Cached {
    /// And its length in bytes.
    Index(Arc<Index>, u64),
    None(NoIndex),
}

pub(super) struct Cache {
    /// `None`: there is no state directory.
    directory: Option<PathBuf>,
    /// The library's path, part of every key: libraries may share a state directory.
    library: String,
    warned: AtomicBool,
    temporary: AtomicU64,
    /// Held while a finished file is renamed into place or entries are pruned.
    renaming: Mutex<()>,
}

enum Unusable {
    /// Of another video, of other bytes, or of another version of the format.
    Stale {
        expected: bool,
    },
    Corrupt(String),
}

impl Cache {
    pub(super) fn new(state_dir: Option<&Path>, library: &Path) -> Self {
        Self {
            directory: state_dir.map(|dir| dir.join("index")),
            library: library.to_string_lossy().into_owned(),
            warned: AtomicBool::new(false),
            temporary: AtomicU64::new(0),
            renaming: Mutex::new(()),
        }
    }

    /// What is kept for these very bytes of the video. An unusable file is reported once: its rebuild replaces it.
    pub(super) fn load(&self, video: &Video) -> Option<Cached> {
        let path = self.directory.as_ref()?.join(self.file_name(video.id()));
        let file = match MappedFile::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::debug!(path = %path.display(), %error, "index cache entry not read");
                return None;
            }
        };
        match self.decode(&file.slice(0..file.len()), video) {
            Ok(cached) => return Some(cached),
            Err(Unusable::Stale { expected: true }) => {
                tracing::debug!(video = video.id(), "index cache entry is stale and is built anew");
            }
            Err(Unusable::Stale { expected: false }) => {
                tracing::warn!(video = video.id(), "index cache entry is stale and is built anew");
            }
            Err(Unusable::Corrupt(reason)) => {
                tracing::warn!(video = video.id(), reason, "index cache entry is corrupt and is built anew");
            }
        }
        // Gone at once, so that one bad entry is reported once even if its rebuild cannot be stored.
        let _ = fs::remove_file(&path);
        None
    }

    fn decode(&self, bytes: &Bytes, video: &Video) -> Result<Cached, Unusable> {
        let corrupt = |what: &str| Unusable::Corrupt(what.to_owned());
        let word = |at: usize| {
            let word = bytes.get(at..at + 4).and_then(|w| w.try_into().ok()).map(u32::from_le_bytes);
            word.ok_or_else(|| corrupt("shorter than its head"))
        };
        let (version, key_len, kind, checksum) = (word(8)?, word(12)?, word(16)?, word(20)?);
        if bytes.get(..8) != Some(MAGIC) {
            return Err(corrupt("not an index cache entry"));
        }
        if version != VERSION {
            return Err(Unusable::Stale { expected: true });
        }
        let key_len = usize::try_from(key_len).unwrap_or(usize::MAX);
        if key_len > KEY_BYTES_MAX {
            return Err(corrupt("key length out of bounds"));
        }
        let key = bytes.get(FIXED_BYTES..FIXED_BYTES + key_len).ok_or_else(|| corrupt("shorter than its key"))?;
        if head_checksum(&bytes[..FIXED_BYTES - 4], key) != checksum {
            return Err(corrupt("checksum of the head does not match"));
        }
        if key != self.key(video) {
            return Err(Unusable::Stale { expected: video.came_later });
        }
        let body_at = (FIXED_BYTES + key_len).next_multiple_of(ALIGN);
        let body = if body_at <= bytes.len() { bytes.slice(body_at..) } else { Bytes::new() };
        if kind == KIND_INDEX {
            let size = body.len() as u64;
            let index = Index::open(body).map_err(|error| Unusable::Corrupt(error.to_string()))?;
            return Ok(Cached::Index(Arc::new(index), size));
        }
        let (text, sum) = body.split_at_checked(body.len().wrapping_sub(4)).ok_or_else(|| corrupt("no reason"))?;
        if sum != crc32fast::hash(text).to_le_bytes() {
            return Err(corrupt("checksum of the reason does not match"));
        }
        let text = std::str::from_utf8(text).map_err(|_| corrupt("reason is not UTF-8"))?.to_owned();
        match kind {
            KIND_UNSUPPORTED => Ok(Cached::None(NoIndex::Unsupported(text))),
            KIND_MALFORMED => Ok(Cached::None(NoIndex::Malformed(text))),
            _ => Err(corrupt("unknown kind of entry")),
        }
    }

    pub(super) fn store_index(&self, video: &Video, entry: &[u8]) {
        self.store(video, KIND_INDEX, entry, &[]);
    }

    pub(super) fn store_none(&self, video: &Video, reason: &NoIndex) {
        let (kind, text) = match reason {
            NoIndex::Unsupported(text) => (KIND_UNSUPPORTED, text),
            NoIndex::Malformed(text) => (KIND_MALFORMED, text),
        };
        self.store(video, kind, text.as_bytes(), &crc32fast::hash(text.as_bytes()).to_le_bytes());
    }

    fn store(&self, video: &Video, kind: u32, body: &[u8], trailer: &[u8]) {
        let Some(directory) = &self.directory else { return };
        if let Err(error) = self.write(directory, video, kind, body, trailer)
            && !self.warned.swap(true, Ordering::Relaxed)
        {
            let path = directory.display();
            tracing::warn!(%path, %error, "indexes are not cached and will be built again at the next start");
        }
    }

    fn write(&self, directory: &Path, video: &Video, kind: u32, body: &[u8], trailer: &[u8]) -> io::Result<()> {
        let key = self.key(video);
        let key_len = u32::try_from(key.len()).ok().filter(|_| key.len() <= KEY_BYTES_MAX);
        let key_len =
            key_len.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "id too long for the cache"))?;
        let mut head = Vec::with_capacity(FIXED_BYTES + key.len() + ALIGN);
        head.extend_from_slice(MAGIC);
        for word in [VERSION, key_len, kind] {
            head.extend_from_slice(&word.to_le_bytes());
        }
        head.extend_from_slice(&head_checksum(&head, &key).to_le_bytes());
        head.extend_from_slice(&key);
        head.resize(head.len().next_multiple_of(ALIGN), 0);
        fs::create_dir_all(directory)?;
        let number = self.temporary.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}.{}-{number}.tmp", self.prefix(), std::process::id());
        let temporary = directory.join(name);
        let written = File::create(&temporary)
            .and_then(|mut file| {
                file.write_all(&head).and_then(|()| file.write_all(body)).and_then(|()| file.write_all(trailer))
            })
            .and_then(|()| {
                let _pruning_waits = lock(&self.renaming);
                fs::rename(&temporary, directory.join(self.file_name(video.id())))
            });
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written
    }

    /// Removes the entries of videos that are gone and temporary files of earlier processes.
    pub(super) fn prune(&self, ids: impl Iterator<Item = String>) {
        let Some(directory) = &self.directory else { return };
        let Ok(entries) = fs::read_dir(directory) else { return };
        let keep: HashSet<String> = ids.map(|id| self.file_name(&id)).collect();
        let own = format!("{}.{}-", self.prefix(), std::process::id());
        let _nothing_is_renamed_in = lock(&self.renaming);
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            if name.starts_with(&self.prefix()) && !keep.contains(name) && !name.starts_with(&own) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    fn prefix(&self) -> String {
        format!("{:08x}", fnv1a(self.library.as_bytes()) >> 32)
    }

    fn file_name(&self, id: &str) -> String {
        format!("{}-{:016x}.idx", self.prefix(), fnv1a(id.as_bytes()))
    }

    /// Which bytes of which file an entry is for. The library's path is in it, because libraries may share a state
    /// directory and two paths may share a prefix.
    fn key(&self, video: &Video) -> Vec<u8> {
        let Stamp { inode, size, modified_ns, changed_ns, .. } = *video.stamp();
        let mut key = Vec::with_capacity(64 + self.library.len() + video.id().len());
        key.extend_from_slice(&inode.to_le_bytes());
        key.extend_from_slice(&size.to_le_bytes());
        key.extend_from_slice(&modified_ns.to_le_bytes());
        key.extend_from_slice(&changed_ns.to_le_bytes());
        key.extend_from_slice(self.library.as_bytes());
        key.push(0);
        key.extend_from_slice(video.id().as_bytes());
        key
    }
}

fn head_checksum(fixed: &[u8], key: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(fixed);
    hasher.update(key);
    hasher.finalize()
}

/// FNV-1a, 64 bits. Names files only: the key inside decides.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, b| (hash ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3))
}
