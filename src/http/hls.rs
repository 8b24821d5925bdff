//! LL-HLS: the playlists of a live stream, and the init segments, segments and parts that they name.
//!
//! What is asked for before it is there is waited for: a playlist that has a part, and the part that the playlist says
//! comes next. Source: draft-pantos-hls-rfc8216bis-22 §6.2.5 (blocking reload, delta updates), appendix B (lifetimes).

use super::answer::{Answer, Body, Call, empty, header, text_of};
use super::conditional::{self, Decision};
use super::live;
use super::live_file::{self, FileBody};
use super::problem::Problem;
use super::query::Query;
use super::range::{self, Resolved};
use crate::live::segments::Progress;
use crate::live::{Form, Resource, Stream};
use crate::net::Wait;
use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG,
    RANGE, VARY,
};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

const PLAYLIST: &str = "application/vnd.apple.mpegurl";
/// Segments that may be asked for in advance.
const SEGMENTS_AHEAD: u64 = 2;

/// What a client wants of a media playlist.
struct Asked {
    /// Wait for this segment, or for this part of it.
    segment: Option<u64>,
    part: Option<u64>,
    delta: bool,
}

impl Asked {
    fn parse(query: &Query<'_>) -> Result<Self, Problem> {
        let (segment, part) = (query.u64("_HLS_msn")?, query.u64("_HLS_part")?);
        if part.is_some() && segment.is_none() {
            return Err(Problem::bad_request("_HLS_part is a part of the segment _HLS_msn, which is missing"));
        }
        let delta = query.one_of("_HLS_skip", &["YES", "v2"])?.is_some();
        Ok(Self { segment, part, delta })
    }

    /// What will not come for long is refused at once.
    fn check(&self, at: Progress, part_us: i64) -> Result<(), Problem> {
        let Some(segment) = self.segment.filter(|_| !at.ended) else { return Ok(()) };
        let last = if at.parts > 0 { at.segment } else { at.segment.saturating_sub(1) };
        if segment > last + SEGMENTS_AHEAD {
            return Err(Problem::bad_request(format!(
                "_HLS_msn={segment} is too far ahead; the last segment is {last}, up to {} can be waited for",
                last + SEGMENTS_AHEAD
            )));
        }
        // Three seconds of parts, at least three parts.
        let ahead = if part_us < 1_000_000 { 3_000_000_u64.div_ceil(part_us.unsigned_abs().max(1)) } else { 3 };
        let known = if segment == at.segment { at.parts as u64 } else { 0 };
        match self.part {
            Some(part) if segment >= at.segment && part >= known + ahead => Err(Problem::bad_request(format!(
                "_HLS_part={part} is too far ahead; {known} parts of segment {segment} are there"
            ))),
            _ => Ok(()),
        }
    }
}

/// `GET /live/{name}/index.m3u8`
pub async fn playlist(call: &Call) -> Answer {
    let stream = live::find(call)?;
    let target = stream.targets().duration_seconds();
    let asked = Asked::parse(&Query::parse(call.uri.query())?).map_err(|problem| lasting(problem, 4 * target))?;
    let mut progress = stream.progress();
    let now = *progress.borrow_and_update();
    asked.check(now, stream.targets().part_us).map_err(|problem| lasting(problem, 4 * target))?;
    // A playlist without a segment plays nowhere.
    let there =
        |at: &Progress| at.ended || at.whole > 0 && asked.segment.is_none_or(|segment| at.has(segment, asked.part));
    if !there(&now) {
        let _waiting = stream.audience().wait();
        call.conn.while_waiting(Wait::Part, wait(&stream, there)).await?;
    }
    let form = Form { delta: asked.delta, gzip: takes_gzip(&call.headers) };
    let playlist = stream.playlist(|| readable_from(call, &stream));
    let text = playlist.text(form, &call.edge.metrics.playlists_rendered);
    // Twice what is said stays for a moment only; what was waited for is the same for ever.
    let seconds = if asked.segment.is_some() && !playlist.progress.ended { 6 * target } else { (target / 2).max(1) };
    let mut response = text_of(text, PLAYLIST, "");
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, max_age(seconds)?);
    headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    if form.gzip {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    Ok(response)
}

/// `GET /live/{name}/master.m3u8`
pub async fn master(call: &Call) -> Answer {
    let stream = live::find(call)?;
    call.conn.while_waiting(Wait::Part, wait(&stream, |at| at.ended || at.whole > 0)).await?;
    let mut response = text_of(stream.master_playlist(), PLAYLIST, "");
    let seconds = stream.targets().duration_seconds() / 2;
    response.headers_mut().insert(CACHE_CONTROL, max_age(seconds.max(1))?);
    Ok(response)
}

/// Waits for three target durations at most.
async fn wait(stream: &Stream, there: impl FnMut(&Progress) -> bool) -> Result<Progress, Problem> {
    let target = stream.targets().duration_seconds();
    let patience = Duration::from_secs(3 * target.unsigned_abs());
    let mut progress = stream.progress();
    let waited = tokio::time::timeout(patience, progress.wait_for(there)).await;
    match waited {
        Ok(Ok(now)) => Ok(*now),
        _ => {
            let detail = format!("what is asked for did not come within {} s", patience.as_secs());
            Err(lasting(Problem::unavailable(detail, target.unsigned_abs()), 4 * target))
        }
    }
}

/// The first byte of the stream that can be read, up to the newest.
fn readable_from(call: &Call, stream: &Arc<Stream>) -> u64 {
    live_file::readable(&call.edge, stream).last().map_or(0, |span| span.range.start)
}

