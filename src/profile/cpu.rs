//! The CPU profile: samples of every thread that is on a CPU, those that start while it runs included.
//!
//! One collector at a time: it gives each thread a timer on its CPU time, empties their rings, and counts equal stacks.
//! What it could not see is counted as such, so that the total is the CPU time of the process.

use super::maps::{self, Code};
use super::proto::{Label, Line, LocationId, MappingId, Profile};
use super::symbols::{self, Names, Symboliser};
use super::timers::{self, Timer};
use super::{marks, slot, switch};
use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

/// How often new threads are looked for and rings are emptied.
const EVERY: Duration = Duration::from_millis(10);
/// Kinds of stacks at most; what comes later is counted as one.
const STACKS_MAX: usize = 64 << 10;

/// What is to be sampled.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub duration: Duration,
    /// Samples per second of CPU time.
    pub rate: u32,
}

/// Why there is no profile.
#[derive(Debug, thiserror::Error)]
pub enum CpuError {
    #[error("another CPU profile is being taken")]
    Busy,
    #[error("cannot sample: {0}")]
    System(#[from] io::Error),
}

/// How a profile of samples is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The gzip file of `go tool pprof`.
    Pprof,
    /// A line per stack: `outermost;…;leaf value`, for flame graphs.
    Folded,
}

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Takes a CPU profile; blocks until it is done. Given up when `given_up` says so.
pub fn profile(
    plan: Plan,
    form: Form,
    symboliser: &Symboliser,
    given_up: impl Fn() -> bool,
) -> Result<Vec<u8>, CpuError> {
    let Ok(_alone) = ONE_AT_A_TIME.try_lock() else { return Err(CpuError::Busy) };
    // Samples tell the span they fell into only while spans are followed.
    let spans = switch::Hold::new();
    let counted = collect(plan, given_up)?;
    drop(spans);
    Ok(match form {
        Form::Pprof => encode(&counted, plan, symboliser),
        Form::Folded => folded(&counted, plan, symboliser).into_bytes(),
    })
}

/// What a sample is counted under.
#[derive(PartialEq, Eq, Hash)]
struct Key {
    span: u64,
    thread: usize,
    stack: Box<[u64]>,
}

/// The samples of one profile.
struct Counted {
    began: SystemTime,
    took: Duration,
    /// CPU time of the process meanwhile.
    cpu: Duration,
    weights: HashMap<Key, u64>,
    /// Names of threads.
    threads: Vec<String>,
    /// Periods whose samples found a ring, or the table of stacks, full.
    lost: u64,
    /// CPU time of threads before they were found.
    unseen: Duration,
    /// Threads that could not be given a timer.
    unsampled: usize,
}

/// A thread that is sampled.
struct Watched {
    slot: usize,
    name: usize,
    _timer: Timer,
}

struct Collector {
    period: Duration,
    number: usize,
    watched: HashMap<i32, Watched>,
    refused: HashSet<i32>,
    free_slots: Vec<usize>,
    names: HashMap<String, usize>,
    counted: Counted,
}

fn collect(plan: Plan, given_up: impl Fn() -> bool) -> io::Result<Counted> {
    static PROFILES: AtomicUsize = AtomicUsize::new(1);
    timers::install_handler()?;
    let number = PROFILES.fetch_add(1, Relaxed);
    timers::begin(number);
    let counted = Counted {
        began: SystemTime::now(),
        took: Duration::ZERO,
        cpu: timers::process_cpu(),
        weights: HashMap::new(),
        threads: Vec::new(),
        lost: 0,
        unseen: Duration::ZERO,
        unsampled: 0,
    };
    let mut collector = Collector {
        period: Duration::from_secs(1) / plan.rate.max(1),
        number,
        watched: HashMap::new(),
        refused: HashSet::new(),
        free_slots: (0..slot::SLOTS_MAX).rev().collect(),
        names: HashMap::new(),
        counted,
    };
    let began = Instant::now();
    collector.watch(true)?;
    while began.elapsed() < plan.duration && !given_up() {
        thread::sleep(EVERY.min(plan.duration.saturating_sub(began.elapsed())));
        collector.watch(false)?;
        collector.drain();
    }
    let watched = std::mem::take(&mut collector.watched);
    // No signal of these timers counts from here on.
    timers::begin(0);
    collector.watched = watched;
    collector.drain();
    let mut counted = collector.counted;
    counted.took = began.elapsed();
    counted.cpu = timers::process_cpu().saturating_sub(counted.cpu);
    Ok(counted)
}

impl Collector {
    /// Gives new threads a timer and forgets those that ended. `first`: they are not new, but older than the profile.
    fn watch(&mut self, first: bool) -> io::Result<()> {
        let mut alive = HashSet::with_capacity(self.watched.len());
        for entry in fs::read_dir("/proc/self/task")? {
            let name = entry?.file_name();
            alive.extend(name.to_str().and_then(|name| name.parse::<i32>().ok()));
        }
        let gone: Vec<i32> = self.watched.keys().copied().filter(|thread| !alive.contains(thread)).collect();
        for thread in gone {
            if let Some(watched) = self.watched.remove(&thread) {
                self.drain_one(watched.slot, watched.name);
                self.free_slots.push(watched.slot);
            }
        }
        for thread in alive {
            if !self.watched.contains_key(&thread) && !self.refused.contains(&thread) {
                self.begin(thread, first);
            }
        }
        Ok(())
    }

