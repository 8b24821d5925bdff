//! Uploads in parts: any order, in parallel, surviving a crash.
//!
//! The parts of an upload share one sparse hidden file of the announced size. A part whose bytes nobody has written
//! yet goes straight to its place. One that overlaps what is there, or another part in flight, is received beside it
//! and copied in once it is whole, so that a part that breaks off never damages bytes that were acknowledged. Where
//! parts overlap, the one that finishes later wins; an unfinished one that it overwrites is superseded.
//!
//! A part counts when its bytes are synced and then its journal record is. Once every byte is there the file is
//! published like a whole upload. `continued.rs` takes open uploads up again after a restart.

use super::hidden::HiddenFile;
use super::journal::{Header, Journal, VERSION};
use super::open::{Inner, Library};
use super::ranges::Ranges;
use super::room::Promise;
use super::upload::{Condition, Stored, UploadError};
use super::video::{Video, lock};
use super::writer::{Target, Writer};
use bytes::Bytes;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

/// Separate runs of bytes that an upload may consist of: bounds the memory and the journal of one upload.
pub const RUNS_MAX: usize = 10_000;
/// Bytes copied at a time when a part is copied to its place.
const COPY_BYTES: usize = 1 << 20;

/// What a finished part did.
#[derive(Clone, Debug)]
pub enum PartOutcome {
    /// The part is safe; these bytes are still missing, in order.
    Accepted { missing: Vec<Range<u64>> },
    /// It was the last, and the video is new.
    Created(Arc<Video>),
    /// It was the last, and the video took the place of another.
    Replaced(Arc<Video>),
}

/// The open uploads.
pub(super) struct Parts {
    /// Where journals are kept.
    pub(super) journals: PathBuf,
    pub(super) open: Mutex<HashMap<String, Arc<PartUpload>>>,
    /// Held while an upload is created.
    creating: Mutex<()>,
}

pub(super) struct PartUpload {
    pub(super) id: String,
    pub(super) total: u64,
    pub(super) exclusive: bool,
    pub(super) file: Arc<HiddenFile>,
    promise: Arc<Promise>,
    /// Held for reading by each write into the file, for writing by who moves bytes or takes the file away.
    gate: Arc<RwLock<()>>,
    /// Held across the sync of a record. Taken before `state`.
    pub(super) journal: Mutex<Journal>,
    pub(super) state: Mutex<PartState>,
}

pub(super) struct PartState {
    pub(super) covered: Ranges,
    claims: Vec<Arc<Claim>>,
    /// When anything last happened, and how long nothing had happened before that (over a restart).
    pub(super) touched: Instant,
    pub(super) idle_before: Duration,
    closed: bool,
}

/// The bytes that a part in flight writes to.
struct Claim {
    range: Range<u64>,
    /// Received beside the file, copied when whole.
    staged: bool,
    revoked: Arc<AtomicBool>,
}

/// A part in flight. Dropping it gives it up; nothing of it counts.
pub struct Part {
    inner: Arc<Inner>,
    upload: Arc<PartUpload>,
    claim: Arc<Claim>,
    staging: Option<Arc<HiddenFile>>,
    condition: Condition,
    received: u64,
    writer: Writer,
    done: bool,
}

impl Library {
    /// Begins a part: bytes `start` to `end_inclusive` of `total`. The first part of an id opens the upload.
    pub async fn write_part(
        &self,
        id: &str,
        start: u64,
        end_inclusive: u64,
        total: u64,
        condition: Condition,
    ) -> Result<Part, UploadError> {
        if start > end_inclusive || end_inclusive >= total {
            return Err(UploadError::InvalidRange { start, end: end_inclusive, total });
        }
        let (inner, id) = (Arc::clone(&self.inner), id.to_owned());
        let range = start..end_inclusive + 1;
        let begun = self.inner.write_pool.run(move || inner.begin_part(&id, range, total, condition)).await;
        begun.unwrap_or_else(|panicked| Err(UploadError::from(io::Error::other(panicked))))
    }

    /// What an open upload in parts lacks; `None` when none is open for the id. Does not block.
    pub fn missing(&self, id: &str) -> Option<Vec<Range<u64>>> {
        let upload = lock(&self.inner.parts.open).get(id).cloned()?;
        let state = lock(&upload.state);
        Some(state.covered.missing(upload.total))
    }
}

