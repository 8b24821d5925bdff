//! `/debug/pprof/`: what Go's `net/http/pprof` answers, to the header, so that `go tool pprof`, Pyroscope and Parca
//! read Weir as they read a Go program.
//!
//! Errors are text with `X-Go-Pprof: 1`, as there. One status differs: where Go answers 500 because a CPU profile runs
//! already, this is 503 with `Retry-After`.

use super::jobs::{self, JobError};
use super::tasks;
use crate::http::state::Edge;
use crate::lazy::Unready;
use crate::observe::command_line;
use crate::profile::cpu::{self, CpuError, Form, Plan};
use crate::profile::heap::{self, View};
use crate::profile::symbols::Symboliser;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, RawQuery, State};
use axum::response::Redirect;
use axum::routing::get;
use http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Response, StatusCode};
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

const TEXT: &str = "text/plain; charset=utf-8";
/// What Go takes where none is given.
const CPU_SECONDS: u64 = 30;
/// A profile takes at most this long.
pub(super) const SECONDS_MAX: u64 = 60;
const RATE: u32 = 100;
const RATE_MAX: u32 = 1000;
/// Addresses of one question at most.
const ADDRESSES_MAX: usize = 64 << 10;

type Reply = Result<Response<Body>, Refusal>;

/// An error as Go words it.
pub(super) struct Refusal {
    status: StatusCode,
    text: String,
    retry_after: Duration,
}

/// What is busy is asked again after this.
const RETRY_AFTER_BUSY: Duration = Duration::from_secs(5);

impl Refusal {
    fn bad_request(text: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, text: text.into(), retry_after: Duration::ZERO }
    }

    fn busy(text: impl Into<String>) -> Self {
        Self { status: StatusCode::SERVICE_UNAVAILABLE, text: text.into(), retry_after: RETRY_AFTER_BUSY }
    }
}

impl From<JobError> for Refusal {
    fn from(error: JobError) -> Self {
        Self::busy(error.to_string())
    }
}

impl From<Unready> for Refusal {
    fn from(unready: Unready) -> Self {
        Self { retry_after: unready.retry_after, ..Self::busy(unready.to_string()) }
    }
}

impl axum::response::IntoResponse for Refusal {
    fn into_response(self) -> Response<Body> {
        let mut response = answer(format!("{}\n", self.text), TEXT);
        *response.status_mut() = self.status;
        response.headers_mut().insert("x-go-pprof", HeaderValue::from_static("1"));
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            let seconds = self.retry_after.as_millis().div_ceil(1000).max(1);
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(u64::try_from(seconds).unwrap_or(u64::MAX)));
        }
        response
    }
}

