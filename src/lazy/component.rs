//! One component: its value, its one initialisation at a time, its back-off.

use super::record::{Record, State, Waiting};
use super::table::{Entry, Row, Table};
use super::{Failure, lock};
use crate::profile::heap::allocated_bytes;
use crate::store::lent::{Lent, Loan};
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll, Wake};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// The back-off after the first failure; it doubles with each further one.
const BACK_OFF: Duration = Duration::from_secs(1);
const BACK_OFF_MAX: Duration = Duration::from_secs(60);

/// A component cannot be used now: its initialisation failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{component} cannot be used now: {reason}")]
pub struct Unready {
    pub component: &'static str,
    pub reason: Arc<str>,
    /// When asking again makes sense.
    pub retry_after: Duration,
}

/// A handle; clones share the component.
pub struct Component<T>(Arc<Shared<T>>);

impl<T> Clone for Component<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

pub(super) type Initialiser<T> = Box<dyn Fn(&Init) -> Result<T, Failure> + Send + Sync>;
type Outcome<T> = Option<Result<Arc<T>, Unready>>;

struct Shared<T> {
    name: &'static str,
    slot: Slot<T>,
    flight: Mutex<Flight<T>>,
    initialise: Initialiser<T>,
    record: Mutex<Record>,
    table: Arc<Table>,
}

/// Where the value is. One that is kept for ever is found with one load; one that may be released is borrowed while it
/// is used.
enum Slot<T> {
    Kept(OnceLock<Arc<T>>),
    Released { value: Lent<T>, used: AtomicBool, idle_since: Mutex<Instant> },
}

enum Flight<T> {
    None,
    Running(watch::Receiver<Outcome<T>>),
    BackOff { until: Instant, failed: Unready },
}

enum Joined<T> {
    Ready(Arc<T>),
    Wait(watch::Receiver<Outcome<T>>),
    Start(watch::Sender<Outcome<T>>, watch::Receiver<Outcome<T>>),
}

/// Who asked for an initialisation.
struct Payer {
    by: String,
    depth: usize,
}

/// A ready component's value, for as long as this is held: briefly, for meanwhile nothing is released.
pub enum Ready<'a, T> {
    Kept(&'a T),
    Lent(Loan<'a, T>),
}

impl<T> Deref for Ready<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        match self {
            Self::Kept(value) => value,
            Self::Lent(value) => value,
        }
    }
}

/// What an initialiser works with.
pub struct Init {
    name: &'static str,
    depth: usize,
    nested: Mutex<Duration>,
}

impl Init {
    /// A component that this one is built on, initialised now if it is not. Blocks.
    pub fn need<T: Send + Sync + 'static>(&self, other: &Component<T>) -> Result<Arc<T>, Unready> {
        let since = Instant::now();
        let got = other.wait_as(|| Payer { by: format!("component {}", self.name), depth: self.depth + 1 });
        *lock(&self.nested) += since.elapsed();
        got
    }
}

