//! Uploads of a whole video: received into a hidden file, synced, renamed into place, listed.
//!
//! Concurrent uploads of one id all complete; the last that finishes is what stays. A whole upload and an open upload
//! in parts of the same id do not touch each other either: whichever completes last stays.
//! What the outcome is called in HTTP is the edge's affair.

use super::hidden::HiddenFile;
use super::name::NewName;
use super::open::{Inner, Library};
use super::room::{Full, Promise};
use super::video::Video;
use super::writer::{Target, WriteError, Writer};
use bytes::Bytes;
use std::io;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, RwLock};

/// What must hold for the id when the upload begins and when it takes its place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Condition {
    #[default]
    Always,
    /// There is no such video (`If-None-Match: *`).
    Absent,
    /// There is such a video (`If-Match: *`).
    Present,
    /// The video has one of these ETags, quotes included (`If-Match`).
    Matches(Vec<String>),
}

/// What a finished upload did.
#[derive(Clone, Debug)]
pub enum Stored {
    Created(Arc<Video>),
    Replaced(Arc<Video>),
}

impl Stored {
    pub fn video(&self) -> &Arc<Video> {
        match self {
            Self::Created(video) | Self::Replaced(video) => video,
        }
    }
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum UploadError {
    #[error("{id:?} is not a name for a new video: a letter or digit, then up to 127 letters, digits, '.', '_' or '-'")]
    InvalidId { id: String },
    /// The library may not be written to.
    #[error("the library does not take uploads: {reason}")]
    Denied { reason: String },
    #[error("an upload may have {limit} bytes at most, this one has {asked} or more")]
    TooLarge { limit: u64, asked: u64 },
    /// No room, or it ran out on the way. `needed` and `available` in bytes, where they are known.
    #[error("no room for this upload{}", room(*needed, *available))]
    NoRoom { needed: Option<u64>, available: Option<u64> },
    #[error("there is a video {id} already")]
    AlreadyExists { id: String },
    /// [`Condition::Present`] or [`Condition::Matches`] does not hold.
    #[error("the video {id} is not the one that this upload was to replace")]
    NotTheSame { id: String },
    #[error("the body has {received} bytes (or more), {expected} were announced")]
    WrongLength { expected: u64, received: u64 },
    #[error("bytes {start}-{end} are not a range of {total} bytes")]
    InvalidRange { start: u64, end: u64, total: u64 },
    /// An upload in parts is open with another total.
    #[error("an upload of {open} bytes is open for this id, this part is of one of {asked} bytes")]
    OtherTotal { open: u64, asked: u64 },
    /// While the part came in, another took its place or the video was completed.
    #[error("another part took the place of this one")]
    Superseded,
    /// A directory or the like has the name.
    #[error("the name {id} is taken by something that is not a video")]
    NameTaken { id: String },
    #[error("{open_max} uploads in parts are open, which is the limit")]
    Busy { open_max: usize },
    /// The parts are too many small islands.
    #[error("the parts that are there form more than {max} separate runs; send the parts between them first")]
    TooScattered { max: usize },
    #[error("store the upload: {0}")]
    Io(Arc<io::Error>),
}

/// A whole upload in progress. Dropping it removes what was received.
pub struct Upload {
    inner: Arc<Inner>,
    id: String,
    expected: Option<u64>,
    received: u64,
    condition: Condition,
    writer: Writer,
    file: Option<Arc<HiddenFile>>,
    _promise: Arc<Promise>,
}

impl Library {
    /// Begins a whole upload. Everything that can be refused is refused here, before the first byte is accepted.
    pub async fn begin_upload(
        &self,
        id: &str,
        expected_len: Option<u64>,
        condition: Condition,
    ) -> Result<Upload, UploadError> {
        let (inner, id) = (Arc::clone(&self.inner), id.to_owned());
        let begun = self.inner.write_pool.run(move || inner.begin(id, expected_len, condition)).await;
        begun.unwrap_or_else(|panicked| Err(UploadError::from(io::Error::other(panicked))))
    }
}

impl Upload {
    /// Takes one piece of the body as it came. Waits while the disk is behind.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), UploadError> {
        let received = self.received.saturating_add(bytes.len() as u64);
        if let Some(expected) = self.expected
            && received > expected
        {
            return Err(UploadError::WrongLength { expected, received });
        }
        self.inner.check_size(received)?;
        self.writer.write(bytes).await?;
        self.received = received;
        Ok(())
    }

