//! `GET /debug/tasks`: connections, streams, viewers and pools, and what each waits for. Nothing is stopped or polled
//! for it: every task writes down what it waits for, and this reads it. Also the `goroutine` profile.

use super::metrics::pool_loads;
use super::{Answer, text_of};
use crate::http::query::Query;
use crate::http::state::Edge;
use crate::live::State as StreamState;
use crate::observe::metrics::Route;
use crate::profile::proto::{Label, Profile};
use axum::Router;
use axum::extract::{RawQuery, State};
use axum::routing::get;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// The routes of this family.
pub(super) fn routes() -> Router<Arc<Edge>> {
    Router::new().route("/debug/tasks", get(tasks))
}

/// Something that goes on, and what it waits for.
pub(super) struct Task {
    number: u64,
    /// `connection`, `viewer`, `publisher`, `upload`, `stream`, `recording`, `pool`.
    kind: &'static str,
    /// A peer's address, or a name.
    who: String,
    /// The route of a request, or empty.
    doing: &'static str,
    /// The stream that it is about, or empty.
    stream: String,
    waits_for: &'static str,
    since: Option<Duration>,
}

/// Everything that goes on.
pub(super) fn list(edge: &Edge) -> Vec<Task> {
    let mut tasks: Vec<_> = connections(edge).collect();
    for stream in edge.streams.list() {
        let status = stream.status();
        let waits_for = match status.state {
            StreamState::Live => "its publisher's next bytes",
            StreamState::Waiting => "its publisher to come back",
            StreamState::Ended => "nothing: it has ended",
        };
        let since = status.publisher.and_then(|publisher| publisher.since.elapsed().ok());
        tasks.push(Task::named("stream", stream.name(), waits_for, since));
        if edge.recorder.tape(&stream).and_then(|tape| tape.status()).is_some_and(|status| status.recording) {
            tasks.push(Task::named("recording", stream.name(), "the next part of the stream", None));
        }
    }
    for load in std::iter::once(edge.read_pool.load()).chain(pool_loads(edge)) {
        let waits_for = match (load.busy, load.queued) {
            (0, 0) => "a job",
            (_, 0) => "nothing: it works",
            _ => "a free thread",
        };
        let who = format!("{}: {} busy, {} queued", load.name, load.busy, load.queued);
        tasks.push(Task { who, ..Task::named("pool", load.name, waits_for, None) });
    }
    for (number, task) in tasks.iter_mut().enumerate() {
        task.number = number as u64 + 1;
    }
    tasks
}

fn connections(edge: &Edge) -> impl Iterator<Item = Task> {
    edge.metrics.traffic.connections.list().into_iter().map(|(_, conn)| {
        let (waits_for, since) = conn.waits_for();
        let (route, stream) = conn.served();
        let idle = matches!(waits_for, "a request" | "the rest of a request's head");
        let route = Route::numbered(route).filter(|_| !idle);
        let kind = match (route, waits_for) {
            (Some(Route::LiveBody | Route::LiveFile | Route::LivePlaylist | Route::LiveMedia), _) => "viewer",
            (Some(Route::LiveStream | Route::LiveTrack), "bytes from the client") => "publisher",
            (Some(Route::Video), "bytes from the client") => "upload",
            _ => "connection",
        };
        Task {
            number: 0,
            kind,
            who: conn.peer.to_string(),
            doing: route.map_or("", Route::name),
            stream: stream.filter(|_| route.is_some()).map(|name| name.to_string()).unwrap_or_default(),
            waits_for,
            since: Some(since),
        }
    })
}

impl Task {
    fn named(kind: &'static str, name: &str, waits_for: &'static str, since: Option<Duration>) -> Self {
        Self { number: 0, kind, who: name.to_owned(), doing: "", stream: String::new(), waits_for, since }
    }

    fn json(&self) -> Value {
        json!({
            "kind": self.kind, "who": self.who, "route": self.doing, "stream": self.stream,
            "waits_for": self.waits_for, "seconds": self.since.map(|since| since.as_secs_f64()),
        })
    }

    /// From what it waits for to what it is.
    fn frames(&self) -> [&str; 3] {
        [self.waits_for, self.doing, self.kind]
    }
}

/// A table, or JSON.
async fn tasks(State(edge): State<Arc<Edge>>, RawQuery(query): RawQuery) -> Answer {
    let query = Query::parse(query.as_deref())?;
    let format = query.one_of("format", &["text", "json"])?.unwrap_or("text");
    let tasks = list(&edge);
    if format == "json" {
        let list: Vec<Value> = tasks.iter().map(Task::json).collect();
        return text_of(format!("{}\n", json!({ "tasks": list })), "application/json");
    }
    text_of(table(&tasks), "text/plain; charset=utf-8")
}

fn table(tasks: &[Task]) -> String {
    let mut text = format!("{} tasks\n\n", tasks.len());
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{:<11} {:<28} {:<22} {:<16} {:>10}  waits for", "what", "who", "route", "stream", "for s");
    for task in tasks {
        let since = task.since.map(|since| format!("{:.3}", since.as_secs_f64())).unwrap_or_default();
        let Task { kind, who, doing, stream, waits_for, .. } = task;
        let _ = writeln!(text, "{kind:<11} {who:<28} {doing:<22} {stream:<16} {since:>10}  {waits_for}");
    }
    text
}

/// The `goroutine` profile, for tools that count and compare them: one sample per task.
pub(super) fn profile(tasks: &[Task]) -> Vec<u8> {
    let mut profile = Profile::new(&[("goroutine", "count")], "goroutine");
    profile.taken(SystemTime::now(), Duration::ZERO);
    profile.period(("goroutine", "count"), 1);
    for task in tasks {
        let stack: Vec<_> =
            task.frames().iter().filter(|name| !name.is_empty()).map(|name| profile.named(name, "", 0)).collect();
        let labels = [("who", &task.who), ("stream", &task.stream)].map(|(key, text)| (key, text.clone()));
        let labels: Vec<_> =
            labels.into_iter().filter(|(_, text)| !text.is_empty()).map(|(key, text)| Label::Text(key, text)).collect();
        profile.sample(&stack, &[1], &labels);
    }
    profile.encode()
}

/// `debug=1`: equal ones together, the most first; `debug=2`: each for itself.
pub(super) fn text(tasks: &[Task], debug: i64) -> String {
    let mut text = String::new();
    if debug >= 2 {
        for task in tasks {
            let minutes = task.since.map_or(0, |since| since.as_secs() / 60);
            let long = if minutes > 0 { format!(", {minutes} minutes") } else { String::new() };
            // Writing to a String cannot fail.
            let _ = writeln!(text, "goroutine {} [{}{long}]:", task.number, task.waits_for);
            for name in [task.doing, task.kind].into_iter().filter(|name| !name.is_empty()) {
                let _ = writeln!(text, "{name}(...)\n\t{} {}", task.who, task.stream);
            }
            text.push('\n');
        }
        return text;
    }
    let mut counts: BTreeMap<[&str; 3], usize> = BTreeMap::new();
    for task in tasks {
        *counts.entry(task.frames()).or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let _ = writeln!(text, "goroutine profile: total {}", tasks.len());
    for (frames, count) in counts {
        let _ = writeln!(text, "{count} @");
        for name in frames.into_iter().filter(|name| !name.is_empty()) {
            let _ = writeln!(text, "#\t{name}");
        }
        text.push('\n');
    }
    text
}

/// How many there are.
pub(super) fn count(edge: &Edge) -> usize {
    list(edge).len()
}
