//! The numbers of a stream that stand for the same bytes for ever: of its parts and segments, of its discontinuities,
//! and its byte offsets. They go on when a stream ends and another of its name begins, and when the server restarts.
//!
//! PURE: who keeps them where a crash does not reach is behind [`Keeper`]. They are reserved in blocks, so that a crash
//! costs the rest of a block and no sync per part.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};

/// A place in a stream's numbers: the next of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    pub part: u64,
    pub segment: u64,
    pub discontinuity: u64,
    pub offset: u64,
}

/// What is reserved at once: half of it lasts for minutes, whatever the stream.
const BLOCK: Numbers = Numbers { part: 1 << 14, segment: 1 << 12, discontinuity: 1 << 10, offset: 1 << 30 };

impl Numbers {
    /// Where the block ends that begins here.
    pub fn block_end(self) -> Self {
        self.with(BLOCK, u64::saturating_add)
    }

    /// Whether less than half a block is left before `end`: time to reserve the next one.
    pub fn nears(self, end: Self) -> bool {
        let left = end.with(self, u64::saturating_sub);
        left.part < BLOCK.part / 2
            || left.segment < BLOCK.segment / 2
            || left.discontinuity < BLOCK.discontinuity / 2
            || left.offset < BLOCK.offset / 2
    }

    /// The later of both, number by number.
    pub fn max(self, other: Self) -> Self {
        self.with(other, u64::max)
    }

    fn with(self, other: Self, each: fn(u64, u64) -> u64) -> Self {
        Self {
            part: each(self.part, other.part),
            segment: each(self.segment, other.segment),
            discontinuity: each(self.discontinuity, other.discontinuity),
            offset: each(self.offset, other.offset),
        }
    }
}

/// A promise that resolves when what was asked before it is kept.
pub type Kept = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Who keeps which numbers are reserved. Nothing here blocks.
pub trait Keeper: Send + Sync {
    /// Reserves a block for a stream, behind all that its name ever had; gives where it begins.
    fn begin(&self, name: &str) -> Numbers;
    /// Reserves numbers up to `end`.
    fn reserve(&self, name: &str, end: Numbers);
    /// The stream has ended: what it did not use is free.
    fn settle(&self, name: &str, next: Numbers);
    /// Resolves when everything asked until now is on the disk, or cannot be brought there.
    fn kept(&self) -> Kept;
}

/// Keeps numbers for the life of the process.
#[derive(Default)]
pub struct InMemory(Mutex<BTreeMap<String, Numbers>>);

impl Keeper for InMemory {
    fn begin(&self, name: &str) -> Numbers {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(name).copied().unwrap_or_default()
    }

    fn reserve(&self, _: &str, _: Numbers) {}

    fn settle(&self, name: &str, next: Numbers) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), next);
    }

    fn kept(&self) -> Kept {
        Box::pin(std::future::ready(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_asked_for_before_the_last_one_ends() {
        let start = Numbers { part: 5, segment: 6, discontinuity: 7, offset: 8 };
        let end = start.block_end();
        assert_eq!(end, Numbers { part: 16_389, segment: 4102, discontinuity: 1031, offset: 1_073_741_832 });
        assert!(!start.nears(end));
        assert!(!Numbers { offset: 8 + (1 << 29), ..start }.nears(end));
        assert!(Numbers { offset: 9 + (1 << 29), ..start }.nears(end));
        assert!(Numbers { part: 8198, ..start }.nears(end));
        assert!(Numbers { segment: u64::MAX, ..start }.nears(end));
        assert_eq!(start.max(Numbers { part: 9, ..Numbers::default() }).part, 9);
        assert_eq!(Numbers { offset: u64::MAX, ..start }.block_end().offset, u64::MAX);
    }
}
