//! `/debug/bench`: the benchmarks, a run of one, its last result. Text for a terminal, JSON for a tool, a page with
//! bars for a browser.

use super::{Answer, text_of};
use crate::bench::engine::{Event, Stopped};
use crate::bench::job::{self, Jobs, Refused, Request, Turn};
use crate::bench::{Benchmark, Report};
use crate::http::problem::Problem;
use crate::http::query::Query;
use crate::http::state::Edge;
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::routing::get;
use bytes::Bytes;
use http::header::ACCEPT;
use http::{HeaderMap, StatusCode};
use http_body::Frame;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// A run may take this long; what does not fit is not measured.
const BUDGET: Duration = Duration::from_secs(30);
const RETRY_SECONDS: u64 = 10;
const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
const FORMATS: &[&str] = &["text", "json", "html"];

/// The routes of this family.
pub fn routes() -> Router<Arc<Edge>> {
    let not_allowed = async || Problem::method_not_allowed("GET, HEAD, POST");
    Router::new()
        .route("/debug/bench", get(list))
        .route("/debug/bench/{name}", get(last).post(run).fallback(not_allowed))
}

async fn jobs(edge: &Edge, asked: impl FnOnce() -> String) -> Result<Arc<Jobs>, Problem> {
    Ok(edge.benchmarks.get(asked).await?)
}

/// The format asked for; without one a browser gets the page.
fn format<'a>(query: &'a Query<'_>, headers: &HeaderMap) -> Result<&'a str, Problem> {
    let accepts = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let default = if accepts.contains("text/html") { "html" } else { "text" };
    Ok(query.one_of("format", FORMATS)?.unwrap_or(default))
}

/// `GET /debug/bench`
async fn list(State(edge): State<Arc<Edge>>, headers: HeaderMap, RawQuery(query): RawQuery) -> Answer {
    let query = Query::parse(query.as_deref())?;
    let jobs = jobs(&edge, || "GET /debug/bench".to_owned()).await?;
    match format(&query, &headers)? {
        "json" => {
            let list: Vec<Value> = jobs.benchmarks().iter().map(|benchmark| describe(benchmark)).collect();
            text_of(format!("{}\n", Value::from(list)), JSON)
        }
        "html" => text_of(super::bench_page::page(&jobs), HTML),
        _ => {
            let line = |benchmark: &Arc<Benchmark>| format!("{:18}{}\n", benchmark.name, benchmark.question);
            let lines: String = jobs.benchmarks().iter().map(line).collect();
            text_of(lines + "\nPOST /debug/bench/NAME runs one\n", TEXT)
        }
    }
}

fn describe(benchmark: &Benchmark) -> Value {
    let alternatives: Vec<&str> = benchmark.alternatives.iter().map(|alternative| alternative.name).collect();
    let size = &benchmark.size;
    json!({
        "name": benchmark.name,
        "question": benchmark.question,
        "shows": benchmark.shows,
        "alternatives": alternatives,
        "size": { "what": size.what, "default": size.default, "min": size.allowed.start(), "max": size.allowed.end() },
    })
}

/// `GET /debug/bench/{name}`: the last result.
async fn last(
    State(edge): State<Arc<Edge>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Answer {
    let query = Query::parse(query.as_deref())?;
    let jobs = jobs(&edge, || format!("GET /debug/bench/{name}")).await?;
    jobs.find(&name).ok_or_else(|| unknown(&name))?;
    let Some((report, at)) = jobs.last(&name) else {
        return Err(Problem::not_found(format!("{name} has not been measured since the start; POST runs it")));
    };
    let age = at.elapsed().as_secs_f64();
    match format(&query, &headers)? {
        "json" => {
            let mut value = json!(*report);
            value["age_seconds"] = json!((age * 1e3).round() / 1e3);
            text_of(format!("{value}\n"), JSON)
        }
        "html" => text_of(super::bench_page::page(&jobs), HTML),
        _ => text_of(format!("{}  measured {age:.0} s ago\n", report.text()), TEXT),
    }
}

fn unknown(name: &str) -> Problem {
    Problem::not_found(format!("there is no benchmark {name}; GET /debug/bench lists them"))
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        match &refused {
            Refused::Unknown(name) => unknown(name),
            Refused::Invalid { parameter, .. } => {
                Self::unprocessable(refused.to_string()).with("parameter", *parameter)
            }
            Refused::Busy(name) => Self::conflict(refused.to_string()).with("running", name.as_str()),
            Refused::Loaded { .. } | Refused::Thread(_) => Self::unavailable(refused.to_string(), RETRY_SECONDS),
        }
    }
}

