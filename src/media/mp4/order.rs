//! Presentation order without an entry per sample: the decode positions at which the order can be cut.
//!
//! At a cut every sample before it is presented before every sample from it on, so that ranks and decode positions
//! agree there; between two cuts a lookup sorts the few samples itself. Must not know where samples come from.

use std::collections::VecDeque;

/// Two cuts are never further apart in decode order than this, or the file is refused.
pub(crate) const REORDER_MAX: u64 = 65_536;

/// Finds the cuts of one track while its samples are fed in decode order.
pub(crate) struct OrderBuilder {
    /// Cuts are kept for every multiple of this many samples.
    stride: u64,
    samples: u64,
    highest: i64,
    /// Cuts that a later sample may still undo, oldest first.
    open: VecDeque<Candidate>,
    /// Rows (position, lowest presentation time from there on): the last cut at or before each stride.
    kept: Vec<u64>,
    last: Option<Candidate>,
    next_boundary: u64,
    spread: Spread,
}

#[derive(Clone, Copy)]
struct Candidate {
    position: u64,
    /// Highest presentation time before the position, lowest from it on.
    highest_before: i64,
    lowest_after: i64,
}

/// What decides whether frames are equally spaced: `count` samples at `lowest + k * step`, each k once.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Spread {
    pub(crate) count: u64,
    pub(crate) lowest: i64,
    pub(crate) highest: i64,
    /// Greatest common divisor of all distances from the first sample; 0 while there are none.
    pub(crate) step: u64,
    first: i64,
    /// Sum and sum of squares of the distances from the first sample, in steps of nothing: modulo 2^128.
    sum: i128,
    squares: i128,
}

/// Samples are presented further from their decode position than [`REORDER_MAX`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooFar {
    pub(crate) sample: u64,
}

impl OrderBuilder {
    pub(crate) fn new(stride: u64) -> Self {
        OrderBuilder {
            stride,
            samples: 0,
            highest: i64::MIN,
            open: VecDeque::new(),
            kept: Vec::new(),
            last: None,
            next_boundary: 0,
            spread: Spread::default(),
        }
    }

    /// The next sample's presentation time.
    pub(crate) fn push(&mut self, time: i64) -> Result<(), TooFar> {
        let position = self.samples;
        self.samples += 1;
        self.spread.push(time);
        let mut lowest = time;
        while let Some(top) = self.open.back() {
            if top.highest_before <= time {
                break;
            }
            lowest = lowest.min(top.lowest_after);
            self.open.pop_back();
        }
        if let Some(top) = self.open.back_mut() {
            top.lowest_after = top.lowest_after.min(lowest);
        } else if position > 0 {
            return Err(TooFar { sample: position });
        }
        if self.highest <= time {
            self.open.push_back(Candidate { position, highest_before: self.highest, lowest_after: time });
        }
        self.highest = self.highest.max(time);
        if self.open.back().is_none_or(|top| position - top.position > REORDER_MAX) {
            return Err(TooFar { sample: position });
        }
        while self.open.get(1).is_some_and(|second| second.position + REORDER_MAX <= position) {
            self.keep_front();
        }
        Ok(())
    }

    fn keep_front(&mut self) {
        let Some(front) = self.open.pop_front() else { return };
        while self.next_boundary < front.position {
            self.keep_last();
        }
        self.last = Some(front);
    }

    /// The boundary is passed: the last cut before it is the one to remember.
    fn keep_last(&mut self) {
        if let Some(last) = self.last.take() {
            self.kept.extend([last.position, last.lowest_after as u64]);
        }
        self.next_boundary = self.next_boundary.saturating_add(self.stride);
    }

    /// The rows of the section of cuts (position, lowest presentation time from there on), and the spread of the times.
    pub(crate) fn finish(mut self) -> (Vec<u64>, Spread) {
        while !self.open.is_empty() {
            self.keep_front();
        }
        self.keep_last();
        (self.kept, self.spread)
    }
}

impl Spread {
    fn push(&mut self, time: i64) {
        if self.count == 0 {
            *self = Spread { count: 1, lowest: time, highest: time, first: time, ..Spread::default() };
            return;
        }
        self.count += 1;
        self.lowest = self.lowest.min(time);
        self.highest = self.highest.max(time);
        let distance = i128::from(time) - i128::from(self.first);
        let magnitude = u64::try_from(distance.unsigned_abs()).unwrap_or(u64::MAX);
        if self.step == 0 || magnitude % self.step != 0 {
            self.step = gcd(self.step, magnitude);
        }
        self.sum = self.sum.wrapping_add(distance);
        self.squares = self.squares.wrapping_add(distance.wrapping_mul(distance));
    }

