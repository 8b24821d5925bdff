//! A track as one sequence of samples in decode order, whether they lie in the `moov`, in fragments, or both.
//!
//! Must not know presentation order or edits.

use super::boxes::{be32, be64, kind_at};
use super::derived::Section;
use super::fragments::{self, Fragment, FragmentTrack};
use super::moov::{Movie, Trak};
use super::sample::Sample;
use super::tables::{Skips, TableCursor, Tables};
use crate::media::ReadAt;
use crate::media::index::SeekError;

/// A `moof` is read whole; one with more than a million samples is no fragment.
pub(crate) const MOOF_MAX: u64 = 16 << 20;

/// Boxes that a cursor passes between two samples of its track before it gives up.
const BOXES_BETWEEN_MAX: u32 = 65_536;

/// What an index entry keeps of one track beside the tables in its `moov`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TrackIndex {
    pub(crate) skips: Skips,
    /// Samples in the tables of the `moov`, and all samples.
    pub(crate) table_samples: u64,
    pub(crate) samples: u64,
    /// Decode time after the last sample of the tables, and after the last of all.
    pub(crate) table_ticks: i64,
    pub(crate) end_ticks: i64,
    pub(crate) syncs: u64,
    /// Some picture follows a sync sample in decode order and precedes it in presentation.
    pub(crate) leading: bool,
    /// Some sync samples are recovery points: pictures are right only some time after them.
    pub(crate) gradual: bool,
    /// How far the lowest composition offset of the main track lies below 0.
    pub(crate) offset_shift: u32,
    /// Rows (decode position, lowest composition time from there on); see `order`.
    pub(crate) cuts: Section,
    /// Runs of fragments: rows (offset of the first `moof`, first sample, its decode time, syncs before as index + 1
    /// of the last one).
    pub(crate) groups: Section,
}

/// An index entry taken apart; borrows everything.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) entry: &'a [u8],
    pub(crate) moov: &'a [u8],
    pub(crate) movie: &'a Movie,
    pub(crate) tracks: &'a [TrackIndex],
    /// Where the scanned part of the file ends.
    pub(crate) scan_end: u64,
}

impl<'a> View<'a> {
    pub(crate) fn trak(self, track: usize) -> &'a Trak {
        &self.movie.traks[track]
    }

    pub(crate) fn tables(self, track: usize) -> Tables<'a> {
        let index = &self.tracks[track];
        let (entry, moov, trak) = (self.entry, self.moov, &self.movie.traks[track]);
        Tables { entry, moov, trak, skips: index.skips, samples: index.table_samples }
    }

    pub(crate) fn fragment_track(self, track: usize) -> FragmentTrack {
        let trak = self.trak(track);
        FragmentTrack { id: trak.id, defaults: trak.defaults, video: &trak.handler == b"vide" }
    }

    /// A cursor whose first sample is `sample`.
    pub(crate) fn cursor(self, src: &'a dyn ReadAt, track: usize, sample: u64) -> SampleCursor<'a> {
        let in_tables = sample < self.tracks[track].table_samples;
        let tables = in_tables.then(|| self.tables(track).cursor(sample));
        SampleCursor { view: self, src, track, next: sample, tables, fragments: None }
    }

    /// The last group of fragments that starts at or before `sample`.
    pub(crate) fn group_of(self, track: usize, sample: u64) -> Option<usize> {
        let groups = self.tracks[track].groups;
        groups.partition(|row| groups.get(self.entry, row, 1) <= sample).checked_sub(1)
    }

    /// The last sync sample at or before `sample`.
    pub(crate) fn sync_at_or_before(
        self,
        src: &'a dyn ReadAt,
        track: usize,
        sample: u64,
    ) -> Result<Option<u64>, SeekError> {
        let index = &self.tracks[track];
        if sample < index.table_samples {
            return Ok(self.tables(track).sync_at_or_before(sample));
        }
        let Some(group) = self.group_of(track, sample) else { return Ok(None) };
        let first = index.groups.get(self.entry, group, 1);
        let mut found = index.groups.get(self.entry, group, 3).checked_sub(1);
        for candidate in self.cursor(src, track, first) {
            let candidate = candidate?;
            if candidate.index > sample {
                break;
            }
            if candidate.sync {
                found = Some(candidate.index);
            }
        }
        Ok(found)
    }

    /// One sample.
    pub(crate) fn sample(self, src: &'a dyn ReadAt, track: usize, sample: u64) -> Result<Sample, SeekError> {
        self.cursor(src, track, sample)
            .next()
            .unwrap_or_else(|| Err(SeekError::Damaged(format!("sample {sample} is missing"))))
    }

    /// The first sample whose decode time is at or after `dts`; the number of samples when there is none.
    pub(crate) fn sample_at_or_after(self, src: &'a dyn ReadAt, track: usize, dts: i64) -> Result<u64, SeekError> {
        let index = &self.tracks[track];
        if dts < index.table_ticks && index.table_samples > 0 {
            let (mut low, mut high) = (0, index.table_samples);
            let tables = self.tables(track);
            while low < high {
                let middle = low + (high - low) / 2;
                if tables.dts_of(middle) < dts {
                    low = middle + 1;
                } else {
                    high = middle;
                }
            }
            return Ok(low);
        }
        let groups = index.groups;
        let group = groups.partition(|row| groups.signed(self.entry, row, 2) <= dts).saturating_sub(1);
        let first = groups.get(self.entry, group, 1).max(index.table_samples);
        for sample in self.cursor(src, track, first) {
            let sample = sample?;
            if sample.dts >= dts {
                return Ok(sample.index);
            }
        }
        Ok(index.samples)
    }
}

