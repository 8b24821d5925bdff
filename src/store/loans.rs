//! How many loans each thread has, and a barrier after which these counts can be believed.
//!
//! A count is written by its own thread only, with plain stores: a locked addition would cost ten times as much. What
//! that leaves open, whether another processor sees a count before it acts on it, is settled by the rare one who asks:
//! membarrier(2) has every running thread of the process make a full fence. `tests/loom` puts a model in this file's
//! place. Must not know what is lent.
#![allow(unsafe_code, reason = "membarrier(2) has no wrapper")]

use std::cell::Cell;
pub(super) use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
pub(super) use std::sync::{Mutex, MutexGuard};

/// The loans of one thread. Never freed: a thread that ends leaves it to the next that begins.
#[repr(align(64))]
pub(super) struct Loans(pub(super) AtomicU32);

thread_local! {
    /// Without a destructor and without lazy initialisation: it is found with one load.
    static MINE: Cell<Option<&'static Loans>> = const { Cell::new(None) };
    static LEAVING: Leaving = const { Leaving };
}

/// Gives a thread's count back when the thread ends.
struct Leaving;

impl Drop for Leaving {
    fn drop(&mut self) {
        // One that was not paid back may still be: it stays this thread's.
        if let Some(loans) = MINE.take().filter(|loans| loans.0.load(Ordering::Relaxed) == 0) {
            threads().idle.push(loans);
        }
    }
}

struct Threads {
    all: Vec<&'static Loans>,
    /// Of threads that ended.
    idle: Vec<&'static Loans>,
}

static THREADS: Mutex<Threads> = Mutex::new(Threads { all: Vec::new(), idle: Vec::new() });

fn threads() -> MutexGuard<'static, Threads> {
    THREADS.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// The calling thread's.
#[inline]
pub(super) fn mine() -> &'static Loans {
    MINE.get().unwrap_or_else(begin)
}

#[cold]
fn begin() -> &'static Loans {
    let mut threads = threads();
    let loans = threads.idle.pop().unwrap_or_else(|| {
        let new: &'static Loans = Box::leak(Box::new(Loans(AtomicU32::new(0))));
        threads.all.push(new);
        new
    });
    MINE.set(Some(loans));
    // At a thread's very end there is nobody left to give it back.
    let _ = LEAVING.try_with(|_| ());
    loans
}

/// Between the store that counts a loan and the load of what is lent: costs nothing, and is a full fence for whoever
/// calls [`nobody`].
#[inline]
pub(super) fn fence() {
    std::sync::atomic::compiler_fence(Ordering::SeqCst);
}

/// Whether no thread has a loan, of whatever. Who borrows from now on sees all that the caller has stored before; false
/// where the kernel cannot promise that.
pub(super) fn nobody() -> bool {
    // SAFETY: takes no pointers.
    let call = |command: libc::c_int| unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) == 0 };
    // To register again is to do nothing.
    let fenced = call(libc::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED) && call(libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED);
    fenced && threads().all.iter().all(|loans| loans.0.load(Ordering::Acquire) == 0)
}