    fn begin(&mut self, thread: i32, first: bool) {
        let before = if first { Duration::ZERO } else { timers::thread_cpu(thread) };
        let Some(number) = self.free_slots.pop() else { return self.refuse(thread) };
        // What an earlier profile left in the ring is none of this one.
        slot::slot(number).drain(|_| ());
        // Within its first period at random, so that threads that live for less than one are counted in the mean.
        let random = getrandom::u32().unwrap_or(u32::MAX / 2);
        let first_tick = self.period.mul_f64((f64::from(random) + 1.0) / (f64::from(u32::MAX) + 1.0));
        match Timer::new(thread, first_tick.max(Duration::from_nanos(1)), self.period, self.number, number) {
            Ok(timer) => {
                self.counted.unseen += before;
                let name = self.name_of(thread);
                self.watched.insert(thread, Watched { slot: number, name, _timer: timer });
            }
            Err(_) => {
                self.free_slots.push(number);
                // Unless it has ended meanwhile.
                if !timers::thread_cpu(thread).is_zero() {
                    self.refuse(thread);
                }
            }
        }
    }

    fn refuse(&mut self, thread: i32) {
        self.refused.insert(thread);
        self.counted.unsampled += 1;
    }

    fn name_of(&mut self, thread: i32) -> usize {
        let name = fs::read_to_string(format!("/proc/self/task/{thread}/comm")).unwrap_or_default();
        let name = name.trim_end().to_owned();
        let next = self.names.len();
        let number = *self.names.entry(name.clone()).or_insert(next);
        if number == next {
            self.counted.threads.push(name);
        }
        number
    }

    fn drain(&mut self) {
        let slots: Vec<_> = self.watched.values().map(|watched| (watched.slot, watched.name)).collect();
        for (slot, name) in slots {
            self.drain_one(slot, name);
        }
    }

    fn drain_one(&mut self, number: usize, thread: usize) {
        let counted = &mut self.counted;
        let lost = slot::slot(number).drain(|sample| {
            let key = Key { span: sample.span, thread, stack: sample.stack.into() };
            if counted.weights.len() < STACKS_MAX || counted.weights.contains_key(&key) {
                *counted.weights.entry(key).or_default() += sample.weight;
            } else {
                counted.lost += sample.weight;
            }
        });
        counted.lost += lost;
    }
}

fn encode(counted: &Counted, plan: Plan, symboliser: &Symboliser) -> Vec<u8> {
    let period_ns = 1_000_000_000 / i64::from(plan.rate.max(1));
    let mut profile = Profile::new(&[("samples", "count"), ("cpu", "nanoseconds")], "cpu");
    profile.period(("cpu", "nanoseconds"), period_ns);
    profile.taken(counted.began, counted.took);
    let unseen = counted.unseen.as_nanos() / u128::from(period_ns.unsigned_abs());
    let unseen = u64::try_from(unseen).unwrap_or(0);
    let code = symboliser.code();
    let addresses: HashSet<u64> = counted.weights.keys().flat_map(|key| key.stack.iter().copied()).collect();
    let names = symbols::names(&code, addresses.into_iter());
    let places = Places::new(&mut profile, &code, names);
    let mut total = 0;
    for (key, weight) in &counted.weights {
        let stack: Vec<_> = key.stack.iter().map(|&address| places.at(&mut profile, address)).collect();
        let mut labels = vec![Label::Text("thread", counted.threads[key.thread].clone())];
        labels.extend(marks::labels(key.span));
        total += weight;
        add(&mut profile, &stack, *weight, period_ns, &labels);
    }
    for (name, weight) in [("[samples lost]", counted.lost), ("[thread not yet sampled]", unseen)] {
        if weight > 0 {
            let place = profile.named(name, "", 0);
            add(&mut profile, &[place], weight, period_ns, &[]);
        }
    }
    let sampled = Duration::from_nanos(total * period_ns.unsigned_abs());
    profile.comment(&format!(
        "CPU time of the process {:.3} s; sampled {:.3} s, samples lost {}, before threads were seen {:.3} s, threads \
         without a timer {}; {} Hz per thread",
        counted.cpu.as_secs_f64(),
        sampled.as_secs_f64(),
        counted.lost,
        counted.unseen.as_secs_f64(),
        counted.unsampled,
        plan.rate,
    ));
    profile.encode()
}

