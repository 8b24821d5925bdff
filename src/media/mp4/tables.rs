//! Lookups in the sample tables of a `moov`, where they lie: sample to time, to chunk, to byte.
//!
//! The tables stay as the file has them (big-endian, run-length); beside them lie skip tables with one row per
//! [`SKIP`] rows, so that any lookup reads at most a few KiB. Must not know edits, frames or fragments.

use super::boxes::{Broken, be16, be24, be32, be64};
use super::derived::Section;
use super::moov::{Rows, Sizes, Trak};
use super::sample::Sample;

/// Rows of a sample table per row of its skip table.
pub(crate) const SKIP: usize = 64;

/// No media lasts this many ticks; sums stay far from overflow.
const TICKS_MAX: i64 = i64::MAX / 8;

/// Skip tables of one track. Rows: stts (samples before, dts), ctts (samples before), stsc (samples before),
/// bytes (bytes before, one row per SKIP samples).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Skips {
    pub(crate) stts: Section,
    pub(crate) ctts: Section,
    pub(crate) stsc: Section,
    pub(crate) bytes: Section,
}

/// The values of [`Skips`] while an index is built.
#[derive(Debug, Default)]
pub(crate) struct SkipValues {
    pub(crate) stts: Vec<u64>,
    pub(crate) ctts: Vec<u64>,
    pub(crate) stsc: Vec<u64>,
    pub(crate) bytes: Vec<u64>,
    /// Samples that have a size and a place.
    pub(crate) samples: u64,
    /// Sum of all durations, in ticks.
    pub(crate) ticks: i64,
}

/// Reads the tables of `trak` once. `file_size` bounds what a table without rows may claim.
pub(crate) fn measure(moov: &[u8], trak: &Trak, file_size: u64) -> Result<SkipValues, Broken> {
    let mut values = SkipValues::default();
    let in_chunks = measure_stsc(moov, trak, &mut values)?;
    let sized = match trak.sizes {
        Sizes::Uniform { size, count } => u64::from(count).min(file_size / u64::from(size.max(1))),
        Sizes::Table { rows, .. } => u64::from(rows.count),
    };
    values.samples = sized.min(in_chunks);
    if values.samples > 0 && trak.stts.count == 0 {
        return Err(Broken::new("samples without stts", trak.stsd.start));
    }
    let (mut samples, mut dts) = (0u64, 0i64);
    for row in 0..trak.stts.count as usize {
        if row % SKIP == 0 {
            values.stts.extend([samples, dts as u64]);
        }
        let (count, delta) = stts_row(moov, trak.stts, row);
        // Both factors are 32-bit, so the product fits; the sum is bounded by the check.
        samples = samples.saturating_add(u64::from(count));
        dts = i64::try_from(u64::from(count) * u64::from(delta))
            .ok()
            .and_then(|ticks| dts.checked_add(ticks))
            .filter(|dts| *dts <= TICKS_MAX)
            .ok_or_else(|| Broken::new("stts lasts longer than any media", trak.stts.at))?;
    }
    values.ticks = dts;
    let mut samples = 0u64;
    for row in 0..trak.ctts.count as usize {
        if row % SKIP == 0 {
            values.ctts.push(samples);
        }
        samples += u64::from(ctts_row(moov, trak.ctts, row).0);
    }
    if matches!(trak.sizes, Sizes::Table { .. }) {
        let mut bytes = 0u64;
        for sample in 0..values.samples {
            if sample % SKIP as u64 == 0 {
                values.bytes.push(bytes);
            }
            bytes += u64::from(size_of(moov, trak.sizes, sample));
        }
    }
    check_stss(moov, trak)?;
    Ok(values)
}

/// Fills the skip table of `stsc`; returns how many samples the chunks hold.
fn measure_stsc(moov: &[u8], trak: &Trak, values: &mut SkipValues) -> Result<u64, Broken> {
    let rows = trak.stsc.count as usize;
    let mut samples = 0u64;
    for row in 0..rows {
        if row % SKIP == 0 {
            values.stsc.push(samples);
        }
        let first = stsc_field(moov, trak, row, 0);
        let end = stsc_end(moov, trak, row);
        if first == 0 || (row == 0 && first != 1) || end < first {
            return Err(Broken::new(format!("stsc entry {row} is out of order"), trak.stsc.at + row * 12));
        }
        let run = u64::from(end.saturating_sub(first)) * u64::from(stsc_field(moov, trak, row, 1));
        samples = samples.saturating_add(run);
    }
    Ok(samples)
}