fn answer(body: impl Into<Body>, content_type: &'static str) -> Response<Body> {
    let mut response = Response::new(body.into());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A profile as a file.
fn file(profile: Vec<u8>, disposition: &'static str) -> Response<Body> {
    let mut response = answer(profile, "application/octet-stream");
    response.headers_mut().insert(CONTENT_DISPOSITION, HeaderValue::from_static(disposition));
    response
}

/// The routes below `/debug/pprof`.
pub(super) fn routes() -> Router<Arc<Edge>> {
    Router::new()
        .route("/debug/pprof", get(async || Redirect::permanent("/debug/pprof/")))
        .route("/debug/pprof/", get(index))
        .route("/debug/pprof/cmdline", get(cmdline))
        .route("/debug/pprof/profile", get(profile))
        .route("/debug/pprof/symbol", get(symbol_of_query).post(symbol_of_body))
        .route("/debug/pprof/{name}", get(named))
}

/// The parameters of a request, read as Go reads them: the first of a name counts, what is not understood does not.
struct Parameters(String);

impl Parameters {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    /// Not of Go: `format=folded`, the stacks of a flame graph as text.
    fn form(&self) -> Result<Form, Refusal> {
        match self.get("format") {
            None | Some("pprof") => Ok(Form::Pprof),
            Some("folded") => Ok(Form::Folded),
            Some(_) => Err(Refusal::bad_request("format is pprof or folded")),
        }
    }

    fn number(&self, name: &str) -> Option<i64> {
        self.get(name)?.parse().ok()
    }
}

/// `GET /debug/pprof/cmdline`: the arguments, apart at NUL.
async fn cmdline() -> Response<Body> {
    answer(command_line::without_secrets(std::env::args()).join("\0"), TEXT)
}

/// `GET /debug/pprof/profile?seconds=30&hz=100`
async fn profile(State(edge): State<Arc<Edge>>, RawQuery(query): RawQuery) -> Reply {
    let parameters = Parameters(query.unwrap_or_default());
    let seconds = parameters.number("seconds").and_then(|n| u64::try_from(n).ok()).filter(|n| *n > 0);
    let seconds = seconds.unwrap_or(CPU_SECONDS);
    if seconds > SECONDS_MAX {
        return Err(Refusal::bad_request(format!("profile duration exceeds the limit of {SECONDS_MAX} seconds")));
    }
    let rate = parameters.get("hz").or_else(|| parameters.get("rate")).map_or(Ok(RATE), str::parse);
    let rate = rate.ok().filter(|rate| (1..=RATE_MAX).contains(rate));
    let rate = rate.ok_or_else(|| Refusal::bad_request(format!("hz is a whole number from 1 to {RATE_MAX}")))?;
    let plan = Plan { duration: Duration::from_secs(seconds), rate };
    let form = parameters.form()?;
    let symboliser = symboliser(&edge, "profile").await?;
    let taken = jobs::run(move |wanted| cpu::profile(plan, form, &symboliser, || wanted.is_given_up()));
    match taken.await? {
        Ok(profile) if form == Form::Folded => Ok(answer(profile, TEXT)),
        Ok(profile) => Ok(file(profile, "attachment; filename=\"profile\"")),
        Err(error @ (CpuError::Busy | CpuError::System(_))) => {
            Err(Refusal::busy(format!("Could not enable CPU profiling: {error}")))
        }
    }
}

async fn symboliser(edge: &Edge, profile: &str) -> Result<Arc<Symboliser>, Unready> {
    edge.tools.symboliser.get(|| format!("GET /debug/pprof/{profile}")).await
}

/// `GET /debug/pprof/symbol?0x1234+0x5678`
async fn symbol_of_query(State(edge): State<Arc<Edge>>, RawQuery(query): RawQuery) -> Reply {
    symbol(&edge, query.unwrap_or_default()).await
}

/// `POST /debug/pprof/symbol`
async fn symbol_of_body(State(edge): State<Arc<Edge>>, body: Bytes) -> Reply {
    symbol(&edge, String::from_utf8_lossy(&body).into_owned()).await
}

async fn symbol(edge: &Edge, question: String) -> Reply {
    let hex = |word: &str| u64::from_str_radix(word.trim().trim_start_matches("0x"), 16).ok();
    let addresses: Vec<u64> = question.split('+').take(ADDRESSES_MAX).filter_map(hex).collect();
    let (asked, symboliser) = (addresses.clone(), symboliser(edge, "symbol").await?);
    let names = jobs::run(move |_| symboliser.names(asked.into_iter())).await?;
    // Go does not tell how many there are either: the number only says that there are any.
    let mut text = "num_symbols: 1\n".to_owned();
    for address in addresses {
        if let Some(line) = names.get(&address).and_then(|lines| lines.last()) {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{address:#x} {}", line.function);
        }
    }
    Ok(answer(text, TEXT))
}

/// A profile that is a reading of what is, and not taken over time.
#[derive(Clone, Copy)]
enum Reading {
    Heap(View),
    /// What waits for what.
    Tasks,
}

impl Reading {
    fn of(name: &str) -> Option<Self> {
        match name {
            "heap" => Some(Self::Heap(View::InUse)),
            "allocs" => Some(Self::Heap(View::Allocated)),
            "goroutine" => Some(Self::Tasks),
            _ => None,
        }
    }

    /// `attachment; filename="heap"`, of the reading itself and of a difference of two.
    fn dispositions(self) -> [&'static str; 2] {
        match self {
            Self::Heap(View::InUse) => ["attachment; filename=\"heap\"", "attachment; filename=\"heap-delta\""],
            Self::Heap(View::Allocated) => ["attachment; filename=\"allocs\"", "attachment; filename=\"allocs-delta\""],
            Self::Tasks => ["attachment; filename=\"goroutine\"", ""],
        }
    }
}

/// `GET /debug/pprof/heap` and its like: `seconds` for what changes meanwhile, `debug` for text. `gc` is taken and
/// changes nothing: nothing here waits to be collected.
async fn named(State(edge): State<Arc<Edge>>, Path(name): Path<String>, RawQuery(query): RawQuery) -> Reply {
    let unknown = || Refusal { status: StatusCode::NOT_FOUND, ..Refusal::bad_request("Unknown profile") };
    let reading = Reading::of(&name).ok_or_else(unknown)?;
    let parameters = Parameters(query.unwrap_or_default());
    let debug = parameters.number("debug").unwrap_or(0);
    let form = parameters.form()?;
    let Some(seconds) = parameters.get("seconds") else {
        return whole(&edge, reading, debug, form).await;
    };
    let seconds = seconds.parse::<u64>().ok().filter(|seconds| *seconds > 0);
    let Some(seconds) = seconds else {
        return Err(Refusal::bad_request("invalid value for \"seconds\" - must be a positive integer"));
    };
    if debug != 0 {
        return Err(Refusal::bad_request("seconds and debug params are incompatible"));
    }
    if seconds > SECONDS_MAX {
        return Err(Refusal::bad_request(format!("profile duration exceeds the limit of {SECONDS_MAX} seconds")));
    }
    let Reading::Heap(view) = reading else {
        return Err(Refusal::bad_request("\"seconds\" parameter is not supported for this profile type"));
    };
    difference(&edge, reading, view, Duration::from_secs(seconds), form).await
}

async fn whole(edge: &Edge, reading: Reading, debug: i64, form: Form) -> Reply {
    let Reading::Heap(view) = reading else {
        let tasks = tasks::list(edge);
        return Ok(match debug {
            0 => file(tasks::profile(&tasks), reading.dispositions()[0]),
            _ => answer(tasks::text(&tasks, debug), TEXT),
        });
    };
    let symboliser = symboliser(edge, "heap").await?;
    if debug != 0 {
        return Ok(answer(jobs::run(move |_| heap::snapshot().text(&symboliser)).await?, TEXT));
    }
    Ok(match form {
        Form::Folded => answer(jobs::run(move |_| heap::snapshot().folded(view, &symboliser)).await?, TEXT),
        Form::Pprof => {
            let encode = move |_: &_| heap::snapshot().encode(view, Duration::ZERO, &symboliser);
            file(jobs::run(encode).await?, reading.dispositions()[0])
        }
    })
}

async fn difference(edge: &Edge, reading: Reading, view: View, over: Duration, form: Form) -> Reply {
    let symboliser = symboliser(edge, "heap").await?;
    let earlier = jobs::run(|_| heap::snapshot()).await?;
    tokio::time::sleep(over).await;
    let profile = jobs::run(move |_| {
        let (changed, took) = heap::snapshot().since(&earlier);
        match form {
            Form::Pprof => changed.encode(view, took, &symboliser),
            Form::Folded => changed.folded(view, &symboliser).into_bytes(),
        }
    })
    .await?;
    Ok(match form {
        Form::Pprof => file(profile, reading.dispositions()[1]),
        Form::Folded => answer(profile, TEXT),
    })
}

/// `GET /debug/pprof/`
async fn index(State(edge): State<Arc<Edge>>) -> Response<Body> {
    let tasks = tasks::count(&edge).to_string();
    let rows = [
        (
            "goroutine?debug=1",
            tasks.as_str(),
            "Connections, streams, viewers and pools by what they wait for; debug=2: each",
        ),
        ("profile?seconds=5", "", "CPU profile: on-CPU samples of all threads, over the seconds asked for"),
        ("heap?debug=1", "", "Heap profile: a sampling of what is in use, and of what ever was allocated"),
        ("allocs?debug=1", "", "The same, beginning with what ever was allocated"),
        ("cmdline", "", "The command line of this process, its secrets redacted"),
    ];
    let mut page = "<!DOCTYPE html>\n<html lang=\"en\"><head><title>/debug/pprof/</title></head><body>\n\
        <h1>/debug/pprof/</h1>\n<p>Set <code>debug=1</code> as a parameter to have a profile as text.</p>\n<table>\n\
        <tr><th>Count</th><th>Profile</th><th></th></tr>\n"
        .to_owned();
    for (path, count, what) in rows {
        let name = path.split('?').next().unwrap_or_default();
        let _ = writeln!(page, "<tr><td>{count}</td><td><a href=\"{path}\">{name}</a></td><td>{what}</td></tr>");
    }
    page.push_str("</table>\n</body></html>\n");
    answer(page, "text/html; charset=utf-8")
}
