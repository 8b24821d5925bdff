//! `/videos/{id}/frame.jpg` and `/videos/{id}/storyboard.jpg`: pictures out of a video; and what every answer that is
//! a picture has in common.
//!
//! The ETag names all that the bytes depend on, so that a condition is answered without decoding anything.

use super::answer::{Answer, Body, Call, empty, header};
use super::chunk::{self, canonical, seek_fields, seek_problem};
use super::conditional::{self, Decision, http_date};
use super::id;
use super::problem::Problem;
use super::query::{Query, QueryError};
use super::videos;
use crate::frame::adjust::Adjust;
use crate::frame::encode::{Format, QUALITY};
use crate::frame::still::{self, Edit, Options};
use crate::frame::{FrameError, Job, storyboard};
use crate::media::index::Position;
use crate::profile::{SpanExt, Stage, site};
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_LOCATION, CONTENT_TYPE, ETAG, HeaderName, LAST_MODIFIED};
use http::{HeaderValue, Method, Response, StatusCode};
use std::sync::Arc;
use std::time::SystemTime;

/// Raised when the same request gives other bytes than before: it is part of the ETag.
const FORMAT: u32 = 1;
const WIDTH_MAX: u64 = 16_384;
/// Tiles of a storyboard along each side.
const TILES_MAX: u64 = 20;
const JPEG: Format = Format::Jpeg { quality: QUALITY };
/// Width of a tile where none is asked for.
const TILE_WIDTH: u64 = 160;

/// `GET, HEAD /videos/{id}/frame.jpg`
pub async fn frame(call: &Call) -> Answer {
    let video = videos::find(call)?;
    let query = Query::parse(call.uri.query())?;
    let (asked, position) = chunk::moment(&query)?;
    let options = options(&query)?;
    let file = videos::open(call, &video).await?;
    let seek = chunk::resolve(call, &video, &file, position).await?;
    let no_picture = || Problem::unprocessable("this video has no picture, so it has no still frames");
    let frame = seek.frame.ok_or_else(no_picture)?;
    let version = videos::version(&video);
    let key = format!("{version}-still.{FORMAT}-{frame}{}", named(&options));
    let location = format!("/videos/{}/frame.jpg?{}{}", id::encode(video.id()), canonical(&seek), spelled(&options));
    let more = vec![(CONTENT_LOCATION, header(location)?), (chunk::MEDIA_SEEK, header(seek_fields(&asked, &seek))?)];
    let picture = Picture {
        etag: header(format!("\"{key}\""))?,
        content_type: options.format.content_type(),
        cache: videos::cache_policy(&video, &query),
        modified: Some(video.modified()),
        more,
    };
    let index = videos::index(call, &video).await?;
    let make = move |job: &Job| still::render(&index, &*file, &Position::Frame(frame), &options, job);
    picture.answer(call, &key, make).await
}

/// `GET, HEAD /videos/{id}/storyboard.jpg`
pub async fn storyboard(call: &Call) -> Answer {
    let video = videos::find(call)?;
    let query = Query::parse(call.uri.query())?;
    let side = |name| Ok::<_, QueryError>(query.u64_in(name, 1..=TILES_MAX)?.unwrap_or(5) as u32);
    let (columns, rows) = (side("columns")?, side("rows")?);
    let width = query.u64_in("width", 1..=1024)?.unwrap_or(TILE_WIDTH) as u32;
    let format = format(&query, JPEG)?;
    let file = videos::open(call, &video).await?;
    let index = videos::index(call, &video).await?;
    let key = format!("{}-board.{FORMAT}-{columns}.{rows}.{width}{}", videos::version(&video), named_format(format));
    let picture = Picture {
        etag: header(format!("\"{key}\""))?,
        content_type: format.content_type(),
        cache: videos::cache_policy(&video, &query),
        modified: Some(video.modified()),
        more: Vec::new(),
    };
    let tiles = storyboard::Tiles { columns, rows, width, format };
    let make = move |job: &Job| storyboard::render(&index, &*file, &tiles, job);
    picture.answer(call, &key, make).await
}

/// `width`, `brightness`, `contrast`, `enhance`, `format`, `quality`.
pub fn options(query: &Query<'_>) -> Result<Options, QueryError> {
    let width = query.u64_in("width", 1..=WIDTH_MAX)?.map(|width| width as u32);
    let enhance = query.decimal_in("enhance", 0.0..=1.0)?.map(|amount| amount as f32);
    Ok(Options { width, edit: Edit { adjust: adjust(query)?, enhance }, format: format(query, JPEG)? })
}

/// `brightness` and `contrast`, if one of them is there.
pub fn adjust(query: &Query<'_>) -> Result<Option<Adjust>, QueryError> {
    let brightness = query.decimal_in("brightness", -1.0..=1.0)?;
    let contrast = query.decimal_in("contrast", -1.0..=1.0)?;
    // Adding 0 makes -0 and 0 one value.
    let value = |value: Option<f64>| value.unwrap_or(0.0) as f32 + 0.0;
    let asked = brightness.is_some() || contrast.is_some();
    Ok(asked.then(|| Adjust { brightness: value(brightness), contrast: value(contrast) }))
}

/// `format` and `quality`; `otherwise` where no format is named.
pub fn format(query: &Query<'_>, otherwise: Format) -> Result<Format, QueryError> {
    let quality = query.u64_in("quality", 1..=100)?.map_or(QUALITY, |quality| quality as u8);
    Ok(match (query.one_of("format", &["jpg", "png"])?, otherwise) {
        (Some("png"), _) | (None, Format::Png) => Format::Png,
        _ => Format::Jpeg { quality },
    })
}