fn check_stss(moov: &[u8], trak: &Trak) -> Result<(), Broken> {
    let Some(stss) = trak.stss else { return Ok(()) };
    let mut previous = 0;
    for row in 0..stss.count as usize {
        let sample = be32(moov, stss.at + row * 4);
        if sample <= previous {
            return Err(Broken::new("stss is not in order", stss.at + row * 4));
        }
        previous = sample;
    }
    Ok(())
}

/// Samples and value of a row of `stts`.
fn stts_row(moov: &[u8], rows: Rows, row: usize) -> (u32, u32) {
    match rows.scale {
        0 => (be32(moov, rows.at + row * 8), be32(moov, rows.at + row * 8 + 4)),
        scale => (1, u32::from(be16(moov, rows.at + row * 2)).wrapping_mul(scale)),
    }
}

/// Samples and value of a row of `ctts`; the value is signed, whatever the version: so writers use it.
fn ctts_row(moov: &[u8], rows: Rows, row: usize) -> (u32, u32) {
    match rows.scale {
        0 => stts_row(moov, rows, row),
        scale => (1, (be16(moov, rows.at + row * 2) as i16 as i32 as u32).wrapping_mul(scale)),
    }
}

fn stsc_field(moov: &[u8], trak: &Trak, row: usize, field: usize) -> u32 {
    be32(moov, trak.stsc.at + row * 12 + field * 4)
}

/// One past the last chunk of a run, counted from 1 and never beyond the chunks there are.
fn stsc_end(moov: &[u8], trak: &Trak, row: usize) -> u32 {
    let last = trak.chunks.count.saturating_add(1);
    if row + 1 < trak.stsc.count as usize {
        let next = stsc_field(moov, trak, row + 1, 0);
        // A run that starts after the last chunk is empty.
        if stsc_field(moov, trak, row, 0) > last { next } else { next.min(last.max(stsc_field(moov, trak, row, 0))) }
    } else {
        last.max(stsc_field(moov, trak, row, 0))
    }
}

fn size_of(moov: &[u8], sizes: Sizes, sample: u64) -> u32 {
    let sample = usize::try_from(sample).unwrap_or(usize::MAX);
    match sizes {
        Sizes::Uniform { size, .. } => size,
        Sizes::Table { rows, .. } if sample >= rows.count as usize => 0,
        Sizes::Table { rows, bits: 4 } => {
            let byte = moov.get(rows.at + sample / 2).copied().unwrap_or(0);
            u32::from(if sample % 2 == 0 { byte >> 4 } else { byte & 15 })
        }
        Sizes::Table { rows, bits: 8 } => u32::from(moov.get(rows.at + sample).copied().unwrap_or(0)),
        Sizes::Table { rows, bits: 16 } => u32::from(be16(moov, rows.at + sample * 2)),
        Sizes::Table { rows, bits: 24 } => be24(moov, rows.at + sample * 3),
        Sizes::Table { rows, .. } => be32(moov, rows.at + sample * 4),
    }
}

/// The tables of one track together with their skip tables. `entry` holds both; `moov` is the part with the boxes.
#[derive(Clone, Copy)]
pub(crate) struct Tables<'a> {
    pub(crate) entry: &'a [u8],
    pub(crate) moov: &'a [u8],
    pub(crate) trak: &'a Trak,
    pub(crate) skips: Skips,
    pub(crate) samples: u64,
}

/// A run-length position: the row, how many samples of it are left, and the row's value.
#[derive(Clone, Copy, Debug)]
struct Run {
    row: usize,
    left: u32,
    value: u32,
}

/// Walks the samples of a track in decode order.
#[derive(Clone)]
pub(crate) struct TableCursor<'a> {
    tables: Tables<'a>,
    sample: u64,
    dts: i64,
    stts: Run,
    ctts: Run,
    stsc_row: usize,
    /// Chunk counted from 1, and what is left of it.
    chunk: u32,
    chunk_left: u32,
    offset: u64,
    next_sync: usize,
}

