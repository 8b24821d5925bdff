//! An `mdat` that is arriving: what of it is there, and the chunks that it becomes.
//!
//! PURE. Media bytes stay in the buffers they came in; what a chunk consists of was planned in [`super::split`].

use super::arrival::Fragment;
use super::split::Planned;
use bytes::Bytes;
use std::collections::VecDeque;
use std::ops::Range;

/// An `mdat` box that is arriving.
pub(super) struct Filling {
    /// The chunks of it that are still to come.
    planned: VecDeque<Planned>,
    /// What arrived, each piece with its place in the box.
    pieces: Vec<(u64, Bytes)>,
    got: u64,
    size: u64,
}

impl Filling {
    pub(super) fn new(planned: VecDeque<Planned>, size: u64) -> Self {
        Self { planned, pieces: Vec::new(), got: 0, size }
    }

    /// Bytes that are still to come.
    pub(super) fn missing(&self) -> u64 {
        self.size - self.got
    }

    pub(super) fn push(&mut self, piece: Bytes) {
        let at = self.got;
        self.got += piece.len() as u64;
        self.pieces.push((at, piece));
    }

    /// Runs of bytes that are there.
    fn rope(&self, ranges: &[Range<u64>]) -> Vec<Bytes> {
        let mut rope = Vec::with_capacity(ranges.len());
        for range in ranges {
            let first = self.pieces.partition_point(|(at, piece)| at + piece.len() as u64 <= range.start);
            for (at, piece) in self.pieces[first..].iter().take_while(|(at, _)| *at < range.end) {
                // Both are within the piece.
                let from = range.start.saturating_sub(*at) as usize;
                let to = (range.end - at).min(piece.len() as u64) as usize;
                rope.push(piece.slice(from..to));
            }
        }
        rope
    }

    /// The next chunk, if its bytes are there, and the bytes that were made for it.
    pub(super) fn next(&mut self) -> Option<(Fragment, u64)> {
        let got = self.got;
        let planned = self.planned.pop_front_if(|planned| planned.need() <= got)?;
        let Planned { moof, mdat, ranges, runs, keyframe, begins, ends } = planned;
        let made = if mdat.is_empty() { 0 } else { (moof.len() + mdat.len()) as u64 };
        let mut rope = vec![moof];
        rope.extend(Some(mdat).filter(|mdat| !mdat.is_empty()));
        rope.extend(self.rope(&ranges));
        let len = rope.iter().map(|piece| piece.len() as u64).sum();
        Some((Fragment { rope, len, runs, keyframe, begins, ends }, made))
    }
}
