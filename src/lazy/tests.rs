//! What components promise: once, for everybody, with a reason when not.

use super::*;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::mpsc;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

fn table() -> Arc<Components> {
    Components::new(Instant::now())
}

fn row(table: &Components, name: &str) -> Row {
    table.rows().into_iter().find(|row| row.component == name).expect("a row of that name")
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// Waits for what another thread is about to do.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn nothing_runs_before_it_is_needed() {
    let table = table();
    let runs = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&runs);
    let component = table.add("a", move |_| Ok(counted.fetch_add(1, SeqCst)));
    assert!(component.ready().is_none());
    assert_eq!((row(&table, "a").state, runs.load(SeqCst)), (State::Cold, 0));
    assert_eq!(*component.wait(|| "GET /a".to_owned()).expect("initialised"), 0);
    assert_eq!(*component.wait(|| unreachable!("it is ready")).expect("kept"), 0);
    assert_eq!(*component.ready().expect("ready"), 0);
    let row = row(&table, "a");
    assert_eq!((row.state, row.initialised, row.paid_by.as_deref()), (State::Ready, 1, Some("GET /a")));
}

#[test]
fn allocations_of_an_initialiser_are_counted() {
    let table = table();
    let component = table.add("a", |_| Ok(vec![7u8; 1 << 20]));
    component.wait(|| "x".to_owned()).expect("initialised");
    let bytes = row(&table, "a").bytes.expect("counted");
    assert!((1 << 20..(1 << 20) + 10_000).contains(&bytes), "{bytes}");
}

#[test]
fn a_hundred_first_users_wait_for_one_initialisation() {
    let table = table();
    let (go, gate) = mpsc::channel::<()>();
    let (gate, runs) = (Mutex::new(gate), Arc::new(AtomicU32::new(0)));
    let counted = Arc::clone(&runs);
    let component = table.add("a", move |_| {
        lock(&gate).recv()?;
        Ok(counted.fetch_add(1, SeqCst) + 1)
    });
    let users: Vec<_> = (0..100)
        .map(|n| {
            let component = component.clone();
            thread::spawn(move || *runtime().block_on(component.get(|| format!("GET /{n}"))).expect("initialised"))
        })
        .collect();
    eventually("all others to wait", || row(&table, "a").waiters == 99);
    assert_eq!(row(&table, "a").state, State::Initialising);
    thread::sleep(Duration::from_millis(20));
    go.send(()).expect("the initialiser waits");
    assert!(users.into_iter().all(|user| user.join().expect("no panic") == 1));
    let row = row(&table, "a");
    assert_eq!((runs.load(SeqCst), row.initialised), (1, 1));
    assert!(row.waited_longest_us >= 20_000 && row.waited_us >= 99 * 20_000, "{row:?}");
    assert!(row.cumulative_us >= 20_000, "{row:?}");
}

#[test]
fn the_first_requester_may_leave() {
    let table = table();
    let (go, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let component = table.add("a", move |_| Ok(lock(&gate).recv()?));
    runtime().block_on(async {
        let first = tokio::time::timeout(Duration::from_millis(1), component.get(|| "GET /first".to_owned()));
        assert!(first.await.is_err(), "it waits for the gate");
    });
    go.send(()).expect("the initialiser still waits");
    eventually("ready", || component.ready().is_some());
    assert_eq!(row(&table, "a").paid_by.as_deref(), Some("GET /first"));
}

#[test]
fn a_failure_is_told_and_tried_again_after_a_back_off() {
    let table = table();
    let broken = Arc::new(AtomicU32::new(1));
    let left = Arc::clone(&broken);
    let component = table.add("a", move |_| match left.load(SeqCst) {
        0 => Ok(7),
        1 => Err("no such library".into()),
        _ => panic!("a bug"),
    });
    let failed = component.wait(|| "x".to_owned()).expect_err("broken");
    assert_eq!(failed.to_string(), "a cannot be used now: no such library");
    assert_eq!(failed.retry_after, Duration::from_secs(1));
    broken.store(0, SeqCst);
    let again = component.wait(|| "y".to_owned()).expect_err("too early: nothing is tried");
    assert!(again.retry_after <= Duration::from_secs(1) && *again.reason == *failed.reason);
    let shown = row(&table, "a");
    assert_eq!((shown.state, shown.failures), (State::Failed, 1));
    assert_eq!(shown.error.as_deref(), Some("no such library"));
    eventually("the back-off to end", || component.wait(|| "z".to_owned()).is_ok());
    let shown = row(&table, "a");
    assert_eq!((shown.state, shown.error, shown.paid_by.as_deref()), (State::Ready, None, Some("z")));
}

#[test]
fn a_panic_is_a_failure() {
    let table = table();
    let component = table.add::<()>("a", |_| panic!("at {}", 5));
    let failed = runtime().block_on(component.get(|| "x".to_owned())).expect_err("a panic");
    assert_eq!(&*failed.reason, "it panicked: at 5");
    assert_eq!(row(&table, "a").state, State::Failed);
}

#[test]
fn dependencies_are_nested() {
    let table = table();
    let pause = Duration::from_millis(20);
    let inner = table.add("inner", move |_| {
        thread::sleep(pause);
        Ok(())
    });
    let needed = inner.clone();
    let outer = table.add("outer", move |init| Ok(init.need(&needed)?));
    runtime().block_on(outer.get(|| "GET /o".to_owned())).expect("both");
    let rows = table.rows();
    let (inner, outer) = (&rows[0], &rows[1]);
    assert_eq!((inner.component, inner.depth, outer.component, outer.depth), ("inner", 1, "outer", 0));
    assert_eq!(inner.paid_by.as_deref(), Some("component outer"));
    assert!(outer.cumulative_us >= inner.cumulative_us && inner.self_us >= 20_000, "{rows:?}");
    assert!(outer.self_us <= outer.cumulative_us - inner.cumulative_us + 1, "{rows:?}");
    assert!(inner.line().ends_with(" |   inner") && outer.line().ends_with(" | outer"));
}

#[test]
fn a_failed_dependency_fails_what_needs_it() {
    let table = table();
    let inner = table.add::<()>("inner", |_| Err("no".into()));
    let outer = table.add("outer", move |init| Ok(init.need(&inner)?));
    let failed = outer.wait(|| "x".to_owned()).expect_err("its dependency failed");
    assert_eq!(failed.to_string(), "outer cannot be used now: inner cannot be used now: no");
}

#[test]
fn an_asynchronous_initialiser_has_a_runtime() {
    let table = table();
    let component = table.add_async("a", |_| async {
        tokio::time::sleep(Duration::from_millis(1)).await;
        Ok(3)
    });
    assert_eq!(*component.wait(|| "x".to_owned()).expect("initialised"), 3);
}

#[test]
fn an_idle_component_is_released_and_comes_back() {
    let table = table();
    let runs = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&runs);
    let component = table.add_releasable("a", move |_| Ok(counted.fetch_add(1, SeqCst)));
    let held = component.wait(|| "x".to_owned()).expect("initialised");
    let limit = Duration::from_millis(5);
    for _ in 0..5 {
        thread::sleep(limit);
        table.release_idle(limit);
    }
    assert!(component.ready().is_some(), "it is held");
    drop(held);
    table.release_idle(Duration::ZERO);
    assert!(component.ready().is_some(), "releasing is off");
    eventually("the release", || {
        thread::sleep(limit);
        table.release_idle(limit);
        row(&table, "a").released == 1
    });
    assert!(component.ready().is_none());
    assert_eq!(row(&table, "a").state, State::Cold);
    assert_eq!(*component.wait(|| "y".to_owned()).expect("again"), 1);
    assert_eq!((row(&table, "a").initialised, row(&table, "a").state), (2, State::Ready));
}

