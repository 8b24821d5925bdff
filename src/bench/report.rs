//! What a run of a benchmark says: figures, ratios, warnings, where it ran; as JSON, and as text in timeit's words.
//!
//! Also how a report compares with an earlier one. Must not know how anything was measured.

use super::Benchmark;
use super::engine::{Measured, Plan, Ratio};
use super::host::{self, Host};
use serde::{Deserialize, Serialize};
use std::fmt::Write;

/// The result of one run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    pub name: String,
    pub question: String,
    pub shows: String,
    pub build: String,
    #[serde(flatten)]
    pub host: Host,
    pub size: u64,
    pub alternatives: Vec<Figures>,
    /// Each alternative to the first.
    pub ratios: Vec<NamedRatio>,
    pub implied: Vec<String>,
    pub warnings: Vec<String>,
    /// What it takes to read the clock once, and to loop once over nothing. Not subtracted.
    pub clock_ns: u64,
    pub loop_ns: f64,
}

/// The figures of one alternative; times in ns per loop.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Figures {
    pub name: String,
    pub loops: u64,
    pub repeat: usize,
    pub best_ns: f64,
    pub median_ns: f64,
    pub worst_ns: f64,
    pub elements: u64,
    pub element: String,
    pub per_element_ns: f64,
    pub times_ns: Vec<f64>,
}

/// `of` takes so many times as long as `to`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NamedRatio {
    pub of: String,
    pub to: String,
    pub median: f64,
    pub low: f64,
    pub high: f64,
}

/// What was true of the machine around a run.
pub struct Around {
    pub host: Host,
    pub clock_ns: u64,
    pub loop_ns: f64,
}