impl Part {
    /// Takes one piece of the body as it came. Waits while the disk is behind.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), UploadError> {
        let expected = self.claim.range.end - self.claim.range.start;
        let received = self.received.saturating_add(bytes.len() as u64);
        if received > expected {
            return Err(UploadError::WrongLength { expected, received });
        }
        self.writer.write(bytes).await?;
        self.received = received;
        Ok(())
    }

    /// Syncs the part and its record, and publishes the video if it was the last. Goes on when the future is dropped
    /// after the last byte was written.
    pub async fn finish(mut self) -> Result<PartOutcome, UploadError> {
        let expected = self.claim.range.end - self.claim.range.start;
        let received = self.writer.flushed().await?;
        if received != expected {
            return Err(UploadError::WrongLength { expected, received });
        }
        let pool = self.inner.write_pool.clone();
        let finished = pool.run(move || self.commit()).await;
        finished.unwrap_or_else(|panicked| Err(UploadError::from(io::Error::other(panicked))))
    }

    fn commit(&mut self) -> Result<PartOutcome, UploadError> {
        let upload = Arc::clone(&self.upload);
        match &self.staging {
            None => {
                let _no_move = upload.gate.read().unwrap_or_else(|poisoned| poisoned.into_inner());
                if self.claim.revoked.load(Ordering::Relaxed) {
                    return Err(UploadError::Superseded);
                }
                upload.file.file.sync_data()?;
                upload.record(&self.claim)?;
            }
            Some(staging) => {
                let _alone = upload.gate.write().unwrap_or_else(|poisoned| poisoned.into_inner());
                if self.claim.revoked.load(Ordering::Relaxed) {
                    return Err(UploadError::Superseded);
                }
                upload.clear_place(&self.claim)?;
                copy(&staging.file, &upload.file.file, self.claim.range.clone())?;
                upload.file.file.sync_data()?;
                upload.record(&self.claim)?;
            }
        }
        self.done = true;
        self.inner.outcome(&upload, &self.condition)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        let (upload, claim, staging) = (Arc::clone(&self.upload), Arc::clone(&self.claim), self.staging.take());
        self.inner.write_pool.spawn(move || {
            upload.release(&claim);
            drop(staging);
        });
    }
}

impl Inner {
    fn begin_part(
        self: &Arc<Self>,
        id: &str,
        range: Range<u64>,
        total: u64,
        condition: Condition,
    ) -> Result<Part, UploadError> {
        self.check_id(id)?;
        self.check_size(total)?;
        self.check_condition(id, &condition)?;
        loop {
            let upload = self.open_or_create(id, total, &condition)?;
            // The upload was completed or given up between the two: look again.
            let Some(claim) = upload.claim(range.clone())? else { continue };
            let mut part = Part {
                inner: Arc::clone(self),
                writer: self.part_writer(&upload, &claim, None)?,
                upload,
                claim,
                staging: None,
                condition,
                received: 0,
                done: false,
            };
            if part.claim.staged {
                let staging = Arc::new(self.hidden.create()?);
                part.writer = self.part_writer(&part.upload, &part.claim, Some(&staging))?;
                part.staging = Some(staging);
            }
            return Ok(part);
        }
    }

    fn part_writer(
        &self,
        upload: &PartUpload,
        claim: &Claim,
        staging: Option<&Arc<HiddenFile>>,
    ) -> Result<Writer, UploadError> {
        let promise = match staging {
            Some(_) => Arc::new(self.room.promise(claim.range.end - claim.range.start)?),
            None => Arc::clone(&upload.promise),
        };
        let target = Target {
            file: Arc::clone(staging.unwrap_or(&upload.file)),
            offset: if staging.is_some() { 0 } else { claim.range.start },
            promise,
            gate: Arc::clone(&upload.gate),
            revoked: Arc::clone(&claim.revoked),
            fails_after: self.config.write_fails_after,
        };
        Ok(Writer::new(target, self.write_pool.clone()))
    }

