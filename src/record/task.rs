//! The recorder of one stream: takes every part, has batches of them written on the pool, publishes what it wrote.

use super::Desk;
use super::tape::{Recording, Source, Status, Tape};
use crate::library::{RecordingFile, STEM_BYTES_MAX, UploadError};
use crate::live::{Followed, Follower, Part, Stream};
use crate::media::time::civil;
use crate::observe::latency;
use crate::profile::{Stage, span};
use bytes::Bytes;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// Bytes and parts that are written in one turn of the pool.
const BATCH_BYTES: u64 = 8 << 20;
const BATCH_PARTS: usize = 256;
/// What was written is synced when no part came for this long.
const SYNC_IDLE: Duration = Duration::from_secs(2);
/// After a failure the next recording is not tried sooner, and not with less space.
const RETRY_AFTER: Duration = Duration::from_secs(1);
const RETRY_ROOM: u64 = 4 << 20;

/// Records a stream until it ends.
pub(super) async fn record(stream: &Arc<Stream>, tape: &Arc<Tape>, desk: &Arc<Desk>) {
    let follower = Follower::from_first(stream);
    let recorder = Recorder {
        name: stream.name().to_owned(),
        follower,
        tape: Arc::clone(tape),
        desk: Arc::clone(desk),
        writing: None,
        next_offset: stream.start().offset,
        failed: None,
    };
    recorder.run().await;
}

struct Recorder {
    name: String,
    follower: Follower,
    tape: Arc<Tape>,
    desk: Arc<Desk>,
    writing: Option<Writing>,
    /// End in the stream of the last part that was taken.
    next_offset: u64,
    /// When the last recording failed.
    failed: Option<Instant>,
}

/// A recording that is being written; travels to the pool and back.
struct Writing {
    file: RecordingFile,
    tape: Arc<Tape>,
    desk: Arc<Desk>,
    _active: Active,
    /// The init segment of the recording: another one ends it.
    of: Arc<Part>,
    synced: u64,
    synced_us: i64,
}

/// Counts a recording that is being written.
struct Active(Arc<Desk>);

/// Parts that follow each other, and what comes after them.
struct Batch {
    parts: Vec<Arc<Part>>,
    then: Then,
}

enum Then {
    More,
    Idle,
    Lost,
    End,
}

#[derive(Debug, thiserror::Error)]
enum RecordError {
    #[error("no room on the library's disk")]
    NoRoom,
    #[error("{0}")]
    Store(UploadError),
    #[error("{0}")]
    Sync(#[from] io::Error),
    #[error("the disk was slower than the stream for longer than the window holds")]
    TooSlow,
    #[error("a bug ended the recording; see the log")]
    Panicked,
}

impl From<UploadError> for RecordError {
    fn from(error: UploadError) -> Self {
        if matches!(error, UploadError::NoRoom { .. }) { Self::NoRoom } else { Self::Store(error) }
    }
}

impl Recorder {
    async fn run(mut self) {
        loop {
            let batch = self.batch().await;
            for run in batch.parts.chunk_by(|a, b| Arc::ptr_eq(&a.init, &b.init)) {
                self.take(run).await;
            }
            match batch.then {
                Then::More => {}
                Then::Idle => self.turn(Vec::new(), true).await,
                Then::Lost => {
                    self.stop(Some(RecordError::TooSlow)).await;
                    self.follower.skip();
                }
                Then::End => return self.stop(None).await,
            }
        }
    }

    /// The parts that are there; waits for the first.
    async fn batch(&mut self) -> Batch {
        let mut batch = Batch { parts: Vec::new(), then: Then::More };
        let mut bytes = 0;
        let unsynced = self.writing.as_ref().is_some_and(|writing| writing.synced < writing.file.written());
        let first = if unsynced {
            match tokio::time::timeout(SYNC_IDLE, self.follower.next()).await {
                Ok(first) => first,
                Err(_) => return Batch { then: Then::Idle, ..batch },
            }
        } else {
            self.follower.next().await
        };
        let mut next = Some(first);
        while let Some(followed) = next {
            match followed {
                Followed::Part(part) => {
                    bytes += part.len;
                    batch.parts.push(part);
                }
                Followed::Lost => batch.then = Then::Lost,
                Followed::End => batch.then = Then::End,
            }
            if !matches!(batch.then, Then::More) || bytes >= BATCH_BYTES || batch.parts.len() >= BATCH_PARTS {
                break;
            }
            next = poll_fn(|cx| match self.follower.poll_next(cx) {
                Poll::Ready(followed) => Poll::Ready(Some(followed)),
                Poll::Pending => Poll::Ready(None),
            })
            .await;
        }
        batch
    }

