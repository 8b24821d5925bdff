//! Frames: the samples of the main track in presentation order, as its edit list shows them.
//!
//! A frame has a number (from 0, over all edits), a rank (position in presentation order of the whole track) and an
//! index (position in decode order). Must not know timecode.

use super::Parts;
use super::boxes::Broken;
use super::derived::{self, Section};
use super::order::REORDER_MAX;
use super::view::View;
use crate::media::ReadAt;
use crate::media::index::{BuildError, SeekError};
use crate::media::time::Seconds;
use std::num::NonZeroU32;

/// The frames of one track. Rows of `spans`: first rank, frames, frames before, start in movie ticks, media time.
#[derive(Clone, Copy)]
pub(crate) struct Frames<'a> {
    pub(crate) view: View<'a>,
    pub(crate) src: &'a dyn ReadAt,
    pub(crate) track: usize,
    pub(crate) spans: Section,
}

/// One shown frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) number: u64,
    pub(crate) span: usize,
    pub(crate) rank: u64,
    pub(crate) index: u64,
    /// Composition time in ticks of the track.
    pub(crate) cts: i64,
}

impl<'a> Frames<'a> {
    /// Frames shown.
    pub(crate) fn count(self) -> u64 {
        let Some(last) = self.spans.count.checked_sub(1) else { return 0 };
        self.span(last, 2).saturating_add(self.span(last, 1))
    }

    pub(crate) fn timescale(self) -> NonZeroU32 {
        self.view.trak(self.track).timescale
    }

    pub(crate) fn span(self, span: usize, field: usize) -> u64 {
        self.spans.get(self.view.entry, span, field)
    }

    /// Frame `number`, which must be less than [`Frames::count`].
    pub(crate) fn frame(self, number: u64) -> Result<Frame, SeekError> {
        let span = self.spans.partition(|row| self.span(row, 2) <= number).saturating_sub(1);
        let rank = self.span(span, 0).saturating_add(number.saturating_sub(self.span(span, 2)));
        let (index, cts) = self.at_rank(rank)?;
        Ok(Frame { number, span, rank, index, cts })
    }

    /// Presentation time of a frame: where the edit list puts it on the movie's clock.
    pub(crate) fn presentation(self, frame: Frame) -> Seconds {
        self.presentation_in(frame.span, frame.cts)
    }

    pub(crate) fn presentation_in(self, span: usize, cts: i64) -> Seconds {
        let start = Seconds::from_ticks(self.span(span, 3) as i64, self.view.movie.timescale);
        let inside = Seconds::from_ticks(cts.saturating_sub(self.span(span, 4) as i64), self.timescale());
        start.checked_add(inside).unwrap_or(start)
    }

    /// Presentation time of frame 0.
    pub(crate) fn origin(self) -> Result<Seconds, SeekError> {
        Ok(self.presentation(self.frame(0)?))
    }

    /// Presentation time of frame 0 on the clock of players that read the file with FFmpeg, Chromium among them:
    /// behind an edit list the picture begins where the leading empty edits end; in fragments, composition offsets
    /// below 0 move all pictures up until none precedes its decode time.
    /// `origin` is [`Frames::origin`].
    pub(crate) fn player_origin(self, origin: Seconds) -> Seconds {
        let edits = &self.view.trak(self.track).edits;
        if !self.view.movie.extends && !edits.is_empty() {
            let empty = edits.iter().take_while(|edit| edit.media_time.is_none());
            let empty = empty.fold(0u64, |sum, edit| sum.saturating_add(edit.duration));
            let empty = Seconds { num: i128::from(empty), den: u64::from(self.view.movie.timescale.get()) };
            return Seconds::from_ticks(empty.to_ticks(self.timescale()), self.timescale());
        }
        let index = &self.view.tracks[self.track];
        let shift = if index.table_samples == 0 { i64::from(index.offset_shift) } else { 0 };
        origin.checked_add(Seconds::from_ticks(shift, self.timescale())).unwrap_or(origin)
    }

    /// Number of frames presented before `time`.
    pub(crate) fn count_before(self, time: Seconds) -> Result<u64, SeekError> {
        let timescale = self.view.movie.timescale;
        let started = |row| Seconds::from_ticks(self.span(row, 3) as i64, timescale) <= time;
        // A time before the first span counts from it: in fragments, edits shift pictures and hide none.
        let span = self.spans.partition(started).saturating_sub(1);
        let start = Seconds::from_ticks(self.span(span, 3) as i64, timescale);
        let inside = time.checked_sub(start).unwrap_or(Seconds::ZERO);
        // A composition time in whole ticks is before `x` exactly if it is before `x` rounded up.
        let ticks = Seconds { num: -inside.num, den: inside.den }.to_ticks_floor(self.timescale()).saturating_neg();
        let media = (self.span(span, 4) as i64).saturating_add(ticks);
        let first = self.span(span, 0);
        let inside = self.rank_of(media)?.saturating_sub(first).min(self.span(span, 1));
        Ok(self.span(span, 2).saturating_add(inside))
    }

