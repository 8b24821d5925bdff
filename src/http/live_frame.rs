//! `/live/{name}/frame.jpg`: the newest picture of a live stream, or one that was sent a while ago.
//!
//! The parts from a keyframe on are looked at as the little video that they are. Their numbers, which no other parts
//! of any stream of this name have had, name the picture.

use super::answer::{Answer, Call, header};
use super::frame::{Picture, named, options};
use super::live::{BACK_SECONDS_MAX, find};
use super::problem::Problem;
use super::query::Query;
use crate::frame::still::{self, Options};
use crate::frame::{FrameError, Job};
use crate::live::Group;
use crate::media::index::{BuildError, Index, Position, SeekError, TrackKind};
use crate::media::time::DecimalTime;
use http::HeaderValue;

/// Raised when the same parts give other bytes than before: it is part of the ETag.
const FORMAT: u32 = 1;

/// `GET, HEAD /live/{name}/frame.jpg`
pub async fn frame(call: &Call) -> Answer {
    let stream = find(call)?;
    let query = Query::parse(call.uri.query())?;
    let options = options(&query)?;
    let back = query.decimal_in("at", -BACK_SECONDS_MAX..=0.0)?;
    let group = stream.group(back.map(|seconds| (-seconds * 1e6) as i64));
    let group = group.ok_or_else(|| Problem::unavailable("the stream has no keyframe yet", 1))?;
    let (first, last) = group.numbers();
    let moment = group.moment_us.map_or("newest".to_owned(), |us| us.to_string());
    let run = call.edge.run_id;
    let key = format!("{}-{run:x}-still.{FORMAT}-{first}-{last}-{moment}{}", stream.name(), named(&options));
    let picture = Picture {
        etag: header(format!("\"{key}\""))?,
        content_type: options.format.content_type(),
        cache: HeaderValue::from_static("no-cache"),
        modified: None,
        more: Vec::new(),
    };
    picture.answer(call, &key, move |job| render(&group, &options, job)).await
}

fn render(group: &Group, options: &Options, job: &Job) -> Result<Vec<u8>, FrameError> {
    let most = job.limits.bytes_max;
    if group.bytes() > most {
        let text = format!("the keyframe lies {} bytes back; at most {most} are read", group.bytes());
        return Err(FrameError::TooLarge(text));
    }
    let bytes = group.to_vec();
    let bytes = &&bytes[..];
    let damaged = |text: String| FrameError::Seek(SeekError::Damaged(text));
    let entry = Index::build(bytes).map_err(|error| match error {
        BuildError::Io(error) => FrameError::Seek(SeekError::Io(error)),
        other => damaged(other.to_string()),
    })?;
    let index = Index::open_trusted(entry.into()).map_err(|error| damaged(error.to_string()))?;
    let tracks = &index.summary().tracks;
    let frames = tracks.iter().find(|track| track.kind == TrackKind::Video).map_or(0, |track| track.frames);
    let no_picture = || SeekError::Unanswerable("this stream has no picture, so it has no still frames".to_owned());
    let newest = Position::Frame(frames.checked_sub(1).ok_or_else(no_picture)?);
    let Some(us) = group.moment_us else {
        return still::render(&index, bytes, &newest, options, job);
    };
    let time = format!("{}.{:06}", us / 1_000_000, us % 1_000_000);
    let moment = DecimalTime::parse(&time).map(Position::Time).unwrap_or(newest);
    match still::render(&index, bytes, &moment, options, job) {
        // The last picture is shown until the next one comes.
        Err(FrameError::Seek(SeekError::Outside { .. })) => still::render(&index, bytes, &newest, options, job),
        other => other,
    }
}
