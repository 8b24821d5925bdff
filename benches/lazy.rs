//! Shows what the check for a ready component costs where it stands in a request's way, beside what else could stand there.
//!
//! Budget: 2 ns (DESIGN.md section 9). One that may be released has to be counted while it is used, which costs more.

use divan::black_box;
use std::sync::{Mutex, OnceLock};
use std::time::Instant;
use weir::lazy::{Component, Components};

fn main() {
    divan::main();
}

fn component(releasable: bool) -> Component<u64> {
    let table = Components::new(Instant::now());
    let component = if releasable { table.add_releasable("a", |_| Ok(7)) } else { table.add("a", |_| Ok(7)) };
    component.wait(String::new).expect("it cannot fail");
    component
}

#[divan::bench]
fn ready(bencher: divan::Bencher<'_, '_>) {
    let component = component(false);
    bencher.bench_local(|| *black_box(&component).ready().expect("ready"));
}

#[divan::bench]
fn ready_releasable(bencher: divan::Bencher<'_, '_>) {
    let component = component(true);
    bencher.bench_local(|| *black_box(&component).ready().expect("ready"));
}

#[divan::bench]
fn once_lock(bencher: divan::Bencher<'_, '_>) {
    let lock = OnceLock::from(7u64);
    bencher.bench_local(|| *black_box(&lock).get().expect("set"));
}

#[divan::bench]
fn mutex_flag(bencher: divan::Bencher<'_, '_>) {
    let lock = Mutex::new((true, 7u64));
    bencher.bench_local(|| {
        let guard = black_box(&lock).lock().expect("not poisoned");
        guard.0.then_some(guard.1)
    });
}

/// The first use of a component that computes nothing: a thread is not started, since the caller may block.
#[divan::bench]
fn first(bencher: divan::Bencher<'_, '_>) {
    let table = Components::new(Instant::now());
    let fresh = || table.add("a", |_| Ok(7));
    bencher.with_inputs(fresh).bench_local_values(|component| *component.wait(String::new).expect("it cannot fail"));
}
