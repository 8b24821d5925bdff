//! `/videos` and `/videos/{id}`: what there is, as JSON; `/videos/{id}/file`: the bytes.

use super::answer::{Answer, Call, json};
use super::id;
use super::problem::Problem;
use super::query::Query;
use super::representation::{Content, Representation};
use crate::library::{FileError, IndexError, IndexState, NoIndex, Video};
use crate::media::index::{Container, Index, Summary, Track, TrackKind};
use crate::media::time::Seconds;
use crate::profile::{SpanExt, Stage, site, span};
use crate::store::MappedFile;
use http::HeaderValue;
use serde_json::{Value, json};
use std::io;
use std::sync::Arc;

/// A strong ETag tells when a copy is stale, so copies may be kept but must be checked.
const REVALIDATE: HeaderValue = HeaderValue::from_static("public, no-cache");
/// A link with `?v=` names one version of the bytes: it never has to be checked.
const IMMUTABLE: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");

/// `GET /videos`
pub fn list(call: &Call) -> Answer {
    let catalogue = call.edge.library.catalogue();
    let videos: Vec<Value> = catalogue.videos().iter().map(|video| describe(video)).collect();
    json(&call.timing, &Value::Array(videos), "no-cache")
}

/// `GET /videos/{id}`: indexes the video first if that has not happened yet.
pub async fn one(call: &Call) -> Answer {
    let video = find(call)?;
    match call.edge.library.index_for(&video, || call.asked()).await {
        // A file without an index is served by byte range all the same.
        Ok(_) | Err(IndexError::Unsupported(_) | IndexError::Malformed(_)) => {
            json(&call.timing, &describe(&video), "no-cache")
        }
        Err(error) => Err(index_problem(error)),
    }
}

/// `GET, HEAD /videos/{id}/file`
pub async fn file(call: &Call) -> Answer {
    let video = find(call)?;
    let file = open(call, &video).await?;
    let representation = Representation {
        content: Content::File(0..file.len()),
        content_type: content_type(&video),
        etag: etag(&video)?,
        modified: Some(video.modified()),
        cache: cache_policy(&video, &Query::parse(call.uri.query())?),
        more: Vec::new(),
        file,
    };
    representation.answer(call)
}

/// The video of an id, or 404.
pub fn find(call: &Call) -> Result<Arc<Video>, Problem> {
    let _span = span!(Stage::Lookup.name());
    let _timed = call.timing.stage(Stage::Lookup);
    let id = id::of(&call.uri)?;
    call.edge.library.video(&id).ok_or_else(|| Problem::not_found("there is no video with this id; /videos lists them"))
}

/// The mapped file of a video. It is opened at its first use; gone since it was listed is 404.
pub async fn open(call: &Call, video: &Arc<Video>) -> Result<Arc<MappedFile>, Problem> {
    let _timed = call.timing.stage(Stage::Open);
    video.file().span(site!(Stage::Open.name())).await.map_err(|error| match error {
        FileError::Changed { .. } => Problem::not_found("the video was removed or replaced just now; ask again"),
        FileError::Io { source, .. } => io_problem(&source),
    })
}

/// Immutable if the request names this very version, else to be checked every time.
pub fn cache_policy(video: &Video, query: &Query<'_>) -> HeaderValue {
    if query.get("v").is_some_and(|asked| asked == version(video)) { IMMUTABLE } else { REVALIDATE }
}

/// The ETag as a header; shares the video's bytes.
fn etag(video: &Video) -> Result<HeaderValue, Problem> {
    HeaderValue::from_maybe_shared(video.etag_bytes()).map_err(|_| Problem::not_found("the video has no ETag"))
}

/// The ETag without its quotes.
pub fn version(video: &Video) -> &str {
    video.etag().trim_matches('"')
}

/// By extension; what is in the file (codecs) is told by the index once it is there.
pub fn content_type(video: &Video) -> HeaderValue {
    let extension = video.id().rsplit_once('.').map_or("", |(_, extension)| extension);
    let found = CONTENT_TYPES.iter().find(|(known, _)| known.eq_ignore_ascii_case(extension));
    found.map_or(HeaderValue::from_static("application/octet-stream"), |(_, content_type)| content_type.clone())
}

/// Extensions, and what they are sent as; checked and made once, when Weir is compiled.
static CONTENT_TYPES: [(&str, HeaderValue); 22] = [
    ("mp4", HeaderValue::from_static("video/mp4")),
    ("m4v", HeaderValue::from_static("video/mp4")),
    ("cmfv", HeaderValue::from_static("video/mp4")),
    ("m4s", HeaderValue::from_static("video/mp4")),
    ("m4a", HeaderValue::from_static("audio/mp4")),
    ("cmfa", HeaderValue::from_static("audio/mp4")),
    ("mov", HeaderValue::from_static("video/quicktime")),
    ("ts", HeaderValue::from_static("video/mp2t")),
    ("m2ts", HeaderValue::from_static("video/mp2t")),
    ("mts", HeaderValue::from_static("video/mp2t")),
    ("m2t", HeaderValue::from_static("video/mp2t")),
    ("webm", HeaderValue::from_static("video/webm")),
    ("mkv", HeaderValue::from_static("video/x-matroska")),
    ("mp3", HeaderValue::from_static("audio/mpeg")),
    ("jpg", HeaderValue::from_static("image/jpeg")),
    ("jpeg", HeaderValue::from_static("image/jpeg")),
    ("png", HeaderValue::from_static("image/png")),
    ("json", HeaderValue::from_static("application/json")),
    ("txt", HeaderValue::from_static("text/plain; charset=utf-8")),
    ("md", HeaderValue::from_static("text/plain; charset=utf-8")),
    ("m3u8", HeaderValue::from_static("application/vnd.apple.mpegurl")),
    ("vtt", HeaderValue::from_static("text/vtt")),
];