/// What is to be run, and whether its outcome is one JSON object.
fn request(query: Option<&str>) -> Result<(Request, bool), Problem> {
    let query = Query::parse(query)?;
    let only = query.get("only").map(str::to_owned);
    let request = Request { loops: query.u64("loops")?, repeat: query.u64("repeat")?, size: query.u64("size")?, only };
    Ok((request, query.one_of("format", &["text", "json"])? == Some("json")))
}

/// `POST /debug/bench/{name}`: text with progress as it comes, or one JSON object at the end.
async fn run(State(edge): State<Arc<Edge>>, Path(name): Path<String>, RawQuery(query): RawQuery) -> Answer {
    // A number that is none is as wrong here as one that is too large.
    let asked = request(query.as_deref());
    let (request, json) = asked.map_err(|problem| Problem { status: StatusCode::UNPROCESSABLE_ENTITY, ..problem })?;
    let jobs = jobs(&edge, || format!("POST /debug/bench/{name}")).await?;
    // The turn is taken first: two that look at the load at once must not both go on.
    let turn = jobs.turn(&name, request, BUDGET)?;
    let turn = turn.unless_loaded(job::load().await, f64::from(edge.config.bench_load_max) / 100.0)?;
    let lines = start(turn, name, json)?;
    if json { whole(lines).await } else { text_of(Body::new(lines), TEXT) }
}

/// What the run says, line by line; the last is the report.
struct Lines(UnboundedReceiver<Result<Bytes, Stopped>>);

fn start(turn: Turn, name: String, quiet: bool) -> Result<Lines, Refused> {
    let (lines, received) = unbounded_channel();
    let (total, about) = turn.expected();
    let began = Instant::now();
    if !quiet {
        let line = format!("{name}: {total} measurements, about {:.0} s\n", about.as_secs_f64());
        let _ = lines.send(Ok(Bytes::from(line)));
    }
    let told = lines.clone();
    let tell = move |event| {
        let text = match event {
            Event::Chosen { alternative, loops } => format!("  {alternative}: {loops} loops\n"),
            Event::Measured { done, total } => format!("  {done} of {total}, {:.1} s\n", began.elapsed().as_secs_f64()),
        };
        if quiet { !told.is_closed() } else { told.send(Ok(Bytes::from(text))).is_ok() }
    };
    turn.spawn(tell, move |outcome: Result<Arc<Report>, Stopped>| {
        let text = |report: Arc<Report>| if quiet { format!("{}\n", json!(*report)) } else { report.text() };
        let _ = lines.send(outcome.map(|report| Bytes::from(text(report))));
    })?;
    Ok(Lines(received))
}

async fn whole(mut lines: Lines) -> Answer {
    let mut last = Bytes::new();
    while let Some(line) = lines.0.recv().await {
        last = line.map_err(|stopped| Problem::unprocessable(stopped.to_string()))?;
    }
    text_of(last, JSON)
}

impl http_body::Body for Lines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|line| {
            let text = |stopped: Stopped| Bytes::from(format!("  stopped: {stopped}\n"));
            line.map(|line| Ok(Frame::data(line.unwrap_or_else(text))))
        })
    }
}
