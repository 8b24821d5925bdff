//! `/videos/{id}/chunk` and `/videos/{id}/seek`: a run of bytes, by byte offset or by moment.

use super::answer::{Answer, Call, header, json};
use super::id;
use super::problem::Problem;
use super::query::{Query, QueryError, invalid};
use super::representation::{Content, Representation};
use super::videos::{self, seconds};
use crate::library::Video;
use crate::media::index::{Position, Seek, SeekError};
use crate::media::time::{DecimalTime, Label};
use crate::profile::{SpanExt, Stage, site};
use crate::store::MappedFile;
use http::HeaderValue;
use http::header::{CONTENT_LOCATION, HeaderName};
use serde_json::{Value, json};
use std::borrow::Borrow;
use std::ops::Range;
use std::sync::Arc;

/// `size` when none is given: the chunk of the book.
pub const DEFAULT_SIZE_BYTES: u64 = 20 << 20;

pub const MEDIA_SEEK: HeaderName = HeaderName::from_static("media-seek");
pub const MEDIA_SOURCE_RANGE: HeaderName = HeaderName::from_static("media-source-range");

/// Where a chunk begins, as asked.
enum Start {
    Offset(u64),
    Moment { asked: String, position: Position },
}

/// `GET, HEAD /videos/{id}/chunk`
pub async fn chunk(call: &Call) -> Answer {
    let video = videos::find(call)?;
    let query = Query::parse(call.uri.query())?;
    let start = start(&query, &["offset", "timecode", "time", "frame"])?;
    let form = query.one_of("as", &["bytes", "fmp4"])?.unwrap_or("bytes");
    let size = query.u64_in("size", 1..=u64::MAX)?;
    if form == "fmp4" {
        let (asked, position) = start.position()?;
        return super::fmp4::chunk(call, &video, &query, asked, position, size).await;
    }
    if query.get("duration").is_some() {
        return Err(Problem::bad_request("duration goes with as=fmp4; a chunk of plain bytes has a size"));
    }
    let file = videos::open(call, &video).await?;
    let (offset, seek) = match &start {
        Start::Offset(offset) => (*offset, None),
        Start::Moment { position, .. } => {
            let resolving = resolve(call, &video, &file, *position);
            let seek = resolving.span(site!(Stage::Resolve.name())).await?;
            (seek.keyframe.offset, Some(seek))
        }
    };
    let range = clip(offset, size.unwrap_or(DEFAULT_SIZE_BYTES), file.len())?;
    let location = match &seek {
        None => format!("offset={}", range.start),
        Some(seek) => canonical(seek),
    };
    let length = range.end - range.start;
    let base = id::encode(video.id());
    let more = vec![
        (CONTENT_LOCATION, header(format!("/videos/{base}/chunk?{location}&size={length}"))?),
        (MEDIA_SEEK, header(media_seek(&start, seek.as_ref()))?),
        (MEDIA_SOURCE_RANGE, source_range(&range, file.len())?),
    ];
    let etag = format!("\"{}-{:x}-{length:x}\"", videos::version(&video), range.start);
    let representation = Representation {
        content: Content::File(range),
        content_type: videos::content_type(&video),
        etag: header(etag)?,
        modified: Some(video.modified()),
        cache: videos::cache_policy(&video, &query),
        more,
        file,
    };
    representation.answer(call)
}

/// `GET, HEAD /videos/{id}/seek`
pub async fn seek(call: &Call) -> Answer {
    let video = videos::find(call)?;
    let query = Query::parse(call.uri.query())?;
    let (_, position) = moment(&query)?;
    let file = videos::open(call, &video).await?;
    let seek = resolve(call, &video, &file, position).span(site!(Stage::Resolve.name())).await?;
    json(&call.timing, &seek_json(video.id(), &seek), "no-cache")
}

impl Start {
    /// The moment, for what cannot begin at a byte.
    fn position(&self) -> Result<(&str, Position), Problem> {
        match self {
            Self::Moment { asked, position } => Ok((asked, *position)),
            Self::Offset(_) => Err(Problem::bad_request("as=fmp4 begins at a moment: timecode, time or frame")),
        }
    }
}

/// The moment that a query names, and how it was written.
pub fn moment(query: &Query<'_>) -> Result<(String, Position), Problem> {
    let start = start(query, &["timecode", "time", "frame"])?;
    start.position().map(|(asked, position)| (asked.to_owned(), position))
}

/// Exactly one of `names`, checked as far as that goes without the video.
fn start(query: &Query<'_>, names: &'static [&'static str]) -> Result<Start, Problem> {
    let name = query.exactly_one(names)?;
    let text = query.text(name, || format!("write {}", example(name)))?.unwrap_or_default();
    let drop = query.flag("drop")?;
    if drop.is_some() && name != "timecode" {
        return Err(Problem::bad_request("drop says how to read a timecode; it goes with timecode="));
    }
    let position = match name {
        "offset" => return Ok(Start::Offset(query.u64(name)?.unwrap_or_default())),
        "frame" => Position::Frame(query.u64(name)?.unwrap_or_default()),
        "time" => Position::Time(DecimalTime::parse(text).map_err(|e| wrong(name, text, &e))?),
        _ => Position::Timecode { label: Label::parse(text).map_err(|e| wrong(name, text, &e))?, drop },
    };
    Ok(Start::Moment { asked: text.to_owned(), position })
}

fn example(name: &str) -> &'static str {
    match name {
        "offset" | "frame" => "a whole number of at least 0, in digits",
        "time" => "seconds (12.5) or HH:MM:SS.mmm",
        _ => "a label like 01:09:14:28",
    }
}