impl<T: Send + Sync + 'static> Component<T> {
    pub(super) fn new(
        name: &'static str,
        releasable: bool,
        initialise: Initialiser<T>,
        table: Arc<Table>,
    ) -> (Self, Arc<dyn Entry>) {
        let slot = if releasable {
            let idle_since = Mutex::new(table.book.began);
            Slot::Released { value: Lent::default(), used: AtomicBool::new(false), idle_since }
        } else {
            Slot::Kept(OnceLock::new())
        };
        let (flight, record) = (Mutex::new(Flight::None), Mutex::default());
        let shared = Arc::new(Shared { name, slot, flight, initialise, record, table });
        (Self(Arc::clone(&shared)), shared)
    }

    pub fn name(&self) -> &'static str {
        self.0.name
    }

    /// The value, if it is there. This is the check on the hot path: it waits for nothing and initialises nothing.
    #[inline]
    pub fn ready(&self) -> Option<Ready<'_, T>> {
        match &self.0.slot {
            Slot::Kept(value) => value.get().map(|value| Ready::Kept(&**value)),
            Slot::Released { value, used, .. } => value.get().map(|value| {
                mark(used);
                Ready::Lent(value)
            }),
        }
    }

    /// The value, initialised now if it is not there; `payer` tells who asked, without secrets, and is only called by
    /// the first. Dropping the future does not stop the initialisation.
    pub async fn get(&self, payer: impl FnOnce() -> String) -> Result<Arc<T>, Unready> {
        if let Some(value) = self.0.value() {
            return Ok(value);
        }
        match self.0.join()? {
            Joined::Ready(value) => Ok(value),
            Joined::Wait(outcome) => {
                let _counted = Waiting::new(&self.0.record);
                self.0.landed(outcome).await
            }
            Joined::Start(done, outcome) => {
                self.0.start(Payer { by: payer(), depth: 0 }, done);
                self.0.landed(outcome).await
            }
        }
    }

    /// The same for a thread that may block; the initialiser runs on it. For the command line and for pools.
    pub fn wait(&self, payer: impl FnOnce() -> String) -> Result<Arc<T>, Unready> {
        self.wait_as(|| Payer { by: payer(), depth: 0 })
    }

    fn wait_as(&self, payer: impl FnOnce() -> Payer) -> Result<Arc<T>, Unready> {
        if let Some(value) = self.0.value() {
            return Ok(value);
        }
        match self.0.join()? {
            Joined::Ready(value) => Ok(value),
            Joined::Start(done, _) => self.0.fly(&payer(), &done),
            Joined::Wait(outcome) => {
                let _counted = Waiting::new(&self.0.record);
                block_on(self.0.landed(outcome))
            }
        }
    }
}

/// Marks as used; written only when it is not, so that cores do not fight for the line.
#[inline]
fn mark(used: &AtomicBool) {
    if !used.load(Relaxed) {
        used.store(true, Relaxed);
    }
}

impl<T: Send + Sync + 'static> Shared<T> {
    fn value(&self) -> Option<Arc<T>> {
        match &self.slot {
            Slot::Kept(value) => value.get().cloned(),
            Slot::Released { value, used, .. } => value.owned().inspect(|_| mark(used)),
        }
    }

    /// Joins the initialisation that runs, or becomes the one who must start it.
    fn join(&self) -> Result<Joined<T>, Unready> {
        let mut flight = lock(&self.flight);
        if let Some(value) = self.value() {
            return Ok(Joined::Ready(value));
        }
        match &*flight {
            Flight::Running(outcome) => return Ok(Joined::Wait(outcome.clone())),
            Flight::BackOff { until, failed } => {
                let left = until.saturating_duration_since(Instant::now());
                if !left.is_zero() {
                    return Err(Unready { retry_after: left, ..failed.clone() });
                }
            }
            Flight::None => {}
        }
        let (done, outcome) = watch::channel(None);
        *flight = Flight::Running(outcome.clone());
        Ok(Joined::Start(done, outcome))
    }

    async fn landed(&self, mut outcome: watch::Receiver<Outcome<T>>) -> Result<Arc<T>, Unready> {
        let landed = outcome.wait_for(Option::is_some).await.map(|value| value.clone());
        landed.ok().flatten().unwrap_or_else(|| Err(self.abandoned()))
    }

    fn abandoned(&self) -> Unready {
        Unready { component: self.name, reason: "its initialisation was abandoned".into(), retry_after: BACK_OFF }
    }

    /// Initialises on a thread of its own, which no requester can cancel and which may compute as long as it needs.
    fn start(self: &Arc<Self>, payer: Payer, done: watch::Sender<Outcome<T>>) {
        let shared = Arc::clone(self);
        let (payer, done) = (Arc::new(payer), Arc::new(done));
        let kept = (Arc::clone(&payer), Arc::clone(&done));
        let thread = thread::Builder::new().name(format!("weir-{}", self.name));
        let started = thread.spawn(move || {
            let _ = shared.fly(&payer, &done);
        });
        if let Err(error) = started {
            let (payer, done) = kept;
            lock(&self.record).begin(&payer.by, payer.depth, self.table.book.now_us());
            let _ = self.land(Err(format!("cannot start a thread: {error}")), &done);
        }
    }

    /// Runs the initialiser on this thread and tells everybody who waits.
    fn fly(&self, payer: &Payer, done: &watch::Sender<Outcome<T>>) -> Result<Arc<T>, Unready> {
        let book = &self.table.book;
        lock(&self.record).begin(&payer.by, payer.depth, book.now_us());
        let init = Init { name: self.name, depth: payer.depth, nested: Mutex::default() };
        let (since, allocated) = (Instant::now(), allocated_bytes());
        let outcome = catch_unwind(AssertUnwindSafe(|| (self.initialise)(&init)));
        let (took, nested) = (since.elapsed(), *lock(&init.nested));
        let bytes = allocated_bytes().wrapping_sub(allocated);
        lock(&self.record).end(took, nested, bytes, book.next_rank());
        let outcome = match outcome {
            Ok(Ok(value)) => Ok(Arc::new(value)),
            Ok(Err(error)) => Err(error.to_string()),
            Err(panic) => Err(format!("it panicked: {}", panic_text(&*panic))),
        };
        self.land(outcome, done)
    }

    /// Keeps the outcome, then tells it: whoever comes now finds it.
    fn land(&self, outcome: Result<Arc<T>, String>, done: &watch::Sender<Outcome<T>>) -> Result<Arc<T>, Unready> {
        let outcome = {
            let mut flight = lock(&self.flight);
            if let Ok(value) = &outcome {
                self.slot.put(Arc::clone(value));
            }
            let mut record = lock(&self.record);
            match outcome {
                Ok(value) => {
                    *flight = Flight::None;
                    (record.state, record.error, record.failures) = (State::Ready, None, 0);
                    record.initialised += 1;
                    Ok(value)
                }
                Err(reason) => {
                    record.failures += 1;
                    let doublings = u32::try_from(record.failures - 1).unwrap_or(u32::MAX).min(16);
                    let retry_after = BACK_OFF.saturating_mul(1 << doublings).min(BACK_OFF_MAX);
                    let failed = Unready { component: self.name, reason: reason.as_str().into(), retry_after };
                    *flight = Flight::BackOff { until: Instant::now() + retry_after, failed: failed.clone() };
                    (record.state, record.error) = (State::Failed, Some(reason));
                    Err(failed)
                }
            }
        };
        if let Err(failed) = &outcome {
            tracing::warn!(component = self.name, reason = &*failed.reason, "initialise a component");
        }
        self.table.announce(&self.row());
        done.send_replace(Some(outcome.clone()));
        outcome
    }
}

