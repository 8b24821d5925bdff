//! What is recorded of one stream: its recordings, which bytes of the stream each holds, and reading them back.
//!
//! A recording that grows is read through its file with `pread`, never mapped; one that is a video is read through the
//! library, and only while it is that very video.

use super::lock;
use crate::library::Library;
use crate::media::ReadAt;
use crate::store::Pool;
use bytes::Bytes;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};
use tokio::sync::Notify;

/// Recordings of one stream that are remembered; each change of its coding begins a new one.
const RECORDINGS_MAX: usize = 64;

/// The recordings of one stream.
#[derive(Default)]
pub struct Tape {
    state: Mutex<State>,
    /// Bytes were written, or a recording ended.
    moved: Notify,
}

#[derive(Default)]
struct State {
    recordings: Vec<Recording>,
    finished: bool,
}

/// One recording.
pub(super) struct Recording {
    pub(super) status: Status,
    /// Offset in the stream of its first byte that is the stream's.
    pub(super) from: u64,
    /// Offset in the stream less offset in the file.
    pub(super) shift: u64,
    pub(super) init: Bytes,
    pub(super) source: Source,
}

/// Where the bytes of a recording are.
pub(super) enum Source {
    Growing(Arc<File>),
    /// A video, known by its ETag.
    Video(String),
    None,
}

/// A recording at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Id of the video that it is or will be.
    pub video: String,
    pub bytes: u64,
    pub synced_bytes: u64,
    pub recording: bool,
    /// Why it stopped before the stream ended.
    pub error: Option<String>,
}

/// A run of bytes of the stream that is recorded.
pub struct Span {
    pub range: Range<u64>,
    /// What a player needs before the first of them, where the span does not begin with it.
    pub init: Option<Bytes>,
    /// What follows is about to be written.
    pub grows: bool,
}

impl Recording {
    fn range(&self) -> Range<u64> {
        self.from..self.shift.saturating_add(self.status.bytes).max(self.from)
    }
}

impl Tape {
    /// The newest recording.
    pub fn status(&self) -> Option<Status> {
        lock(&self.state).recordings.last().map(|recording| recording.status.clone())
    }

    /// What is recorded, oldest first. Runs that touch are one.
    pub fn spans(&self, library: &Library) -> Vec<Span> {
        let mut spans: Vec<Span> = Vec::new();
        let catalogue = library.catalogue();
        for recording in &lock(&self.state).recordings {
            let there = match &recording.source {
                Source::Growing(_) => true,
                Source::Video(etag) => catalogue.get(&recording.status.video).is_some_and(|v| v.etag() == etag),
                Source::None => false,
            };
            let range = recording.range();
            if !there || range.is_empty() {
                continue;
            }
            match spans.last_mut() {
                Some(last) if last.range.end == range.start => {
                    last.range.end = range.end;
                    last.grows = recording.status.recording;
                }
                _ => {
                    let init = (recording.from != recording.shift).then(|| recording.init.clone());
                    spans.push(Span { range, init, grows: recording.status.recording });
                }
            }
        }
        spans
    }

    pub(super) fn push(&self, recording: Recording) {
        let mut state = lock(&self.state);
        if state.recordings.len() >= RECORDINGS_MAX {
            state.recordings.remove(0);
        }
        state.recordings.push(recording);
        drop(state);
        self.moved.notify_waiters();
    }

    /// Changes the newest recording.
    pub(super) fn update(&self, change: impl FnOnce(&mut Recording)) {
        if let Some(recording) = lock(&self.state).recordings.last_mut() {
            change(recording);
        }
        self.moved.notify_waiters();
    }

    /// The stream has ended and all of it is stored.
    pub(super) fn finish(&self) {
        lock(&self.state).finished = true;
        self.moved.notify_waiters();
    }

    pub(super) async fn finished(&self) {
        loop {
            let moved = self.moved.notified();
            if lock(&self.state).finished {
                return;
            }
            moved.await;
        }
    }

    pub(super) async fn read(&self, offset: u64, max: usize, library: &Library, pool: &Pool) -> Option<Bytes> {
        let (place, source) = self.place(offset, max).await?;
        let file = match source {
            Found::Growing(file) => return pool.run(move || read_file(&file, &place)).await.ok().flatten(),
            Found::Video { id, etag } => {
                let video = library.video(&id).filter(|video| video.etag() == etag)?;
                video.file().await.ok()?
            }
        };
        let read = move || {
            let mut buffer = vec![0; usize::try_from(place.end - place.start).ok()?];
            file.read_exact_at(place.start, &mut buffer).ok()?;
            Some(Bytes::from(buffer))
        };
        pool.run(read).await.ok().flatten()
    }

    /// Where in which file the bytes from an offset on are. Waits while a recording is about to write them.
    async fn place(&self, offset: u64, max: usize) -> Option<(Range<u64>, Found)> {
        loop {
            let moved = self.moved.notified();
            {
                let state = lock(&self.state);
                let holds = |recording: &&Recording| recording.range().contains(&offset);
                if let Some(recording) = state.recordings.iter().find(holds) {
                    let start = offset - recording.shift;
                    let end = recording.status.bytes.min(start.saturating_add(max as u64));
                    let found = match &recording.source {
                        Source::Growing(file) => Found::Growing(Arc::clone(file)),
                        Source::Video(etag) => Found::Video { id: recording.status.video.clone(), etag: etag.clone() },
                        Source::None => return None,
                    };
                    return Some((start..end, found));
                }
                let newest = state.recordings.last()?;
                if state.finished || !newest.status.recording || offset < newest.from {
                    return None;
                }
            }
            moved.await;
        }
    }
}

enum Found {
    Growing(Arc<File>),
    Video { id: String, etag: String },
}

fn read_file(file: &File, place: &Range<u64>) -> Option<Bytes> {
    let mut buffer = vec![0; usize::try_from(place.end - place.start).ok()?];
    file.read_exact_at(&mut buffer, place.start).ok()?;
    Some(Bytes::from(buffer))
}