/// Walks the samples of a track in decode order, from the tables of the `moov` on into the fragments.
pub struct SampleCursor<'a> {
    view: View<'a>,
    src: &'a dyn ReadAt,
    track: usize,
    next: u64,
    tables: Option<TableCursor<'a>>,
    fragments: Option<InFragment>,
}

/// The fragment that a cursor stands in.
struct InFragment {
    moof: Vec<u8>,
    moof_offset: u64,
    /// Where the box after the `moof` begins.
    after: u64,
    fragment: Fragment,
    state: fragments::Place,
}

impl Iterator for SampleCursor<'_> {
    type Item = Result<Sample, SeekError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next >= self.view.tracks[self.track].samples {
            return None;
        }
        let found = self.find_next();
        match &found {
            Ok(_) => self.next += 1,
            Err(_) => self.next = u64::MAX,
        }
        Some(found)
    }
}

impl SampleCursor<'_> {
    fn find_next(&mut self) -> Result<Sample, SeekError> {
        if let Some(sample) = self.tables.as_mut().and_then(Iterator::next) {
            return Ok(Sample { index: self.next, ..sample });
        }
        self.tables = None;
        let video = &self.view.trak(self.track).handler == b"vide";
        let mut skip = 0;
        if self.fragments.is_none() {
            skip = self.enter_group()?;
        }
        loop {
            let Some(inside) = &mut self.fragments else {
                return Err(SeekError::Damaged(format!("sample {} is missing", self.next)));
            };
            let mut cursor = inside.fragment.cursor_at(&inside.moof, inside.state, video);
            let sample = cursor.next();
            inside.state = cursor.place();
            match sample {
                Some(_) if skip > 0 => skip -= 1,
                Some(sample) => {
                    return Ok(Sample { index: self.next, moof: Some(inside.moof_offset), ..sample });
                }
                None => {
                    let (after, dts) = (inside.after, inside.state.dts());
                    self.enter_fragment(after, dts)?;
                }
            }
        }
    }

    /// Goes to the group of fragments that holds the next sample; returns how many samples of it come before.
    fn enter_group(&mut self) -> Result<u64, SeekError> {
        let missing = || SeekError::Damaged("a sample lies in no fragment".to_owned());
        let group = self.view.group_of(self.track, self.next).ok_or_else(missing)?;
        let groups = self.view.tracks[self.track].groups;
        let (offset, first) = (groups.get(self.view.entry, group, 0), groups.get(self.view.entry, group, 1));
        self.enter_fragment(offset, groups.signed(self.view.entry, group, 2))?;
        Ok(self.next - first)
    }

    /// Reads the first fragment of the track at or after `offset`.
    fn enter_fragment(&mut self, mut offset: u64, dts: i64) -> Result<(), SeekError> {
        self.fragments = None;
        for _ in 0..BOXES_BETWEEN_MAX {
            let Some(header) = Header::read(self.src, offset, self.view.scan_end)? else { return Ok(()) };
            let after = offset + header.size;
            if &header.kind == b"moof" {
                let moof = header.read_body(self.src, offset)?;
                // Of all tracks: the data of one may begin where that of another ends.
                let tracks: Vec<_> = (0..self.view.tracks.len()).map(|track| self.view.fragment_track(track)).collect();
                let parsed = fragments::parse(&moof, offset, &tracks)
                    .map_err(|broken| SeekError::Damaged(format!("{} in the moof at byte {offset}", broken.what)))?;
                if let Some(fragment) = parsed.into_iter().nth(self.track).filter(|fragment| !fragment.is_empty()) {
                    let state = fragments::Place::start(dts);
                    self.fragments = Some(InFragment { moof, moof_offset: offset, after, fragment, state });
                    return Ok(());
                }
            }
            offset = after;
        }
        Err(SeekError::Damaged(format!("no fragment of the track in {BOXES_BETWEEN_MAX} boxes before byte {offset}")))
    }
}

/// The header of a top-level box.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: [u8; 4],
    /// Bytes of the header itself, and of the box with it.
    pub(crate) len: u64,
    pub(crate) size: u64,
    /// It claims to reach beyond the end.
    pub(crate) cut: bool,
}

impl Header {
    /// The header at `offset`; `None` where no whole header fits before `end` or the box is smaller than its header.
    /// A box of size 0 or beyond `end` reaches to `end`.
    pub(crate) fn read(src: &dyn ReadAt, offset: u64, end: u64) -> std::io::Result<Option<Header>> {
        if end.saturating_sub(offset) < 8 {
            return Ok(None);
        }
        let mut bytes = [0u8; 16];
        let wanted = usize::try_from(end - offset).unwrap_or(16).min(16);
        src.read_exact_at(offset, &mut bytes[..wanted])?;
        let (len, size) = match be32(&bytes, 0) {
            0 => (8, end - offset),
            1 if wanted == 16 => (16, be64(&bytes, 8)),
            1 => return Ok(None),
            size => (8, u64::from(size)),
        };
        if size < len {
            return Ok(None);
        }
        let cut = size > end - offset;
        Ok(Some(Header { kind: kind_at(&bytes, 4), len, size: size.min(end - offset), cut }))
    }

    /// The body of a box that starts at `offset`, a `moof`.
    pub(crate) fn read_body(&self, src: &dyn ReadAt, offset: u64) -> Result<Vec<u8>, SeekError> {
        let len = self.size - self.len;
        if len > MOOF_MAX {
            return Err(SeekError::Damaged(format!("a moof of {len} bytes at byte {offset}")));
        }
        let mut body = vec![0; len as usize];
        src.read_exact_at(offset + self.len, &mut body)?;
        Ok(body)
    }
}
