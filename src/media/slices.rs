//! A body planned as an ordered list of slices: lengths first, bytes last.

use bytes::Bytes;
use std::ops::Range;

/// One run of a planned body.
#[derive(Clone, Debug)]
pub enum Piece {
    /// Bytes that were generated (boxes).
    Generated(Bytes),
    /// Bytes of the source file.
    Source { offset: u64, len: u64 },
}

impl Piece {
    /// Length in bytes; an empty piece is never planned.
    #[allow(clippy::len_without_is_empty, reason = "no piece is empty")]
    pub fn len(&self) -> u64 {
        match self {
            Self::Generated(bytes) => bytes.len() as u64,
            Self::Source { len, .. } => *len,
        }
    }

    /// A part of the piece; the range lies within it.
    pub fn slice(&self, range: Range<u64>) -> Self {
        match self {
            Self::Generated(bytes) => {
                let at = |n: u64| usize::try_from(n).unwrap_or(usize::MAX).min(bytes.len());
                Self::Generated(bytes.slice(at(range.start)..at(range.end)))
            }
            Self::Source { offset, .. } => Self::Source { offset: offset + range.start, len: range.end - range.start },
        }
    }
}
