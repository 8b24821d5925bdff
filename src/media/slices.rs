//! A body planned as an ordered list of slices: lengths first, bytes last.

use bytes::Bytes;

/// One run of a planned body.
#[derive(Clone, Debug)]
pub enum Piece {
    /// Bytes that were generated (boxes).
    Generated(Bytes),
    /// Bytes of the source file.
    Source { offset: u64, len: u64 },
}
