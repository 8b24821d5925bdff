//! `chunk?…&as=fmp4`: a chunk that plays on its own. Planned on a pool, its boxes made when they are sent.

use super::answer::{Answer, Call, header};
use super::chunk::{canonical, seek_fields, seek_problem, source_range};
use super::id;
use super::media_body::{Next, Pieces};
use super::problem::Problem;
use super::query::{Query, invalid};
use super::representation::{Content, Plan, Representation};
use super::videos;
use crate::library::Video;
use crate::media::index::{Index, Position, SeekError, Until};
use crate::media::mp4::{Along, Chunk};
use crate::media::slices::Piece;
use crate::media::time::DecimalTime;
use crate::profile::{SpanExt, Stage, site};
use crate::store::{MappedFile, Pool};
use http::header::CONTENT_LOCATION;
use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// Raised when the same plan gives other bytes than before: it is part of the ETag.
const FORMAT: u32 = 4;

/// Answers with the chunk from the keyframe of a moment on.
pub async fn chunk(
    call: &Call,
    video: &Arc<Video>,
    query: &Query<'_>,
    asked: &str,
    position: Position,
    size: Option<u64>,
) -> Answer {
    let duration = query.text("duration", || "seconds, such as 5 or 2.5".to_owned())?;
    let (until, length) = match (size, duration) {
        (Some(_), Some(_)) => return Err(Problem::bad_request("give size or duration, not both")),
        (_, Some(text)) => {
            let duration = DecimalTime::parse(text).map_err(|error| invalid("duration", text, error.to_string()))?;
            if duration.value <= 0 {
                return Err(invalid("duration", text, "a time above 0, in seconds").into());
            }
            (Until::Duration(duration), format!("duration={duration}"))
        }
        (size, None) => {
            let size = size.unwrap_or(super::chunk::DEFAULT_SIZE_BYTES);
            (Until::Size(size), format!("size={size}"))
        }
    };
    let file = videos::open(call, video).await?;
    let index = {
        let _timed = call.timing.stage(Stage::Resolve);
        videos::index(call, video).span(site!(Stage::Resolve.name())).await?
    };
    let planning = {
        let (file, index) = (Arc::clone(&file), Arc::clone(&index));
        call.edge.plan_pool.run(move || index.fmp4(&*file, &position, until, Along::All))
    };
    let timed = call.timing.stage(Stage::Slice);
    let planned = planning.span(site!(Stage::Slice.name())).await;
    drop(timed);
    let planned = planned.map_err(|_| Problem::unprocessable("the media is damaged: it could not be planned"))?;
    let (seek, chunk) = planned.map_err(seek_problem)?;
    let (fingerprint, total) = (chunk.fingerprint(), chunk.length());
    let version = videos::version(video);
    let location = format!("/videos/{}/chunk?{}&{length}&as=fmp4", id::encode(video.id()), canonical(&seek));
    let more = vec![
        (CONTENT_LOCATION, header(location)?),
        (super::chunk::MEDIA_SEEK, header(seek_fields(asked, &seek))?),
        (super::chunk::MEDIA_SOURCE_RANGE, source_range(&chunk.source_range(), file.len())?),
    ];
    let representation = Representation {
        content_type: header(chunk.content_type().to_owned())?,
        etag: header(format!("\"{version}-fmp4.{FORMAT}-{fingerprint:x}-{total:x}\""))?,
        modified: Some(video.modified()),
        cache: videos::cache_policy(video, query),
        content: Content::Planned(Arc::new(Planned { file: Arc::clone(&file), index, chunk })),
        more,
        file,
    };
    representation.answer(call)
}

/// A planned chunk with what it is made from.
struct Planned {
    file: Arc<MappedFile>,
    index: Arc<Index>,
    chunk: Chunk,
}

impl Plan for Planned {
    fn length(&self) -> u64 {
        self.chunk.length()
    }

    fn pieces(self: Arc<Self>, range: Range<u64>) -> Box<dyn Pieces> {
        let parts = self.chunk.parts(&range);
        Box::new(PlannedPieces { planned: self, parts, range })
    }
}

/// The parts of a range of a chunk, one after another.
struct PlannedPieces {
    planned: Arc<Planned>,
    parts: Range<usize>,
    range: Range<u64>,
}

impl Pieces for PlannedPieces {
    fn next(&mut self, pool: &Pool) -> Next {
        let Some(part) = self.parts.next() else { return Next::End };
        let (planned, range) = (Arc::clone(&self.planned), self.range.clone());
        Next::Job(pool.run(move || planned.part(part, &range)))
    }
}

impl Planned {
    fn part(&self, part: usize, range: &Range<u64>) -> io::Result<VecDeque<Piece>> {
        let made = self.index.fmp4_part(&*self.file, &self.chunk, part, range);
        made.map_err(|error| match error {
            SeekError::Io(error) => error,
            other => io::Error::other(other),
        })
    }
}
