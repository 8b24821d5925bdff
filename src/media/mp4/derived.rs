//! What an index entry keeps beside the `moov`: small sections of 64-bit numbers, written once, searched in place.
//!
//! Must not know what the numbers mean.

use super::boxes::Broken;

/// A section of an entry: `count` rows of `width` little-endian 64-bit numbers, starting at byte `at`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Section {
    pub(crate) at: usize,
    pub(crate) count: usize,
    pub(crate) width: usize,
}

impl Section {
    /// Field `field` of row `row`; 0 beyond the end.
    pub(crate) fn get(self, entry: &[u8], row: usize, field: usize) -> u64 {
        if row >= self.count || field >= self.width {
            return 0;
        }
        let at = self.at + (row * self.width + field) * 8;
        entry.get(at..at + 8).and_then(|b| b.first_chunk()).map_or(0, |b| u64::from_le_bytes(*b))
    }

    pub(crate) fn signed(self, entry: &[u8], row: usize, field: usize) -> i64 {
        self.get(entry, row, field) as i64
    }

    /// The number of leading rows for which `test` holds; rows must be sorted by it.
    pub(crate) fn partition(self, mut test: impl FnMut(usize) -> bool) -> usize {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low + (high - low) / 2;
            if test(middle) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }
}

/// Appends one section.
pub(crate) fn write(out: &mut Vec<u8>, width: usize, values: &[u64]) {
    // Exactly what is needed: an entry may be tens of megabytes, and doubling it would double the memory.
    out.reserve_exact(16 + values.len() * 8);
    out.extend_from_slice(&(width as u64).to_le_bytes());
    out.extend_from_slice(&((values.len() / width.max(1)) as u64).to_le_bytes());
    for value in values {
        out.extend_from_slice(&value.to_le_bytes());
    }
}

/// Reads the section headers back, in the order they were written.
pub(crate) struct Sections<'a> {
    entry: &'a [u8],
    at: usize,
}

impl<'a> Sections<'a> {
    pub(crate) fn new(entry: &'a [u8], at: usize) -> Self {
        Sections { entry, at }
    }

    /// The next section, which must have this width.
    pub(crate) fn next(&mut self, width: usize) -> Result<Section, Broken> {
        let broken = || Broken::new("a section of the index does not fit", self.at);
        let header = Section { at: self.at, count: 1, width: 2 };
        if self.entry.len().saturating_sub(self.at) < 16 || header.get(self.entry, 0, 0) != width as u64 {
            return Err(broken());
        }
        let at = self.at + 16;
        let count = usize::try_from(header.get(self.entry, 0, 1)).map_err(|_| broken())?;
        let len = count.checked_mul(width * 8).filter(|len| *len <= self.entry.len() - at).ok_or_else(broken)?;
        self.at = at + len;
        Ok(Section { at, count, width })
    }

    pub(crate) fn at_end(&self) -> bool {
        self.at == self.entry.len()
    }
}
