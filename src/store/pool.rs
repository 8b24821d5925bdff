//! A bounded pool of threads for blocking work: page faults, fsync, indexing, decoding.
//!
//! Cores never block; they await a [`Pool::run`]. Each kind of work has a pool of its own, so that a queue of
//! fsyncs cannot delay the page faults of viewers. Threads start at the first job.

use super::priority;
use crate::profile::{Origin, Span, site};
use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::thread;
use tokio::sync::oneshot;

type Job = Box<dyn FnOnce() + Send>;

/// A handle; clones share the threads.
#[derive(Clone)]
pub struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    name: &'static str,
    threads_max: usize,
    lower: fn() -> io::Result<()>,
    state: Mutex<State>,
    work: Condvar,
}

struct State {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
}

/// A job that was queued; resolves to its result.
pub struct Running<T> {
    result: oneshot::Receiver<Option<T>>,
    pool: &'static str,
}

impl<T> Future for Running<T> {
    type Output = Result<T, Panicked>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.result).poll(cx).map(|sent| sent.ok().flatten().ok_or(Panicked(self.pool)))
    }
}

/// The job panicked; the thread survived.
#[derive(Debug, thiserror::Error)]
#[error("a job of the {0} pool panicked")]
pub struct Panicked(pub &'static str);

/// What a pool does at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    pub name: &'static str,
    /// Threads that run a job.
    pub busy: usize,
    /// Jobs that wait for a thread.
    pub queued: usize,
}

impl Pool {
    /// A pool named for what runs in it, with at most `threads_max` threads.
    pub fn new(name: &'static str, threads_max: usize) -> Self {
        Self::with_priority(name, threads_max, priority::lower)
    }

    /// The same for work that must not be felt by anybody else: it yields to the other pools too.
    pub fn background(name: &'static str, threads_max: usize) -> Self {
        Self::with_priority(name, threads_max, priority::background)
    }

    fn with_priority(name: &'static str, threads_max: usize, lower: fn() -> io::Result<()>) -> Self {
        let state = Mutex::new(State { jobs: VecDeque::new(), threads: 0, idle: 0 });
        let threads_max = threads_max.max(1);
        Self { shared: Arc::new(Shared { name, threads_max, lower, state, work: Condvar::new() }) }
    }

    /// Queues `job` at once and gives a future of its result. Dropping the future does not stop the job.
    pub fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Running<T> {
        let (done, result) = oneshot::channel();
        self.spawn(move || {
            let outcome = catch_unwind(AssertUnwindSafe(job));
            let _ = done.send(outcome.ok());
        });
        Running { result, pool: self.shared.name }
    }

    /// Runs `job` on the pool without waiting for it.
    pub fn spawn(&self, job: impl FnOnce() + Send + 'static) {
        let origin = Origin::here();
        let job = move || {
            let _span = Span::root(site!("job"), origin);
            job();
        };
        let mut state = self.shared.lock();
        state.jobs.push_back(Box::new(job));
        if state.idle < state.jobs.len() && state.threads < self.shared.threads_max {
            state.threads += 1;
            drop(state);
            let shared = Arc::clone(&self.shared);
            let started = thread::Builder::new().name(format!("weir-{}", shared.name)).spawn(move || shared.work());
            if let Err(error) = started {
                self.shared.lock().threads -= 1;
                tracing::error!(%error, pool = self.shared.name, "start a thread");
            }
        } else {
            drop(state);
            self.shared.work.notify_one();
        }
    }

    /// How busy it is now.
    pub fn load(&self) -> Load {
        let state = self.shared.lock();
        Load { name: self.shared.name, busy: state.threads - state.idle, queued: state.jobs.len() }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn work(&self) {
        // The cores come first: a pool reads ahead of them, and a core that waits for its CPU delays everybody.
        if let Err(error) = (self.lower)() {
            tracing::debug!(%error, "lower a pool thread's priority");
        }
        let mut state = self.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                drop(state);
                let _ = catch_unwind(AssertUnwindSafe(job));
                state = self.lock();
            } else {
                state.idle += 1;
                state = self.work.wait(state).unwrap_or_else(|poisoned| poisoned.into_inner());
                state.idle -= 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_reported_and_the_pool_goes_on() {
        let pool = Pool::new("test", 1);
        assert!(pool.run(|| panic!("on purpose")).await.is_err());
        assert_eq!(pool.run(|| 7).await.expect("the thread survived"), 7);
    }

    #[tokio::test]
    async fn never_more_threads_than_allowed() {
        let pool = Pool::new("test", 2);
        let jobs: Vec<_> = (0..16).map(|n| pool.run(move || n)).collect();
        let mut sum = 0;
        for job in jobs {
            sum += job.await.expect("no panic");
        }
        assert_eq!(sum, 120);
        assert!(pool.shared.lock().threads <= 2);
    }
}
