//! The benchmarks: each a question, its alternatives on real parts of the server, and what the figures are to show.

mod chunk;
mod components;
mod indexes;
mod live;
mod lookup;
mod receive;
pub mod sample;
mod stills;

use super::Benchmark;

/// All of them, in the order of a listing.
pub fn all() -> Vec<Benchmark> {
    vec![
        chunk::slice(),
        receive::receive(),
        indexes::seek(),
        lookup::catalogue(),
        lookup::insert(),
        lookup::range(),
        indexes::mp4(),
        indexes::ts(),
        components::ready(),
        components::first(),
        stills::dot(),
        stills::decoding(),
        stills::enhance(),
        live::playlist(),
        live::observe(),
        live::fanout(),
        live::span(),
        components::empty(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::engine::{Engine, Monotonic, Plan};
    use std::time::Duration;

    #[test]
    fn every_statement_runs_at_its_smallest_size() {
        let clock = Monotonic::default();
        for benchmark in all() {
            let size = *benchmark.size.allowed.start();
            let plan = Plan { loops: Some(1), repeat: 1, size, budget: Duration::from_secs(60) };
            let chosen = benchmark.chosen(None);
            let outcome = Engine { clock: &clock, plan, tell: &mut |_| true }.run(&chosen);
            let measured = outcome.unwrap_or_else(|error| panic!("{}: {error}", benchmark.name));
            assert_eq!(measured.timings.len(), benchmark.alternatives.len(), "{}", benchmark.name);
        }
    }

    #[test]
    fn names_are_for_urls_and_differ() {
        let benchmarks = all();
        let mut names: Vec<&str> = benchmarks.iter().map(|benchmark| benchmark.name).collect();
        assert!(
            names.iter().all(|name| name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'))
        );
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), benchmarks.len());
        for benchmark in &benchmarks {
            assert!(benchmark.size.allowed.contains(&benchmark.size.default), "{}", benchmark.name);
            assert!(benchmark.question.ends_with('?') && !benchmark.shows.is_empty(), "{}", benchmark.name);
        }
    }
}
