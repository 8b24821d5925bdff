//! `weir bench`: the benchmarks of the catalogue, on this machine, without a server; like `python -m timeit`.

use super::{USAGE, fail, say};
use crate::bench::engine::Event;
use crate::bench::job::{Jobs, Refused, Request, Turn};
use crate::bench::{Benchmark, Report};
use indicatif::{ProgressBar, ProgressStyle};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// Nobody else waits: only a run that would never end is refused.
const BUDGET: Duration = Duration::from_secs(600);

#[derive(clap::Args)]
#[command(after_help = "\
Loops are chosen so that they take 0.2 s; the best of 5 repeats counts. With --baseline, exit code 1 says that
something became slower: each repeat of now took longer than each of then.")]
pub(super) struct Arguments {
    /// Benchmarks to run [default: all]
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Loops of each measurement [default: chosen]
    #[arg(short = 'n', long, value_name = "N")]
    loops: Option<u64>,
    /// Measurements of each alternative [default: 5]
    #[arg(short, long, value_name = "N")]
    repeat: Option<u64>,
    /// Size, in what the benchmark goes over [default: its own]
    #[arg(short, long, value_name = "N")]
    size: Option<u64>,
    /// Only alternatives whose name contains this
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Print the reports as a JSON array
    #[arg(long)]
    json: bool,
    /// List the benchmarks with their questions
    #[arg(long)]
    list: bool,
    /// Reports of an earlier --json, to compare with
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let jobs = Arc::new(Jobs::default());
    if arguments.list {
        jobs.benchmarks().iter().for_each(|benchmark| say!("{}", listed(benchmark)));
        return ExitCode::SUCCESS;
    }
    let baseline = match arguments.baseline.as_deref().map(read).transpose() {
        Ok(baseline) => baseline.unwrap_or_default(),
        Err(error) => return fail(USAGE, &error),
    };
    let all = || jobs.benchmarks().iter().map(|benchmark| benchmark.name.to_owned()).collect();
    let names: Vec<String> = if arguments.names.is_empty() { all() } else { arguments.names.clone() };
    // What is wrong is told before minutes are spent on what is not.
    let checked = names.iter().try_for_each(|name| turn(&jobs, name, arguments).map(drop));
    if let Err(error) = checked.and_then(|()| comparable(&jobs, &names, arguments, &baseline)) {
        return fail(USAGE, &error);
    }
    let mut reports = Vec::new();
    for name in &names {
        match measure(&jobs, name, arguments) {
            Ok(report) => reports.push(report),
            Err(error) => return error,
        }
        if let (false, Some(report)) = (arguments.json, reports.last()) {
            say!("{}", report.text());
        }
    }
    if arguments.json {
        let plain: Vec<&Report> = reports.iter().map(|report| &**report).collect();
        match serde_json::to_string_pretty(&plain) {
            Ok(text) => say!("{text}"),
            Err(error) => return fail(1, &error),
        }
    }
    compare(&reports, &baseline)
}

/// Whether the baseline has something to compare these with, and all of it in the same size.
fn comparable(jobs: &Jobs, names: &[String], arguments: &Arguments, baseline: &[Report]) -> Result<(), String> {
    let Some(file) = &arguments.baseline else { return Ok(()) };
    let before: Vec<&Report> = baseline.iter().filter(|before| names.contains(&before.name)).collect();
    if before.is_empty() {
        return Err(format!("{}: no report of {}", file.display(), names.join(", ")));
    }
    for report in before {
        let size = arguments.size.or(jobs.find(&report.name).map(|benchmark| benchmark.size.default));
        if size.is_some_and(|size| size != report.size) {
            let (file, name, size) = (file.display(), &report.name, report.size);
            return Err(format!("{file}: {name} was measured with size {size}; -s {size} measures the same"));
        }
    }
    Ok(())
}

/// What became slower since the baseline.
fn compare(reports: &[Arc<Report>], baseline: &[Report]) -> ExitCode {
    if baseline.is_empty() {
        return ExitCode::SUCCESS;
    }
    let mut slower = Vec::new();
    for now in reports {
        match baseline.iter().find(|before| before.name == now.name) {
            Some(then) => {
                now.unlike(then).iter().for_each(|line| eprintln!("note: {line}"));
                slower.extend(now.slower_than(then));
            }
            None => eprintln!("note: {} is not in the baseline", now.name),
        }
    }
    slower.iter().for_each(|line| eprintln!("slower: {line}"));
    if slower.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn read(path: &Path) -> Result<Vec<Report>, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let wrong = |error| format!("{}: {error}; it should be what weir bench --json printed", path.display());
    serde_json::from_str(&text).map_err(wrong)
}

fn listed(benchmark: &Benchmark) -> String {
    let names: Vec<&str> = benchmark.alternatives.iter().map(|alternative| alternative.name).collect();
    format!(
        "{}: {}\n    {}\n    {} ({} {}, at most {})\n",
        benchmark.name,
        benchmark.question,
        benchmark.shows,
        names.join(" | "),
        benchmark.size.default,
        benchmark.size.what,
        benchmark.size.allowed.end(),
    )
}

fn turn(jobs: &Arc<Jobs>, name: &str, arguments: &Arguments) -> Result<Turn, String> {
    let Arguments { loops, repeat, size, only, .. } = arguments;
    let request = Request { loops: *loops, repeat: *repeat, size: *size, only: only.clone() };
    jobs.turn(name, request, BUDGET).map_err(|refused| {
        let hint =
            if matches!(refused, Refused::Unknown(_)) { "; weir bench --list tells which there are" } else { "" };
        format!("{refused}{hint}")
    })
}

fn measure(jobs: &Arc<Jobs>, name: &str, arguments: &Arguments) -> Result<Arc<Report>, ExitCode> {
    let turn = turn(jobs, name, arguments).map_err(|error| fail(USAGE, &error))?;
    let style = ProgressStyle::with_template("{msg} {bar:32} {pos}/{len}");
    let bar = ProgressBar::new(turn.expected().0.into());
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_message(name.to_owned());
    bar.tick();
    let outcome = turn.run(|event| {
        if let Event::Measured { done, .. } = event {
            bar.set_position(done.into());
        }
        true
    });
    bar.finish_and_clear();
    outcome.map_err(|error| fail(1, &format!("{name}: {error}")))
}
