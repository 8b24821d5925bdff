//! The allocator: the system's, with a look at one allocation in every so many bytes.
//!
//! A block that is looked at begins at a page boundary, which of other small blocks one in 256 does: freeing asks for
//! the address first, and only then the table. It must not know what is kept of a block.
#![allow(unsafe_code, reason = "an allocator is unsafe to implement")]

use super::super::stack::{self, FRAMES_MAX};
use super::super::{marks, switch};
use super::live::{self, Block};
use super::{PERIOD_BYTES, stacks};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Blocks that were looked at begin at a multiple of this.
const MARK: usize = 4096;

/// The system's allocator, sampled.
pub struct Sampling;

thread_local! {
    /// Bytes until the next look; zero at a thread's start, when the first distance is drawn.
    static COUNTDOWN: Cell<i64> = const { Cell::new(0) };
    /// Bytes that all its countdowns began with, less what they had run over by: with the countdown, all it allocated.
    static DRAWN: Cell<i64> = const { Cell::new(0) };
    /// The thread's random numbers; zero before the first.
    static RANDOM: Cell<u64> = const { Cell::new(0) };
    /// The sampler's own allocations are not looked at.
    static BUSY: Cell<bool> = const { Cell::new(false) };
}

// SAFETY: every block is the system's, or lies within one that is remembered with its layout until it is freed.
unsafe impl GlobalAlloc for Sampling {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_due(layout.size()) {
            return look(layout, false);
        }
        // SAFETY: the caller's contract.
        unsafe { System.alloc(layout) }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if is_due(layout.size()) {
            return look(layout, true);
        }
        // SAFETY: the caller's contract.
        unsafe { System.alloc_zeroed(layout) }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if is_marked(block)
            && let Some(known) = forget(block)
        {
            // SAFETY: the block lies in one that `look` had from the system with this layout.
            return unsafe { System.dealloc(known.base(), known.layout()) };
        }
        // SAFETY: the caller's contract; the block is the system's own.
        unsafe { System.dealloc(block, layout) }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let known = is_marked(block) && is_known(block);
        // What shrinks a little stays where it is: a copy would hold both for a moment.
        if known && new_size <= layout.size() && new_size >= layout.size() / 4 * 3 {
            return block;
        }
        if !(is_due(new_size) || known) {
            // SAFETY: the caller's contract; the block is the system's own.
            return unsafe { System.realloc(block, layout, new_size) };
        }
        // SAFETY: the caller's contract.
        unsafe { self.replace(block, layout, new_size) }
    }
}

impl Sampling {
    /// Grows or shrinks a block by a new one.
    ///
    /// # Safety
    /// As of [`GlobalAlloc::realloc`].
    #[cold]
    #[inline(never)]
    unsafe fn replace(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller gives a size that, rounded up to the alignment, is a valid layout.
        unsafe {
            let new_layout = Layout::from_size_align_unchecked(new_size, layout.align());
            let new = if countdown() < 0 { look(new_layout, false) } else { System.alloc(new_layout) };
            if !new.is_null() {
                ptr::copy_nonoverlapping(block, new, layout.size().min(new_size));
                self.dealloc(block, layout);
            }
            new
        }
    }
}

#[inline(always)]
fn is_marked(block: *mut u8) -> bool {
    block.addr().is_multiple_of(MARK)
}

/// Counts down; true when the allocation of so many bytes is to be looked at.
#[inline(always)]
fn is_due(bytes: usize) -> bool {
    let left = countdown().wrapping_sub(bytes as i64);
    COUNTDOWN.with(|countdown| countdown.set(left));
    left < 0
}

#[inline(always)]
fn countdown() -> i64 {
    COUNTDOWN.with(Cell::get)
}

/// Bytes that this thread has allocated since it began; a block that grew counts anew.
pub fn allocated_bytes() -> u64 {
    DRAWN.with(Cell::get).wrapping_sub(countdown()) as u64
}

/// An allocation at which the countdown ran out.
#[cold]
#[inline(never)]
fn look(layout: Layout, zeroed: bool) -> *mut u8 {
    // A thread's first allocation only begins the countdown, and a sampler's own are not looked at.
    let begins = RANDOM.with(Cell::get) == 0;
    let distance = next_distance();
    DRAWN.with(|drawn| drawn.set(drawn.get().wrapping_add(distance.wrapping_sub(countdown()))));
    COUNTDOWN.with(|countdown| countdown.set(distance));
    let padded = Layout::from_size_align(layout.size().saturating_add(MARK), layout.align().max(16));
    let (false, false, Ok(padded)) = (begins, BUSY.with(Cell::get), padded) else {
        return plain(layout, zeroed);
    };
    let base = plain(padded, zeroed);
    if base.is_null() {
        return base;
    }
    let mut frames = [0; FRAMES_MAX];
    let depth = stack::walk(stack::here(), &mut frames);
    // Alignments beyond the mark are of blocks that lie on it anyway.
    let block = base.wrapping_add(base.align_offset(MARK.max(layout.align())));
    let fits = block.addr() + layout.size() <= base.addr() + padded.size();
    let known = fits
        && aside(|| {
            // Where spans are not followed, threads of one kind are one.
            let span = if switch::is_on() { marks::here() } else { 0 };
            let stack = stacks::intern(span, &frames[..depth]);
            live::insert(block.addr(), Block::new(base, padded, layout.size(), stack))
        });
    if known {
        return block;
    }
    // SAFETY: just made with this layout.
    unsafe { System.dealloc(base, padded) };
    plain(layout, zeroed)
}