/// Options as part of an ETag: every value, whichever way it was written.
pub fn named(options: &Options) -> String {
    let Options { width, edit, format } = options;
    let mut text = named_format(*format);
    if let Some(width) = width {
        text += &format!("-w{width}");
    }
    if let Some(Adjust { brightness, contrast }) = edit.adjust {
        text += &format!("-b{brightness}-c{contrast}");
    }
    if let Some(amount) = edit.enhance {
        text += &format!("-e{amount}");
    }
    text
}

fn named_format(format: Format) -> String {
    match format {
        Format::Jpeg { quality } => format!("-q{quality}"),
        Format::Png => "-png".to_owned(),
    }
}

/// Options as they stand in a URL.
fn spelled(options: &Options) -> String {
    let mut text = String::new();
    if let Some(width) = options.width {
        text += &format!("&width={width}");
    }
    if let Some(Adjust { brightness, contrast }) = options.edit.adjust {
        text += &format!("&brightness={brightness}&contrast={contrast}");
    }
    if let Some(amount) = options.edit.enhance {
        text += &format!("&enhance={amount}");
    }
    match options.format {
        Format::Jpeg { quality: QUALITY } => text,
        Format::Jpeg { quality } => text + &format!("&quality={quality}"),
        Format::Png => text + "&format=png",
    }
}

/// An answer that is a picture, before the picture is made.
pub struct Picture {
    /// Strong, with its quotes.
    pub etag: HeaderValue,
    pub content_type: &'static str,
    pub cache: HeaderValue,
    pub modified: Option<SystemTime>,
    pub more: Vec<(HeaderName, HeaderValue)>,
}

impl Picture {
    /// Conditions first; then the picture of `key` is made, if it must be. HEAD is answered like GET, without the body.
    pub async fn answer(
        self,
        call: &Call,
        key: &str,
        make: impl FnOnce(&Job) -> Result<Vec<u8>, FrameError> + Send + 'static,
    ) -> Answer {
        let mut response = match conditional::read(&call.headers, self.etag.as_bytes(), self.modified, SystemTime::now)
        {
            Decision::NotModified => empty(StatusCode::NOT_MODIFIED),
            Decision::PreconditionFailed => {
                return Err(Problem::precondition_failed("the picture is not the one that the condition names"));
            }
            Decision::Proceed { .. } => {
                let stills = call.edge.frames.stills.get(|| call.asked()).await?;
                let job = call.edge.frames.job(call.asked());
                let _timed = call.timing.stage(Stage::Render);
                let made = stills.get(key, move || make(&job)).span(site!(Stage::Render.name()));
                let bytes = made.await.map_err(|error| problem(&error))?;
                response(bytes, self.content_type, &call.method)
            }
        };
        let headers = response.headers_mut();
        headers.insert(ETAG, self.etag);
        headers.insert(CACHE_CONTROL, self.cache);
        if let Some(date) = self.modified.and_then(http_date) {
            headers.insert(LAST_MODIFIED, header(date)?);
        }
        headers.extend(self.more);
        Ok(response)
    }
}

/// 200 with the bytes of a picture.
pub fn response(bytes: Bytes, content_type: &'static str, method: &Method) -> Response<Body> {
    let length = bytes.len();
    let mut response = Response::new(if method == Method::HEAD { Body::Empty } else { Body::Text(bytes) });
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    response
}

/// What a picture that could not be made is answered with.
pub fn problem(error: &Arc<FrameError>) -> Problem {
    let text = error.to_string();
    match &**error {
        FrameError::Seek(error) => seek_problem(error),
        FrameError::Unsupported { .. } => Problem::not_implemented(text),
        FrameError::NotAnImage => Problem::unsupported_media_type(text),
        FrameError::Damaged(_) | FrameError::TooLarge(_) | FrameError::Panicked => Problem::unprocessable(text),
        FrameError::Busy { .. } => Problem::unavailable(text, 1),
        FrameError::Unready { retry_after, .. } => Problem::unavailable(text, retry_after.as_secs() + 1),
        FrameError::TooSlow { .. } => Problem::unavailable(text, 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(query: &str) -> Options {
        options(&Query::parse(Some(query)).expect("well-formed")).expect("valid")
    }

    #[test]
    fn every_option_is_in_the_name_and_spelling_is_not() {
        let queries = [
            "",
            "width=320",
            "width=321",
            "brightness=0",
            "brightness=0.1",
            "contrast=0.1",
            "brightness=0.1&contrast=0.1",
            "enhance=0",
            "enhance=0.1",
            "format=png",
            "quality=50",
        ];
        let names: std::collections::HashSet<_> = queries.iter().map(|query| named(&of(query))).collect();
        assert_eq!(names.len(), queries.len());
        assert_eq!(named(&of("brightness=0.10&contrast=-0")), named(&of("brightness=.1&contrast=0")));
        assert_eq!(spelled(&of("quality=85&contrast=.5&width=7")), "&width=7&brightness=0&contrast=0.5");
        for query in ["", "width=320&brightness=-1&contrast=1&enhance=1&format=png", "quality=5"] {
            assert_eq!(of(&spelled(&of(query))), of(query));
        }
    }

    #[test]
    fn what_is_out_of_range_is_refused() {
        for query in
            ["width=0", "width=16385", "brightness=1.1", "contrast=-2", "enhance=-0.1", "quality=0", "format=gif"]
        {
            assert!(options(&Query::parse(Some(query)).expect("well-formed")).is_err(), "{query}");
        }
    }
}
