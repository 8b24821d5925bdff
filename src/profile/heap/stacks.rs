//! Each stack that allocated, once, with what it allocated and freed. Only grows, and only so far. Must not know
//! blocks.

use super::PERIOD_BYTES;
use super::live::LEFT_OUT;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Stacks at most; what comes later is counted under the first, which is empty.
const STACKS_MAX: usize = 16 << 10;
/// Objects are counted in parts of one, as a small one that is looked at stands for many.
const PARTS: f64 = 1024.0;

/// What one stack allocated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    alloc_objects: u64,
    alloc_bytes: u64,
    free_objects: u64,
    free_bytes: u64,
}

impl Totals {
    pub fn is_zero(&self) -> bool {
        *self == Self::default()
    }

    #[must_use]
    pub fn minus(&self, earlier: &Self) -> Self {
        Self {
            alloc_objects: self.alloc_objects - earlier.alloc_objects,
            alloc_bytes: self.alloc_bytes - earlier.alloc_bytes,
            free_objects: self.free_objects - earlier.free_objects,
            free_bytes: self.free_bytes - earlier.free_bytes,
        }
    }

    /// Objects and bytes ever allocated, objects and bytes in use. In use may be less than nothing over a while.
    pub fn values(&self) -> [i64; 4] {
        let objects = |parts: u64| (parts as f64 / PARTS).round() as i64;
        [
            objects(self.alloc_objects),
            self.alloc_bytes.cast_signed(),
            objects(self.alloc_objects) - objects(self.free_objects),
            self.alloc_bytes.wrapping_sub(self.free_bytes).cast_signed(),
        ]
    }
}

/// A stack and what it had allocated when it was read.
pub struct Reading {
    pub number: usize,
    pub span: u64,
    pub stack: Vec<u64>,
    pub totals: Totals,
}

#[derive(Default)]
struct Counters {
    alloc_objects: AtomicU64,
    alloc_bytes: AtomicU64,
    free_objects: AtomicU64,
    free_bytes: AtomicU64,
}

struct Stacks {
    numbers: Option<HashMap<(u64, &'static [u64]), usize>>,
    counters: Vec<&'static Counters>,
}

static STACKS: Mutex<Stacks> = Mutex::new(Stacks { numbers: None, counters: Vec::new() });

fn lock() -> MutexGuard<'static, Stacks> {
    STACKS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The number of a stack.
pub fn intern(span: u64, stack: &[u64]) -> usize {
    let mut stacks = lock();
    if let Some(number) = stacks.numbers.as_ref().and_then(|numbers| numbers.get(&(span, stack))) {
        return *number;
    }
    let (span, stack) = match stacks.counters.len() {
        0 => (0, &[][..]),
        STACKS_MAX.. => return 0,
        _ => (span, stack),
    };
    // Kept for ever: a stack that allocated once will do so again.
    let stack: &'static [u64] = Box::leak(stack.into());
    let number = stacks.counters.len();
    stacks.counters.push(Box::leak(Box::default()));
    stacks.numbers.get_or_insert_default().insert((span, stack), number);
    number
}

/// How many objects one that was looked at stands for: those of its size are looked at with this chance.
fn stands_for(bytes: usize) -> f64 {
    let chance = -(-(bytes as f64) / PERIOD_BYTES as f64).exp_m1();
    if chance > 0.0 { 1.0 / chance } else { 1.0 }
}

fn count(stack: usize, bytes: usize, to: impl Fn(&Counters) -> (&AtomicU64, &AtomicU64)) {
    let Some(counters) = lock().counters.get(stack).copied() else { return };
    let (objects, space) = to(counters);
    let many = stands_for(bytes);
    objects.fetch_add((many * PARTS).round() as u64, Relaxed);
    space.fetch_add((many * bytes as f64).round() as u64, Relaxed);
}

/// A block that was looked at stands for what `stack` allocated.
pub fn count_alloc(stack: usize, bytes: usize) {
    count(stack, bytes, |counters| (&counters.alloc_objects, &counters.alloc_bytes));
}

/// Such a block was freed.
pub fn count_free(stack: usize, bytes: usize) {
    count(stack, bytes, |counters| (&counters.free_objects, &counters.free_bytes));
}

/// All stacks and their totals. The lock is only held to copy what is small: the allocator waits for it.
pub fn read() -> Vec<Reading> {
    // The room is made before the lock is taken: an allocation that is looked at takes the same lock.
    let mut known = Vec::with_capacity(STACKS_MAX);
    {
        let stacks = lock();
        for ((span, stack), number) in stacks.numbers.iter().flatten() {
            known.push((*number, *span, *stack, stacks.counters[*number]));
        }
    }
    let reading = |(number, span, stack, counters): (usize, u64, &'static [u64], &'static Counters)| {
        // Freed is read first: it is never more than was allocated.
        let (free_objects, free_bytes) = (counters.free_objects.load(Relaxed), counters.free_bytes.load(Relaxed));
        let (alloc_objects, alloc_bytes) = (counters.alloc_objects.load(Relaxed), counters.alloc_bytes.load(Relaxed));
        let totals = Totals { alloc_objects, alloc_bytes, free_objects, free_bytes };
        Reading { number, span, stack: stack.to_vec(), totals }
    };
    known.into_iter().map(reading).collect()
}

/// What a profile says of itself.
pub fn remark() -> String {
    let stacks = lock().counters.len();
    let left_out = LEFT_OUT.load(Relaxed);
    format!(
        "one allocation in {PERIOD_BYTES} bytes; {stacks} stacks; {left_out} samples left out as the table was full"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_stands_for_as_many_as_are_not_looked_at() {
        // 1 / (1 - e^(-size / 524288)), by hand.
        for (bytes, expected) in [(16, 32_768.5), (524_288, 1.581_977), (1 << 30, 1.0)] {
            assert!((stands_for(bytes) / expected - 1.0).abs() < 1e-5, "{bytes}: {}", stands_for(bytes));
        }
    }

    #[test]
    fn a_difference_may_free_more_than_it_allocated() {
        let earlier = Totals { alloc_objects: 2048, alloc_bytes: 200, free_objects: 0, free_bytes: 0 };
        let later = Totals { free_objects: 2048, free_bytes: 200, ..earlier };
        assert_eq!(later.minus(&earlier).values(), [0, 0, -2, -200]);
    }
}
