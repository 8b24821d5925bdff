//! A workload whose profile is known beforehand: the profiler's self test. It burns the processor in a named function
//! for a known time, waits for a known time, recurses, joins, spawns and is cancelled a known number of times, on two
//! threads.

use super::future::{SpanExt, profiled, spawned};
use crate::{site, span};
use serde_json::{Value, json};
use std::future::pending;
use std::thread;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

pub const ROUNDS_MAX: u64 = 100;
const THREADS: u64 = 2;
const BURN: Duration = Duration::from_millis(2);
const WAIT: Duration = Duration::from_millis(5);
const PATIENCE: Duration = Duration::from_millis(3);
const DEPTH: u64 = 5;

/// Runs it; `None` when a thread could not be started.
pub async fn run(rounds: u64) -> Option<()> {
    let mut ends = Vec::new();
    for _ in 0..THREADS {
        let (done, end) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().ok()?;
        let work = move || {
            for _ in 0..rounds {
                runtime.block_on(round().span(site!("workload")));
            }
            let _ = done.send(());
        };
        thread::Builder::new().name("weir-workload".to_owned()).spawn(work).ok()?;
        ends.push(end);
    }
    for end in ends {
        end.await.ok()?;
    }
    Some(())
}

async fn round() {
    burn_cpu();
    wait_once().await;
    tokio::join!(wait_once(), wait_once());
    recurse(DEPTH);
    let task = tokio::spawn(spawned(site!("workload_task"), async { burn_cpu() }));
    let _ = task.await;
    let _ = tokio::time::timeout(PATIENCE, profiled(site!("cancelled_wait"), pending::<()>())).await;
}

fn burn_cpu() {
    let _span = span!("burn_cpu");
    let begun = Instant::now();
    while begun.elapsed() < BURN {
        std::hint::spin_loop();
    }
}

async fn wait_once() {
    tokio::time::sleep(WAIT).span(site!("wait_once")).await;
}

fn recurse(depth: u64) {
    let _span = span!("recurse");
    if depth > 1 {
        recurse(depth - 1);
    }
}

/// What a profile of so many rounds shows: counts exactly, times at least.
pub fn expected(rounds: u64) -> Value {
    let calls = rounds * THREADS;
    let seconds = |each: Duration, calls: u64| each.as_secs_f64() * calls as f64;
    let row = |name: &str, ncalls: u64, primitive: u64, cancelled: u64, tottime: f64, await_at_least: f64| {
        json!({
            "name": name, "ncalls": ncalls, "primitive": primitive, "cancelled": cancelled,
            "tottime": tottime, "await": await_at_least,
        })
    };
    // Of the three waits of a round two overlap.
    let waits = seconds(WAIT, 2 * calls) + seconds(PATIENCE, calls);
    json!([
        row("workload", calls, calls, 0, 0.0, waits),
        row("burn_cpu", 2 * calls, 2 * calls, 0, seconds(BURN, 2 * calls), 0.0),
        row("wait_once", 3 * calls, 3 * calls, 0, 0.0, seconds(WAIT, 3 * calls)),
        row("recurse", DEPTH * calls, calls, 0, 0.0, 0.0),
        row("workload_task", calls, calls, 0, 0.0, 0.0),
        row("cancelled_wait", 0, 0, calls, 0.0, seconds(PATIENCE, calls)),
    ])
}
