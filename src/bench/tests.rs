//! The engine's choices, by a clock that only the statements move; reports, and one run at a time.

use super::engine::{Clock, Engine, Event, Monotonic, Plan, Ratio, Stopped, Timing, loop_overhead};
use super::job::{Jobs, Refused, Request};
use super::report::{digits, scaled, time};
use super::*;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Stands still but for what statements take.
#[derive(Clone, Default)]
struct Fake(Arc<AtomicU64>);

impl Clock for Fake {
    fn now_ns(&self) -> u64 {
        self.0.load(SeqCst)
    }
}

impl Fake {
    /// A way whose loops take what `cost` says, in ns, of how many were run before.
    fn way(&self, name: &'static str, cost: impl Fn(u64) -> u64 + Send + Sync + Clone + 'static) -> Alternative {
        let clock = self.clone();
        let ran = Arc::new(AtomicU64::new(0));
        let set_up = move |_| {
            let (clock, cost, ran) = (clock.clone(), cost.clone(), Arc::clone(&ran));
            Ok(Statement::new(10, move || clock.0.fetch_add(cost(ran.fetch_add(1, SeqCst)), SeqCst)))
        };
        Alternative { name, set_up: Box::new(set_up) }
    }
}

const PLAN: Plan = Plan { loops: None, repeat: 5, size: 1, budget: Duration::from_secs(60) };

fn run(clock: &Fake, plan: Plan, ways: &[&Alternative]) -> Result<super::engine::Measured, Stopped> {
    Engine { clock, plan, tell: &mut |_| true }.run(ways)
}

#[test]
fn loops_grow_as_timeit_has_them_until_they_take_long_enough() {
    // 1, 2, 5, … 20 loops of 10 ms are 0.2 s; of 11 ms too; of 3 ms it takes 100.
    for (ms, loops) in [(10, 20), (11, 20), (3, 100), (250, 1), (200, 1), (199, 2), (41, 5)] {
        let clock = Fake::default();
        let way = clock.way("a", move |_| ms * 1_000_000);
        let measured = run(&clock, PLAN, &[&way]).expect("measured");
        assert_eq!(measured.timings[0].loops, loops, "{ms} ms");
        assert_eq!(measured.timings[0].times_ns, [ms as f64 * 1e6; 5]);
        assert!(measured.warnings.is_empty());
    }
}

#[test]
fn the_best_counts_and_a_far_worst_is_a_warning() {
    let clock = Fake::default();
    // One loop is chosen (250 ms); then five repeats.
    let costs = [250, 300, 250, 1100, 260, 270];
    let way = clock.way("a", move |n| costs[n as usize % 6] * 1_000_000);
    let measured = run(&clock, PLAN, &[&way]).expect("measured");
    let timing = &measured.timings[0];
    assert_eq!((timing.best() / 1e6, timing.median() / 1e6, timing.worst() / 1e6), (250.0, 270.0, 1100.0));
    assert_eq!(measured.warnings.len(), 1);
    assert!(measured.warnings[0].contains("the worst took 4.4 times the best"), "{:?}", measured.warnings);
}

#[test]
fn alternatives_take_turns_and_set_ups_are_outside_the_time() {
    let clock = Fake::default();
    let order = Arc::new(Mutex::new(String::new()));
    let way = |name: &'static str, ns: u64| {
        let (clock, order) = (clock.clone(), Arc::clone(&order));
        let set_up = move |_| {
            clock.0.fetch_add(5_000_000_000, SeqCst);
            order.lock().expect("not poisoned").push_str(name);
            let clock = clock.clone();
            Ok(Statement::new(1, move || clock.0.fetch_add(ns, SeqCst)))
        };
        Alternative { name, set_up: Box::new(set_up) }
    };
    let (a, b) = (way("a", 400_000_000), way("b", 200_000_000));
    let measured = run(&clock, Plan { repeat: 4, ..PLAN }, &[&a, &b]).expect("measured");
    // Choosing, then four rounds, every other one reversed.
    assert_eq!(*order.lock().expect("not poisoned"), "ababbaabba");
    assert_eq!(measured.timings[0].times_ns, [4e8; 4]);
    let ratio = Ratio::of(&measured.timings[0], &measured.timings[1]).expect("pairs");
    assert_eq!(ratio, Ratio { median: 2.0, low: 2.0, high: 2.0 });
}