    /// Syncs, renames and lists the video. Goes on when the future is dropped after the last byte was written.
    pub async fn finish(mut self) -> Result<Stored, UploadError> {
        let received = self.writer.flushed().await?;
        if let Some(expected) = self.expected
            && received != expected
        {
            return Err(UploadError::WrongLength { expected, received });
        }
        let Some(file) = self.file.take() else { return Err(UploadError::Superseded) };
        let (inner, id, condition) = (Arc::clone(&self.inner), self.id.clone(), self.condition.clone());
        let job = move || inner.publish(&id, &file, &condition);
        let published = self.inner.write_pool.run(job).await;
        published.unwrap_or_else(|panicked| Err(UploadError::from(io::Error::other(panicked))))
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let Some(file) = self.file.take() {
            // Removing a large file takes a while.
            self.inner.write_pool.spawn(move || drop(file));
        }
    }
}

impl Inner {
    fn begin(self: &Arc<Self>, id: String, expected: Option<u64>, condition: Condition) -> Result<Upload, UploadError> {
        self.check_id(&id)?;
        self.check_size(expected.unwrap_or(0))?;
        self.check_condition(&id, &condition)?;
        let promise = Arc::new(self.room.promise(expected.unwrap_or(0))?);
        let file = Arc::new(self.hidden.create()?);
        let target = Target {
            file: Arc::clone(&file),
            offset: 0,
            promise: Arc::clone(&promise),
            gate: Arc::new(RwLock::new(())),
            revoked: Arc::new(AtomicBool::new(false)),
            fails_after: self.config.write_fails_after,
        };
        let writer = Writer::new(target, self.write_pool.clone());
        let inner = Arc::clone(self);
        Ok(Upload { inner, id, expected, received: 0, condition, writer, file: Some(file), _promise: promise })
    }

    /// The id is one of a video, or a legal new name.
    pub(super) fn check_id(&self, id: &str) -> Result<(), UploadError> {
        if self.catalogue.load().get(id).is_some() || NewName::parse(id).is_some() {
            return Ok(());
        }
        Err(UploadError::InvalidId { id: id.to_owned() })
    }

    pub(super) fn check_size(&self, asked: u64) -> Result<(), UploadError> {
        let limit = self.config.upload_bytes_max;
        if asked > limit { Err(UploadError::TooLarge { limit, asked }) } else { Ok(()) }
    }

    pub(super) fn check_condition(&self, id: &str, condition: &Condition) -> Result<(), UploadError> {
        let catalogue = self.catalogue.load();
        let video = catalogue.get(id);
        let not_the_same = || UploadError::NotTheSame { id: id.to_owned() };
        match (condition, video) {
            (Condition::Absent, Some(_)) => Err(UploadError::AlreadyExists { id: id.to_owned() }),
            (Condition::Present | Condition::Matches(_), None) => Err(not_the_same()),
            (Condition::Matches(etags), Some(video)) if !etags.iter().any(|e| e == video.etag()) => Err(not_the_same()),
            _ => Ok(()),
        }
    }
}

fn room(needed: Option<u64>, available: Option<u64>) -> String {
    match needed.zip(available) {
        Some((needed, available)) => {
            format!(
                ": {needed} bytes are needed, {available} are free besides what space_reserve and other uploads hold"
            )
        }
        None => ": the disk is full".to_owned(),
    }
}

impl From<Full> for UploadError {
    fn from(full: Full) -> Self {
        Self::NoRoom { needed: Some(full.needed), available: Some(full.available) }
    }
}

impl From<WriteError> for UploadError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Full(Some(full)) => full.into(),
            WriteError::Full(None) => Self::NoRoom { needed: None, available: None },
            WriteError::Superseded => Self::Superseded,
            WriteError::Io(error) => Self::Io(error),
        }
    }
}

impl From<io::Error> for UploadError {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT) => Self::NoRoom { needed: None, available: None },
            Some(libc::EROFS | libc::EACCES | libc::EPERM) => Self::Denied { reason: error.to_string() },
            _ => Self::Io(Arc::new(error)),
        }
    }
}
