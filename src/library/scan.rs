//! What is in the library's directory right now.
//!
//! Walks directories and reports regular files; decides which names count. It knows nothing about the catalogue.
//!
//! Not listed: names that begin with a dot, names that are not UTF-8, what is not a regular file, what this process
//! may not read, and symbolic links that lead out of the library or back to a directory they are in.

use super::video::{Found, Stamp};
use rustix::fs::Access;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

/// Symbolic links to directories that one id may pass. With the check for cycles it bounds what links can multiply.
const LINKS_MAX: u32 = 4;

/// The resolved directory of the library.
#[derive(Clone, Debug)]
pub struct Root(PathBuf);

/// Everything below one directory.
#[derive(Debug, Default)]
pub struct Listing {
    pub files: Vec<Found>,
    /// Resolved directories, each once: what has to be watched.
    pub directories: HashSet<PathBuf>,
    /// Symbolic links were followed, so a change may show under more than one id.
    pub links: bool,
    /// What was passed over though nobody hid it: names that are not UTF-8, and what may not be read.
    pub passed_over: u64,
}

/// What a path in the library is.
pub enum Entry {
    File(Found),
    Directory,
    /// Gone, or not listed.
    None,
}

struct Pending {
    path: PathBuf,
    /// Empty for the library itself.
    id: String,
    links: u32,
    /// (device, inode) of the directories this one is in.
    ancestors: Vec<(u64, u64)>,
}

impl Root {
    /// Resolves the library's directory.
    pub fn open(path: &Path) -> std::io::Result<Self> {
        let root = fs::canonicalize(path)?;
        // Fails with the reason when it is not a directory or may not be read.
        fs::read_dir(&root)?;
        Ok(Self(root))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The id of a path that was found below the library; `None` for the library itself and for names that are not
    /// listed.
    pub fn id_of(&self, path: &Path) -> Option<String> {
        let mut id = String::new();
        for component in path.strip_prefix(&self.0).ok()?.components() {
            let Component::Normal(name) = component else { return None };
            if !id.is_empty() {
                id.push('/');
            }
            id.push_str(listed_name(name)?);
        }
        if id.is_empty() { None } else { Some(id) }
    }

    /// Lists the library.
    pub fn scan(&self) -> Listing {
        self.walk(Pending { path: self.0.clone(), id: String::new(), links: 0, ancestors: Vec::new() })
    }

    /// Lists one directory of the library and what is below. `directory` must be a resolved path.
    pub fn scan_below(&self, directory: &Path) -> Listing {
        match self.id_of(directory) {
            Some(id) => self.walk(Pending { path: directory.to_owned(), id, links: 0, ancestors: Vec::new() }),
            None if directory == self.0 => self.scan(),
            None => Listing::default(),
        }
    }

    /// Looks at one path whose parent directory is resolved.
    pub fn look(&self, path: &Path) -> Entry {
        let Some(id) = self.id_of(path) else { return Entry::None };
        let Ok(metadata) = fs::symlink_metadata(path) else { return Entry::None };
        if metadata.is_dir() {
            return Entry::Directory;
        }
        if metadata.is_symlink() {
            return match self.resolve(path) {
                Some((target, metadata)) if metadata.is_file() => file(id, path.to_owned(), target, &metadata),
                Some(_) => Entry::Directory,
                None => Entry::None,
            };
        }
        file(id, path.to_owned(), path.to_owned(), &metadata)
    }

    fn walk(&self, start: Pending) -> Listing {
        let mut listing = Listing::default();
        let mut pending = vec![start];
        while let Some(directory) = pending.pop() {
            self.read_directory(&directory, &mut listing, &mut pending);
        }
        listing
    }

    fn read_directory(&self, directory: &Pending, listing: &mut Listing, pending: &mut Vec<Pending>) {
        let entries = match fs::read_dir(&directory.path) {
            Ok(entries) => entries,
            Err(error) => {
                tracing::debug!(path = %directory.path.display(), %error, "directory not listed");
                listing.passed_over += 1;
                return;
            }
        };
        let Ok(own) = fs::metadata(&directory.path) else { return };
        let mut ancestors = directory.ancestors.clone();
        ancestors.push((own.dev(), own.ino()));
        listing.directories.insert(directory.path.clone());
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some(name) = listed_name(&name) else {
                listing.passed_over += u64::from(name.to_str().is_none());
                continue;
            };
            let id = if directory.id.is_empty() { name.to_owned() } else { format!("{}/{name}", directory.id) };
            let path = entry.path();
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() {
                let ancestors = ancestors.clone();
                pending.push(Pending { path, id, links: directory.links, ancestors });
            } else if kind.is_symlink() {
                listing.links = true;
                let Some((target, metadata)) = self.resolve(&path) else { continue };
                if metadata.is_file() {
                    push_file(listing, file(id, path, target, &metadata));
                } else if directory.links < LINKS_MAX && !self.leads_back(&target, &metadata, &ancestors) {
                    let ancestors = ancestors.clone();
                    pending.push(Pending { path: target, id, links: directory.links + 1, ancestors });
                }
            } else if kind.is_file() {
                // Does not follow links, should one have taken the name meanwhile.
                let Ok(metadata) = entry.metadata() else { continue };
                push_file(listing, file(id, path.clone(), path, &metadata));
            }
        }
    }

    /// Where a link leads: a file or directory in the library that is not hidden.
    fn resolve(&self, link: &Path) -> Option<(PathBuf, Metadata)> {
        let target = fs::canonicalize(link).ok()?;
        if target != self.0 && self.id_of(&target).is_none() {
            tracing::debug!(path = %link.display(), "link not followed: it leads out of the library");
            return None;
        }
        // The target is resolved: a link here would be one that was put in its place.
        let metadata = fs::symlink_metadata(&target).ok()?;
        (metadata.is_file() || metadata.is_dir()).then_some((target, metadata))
    }

    /// The link's directory is one that the link is in.
    fn leads_back(&self, target: &Path, metadata: &Metadata, ancestors: &[(u64, u64)]) -> bool {
        target == self.0 || ancestors.contains(&(metadata.dev(), metadata.ino()))
    }
}

fn push_file(listing: &mut Listing, entry: Entry) {
    match entry {
        Entry::File(found) => listing.files.push(found),
        _ => listing.passed_over += 1,
    }
}

fn file(id: String, entry: PathBuf, path: PathBuf, metadata: &Metadata) -> Entry {
    if !metadata.is_file() {
        return Entry::None;
    }
    if rustix::fs::access(&path, Access::READ_OK).is_err() {
        tracing::debug!(path = %path.display(), "file not listed: it may not be read");
        return Entry::None;
    }
    let modified = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    Entry::File(Found { id: Arc::from(id), entry, path, stamp: Stamp::of(metadata), modified })
}

fn listed_name(name: &OsStr) -> Option<&str> {
    match name.to_str() {
        Some(name) if name.starts_with('.') => None,
        Some(name) => Some(name),
        None => {
            tracing::debug!(?name, "name not listed: it is not UTF-8");
            None
        }
    }
}
