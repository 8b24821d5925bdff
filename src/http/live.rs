//! `/live`: publishing, watching, and what there is.

use super::answer::{Answer, Body, Call, empty, json};
use super::live_body::LiveBody;
use super::live_file::{self, FileBody};
use super::problem::Problem;
use super::query::Query;
use super::state::Edge;
use crate::ingest::Intake;
use crate::live::{Init, PublishError, State, Status, Stream, streams};
use crate::media::index::Track;
use crate::media::mp4::arrival::Wrong;
use crate::net::Conn;
use crate::profile::{site, spawned};
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// How far back `at` may reach, in seconds.
pub(super) const BACK_SECONDS_MAX: f64 = 7.0 * 86_400.0;

/// `GET /live`
pub fn list(call: &Call) -> Answer {
    let streams: Vec<Value> = call.edge.streams.list().iter().map(|stream| describe(&call.edge, stream)).collect();
    json(&call.timing, &Value::Array(streams), "no-store")
}

/// `GET /live/{name}`
pub fn one(call: &Call) -> Answer {
    let stream = find(call)?;
    json(&call.timing, &describe(&call.edge, &stream), "no-store")
}

/// `GET /live/{name}/stream`
pub fn stream(call: &Call) -> Answer {
    let stream = find(call)?;
    let query = Query::parse(call.uri.query())?;
    let back = query.decimal_in("at", -BACK_SECONDS_MAX..=0.0)?;
    let content_type = stream.status().init.as_deref().map_or("video/mp4", Init::content_type);
    let mut response = Response::new(Body::Empty);
    if call.method == http::Method::GET {
        *response.body_mut() = body(call, &stream, back.map(|seconds| (-seconds * 1e6) as i64));
    }
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// What a viewer gets. One that goes back further than the memory gets what was recorded, and the rest behind it.
fn body(call: &Call, stream: &Arc<Stream>, back_us: Option<i64>) -> Body {
    let recorded = back_us.and_then(|back_us| {
        let readable_from = live_file::readable(&call.edge, stream).last().map(|span| span.range.start)?;
        stream.rewind(back_us, readable_from)
    });
    if let Some((from, init)) = recorded {
        return Body::LiveFile(Box::new(FileBody::of_one_coding(call, Arc::clone(stream), from, init.bytes())));
    }
    let merge = call.edge.config.merge_write.0;
    Body::Live(Box::new(LiveBody::new(stream.view(back_us), Arc::clone(&call.conn), merge)))
}

/// `PUT, POST /live/{name}`
pub async fn publish(call: Call) -> Answer {
    let conn = Arc::clone(&call.conn);
    undisturbed(conn, receive(call)).await
}

/// Receives in a task of its own: a publisher that closes right behind its last byte cancels the request, and what it
/// sent in time must still be read.
pub(super) async fn undisturbed(conn: Arc<Conn>, receiving: impl Future<Output = Answer> + Send + 'static) -> Answer {
    let received = tokio::spawn(spawned(site!("publish"), receiving)).await;
    let answer = received.unwrap_or_else(|_| Err(Problem::unavailable("the publication was given up", 1)));
    if answer.is_err() {
        conn.linger();
    }
    answer
}

async fn receive(mut call: Call) -> Answer {
    call.authorize_publisher()?;
    let name = name(&call)?.to_owned();
    let edge = Arc::clone(&call.edge);
    let mut intake = Intake::new(&edge.streams, Arc::clone(&call.conn.traffic), name.clone(), call.conn.peer);
    while let Some(bytes) = next(&mut call).await? {
        intake.push(bytes).await.map_err(publish_problem)?;
    }
    intake.end().await.map_err(publish_problem)?;
    stored(&call, &name).await;
    Ok(empty(StatusCode::OK))
}

/// The next bytes of a publisher. Streams end when the server drains: who has nothing to send would only hold it up.
pub(super) async fn next(call: &mut Call) -> Result<Option<Bytes>, Problem> {
    let edge = Arc::clone(&call.edge);
    tokio::select! {
        biased;
        bytes = call.next_bytes() => bytes,
        () = edge.drain.cancelled() => Err(Problem::unavailable("the server stops; publish again when it is back", 5)),
    }
}

/// Who ended a stream is answered when its recording is a video, if that does not take long.
pub(super) async fn stored(call: &Call, name: &str) {
    const PATIENCE: Duration = Duration::from_secs(10);
    if call.edge.streams.get(name).is_none_or(|stream| stream.extent().1) {
        // A probe, while another publishes.
        return;
    }
    let _ = tokio::time::timeout(PATIENCE, call.edge.recorder.finished(name)).await;
}

/// `DELETE /live/{name}`
pub async fn end(call: &Call) -> Answer {
    call.authorize()?;
    let name = name(call)?;
    call.edge.tracks.flush(name).await;
    if call.edge.streams.end(name) {
        stored(call, name).await;
        Ok(empty(StatusCode::NO_CONTENT))
    } else {
        Err(Problem::not_found("there is no live stream with this name; /live lists them"))
    }
}

pub(super) fn publish_problem(error: PublishError) -> Problem {
    let text = error.to_string();
    match error {
        PublishError::Busy | PublishError::TakenOver | PublishError::Ended => Problem::conflict(text),
        PublishError::TooMany { .. } => Problem::unavailable(text, 30),
        PublishError::Broken(broken) => match broken.kind {
            Wrong::Format => Problem::unsupported_media_type(format!("{text}; send fragmented MP4 or MPEG-TS")),
            Wrong::NoInit => Problem::precondition_failed(text),
            Wrong::Broken => Problem::bad_request(text),
            Wrong::TooLarge { limit } => Problem::content_too_large(format!("{text}; send shorter fragments"), limit),
        },
    }
}

pub(super) fn name(call: &Call) -> Result<&str, Problem> {
    let name = call.uri.path().split('/').nth(2).unwrap_or_default();
    if !streams::is_name(name) {
        return Err(Problem::bad_request(streams::NAME_RULE));
    }
    Ok(name)
}

pub(super) fn find(call: &Call) -> Result<Arc<Stream>, Problem> {
    let missing = || Problem::not_found("there is no live stream with this name; /live lists them");
    call.edge.streams.get(name(call)?).ok_or_else(missing)
}

fn describe(edge: &Edge, stream: &Arc<Stream>) -> Value {
    let status = stream.status();
    let seconds = |us: Option<i64>| us.map(|us| us as f64 / 1e6);
    let state = match status.state {
        State::Live => "live",
        State::Waiting => "waiting",
        State::Ended => "ended",
    };
    let readable = live_file::readable(edge, stream);
    let first_byte = status.first_byte.map(|first| readable.first().map_or(first, |span| span.range.start));
    let publisher = status
        .publisher
        .as_ref()
        .map(|publisher| json!({ "address": publisher.address.to_string(), "since": rfc3339(publisher.since) }));
    json!({
        "name": stream.name(),
        "state": state,
        "container": status.init.as_deref().map(Init::container),
        "tracks": tracks(&status),
        "window": {
            "from": seconds(status.from_us), "to": seconds(status.to_us), "bytes": status.window_bytes,
            "first_byte": first_byte, "last_byte": status.last_byte,
        },
        "publisher": publisher,
        "viewers": status.viewers(),
        "body_viewers": status.body_viewers,
        "hls_viewers": status.hls_viewers,
        "lagged": status.lagged,
        "discontinuities": status.discontinuities,
        "received_bytes": status.received_bytes,
        "recording": recording(edge, stream),
        "links": {
            "stream": format!("/live/{}/stream", stream.name()), "file": format!("/live/{}/file", stream.name()),
            "hls": format!("/live/{}/index.m3u8", stream.name()),
        },
    })
}

/// What is known and measured of each track.
fn tracks(status: &Status) -> Value {
    let of = |mut track: Track| {
        let rates = status.rates.iter().find(|rates| rates.track == track.id);
        track.frame_rate = track.frame_rate.or_else(|| rates.and_then(|rates| rates.rate));
        let mut value = super::videos::describe_track(&track);
        if let Some(fields) = value.as_object_mut() {
            // Of a stream that goes on there is no count.
            ["variable_frame_rate", "frames", "keyframes", "samples"].iter().for_each(|key| drop(fields.remove(*key)));
        }
        value["bits_per_second"] = json!(rates.map(|rates| rates.bits_per_second));
        value
    };
    status.init.as_deref().map_or_else(Vec::new, Init::tracks).into_iter().map(of).collect()
}

/// The newest recording of a stream.
fn recording(edge: &Edge, stream: &Arc<Stream>) -> Value {
    let Some(status) = edge.recorder.tape(stream).and_then(|tape| tape.status()) else { return Value::Null };
    json!({
        "video": status.video,
        "bytes": status.bytes,
        "synced_bytes": status.synced_bytes,
        "state": if status.recording { "recording" } else { "stopped" },
        "error": status.error,
    })
}

/// `2026-11-22T15:44:00Z`: an HTTP date has the calendar already.
fn rfc3339(time: SystemTime) -> Option<String> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let date = super::conditional::http_date(time)?;
    // Sun, 22 Nov 2026 15:44:00 GMT
    let month = MONTHS.iter().position(|month| date.get(8..11) == Some(month))? + 1;
    Some(format!("{}-{month:02}-{}T{}Z", date.get(12..16)?, date.get(5..7)?, date.get(17..25)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    #[test]
    fn dates_of_rfc_3339() {
        // date -u -d @1795362240 +%FT%TZ
        assert_eq!(rfc3339(UNIX_EPOCH + Duration::from_secs(1_795_362_240)).as_deref(), Some("2026-11-22T15:44:00Z"));
    }
}
