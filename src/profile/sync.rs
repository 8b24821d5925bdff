//! The atomics of the call tree, in one place: the loom tests (`tests/loom`) put loom's in theirs.

pub(super) use std::sync::Mutex;
pub(super) use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering, fence};
