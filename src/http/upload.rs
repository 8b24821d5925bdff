//! `PUT` and `DELETE /videos/{id}`, and what is missing of an upload in parts.
//!
//! Everything that can be refused is refused before the body is read. The body is handed to the library as it comes,
//! frame by frame; a client that stops sending is given up after the stall limit.

use super::answer::{Answer, Body, Call, empty, header, json};
use super::conditional::{self, Access, Decision, EntityTag, Validators};
use super::id;
use super::problem::Problem;
use super::range::PartialPut;
use super::timing::Timing;
use super::videos;
use crate::library::{Condition, DeleteError, PartOutcome, Stored, Upload, UploadError, Video};
use crate::profile::{SpanExt, Stage, site};
use http::header::{
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderName, IF_MATCH, IF_NONE_MATCH, LOCATION,
    TRANSFER_ENCODING,
};
use http::{HeaderMap, Response, StatusCode};
use http_body::Body as _;
use serde_json::json;
use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

const UPLOAD_MISSING: HeaderName = HeaderName::from_static("upload-missing");

/// `PUT /videos/{id}`
pub async fn put(mut call: Call) -> Answer {
    call.authorize()?;
    if call.headers.contains_key(CONTENT_ENCODING) {
        return Err(Problem::unsupported_media_type("send the video as it is, without Content-Encoding"));
    }
    // Without either the request has no body (RFC 9112 §6.3): a client that forgot it, not an empty video.
    if !call.headers.contains_key(CONTENT_LENGTH) && !call.headers.contains_key(TRANSFER_ENCODING) {
        return Err(Problem::length_required("send the video as the body, with Content-Length or in chunks"));
    }
    let id = id::of(&call.uri)?.into_owned();
    let condition = condition(&call, &id)?;
    let length = call.body.size_hint().exact();
    let ranges: Vec<_> = call.headers.get_all(CONTENT_RANGE).iter().collect();
    match ranges[..] {
        [] => {
            let upload = call.edge.library.begin_upload(&id, length, condition).await.map_err(upload_problem)?;
            whole(&mut call, upload).await
        }
        [range] => {
            let range = PartialPut::parse(range.as_bytes())?;
            part(&mut call, &id, &range, length, condition).await
        }
        _ => Err(Problem::bad_request("Content-Range is given twice; a request carries one part")),
    }
}

async fn whole(call: &mut Call, mut upload: Upload) -> Answer {
    while let Some(bytes) = call.next_bytes().await? {
        let _timed = call.timing.stage(Stage::Upload);
        upload.write(bytes).span(site!(Stage::Upload.name())).await.map_err(upload_problem)?;
    }
    match upload.finish().span(site!("publish_upload")).await.map_err(upload_problem)? {
        Stored::Created(video) => stored(&call.timing, StatusCode::CREATED, &video),
        Stored::Replaced(video) => stored(&call.timing, StatusCode::OK, &video),
    }
}

async fn part(call: &mut Call, id: &str, range: &PartialPut, length: Option<u64>, condition: Condition) -> Answer {
    let expected = range.range.end - range.range.start;
    if let Some(length) = length
        && length != expected
    {
        let detail = format!("Content-Range names {expected} bytes, Content-Length {length}");
        return Err(Problem::bad_request(detail));
    }
    let (start, last) = (range.range.start, range.range.end - 1);
    let opened = call.edge.library.write_part(id, start, last, range.total, condition).await;
    let mut part = opened.map_err(upload_problem)?;
    while let Some(bytes) = call.next_bytes().await? {
        let _timed = call.timing.stage(Stage::Upload);
        part.write(bytes).span(site!(Stage::Upload.name())).await.map_err(upload_problem)?;
    }
    match part.finish().await.map_err(upload_problem)? {
        PartOutcome::Accepted { missing } => {
            let list: Vec<_> = missing.iter().map(|r| json!([r.start, r.end - 1])).collect();
            let mut response =
                json(&call.timing, &json!({ "id": id, "total": range.total, "missing": list }), "no-store")?;
            *response.status_mut() = StatusCode::ACCEPTED;
            response.headers_mut().insert(UPLOAD_MISSING, header(missing_text(&missing))?);
            Ok(response)
        }
        PartOutcome::Created(video) => stored(&call.timing, StatusCode::CREATED, &video),
        PartOutcome::Replaced(video) => stored(&call.timing, StatusCode::OK, &video),
    }
}

/// What the request's conditions ask of the library. They are checked here for a quick refusal, and by the library
/// once more when the video takes its place.
fn condition(call: &Call, id: &str) -> Result<Condition, Problem> {
    let video = call.edge.library.video(id);
    let validators = video.as_deref().map(|video| Validators {
        etag: EntityTag::parse(video.etag().as_bytes()),
        last_modified: Some(video.modified()),
    });
    match conditional::evaluate(&call.headers, Access::Write, validators.as_ref(), SystemTime::now()) {
        Decision::Proceed { .. } => Ok(lasting_condition(&call.headers)),
        Decision::NotModified | Decision::PreconditionFailed => Err(failed(video.is_some())),
    }
}

