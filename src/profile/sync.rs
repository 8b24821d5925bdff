//! The atomics of the call tree, in one place: the loom tests (`tests/loom`) put loom's in theirs.

pub(super) use std::hint::spin_loop as pause;
pub(super) use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering, fence};
pub(super) use std::sync::{Mutex, MutexGuard};
