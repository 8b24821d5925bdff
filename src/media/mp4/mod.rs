//! ISO base media: MP4, MOV, CMAF; progressive and fragmented.
//!
//! Reading order: [`boxes`] (walking), [`moov`] (where the tables are), [`tables`] (lookups in them), [`fragments`]
//! (the same for `moof`), [`view`] (both as one sequence of samples), [`order`] and [`frames`] (presentation order
//! and edits), [`timecode`], [`build`] (what an index entry keeps), [`seek`] (the answers), [`describe`] (the summary),
//! [`fmp4`] (chunks that play on their own, written with [`write`]), [`still`] (one frame for a decoder). For live
//! streams: [`arrival`], [`init`], [`split`], [`filling`]; and [`align`] with [`merge`] where tracks arrive apart.

pub mod align;
pub mod arrival;
pub(crate) mod boxes;
pub(crate) mod build;
pub(crate) mod condense;
pub(crate) mod derived;
pub(crate) mod describe;
mod filling;
pub(crate) mod fmp4;
pub(crate) mod fragments;
pub(crate) mod frames;
mod init;
mod merge;
#[cfg(test)]
pub(crate) mod merge_test;
pub(crate) mod moov;
pub(crate) mod nal;
pub(crate) mod order;
pub(crate) mod sample;
pub(crate) mod seek;
mod shift;
mod split;
pub(crate) mod still;
pub(crate) mod tables;
pub(crate) mod timecode;
pub(crate) mod tracks;
pub(crate) mod view;
pub mod whole;
pub(crate) mod write;

pub use fmp4::{Along, Chunk};
pub use sample::Sample;
pub use tracks::{MediaTrack, Tracks};
pub use view::SampleCursor;

use boxes::Broken;
use derived::{Section, Sections};
use moov::Movie;
use order::REORDER_MAX;
use std::num::NonZeroU32;
use std::ops::Range;
use tables::Skips;
use view::{TrackIndex, View};

/// The MP4 part of an index entry, taken apart: positions in the entry's bytes, and what is small.
#[derive(Clone, Debug)]
pub(crate) struct Parts {
    /// Body of the `moov` in the entry, and where it begins in the file.
    pub(crate) moov: Range<usize>,
    pub(crate) moov_offset: u64,
    pub(crate) movie: Movie,
    pub(crate) tracks: Vec<TrackIndex>,
    /// The track that is counted in frames: video, else audio.
    pub(crate) main: Option<usize>,
    pub(crate) fragmented: bool,
    pub(crate) scan_end: u64,
    /// See [`frames::Frames`].
    pub(crate) spans: Section,
    /// See [`timecode::write_map`].
    pub(crate) pieces: Section,
    pub(crate) timecode: Option<usize>,
}

impl Default for Parts {
    fn default() -> Self {
        Parts {
            moov: 0..0,
            moov_offset: 0,
            movie: Movie { timescale: NonZeroU32::MIN, traks: Vec::new(), extends: false },
            tracks: Vec::new(),
            main: None,
            fragmented: false,
            scan_end: 0,
            spans: Section::default(),
            pieces: Section::default(),
            timecode: None,
        }
    }
}

impl Parts {
    pub(crate) fn view<'a>(&'a self, entry: &'a [u8]) -> View<'a> {
        let moov = entry.get(self.moov.clone()).unwrap_or_default();
        View { entry, moov, movie: &self.movie, tracks: &self.tracks, scan_end: self.scan_end }
    }

