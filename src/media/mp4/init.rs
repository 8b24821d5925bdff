//! The init segment of a live stream: what its tracks are.
//!
//! PURE. Source: ISO/IEC 14496-12 §8.2 (`moov`), §8.8.1 (`mvex`).

use super::boxes::Broken;
use super::describe;
use super::fragments::FragmentTrack;
use super::moov::{self, Movie};
use crate::media::index::Track;
use bytes::{Bytes, BytesMut};
#[cfg(test)]
use std::sync::Arc;

/// What publishers send first: `ftyp` and `moov`.
pub struct Init {
    /// Both boxes as they came, in one buffer.
    pub bytes: Bytes,
    pub(super) moov: Vec<u8>,
    pub(super) movie: Movie,
}

impl Init {
    pub(super) fn parse(ftyp: &[Bytes], moov: &[u8]) -> Result<Self, Broken> {
        let movie = moov::parse(&moov[8..])?;
        if !movie.extends {
            return Err(Broken::new("a moov without mvex: this is not fragmented MP4", 0));
        }
        if movie.traks.is_empty() {
            return Err(Broken::new("a moov without a track", 0));
        }
        let mut bytes = BytesMut::with_capacity(ftyp.iter().map(Bytes::len).sum::<usize>() + moov.len());
        ftyp.iter().for_each(|piece| bytes.extend_from_slice(piece));
        bytes.extend_from_slice(moov);
        Ok(Self { bytes: bytes.freeze(), moov: moov[8..].to_vec(), movie })
    }

    #[cfg(test)]
    pub(crate) fn for_tests() -> Arc<Self> {
        let movie = Movie { timescale: std::num::NonZeroU32::MIN, traks: Vec::new(), extends: true };
        Arc::new(Self { bytes: Bytes::from_static(b"init"), moov: Vec::new(), movie })
    }

    /// What it says of its tracks; nothing is known of their samples.
    pub fn described(&self) -> Vec<Track> {
        self.movie.traks.iter().map(|trak| describe::track(&self.moov, trak)).collect()
    }

    /// `track_ID` of a track by its position.
    pub fn track_id(&self, track: usize) -> u32 {
        self.movie.traks.get(track).map_or(0, |trak| trak.id)
    }

    /// (`track_ID`, timescale) of each track.
    pub fn timescales(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.movie.traks.iter().map(|trak| (trak.id, trak.timescale.get()))
    }

    pub(super) fn track_count(&self) -> usize {
        self.movie.traks.len()
    }

    /// Ticks per second of a track by its position.
    pub(super) fn timescale(&self, track: usize) -> u32 {
        self.movie.traks.get(track).map_or(1, |trak| trak.timescale.get())
    }

    pub(super) fn is_video(&self, track: usize) -> bool {
        self.movie.traks.get(track).is_some_and(|trak| &trak.handler == b"vide")
    }

    pub(super) fn is_sound(&self, track: usize) -> bool {
        self.movie.traks.get(track).is_some_and(|trak| &trak.handler == b"soun")
    }

    pub fn is_sound_only(&self) -> bool {
        (0..self.track_count()).all(|track| self.is_sound(track))
    }

    /// The track that parts and segments are cut by: the first video, else the first of all.
    pub fn main(&self) -> usize {
        (0..self.track_count()).find(|track| self.is_video(*track)).unwrap_or(0)
    }

    pub(super) fn tracks(&self) -> Vec<FragmentTrack> {
        let of =
            |trak: &moov::Trak| FragmentTrack { id: trak.id, defaults: trak.defaults, video: &trak.handler == b"vide" };
        self.movie.traks.iter().map(of).collect()
    }

    /// The sample descriptions, which say how the media is coded: a player must start anew when they change.
    pub fn same_coding(&self, other: &Self) -> bool {
        let descriptions = |init: &Self| -> Vec<(u32, Vec<u8>)> {
            let stsd = |trak: &moov::Trak| init.moov.get(trak.stsd.clone()).unwrap_or_default().to_vec();
            init.movie.traks.iter().map(|trak| (trak.timescale.get(), stsd(trak))).collect()
        };
        descriptions(self) == descriptions(other)
    }
}