    fn open_or_create(&self, id: &str, total: u64, condition: &Condition) -> Result<Arc<PartUpload>, UploadError> {
        let _one_at_a_time = lock(&self.parts.creating);
        let open = {
            let open = lock(&self.parts.open);
            if open.get(id).is_none() && open.len() >= self.config.uploads_open_max {
                return Err(UploadError::Busy { open_max: self.config.uploads_open_max });
            }
            open.get(id).cloned()
        };
        if let Some(upload) = open {
            if upload.total != total {
                return Err(UploadError::OtherTotal { open: upload.total, asked: total });
            }
            return Ok(upload);
        }
        let promise = self.room.promise(total)?;
        let file = self.hidden.create()?;
        file.file.set_len(total).map_err(|error| match error.raw_os_error() {
            // Larger than a file can be here.
            Some(libc::EFBIG | libc::EINVAL) => UploadError::NoRoom { needed: Some(total), available: None },
            _ => error.into(),
        })?;
        make_directory(&self.parts.journals)?;
        let exclusive = *condition == Condition::Absent;
        let library = self.root.path().to_string_lossy().into_owned();
        let header = Header { version: VERSION, library, id: id.to_owned(), total, data: file.name.clone(), exclusive };
        let journal = Journal::create(&self.parts.journals.join(format!("{}.journal", file.name)), header)?;
        // From here on the upload outlives the process.
        file.file.sync_all().and_then(|()| super::publish::sync_parent(&file.path))?;
        file.keep();
        let upload = PartUpload::new(journal, Arc::new(file), Ranges::default(), promise, Duration::ZERO);
        let upload = Arc::new(upload);
        lock(&self.parts.open).insert(id.to_owned(), Arc::clone(&upload));
        Ok(upload)
    }

    /// The answer to a part that counts; publishes the video if nothing is missing.
    fn outcome(&self, upload: &Arc<PartUpload>, condition: &Condition) -> Result<PartOutcome, UploadError> {
        {
            let mut state = lock(&upload.state);
            let missing = state.covered.missing(upload.total);
            if !missing.is_empty() || !state.close() {
                return Ok(PartOutcome::Accepted { missing });
            }
        }
        match self.complete(upload, condition)? {
            Stored::Created(video) => Ok(PartOutcome::Created(video)),
            Stored::Replaced(video) => Ok(PartOutcome::Replaced(video)),
        }
    }

    /// Publishes a closed upload. When that fails for a reason that may pass, the upload is open again.
    pub(super) fn complete(&self, upload: &Arc<PartUpload>, condition: &Condition) -> Result<Stored, UploadError> {
        {
            let _alone = upload.gate.write().unwrap_or_else(|poisoned| poisoned.into_inner());
            for claim in &lock(&upload.state).claims {
                claim.revoked.store(true, Ordering::Relaxed);
            }
        }
        let condition = if upload.exclusive { &Condition::Absent } else { condition };
        let published = self.publish(&upload.id, &upload.file, condition);
        match &published {
            Ok(_) => {
                self.forget(upload);
                lock(&upload.journal).remove();
            }
            Err(UploadError::AlreadyExists { .. } | UploadError::NotTheSame { .. }) => self.discard(upload),
            Err(_) => lock(&upload.state).closed = false,
        }
        published
    }

    fn forget(&self, upload: &Arc<PartUpload>) {
        let mut open = lock(&self.parts.open);
        if open.get(&upload.id).is_some_and(|other| Arc::ptr_eq(other, upload)) {
            open.remove(&upload.id);
        }
    }

    /// Removes a closed upload with everything it received.
    pub(super) fn discard(&self, upload: &Arc<PartUpload>) {
        self.forget(upload);
        for claim in &lock(&upload.state).claims {
            claim.revoked.store(true, Ordering::Relaxed);
        }
        lock(&upload.journal).remove();
        let _ = fs::remove_file(&upload.file.path);
    }

    /// Gives up the upload that is open for this id; says whether there was one.
    pub(super) fn abandon_upload(&self, id: &str) -> bool {
        let upload = lock(&self.parts.open).get(id).cloned();
        // One that is being completed is a video already.
        match upload.filter(|upload| lock(&upload.state).close()) {
            Some(upload) => {
                self.discard(&upload);
                true
            }
            None => false,
        }
    }
}

impl Parts {
    pub(super) fn new(state_dir: Option<&Path>, hidden: &super::hidden::Hidden) -> Self {
        let journals = state_dir.map_or_else(|| hidden.directory().to_owned(), |state| state.join("uploads"));
        Self { journals, open: Mutex::default(), creating: Mutex::default() }
    }
}

impl PartUpload {
    pub(super) fn new(
        journal: Journal,
        file: Arc<HiddenFile>,
        covered: Ranges,
        promise: Promise,
        idle_before: Duration,
    ) -> Self {
        let header = journal.header();
        let (id, total, exclusive) = (header.id.clone(), header.total, header.exclusive);
        let state = PartState { covered, claims: Vec::new(), touched: Instant::now(), idle_before, closed: false };
        let (promise, gate) = (Arc::new(promise), Arc::new(RwLock::new(())));
        Self { id, total, exclusive, file, promise, gate, journal: Mutex::new(journal), state: Mutex::new(state) }
    }

