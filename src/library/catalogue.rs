//! The catalogue: an immutable snapshot of the videos, replaced whole when anything changes.
//!
//! Readers take the snapshot and never lock. It knows nothing about how videos are found.

use super::video::{Found, Opener, Video};
use std::collections::HashMap;
use std::sync::Arc;

/// All videos at one moment.
#[derive(Clone, Default)]
pub struct Catalogue {
    by_id: HashMap<Arc<str>, Arc<Video>>,
    /// Sorted by id.
    order: Vec<Arc<Video>>,
}

/// One step from a snapshot to the next.
pub(super) enum Change {
    Put(Arc<Video>),
    Remove(Arc<str>),
}

/// From this many changes on the order is sorted anew instead of edited.
const SORT_FROM: usize = 64;

impl Catalogue {
    pub fn get(&self, id: &str) -> Option<&Arc<Video>> {
        self.by_id.get(id)
    }

    /// Sorted by id.
    pub fn videos(&self) -> &[Arc<Video>] {
        &self.order
    }

    pub fn len(&self) -> usize {
        self.order.len()
    }

    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// The videos whose id is below the directory `id`.
    pub(super) fn below(&self, id: &str) -> &[Arc<Video>] {
        let prefix = format!("{id}/");
        let start = self.order.partition_point(|v| v.id() < prefix.as_str());
        let len = self.order[start..].partition_point(|v| v.id().starts_with(&prefix));
        &self.order[start..start + len]
    }

    /// A catalogue of videos that have ids and no files: for measuring look-ups.
    pub fn of_ids(ids: impl Iterator<Item = String>) -> Self {
        let opener = Opener::none();
        let video = |id: String| Arc::new(Video::new(Found::without_file(&id), false, Arc::clone(&opener)));
        Self::default().changed(ids.map(|id| Change::Put(video(id))).collect())
    }

    /// The snapshot after these changes.
    pub(super) fn changed(&self, changes: Vec<Change>) -> Self {
        let mut next = self.clone();
        let edit = changes.len() < SORT_FROM;
        for change in changes {
            let id = match &change {
                Change::Put(video) => video.key(),
                Change::Remove(id) => Arc::clone(id),
            };
            let at = if edit { Some(next.order.binary_search_by(|v| v.id().cmp(&id))) } else { None };
            match change {
                Change::Put(video) => {
                    match at {
                        Some(Ok(at)) => next.order[at] = Arc::clone(&video),
                        Some(Err(at)) => next.order.insert(at, Arc::clone(&video)),
                        None => {}
                    }
                    next.by_id.insert(id, video);
                }
                Change::Remove(_) => {
                    if let Some(Ok(at)) = at {
                        next.order.remove(at);
                    }
                    next.by_id.remove(&id);
                }
            }
        }
        if !edit {
            next.order = next.by_id.values().cloned().collect();
            next.order.sort_unstable_by(|a, b| a.id().cmp(b.id()));
        }
        next
    }
}
