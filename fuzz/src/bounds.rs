//! Bounds on what one input may cost: memory by a counting allocator, time by the thread's CPU clock.
//!
//! A violation is a panic, which libFuzzer reports with the input. Must not know: what is parsed.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// No input may make a parser hold more than this.
const BYTES_MAX: usize = 64 << 20;
/// No input of up to 1 MiB may take longer, instrumented as the code is here.
const CPU_MS_MAX: u64 = 1000;

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call goes to the system's allocator unchanged; the counters are cells of this thread and allocate
// nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's contract is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's contract is the same.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        discount(layout.size());
        count(size);
        // SAFETY: the caller's contract is the same.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        discount(layout.size());
        // SAFETY: the caller's contract is the same.
        unsafe { System.dealloc(block, layout) }
    }
}

fn count(bytes: usize) {
    let held = HELD.get().saturating_add(bytes);
    HELD.set(held);
    PEAK.set(PEAK.get().max(held));
}

fn discount(bytes: usize) {
    HELD.set(HELD.get().saturating_sub(bytes));
}

/// Runs `work` and panics when it held too much memory or took too long.
pub fn bounded<T>(work: impl FnOnce() -> T) -> T {
    let held = HELD.get();
    PEAK.set(held);
    let start = cpu_ms();
    let result = work();
    let (grown, took) = (PEAK.get().saturating_sub(held), cpu_ms() - start);
    assert!(grown <= BYTES_MAX, "held {grown} bytes, at most {BYTES_MAX}");
    assert!(took <= CPU_MS_MAX, "took {took} ms, at most {CPU_MS_MAX}");
    result
}

/// CPU time of this thread: a busy machine does not fail the bound.
fn cpu_ms() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a valid place for the result.
    let done = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut now) };
    assert_eq!(done, 0, "the thread has a CPU clock");
    now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000
}