impl<T> Slot<T> {
    fn put(&self, value: Arc<T>) {
        match self {
            Self::Kept(slot) => {
                // Set once only: a flight is begun when the slot is empty.
                let _ = slot.set(value);
            }
            Self::Released { value: slot, idle_since, .. } => {
                *lock(idle_since) = Instant::now();
                slot.put(value);
            }
        }
    }
}

impl<T: Send + Sync + 'static> Entry for Shared<T> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn row(&self) -> Row {
        Row::new(self.name, lock(&self.record).clone())
    }

    fn warm(self: Arc<Self>) {
        if let Ok(Joined::Start(done, _)) = self.join() {
            self.start(Payer { by: "warm".to_owned(), depth: 0 }, done);
        }
    }

    fn can_warm(&self) -> bool {
        true
    }

    fn release_idle(&self, limit: Duration) {
        let Slot::Released { value, used, idle_since } = &self.slot else { return };
        // Who does not find the value while it is being taken waits here, and looks again.
        let flight = lock(&self.flight);
        let mut idle_since = lock(idle_since);
        // Somebody owns the value beside its place and this look, or used it since the last.
        let held = value.owned().is_some_and(|value| Arc::strong_count(&value) > 2);
        if used.swap(false, Relaxed) || held {
            *idle_since = Instant::now();
        } else if idle_since.elapsed() >= limit
            && let Some(value) = value.take()
        {
            let mut record = lock(&self.record);
            record.state = State::Cold;
            record.released += 1;
            drop((record, flight));
            tracing::info!(component = self.name, "released an idle component");
            drop(value);
        }
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}

/// Waits for a future that needs no runtime.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(thread::current())).into();
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(value) => return value,
            Poll::Pending => thread::park(),
        }
    }
}
