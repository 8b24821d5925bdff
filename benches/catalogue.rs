//! Shows what every statement of the catalogue costs: the same that `weir bench` and `/debug/bench` measure, with divan's
//! statistics and its command line for a developer.

use divan::Bencher;
use divan::counter::ItemsCount;
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use weir::bench::{Benchmark, catalogue};

/// A sample is long enough that the call around its loops is nothing beside them.
const SAMPLE: Duration = Duration::from_micros(50);

fn main() {
    divan::main();
}

fn benchmarks() -> &'static [Benchmark] {
    static BENCHMARKS: OnceLock<Vec<Benchmark>> = OnceLock::new();
    BENCHMARKS.get_or_init(catalogue::all)
}

fn names() -> impl Iterator<Item = String> {
    let names = |benchmark: &'static Benchmark| {
        benchmark.alternatives.iter().map(move |alternative| format!("{}/{}", benchmark.name, alternative.name))
    };
    benchmarks().iter().flat_map(names)
}

#[divan::bench(args = names(), max_time = 1)]
fn loops(bencher: Bencher<'_, '_>, name: &str) {
    let (benchmark, alternative) = name.split_once('/').expect("made of two names");
    let benchmark = benchmarks().iter().find(|known| known.name == benchmark).expect("a benchmark");
    let mut chosen = benchmark.alternatives.iter().filter(|known| known.name == alternative);
    let set_up = &chosen.next().expect("an alternative").set_up;
    let mut statement = set_up(benchmark.size.default).expect("it can be set up");
    let began = Instant::now();
    statement.run(1);
    let loops = SAMPLE.as_nanos() / began.elapsed().as_nanos().max(1);
    let loops = u64::try_from(loops).unwrap_or(1).clamp(1, 10_000);
    bencher.counter(ItemsCount::new(loops)).bench_local(|| statement.run(loops));
}
