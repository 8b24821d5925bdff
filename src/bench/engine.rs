//! How a benchmark is measured: the rules of Python's `timeit`, and what it takes to compare two ways fairly.
//!
//! The number of loops grows as 1, 2, 5, 10, … until they take 0.2 s; the best of 5 repeats is the figure, since all
//! that disturbs only adds; more than four times the best as the worst is a warning. Set-ups run before each repeat,
//! outside the time. Alternatives take turns, the order reversed every other time, so that they are disturbed alike and
//! their ratio is better known than their times. No statement is begun that would exceed the budget.
//! PURE but for the clock it is given: must not know the catalogue, threads, or how results are shown.

use super::Alternative;
use std::hint::black_box;
use std::time::Duration;

/// Loops of one measurement take at least this long, unless their number is given.
pub const LONG_ENOUGH: Duration = Duration::from_millis(200);
pub const REPEAT: u32 = 5;
/// Loops are not multiplied beyond this.
const LOOPS_MAX: u64 = 1_000_000_000_000;
/// A worst this many times the best is a warning.
const WORST_TO_BEST: f64 = 4.0;

/// A clock that only goes on. A test has its own.
pub trait Clock {
    /// Nanoseconds since some moment.
    fn now_ns(&self) -> u64;
}

/// The monotonic clock.
pub struct Monotonic(std::time::Instant);

impl Default for Monotonic {
    fn default() -> Self {
        Self(std::time::Instant::now())
    }
}

impl Clock for Monotonic {
    fn now_ns(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// What is to be measured, ready to run.
pub struct Statement {
    run: Box<dyn FnMut(u64)>,
    /// What one loop goes over, to tell the time per element.
    pub elements: u64,
}

impl Statement {
    /// One that does `body` in each loop. The loop stands around the body, so that it is compiled with it.
    pub fn new<R>(elements: u64, mut body: impl FnMut() -> R + 'static) -> Self {
        let run = move |loops| {
            for _ in 0..loops {
                black_box(body());
            }
        };
        Self { run: Box::new(run), elements }
    }

    /// One whose body is awaited, on a runtime of its own.
    pub fn of_async<F: Future + 'static>(elements: u64, mut body: impl FnMut() -> F + 'static) -> Result<Self, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        let run = move |loops| {
            runtime.block_on(async {
                for _ in 0..loops {
                    black_box(body().await);
                }
            });
        };
        Ok(Self { run: Box::new(run), elements })
    }

    pub fn run(&mut self, loops: u64) {
        (self.run)(black_box(loops));
    }
}

/// What was asked for.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Given instead of chosen.
    pub loops: Option<u64>,
    pub repeat: u32,
    pub size: u64,
    pub budget: Duration,
}

/// The times of one alternative.
#[derive(Clone, Debug, Default)]
pub struct Timing {
    pub loops: u64,
    pub elements: u64,
    /// Per loop, one for each repeat, in their order.
    pub times_ns: Vec<f64>,
}

impl Timing {
    pub fn best(&self) -> f64 {
        self.times_ns.iter().copied().fold(f64::INFINITY, f64::min)
    }

    pub fn worst(&self) -> f64 {
        self.times_ns.iter().copied().fold(0.0, f64::max)
    }

    pub fn median(&self) -> f64 {
        median(&self.times_ns)
    }

    /// The reader should not trust the figure.
    pub fn is_disturbed(&self) -> bool {
        self.worst() > WORST_TO_BEST * self.best()
    }
}

/// How many times as long one alternative takes as another, measured in pairs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ratio {
    pub median: f64,
    pub low: f64,
    pub high: f64,
}

impl Ratio {
    /// Of repeats that were made beside each other. From low to high the true median lies with a probability of
    /// 1 - 2^(1-n): 94 % of the time for 5 repeats.
    pub fn of(this: &Timing, that: &Timing) -> Option<Self> {
        let pairs = this.times_ns.iter().zip(&that.times_ns).filter(|(_, that)| **that > 0.0);
        let ratios: Vec<f64> = pairs.map(|(this, that)| this / that).collect();
        let (low, high) = ratios.iter().fold((f64::INFINITY, 0.0f64), |(l, h), r| (l.min(*r), h.max(*r)));
        (!ratios.is_empty()).then(|| Self { median: median(&ratios), low, high })
    }
}

pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