fn max_age(seconds: i64) -> Result<HeaderValue, Problem> {
    header(format!("max-age={seconds}"))
}

/// An error that caches may keep, so that they do not ask again for every client.
fn lasting(problem: Problem, seconds: i64) -> Problem {
    match max_age(seconds) {
        Ok(value) => problem.field(CACHE_CONTROL, value),
        Err(problem) => problem,
    }
}

/// Whether `Accept-Encoding` takes gzip: by its name, else as anything, with a weight other than 0.
fn takes_gzip(headers: &HeaderMap) -> bool {
    let takes = |wanted: &str| {
        let lines = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|line| line.to_str().ok());
        lines.flat_map(|line| line.split(',')).find_map(|coding| {
            let (name, parameter) = coding.split_once(';').unwrap_or((coding, ""));
            let weight = parameter.split_once('=').and_then(|(_, weight)| weight.trim().parse::<f32>().ok());
            name.trim().eq_ignore_ascii_case(wanted).then_some(weight != Some(0.0))
        })
    };
    takes("gzip").or_else(|| takes("*")).unwrap_or(false)
}

/// `GET, HEAD /live/{name}/{init-N.mp4, segment-N.m4s, part-N.P.m4s}`, or `.ts`
pub async fn media(call: &Call) -> Answer {
    let stream = live::find(call)?;
    let target = stream.targets().duration_seconds();
    let missing = || {
        let detail = "this stream has no such segment, or not any more; its index.m3u8 lists those there are";
        lasting(Problem::not_found(detail), target)
    };
    let name = call.uri.path().rsplit('/').next().unwrap_or_default();
    let resource = Resource::parse(name).ok_or_else(missing)?;
    if let Resource::Part { segment, part, .. } = resource {
        call.conn.while_waiting(Wait::Part, await_part(&stream, segment, part)).await?;
    }
    let init = stream.segments(|segments| segments.init_of(&resource).cloned()).ok_or_else(missing)?;
    if let Resource::Init(_) = resource {
        let mut response = text_of(init.bytes(), init.content_type(), "");
        response.headers_mut().insert(CACHE_CONTROL, max_age(6 * target)?);
        return Ok(response);
    }
    let (bytes, duration_us) = stream.segments(|segments| segments.find(&resource)).ok_or_else(missing)?;
    let spans = live_file::readable(&call.edge, &stream);
    if !spans.iter().any(|span| span.range.start <= bytes.start && bytes.end <= span.range.end) {
        return Err(missing());
    }
    let mut response = bytes_of(call, stream, bytes, duration_us)?;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(init.content_type()));
    headers.insert(CACHE_CONTROL, max_age(6 * target)?);
    Ok(response)
}

/// Waits if it is the part that comes next.
async fn await_part(stream: &Stream, segment: u64, part: usize) -> Result<(), Problem> {
    let comes_next = |at: &Progress| at.segment == segment && at.parts == part && !at.ended;
    if comes_next(&stream.progress().borrow()) {
        wait(stream, |at| !comes_next(at)).await?;
    }
    Ok(())
}

/// A run of bytes of the stream that is whole, or the range of it that was asked for. Its entity tag is where it lies:
/// offsets are never used again.
fn bytes_of(call: &Call, stream: Arc<Stream>, bytes: Range<u64>, duration_us: i64) -> Result<Response<Body>, Problem> {
    let length = bytes.end - bytes.start;
    let etag = format!("\"{:x}-{length:x}\"", bytes.start);
    let decision = conditional::read(&call.headers, etag.as_bytes(), None, SystemTime::now);
    let mut response = empty(StatusCode::OK);
    response.headers_mut().insert(ETAG, header(etag)?);
    let resolved = match decision {
        Decision::NotModified => {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            return Ok(response);
        }
        Decision::PreconditionFailed => return Err(Problem::precondition_failed("If-Match names other bytes")),
        Decision::Proceed { range: true } if call.method == Method::GET => {
            range::resolve_lines(call.headers.get_all(RANGE).iter().map(HeaderValue::as_bytes), length)
        }
        Decision::Proceed { .. } => Resolved::Whole,
    };
    let wanted = match resolved {
        // One run is all that players ask for; a server may send everything instead (RFC 9110 §14.2).
        Resolved::Whole | Resolved::Many(_) => 0..length,
        Resolved::Unsatisfiable => return Err(Problem::range_not_satisfiable(length)),
        Resolved::One(wanted) => {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            let content_range = header(range::content_range(&wanted, length))?;
            response.headers_mut().insert(CONTENT_RANGE, content_range);
            wanted
        }
    };
    let headers = response.headers_mut();
    headers.insert(CONTENT_LENGTH, HeaderValue::from(wanted.end - wanted.start));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if call.method == Method::GET {
        let share = (wanted.end - wanted.start) as f64 / length as f64;
        stream.audience().send((duration_us as f64 * share) as u64);
        let body = FileBody::new(call, stream, bytes.start + wanted.start..bytes.start + wanted.end, None);
        *response.body_mut() = Body::LiveFile(Box::new(body));
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_takes_gzip() {
        let takes = |line: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_ENCODING, HeaderValue::try_from(line).expect("a line"));
            takes_gzip(&headers)
        };
        for line in ["gzip", "deflate, gzip;q=0.5, br", "br,GZIP", "*", "identity;q=0, *", "gzip;q=x"] {
            assert!(takes(line), "{line}");
        }
        for line in ["", "br", "identity", "gzip;q=0", "deflate, gzip; q=0.0", "*;q=0", "gzip; Q=0, *"] {
            assert!(!takes(line), "{line}");
        }
        assert!(!takes_gzip(&HeaderMap::new()));
    }
}
