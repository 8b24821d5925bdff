//! Windows: what is profiled from when to when. Each is the difference of two snapshots, so any number may be open at
//! once and none disturbs another; how many is bounded, and one that is forgotten ends by itself.

use super::snapshot::{Profile, Snapshot};
use super::switch::Hold;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Windows open at the same time, of all kinds.
pub const WINDOWS_MAX: usize = 32;
/// A started window that nobody stops ends after this time.
pub const FORGOTTEN_AFTER: Duration = Duration::from_secs(15 * 60);

/// A window that is open; dropped, nothing is reported.
pub struct Window {
    start: Snapshot,
    windows: &'static Windows,
    /// Spans count from before the first reading to after the last.
    _hold: Hold,
}

impl Window {
    /// What happened up to now; the window stays open.
    pub fn so_far(&self) -> Profile {
        Profile::between(&self.start, &Snapshot::take())
    }

    pub fn close(self) -> Profile {
        self.so_far()
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        self.windows.lock().open -= 1;
    }
}

/// Those that are open.
pub static WINDOWS: Windows = Windows { state: Mutex::new(State { open: 0, next_id: 1, started: BTreeMap::new() }) };

pub struct Windows {
    state: Mutex<State>,
}

struct State {
    open: usize,
    next_id: u64,
    /// Those that are stopped by their id.
    started: BTreeMap<u64, (Instant, Window)>,
}

/// Too many windows are open.
#[derive(Debug, thiserror::Error)]
#[error("{WINDOWS_MAX} profiles are running already, as many as may; wait for one to end")]
pub struct TooMany;

impl Windows {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Opens a window that its holder closes.
    pub fn open(&'static self) -> Result<Window, TooMany> {
        self.expire(Instant::now());
        let mut state = self.lock();
        if state.open >= WINDOWS_MAX {
            return Err(TooMany);
        }
        state.open += 1;
        drop(state);
        let hold = Hold::new();
        Ok(Window { start: Snapshot::take(), windows: self, _hold: hold })
    }

    /// Opens a window that is closed by its id.
    pub fn start(&'static self) -> Result<u64, TooMany> {
        let window = self.open()?;
        let mut state = self.lock();
        let id = state.next_id;
        state.next_id += 1;
        state.started.insert(id, (Instant::now(), window));
        Ok(id)
    }

    /// The profile of a window that was started; `None` if there is none with this id, or no longer.
    pub fn stop(&self, id: u64) -> Option<Profile> {
        self.expire(Instant::now());
        let window = self.lock().started.remove(&id);
        window.map(|(_, window)| window.close())
    }

    /// Ends those that were forgotten.
    pub fn expire(&self, now: Instant) {
        let forgotten = |(since, _): &(Instant, Window)| now.saturating_duration_since(*since) >= FORGOTTEN_AFTER;
        let mut state = self.lock();
        let ids: Vec<u64> = state.started.iter().filter(|(_, window)| forgotten(window)).map(|(id, _)| *id).collect();
        let ended: Vec<_> = ids.iter().filter_map(|id| state.started.remove(id)).collect();
        // Each counts itself out.
        drop(state);
        drop(ended);
    }
}
