//! Runs benchmarks, one at a time, on a thread of its own; keeps the last result of each.
//!
//! Refuses while the process is busy: a benchmark would disturb viewers, and they would disturb it. Must not know how
//! requests and answers look.

use super::engine::{Engine, Event, LONG_ENOUGH, Monotonic, Plan, REPEAT, Stopped, clock_overhead, loop_overhead};
use super::host::{self, Host, Ticks};
use super::report::{Around, Report};
use super::{Alternative, Benchmark, catalogue};
use crate::store::priority;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long the load is looked at before a run.
const LOOK: Duration = Duration::from_millis(100);
pub const REPEAT_MAX: u32 = 100;
pub const LOOPS_MAX: u64 = 1_000_000_000_000;

/// What to run.
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub loops: Option<u64>,
    pub repeat: Option<u64>,
    pub size: Option<u64>,
    /// Alternatives whose name contains this.
    pub only: Option<String>,
}

/// Why nothing is run.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Refused {
    #[error("there is no benchmark {0}")]
    Unknown(String),
    #[error("{parameter}={value} is outside; {allowed}")]
    Invalid { parameter: &'static str, value: String, allowed: String },
    #[error("{0} is being measured; one benchmark runs at a time")]
    Busy(String),
    #[error("the server is busy: it uses {used:.2} of its cores, and benchmarks are refused above {limit:.2}")]
    Loaded { used: f64, limit: f64 },
    #[error("cannot start a thread: {0}")]
    Thread(String),
}

/// All benchmarks, what runs, what was found.
pub struct Jobs {
    benchmarks: Vec<Arc<Benchmark>>,
    running: Mutex<Option<&'static str>>,
    last: Mutex<HashMap<&'static str, (Arc<Report>, Instant)>>,
}

/// The right to run one benchmark; given back when dropped.
pub struct Turn {
    jobs: Arc<Jobs>,
    benchmark: Arc<Benchmark>,
    plan: Plan,
    only: Option<String>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        *lock(&self.jobs.running) = None;
    }
}

impl Default for Jobs {
    fn default() -> Self {
        let benchmarks = catalogue::all().into_iter().map(Arc::new).collect();
        Self { benchmarks, running: Mutex::default(), last: Mutex::default() }
    }
}

impl Jobs {
    pub fn benchmarks(&self) -> &[Arc<Benchmark>] {
        &self.benchmarks
    }

    pub fn find(&self, name: &str) -> Option<&Arc<Benchmark>> {
        self.benchmarks.iter().find(|benchmark| benchmark.name == name)
    }

    /// The last result and when it was found.
    pub fn last(&self, name: &str) -> Option<(Arc<Report>, Instant)> {
        lock(&self.last).get(name).cloned()
    }

    /// The right to run this, if nothing else runs.
    pub fn turn(self: &Arc<Self>, name: &str, request: Request, budget: Duration) -> Result<Turn, Refused> {
        let benchmark = self.find(name).ok_or_else(|| Refused::Unknown(name.to_owned()))?;
        let plan = plan(benchmark, &request, budget)?;
        let mut running = lock(&self.running);
        if let Some(name) = *running {
            return Err(Refused::Busy(name.to_owned()));
        }
        *running = Some(benchmark.name);
        Ok(Turn { jobs: Arc::clone(self), benchmark: Arc::clone(benchmark), plan, only: request.only })
    }
}

