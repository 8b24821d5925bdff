//! An `mdat` that is arriving: what of it is there, and the chunks that it becomes.
//!
//! PURE. Media bytes stay in the buffers they came in; what a chunk consists of was planned in [`super::split`].

use super::arrival::Fragment;
use super::split::Planned;
use bytes::Bytes;
use std::collections::VecDeque;
use std::ops::Range;

/// Bytes of a piece that is not kept alone, and how many of them are.
pub(super) const SHORT: usize = 64;
pub(super) const SHORT_MAX: usize = 256;

/// An `mdat` box that is arriving.
pub(super) struct Filling {
    /// The chunks of it that are still to come, each with the first byte that it or a later one needs.
    planned: VecDeque<(Planned, u64)>,
    /// The buffer that the `moof` came in, from there on.
    buffer: Bytes,
    /// What arrived and is still needed, each piece with its place in the box.
    pieces: Vec<(u64, Bytes)>,
    got: u64,
    size: u64,
    /// How many of the last pieces are short.
    short: usize,
    /// Bytes of short pieces that were joined.
    pub(super) copied_bytes: u64,
}

impl Filling {
    pub(super) fn new(planned: VecDeque<Planned>, size: u64, buffer: Bytes) -> Self {
        let mut needed_from = u64::MAX;
        let first_needed = |planned: Planned| {
            needed_from = planned.ranges.iter().fold(needed_from, |first, range| first.min(range.start));
            (planned, needed_from)
        };
        let mut planned: VecDeque<_> = planned.into_iter().rev().map(first_needed).collect();
        planned.make_contiguous().reverse();
        Self { planned, buffer, pieces: Vec::new(), got: 0, size, short: 0, copied_bytes: 0 }
    }

    /// Bytes that are kept.
    pub(super) fn held_bytes(&self) -> u64 {
        self.got - self.pieces.first().map_or(self.got, |(at, _)| *at)
    }

    /// Bytes that are still to come.
    pub(super) fn missing(&self) -> u64 {
        self.size - self.got
    }

    pub(super) fn push(&mut self, piece: Bytes) {
        let at = self.got;
        self.got += piece.len() as u64;
        self.short = if piece.len() < SHORT { self.short + 1 } else { 0 };
        self.pieces.push((at, piece));
        if self.short == SHORT_MAX {
            self.join_short();
        }
    }

    /// Joins the last pieces: kept one by one they would take more memory than their bytes.
    fn join_short(&mut self) {
        let short = self.pieces.split_off(self.pieces.len() - self.short);
        let Some(at) = short.first().map(|(at, _)| *at) else { return };
        let whole: Vec<u8> = short.iter().flat_map(|(_, piece)| piece.iter().copied()).collect();
        self.copied_bytes += whole.len() as u64;
        self.pieces.push((at, whole.into()));
        self.short = 0;
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

    /// Lets go of what no later chunk needs.
    fn release(&mut self) {
        let needed_from = self.planned.front().map_or(u64::MAX, |(_, first)| *first);
        let over = self.pieces.partition_point(|(at, piece)| at + piece.len() as u64 <= needed_from);
        self.pieces.drain(..over);
        self.short = self.short.min(self.pieces.len());
    }

    /// The first two pieces as one slice, if they are neighbours in the buffer of the `moof`.
    fn front(&self, rope: &[Bytes]) -> Option<Bytes> {
        let [moof, media, ..] = rope else { return None };
        let len = moof.len() + media.len();
        let is_next = moof.as_ptr() == self.buffer.as_ptr() && media.as_ptr() == moof.as_ptr_range().end;
        (is_next && len <= self.buffer.len()).then(|| self.buffer.slice(..len))
    }

    /// The next chunk, if its bytes are there, and the bytes that were made for it.
    pub(super) fn next(&mut self) -> Option<(Fragment, u64)> {
        let got = self.got;
        let (planned, _) = self.planned.pop_front_if(|(planned, _)| planned.need() <= got)?;
        let Planned { head, moof_len, ranges, runs, keyframe, begins, ends } = planned;
        let is_new = moof_len < head.len();
        let made = if is_new { head.len() as u64 } else { 0 };
        let mut rope = vec![head.slice(..moof_len)];
        rope.extend(is_new.then(|| head.slice(moof_len..)));
        rope.extend(self.rope(&ranges));
        let front = if is_new { Some(head) } else { self.front(&rope) };
        let len = rope.iter().map(|piece| piece.len() as u64).sum();
        self.release();
        Some((Fragment { rope, front, len, runs, keyframe, begins, ends }, made))
    }
}
