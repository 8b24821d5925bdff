//! Recordings: hidden files that grow at their end and become videos under an id that was announced before.
//!
//! Such a file outlives a crash (`<library>/.weir/recordings/<id>.part`); the next start takes it up. Everything here
//! blocks: for pools, and for the start of a server. It knows nothing about streams and formats.

use super::hidden::HiddenFile;
use super::name::{NAME_BYTES_MAX, NewName};
use super::open::{Inner, Library};
use super::publish::sync_parent;
use super::room::Promise;
use super::upload::{Condition, UploadError};
use super::video::Video;
use super::writer::Target;
use crate::media::ReadAt;
use bytes::Bytes;
use rustix::fs::Access;
use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, RwLock};

/// What stands after the id in the name of a recording that is not whole yet.
const SUFFIX: &str = ".part";
/// Ids that are tried for one recording: as many streams of one name would have to begin in one second.
const ATTEMPTS: u32 = 1000;

/// A recording in progress. Dropping it leaves the file for the next start.
pub struct RecordingFile {
    inner: Arc<Inner>,
    id: String,
    stem: String,
    extension: String,
    target: Target,
    written: u64,
}

impl Library {
    /// Whether videos can be added.
    pub fn is_writable(&self) -> bool {
        rustix::fs::access(self.inner.root.path(), Access::WRITE_OK).is_ok()
    }

    /// Begins a recording under an id that no video has: `stem.extension`, or with a number after the stem. Fails when
    /// there is not at least `room` bytes of space.
    pub fn begin_recording(&self, stem: &str, extension: &str, room: u64) -> Result<RecordingFile, UploadError> {
        let promise = self.inner.room.promise(room)?;
        for id in ids(stem, extension) {
            if self.inner.is_taken(&id) {
                continue;
            }
            if let Some(file) = self.inner.recordings.create_as(format!("{id}{SUFFIX}"))? {
                sync_parent(&file.path)?;
                return Ok(RecordingFile::new(&self.inner, id, file, promise, 0));
            }
        }
        Err(UploadError::NameTaken { id: format!("{stem}.{extension}") })
    }

    /// Whether a crash interrupted recordings: one look at a directory that is mostly not there.
    pub fn has_interrupted_recordings(&self) -> bool {
        !self.inner.recordings.names().is_empty()
    }

    /// The recordings that a crash interrupted.
    pub fn interrupted_recordings(&self) -> Vec<RecordingFile> {
        let mut found = Vec::new();
        for name in self.inner.recordings.names() {
            let Some(id) = name.strip_suffix(SUFFIX).and_then(NewName::parse) else { continue };
            match self.inner.recordings.reopen_listed(&name) {
                Ok(Some(file)) => {
                    let written = file.file.metadata().map_or(0, |metadata| metadata.len());
                    let promise = self.inner.room.promise_again(0);
                    found.push(RecordingFile::new(&self.inner, id.as_str().to_owned(), file, promise, written));
                }
                Ok(None) => {}
                Err(error) => tracing::warn!(name, %error, "an interrupted recording cannot be opened"),
            }
        }
        found
    }
}

/// The ids to try, the nicest first. All are legal names.
fn ids<'a>(stem: &'a str, extension: &'a str) -> impl Iterator<Item = String> + 'a {
    (1..=ATTEMPTS).map(move |n| if n == 1 { format!("{stem}.{extension}") } else { format!("{stem}-{n}.{extension}") })
}

/// Longest stem that leaves room for a number and an extension.
pub const STEM_BYTES_MAX: usize = NAME_BYTES_MAX - "-1000.mp4".len();

impl Inner {
    fn is_taken(&self, id: &str) -> bool {
        self.catalogue.load().get(id).is_some() || fs::symlink_metadata(self.root.path().join(id)).is_ok()
    }
}

impl RecordingFile {
    fn new(inner: &Arc<Inner>, id: String, file: HiddenFile, promise: Promise, written: u64) -> Self {
        file.keep();
        let (stem, extension) = id.rsplit_once('.').unwrap_or((&id, "mp4"));
        let (stem, extension) = (stem.to_owned(), extension.to_owned());
        let target = Target {
            file: Arc::new(file),
            offset: 0,
            promise: Arc::new(promise),
            gate: Arc::new(RwLock::new(())),
            revoked: Arc::new(AtomicBool::new(false)),
            fails_after: inner.config.write_fails_after,
        };
        Self { inner: Arc::clone(inner), id, stem, extension, target, written }
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    /// Bytes that were appended whole.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// The file, to read from while it grows.
    pub fn reader(&self) -> io::Result<File> {
        self.target.file.file.try_clone()
    }

    /// Appends all of the pieces, or none: on failure the file ends where it ended.
    pub fn append(&mut self, pieces: &[Bytes]) -> Result<(), UploadError> {
        let mut queue: VecDeque<Bytes> = pieces.iter().filter(|piece| !piece.is_empty()).cloned().collect();
        let bytes: u64 = queue.iter().map(|piece| piece.len() as u64).sum();
        if let Err(error) = self.target.write(&mut queue, self.written) {
            let _ = self.target.file.file.set_len(self.written);
            return Err(error.into());
        }
        self.written += bytes;
        Ok(())
    }

    /// Cuts the file.
    pub fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.target.file.file.set_len(len)?;
        self.written = len;
        Ok(())
    }

    /// What was appended is on the disk when this returns.
    pub fn sync(&self) -> io::Result<()> {
        self.target.file.file.sync_data()
    }

    /// Makes it a video, under its id unless somebody took that meanwhile.
    pub fn publish(self) -> Result<Arc<Video>, UploadError> {
        let others = ids(&self.stem, &self.extension).filter(|id| *id != self.id);
        for id in std::iter::once(self.id.clone()).chain(others) {
            match self.inner.publish(&id, &self.target.file, &Condition::Absent) {
                Err(UploadError::AlreadyExists { .. } | UploadError::NameTaken { .. }) => {}
                outcome => return outcome.map(|stored| Arc::clone(stored.video())),
            }
        }
        Err(UploadError::NameTaken { id: self.id })
    }

    /// Removes the file.
    pub fn discard(self) {
        self.target.file.discard();
    }
}

impl ReadAt for RecordingFile {
    fn size(&self) -> u64 {
        self.written
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.target.file.file.read_at(buf, offset)
    }
}