impl Report {
    pub fn new(benchmark: &Benchmark, names: &[&'static str], plan: &Plan, measured: Measured, around: Around) -> Self {
        let Measured { timings, warnings } = measured;
        let figures = |(name, timing): (&&str, &super::engine::Timing)| Figures {
            name: (*name).to_owned(),
            loops: timing.loops,
            repeat: timing.times_ns.len(),
            best_ns: timing.best(),
            median_ns: timing.median(),
            worst_ns: timing.worst(),
            elements: timing.elements,
            element: benchmark.element.to_owned(),
            per_element_ns: timing.best() / timing.elements.max(1) as f64,
            times_ns: timing.times_ns.clone(),
        };
        let ratio = |(name, timing): (&&str, &super::engine::Timing)| {
            let Ratio { median, low, high } = Ratio::of(timing, &timings[0])?;
            Some(NamedRatio { of: (*name).to_owned(), to: names[0].to_owned(), median, low, high })
        };
        let mut report = Self {
            name: benchmark.name.to_owned(),
            question: benchmark.question.to_owned(),
            shows: benchmark.shows.to_owned(),
            build: host::build().to_owned(),
            host: around.host,
            size: plan.size,
            alternatives: names.iter().zip(&timings).map(figures).collect(),
            ratios: names.iter().zip(&timings).skip(1).filter_map(ratio).collect(),
            implied: Vec::new(),
            warnings,
            clock_ns: around.clock_ns,
            loop_ns: around.loop_ns,
        };
        report.implied = (benchmark.implies)(&report);
        report
    }

    /// The figures of an alternative.
    pub fn figures(&self, name: &str) -> Option<&Figures> {
        self.alternatives.iter().find(|figures| figures.name == name)
    }

    /// The text of the whole report.
    pub fn text(&self) -> String {
        let mut text = format!("{}: {}\n", self.name, self.question);
        let width = self.alternatives.iter().map(|figures| figures.name.chars().count()).max().unwrap_or(0);
        for figures in &self.alternatives {
            let _ = writeln!(text, "  {:width$}  {}", figures.name, figures.line());
        }
        for NamedRatio { of, to, median, low, high } in &self.ratios {
            let (median, low, high) = (digits(*median), digits(*low), digits(*high));
            let _ = writeln!(text, "  {of} takes {median} times as long as {to} ({low} to {high})");
        }
        for line in &self.implied {
            let _ = writeln!(text, "  {line}");
        }
        for warning in &self.warnings {
            let _ = writeln!(text, "  warning: {warning}");
        }
        let Host { cpu, cores, clock, load, steal } = &self.host;
        let _ = writeln!(
            text,
            "  size {}, build {}, {cpu}, {cores} cores, clock {clock}, {} ns to read, loop {:.2} ns, load {load}, \
             steal {:.1} %",
            self.size,
            self.build,
            self.clock_ns,
            self.loop_ns,
            steal * 100.0
        );
        text
    }

    /// Why a difference from an earlier report may not be the code's, and what that report does not have.
    pub fn unlike(&self, earlier: &Self) -> Vec<String> {
        let (now, then) = (&self.host, &earlier.host);
        let mut lines = Vec::new();
        if (&now.cpu, now.cores, &now.clock) != (&then.cpu, then.cores, &then.clock) {
            let machine = |host: &Host| format!("{}, {} cores, clock {}", host.cpu, host.cores, host.clock);
            lines.push(format!("{}: measured on {}; before, on {}", self.name, machine(now), machine(then)));
        }
        let new = self.alternatives.iter().filter(|figures| earlier.figures(&figures.name).is_none());
        lines.extend(new.map(|figures| format!("{} {} is not in the baseline", self.name, figures.name)));
        lines
    }

    /// What became slower since an earlier report of the same benchmark: beyond the interval, each repeat of now took
    /// longer than each repeat of then, and by more than a clock's whim.
    pub fn slower_than(&self, earlier: &Self) -> Vec<String> {
        const WHIM: f64 = 1.02;
        let slower = |now: &Figures| {
            let then = earlier.figures(&now.name)?;
            (now.best_ns > then.worst_ns * WHIM).then(|| {
                let ratio = digits(now.median_ns / then.median_ns);
                let (low, high) = (digits(now.best_ns / then.worst_ns), digits(now.worst_ns / then.best_ns));
                format!("{} {}: {ratio} times as long as before ({low} to {high})", self.name, now.name)
            })
        };
        self.alternatives.iter().filter_map(slower).collect()
    }
}

impl Figures {
    /// `20000000 loops, best of 5: 19.3 nsec per loop`, and what else is known.
    fn line(&self) -> String {
        let Self { loops, repeat, best_ns, element, .. } = self;
        let plural = if *loops == 1 { "" } else { "s" };
        let mut line = format!("{loops} loop{plural}, best of {repeat}: {} per loop", time(*best_ns));
        let spread = (self.worst_ns / self.best_ns - 1.0) * 100.0;
        let _ = write!(line, "  (median {}, worst +{spread:.0} %)", time(self.median_ns));
        if self.elements > 1 && !element.is_empty() {
            let _ = write!(line, "  {} per {element}", time(self.per_element_ns));
            let _ = write!(line, ", {}", self.throughput());
        }
        line
    }

    fn throughput(&self) -> String {
        let per_second = self.elements as f64 / (self.best_ns / 1e9);
        if self.element == "byte" { bytes_per_second(per_second) } else { format!("{}/s", scaled(per_second)) }
    }
}

/// `19.3 nsec`, three digits, as timeit writes it.
pub fn time(ns: f64) -> String {
    let (value, unit) = match ns {
        ns if ns >= 1e9 => (ns / 1e9, "sec"),
        ns if ns >= 1e6 => (ns / 1e6, "msec"),
        ns if ns >= 1e3 => (ns / 1e3, "usec"),
        ns => (ns, "nsec"),
    };
    format!("{} {unit}", digits(value))
}

/// Three significant digits.
pub fn digits(value: f64) -> String {
    match value {
        v if !v.is_finite() => "?".to_owned(),
        v if v >= 99.95 => format!("{v:.0}"),
        v if v >= 9.995 => format!("{v:.1}"),
        v if v >= 0.9995 => format!("{v:.2}"),
        v if v >= 0.001 => format!("{v:.3}"),
        0.0 => "0".to_owned(),
        v => format!("{v:.2e}"),
    }
}

pub fn bytes_per_second(value: f64) -> String {
    format!("{}B/s", scaled(value))
}

/// `4.12 G`: decimal, three digits.
pub fn scaled(value: f64) -> String {
    const PREFIXES: [(f64, &str); 5] = [(1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
    let found = PREFIXES.iter().find(|(limit, _)| value >= *limit);
    found.map_or_else(|| format!("{} ", digits(value)), |(limit, prefix)| format!("{} {prefix}", digits(value / limit)))
}