#[test]
fn warming_happens_in_the_background() {
    let table = table();
    let component = table.add("a", |_| Ok(()));
    let other = table.add("b", |_| Ok(()));
    assert_eq!(table.can_warm(), ["a", "b"]);
    table.warm(&["a".to_owned()]);
    eventually("warm", || component.ready().is_some());
    assert!(other.ready().is_none());
    assert_eq!(row(&table, "a").paid_by.as_deref(), Some("warm"));
}

#[test]
fn users_that_come_at_once_agree() {
    for _ in 0..50 {
        let table = table();
        let component = table.add_releasable("a", |_| Ok(Instant::now()));
        let start = Arc::new(Barrier::new(4));
        let users: Vec<_> = (0..4)
            .map(|n| {
                let (component, start) = (component.clone(), Arc::clone(&start));
                thread::spawn(move || {
                    start.wait();
                    *component.wait(|| n.to_string()).expect("initialised")
                })
            })
            .collect();
        let values: Vec<_> = users.into_iter().map(|user| user.join().expect("no panic")).collect();
        assert!(values.iter().all(|value| *value == values[0]));
        assert_eq!(row(&table, "a").initialised, 1);
    }
}

#[test]
fn steps_nest_and_are_announced() {
    let table = table();
    let told = Arc::new(Mutex::new(Vec::new()));
    let telling = Arc::clone(&told);
    table.announce(move |row| lock(&telling).push(row.component));
    table.step("all", || table.step("part", || thread::sleep(Duration::from_millis(5))));
    assert_eq!(*lock(&told), ["part", "all"]);
    let (part, all) = (row(&table, "part"), row(&table, "all"));
    assert!(part.self_us >= 5_000 && all.cumulative_us >= part.cumulative_us, "{part:?} {all:?}");
    assert_eq!((part.depth, all.depth), (1, 0));
    assert_eq!(all.paid_by.as_deref(), Some("start"));
}

#[test]
fn a_tally_is_one_row() {
    let table = table();
    let tally = table.tally("index");
    assert_eq!(row(&table, "index").state, State::Cold);
    tally.build("GET /slow", || thread::sleep(Duration::from_millis(20)));
    tally.build("GET /quick", || ());
    let row = row(&table, "index");
    assert_eq!((row.state, row.initialised, row.paid_by.as_deref()), (State::Ready, 2, Some("GET /slow")));
    assert!(row.self_us >= 20_000);
}

#[test]
fn the_text_has_the_columns_of_importtime() {
    let table = table();
    let _never = table.add("never", |_| Ok(()));
    table.step("some", || ());
    let text = text(&table.rows());
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("self [us] | cumulative | component"), "{text}");
    assert!(lines[1].contains(" | some ") && lines[1].ends_with(" bytes, paid by start"), "{text}");
    let columns: Vec<&str> = lines[2].split('|').map(str::trim).collect();
    assert_eq!(columns, ["-", "-", "never", "cold"]);
    let long = "x".repeat(1000);
    let kept = table.add("kept", |_| Ok(()));
    kept.wait(|| long).expect("initialised");
    assert_eq!(row(&table, "kept").paid_by.map(|payer| payer.len()), Some(200));
}