    /// Takes parts of one coding.
    async fn take(&mut self, mut parts: &[Arc<Part>]) {
        let (Some(first), Some(last)) = (parts.first(), parts.last()) else { return };
        let end = last.offset + last.len;
        if self.writing.as_ref().is_some_and(|writing| !Arc::ptr_eq(&writing.of.init, &first.init)) {
            self.stop(None).await;
        }
        if self.writing.is_none() {
            let waits = self.failed.is_some_and(|at| at.elapsed() < RETRY_AFTER);
            let keyframe = parts.iter().position(|part| part.keyframe);
            if let (Some(at), false) = (keyframe, waits) {
                let before = at.checked_sub(1).map_or(self.next_offset, |at| parts[at].offset + parts[at].len);
                parts = &parts[at..];
                self.begin(&parts[0], before).await;
            }
        }
        if self.writing.is_some() {
            self.turn(parts.to_vec(), false).await;
        }
        self.next_offset = end;
    }

    /// Begins a recording with a part; `before` is where the part before it ended.
    async fn begin(&mut self, part: &Arc<Part>, before: u64) {
        let extension = part.init.container();
        let stem = stem(&self.name, SystemTime::now());
        let announced = format!("{stem}.{extension}");
        let room = if self.failed.is_some() { RETRY_ROOM } else { 0 };
        let (library, init) = (self.desk.library.clone(), part.init.bytes());
        let begun = self.desk.pool.run(move || {
            let mut file = library.begin_recording(&stem, extension, room)?;
            if let Err(error) = file.append(&[init]) {
                file.discard();
                return Err(error.into());
            }
            let reader = file.reader()?;
            Ok::<_, RecordError>((file, reader))
        });
        let (file, reader) = match begun.await.unwrap_or(Err(RecordError::Panicked)) {
            Ok(begun) => begun,
            Err(error) => return self.not_begun(announced, part, &error),
        };
        let init_bytes = part.init.bytes().len() as u64;
        let shift = part.init_offset();
        self.tape.push(Recording {
            status: Status {
                video: file.id().to_owned(),
                bytes: init_bytes,
                synced_bytes: 0,
                recording: true,
                error: None,
            },
            // The stream has the init segment at this place only if nothing else was sent between.
            from: if before == shift { shift } else { part.offset },
            shift,
            init: part.init.bytes(),
            source: Source::Growing(Arc::new(reader)),
        });
        tracing::info!(stream = self.name, id = file.id(), "recording");
        self.failed = None;
        let (tape, desk) = (Arc::clone(&self.tape), Arc::clone(&self.desk));
        desk.counts.active.fetch_add(1, Relaxed);
        let active = Active(Arc::clone(&desk));
        desk.counts.bytes.fetch_add(init_bytes, Relaxed);
        self.writing = Some(Writing {
            file,
            tape,
            desk,
            _active: active,
            of: Arc::clone(part),
            synced: 0,
            synced_us: part.start_us,
        });
    }

    /// Says why there is no recording; a failed one before it keeps its place.
    fn not_begun(&mut self, video: String, part: &Part, error: &RecordError) {
        let first_time = self.failed.replace(Instant::now()).is_none();
        if !first_time {
            return;
        }
        self.desk.counts.failed.fetch_add(1, Relaxed);
        tracing::warn!(stream = self.name, %error, "not recorded");
        let error = Some(error.to_string());
        let status = Status { video, bytes: 0, synced_bytes: 0, recording: false, error };
        let (from, shift, init) = (part.offset, part.offset, Bytes::new());
        self.tape.push(Recording { status, from, shift, init, source: Source::None });
    }

    /// Has parts written; a failure stops the recording.
    async fn turn(&mut self, parts: Vec<Arc<Part>>, sync: bool) {
        let Some(mut writing) = self.writing.take() else { return };
        let done = self.desk.pool.run(move || {
            let _span = span!("write_parts");
            let _timed = latency::stage(Stage::Record);
            let done = writing.write(&parts).and_then(|()| if sync { writing.sync() } else { Ok(()) });
            (writing, done)
        });
        match done.await {
            Ok((writing, done)) => {
                self.writing = Some(writing);
                if let Err(error) = done {
                    self.stop(Some(error)).await;
                }
            }
            Err(_) => {
                self.failed = Some(Instant::now());
                self.desk.counts.failed.fetch_add(1, Relaxed);
                self.tape.update(|recording| recording.stopped(Some(&RecordError::Panicked)));
            }
        }
    }

