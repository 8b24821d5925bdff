//! The samples of one thread on their way from the signal handler that takes them to the collector that counts them:
//! a ring of words with one writer and one reader, without a lock. Must not know what a sample is good for.
#![allow(unsafe_code, reason = "the handler of a signal finds its slot by number")]

use super::stack::FRAMES_MAX;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering::*};

/// Words of a ring. At one sample per tick of the kernel (4 ms) with deep stacks it is full after 0.3 s.
const WORDS: usize = 8 << 10;
/// Threads that can be sampled at once.
pub const SLOTS_MAX: usize = 1024;
/// Words of a sample before its frames: depth and weight, span.
const HEAD_WORDS: usize = 2;

/// One per thread that is sampled. Never freed: a signal may come after its timer is gone.
pub struct Slot {
    words: [AtomicU64; WORDS],
    /// Words ever written; only the handler adds to it.
    written: AtomicUsize,
    /// Words ever read; only the collector adds to it.
    read: AtomicUsize,
    /// Weight of the samples that found the ring full.
    lost: AtomicU64,
}

static SLOTS: [AtomicPtr<Slot>; SLOTS_MAX] = [const { AtomicPtr::new(ptr::null_mut()) }; SLOTS_MAX];

/// One sample, as the collector sees it.
pub struct Sample<'a> {
    /// How many periods it stands for.
    pub weight: u64,
    /// The span it fell into, as its handler wrote it.
    pub span: u64,
    pub stack: &'a [u64],
}

/// The slot of this number, made if it was never used. Only for the collector.
pub fn slot(number: usize) -> &'static Slot {
    if let Some(slot) = find(number) {
        return slot;
    }
    // SAFETY: zero is a valid value of every field: they are atomic integers.
    let new: Box<Slot> = unsafe { Box::new_zeroed().assume_init() };
    let slot = Box::leak(new);
    SLOTS[number].store(slot, Release);
    slot
}

/// The slot of this number, if there is one. For the handler.
#[inline]
pub fn find(number: usize) -> Option<&'static Slot> {
    // SAFETY: null, or a slot that was leaked.
    unsafe { SLOTS.get(number)?.load(Acquire).as_ref() }
}

impl Slot {
    /// Adds a sample. Only the handler of the slot's thread calls this, and a handler is not interrupted by itself.
    #[inline]
    pub fn push(&self, weight: u64, span: u64, stack: &[u64]) {
        let written = self.written.load(Relaxed);
        let free = WORDS - written.wrapping_sub(self.read.load(Acquire));
        if free < HEAD_WORDS + stack.len() {
            self.lost.fetch_add(weight, Relaxed);
            return;
        }
        let head = [weight << 8 | stack.len() as u64, span];
        for (at, word) in head.iter().chain(stack).enumerate() {
            self.words[written.wrapping_add(at) % WORDS].store(*word, Relaxed);
        }
        self.written.store(written.wrapping_add(HEAD_WORDS + stack.len()), Release);
    }

    /// Takes every sample, and the weight of those that were lost since the last time. Only for the collector.
    pub fn drain(&self, mut take: impl FnMut(Sample)) -> u64 {
        let written = self.written.load(Acquire);
        let mut read = self.read.load(Relaxed);
        let mut stack = [0; FRAMES_MAX];
        while read != written {
            let word = |at: usize| self.words[read.wrapping_add(at) % WORDS].load(Relaxed);
            let (head, span) = (word(0), word(1));
            let depth = (head as usize & 0xff).min(FRAMES_MAX);
            for (at, frame) in stack[..depth].iter_mut().enumerate() {
                *frame = word(HEAD_WORDS + at);
            }
            take(Sample { weight: head >> 8, span, stack: &stack[..depth] });
            read = read.wrapping_add(HEAD_WORDS + depth);
            self.read.store(read, Release);
        }
        self.lost.swap(0, Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_pushed_is_drained_in_order_and_a_full_ring_counts_what_it_loses() {
        let slot = slot(SLOTS_MAX - 1);
        assert!(ptr::eq(slot, find(SLOTS_MAX - 1).expect("made")));
        let mut expected_lost = 0;
        for round in 0..4 {
            let mut kept = 0;
            for n in 0..200_u64 {
                slot.push(n + 1, round, &[n; 50]);
            }
            let lost = slot.drain(|sample| {
                assert_eq!((sample.weight, sample.span, sample.stack), (kept + 1, round, &[kept; 50][..]));
                kept += 1;
            });
            assert_eq!(kept, (WORDS / 52) as u64);
            expected_lost += lost;
            assert_eq!(lost, (kept + 1..=200).sum::<u64>());
        }
        assert!(expected_lost > 0);
    }
}
