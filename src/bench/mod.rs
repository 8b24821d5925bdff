//! Microbenchmarks of Weir's own hot operations, by the rules that make one worth reading, on the machine that serves.
//!
//! A [`Benchmark`] is a question with alternatives: set-ups that each make a statement, to be measured by [`engine`].
//! [`catalogue`] has them all; they run real parts of the server. [`job`] runs one at a time on a thread of its own,
//! [`report`] is what comes out. `benches/` goes through the same statements.
//! Does not belong here: HTTP words, how a terminal or a page shows it.

pub mod catalogue;
pub mod engine;
pub mod host;
pub mod job;
pub mod report;
#[cfg(test)]
mod tests;

pub use engine::{Plan, Statement};
pub use report::Report;

use std::ops::RangeInclusive;

/// A question, and the ways that answer it.
pub struct Benchmark {
    pub name: &'static str,
    pub question: &'static str,
    /// What a reader is to see in the figures.
    pub shows: &'static str,
    /// What `size` means, and which sizes are allowed; the default stands first.
    pub size: Size,
    /// What the statements go over.
    pub element: &'static str,
    pub alternatives: Vec<Alternative>,
    /// What the figures imply, in sentences; most need none.
    pub implies: fn(&Report) -> Vec<String>,
}

/// The size of a benchmark.
#[derive(Clone)]
pub struct Size {
    pub what: &'static str,
    pub default: u64,
    pub allowed: RangeInclusive<u64>,
}

/// One way.
pub struct Alternative {
    pub name: &'static str,
    /// Makes the statement for a size. Runs before each repeat, outside the time.
    pub set_up: Box<dyn Fn(u64) -> Result<Statement, String> + Send + Sync>,
}

impl Benchmark {
    fn new(name: &'static str, question: &'static str, shows: &'static str) -> Self {
        let size = Size { what: "elements", default: 1, allowed: 1..=1 };
        Self { name, question, shows, size, element: "", alternatives: Vec::new(), implies: |_| Vec::new() }
    }

    fn sized(mut self, what: &'static str, default: u64, allowed: RangeInclusive<u64>) -> Self {
        self.size = Size { what, default, allowed };
        self
    }

    fn per(mut self, element: &'static str) -> Self {
        self.element = element;
        self
    }

    fn implying(mut self, implies: fn(&Report) -> Vec<String>) -> Self {
        self.implies = implies;
        self
    }

    fn way(
        mut self,
        name: &'static str,
        set_up: impl Fn(u64) -> Result<Statement, String> + Send + Sync + 'static,
    ) -> Self {
        self.alternatives.push(Alternative { name, set_up: Box::new(set_up) });
        self
    }

    /// The alternatives whose name contains `only`, or all.
    pub fn chosen(&self, only: Option<&str>) -> Vec<&Alternative> {
        let is_chosen = |alternative: &&Alternative| only.is_none_or(|only| alternative.name.contains(only));
        self.alternatives.iter().filter(is_chosen).collect()
    }
}
