//! `/debug/profile`: the deterministic profile of a window, of windows that are started and stopped, and of exactly one
//! request.

use super::Answer;
use crate::http::answer::header;
use crate::http::problem::Problem;
use crate::http::query::Query;
use crate::http::state::Edge;
use crate::profile::select::Select;
use crate::profile::snapshot::Profile;
use crate::profile::window::TooMany;
use crate::profile::{WINDOWS, flame, json, pprof, pstats, text, workload};
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::routing::{get, post};
use http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Response, StatusCode};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;

/// Seconds of a window when none are given, and at most.
const SECONDS: f64 = 5.0;
const SECONDS_MAX: f64 = 60.0;
/// Parameters that may be given more than once.
const REPEATED: &[&str] = &["sort", "restrict"];

pub(super) fn routes() -> Router<Arc<Edge>> {
    let only_post = async || Problem::method_not_allowed("POST");
    Router::new()
        .route("/debug/profile", get(window))
        .route("/debug/profile/start", post(start).fallback(only_post))
        .route("/debug/profile/{id}/stop", post(stop).fallback(only_post))
        .route("/debug/profile/runcall", post(super::runcall::runcall).fallback(only_post))
        .route("/debug/profile/workload", post(known_workload).fallback(only_post))
}

/// How a profile is written.
struct Format {
    name: &'static str,
    content_type: &'static str,
    /// A file to keep, with this name.
    file: Option<&'static str>,
    render: Render,
}

/// How its bytes are made.
enum Render {
    At(fn(&Profile, &Select) -> Vec<u8>),
    /// With the component that draws.
    FlameGraph,
}

const FORMATS: &[Format] = &[
    Format {
        name: "text",
        content_type: "text/plain; charset=utf-8",
        file: None,
        render: Render::At(|profile, select| text::render(profile, select).into()),
    },
    Format {
        name: "json",
        content_type: "application/json",
        file: None,
        render: Render::At(|profile, select| json::render(profile, select).into()),
    },
    Format {
        name: "pstats",
        content_type: "application/octet-stream",
        file: Some("weir.pstats"),
        render: Render::At(pstats::render),
    },
    Format {
        name: "pprof",
        content_type: "application/octet-stream",
        file: Some("weir-spans.pb.gz"),
        render: Render::At(|profile, _| pprof::render(profile)),
    },
    Format {
        name: "folded",
        content_type: "text/plain; charset=utf-8",
        file: None,
        render: Render::At(|profile, select| flame::folded(profile, select).into()),
    },
    Format { name: "svg", content_type: "image/svg+xml", file: None, render: Render::FlameGraph },
];

/// What is asked of a profile once it is there.
pub(super) struct Report {
    format: &'static Format,
    select: Select,
}

impl Report {
    pub(super) fn parse(query: Option<&str>) -> Result<Self, Problem> {
        let query = Query::parse_repeated(query, REPEATED)?;
        let name = query.get("format").unwrap_or("text");
        let format = FORMATS.iter().find(|format| format.name == name).ok_or_else(|| {
            let known: Vec<_> = FORMATS.iter().map(|format| format.name).collect();
            Problem::bad_request(format!("format={name:?} is unknown; there are {}", known.join(", ")))
        })?;
        let select = Select::parse(query.iter()).map_err(Problem::bad_request)?;
        Ok(Self { format, select })
    }

    pub(super) async fn answer(&self, edge: &Edge, profile: &Profile) -> Answer {
        let bytes = match self.format.render {
            Render::At(render) => render(profile, &self.select),
            Render::FlameGraph => {
                let renderer = edge.tools.flame.get(|| "GET /debug/profile".to_owned()).await?;
                renderer.svg(profile, &self.select).into()
            }
        };
        let mut response = Response::new(Body::from(bytes));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.format.content_type));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if let Some(file) = self.format.file {
            headers.insert(CONTENT_DISPOSITION, header(format!("attachment; filename=\"{file}\""))?);
        }
        Ok(response)
    }
}

/// `GET /debug/profile?seconds=5`
async fn window(State(edge): State<Arc<Edge>>, RawQuery(query): RawQuery) -> Answer {
    let report = Report::parse(query.as_deref())?;
    let query = Query::parse_repeated(query.as_deref(), REPEATED)?;
    let seconds = query.decimal_in("seconds", 1.0..=SECONDS_MAX)?.unwrap_or(SECONDS);
    let window = WINDOWS.open().map_err(|error| busy(&error))?;
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
    report.answer(&edge, &window.close()).await
}

/// `POST /debug/profile/start`
async fn start() -> Answer {
    let id = WINDOWS.start().map_err(|error| busy(&error))?;
    // Forgotten, it must not keep the spans counting.
    tokio::spawn(async {
        tokio::time::sleep(crate::profile::window::FORGOTTEN_AFTER).await;
        WINDOWS.expire(std::time::Instant::now());
    });
    super::json(StatusCode::CREATED, &serde_json::json!({ "id": id, "stop": format!("/debug/profile/{id}/stop") }))
}

/// `POST /debug/profile/{id}/stop`
async fn stop(State(edge): State<Arc<Edge>>, Path(id): Path<String>, RawQuery(query): RawQuery) -> Answer {
    // A query that is wrong must not cost the window.
    let report = Report::parse(query.as_deref())?;
    let profile = id.parse().ok().and_then(|id| WINDOWS.stop(id));
    let profile = profile.ok_or_else(|| {
        Problem::not_found("no profile with this id is running; POST /debug/profile/start begins one")
    })?;
    report.answer(&edge, &profile).await
}

/// `POST /debug/profile/workload?rounds=10`: the self test; answers with what a profile of it must show.
async fn known_workload(RawQuery(query): RawQuery) -> Answer {
    static RUNNING: Mutex<()> = Mutex::const_new(());
    let query = Query::parse(query.as_deref())?;
    let rounds = query.u64_in("rounds", 1..=workload::ROUNDS_MAX)?.unwrap_or(10);
    let Ok(_alone) = RUNNING.try_lock() else {
        return Err(Problem::unavailable("the workload is running already, and its figures would be twice these", 5));
    };
    workload::run(rounds).await.ok_or_else(|| Problem::unavailable("no thread could be started", 5))?;
    super::json(StatusCode::OK, &workload::expected(rounds))
}

pub(super) fn busy(error: &TooMany) -> Problem {
    Problem::unavailable(error.to_string(), 5)
}
