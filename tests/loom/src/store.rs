//! What lending needs of its room, with loom's atomics in place of the real ones.

#[path = "../../../src/store/lent.rs"]
pub mod lent;

#[cfg(not(feature = "loom"))]
#[path = "../../../src/store/loans.rs"]
mod loans;

/// A model of `src/store/loans.rs`: as many counts as threads, and a full fence on both sides, as membarrier(2) makes it.
#[cfg(feature = "loom")]
mod loans {
    pub(super) use loom::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
    pub(super) use loom::sync::{Mutex, MutexGuard};
    use std::cell::Cell;

    pub(super) struct Loans(pub(super) AtomicU32);

    loom::lazy_static! {
        static ref THREADS: Mutex<Vec<&'static Loans>> = Mutex::new(Vec::new());
    }
    loom::thread_local! {
        static MINE: Cell<Option<&'static Loans>> = Cell::new(None);
    }

    pub(super) fn mine() -> &'static Loans {
        MINE.with(|mine| {
            mine.get().unwrap_or_else(|| {
                let new: &'static Loans = Box::leak(Box::new(Loans(AtomicU32::new(0))));
                THREADS.lock().expect("no panic").push(new);
                mine.set(Some(new));
                new
            })
        })
    }

    pub(super) fn fence() {
        loom::sync::atomic::fence(Ordering::SeqCst);
    }

    pub(super) fn nobody() -> bool {
        loom::sync::atomic::fence(Ordering::SeqCst);
        THREADS.lock().expect("no panic").iter().all(|loans| loans.0.load(Ordering::Acquire) == 0)
    }
}