fn plain(layout: Layout, zeroed: bool) -> *mut u8 {
    // SAFETY: the caller of the allocator gives a layout that is not empty.
    unsafe { if zeroed { System.alloc_zeroed(layout) } else { System.alloc(layout) } }
}

/// Runs the sampler's own bookkeeping.
fn aside<T>(run: impl FnOnce() -> T) -> T {
    BUSY.with(|busy| busy.set(true));
    let outcome = run();
    BUSY.with(|busy| busy.set(false));
    outcome
}

/// What is known of a marked block; it is known no more.
#[cold]
#[inline(never)]
fn forget(block: *mut u8) -> Option<Block> {
    // What the sampler allocates for itself is never known, and it may hold the table.
    if BUSY.with(Cell::get) {
        return None;
    }
    aside(|| live::remove(block.addr()))
}

#[cold]
#[inline(never)]
fn is_known(block: *mut u8) -> bool {
    !BUSY.with(Cell::get) && aside(|| live::contains(block.addr()))
}

/// A distance such that every byte is as likely as any other to be the one that is looked at: exponential.
fn next_distance() -> i64 {
    let uniform = (next_random() >> 11) as f64 / (1u64 << 53) as f64;
    let distance = -(1.0 - uniform).ln() * PERIOD_BYTES as f64;
    distance as i64
}

/// xorshift64*, begun from a number of the thread's own.
fn next_random() -> u64 {
    static THREADS: AtomicU64 = AtomicU64::new(1);
    let mut x = RANDOM.with(Cell::get);
    if x == 0 {
        // An odd factor: never zero.
        x = THREADS.fetch_add(2, Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    RANDOM.with(|random| random.set(x));
    x.wrapping_mul(0x2545_f491_4f6c_dd1d)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_thread_allocates_is_counted() {
        let before = allocated_bytes();
        let blocks: Vec<Vec<u8>> = (0..1000).map(|_| vec![1; 10_000]).collect();
        let (allocated, kept) = (allocated_bytes() - before, blocks.len() as u64 * 10_000);
        assert!((kept..kept + 100_000).contains(&allocated), "{allocated}");
        drop(blocks);
        assert_eq!(allocated_bytes() - before, allocated, "freeing takes nothing back");
    }

    #[test]
    fn what_shrinks_a_little_stays_where_it_is() {
        // Of 4 MiB nearly every block is sampled.
        for _ in 0..16 {
            let mut block: Vec<u8> = Vec::with_capacity(4 << 20);
            block.extend((0..(7 << 19)).map(|n| n as u8));
            let address = block.as_ptr();
            block.shrink_to_fit();
            assert_eq!(block.as_ptr(), address);
            block.reserve_exact(4 << 20);
            assert!(block.iter().enumerate().all(|(n, byte)| *byte == n as u8), "it grows by a copy");
        }
    }

    #[test]
    fn distances_have_the_mean_that_is_promised() {
        let n = 100_000;
        let mean = (0..n).map(|_| next_distance() as f64).sum::<f64>() / f64::from(n);
        let off = mean / PERIOD_BYTES as f64;
        // Four standard errors of an exponential distribution.
        assert!((off - 1.0).abs() < 4.0 / f64::from(n).sqrt(), "{off}");
    }

    #[test]
    fn blocks_keep_their_contents_and_their_alignment() {
        for round in 0..200 {
            for align in [1, 16, 64, 4096, 16384] {
                let size = 1 + (round * 7919) % (1 << 20);
                let layout = Layout::from_size_align(size, align).expect("a layout");
                // SAFETY: as the trait asks, each block is freed with the layout it has.
                unsafe {
                    let block = Sampling.alloc_zeroed(layout);
                    assert!(!block.is_null() && block.addr().is_multiple_of(align));
                    assert_eq!((*block, *block.add(size - 1)), (0, 0));
                    block.write(7);
                    let block = Sampling.realloc(block, layout, 2 * size);
                    assert!(block.addr().is_multiple_of(align));
                    assert_eq!(*block, 7);
                    Sampling.dealloc(block, Layout::from_size_align(2 * size, align).expect("a layout"));
                }
            }
        }
    }
}