fn wrong(name: &'static str, text: &str, error: &impl ToString) -> QueryError {
    invalid(name, text, error.to_string())
}

/// Finds a moment in the index: on this core where the tables are at hand, on a pool where the file must be read.
pub async fn resolve(
    call: &Call,
    video: &Arc<Video>,
    file: &Arc<MappedFile>,
    position: Position,
) -> Result<Seek, Problem> {
    let _timed = call.timing.stage(Stage::Resolve);
    let index = videos::index(call, video).await?;
    let found = if index.needs_source() {
        let file = Arc::clone(file);
        let job = call.edge.read_pool.run(move || index.resolve(&*file, &position));
        job.await.map_err(|_| Problem::unprocessable("the media is damaged: it could not be searched"))?
    } else {
        index.resolve(&**file, &position)
    };
    found.map_err(seek_problem)
}

pub fn seek_problem(error: impl Borrow<SeekError>) -> Problem {
    let error = error.borrow();
    let text = error.to_string();
    match error {
        SeekError::Invalid(_) => Problem::bad_request(text),
        SeekError::Outside { first, last, .. } => Problem::outside(text, first.as_str(), last.as_str()),
        SeekError::Unanswerable(_) | SeekError::Damaged(_) => Problem::unprocessable(text),
        SeekError::Unsupported(_) => Problem::not_implemented(text),
        SeekError::Io(error) => videos::io_problem(error),
    }
}

/// The bytes asked for, cut at the end of the file.
fn clip(offset: u64, size: u64, total: u64) -> Result<Range<u64>, Problem> {
    if offset >= total {
        let detail = match total {
            0 => "the video is empty: it has no byte to give".to_owned(),
            _ => format!("offset {offset} is past the end; this video has 0 to {}", total - 1),
        };
        return Err(Problem::outside(detail, 0, total.saturating_sub(1)));
    }
    Ok(offset..offset.saturating_add(size).min(total))
}

/// The spelling under which every way to ask for a moment is one resource.
pub fn canonical(seek: &Seek) -> String {
    match seek.frame {
        Some(frame) => format!("frame={frame}"),
        None => format!("time={}", seek.time),
    }
}

fn media_seek(start: &Start, seek: Option<&Seek>) -> String {
    match (start, seek) {
        (Start::Moment { asked, .. }, Some(seek)) => seek_fields(asked, seek),
        (Start::Offset(offset), _) => format!("offset={offset}"),
        (Start::Moment { .. }, None) => String::new(),
    }
}

/// A dictionary of RFC 9651. Times are strings, since its decimals end at three places.
pub fn seek_fields(asked: &str, seek: &Seek) -> String {
    let mut fields = format!("requested=\"{}\"", asked.replace(['"', '\\'], ""));
    if let Some(rate) = seek.frame_rate {
        fields += &format!(", rate=\"{rate}\", drop=?{}", u8::from(seek.drop_frame));
    }
    if let Some(frame) = seek.frame {
        fields += &format!(", frame={frame}");
    }
    fields += &format!(", time=\"{}\"", seek.time);
    if let Some(timecode) = &seek.timecode {
        fields += &format!(", timecode=\"{timecode}\"");
    }
    fields += &format!(", presentation-time=\"{}\"", seek.presentation_time);
    if let Some(frame) = seek.keyframe.frame {
        fields += &format!(", keyframe-frame={frame}");
    }
    fields + &format!(", keyframe-time=\"{}\", keyframe-offset={}", seek.keyframe.time, seek.keyframe.offset)
}

/// Which bytes of the file a chunk was made of.
pub fn source_range(range: &Range<u64>, total: u64) -> Result<HeaderValue, Problem> {
    header(format!("offset={}, length={}, total={total}", range.start, range.end - range.start))
}

/// The JSON of a resolved moment (docs/api.md).
pub fn seek_json(id: &str, seek: &Seek) -> Value {
    json!({
        "video": id,
        "frame": seek.frame,
        "time": seconds(seek.time),
        "timecode": seek.timecode,
        "frame_rate": seek.frame_rate.map(|rate| rate.to_string()),
        "drop_frame": seek.drop_frame,
        "presentation_time": seconds(seek.presentation_time),
        "keyframe": {
            "frame": seek.keyframe.frame,
            "time": seconds(seek.keyframe.time),
            "timecode": seek.keyframe.timecode,
            "offset": seek.keyframe.offset,
        },
        "sample": { "offset": seek.sample_offset, "size": seek.sample_size },
    })
}
