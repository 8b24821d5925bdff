//! Which bytes of an upload are there: a set of disjoint half-open ranges.
//!
//! Pure. Touching ranges are joined, so the set is as small as it can be.

use std::collections::BTreeMap;
use std::ops::Range;

/// Disjoint ranges, none of them empty, none touching another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges {
    /// Start to end.
    by_start: BTreeMap<u64, u64>,
}

impl Ranges {
    pub fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let (mut start, mut end) = (range.start, range.end);
        if let Some((&s, &e)) = self.by_start.range(..=start).next_back()
            && e >= start
        {
            start = s;
            end = end.max(e);
        }
        while let Some((&s, &e)) = self.by_start.range(start..=end).next() {
            end = end.max(e);
            self.by_start.remove(&s);
        }
        self.by_start.insert(start, end);
    }

    pub fn remove(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        if let Some((&s, &e)) = self.by_start.range(..range.start).next_back()
            && e > range.start
        {
            self.by_start.insert(s, range.start);
            if e > range.end {
                self.by_start.insert(range.end, e);
            }
        }
        while let Some((&s, &e)) = self.by_start.range(range.clone()).next() {
            self.by_start.remove(&s);
            if e > range.end {
                self.by_start.insert(range.end, e);
            }
        }
    }

    pub fn intersects(&self, range: &Range<u64>) -> bool {
        !range.is_empty() && self.by_start.range(..range.end).next_back().is_some_and(|(_, &e)| e > range.start)
    }

    pub fn covers(&self, range: &Range<u64>) -> bool {
        range.is_empty() || self.by_start.range(..=range.start).next_back().is_some_and(|(_, &e)| e >= range.end)
    }

    /// What lacks of `0..total`, in order.
    pub fn missing(&self, total: u64) -> Vec<Range<u64>> {
        let mut missing = Vec::new();
        let mut at = 0;
        for (&start, &end) in &self.by_start {
            if start >= total {
                break;
            }
            if start > at {
                missing.push(at..start);
            }
            at = at.max(end);
        }
        if at < total {
            missing.push(at..total);
        }
        missing
    }

    pub fn bytes(&self) -> u64 {
        self.by_start.iter().fold(0, |sum: u64, (s, e)| sum.saturating_add(e - s))
    }

    pub fn len(&self) -> usize {
        self.by_start.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_start.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.by_start.iter().map(|(&s, &e)| s..e)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against a plain array of flags, with steps from a small generator of fixed seed.
    #[test]
    fn agrees_with_an_array_of_flags() {
        const TOTAL: usize = 64;
        let mut seed = 1u64;
        let mut next = |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        };
        let mut ranges = Ranges::default();
        let mut flags = [false; TOTAL];
        for _ in 0..20_000 {
            let (a, b) = (next(TOTAL as u64 + 1), next(TOTAL as u64 + 1));
            let range = a.min(b)..a.max(b);
            let slots = range.start as usize..range.end as usize;
            assert_eq!(ranges.intersects(&range), flags[slots.clone()].iter().any(|f| *f), "{range:?}");
            assert_eq!(ranges.covers(&range), flags[slots.clone()].iter().all(|f| *f), "{range:?}");
            let set = next(3) > 0;
            flags[slots].fill(set);
            if set {
                ranges.insert(range)
            } else {
                ranges.remove(range)
            }
            assert_eq!(ranges.bytes(), flags.iter().filter(|f| **f).count() as u64);
            let missing: Vec<u64> = ranges.missing(TOTAL as u64).into_iter().flatten().collect();
            let expected: Vec<u64> = (0..TOTAL as u64).filter(|i| !flags[*i as usize]).collect();
            assert_eq!(missing, expected);
            let runs = (0..TOTAL).filter(|i| flags[*i] && (*i == 0 || !flags[i - 1])).count();
            assert_eq!(ranges.len(), runs, "touching ranges are joined");
        }
    }
}
