//! The admin listener: liveness, readiness, metrics. It has a thread and a runtime of its own, so it answers while
//! every media core is busy.

use super::problem::Problem;
use super::state::{Answer, Edge, text_of};
use axum::extract::State;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// 200 as long as the process answers at all.
pub async fn healthz() -> Answer {
    text_of("ok\n", "text/plain; charset=utf-8", "no-store")
}

/// 200 when new viewers are welcome, 503 from the moment the server drains.
pub async fn readyz(State(edge): State<Arc<Edge>>) -> Answer {
    if edge.drain.is_cancelled() {
        return Err(Problem::unavailable("draining: responses in flight are finished, new ones are not begun", 5));
    }
    text_of("ready\n", "text/plain; charset=utf-8", "no-store")
}

/// OpenMetrics text.
pub async fn metrics(State(edge): State<Arc<Edge>>) -> Answer {
    edge.metrics.videos.store(edge.library.catalogue().len() as u64, Relaxed);
    let text = edge.metrics.render().map_err(|_| Problem::unavailable("the metrics could not be rendered", 1))?;
    text_of(text, METRICS_TYPE, "no-store")
}