    /// The times are `lowest`, `lowest + step`, ... `highest`, each once.
    pub(crate) fn is_even(&self) -> bool {
        let (Some(gaps), step) = (self.count.checked_sub(1), i128::from(self.step)) else { return false };
        if gaps == 0 {
            return true;
        }
        let (gaps, base) = (i128::from(gaps), i128::from(self.lowest) - i128::from(self.first));
        if step == 0 || gaps.checked_mul(step) != Some(i128::from(self.highest) - i128::from(self.lowest)) {
            return false;
        }
        // Every time is on the grid and inside it; equal sums of first and second powers rule out repeats with gaps.
        let count = gaps + 1;
        let indices = gaps * count / 2;
        let index_squares = (gaps * count / 2).wrapping_mul(2 * gaps + 1) / 3;
        let sum = count.wrapping_mul(base).wrapping_add(step.wrapping_mul(indices));
        let squares = count
            .wrapping_mul(base.wrapping_mul(base))
            .wrapping_add(base.wrapping_mul(2).wrapping_mul(step).wrapping_mul(indices))
            .wrapping_add(step.wrapping_mul(step).wrapping_mul(index_squares));
        sum == self.sum && squares == self.squares
    }
}

fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cuts by definition, tried one by one.
    fn cuts_of(times: &[i64]) -> Vec<u64> {
        let cut = |&p: &usize| {
            let before = times[..p].iter().max().copied().unwrap_or(i64::MIN);
            before <= times[p..].iter().min().copied().unwrap_or(i64::MAX)
        };
        (0..times.len()).filter(cut).map(|p| p as u64).collect()
    }

    fn build(times: &[i64], stride: u64) -> Vec<(u64, i64)> {
        let mut order = OrderBuilder::new(stride);
        for &time in times {
            order.push(time).expect("close enough");
        }
        order.finish().0.chunks(2).map(|row| (row[0], row[1] as i64)).collect()
    }

    #[test]
    fn cuts_of_b_frames() {
        // I P B B P B B in decode order.
        let times = [0, 3, 1, 2, 6, 4, 5];
        assert_eq!(cuts_of(&times), [0, 1, 4]);
        assert_eq!(build(&times, 1), [(0, 0), (1, 1), (4, 4)]);
        // Boundaries 0, 3, 6: the last cuts at or before them.
        assert_eq!(build(&times, 3), [(0, 0), (1, 1), (4, 4)]);
        assert_eq!(build(&times, 100), [(0, 0), (4, 4)]);
        assert_eq!(build(&[0, 1, 2, 3], 2), [(0, 0), (2, 2), (3, 3)]);
    }

    #[test]
    fn cuts_agree_with_the_definition() {
        let mut state = 7u64;
        for round in 0..300 {
            let mut next = |bound: u64| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 33) % bound
            };
            let mut times: Vec<i64> =
                (0..60).map(|i| i * 10 - if round % 3 == 0 { next(3) as i64 * 10 } else { 0 }).collect();
            for _ in 0..30 {
                let at = next(55) as usize;
                times.swap(at, at + next(5) as usize);
            }
            let cuts = cuts_of(&times);
            let expected: Vec<_> =
                cuts.iter().map(|&p| (p, times[p as usize..].iter().min().copied().expect("some"))).collect();
            let built = build(&times, 1);
            assert_eq!(built, expected);
        }
    }

    #[test]
    fn too_far() {
        let mut order = OrderBuilder::new(1024);
        for time in 1..=70_000 {
            order.push(time).expect("in order");
        }
        assert_eq!(order.push(1), Err(TooFar { sample: 70_000 }));
        let mut order = OrderBuilder::new(1024);
        order.push(1_000_000).expect("first");
        let failed = (0..).find(|&time| order.push(time).is_err());
        assert_eq!(failed, Some(65_536));
    }

    #[test]
    fn even_spacing() {
        let spread = |times: &[i64]| {
            let mut spread = Spread::default();
            times.iter().for_each(|&t| spread.push(t));
            (spread.is_even(), spread.step)
        };
        assert_eq!(spread(&[1024, 3072, 1536, 2560, 2048]), (true, 512));
        assert_eq!(spread(&[0, 512, 1024, 2560]), (false, 512));
        assert_eq!(spread(&[0, 33, 67, 100]), (false, 1));
        // On the grid, right span, but one time twice and one missing.
        assert_eq!(spread(&[0, 1, 1, 3]), (false, 1));
        assert_eq!(spread(&[5]), (true, 0));
    }
}