impl<'a> Tables<'a> {
    /// A cursor whose first sample is `sample`.
    pub(crate) fn cursor(self, sample: u64) -> TableCursor<'a> {
        let (stts, dts) = self.stts_at(sample);
        let (stsc_row, chunk, first) = self.chunk_at(sample);
        let per_chunk = stsc_field(self.moov, self.trak, stsc_row, 1);
        let in_chunk = sample.saturating_sub(first);
        let bytes = self.bytes_before(sample).saturating_sub(self.bytes_before(first));
        TableCursor {
            tables: self,
            sample,
            dts,
            stts,
            ctts: self.ctts_at(sample),
            stsc_row,
            chunk,
            chunk_left: u64::from(per_chunk).saturating_sub(in_chunk) as u32,
            offset: self.chunk_offset(chunk).saturating_add(bytes),
            next_sync: self.syncs_before(sample),
        }
    }

    /// Decode time of a sample.
    pub(crate) fn dts_of(self, sample: u64) -> i64 {
        self.stts_at(sample).1
    }

    /// The last sync sample at or before `sample`.
    pub(crate) fn sync_at_or_before(self, sample: u64) -> Option<u64> {
        let Some(stss) = self.trak.stss else { return Some(sample) };
        let before = self.syncs_before(sample.saturating_add(1));
        let row = before.checked_sub(1)?;
        Some(u64::from(be32(self.moov, stss.at + row * 4)).saturating_sub(1))
    }

    /// Number of sync samples among the first `samples`.
    pub(crate) fn syncs_before(self, samples: u64) -> usize {
        let Some(stss) = self.trak.stss else { return usize::try_from(samples).unwrap_or(usize::MAX) };
        let rows = Section { at: 0, count: stss.count as usize, width: 1 };
        rows.partition(|row| u64::from(be32(self.moov, stss.at + row * 4)) <= samples)
    }

    fn stts_at(self, sample: u64) -> (Run, i64) {
        let skip = self.skips.stts.partition(|row| self.skips.stts.get(self.entry, row, 0) <= sample);
        let skip = skip.saturating_sub(1);
        let mut before = self.skips.stts.get(self.entry, skip, 0);
        let mut dts = self.skips.stts.signed(self.entry, skip, 1);
        let rows = self.trak.stts.count as usize;
        let mut row = (skip * SKIP).min(rows.saturating_sub(1));
        let stop = row.saturating_add(2 * SKIP).min(rows);
        loop {
            let (count, delta) = stts_row(self.moov, self.trak.stts, row);
            let inside = sample.saturating_sub(before);
            // The last row goes on for ever: some files have more samples than stts covers.
            if inside < u64::from(count) || row + 1 >= stop {
                let ticks = i64::try_from(inside).unwrap_or(TICKS_MAX).saturating_mul(i64::from(delta));
                let left = u64::from(count).saturating_sub(inside) as u32;
                return (Run { row, left, value: delta }, dts.saturating_add(ticks));
            }
            before = before.saturating_add(u64::from(count));
            dts = dts.saturating_add((u64::from(count) * u64::from(delta)) as i64);
            row += 1;
        }
    }

    fn ctts_at(self, sample: u64) -> Run {
        let skip = self.skips.ctts.partition(|row| self.skips.ctts.get(self.entry, row, 0) <= sample);
        let skip = skip.saturating_sub(1);
        let mut before = self.skips.ctts.get(self.entry, skip, 0);
        let rows = self.trak.ctts.count as usize;
        for row in skip * SKIP..rows.min(skip.saturating_add(2) * SKIP) {
            let (count, value) = ctts_row(self.moov, self.trak.ctts, row);
            let inside = sample.saturating_sub(before);
            if inside < u64::from(count) {
                return Run { row, left: count - inside as u32, value };
            }
            before = before.saturating_add(u64::from(count));
        }
        // Samples that ctts does not cover are presented when they are decoded.
        Run { row: rows, left: u32::MAX, value: 0 }
    }

    /// The run and the chunk (from 1) that hold `sample`, and the chunk's first sample.
    fn chunk_at(self, sample: u64) -> (usize, u32, u64) {
        let skip = self.skips.stsc.partition(|row| self.skips.stsc.get(self.entry, row, 0) <= sample);
        let skip = skip.saturating_sub(1);
        let mut before = self.skips.stsc.get(self.entry, skip, 0);
        let rows = (self.trak.stsc.count as usize).min(skip.saturating_add(2) * SKIP);
        for row in skip * SKIP..rows {
            let (first, per_chunk) =
                (stsc_field(self.moov, self.trak, row, 0), stsc_field(self.moov, self.trak, row, 1));
            let chunks = stsc_end(self.moov, self.trak, row).saturating_sub(first);
            let run = u64::from(chunks) * u64::from(per_chunk);
            let inside = sample.saturating_sub(before);
            if inside < run {
                let chunk = inside / u64::from(per_chunk);
                return (row, first.saturating_add(chunk as u32), before + chunk * u64::from(per_chunk));
            }
            before = before.saturating_add(run);
        }
        (rows, 0, sample)
    }

    fn chunk_offset(self, chunk: u32) -> u64 {
        let Some(row) = chunk.checked_sub(1).filter(|row| *row < self.trak.chunks.count) else { return 0 };
        let row = row as usize;
        if self.trak.chunks_wide {
            be64(self.moov, self.trak.chunks.at + row * 8)
        } else {
            u64::from(be32(self.moov, self.trak.chunks.at + row * 4))
        }
    }

    /// Bytes of all samples before `sample`.
    fn bytes_before(self, sample: u64) -> u64 {
        if let Sizes::Uniform { size, .. } = self.trak.sizes {
            return sample.saturating_mul(u64::from(size));
        }
        let sample = sample.min(self.samples);
        let skip = sample / SKIP as u64;
        let known = self.skips.bytes.get(self.entry, skip as usize, 0);
        let rest = (skip * SKIP as u64..sample).map(|s| u64::from(size_of(self.moov, self.trak.sizes, s)));
        known.saturating_add(rest.sum())
    }
}