/// Nanoseconds of CPU time by stack.
fn folded(counted: &Counted, plan: Plan, symboliser: &Symboliser) -> String {
    let period_ns = 1_000_000_000 / u64::from(plan.rate.max(1));
    let addresses: HashSet<u64> = counted.weights.keys().flat_map(|key| key.stack.iter().copied()).collect();
    let names = symboliser.names(addresses.into_iter());
    let mut lines: HashMap<String, u64> = HashMap::new();
    for (key, weight) in &counted.weights {
        let stack = symbols::folded(&names, &key.stack);
        *lines.entry(format!("{};{stack}", counted.threads[key.thread])).or_default() += weight * period_ns;
    }
    let unseen = u64::try_from(counted.unseen.as_nanos()).unwrap_or(0);
    for (name, ns) in [("[samples lost]", counted.lost * period_ns), ("[thread not yet sampled]", unseen)] {
        if ns > 0 {
            lines.insert(name.to_owned(), ns);
        }
    }
    lines.into_iter().map(|(stack, ns)| format!("{stack} {ns}\n")).collect()
}

fn add(profile: &mut Profile, stack: &[LocationId], weight: u64, period_ns: i64, labels: &[Label]) {
    let weight = i64::try_from(weight).unwrap_or(i64::MAX);
    profile.sample(stack, &[weight, weight.saturating_mul(period_ns)], labels);
}

/// Addresses of this process as locations of a profile.
pub(super) struct Places<'a> {
    code: &'a [Code],
    mappings: Vec<MappingId>,
    names: Names,
}

impl<'a> Places<'a> {
    pub(super) fn new(profile: &mut Profile, code: &'a [Code], names: Names) -> Self {
        let named = !names.is_empty();
        let mappings = code.iter().map(|code| profile.mapping(&code.mapping, named)).collect();
        Self { code, mappings, names }
    }

    pub(super) fn at(&self, profile: &mut Profile, address: u64) -> LocationId {
        self.with(profile, address, self.lines(address))
    }

    /// The place of an address with fewer lines than it has.
    pub(super) fn with(&self, profile: &mut Profile, address: u64, lines: &[Line]) -> LocationId {
        let mapping = maps::find(self.code, address).map(|at| self.mappings[at]);
        profile.address(mapping, address, lines)
    }

    pub(super) fn lines(&self, address: u64) -> &[Line] {
        self.names.get(&address).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::super::stack;
    use super::*;
    use std::hint::black_box;
    use std::sync::atomic::AtomicBool;

    /// Burns CPU time of its own thread, whatever else the machine does.
    #[inline(never)]
    fn burn(cpu: Duration) -> u64 {
        let thread = rustix::thread::gettid().as_raw_nonzero().get();
        let (mut x, began) = (1u64, timers::thread_cpu(thread));
        while timers::thread_cpu(thread) - began < cpu {
            x = spin(x);
        }
        x
    }

    #[inline(never)]
    fn spin(mut x: u64) -> u64 {
        for _ in 0..200_000 {
            x = black_box(x).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(7);
        }
        x
    }

    /// On all cores, among them threads that start when the profile runs already.
    fn profile_of_burners(rate: u32) -> Counted {
        const CPU: Duration = Duration::from_millis(700);
        static DONE: AtomicBool = AtomicBool::new(false);
        DONE.store(false, Relaxed);
        let burners = thread::spawn(|| {
            thread::sleep(Duration::from_millis(30));
            let cores = thread::available_parallelism().map_or(2, usize::from);
            let burners: Vec<_> = (0..cores).map(|_| thread::spawn(|| burn(CPU))).collect();
            burners.into_iter().for_each(|burner| drop(burner.join()));
            DONE.store(true, Relaxed);
        });
        let plan = Plan { duration: Duration::from_secs(50), rate };
        let counted = collect(plan, || DONE.load(Relaxed)).expect("sampled");
        burners.join().expect("burnt");
        counted
    }

    #[test]
    fn the_total_is_the_cpu_time_of_the_process_and_the_hot_leaf_is_on_top() {
        let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        stack::prepare();
        for rate in [99, 999] {
            let counted = profile_of_burners(rate);
            let period = 1.0 / f64::from(rate);
            let weight: u64 = counted.weights.values().sum();
            let sampled = (weight + counted.lost) as f64 * period + counted.unseen.as_secs_f64();
            let off = sampled / counted.cpu.as_secs_f64() - 1.0;
            assert!(off.abs() < 0.05, "{rate} Hz: sampled {sampled} s of {:?}", counted.cpu);
            let mut leaves: HashMap<u64, u64> = HashMap::new();
            let (spin, burn) = (spin as fn(u64) -> u64 as usize as u64, burn as fn(Duration) -> u64 as usize as u64);
            let mut called = 0;
            for (key, weight) in &counted.weights {
                *leaves.entry(key.stack[0] & !0xff).or_default() += weight;
                let within = |address: u64, function: u64| (function..function + 0x200).contains(&address);
                if within(key.stack[0], spin) && key.stack.get(1).is_some_and(|&caller| within(caller, burn)) {
                    called += weight;
                }
            }
            let hot: u64 =
                leaves.iter().filter(|(at, _)| (spin & !0xff..=spin + 0x100).contains(at)).map(|l| l.1).sum();
            assert!(hot * 2 > weight, "{hot} of {weight} samples are in the function that burns");
            assert!(called * 10 > hot * 9, "{called} of {hot} have its caller above it");
        }
    }
}