    /// Decode index and composition time of the sample with this rank.
    pub(crate) fn at_rank(self, rank: u64) -> Result<(u64, i64), SeekError> {
        let region = self.region(|pos, _| pos <= rank)?;
        let damaged = || SeekError::Damaged(format!("no sample of rank {rank}"));
        let inside = usize::try_from(rank.saturating_sub(region.start)).unwrap_or(usize::MAX);
        region.samples.get(inside).map(|&(cts, index)| (index, cts)).ok_or_else(damaged)
    }

    /// Rank of the sample with this decode index, and its composition time.
    pub(crate) fn rank_of_index(self, index: u64) -> Result<(u64, i64), SeekError> {
        let region = self.region(|pos, _| pos <= index)?;
        let found = region.samples.iter().position(|&(_, at)| at == index);
        let inside = found.ok_or_else(|| SeekError::Damaged(format!("no sample {index}")))?;
        Ok((region.start + inside as u64, region.samples[inside].0))
    }

    /// Number of samples with a composition time before `cts`.
    pub(crate) fn rank_of(self, cts: i64) -> Result<u64, SeekError> {
        let region = self.region(|_, lowest| lowest < cts)?;
        Ok(region.start + region.samples.partition_point(|&(at, _)| at < cts) as u64)
    }

    /// The samples from the last cut for which `test` (position, lowest composition time) holds to the next one.
    fn region(self, test: impl Fn(u64, i64) -> bool) -> Result<Region, SeekError> {
        let (entry, index) = (self.view.entry, &self.view.tracks[self.track]);
        let cuts = index.cuts;
        let row = cuts.partition(|row| test(cuts.get(entry, row, 0), cuts.signed(entry, row, 1))).saturating_sub(1);
        let start = cuts.get(entry, row, 0);
        let end = if row + 1 < cuts.count { cuts.get(entry, row + 1, 0) } else { index.samples };
        // One stride and the reordering bound; an entry with wider gaps is not one of ours.
        let len = end.saturating_sub(start).min(2 * REORDER_MAX);
        let mut samples = Vec::new();
        for sample in self.view.cursor(self.src, self.track, start).take(len as usize) {
            let sample = sample?;
            samples.push((sample.cts(), sample.index));
        }
        samples.sort_unstable();
        Ok(Region { start, samples })
    }
}

struct Region {
    start: u64,
    /// (composition time, decode index), sorted.
    samples: Vec<(i64, u64)>,
}

/// Works out the spans of the main track and appends them.
pub(crate) fn write_spans(src: &dyn ReadAt, out: &mut Vec<u8>, parts: &mut Parts) -> Result<(), BuildError> {
    let rows = match parts.main {
        Some(track) if parts.tracks[track].samples > 0 => spans(src, parts.view(out), track, parts.movie.extends),
        _ => Ok(Vec::new()),
    };
    let rows = rows.map_err(|error| match error {
        SeekError::Io(error) => BuildError::Io(error),
        other => BuildError::Malformed { what: other.to_string(), offset: parts.moov_offset },
    })?;
    let at = out.len();
    derived::write(out, 5, &rows);
    let not_ours = |b: Broken| BuildError::Malformed { what: b.what, offset: 0 };
    parts.spans = derived::Sections::new(out, at).next(5).map_err(not_ours)?;
    Ok(())
}

fn spans(src: &dyn ReadAt, view: View<'_>, track: usize, fragmented: bool) -> Result<Vec<u64>, SeekError> {
    let trak = view.trak(track);
    let all = view.tracks[track].samples;
    if trak.edits.iter().any(|edit| edit.media_time.is_some() && !edit.normal_rate) {
        return Err(SeekError::Damaged("an edit list that changes speed is not supported".to_owned()));
    }
    let mut start = 0u64;
    let mut rows = Vec::new();
    let mut shown = 0u64;
    let frames = Frames { view, src, track, spans: Section::default() };
    for edit in &trak.edits {
        let Some(media_time) = edit.media_time else {
            start = start.saturating_add(edit.duration);
            continue;
        };
        let media_time = i64::try_from(media_time).unwrap_or(i64::MAX);
        // Fragments come after the edit list was written: it only shifts them.
        let (first, end) = if fragmented {
            (0, all)
        } else {
            let duration = Seconds { num: i128::from(edit.duration), den: u64::from(view.movie.timescale.get()) };
            let until = media_time.saturating_add(duration.to_ticks(trak.timescale));
            let to_the_end = edit.duration == 0 && trak.edits.len() == 1;
            (frames.rank_of(media_time)?, if to_the_end { all } else { frames.rank_of(until)? })
        };
        let count = end.saturating_sub(first);
        if count > 0 {
            rows.extend([first, count, shown, start, media_time as u64]);
            shown += count;
        }
        start = start.saturating_add(edit.duration);
        if fragmented {
            break;
        }
    }
    if trak.edits.is_empty() {
        rows.extend([0, all, 0, 0, 0]);
    }
    Ok(rows)
}
