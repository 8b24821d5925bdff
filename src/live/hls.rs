//! What a stream tells of its segments, their parts and its playlist.

use super::arrival::Init;
use super::master;
use super::playlist::Playlist;
use super::segments::{Progress, Segments};
use super::stream::{Inner, Stream};
use crate::media::cadence::Targets;
use std::sync::{Arc, PoisonError};
use tokio::sync::watch;

impl Stream {
    /// How long its parts and segments are; fixed for its life.
    pub fn targets(&self) -> Targets {
        self.config.targets
    }

    /// The text of the master playlist.
    pub fn master_playlist(&self) -> String {
        let inner = self.lock();
        let mut tracks = inner.init.as_ref().map_or_else(Vec::new, |init| init.tracks());
        let rates = inner.meter.rates();
        for track in &mut tracks {
            // The init segment of MP4 does not tell.
            let measured = rates.iter().find(|rates| rates.track == track.id).and_then(|rates| rates.rate);
            track.frame_rate = track.frame_rate.or(measured);
        }
        master::text(&inner.segments, &tracks)
    }

    /// Wakes who waits for parts and segments, if there are new ones.
    pub(super) fn tell(&self, segments: &Segments) {
        let now = segments.progress();
        self.progress.send_if_modified(|known| std::mem::replace(known, now) != now);
    }

    /// What follows from a new part.
    pub(super) fn appended(&self, inner: &mut Inner) {
        inner.count();
        self.reserve(inner);
        self.tell(&inner.segments);
    }

    /// How far the segments have come, to wait for more.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Where a viewer begins who goes so far back that the memory does not reach: the first byte of the last keyframe
    /// that begins before that, or of the first one from `readable_from` on, and its init segment. A keyframe is one
    /// that a part of a playlist begins with or has first.
    pub fn rewind(&self, back_us: i64, readable_from: u64) -> Option<(u64, Arc<Init>)> {
        let inner = self.lock();
        let (first, last) = (inner.window.first()?, inner.window.last()?);
        let wanted = last.end_us.saturating_sub(back_us);
        if first.start_us <= wanted {
            return None;
        }
        let mut found: Option<(u64, &Arc<Init>)> = None;
        for segment in inner.segments.all() {
            for (start_us, byte) in segment.parts.iter().filter_map(|part| part.keyframe) {
                if byte >= first.offset || (found.is_some() && start_us > wanted) {
                    return found.map(|(byte, init)| (byte, Arc::clone(init)));
                }
                if byte >= readable_from {
                    found = Some((byte, &segment.init));
                }
            }
        }
        found.map(|(byte, init)| (byte, Arc::clone(init)))
    }

    /// Where the coding ends that a byte of the stream has, if it does: the first byte of the next init segment.
    pub fn coding_end(&self, byte: u64) -> Option<u64> {
        let inner = self.lock();
        let mut all = inner.segments.all().skip_while(|segment| segment.range.end <= byte);
        let init = &all.next()?.init;
        let next = all.find(|segment| !Arc::ptr_eq(&segment.init, init))?;
        Some(next.range.start.saturating_sub(next.init.bytes().len() as u64))
    }

    /// Looks something up among the segments.
    pub fn segments<T>(&self, look: impl FnOnce(&Segments) -> T) -> T {
        look(&self.lock().segments)
    }

    /// The playlist of this moment: the same value for everybody until something changes. `readable_from` gives the
    /// first byte that can be read.
    pub fn playlist(&self, readable_from: impl FnOnce() -> u64) -> Arc<Playlist> {
        let mut known = self.playlist.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((version, playlist)) = &*known
            && *version == self.lock().segments.version()
        {
            return Arc::clone(playlist);
        }
        let byte = readable_from();
        let mut inner = self.lock();
        inner.segments.unlist_before(byte);
        let playlist = Arc::new(Playlist::of(&inner.segments));
        *known = Some((inner.segments.version(), Arc::clone(&playlist)));
        playlist
    }
}