#[test]
fn a_ratio_is_of_pairs() {
    let timing = |times: &[f64]| Timing { loops: 1, elements: 1, times_ns: times.to_vec() };
    // A disturbance that lasts over a pair moves both times, and not their ratio.
    let ratio = Ratio::of(&timing(&[2.0, 20.0, 3.0]), &timing(&[1.0, 10.0, 1.0])).expect("pairs");
    assert_eq!(ratio, Ratio { median: 2.0, low: 2.0, high: 3.0 });
    assert_eq!(Ratio::of(&timing(&[]), &timing(&[])), None);
}

#[test]
fn the_budget_holds() {
    let clock = Fake::default();
    let way = clock.way("a", |_| 1_000_000_000);
    let plan = Plan { budget: Duration::from_secs(4), ..PLAN };
    let measured = run(&clock, plan, &[&way]).expect("measured");
    // One to choose, and as many as fit.
    assert_eq!(measured.timings[0].times_ns.len(), 3);
    assert_eq!(measured.warnings, ["the time budget ended after 3 of 5 repeats"]);
    assert_eq!(clock.now_ns(), 4_000_000_000);
    let given = run(&clock, Plan { loops: Some(100), ..plan }, &[&way]).expect_err("100 s");
    let expected = Stopped::TooMany { alternative: "a", loops: 100, seconds: 100, budget: 4 };
    assert_eq!(given, expected);
    // The first repeat does not fit any more, or its set-up does not.
    for budget in [1500, 3500] {
        let clock = Fake::default();
        let mut way = clock.way("a", |_| 1_000_000_000);
        if budget == 3500 {
            let (set_up, clock) = (way.set_up, clock.clone());
            way.set_up = Box::new(move |size| {
                clock.0.fetch_add(2_000_000_000, SeqCst);
                set_up(size)
            });
        }
        let plan = Plan { budget: Duration::from_millis(budget), ..PLAN };
        let measured = run(&clock, plan, &[&way]).expect("measured");
        assert_eq!(measured.timings[0].times_ns, [1e9], "what was measured while the loops were chosen");
        assert_eq!(measured.warnings, ["the time budget ended after 0 of 5 repeats"]);
        assert!(clock.now_ns() <= budget * 1_000_000);
    }
    let slow = clock.way("slow", |_| 30_000_000);
    let chosen = run(&clock, Plan { budget: Duration::from_millis(150), ..PLAN }, &[&slow]).expect("measured");
    assert!(chosen.timings[0].loops <= 2, "loops that the budget does not allow are not begun");
}

#[test]
fn a_number_of_loops_may_be_given() {
    let clock = Fake::default();
    let way = clock.way("a", |_| 10);
    let measured = run(&clock, Plan { loops: Some(7), repeat: 2, ..PLAN }, &[&way]).expect("measured");
    assert_eq!((measured.timings[0].loops, measured.timings[0].times_ns.len()), (7, 2));
}

#[test]
fn whoever_stops_listening_stops_the_run() {
    let clock = Fake::default();
    let way = clock.way("a", |_| 1_000_000_000);
    let mut told = Vec::new();
    let mut tell = |event| {
        told.push(event);
        told.len() < 3
    };
    let stopped = Engine { clock: &clock, plan: PLAN, tell: &mut tell }.run(&[&way]).expect_err("stopped");
    assert_eq!(stopped, Stopped::Cancelled);
    assert!(matches!(told[..], [Event::Chosen { loops: 1, .. }, Event::Measured { done: 1, total: 5 }, _]));
}

