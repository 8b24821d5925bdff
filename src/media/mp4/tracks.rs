//! For whoever writes MP4 out of an index: the raw headers of each track, its samples from any point on, and times
//! mapped from one track to another.

use super::Parts;
use super::view::{SampleCursor, View};
use crate::media::ReadAt;
use crate::media::index::SeekError;
use crate::media::time::Seconds;
use std::num::NonZeroU32;

/// The tracks of an indexed MP4, in the order of `Summary::tracks`.
#[derive(Clone, Copy)]
pub struct Tracks<'a> {
    view: View<'a>,
    src: &'a dyn ReadAt,
    parts: &'a Parts,
}

/// One track. The bodies are those of the boxes in the file, without size and type, from version and flags on.
#[derive(Clone, Copy, Debug)]
pub struct MediaTrack<'a> {
    pub id: u32,
    /// `vide`, `soun`, `tmcd`, ...
    pub handler: [u8; 4],
    pub timescale: NonZeroU32,
    pub samples: u64,
    pub tkhd: &'a [u8],
    pub mdhd: &'a [u8],
    pub hdlr: &'a [u8],
    pub stsd: &'a [u8],
    /// Where the first edit puts this media time: `presentation = start + (cts - media_time)`, see
    /// [`Tracks::presentation`].
    pub edit_media_time: i64,
    /// Empty edits before it, in ticks of the movie's timescale.
    pub edit_start: u64,
}

impl<'a> Tracks<'a> {
    pub(crate) fn new(parts: &'a Parts, entry: &'a [u8], src: &'a dyn ReadAt) -> Self {
        Tracks { view: parts.view(entry), src, parts }
    }

    pub fn len(&self) -> usize {
        self.view.tracks.len()
    }

    pub fn is_empty(&self) -> bool {
        self.view.tracks.is_empty()
    }

    /// The track that frames are counted in.
    pub fn main(&self) -> Option<usize> {
        self.parts.main
    }

    /// The timecode track of the picture.
    pub fn timecode(&self) -> Option<usize> {
        self.parts.timecode
    }

    /// Timescale of the movie.
    pub fn movie_timescale(&self) -> NonZeroU32 {
        self.view.movie.timescale
    }

    /// `track` counts from 0 and is less than [`Tracks::len`].
    pub fn get(&self, track: usize) -> Option<MediaTrack<'a>> {
        let trak = self.view.movie.traks.get(track)?;
        let body = |range: &std::ops::Range<usize>| self.view.moov.get(range.clone()).unwrap_or_default();
        let empty = trak.edits.iter().take_while(|edit| edit.media_time.is_none());
        let first = trak.edits.iter().find_map(|edit| edit.media_time);
        Some(MediaTrack {
            id: trak.id,
            handler: trak.handler,
            timescale: trak.timescale,
            samples: self.view.tracks[track].samples,
            tkhd: body(&trak.tkhd),
            mdhd: body(&trak.mdhd),
            hdlr: body(&trak.hdlr),
            stsd: body(&trak.stsd),
            edit_media_time: i64::try_from(first.unwrap_or(0)).unwrap_or(i64::MAX),
            edit_start: empty.fold(0, |sum: u64, edit| sum.saturating_add(edit.duration)),
        })
    }

    /// How far the lowest composition offset of the main track lies below 0; 0 for the others.
    pub(crate) fn offset_shift(&self, track: usize) -> i64 {
        self.view.tracks.get(track).map_or(0, |index| i64::from(index.offset_shift))
    }

    /// The samples of a track in decode order from sample `from` on. An error ends the cursor.
    pub fn samples(&self, track: usize, from: u64) -> SampleCursor<'a> {
        let from = if track < self.len() { from } else { u64::MAX };
        self.view.cursor(self.src, track.min(self.len().saturating_sub(1)), from)
    }

    /// The first sample whose decode time is at or after `dts` ticks; the number of samples when there is none.
    pub fn sample_at_or_after(&self, track: usize, dts: i64) -> Result<u64, SeekError> {
        if track >= self.len() {
            return Ok(0);
        }
        self.view.sample_at_or_after(self.src, track, dts)
    }

    /// The last sync sample at or before `sample`.
    pub fn sync_at_or_before(&self, track: usize, sample: u64) -> Result<Option<u64>, SeekError> {
        if track >= self.len() {
            return Ok(None);
        }
        self.view.sync_at_or_before(self.src, track, sample)
    }

    /// Presentation time of a media time of `track`, by its first edit: the clock that all tracks share.
    pub fn presentation(&self, track: usize, media_ticks: i64) -> Option<Seconds> {
        let media = self.get(track)?;
        let start = i64::try_from(media.edit_start).unwrap_or(i64::MAX);
        let start = Seconds::from_ticks(start, self.movie_timescale());
        start.checked_add(Seconds::from_ticks(media_ticks.saturating_sub(media.edit_media_time), media.timescale))
    }

    /// The media time (in ticks, rounded down) of `track` that is presented at `time`; the inverse of
    /// [`Tracks::presentation`].
    pub fn media_ticks(&self, track: usize, time: Seconds) -> Option<i64> {
        let media = self.get(track)?;
        let start = i64::try_from(media.edit_start).unwrap_or(i64::MAX);
        let inside = time.checked_sub(Seconds::from_ticks(start, self.movie_timescale()))?;
        Some(inside.to_ticks_floor(media.timescale).saturating_add(media.edit_media_time))
    }
}
