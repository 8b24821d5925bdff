//! What the profiler itself costs, measured once on this machine with a tree of its own, as cProfile's calibration
//! does.

use super::clock::{self, Moment};
use super::guard::Span;
use super::snapshot::{Audit, Profile};
use super::thread;
use super::tree::Tree;
use std::sync::LazyLock;

/// Nanoseconds of entering and leaving a span.
static ENTRY_NS: LazyLock<f64> = LazyLock::new(measure);

/// A profile's own share of what it shows.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    pub entry_ns: f64,
    pub ns: f64,
    /// Of the process's CPU time.
    pub percent: f64,
}

impl Profile {
    pub fn cost(&self) -> Cost {
        let ns = self.audit.polls as f64 * *ENTRY_NS;
        Cost { entry_ns: *ENTRY_NS, ns, percent: share(ns, &self.audit) }
    }
}

impl Audit {
    /// How much of the process's CPU time the spans account for. Busy time includes what the system took away.
    pub fn coverage_percent(&self) -> f64 {
        share(self.busy_ns as f64, self)
    }
}

fn share(ns: f64, audit: &Audit) -> f64 {
    let cpu = audit.cpu.as_nanos() as f64;
    if cpu > 0.0 { 100.0 * ns / cpu } else { 0.0 }
}

/// Measures now, so that it is in no window.
pub fn calibrate() {
    LazyLock::force(&ENTRY_NS);
}

fn measure() -> f64 {
    const ROUNDS: u32 = 9;
    const ENTRIES: u32 = 2_000;
    clock::choose();
    let Some(place) = thread::current() else { return 0.0 };
    // Not in the list of trees: no profile shows it. Leaked once, as nodes are.
    let tree: &'static Tree = Box::leak(Tree::new());
    thread::set_current(tree.root());
    let site = crate::site!("calibrate");
    let round = |_| {
        let start = Moment::read();
        for _ in 0..ENTRIES {
            drop(Span::enter_always(site));
        }
        let end = Moment::read();
        end.at.duration_since(start.at).as_nanos() as f64 / f64::from(ENTRIES)
    };
    let best = (0..ROUNDS).map(round).fold(f64::INFINITY, f64::min);
    thread::set_current(place);
    best
}
