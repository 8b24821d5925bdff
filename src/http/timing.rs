//! Where an answer's time went, for its `Server-Timing` header (W3C Server Timing). The histograms of
//! `/metrics` are fed here, too; without the header that is all that is done.

use crate::observe::latency;
use crate::profile::Stage;
use crate::profile::clock::Stopwatch;
use http::HeaderValue;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// A stage that was not passed; it is not told.
const UNUSED: u64 = u64::MAX;

/// The times of one request, in nanoseconds; `None` where nobody asked for them.
#[derive(Clone)]
pub struct Timing(Option<Arc<[AtomicU64; Stage::ALL.len()]>>);

impl Timing {
    pub fn new(on: bool) -> Self {
        Self(on.then(|| Arc::new([const { AtomicU64::new(UNUSED) }; Stage::ALL.len()])))
    }

    /// Counts the time until the result is dropped, here and in the histogram of the stage.
    pub fn stage(&self, stage: Stage) -> Running<'_> {
        Running { timing: self, stage, since: Stopwatch::start() }
    }

    /// Counts what was timed elsewhere, as [`Timing::stage`] does.
    pub fn passed(&self, stage: Stage, ns: u64) {
        latency::observe(stage, ns);
        if let Some(of_request) = self.0.as_deref().map(|stages| &stages[stage as usize]) {
            // A stage that is passed twice is told as one.
            let before = of_request.load(Relaxed);
            let before = if before == UNUSED { 0 } else { before };
            of_request.store(before.saturating_add(ns).min(UNUSED - 1), Relaxed);
        }
    }

    /// `lookup;dur=0.002, open;dur=0.031, total;dur=0.050`, in milliseconds.
    pub fn header(&self, total: Duration) -> Option<HeaderValue> {
        let stages = self.0.as_deref()?;
        let mut text = String::new();
        for (name, ns) in Stage::ALL.iter().zip(stages).map(|(stage, ns)| (stage.name(), ns.load(Relaxed))) {
            if ns != UNUSED {
                // Writing to a String cannot fail.
                let _ = write!(text, "{name};dur={:.3}, ", ns as f64 / 1e6);
            }
        }
        let _ = write!(text, "total;dur={:.3}", total.as_secs_f64() * 1e3);
        HeaderValue::try_from(text).ok()
    }
}

/// A stage that is being timed.
pub struct Running<'a> {
    timing: &'a Timing,
    stage: Stage,
    since: Stopwatch,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.timing.passed(self.stage, self.since.ns());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_stages_that_were_passed_are_told() {
        let timing = Timing::new(true);
        drop(timing.stage(Stage::Open));
        let text = timing.header(Duration::from_micros(1500)).expect("on");
        let text = text.to_str().expect("ASCII");
        assert!(text.starts_with("open;dur=0.0") && text.ends_with(", total;dur=1.500"), "{text}");
        assert!(!text.contains("slice"), "{text}");
    }

    #[test]
    fn off_it_says_nothing() {
        let timing = Timing::new(false);
        drop(timing.stage(Stage::Open));
        assert!(timing.header(Duration::ZERO).is_none());
    }
}