/// The JSON of one video (docs/api.md).
pub fn describe(video: &Video) -> Value {
    let state = video.index_state();
    let (word, reason) = match &state {
        IndexState::Pending => ("pending", None),
        IndexState::Ready(_) => ("ready", None),
        IndexState::None(NoIndex::Unsupported(reason) | NoIndex::Malformed(reason)) => ("none", Some(reason)),
    };
    let summary = if let IndexState::Ready(summary) = &state { Some(&**summary) } else { None };
    let mut value = summary_json(video.id(), video.size_bytes(), summary);
    value["index"] = json!(word);
    if let Some(reason) = reason {
        value["index_error"] = json!(reason);
    }
    value["links"] = links(video.id(), Some(version(video)), summary.is_some());
    value
}

/// The JSON of a file with an index, as it would be served from the root of a library; `weir inspect --json` prints it.
pub fn describe_file(id: &str, size_bytes: u64, summary: &Summary) -> Value {
    let mut value = summary_json(id, size_bytes, Some(summary));
    value["index"] = json!("ready");
    value["links"] = links(id, None, true);
    value
}

fn links(id: &str, version: Option<&str>, is_indexed: bool) -> Value {
    let base = format!("/videos/{}", id::encode(id));
    let version = version.map(|version| format!("?v={version}")).unwrap_or_default();
    let mut links = json!({ "self": base, "file": format!("{base}/file{version}"), "chunk": format!("{base}/chunk") });
    if is_indexed {
        links["seek"] = json!(format!("{base}/seek"));
    }
    links
}

/// What a file is, without what the server adds.
fn summary_json(id: &str, size_bytes: u64, summary: Option<&Summary>) -> Value {
    let mut value = json!({ "id": id, "size_bytes": size_bytes });
    value["duration"] = summary.and_then(|s| s.duration).map_or(Value::Null, seconds);
    if let Some(summary) = summary {
        let video_track = summary.tracks.iter().find(|t| t.kind == TrackKind::Video);
        value["container"] = json!(container(summary.container));
        value["fragmented"] = json!(summary.fragmented);
        value["frame_rate"] = json!(video_track.and_then(|t| t.frame_rate).map(|rate| rate.to_string()));
        value["start_timecode"] = json!(summary.start_timecode.as_ref().map(|(label, _)| label));
        value["tracks"] = summary.tracks.iter().map(describe_track).collect();
    }
    value
}

fn container(container: Container) -> &'static str {
    match container {
        Container::Mp4 => "mp4",
        Container::Ts => "ts",
    }
}

pub fn describe_track(track: &Track) -> Value {
    let kind = match track.kind {
        TrackKind::Video => "video",
        TrackKind::Audio => "audio",
        TrackKind::Timecode => "timecode",
        TrackKind::Text => "text",
        TrackKind::Other => "other",
    };
    let mut value = json!({ "id": track.id, "kind": kind, "codec": track.codec });
    if track.kind == TrackKind::Video {
        value["width"] = json!(track.width);
        value["height"] = json!(track.height);
        value["frame_rate"] = json!(track.frame_rate.map(|rate| rate.to_string()));
        value["variable_frame_rate"] = json!(track.variable_rate);
        value["frames"] = json!(track.frames);
        value["keyframes"] = json!(track.keyframes);
    } else {
        value["samples"] = json!(track.frames);
    }
    if track.kind == TrackKind::Audio {
        value["sample_rate"] = json!(track.sample_rate);
        value["channels"] = json!(track.channels);
    }
    if let Some(language) = &track.language {
        value["language"] = json!(language);
    }
    value
}

/// Seconds as a JSON number with the digits that `Seconds` prints: six decimals at most.
pub fn seconds(time: Seconds) -> Value {
    // The text has at most 15 significant digits, which a double gives back unchanged.
    time.to_string().parse::<f64>().map_or(Value::Null, |number| json!(number))
}

/// The index of a video, built now if need be.
pub async fn index(call: &Call, video: &Arc<Video>) -> Result<Arc<Index>, Problem> {
    call.edge.library.index_for(video, || call.asked()).await.map_err(index_problem)
}

fn index_problem(error: IndexError) -> Problem {
    match error {
        IndexError::Unsupported(text) => Problem::unprocessable(text),
        IndexError::Malformed(text) => Problem::unprocessable(format!("the file has no usable index: {text}")),
        IndexError::Io(error) => io_problem(&error),
    }
}

/// An I/O error of the library's disk: nothing the client did.
pub fn io_problem(error: &io::Error) -> Problem {
    match error.kind() {
        io::ErrorKind::NotFound => Problem::not_found("the video was removed just now"),
        io::ErrorKind::UnexpectedEof => Problem::unprocessable("the file is shorter than when it was indexed"),
        _ => {
            tracing::error!(%error, "read a video");
            Problem::unavailable("the video cannot be read at the moment", 5)
        }
    }
}
