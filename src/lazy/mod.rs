//! Components: parts of the server that are built at their first use, exactly once, and can tell what that cost.
//!
//! A [`Component`] has a name, an initialiser and a value. Its states are cold, initialising, ready and failed.
//! Whoever uses it first initialises it, on a thread of its own; everybody who comes meanwhile waits for that one
//! run, which goes on when its requester goes away. A failure (a panic is one) is told to all of them with its
//! reason, and the next attempt is made by the first who asks after a back-off. A component may be released when it
//! was idle and comes back at its next use. [`Components`] is the table of all of them; `table` has how it looks,
//! `record` what is written down.
//!
//! An initialiser gets what it needs through [`Init::need`]: only what was added before it, so there are no circles.
//! Does not belong here: what the components are, HTTP words, what is done with the table.

mod component;
mod record;
mod table;
mod tally;
#[cfg(test)]
mod tests;

pub use component::{Component, Init, Ready, Unready};
pub use record::State;
pub use table::{Components, HEADER, Row, text};
pub use tally::Tally;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Why an initialiser failed.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Locks whatever a panicking thread may have left: the values behind these locks are valid at every step.
fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn microseconds(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