fn failed(exists: bool) -> Problem {
    Problem::precondition_failed(if exists {
        "there is a video with this id already, and the request's conditions do not allow to replace it"
    } else {
        "there is no video with this id, and the request's conditions ask for one"
    })
}

fn lasting_condition(headers: &HeaderMap) -> Condition {
    let tags = |name| -> Vec<String> {
        let lines = headers.get_all(name).iter().filter_map(|line| line.to_str().ok());
        lines.flat_map(|line| line.split(',')).map(|tag| tag.trim().to_owned()).filter(|tag| !tag.is_empty()).collect()
    };
    let (matching, none) = (tags(IF_MATCH), tags(IF_NONE_MATCH));
    if none.iter().any(|tag| tag == "*") {
        Condition::Absent
    } else if matching.iter().any(|tag| tag == "*") {
        Condition::Present
    } else if matching.is_empty() {
        Condition::Always
    } else {
        Condition::Matches(matching)
    }
}

/// 201 or 200 with the JSON of the video.
fn stored(timing: &Timing, status: StatusCode, video: &Arc<Video>) -> Answer {
    let mut response = json(timing, &videos::describe(video), "no-cache")?;
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(ETAG, header(video.etag().to_owned())?);
    if status == StatusCode::CREATED {
        headers.insert(LOCATION, header(format!("/videos/{}", id::encode(video.id())))?);
    }
    Ok(response)
}

/// `DELETE /videos/{id}`
pub async fn delete(call: &Call) -> Answer {
    call.authorize()?;
    let id = id::of(&call.uri)?;
    let video = call.edge.library.video(&id);
    if let Some(video) = &video {
        let validators =
            Validators { etag: EntityTag::parse(video.etag().as_bytes()), last_modified: Some(video.modified()) };
        let decision = conditional::evaluate(&call.headers, Access::Write, Some(&validators), SystemTime::now());
        if decision == Decision::PreconditionFailed {
            return Err(Problem::precondition_failed("the video is not the one that the request names"));
        }
    }
    call.edge.library.delete(&id).await.map_err(|error| match error {
        DeleteError::NotFound { .. } => Problem::not_found("there is no video with this id; /videos lists them"),
        DeleteError::Denied { .. } => Problem::forbidden(error.to_string()),
        DeleteError::Io(source) => videos::io_problem(&source),
    })?;
    Ok(empty(StatusCode::NO_CONTENT))
}

/// `HEAD /videos/{id}/upload`
pub async fn missing(call: &Call) -> Answer {
    let id = id::of(&call.uri)?;
    let Some(missing) = call.edge.library.missing(&id) else {
        return Err(Problem::not_found("no upload in parts is open for this id"));
    };
    let list: Vec<_> = missing.iter().map(|r| json!([r.start, r.end - 1])).collect();
    let mut response: Response<Body> = json(&call.timing, &json!({ "id": id, "missing": list }), "no-store")?;
    response.headers_mut().insert(UPLOAD_MISSING, header(missing_text(&missing))?);
    Ok(response)
}

/// `0-99, 200-299`: first and last byte of each run.
fn missing_text(missing: &[Range<u64>]) -> String {
    let runs: Vec<String> = missing.iter().map(|r| format!("{}-{}", r.start, r.end - 1)).collect();
    runs.join(", ")
}

fn upload_problem(error: UploadError) -> Problem {
    let text = error.to_string();
    match error {
        UploadError::InvalidId { .. } | UploadError::WrongLength { .. } | UploadError::InvalidRange { .. } => {
            Problem::bad_request(text)
        }
        UploadError::Denied { .. } => Problem::forbidden(text),
        UploadError::TooLarge { limit, .. } => Problem::content_too_large(text, limit),
        UploadError::NoRoom { needed, available } => {
            let problem = Problem::insufficient_storage(text);
            match (needed, available) {
                (Some(needed), Some(available)) => problem.with("needed", needed).with("available", available),
                _ => problem,
            }
        }
        UploadError::AlreadyExists { .. } | UploadError::NotTheSame { .. } => Problem::precondition_failed(text),
        UploadError::OtherTotal { .. }
        | UploadError::Superseded
        | UploadError::NameTaken { .. }
        | UploadError::TooScattered { .. } => Problem::conflict(text),
        UploadError::Busy { .. } => Problem::unavailable(text, 60),
        UploadError::Io(source) => {
            tracing::error!(error = %source, "store an upload");
            Problem::unavailable("the upload cannot be stored at the moment", 5)
        }
    }
}
