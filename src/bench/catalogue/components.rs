//! Components: the check that stands in a request's way, and the first use. And the statement that does nothing.

use crate::bench::{Benchmark, Statement};
use crate::lazy::{Component, Components};
use std::hint::black_box;
use std::sync::{Mutex, OnceLock};
use std::time::Instant;

pub(super) fn ready() -> Benchmark {
    Benchmark::new(
        "lazy-ready",
        "What does it cost to ask a ready component for its value?",
        "one load, as OnceLock; two stores more where it may be released, which count its users; a lock costs more",
    )
    .way("component", |_| Ok(asking(component(false)?)))
    .way("releasable component", |_| Ok(asking(component(true)?)))
    .way("OnceLock", |_| {
        let value = OnceLock::from(7u64);
        Ok(Statement::new(1, move || black_box(&value).get().copied()))
    })
    .way("flag behind a mutex", |_| {
        let value = Mutex::new((true, 7u64));
        Ok(Statement::new(1, move || {
            let guard = black_box(&value).lock().ok()?;
            guard.0.then_some(guard.1)
        }))
    })
}

fn component(releasable: bool) -> Result<Component<u64>, String> {
    let table = Components::new(Instant::now());
    let component = if releasable { table.add_releasable("a", |_| Ok(7)) } else { table.add("a", |_| Ok(7)) };
    component.wait(String::new).map_err(|error| error.to_string())?;
    Ok(component)
}

fn asking(component: Component<u64>) -> Statement {
    Statement::new(1, move || black_box(&component).ready().map(|value| *value))
}

pub(super) fn first() -> Benchmark {
    Benchmark::new(
        "lazy-first",
        "What does the first use of a component cost that has nothing to do?",
        "what the machinery adds: a thread of its own for a request, none for a command that may block",
    )
    .way("by a command", |_| {
        let table = Components::new(Instant::now());
        Ok(Statement::new(1, move || table.alone("a", || 7u64).wait(String::new).is_ok()))
    })
    .way("by a request", |_| {
        let table = Components::new(Instant::now());
        Statement::of_async(1, move || {
            let component = table.alone("a", || 7u64);
            async move { component.get(String::new).await.is_ok() }
        })
    })
}

pub(super) fn empty() -> Benchmark {
    Benchmark::new(
        "empty",
        "What does the engine itself add to a loop?",
        "under 1 ns: a figure near this one is the loop's, not the statement's",
    )
    .way("nothing", |_| Ok(Statement::new(1, || ())))
}
