//! `GET /metrics`: what the parts of the server count, as Prometheus or OpenMetrics text.

use super::{Answer, text_of};
use crate::http::problem::Problem;
use crate::http::state::Edge;
use crate::live::{State as StreamState, Status};
use crate::observe::exposition::{self, Figure, Format};
use axum::Router;
use axum::extract::State;
use axum::routing::get;
use http::HeaderMap;
use http::header::{ACCEPT, VARY};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The routes of this family.
pub(super) fn routes() -> Router<Arc<Edge>> {
    Router::new().route("/metrics", get(metrics))
}

/// OpenMetrics for who asks for it, else the older text: what `curl` and a browser show.
async fn metrics(State(edge): State<Arc<Edge>>, headers: HeaderMap) -> Answer {
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let format = format_for(accepted);
    let text = exposition::render(&edge.metrics, figures(&edge), format);
    let text = text.map_err(|_| Problem::unavailable("the metrics could not be rendered", 1))?;
    let mut response = text_of(text, format.content_type())?;
    response.headers_mut().insert(VARY, http::HeaderValue::from_static("accept"));
    Ok(response)
}

/// The format with the highest weight (RFC 9110 §12.5.1); Prometheus sends both.
fn format_for<'a>(accepted: impl Iterator<Item = &'a str>) -> Format {
    let (mut open_metrics, mut text) = (0.0, 0.0);
    for range in accepted.flat_map(|line| line.split(',')) {
        let mut parameters = range.split(';').map(str::trim);
        let kind = parameters.next().unwrap_or_default().to_ascii_lowercase();
        let weight = parameters.find_map(|parameter| parameter.strip_prefix("q="));
        let weight = weight.map_or(1.0, |q| q.parse::<f32>().unwrap_or(0.0));
        match kind.as_str() {
            "application/openmetrics-text" => open_metrics = weight.max(open_metrics),
            "text/plain" | "text/*" => text = weight.max(text),
            _ => {}
        }
    }
    if open_metrics > 0.0 && open_metrics >= text { Format::OpenMetrics } else { Format::Prometheus }
}

/// Figures of the parts that keep their own count.
pub(super) fn figures(edge: &Edge) -> Vec<Figure> {
    let gauge = |name, help, value: u64| Figure::gauge(name, help, value as f64);
    let counter = |name, help, value: u64| Figure::counter(name, help, value as f64);
    let indexes = edge.library.indexes();
    let mut figures = vec![
        gauge("weir_videos", "Videos in the library", edge.library.catalogue().len() as u64),
        gauge("weir_indexes_open", "Indexes in memory", indexes.open as u64),
        gauge("weir_indexes_bytes", "Size of the indexes in memory", indexes.bytes),
        counter("weir_index_hits", "Requests that found their index in memory", indexes.hits),
        counter("weir_index_misses", "Requests whose index had to be opened or built", indexes.misses),
    ];
    let pools = || std::iter::once(edge.read_pool.load()).chain(pool_loads(edge));
    figures.extend(pools().map(|load| {
        Figure::gauge("weir_pool_busy", "Threads of a pool that run a job", load.busy as f64).of("pool", load.name)
    }));
    figures.extend(pools().map(|load| {
        Figure::gauge("weir_pool_queued", "Jobs that wait for a thread", load.queued as f64).of("pool", load.name)
    }));
    figures.extend(live(edge));
    figures.extend(recordings(edge));
    figures
}

/// The pools beside the one that reads.
pub(super) fn pool_loads(edge: &Edge) -> impl Iterator<Item = crate::store::pool::Load> {
    [edge.plan_pool.load(), edge.recorder.pool()].into_iter().chain(edge.library.pools())
}

/// Of all streams together: their names are the publishers' choice, and no label.
fn live(edge: &Edge) -> Vec<Figure> {
    let streams = edge.streams.list();
    let status: Vec<_> = streams.iter().map(|stream| stream.status()).collect();
    let sum = |of: &dyn Fn(&Status) -> u64| status.iter().map(of).sum::<u64>() as f64;
    let in_state = |state| status.iter().filter(|status| status.state == state).count() as f64;
    let states = [("live", StreamState::Live), ("waiting", StreamState::Waiting), ("ended", StreamState::Ended)];
    let mut figures: Vec<_> = states
        .map(|(name, state)| Figure::gauge("weir_streams", "Live streams", in_state(state)).of("state", name))
        .into();
    let kept = edge.streams.memory().used() as f64;
    figures.extend([
        Figure::gauge("weir_viewers", "Viewers of live streams", sum(&|status| status.viewers())),
        Figure::gauge("weir_window_bytes", "Size of the windows of live streams", sum(&|status| status.window_bytes)),
        Figure::gauge("weir_live_bytes", "Memory of live streams that live_bytes_max bounds", kept),
        // Of the streams that are known; a stream that went takes its counts with it.
        Figure::gauge("weir_viewer_lags", "Times a viewer fell out of its window", sum(&|status| status.lagged)),
        Figure::gauge("weir_live_received_bytes", "Received by the streams there are", sum(&|s| s.received_bytes)),
        Figure::gauge("weir_discontinuities", "Breaks in the streams there are", sum(&|s| s.discontinuities)),
    ]);
    let tapes: Vec<_> = streams.iter().filter_map(|stream| edge.recorder.tape(stream)?.status()).collect();
    let unsynced = tapes.iter().map(|tape| tape.bytes.saturating_sub(tape.synced_bytes)).sum::<u64>() as f64;
    figures.push(Figure::gauge("weir_recordings_unsynced_bytes", "Recorded and not yet synced", unsynced));
    figures
}

/// Of all recordings since the start, and of what publishers sent twice.
fn recordings(edge: &Edge) -> Vec<Figure> {
    let counts = edge.recorder.counts();
    let counter = |name, help, count: &AtomicU64| Figure::counter(name, help, count.load(Relaxed) as f64);
    vec![
        Figure::gauge("weir_recordings", "Recordings that are being written", counts.active.load(Relaxed) as f64),
        counter("weir_recordings_failed", "Recordings that an error stopped or kept from beginning", &counts.failed),
        counter("weir_recorded_bytes", "Bytes that were recorded", &counts.bytes),
        counter("weir_recordings_retired", "Recordings deleted because of their age or their size", &counts.retired),
        counter("weir_recordings_retired_bytes", "Size of the recordings that were deleted", &counts.retired_bytes),
        counter("weir_fragments_again", "Fragments of tracks that came again and were left out", edge.tracks.again()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_the_one_that_is_asked_for() {
        let cases = [
            ("*/*", Format::Prometheus),
            ("", Format::Prometheus),
            ("application/openmetrics-text", Format::OpenMetrics),
            (
                "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.4,*/*;q=0.1",
                Format::OpenMetrics,
            ),
            ("text/plain;version=0.0.4,application/openmetrics-text;q=0.2", Format::Prometheus),
            ("application/openmetrics-text;q=0", Format::Prometheus),
        ];
        for (accept, format) in cases {
            assert_eq!(format_for(std::iter::once(accept)), format, "{accept}");
        }
    }
}
