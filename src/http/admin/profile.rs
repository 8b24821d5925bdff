//! `/debug/profile`: the deterministic profile of a window, and windows that are started and stopped.

use super::Answer;
use crate::http::problem::Problem;
use crate::http::query::Query;
use crate::http::state::Edge;
use crate::profile::select::Select;
use crate::profile::snapshot::Profile;
use crate::profile::window::TooMany;
use crate::profile::{WINDOWS, json, text};
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, RawQuery};
use axum::routing::{get, post};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use std::sync::Arc;
use std::time::Duration;

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
}

/// How a profile is written.
#[derive(Clone, Copy, Debug)]
enum Format {
    Text,
    Json,
}

const FORMATS: &[(&str, Format)] = &[("text", Format::Text), ("json", Format::Json)];

/// What is asked of a profile once it is there.
struct Report {
    format: Format,
    select: Select,
}

impl Report {
    fn parse(query: &Query<'_>) -> Result<Self, Problem> {
        let format = match query.get("format") {
            None => Format::Text,
            Some(name) => {
                FORMATS.iter().find(|(known, _)| *known == name).map(|(_, format)| *format).ok_or_else(|| {
                    let known: Vec<_> = FORMATS.iter().map(|(name, _)| *name).collect();
                    Problem::bad_request(format!("format={name:?} is unknown; there are {}", known.join(", ")))
                })?
            }
        };
        let select = Select::parse(query.iter()).map_err(Problem::bad_request)?;
        Ok(Self { format, select })
    }

    fn answer(&self, profile: &Profile) -> Answer {
        let (body, content_type) = match self.format {
            Format::Text => (text::render(profile, &self.select), "text/plain; charset=utf-8"),
            Format::Json => (json::render(profile, &self.select), "application/json"),
        };
        let mut response = Response::new(Body::from(body));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Ok(response)
    }
}

/// `GET /debug/profile?seconds=5`
async fn window(RawQuery(query): RawQuery) -> Answer {
    let query = Query::parse_repeated(query.as_deref(), REPEATED)?;
    let seconds = query.decimal_in("seconds", 1.0..=SECONDS_MAX)?.unwrap_or(SECONDS);
    let report = Report::parse(&query)?;
    let window = WINDOWS.open().map_err(|error| busy(&error))?;
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
    report.answer(&window.close())
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
async fn stop(Path(id): Path<String>, RawQuery(query): RawQuery) -> Answer {
    let query = Query::parse_repeated(query.as_deref(), REPEATED)?;
    // A query that is wrong must not cost the window.
    let report = Report::parse(&query)?;
    let profile = id.parse().ok().and_then(|id| WINDOWS.stop(id));
    report.answer(&profile.ok_or_else(|| {
        Problem::not_found("no profile with this id is running; POST /debug/profile/start begins one")
    })?)
}

fn busy(error: &TooMany) -> Problem {
    Problem::unavailable(error.to_string(), 5)
}
