//! `/live/{name}/{track}`: publishing a stream with a request per track, or a request per segment, as encoders name
//! them: ffmpeg's `Streams(video.cmfv)`, DASH-IF's `video/init.mp4` and `video/12.m4s`, `chunk-video-00012.m4s`.

use super::answer::{Answer, Call, empty};
use super::live;
use super::problem::Problem;
use crate::live::streams;
use http::StatusCode;
use http::header::TRANSFER_ENCODING;
use http_body::Body as _;
use std::sync::Arc;

/// Words in the names of files that are not of the track's name.
const WORDS: [&str; 8] = ["init", "header", "chunk", "segment", "seg", "fragment", "frag", "media"];
/// Longest manifest that is taken, and passed over.
const MANIFEST_MAX: u64 = 4 << 20;

/// What an encoder means by a path below its stream.
#[derive(Debug, PartialEq, Eq)]
enum Object {
    Track(String),
    /// Weir writes its own.
    Manifest,
}

/// Reads what stands behind `/live/{name}/`; `None` when that is no name of anything.
fn object(path: &str) -> Option<Object> {
    let path = percent_encoding::percent_decode_str(path).decode_utf8().ok()?;
    if let Some(named) = path.strip_prefix("Streams(") {
        return track(stem(named.strip_suffix(')')?));
    }
    let (directory, file) = path.split_once('/').map_or((None, &*path), |(directory, file)| (Some(directory), file));
    if [".mpd", ".m3u8"].iter().any(|end| file.ends_with(end)) {
        return Some(Object::Manifest);
    }
    match directory {
        Some(directory) => track(directory),
        None => {
            let kept: Vec<&str> = stem(file).split(['-', '_']).filter(|word| !WORDS.contains(word)).collect();
            let is_number = |word: &&str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit());
            // A number that stands behind the name counts segments; one that stands alone is the name.
            let counted = kept.len() > 1 && kept.last().is_some_and(is_number);
            track(&kept[..kept.len() - usize::from(counted)].join("-"))
        }
    }
}

fn track(name: &str) -> Option<Object> {
    streams::is_name(name).then(|| Object::Track(name.to_owned()))
}

/// Without what stands behind the last dot.
fn stem(file: &str) -> &str {
    file.rsplit_once('.').map_or(file, |(stem, _)| stem)
}

fn object_of(call: &Call) -> Result<Object, Problem> {
    let path = call.uri.path().splitn(4, '/').nth(3).unwrap_or_default();
    object(path).ok_or_else(|| {
        let detail = "no track can have this name; put it at /live/{name}/{track}, or a segment at \
                      /live/{name}/{track}/{segment}";
        Problem::not_found(detail)
    })
}

/// `PUT, POST /live/{name}/{track}`
pub async fn publish(call: Call) -> Answer {
    let conn = Arc::clone(&call.conn);
    live::undisturbed(conn, receive(call)).await
}

async fn receive(mut call: Call) -> Answer {
    call.authorize_publisher()?;
    let stream = live::name(&call)?.to_owned();
    let track = match object_of(&call)? {
        Object::Track(track) => track,
        Object::Manifest => return pass_over(&mut call).await,
    };
    let edge = Arc::clone(&call.edge);
    // A body of a known length is a segment. A chunked one may be the whole track.
    let may_end = call.headers.contains_key(TRANSFER_ENCODING);
    let mut intake = None;
    while let Some(bytes) = live::next(&mut call).await? {
        // A probe without a byte publishes nothing.
        let intake = match &mut intake {
            Some(intake) => intake,
            none => {
                let begun = edge.tracks.begin(&stream, &track, &bytes, call.conn.peer).await;
                none.insert(begun.map_err(live::publish_problem)?)
            }
        };
        intake.push(bytes).await.map_err(live::publish_problem)?;
    }
    if let Some(intake) = intake {
        intake.end(may_end).await.map_err(live::publish_problem)?;
        live::stored(&call, &stream).await;
    }
    Ok(empty(StatusCode::OK))
}

async fn pass_over(call: &mut Call) -> Answer {
    let mut left = MANIFEST_MAX;
    if call.body.size_hint().lower() > left {
        return Err(Problem::content_too_large("a manifest of this size", left));
    }
    while let Some(bytes) = call.next_bytes().await? {
        let rest = left.checked_sub(bytes.len() as u64);
        left = rest.ok_or_else(|| Problem::content_too_large("a manifest of this size", MANIFEST_MAX))?;
    }
    Ok(empty(StatusCode::OK))
}

/// `DELETE` of a segment that an encoder thinks outdated: Weir keeps what its window holds.
pub fn delete(call: &Call) -> Answer {
    call.authorize_publisher()?;
    object_of(call)?;
    Ok(empty(StatusCode::NO_CONTENT))
}

/// Tracks are only written to.
pub fn missing(call: &Call) -> Answer {
    live::find(call)?;
    Err(Problem::not_found("a track is read with its stream: /live/{name}/stream, /live/{name}/index.m3u8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_encoders() {
        let track = |name: &str| Some(Object::Track(name.to_owned()));
        for (path, expected) in [
            ("video", track("video")),
            ("video1", track("video1")),
            ("1", track("1")),
            ("Streams(video.cmfv)", track("video")),
            ("Streams%28video-1280x720-700k.cmfv%29", track("video-1280x720-700k")),
            ("Streams(x)", track("x")),
            ("Streams(x", None),
            ("Streams(a/b)", None),
            ("video/init.mp4", track("video")),
            ("video/12.m4s", track("video")),
            ("video/..", track("video")),
            ("../12.m4s", None),
            ("%2e%2e/12.m4s", None),
            ("index.m3u8/12.m4s", None),
            ("video/a/b.m4s", track("video")),
            // ffmpeg -f dash
            ("init-stream0.m4s", track("stream0")),
            ("chunk-stream0-00012.m4s", track("stream0")),
            ("manifest.mpd", Some(Object::Manifest)),
            ("video/live.m3u8", Some(Object::Manifest)),
            ("video_init.mp4", track("video")),
            ("video_12.m4s", track("video")),
            ("init.mp4", None),
            ("", None),
            ("%ff", None),
        ] {
            assert_eq!(object(path), expected, "{path}");
        }
    }
}
