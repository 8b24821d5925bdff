//! The memory of all live streams together, bounded: a stream that takes more when too much is used keeps its share.
//!
//! PURE.

use super::window::Bounds;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

pub struct Memory {
    max: u64,
    used: AtomicU64,
    windows: AtomicU64,
}

impl Memory {
    pub fn new(max: u64) -> Self {
        Self { max, used: AtomicU64::new(0), windows: AtomicU64::new(0) }
    }

    /// Bytes that are kept, in windows and of what arrives.
    pub fn used(&self) -> u64 {
        self.used.load(Relaxed)
    }

    pub(super) fn open(&self) {
        self.windows.fetch_add(1, Relaxed);
    }

    pub(super) fn close(&self, bytes: u64) {
        self.windows.fetch_sub(1, Relaxed);
        self.used.fetch_sub(bytes, Relaxed);
    }

    /// What a stream may keep now.
    pub(super) fn bounds(&self, configured: Bounds) -> Bounds {
        if self.used() <= self.max {
            return configured;
        }
        let share = self.max / self.windows.load(Relaxed).max(1);
        Bounds { bytes: configured.bytes.min(share), ..configured }
    }

    /// A stream that had some bytes has others.
    pub(super) fn changed(&self, before: u64, after: u64) {
        if after >= before {
            self.used.fetch_add(after - before, Relaxed);
        } else {
            self.used.fetch_sub(before - after, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_appends_when_too_much_is_used_keeps_its_share() {
        let memory = Memory::new(1000);
        let configured = Bounds { duration_us: 5, bytes: 800 };
        memory.open();
        memory.open();
        memory.changed(0, 900);
        assert_eq!(memory.bounds(configured).bytes, 800);
        memory.changed(100, 300);
        assert_eq!((memory.used(), memory.bounds(configured).bytes), (1100, 500));
        memory.close(300);
        assert_eq!((memory.used(), memory.bounds(configured).bytes), (800, 800));
    }
}
