//! `GET /debug/`: one page for a person. Live figures, the top spans, a flame graph in place for each profile, and who
//! waits for what. It needs nothing from elsewhere.

use super::metrics::figures;
use super::{Answer, text_of};
use crate::http::problem::Problem;
use crate::http::state::Edge;
use crate::observe::latency::Reading;
use crate::observe::process::Process;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::Redirect;
use axum::routing::get;
use http::HeaderValue;
use http::header::CONTENT_SECURITY_POLICY;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

const PAGE: &str = include_str!("../../../assets/debug/index.html");
const STYLE: &str = include_str!("../../../assets/debug/debug.css");
const SCRIPT: &str = include_str!("../../../assets/debug/debug.js");

/// The routes of this family.
pub(super) fn routes() -> Router<Arc<Edge>> {
    Router::new()
        .route("/", get(async || Redirect::temporary("/debug/")))
        .route("/debug", get(async || Redirect::permanent("/debug/")))
        .route("/debug/", get(page))
        .route("/debug/debug.css", get(style))
        .route("/debug/debug.js", get(script))
        .route("/debug/figures", get(live_figures))
}

/// What the page is made of, as it is sent.
pub struct Pages {
    page: Bytes,
    style: Bytes,
    script: Bytes,
}

impl Pages {
    pub fn new() -> Self {
        Self {
            page: PAGE.replace("{{version}}", env!("CARGO_PKG_VERSION")).into(),
            style: Bytes::from_static(STYLE.as_bytes()),
            script: Bytes::from_static(SCRIPT.as_bytes()),
        }
    }
}

async fn pages(edge: &Edge, asked: &str) -> Result<Arc<Pages>, Problem> {
    Ok(edge.tools.dashboard.get(|| format!("GET {asked}")).await?)
}

async fn style(State(edge): State<Arc<Edge>>) -> Answer {
    text_of(pages(&edge, "/debug/debug.css").await?.style.clone(), "text/css; charset=utf-8")
}

async fn script(State(edge): State<Arc<Edge>>) -> Answer {
    text_of(pages(&edge, "/debug/debug.js").await?.script.clone(), "text/javascript; charset=utf-8")
}

async fn page(State(edge): State<Arc<Edge>>) -> Answer {
    let page = pages(&edge, "/debug/").await?.page.clone();
    let mut response = text_of(page, "text/html; charset=utf-8")?;
    let policy = HeaderValue::from_static("default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:");
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
    Ok(response)
}

/// What the page polls: counters as they stand, so that it can tell rates.
async fn live_figures(State(edge): State<Arc<Edge>>) -> Answer {
    let (traffic, process) = (&edge.metrics.traffic, Process::read());
    let mut others: Map<String, Value> = Map::new();
    for figure in figures(&edge) {
        let name = match &figure.label {
            Some((_, value)) => format!("{}.{value}", figure.name),
            None => figure.name.to_owned(),
        };
        others.insert(name, json!(figure.value));
    }
    let requests: u64 = edge.metrics.requests().map(|(_, _, count)| count).sum();
    let errors: u64 = edge.metrics.requests().filter(|(_, status, _)| *status >= 500).map(|(_, _, count)| count).sum();
    let routes: Vec<Value> = edge.metrics.durations().filter(|(_, reading)| reading.count() > 0).map(route).collect();
    let busy: Vec<Value> =
        edge.metrics.busy().into_iter().map(|(name, seconds)| json!({ "runtime": name, "seconds": seconds })).collect();
    let value = json!({
        "uptime": edge.metrics.uptime().as_secs_f64(), "cpu": process.cpu_seconds, "rss": process.resident_bytes,
        "threads": process.threads, "files": process.open_files, "connections": traffic.open.load(Relaxed),
        "sent": traffic.sent.load(Relaxed), "copied": traffic.copied.load(Relaxed),
        "received": traffic.received.load(Relaxed), "requests": requests, "errors": errors,
        "draining": edge.drain.is_cancelled(), "busy": busy, "routes": routes, "figures": others,
    });
    text_of(format!("{value}\n"), "application/json")
}

fn route((route, reading): (&'static str, Reading)) -> Value {
    let quantile = |share: f64| {
        let wanted = (reading.count() as f64 * share).ceil() as u64;
        let mut seen = 0;
        let bound = reading.bounds().into_iter().find(|(_, count)| {
            seen += count;
            seen >= wanted
        });
        bound.map(|(bound, _)| bound).filter(|bound| bound.is_finite() && *bound < 1e6)
    };
    json!({
        "route": route, "count": reading.count(), "mean": reading.sum_seconds / reading.count() as f64,
        "p50": quantile(0.5), "p99": quantile(0.99),
    })
}
