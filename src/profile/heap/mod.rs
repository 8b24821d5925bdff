//! The heap profile: one allocation in 512 KiB is looked at, from the start, and known until it is freed.
//!
//! An allocation that is not looked at pays for a countdown; a block that was not looked at is told from its address
//! when it is freed. It must not know who asks for the profile.

mod allocator;
mod live;
mod stacks;

pub use allocator::{Sampling, allocated_bytes};

use super::cpu::Places;
use super::marks;
use super::proto::{Line, LocationId, Profile};
use super::symbols::{self, Symboliser};
use stacks::Totals;
use std::collections::{HashMap, HashSet};
use std::fmt::Write;
use std::time::{Duration, Instant, SystemTime};

/// Bytes between two allocations that are looked at, in the mean.
pub const PERIOD_BYTES: u64 = 512 << 10;

#[global_allocator]
static ALLOCATOR: Sampling = Sampling;

/// What a heap profile shows first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// What is in use now.
    InUse,
    /// Everything that was ever allocated.
    Allocated,
}

/// A reading of all totals.
pub struct Snapshot {
    taken: Instant,
    wall: SystemTime,
    stacks: Vec<stacks::Reading>,
}

/// Reads the totals of every stack.
pub fn snapshot() -> Snapshot {
    Snapshot { taken: Instant::now(), wall: SystemTime::now(), stacks: stacks::read() }
}

impl Snapshot {
    /// What changed since an earlier one.
    #[must_use]
    pub fn since(mut self, earlier: &Self) -> (Self, Duration) {
        let took = self.taken - earlier.taken;
        let before: HashMap<usize, Totals> =
            earlier.stacks.iter().map(|reading| (reading.number, reading.totals)).collect();
        for reading in &mut self.stacks {
            if let Some(before) = before.get(&reading.number) {
                reading.totals = reading.totals.minus(before);
            }
        }
        self.wall = earlier.wall;
        (self, took)
    }

    /// As a file for `go tool pprof`.
    pub fn encode(&self, view: View, took: Duration, symboliser: &Symboliser) -> Vec<u8> {
        let kinds = [
            ("alloc_objects", "count"),
            ("alloc_space", "bytes"),
            ("inuse_objects", "count"),
            ("inuse_space", "bytes"),
        ];
        let first = if view == View::InUse { "inuse_space" } else { "alloc_space" };
        let mut profile = Profile::new(&kinds, first);
        profile.taken(self.wall, took);
        profile.period(("space", "bytes"), PERIOD_BYTES as i64);
        let code = symboliser.code();
        let counted: Vec<_> = self.stacks.iter().filter(|reading| !reading.totals.is_zero()).collect();
        let addresses: HashSet<u64> = counted.iter().flat_map(|reading| reading.stack.iter().copied()).collect();
        let names = symbols::names(&code, addresses.into_iter());
        let places = Places::new(&mut profile, &code, names);
        for reading in counted {
            let stack = without_allocator(&mut profile, &places, &reading.stack);
            let labels = marks::labels(reading.span);
            profile.sample(&stack, &reading.totals.values(), &labels);
        }
        profile.comment(&stacks::remark());
        profile.encode()
    }

    /// Bytes by stack, for flame graphs: in use, or ever allocated.
    pub fn folded(&self, view: View, symboliser: &Symboliser) -> String {
        let addresses: HashSet<u64> = self.stacks.iter().flat_map(|reading| reading.stack.iter().copied()).collect();
        let names = symboliser.names(addresses.into_iter());
        let value = |reading: &stacks::Reading| reading.totals.values()[if view == View::InUse { 3 } else { 1 }];
        let known = self.stacks.iter().filter(|reading| value(reading) > 0);
        let line = |reading: &stacks::Reading| {
            let stack = symbols::folded(&names, &reading.stack);
            format!("{} {}\n", stack_without_allocator(&stack), value(reading))
        };
        known.map(line).collect()
    }

    /// As text, the largest first.
    pub fn text(&self, symboliser: &Symboliser) -> String {
        let mut stacks: Vec<_> = self.stacks.iter().filter(|reading| !reading.totals.is_zero()).collect();
        stacks.sort_by_key(|reading| std::cmp::Reverse(reading.totals.values()[3]));
        let addresses: HashSet<u64> = stacks.iter().flat_map(|reading| reading.stack.iter().copied()).collect();
        let names = symboliser.names(addresses.into_iter());
        let sum = stacks.iter().fold([0; 4], |mut sum, reading| {
            sum.iter_mut().zip(reading.totals.values()).for_each(|(sum, value)| *sum += value);
            sum
        });
        // As Go writes it: in use, then ever allocated, and twice the rate.
        let line = |[alloc_objects, alloc_bytes, objects, bytes]: [i64; 4]| {
            format!("{objects}: {bytes} [{alloc_objects}: {alloc_bytes}]")
        };
        let mut text = format!("heap profile: {} @ heap/{}\n", line(sum), 2 * PERIOD_BYTES);
        for reading in stacks {
            // Writing to a String cannot fail.
            let _ = write!(text, "{} @", line(reading.totals.values()));
            for address in &reading.stack {
                let _ = write!(text, " {address:#x}");
            }
            text.push('\n');
            for address in &reading.stack {
                for line in names.get(address).into_iter().flatten() {
                    let _ = writeln!(text, "#\t{address:#x}\t{}\t{}:{}", line.function, line.file, line.line);
                }
            }
            text.push('\n');
        }
        text
    }
}

/// Of the functions that every allocation begins with, which say nothing.
fn is_allocator(function: &str) -> bool {
    const OURS: [&str; 4] = ["weir::profile::heap::allocator::", "weir::profile::stack::", "__rust", "alloc::"];
    OURS.iter().any(|ours| function.starts_with(ours))
}

/// A folded stack up to whoever wanted the memory; all of it where nobody else is in it.
fn stack_without_allocator(stack: &str) -> &str {
    let mut shown = stack;
    while let Some((callers, leaf)) = shown.rsplit_once(';')
        && is_allocator(leaf)
    {
        shown = callers;
    }
    shown
}

/// The stack from whoever wanted the memory on.
fn without_allocator(profile: &mut Profile, places: &Places, stack: &[u64]) -> Vec<LocationId> {
    let is_ours = |line: &Line| is_allocator(&line.function);
    let mut locations = Vec::with_capacity(stack.len());
    for &address in stack {
        let lines = places.lines(address);
        // Of the first function that is not ours, what was inlined into it is not shown either.
        let own = if locations.is_empty() { lines.iter().take_while(|line| is_ours(line)).count() } else { 0 };
        if lines.is_empty() || own < lines.len() {
            locations.push(places.with(profile, address, &lines[own..]));
        }
    }
    locations
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stack_ends_with_whoever_wanted_the_memory() {
        let stack =
            "main;alloc::boxed::Box::call_once;weir::media::resolve;alloc::vec::Vec::push;__rustc::__rust_alloc";
        assert_eq!(stack_without_allocator(stack), "main;alloc::boxed::Box::call_once;weir::media::resolve");
        assert_eq!(stack_without_allocator("__rustc::__rust_alloc"), "__rustc::__rust_alloc");
    }
}