/// What the engine tells while it works.
#[derive(Clone, Debug)]
pub enum Event {
    /// The loops of an alternative were chosen.
    Chosen { alternative: &'static str, loops: u64 },
    /// A repeat of an alternative is done; `done` of `total` measurements are made.
    Measured { done: u32, total: u32 },
}

/// Why there is no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stopped {
    #[error("{alternative}: {reason}")]
    SetUp { alternative: &'static str, reason: String },
    #[error("{loops} loops of {alternative} would take about {seconds} s; a run may take {budget} s")]
    TooMany { alternative: &'static str, loops: u64, seconds: u64, budget: u64 },
    #[error("nobody waits for the result any more")]
    Cancelled,
}

/// The times, and what the reader has to know of them.
#[derive(Debug, Default)]
pub struct Measured {
    pub timings: Vec<Timing>,
    pub warnings: Vec<String>,
}

/// One run of alternatives.
pub struct Engine<'a, C> {
    pub clock: &'a C,
    pub plan: Plan,
    /// Told how far it is; false ends the run.
    pub tell: &'a mut dyn FnMut(Event) -> bool,
}

impl<C: Clock> Engine<'_, C> {
    /// Measures them all.
    pub fn run(&mut self, alternatives: &[&Alternative]) -> Result<Measured, Stopped> {
        let began = self.clock.now_ns();
        let deadline = began.saturating_add(ns(self.plan.budget));
        let mut measured = Measured::default();
        let mut set_ups_ns = 0;
        for alternative in alternatives {
            let began = self.clock.now_ns();
            let mut statement = set_up(alternative, self.plan.size)?;
            set_ups_ns += self.clock.now_ns().saturating_sub(began);
            let timing = self.choose(alternative.name, &mut statement, deadline)?;
            let chosen = Event::Chosen { alternative: alternative.name, loops: timing.loops };
            self.tell(chosen)?;
            measured.timings.push(timing);
        }
        let count = u32::try_from(alternatives.len()).unwrap_or(u32::MAX);
        let total = self.plan.repeat.saturating_mul(count);
        let mut done = 0;
        for repeat in 0..self.plan.repeat {
            let mut order: Vec<usize> = (0..alternatives.len()).collect();
            if repeat % 2 == 1 {
                order.reverse();
            }
            let expected: f64 = measured.timings.iter().map(|t| t.median() * t.loops as f64).sum();
            if (self.clock.now_ns() + set_ups_ns) as f64 + expected > deadline as f64 {
                // Without any repeat, what was measured while choosing is the figure.
                let repeats = self.plan.repeat;
                measured.warnings.push(format!("the time budget ended after {repeat} of {repeats} repeats"));
                break;
            }
            for at in order {
                let timing = &mut measured.timings[at];
                let mut statement = set_up(alternatives[at], self.plan.size)?;
                // What was measured while choosing is no repeat: it was not made beside the others.
                if repeat == 0 {
                    timing.times_ns.clear();
                }
                timing.times_ns.push(self.time(&mut statement, timing.loops) as f64 / timing.loops as f64);
                done += 1;
                self.tell(Event::Measured { done, total })?;
            }
        }
        for (alternative, timing) in alternatives.iter().zip(&measured.timings) {
            if timing.is_disturbed() {
                let times = timing.worst() / timing.best();
                let name = alternative.name;
                let warning = format!("{name}: the worst took {times:.1} times the best; something disturbed the run");
                measured.warnings.push(warning);
            }
        }
        Ok(measured)
    }

    /// 1, 2, 5, 10, … loops until they take long enough; or the number that was given, if one loop shows that the
    /// budget allows it.
    fn choose(&self, alternative: &'static str, statement: &mut Statement, deadline: u64) -> Result<Timing, Stopped> {
        let elements = statement.elements;
        let mut loops = 1;
        loop {
            let took = self.time(statement, loops);
            let per_loop = took as f64 / loops as f64;
            let left = deadline.saturating_sub(self.clock.now_ns()) as f64;
            let chosen = match self.plan.loops {
                Some(given) if per_loop * given as f64 > left => {
                    return Err(Stopped::TooMany {
                        alternative,
                        loops: given,
                        seconds: (per_loop * given as f64 / 1e9) as u64,
                        budget: self.plan.budget.as_secs(),
                    });
                }
                // The first loop is the slowest: a better guess costs little.
                Some(given) if loops == 1 && given > 100 && took < ns(LONG_ENOUGH) / 100 => None,
                Some(given) => Some(given),
                None => {
                    let next = next_loops(loops);
                    let is_last = next > LOOPS_MAX || per_loop * next as f64 > left;
                    (took >= ns(LONG_ENOUGH) || is_last).then_some(loops)
                }
            };
            if let Some(loops) = chosen {
                return Ok(Timing { loops, elements, times_ns: vec![per_loop] });
            }
            loops = next_loops(loops);
        }
    }

    fn time(&self, statement: &mut Statement, loops: u64) -> u64 {
        let began = self.clock.now_ns();
        statement.run(loops);
        self.clock.now_ns().saturating_sub(began)
    }

    fn tell(&mut self, event: Event) -> Result<(), Stopped> {
        if (self.tell)(event) { Ok(()) } else { Err(Stopped::Cancelled) }
    }
}

fn set_up(alternative: &Alternative, size: u64) -> Result<Statement, Stopped> {
    (alternative.set_up)(size).map_err(|reason| Stopped::SetUp { alternative: alternative.name, reason })
}

/// The number after this one in 1, 2, 5, 10, 20, 50, …
fn next_loops(loops: u64) -> u64 {
    let mut power = 1u64;
    while power.saturating_mul(10) <= loops {
        power *= 10;
    }
    power.saturating_mul(match loops / power {
        1 => 2,
        2..=4 => 5,
        _ => 10,
    })
}

/// What one reading of the clock takes: the least of many.
pub fn clock_overhead(clock: &impl Clock) -> u64 {
    (0..1000).map(|_| clock.now_ns()).map(|before| clock.now_ns().saturating_sub(before)).min().unwrap_or(0)
}

/// What a loop takes that does nothing, in ns.
pub fn loop_overhead(clock: &impl Clock) -> f64 {
    const LOOPS: u64 = 1_000_000;
    let mut empty = Statement::new(1, || ());
    let mut time = || {
        let began = clock.now_ns();
        empty.run(LOOPS);
        clock.now_ns().saturating_sub(began)
    };
    (0..5).map(|_| time()).min().unwrap_or(0) as f64 / LOOPS as f64
}

fn ns(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
