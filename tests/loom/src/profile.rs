//! What the tree needs of its room, with loom's atomics in place of the real ones.

#[path = "../../../src/profile/site.rs"]
pub mod site;
#[path = "../../../src/profile/tree.rs"]
pub mod tree;

pub use site::{Kind, Site};

#[cfg(not(feature = "loom"))]
#[path = "../../../src/profile/sync.rs"]
mod sync;

#[cfg(feature = "loom")]
mod sync {
    pub(super) use loom::sync::atomic::{AtomicPtr, AtomicU64, Ordering, fence};
    pub(super) use loom::sync::{Mutex, MutexGuard};
    pub(super) use loom::thread::yield_now as pause;
}
