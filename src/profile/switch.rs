//! Whether spans count. Off, each span is one relaxed load; on as long as anybody holds it on.

use super::{clock, cost};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

static ON: AtomicBool = AtomicBool::new(false);
/// Ticks when it was turned on last.
static SINCE: AtomicU64 = AtomicU64::new(0);
static HOLDERS: Mutex<usize> = Mutex::new(0);

/// Without the feature `spans` no span is compiled in; `benches/` compares.
#[inline(always)]
pub fn is_on() -> bool {
    cfg!(feature = "spans") && ON.load(Relaxed)
}

/// When the spans began to count.
pub fn on_since() -> u64 {
    SINCE.load(Relaxed)
}

/// Spans count while one of these lives.
#[derive(Debug)]
pub struct Hold(());

impl Hold {
    pub fn new() -> Self {
        change(|holders| {
            if *holders == 0 {
                cost::calibrate();
                clock::choose();
                SINCE.store(clock::now(), Relaxed);
                ON.store(true, Relaxed);
            }
            *holders += 1;
        });
        Self(())
    }
}

impl Default for Hold {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        change(|holders| {
            *holders -= 1;
            if *holders == 0 {
                ON.store(false, Relaxed);
            }
        });
    }
}

fn change(change: impl FnOnce(&mut usize)) {
    change(&mut HOLDERS.lock().unwrap_or_else(|poisoned| poisoned.into_inner()));
}