impl Iterator for TableCursor<'_> {
    type Item = Sample;

    fn next(&mut self) -> Option<Sample> {
        if self.sample >= self.tables.samples || !self.enter_chunk() {
            return None;
        }
        let (moov, trak) = (self.tables.moov, self.tables.trak);
        advance_rows(moov, trak.stts, &mut self.stts, stts_row, true);
        advance_rows(moov, trak.ctts, &mut self.ctts, ctts_row, false);
        let sync = match trak.stss {
            None => true,
            Some(stss) => {
                let row = self.next_sync < stss.count as usize;
                row && u64::from(be32(moov, stss.at + self.next_sync * 4)) == self.sample + 1
            }
        };
        self.next_sync += usize::from(sync);
        let sample = Sample {
            index: self.sample,
            offset: self.offset,
            size: size_of(moov, trak.sizes, self.sample),
            dts: self.dts,
            cts_offset: self.ctts.value as i32,
            duration: self.stts.value,
            sync,
            description: stsc_field(moov, trak, self.stsc_row, 2),
            moof: None,
        };
        self.sample += 1;
        self.dts = self.dts.saturating_add(i64::from(sample.duration));
        self.offset = self.offset.saturating_add(u64::from(sample.size));
        self.stts.left = self.stts.left.saturating_sub(1);
        self.ctts.left = self.ctts.left.saturating_sub(1);
        self.chunk_left -= 1;
        Some(sample)
    }
}

impl TableCursor<'_> {
    /// Makes sure that the chunk has a sample left; `false` at the end of the chunks.
    fn enter_chunk(&mut self) -> bool {
        if self.chunk_left > 0 {
            return true;
        }
        let (moov, trak) = (self.tables.moov, self.tables.trak);
        let mut chunk = self.chunk.saturating_add(1);
        while self.stsc_row < trak.stsc.count as usize {
            let per_chunk = stsc_field(moov, trak, self.stsc_row, 1);
            if per_chunk > 0 && chunk < stsc_end(moov, trak, self.stsc_row) {
                (self.chunk, self.chunk_left) = (chunk, per_chunk);
                self.offset = self.tables.chunk_offset(chunk);
                return true;
            }
            self.stsc_row += 1;
            chunk = stsc_field(moov, trak, self.stsc_row, 0);
        }
        false
    }
}

type RowReader = fn(&[u8], Rows, usize) -> (u32, u32);

/// Moves to the row that covers the next sample. At the end of the table the last value stays (`hold`), or 0.
fn advance_rows(moov: &[u8], rows: Rows, run: &mut Run, read: RowReader, hold: bool) {
    while run.left == 0 && run.row + 1 < rows.count as usize {
        run.row += 1;
        (run.left, run.value) = read(moov, rows, run.row);
    }
    if run.left == 0 {
        run.left = u32::MAX;
        if !hold {
            run.value = 0;
        }
    }
}
