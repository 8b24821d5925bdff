//! Runs one of Weir's inner steps a number of times: `counted STEP TIMES`. `benches/instructions` counts the processor
//! instructions of two such runs with callgrind; their difference is what the step costs.

use std::fs::File;
use std::hint::black_box;
use std::process::ExitCode;
use weir::bench::catalogue;
use weir::http::range;
use weir::media::index::{Index, Position};
use weir::media::time::Label;
use weir::store::MappedFile;

/// The video inside the binary: a minute and more of 30000/1001 frames per second, from 01:00:00;00 on.
const SAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/demo.mp4");

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let (step, times) = match words.as_slice() {
        [step, times] => (step.as_str(), times.parse::<u64>().ok()),
        // `cargo bench` and `cargo test` start every benchmark without a word.
        _ => return ExitCode::SUCCESS,
    };
    match (step, times) {
        ("range", Some(times)) => ranges(times),
        ("seek", Some(times)) => seeks(times),
        ("playlist", Some(times)) => listed("playlist-render", "rendered", times),
        _ => return ExitCode::FAILURE,
    }
    ExitCode::SUCCESS
}

fn ranges(times: u64) {
    for _ in 0..times {
        black_box(range::resolve(black_box(b"bytes=1234567890-1234571985"), black_box(5_000_000_000)));
    }
}

fn seeks(times: u64) {
    let mapped = MappedFile::from_file(File::open(SAMPLE).expect("the sample")).expect("mapped");
    let index = Index::open(Index::build(&mapped).expect("an index").into()).expect("our own entry");
    for _ in 0..times {
        let label = Label::parse(black_box("01:00:05;12")).expect("a label");
        let position = Position::Timecode { label, drop: None };
        black_box(index.resolve(&mapped, &position).expect("a frame of the video"));
    }
}

/// A statement of the catalogue, at its usual size; its set-up is the same for any number of times.
fn listed(benchmark: &str, alternative: &str, times: u64) {
    let benchmarks = catalogue::all();
    let benchmark = benchmarks.iter().find(|known| known.name == benchmark).expect("a benchmark");
    let way = benchmark.alternatives.iter().find(|known| known.name == alternative).expect("an alternative");
    (way.set_up)(benchmark.size.default).expect("it can be set up").run(times);
}