    /// Ends the recording and makes it a video.
    async fn stop(&mut self, error: Option<RecordError>) {
        let Some(writing) = self.writing.take() else { return };
        if let Some(error) = &error {
            tracing::warn!(stream = self.name, id = writing.file.id(), %error, "recording stopped");
            self.failed = Some(Instant::now());
            self.desk.counts.failed.fetch_add(1, Relaxed);
            // Before the work on the disk, which may take its time: viewers of the status want to know.
            self.tape.update(|recording| recording.status.error = Some(error.to_string()));
        }
        let name = self.name.clone();
        let stopped = self.desk.pool.run(move || writing.publish(&name, error.as_ref())).await;
        if stopped.is_err() {
            self.tape.update(|recording| recording.stopped(Some(&RecordError::Panicked)));
        }
    }
}

impl Writing {
    fn write(&mut self, parts: &[Arc<Part>]) -> Result<(), RecordError> {
        for part in parts {
            if part.keyframe && part.start_us.saturating_sub(self.synced_us) >= self.desk.sync_us {
                self.sync()?;
                self.synced_us = part.start_us;
            }
            self.file.append(&part.rope)?;
            let written = self.file.written();
            self.desk.counts.bytes.fetch_add(part.len, Relaxed);
            self.tape.update(|recording| recording.status.bytes = written);
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), RecordError> {
        let written = self.file.written();
        if self.synced < written {
            self.file.sync()?;
            self.synced = written;
            self.tape.update(|recording| recording.status.synced_bytes = written);
        }
        Ok(())
    }

    fn publish(self, name: &str, error: Option<&RecordError>) {
        let (tape, desk) = (self.tape, self.desk);
        let written = self.file.written();
        if written <= self.of.init.bytes().len() as u64 {
            self.file.discard();
            tape.update(|recording| {
                recording.status.bytes = 0;
                recording.status.synced_bytes = 0;
                recording.source = Source::None;
                recording.stopped(error);
            });
            return;
        }
        match self.file.publish() {
            Ok(video) => {
                tracing::info!(stream = name, id = video.id(), bytes = written, "recorded");
                desk.made.add(video.id(), video.etag());
                tape.update(|recording| {
                    recording.status.video = video.id().to_owned();
                    recording.status.synced_bytes = written;
                    recording.source = Source::Video(video.etag().to_owned());
                    recording.stopped(error);
                });
            }
            Err(failure) => {
                // The file stays hidden, and is taken up by the next start.
                tracing::warn!(stream = name, error = %failure, "a recording could not become a video");
                let failure = RecordError::from(failure);
                tape.update(|recording| recording.stopped(Some(&failure)));
            }
        }
    }
}

/// However a recording ends, it is not written any more.
impl Drop for Active {
    fn drop(&mut self) {
        self.0.counts.active.fetch_sub(1, Relaxed);
    }
}

impl Recording {
    fn stopped(&mut self, error: Option<&RecordError>) {
        self.status.recording = false;
        if let Some(error) = error {
            self.status.error = Some(error.to_string());
        }
    }
}

/// `{name}-20261122T154400Z`, in UTC; the name is cut where an id would be too long.
fn stem(name: &str, now: SystemTime) -> String {
    let seconds = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let (h, m, s) = (second / 3600, second / 60 % 60, second % 60);
    let date = format!("-{year:04}{month:02}{day:02}T{h:02}{m:02}{s:02}Z");
    // Names of streams are ASCII, so every place is a character boundary.
    let name = name.get(..STEM_BYTES_MAX - date.len()).unwrap_or(name);
    format!("{name}{date}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_recordings() {
        // date -u -d @SECONDS +%Y%m%dT%H%M%SZ
        for (seconds, date) in [
            (0, "19700101T000000Z"),
            (951_782_399, "20000228T235959Z"),
            (951_782_400, "20000229T000000Z"),
            (951_868_800, "20000301T000000Z"),
            (1_795_362_240, "20261122T154400Z"),
            (4_107_542_400, "21000301T000000Z"),
        ] {
            let now = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            assert_eq!(stem("cam", now), format!("cam-{date}"));
            assert!(stem(&"x".repeat(128), now).len() <= STEM_BYTES_MAX);
        }
    }
}