    /// Takes a range for a part; `None` when the upload is closed.
    fn claim(&self, range: Range<u64>) -> Result<Option<Arc<Claim>>, UploadError> {
        let mut state = lock(&self.state);
        if state.closed {
            return Ok(None);
        }
        if state.covered.len() + state.claims.len() >= RUNS_MAX {
            return Err(UploadError::TooScattered { max: RUNS_MAX });
        }
        let in_flight = |c: &Arc<Claim>| c.range.start < range.end && range.start < c.range.end;
        let staged = state.covered.intersects(&range) || state.claims.iter().any(in_flight);
        let claim = Arc::new(Claim { range, staged, revoked: Arc::new(AtomicBool::new(false)) });
        state.claims.push(Arc::clone(&claim));
        state.touch();
        Ok(Some(claim))
    }

    /// Makes a synced range count.
    fn record(&self, claim: &Arc<Claim>) -> io::Result<()> {
        let mut journal = lock(&self.journal);
        let known = lock(&self.state).covered.clone();
        if !known.covers(&claim.range) {
            journal.there(claim.range.clone(), &known)?;
        }
        let mut state = lock(&self.state);
        state.covered.insert(claim.range.clone());
        state.claims.retain(|other| !Arc::ptr_eq(other, claim));
        state.touch();
        Ok(())
    }

    /// Before a staged part is copied: what it overwrites does not count until it is whole again, and parts in flight
    /// that write there are superseded. The caller holds the gate for writing.
    fn clear_place(&self, claim: &Arc<Claim>) -> io::Result<()> {
        let mut journal = lock(&self.journal);
        let overwrites = lock(&self.state).covered.intersects(&claim.range);
        if overwrites {
            journal.gone(claim.range.clone())?;
        }
        let mut state = lock(&self.state);
        state.covered.remove(claim.range.clone());
        for other in &state.claims {
            let overlap = other.range.start < claim.range.end && claim.range.start < other.range.end;
            if overlap && !other.staged {
                other.revoked.store(true, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    /// Ends a part that does not count, and gives back the space it took.
    fn release(&self, claim: &Arc<Claim>) {
        if !claim.staged {
            let _alone = self.gate.write().unwrap_or_else(|poisoned| poisoned.into_inner());
            let untouched = !lock(&self.state).closed && !claim.revoked.swap(true, Ordering::Relaxed);
            if untouched {
                use rustix::fs::FallocateFlags as Flags;
                let length = claim.range.end - claim.range.start;
                // Not every file system can; then the space is free when the upload ends.
                let holes = Flags::PUNCH_HOLE | Flags::KEEP_SIZE;
                let _ = rustix::fs::fallocate(&self.file.file, holes, claim.range.start, length);
            }
        }
        let mut state = lock(&self.state);
        state.claims.retain(|other| !Arc::ptr_eq(other, claim));
        state.touch();
    }
}

impl PartState {
    fn touch(&mut self) {
        self.touched = Instant::now();
        self.idle_before = Duration::ZERO;
    }

    /// How long nobody continued the upload.
    pub(super) fn idle(&self) -> Duration {
        if self.claims.is_empty() { self.touched.elapsed().saturating_add(self.idle_before) } else { Duration::ZERO }
    }

    /// Takes the right to complete or to discard the upload; `false` when somebody has it.
    pub(super) fn close(&mut self) -> bool {
        !std::mem::replace(&mut self.closed, true)
    }
}

/// Creates the directory of journals durably.
fn make_directory(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(directory)?;
    super::publish::sync_parent(directory)
}

/// Copies a staged part to its place.
fn copy(from: &File, to: &File, place: Range<u64>) -> io::Result<()> {
    let mut buffer = vec![0u8; COPY_BYTES.min(usize::try_from(place.end - place.start).unwrap_or(COPY_BYTES))];
    let mut at = place.start;
    while at < place.end {
        let want = buffer.len().min(usize::try_from(place.end - at).unwrap_or(buffer.len()));
        from.read_exact_at(&mut buffer[..want], at - place.start)?;
        to.write_all_at(&buffer[..want], at)?;
        at += want as u64;
    }
    Ok(())
}