    /// Takes the MP4 part at `at` of an entry apart. Every position is checked here.
    pub(crate) fn open(entry: &[u8], at: usize) -> Result<Parts, Broken> {
        let head = Section { at, count: 1, width: 2 };
        let moov_at = at + 16;
        let moov_len = usize::try_from(head.get(entry, 0, 0)).unwrap_or(usize::MAX);
        let moov_end = moov_at.checked_add(moov_len).filter(|end| *end <= entry.len());
        let moov = moov_at..moov_end.ok_or_else(|| Broken::new("the moov of the index does not fit", at))?;
        let movie = moov::parse(&entry[moov.clone()])?;
        let mut parts = Parts { moov, moov_offset: head.get(entry, 0, 1), movie, ..Parts::default() };
        let mut sections = parts.rebase(entry)?;
        parts.spans = sections.next(5)?;
        parts.pieces = sections.next(2)?;
        parts.timecode = parts.track_number(sections.next(1)?.get(entry, 0, 0))?;
        if !sections.at_end() {
            return Err(Broken::new("the index is longer than its sections", 0));
        }
        parts.check(entry)?;
        Ok(parts)
    }

    /// Reads the sections of the tracks; returns the rest of the sections.
    fn rebase<'a>(&mut self, entry: &'a [u8]) -> Result<Sections<'a>, Broken> {
        let mut sections = Sections::new(entry, self.moov.end);
        self.tracks = Vec::new();
        for _ in &self.movie.traks {
            let skips = Skips {
                stts: sections.next(2)?,
                ctts: sections.next(1)?,
                stsc: sections.next(1)?,
                bytes: sections.next(1)?,
            };
            self.tracks.push(TrackIndex { skips, ..TrackIndex::default() });
        }
        for track in &mut self.tracks {
            (track.cuts, track.groups) = (sections.next(2)?, sections.next(4)?);
            let facts = sections.next(1)?;
            let fact = |n| facts.get(entry, n, 0);
            (track.table_samples, track.samples) = (fact(0), fact(1));
            (track.table_ticks, track.end_ticks) = (fact(2) as i64, fact(3) as i64);
            (track.syncs, track.leading, track.gradual) = (fact(4), fact(5) & 1 != 0, fact(5) & 2 != 0);
            track.offset_shift = u32::try_from(fact(6)).unwrap_or(0);
        }
        let facts = sections.next(1)?;
        self.main = self.track_number(facts.get(entry, 0, 0))?;
        self.fragmented = facts.get(entry, 1, 0) != 0;
        self.scan_end = facts.get(entry, 2, 0);
        Ok(sections)
    }

    /// Whether lookups may read the file itself.
    pub(crate) fn needs_source(&self, entry: &[u8]) -> bool {
        let Some(main) = self.main else { return false };
        let stsd = self.movie.traks[main].stsd.clone();
        let moov = entry.get(self.moov.clone()).unwrap_or_default();
        self.fragmented
            || self.tracks[main].gradual
            || (self.tracks[main].leading && crate::media::codec::hevc::nal_length_size(moov, stsd).is_some())
    }

    /// A track as it is kept: its position plus 1, or 0 for none.
    fn track_number(&self, kept: u64) -> Result<Option<usize>, Broken> {
        let track = usize::try_from(kept).unwrap_or(usize::MAX).checked_sub(1);
        if track.is_some_and(|track| track >= self.movie.traks.len()) {
            return Err(Broken::new("the index names a track that is not there", 0));
        }
        Ok(track)
    }

    /// Bounds that lookups rely on to end soon.
    fn check(&self, entry: &[u8]) -> Result<(), Broken> {
        for (track, trak) in self.tracks.iter().zip(&self.movie.traks) {
            let mut previous = 0;
            for row in 0..track.cuts.count {
                let position = track.cuts.get(entry, row, 0);
                if position < previous || position - previous > 2 * REORDER_MAX {
                    return Err(Broken::new("cuts of the index are out of order", track.cuts.at));
                }
                previous = position;
            }
            for row in 1..track.groups.count {
                if track.groups.get(entry, row, 1) <= track.groups.get(entry, row - 1, 1) {
                    return Err(Broken::new("fragments of the index are out of order", track.groups.at));
                }
            }
            if track.table_samples > u64::from(trak.sizes.count()) || track.table_samples > track.samples {
                return Err(Broken::new("the index counts samples that are not there", 0));
            }
        }
        Ok(())
    }
}
