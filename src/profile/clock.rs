//! The profiler's clock: the processor's time stamp counter where it is a clock, else the system's. Times are ticks;
//! what a tick is worth is measured over the window itself, so that no drift adds up.
#![allow(unsafe_code, reason = "the time stamp counter is read by an intrinsic")]

use std::hint::black_box;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Where ticks come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Tsc,
    ClockGettime,
}

impl Source {
    pub fn name(self) -> &'static str {
        match self {
            Self::Tsc => "tsc",
            Self::ClockGettime => "clock_gettime",
        }
    }
}

/// What [`choose`] found: read at every span.
static CHOSEN: AtomicU8 = AtomicU8::new(UNCHOSEN);
const UNCHOSEN: u8 = 0;
const TSC: u8 = 1;
const CLOCK_GETTIME: u8 = 2;
/// Nanoseconds of a tick times 2^32, as [`Stopwatch`] takes them; 0 until the first use is some time ago.
static RATE: AtomicU64 = AtomicU64::new(0);
static SOURCE: LazyLock<Source> = LazyLock::new(find_source);
/// Both clocks at the first use, for windows that are too short to measure a rate.
static FIRST: LazyLock<Moment> = LazyLock::new(Moment::read);
static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Decides which clock to use; before the first span.
pub fn choose() -> Source {
    let source = *SOURCE;
    CHOSEN.store(if source == Source::Tsc { TSC } else { CLOCK_GETTIME }, Relaxed);
    LazyLock::force(&FIRST);
    source
}

/// Ticks; never 0.
#[inline]
pub fn now() -> u64 {
    #[cfg(target_arch = "x86_64")]
    if CHOSEN.load(Relaxed) == TSC {
        // SAFETY: every x86-64 processor has the instruction; where it is forbidden to processes, Linux does not name
        // the counter its clock source.
        return unsafe { core::arch::x86_64::_rdtsc() };
    }
    other()
}

#[cold]
fn other() -> u64 {
    if CHOSEN.load(Relaxed) == UNCHOSEN && choose() == Source::Tsc { now() } else { monotonic() }
}

fn monotonic() -> u64 {
    u64::try_from(EPOCH.elapsed().as_nanos()).unwrap_or(u64::MAX).max(1)
}

/// The counter is a clock if the processor says that it never changes its rate, and the kernel trusts it.
fn find_source() -> Source {
    const CLOCK_SOURCE: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    let trusted = std::fs::read_to_string(CLOCK_SOURCE).is_ok_and(|name| name.trim() == "tsc");
    if trusted && is_invariant() { Source::Tsc } else { Source::ClockGettime }
}

#[cfg(target_arch = "x86_64")]
fn is_invariant() -> bool {
    use core::arch::x86_64::__cpuid;
    const POWER: u32 = 0x8000_0007;
    const INVARIANT_TSC: u32 = 1 << 8;
    __cpuid(0x8000_0000).eax >= POWER && __cpuid(POWER).edx & INVARIANT_TSC != 0
}

#[cfg(not(target_arch = "x86_64"))]
fn is_invariant() -> bool {
    false
}

/// Both clocks at once.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    pub ticks: u64,
    pub at: Instant,
}

impl Moment {
    pub fn read() -> Self {
        Self { ticks: now(), at: Instant::now() }
    }
}

/// Nanoseconds of a tick.
#[derive(Clone, Copy, Debug)]
pub struct Rate(f64);

impl Rate {
    /// Measured between two moments, or since the first use where they are too close.
    pub fn between(start: &Moment, end: &Moment) -> Self {
        const LONG_ENOUGH: Duration = Duration::from_millis(100);
        let start = if end.at.duration_since(start.at) < LONG_ENOUGH { &*FIRST } else { start };
        let ticks = end.ticks.saturating_sub(start.ticks).max(1);
        Self(end.at.duration_since(start.at).as_nanos().max(1) as f64 / ticks as f64)
    }

    pub fn ns(self, ticks: u64) -> u64 {
        (ticks as f64 * self.0).round() as u64
    }

    pub fn ticks_per_second(self) -> f64 {
        1e9 / self.0
    }
}

/// The time since some moment, for figures that are kept always: two readings of the counter, where two of an `Instant`
/// cost twice as much. The rate is measured once.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(u64);

impl Stopwatch {
    #[inline]
    pub fn start() -> Self {
        Self(now())
    }

    /// One that [`Stopwatch::to_raw`] made a number of.
    pub fn from_raw(ticks: u64) -> Self {
        Self(ticks)
    }

    /// Never 0.
    pub fn to_raw(self) -> u64 {
        self.0
    }

    /// Nanoseconds since it was started.
    #[inline]
    pub fn ns(self) -> u64 {
        let ticks = now().saturating_sub(self.0);
        let rate = match RATE.load(Relaxed) {
            0 => measure_rate(),
            rate => rate,
        };
        u64::try_from((u128::from(ticks) * u128::from(rate)) >> 32).unwrap_or(u64::MAX)
    }
}

/// Kept as soon as it is known to some millionths.
#[cold]
fn measure_rate() -> u64 {
    const LONG_ENOUGH: Duration = Duration::from_millis(10);
    let (first, now) = (*FIRST, Moment::read());
    let passed = now.at.duration_since(first.at);
    let ticks = now.ticks.saturating_sub(first.ticks).max(1);
    let rate = u64::try_from((passed.as_nanos() << 32) / u128::from(ticks)).unwrap_or(u64::MAX);
    if passed >= LONG_ENOUGH {
        RATE.store(rate, Relaxed);
    }
    rate
}

/// The smallest step that the clock was seen to make, in ticks.
pub fn resolution() -> u64 {
    let step = || {
        let before = now();
        black_box(now()).saturating_sub(before)
    };
    (0..1000).map(|_| step()).filter(|step| *step > 0).min().unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_of_a_sleep_are_its_time() {
        choose();
        let start = Moment::read();
        std::thread::sleep(Duration::from_millis(120));
        let end = Moment::read();
        let ns = Rate::between(&start, &end).ns(end.ticks - start.ticks);
        let real = u64::try_from((end.at - start.at).as_nanos()).expect("short");
        assert!(ns.abs_diff(real) <= 1, "{ns} for {real}");
    }

    #[test]
    fn a_stopwatch_agrees_with_the_system_clock() {
        let (watch, since) = (Stopwatch::start(), Instant::now());
        std::thread::sleep(Duration::from_millis(50));
        // Read before and after: the thread may lose the processor in between.
        let (least, ns, most) = (since.elapsed(), watch.ns(), since.elapsed());
        let near = |at: Duration, factor: f64| at.as_nanos() as f64 * factor;
        assert!(ns as f64 >= near(least, 0.99) && ns as f64 <= near(most, 1.01) + 1e6, "{least:?} {ns} {most:?}");
        assert_eq!(Stopwatch::from_raw(watch.to_raw()).0, watch.0);
    }

    #[test]
    fn the_system_clock_never_reads_zero_and_goes_on() {
        let first = monotonic();
        assert!(first > 0 && monotonic() >= first);
    }
}