#[test]
fn a_set_up_that_fails_says_why() {
    let way = Alternative { name: "a", set_up: Box::new(|_| Err("no memory".to_owned())) };
    let stopped = run(&Fake::default(), PLAN, &[&way]).err().map(|error| error.to_string());
    assert_eq!(stopped.as_deref(), Some("a: no memory"));
}

/// Only that the loop is not slower by orders of magnitude is asserted: the figure is for a release build.
#[test]
fn an_empty_loop_is_nearly_free() {
    assert!(loop_overhead(&Monotonic::default()) < 1000.0);
}

#[test]
fn figures_read_as_timeit_writes_them() {
    assert_eq!(
        [time(19.34), time(250.0), time(33_900.0), time(4.9e6)],
        ["19.3 nsec", "250 nsec", "33.9 usec", "4.90 msec"]
    );
    assert_eq!([time(1.5e9), time(0.25)], ["1.50 sec", "0.250 nsec"]);
    assert_eq!([digits(0.0), digits(99.96), digits(9.999), digits(0.00001)], ["0", "100", "10.0", "1.00e-5"]);
    assert_eq!([scaled(4.2e9), scaled(204.0)], ["4.20 G", "204 "]);
}

#[test]
fn a_report_is_text_and_json_and_can_be_compared() {
    let jobs = Arc::new(Jobs::default());
    let request = Request { loops: Some(100), repeat: Some(2), size: Some(4096), only: None };
    let turn = jobs.turn("chunk-slice", request, Duration::from_secs(60)).expect("nothing else runs");
    let report = turn.run(|_| true).expect("measured");
    drop(turn);
    let text = report.text();
    assert!(text.contains("  copy    100 loops, best of 2: ") && text.contains(" per loop"), "{text}");
    assert!(text.contains("slice takes ") && text.contains("clients in parallel"), "{text}");
    assert!(text.contains("\n  size 4096, build "), "{text}");
    let json = serde_json::to_string(&*report).expect("JSON");
    let again: Report = serde_json::from_str(&json).expect("our own JSON");
    assert_eq!((again.alternatives.len(), again.alternatives[0].elements), (3, 4096));
    assert_eq!(again.build, report.build);
    assert!(report.slower_than(&again).is_empty());
    let mut quick = again;
    for figures in &mut quick.alternatives {
        (figures.best_ns, figures.median_ns, figures.worst_ns) = (1e-9, 1e-9, 1e-9);
    }
    assert_eq!(report.slower_than(&quick).len(), 3);
    assert!(jobs.last("chunk-slice").is_some() && jobs.last("seek-lookup").is_none());
}

#[test]
fn one_run_at_a_time_and_only_what_makes_sense() {
    let jobs = Arc::new(Jobs::default());
    let limit = Duration::from_secs(1);
    let turn = |request: Request| jobs.turn("chunk-slice", request, limit);
    let first = turn(Request::default()).expect("nothing runs");
    assert_eq!(turn(Request::default()).err(), Some(Refused::Busy("chunk-slice".to_owned())));
    assert!(matches!(jobs.turn("none", Request::default(), limit).err(), Some(Refused::Unknown(_))));
    drop(first);
    for wrong in [
        Request { size: Some(0), ..Request::default() },
        Request { size: Some(u64::MAX), ..Request::default() },
        Request { loops: Some(0), ..Request::default() },
        Request { repeat: Some(0), ..Request::default() },
        Request { repeat: Some(u64::MAX), ..Request::default() },
        Request { only: Some("nothing".to_owned()), ..Request::default() },
    ] {
        assert!(matches!(turn(wrong.clone()).err(), Some(Refused::Invalid { .. })), "{wrong:?}");
    }
    let refused = turn(Request::default()).expect("nothing runs").unless_loaded(0.3, 0.25).err();
    assert_eq!(refused, Some(Refused::Loaded { used: 0.3, limit: 0.25 }));
    assert!(turn(Request::default()).is_ok(), "a refused turn is given back");
}
