//! A read-only mapping of a whole file, handed out as `Bytes` slices that keep it alive.
#![allow(unsafe_code, reason = "mapping a file is unsafe by nature; this file holds the argument why it is sound")]

use super::residency::{Seen, may_ask_mincore};
use crate::media::ReadAt;
use bytes::Bytes;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// An open file, its mapping, and the size both had when it was opened.
pub struct MappedFile {
    file: Arc<File>,
    map: Bytes,
    address: usize,
    pub(super) seen: Seen,
    pub(super) asks_mincore: bool,
}

impl MappedFile {
    /// Opens and maps a regular file. The mapping costs address space, not memory.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::from_file(File::open(path)?)
    }

    /// Maps a file that is already open.
    pub fn from_file(file: File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        if metadata.len() == 0 {
            let file = Arc::new(file);
            return Ok(Self { file, map: Bytes::new(), address: 0, seen: Seen::new(0), asks_mincore: false });
        }
        // SAFETY: the mapping is private to this value and read-only. Rust code never loads from it: slices go to
        // `writev` (see the rules in store/mod.rs), so a file that is changed or cut underneath is an error of the
        // system call and not a torn read. The index cache maps files that only this process writes, by rename.
        let map = unsafe { memmap2::MmapOptions::new().map(&file)? };
        let address = map.as_ptr() as usize;
        let seen = Seen::new(map.len() as u64);
        let asks_mincore = may_ask_mincore(&file);
        let file = Arc::new(file);
        Ok(Self { file, map: Bytes::from_owner(map), address, seen, asks_mincore })
    }

    /// For files whose pages are read in by [`MappedFile::populate`] alone: a page fault that meets the mark of an
    /// earlier read-ahead would start the next one, on the core that took the fault.
    pub fn without_read_ahead(self) -> Self {
        if !self.is_empty() {
            // SAFETY: advice on this value's own mapping; it changes how faults read, not what they find.
            unsafe { libc::madvise(self.address as *mut libc::c_void, self.map.len(), libc::MADV_RANDOM) };
        }
        self
    }

    /// Size in bytes at the time of opening.
    pub fn len(&self) -> u64 {
        self.map.len() as u64
    }

    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// A slice of the mapping: no copy, one reference count. The range is clipped to the file.
    pub fn slice(&self, range: Range<u64>) -> Bytes {
        let clip = |v: u64| usize::try_from(v).unwrap_or(usize::MAX).min(self.map.len());
        let (start, end) = (clip(range.start), clip(range.end));
        if start >= end { Bytes::new() } else { self.map.slice(start..end) }
    }

    /// The open file, for metadata and page cache questions.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The same, shared: a connection may have the kernel send from it.
    pub fn shared_file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }

    /// First address of the mapping; 0 when the file is empty.
    pub(super) fn address(&self) -> usize {
        self.address
    }
}

impl ReadAt for MappedFile {
    fn size(&self) -> u64 {
        self.len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(buf, offset)
    }
}