fn plan(benchmark: &Benchmark, request: &Request, budget: Duration) -> Result<Plan, Refused> {
    let invalid = |parameter, value: String, allowed| Err(Refused::Invalid { parameter, value, allowed });
    let size = request.size.unwrap_or(benchmark.size.default);
    if !benchmark.size.allowed.contains(&size) {
        let (first, last) = (benchmark.size.allowed.start(), benchmark.size.allowed.end());
        let allowed = format!("{} may have {first} to {last} {}", benchmark.name, benchmark.size.what);
        return invalid("size", size.to_string(), allowed);
    }
    let repeat = request.repeat.unwrap_or(REPEAT.into());
    let Some(repeat) = u32::try_from(repeat).ok().filter(|repeat| (1..=REPEAT_MAX).contains(repeat)) else {
        return invalid("repeat", repeat.to_string(), format!("1 to {REPEAT_MAX}"));
    };
    if let Some(loops) = request.loops.filter(|loops| !(1..=LOOPS_MAX).contains(loops)) {
        return invalid("loops", loops.to_string(), format!("1 to {LOOPS_MAX}"));
    }
    if benchmark.chosen(request.only.as_deref()).is_empty() {
        let names: Vec<&str> = benchmark.alternatives.iter().map(|alternative| alternative.name).collect();
        let allowed = format!("a part of one of: {}", names.join(", "));
        return invalid("only", request.only.clone().unwrap_or_default(), allowed);
    }
    Ok(Plan { loops: request.loops, repeat, size, budget })
}

/// The share of the machine that this process uses.
pub async fn load() -> f64 {
    let (before, since) = (host::process_cpu(), Instant::now());
    tokio::time::sleep(LOOK).await;
    let cores = thread::available_parallelism().map_or(1, usize::from) as f64;
    host::process_cpu().saturating_sub(before).as_secs_f64() / since.elapsed().as_secs_f64() / cores
}

impl Turn {
    /// How many measurements will be made, and about how long they take.
    pub fn expected(&self) -> (u32, Duration) {
        let alternatives = self.benchmark.chosen(self.only.as_deref()).len();
        let total = self.plan.repeat.saturating_mul(u32::try_from(alternatives).unwrap_or(u32::MAX));
        (total, LONG_ENOUGH * 2 * total)
    }

    /// Refuses when the server is busier than `limit`, a share of its cores.
    pub fn unless_loaded(self, used: f64, limit: f64) -> Result<Self, Refused> {
        if used > limit { Err(Refused::Loaded { used, limit }) } else { Ok(self) }
    }

    /// Runs on a thread of low priority; `tell` is called there and ends the run by false, `done` gets what came out.
    pub fn spawn(
        self,
        tell: impl FnMut(Event) -> bool + Send + 'static,
        done: impl FnOnce(Result<Arc<Report>, Stopped>) + Send + 'static,
    ) -> Result<(), Refused> {
        let thread = thread::Builder::new().name("weir-bench".to_owned());
        let started = thread.spawn(move || {
            // Viewers come first.
            if let Err(error) = priority::background() {
                tracing::debug!(%error, "lower the priority of the benchmark's thread");
            }
            let outcome = self.run(tell);
            // The turn is over before the result is told: whoever reads it may ask for the next run.
            drop(self);
            done(outcome);
        });
        started.map(drop).map_err(|error| Refused::Thread(error.to_string()))
    }

    /// Runs on this thread.
    pub fn run(&self, mut tell: impl FnMut(Event) -> bool) -> Result<Arc<Report>, Stopped> {
        let (benchmark, clock) = (&self.benchmark, Monotonic::default());
        let (mut host, ticks) = (Host::now(), Ticks::now());
        let alternatives: Vec<&Alternative> = benchmark.chosen(self.only.as_deref());
        let (clock_ns, loop_ns) = (clock_overhead(&clock), loop_overhead(&clock));
        let measured = Engine { clock: &clock, plan: self.plan, tell: &mut tell }.run(&alternatives)?;
        host.steal = Ticks::now().stolen_since(ticks);
        let names: Vec<&'static str> = alternatives.iter().map(|alternative| alternative.name).collect();
        let around = Around { host, clock_ns, loop_ns };
        let report = Arc::new(Report::new(benchmark, &names, &self.plan, measured, around));
        lock(&self.jobs.last).insert(benchmark.name, (Arc::clone(&report), Instant::now()));
        Ok(report)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
