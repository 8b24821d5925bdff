//! Errors as `application/problem+json` (RFC 9457): what was wrong and what would be right.
//!
//! One place for the status, the text and the fields that a status calls for. Must not know: axum, handlers, logging.

use super::query::QueryError;
use super::range::unsatisfied;
use crate::lazy::Unready;
use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderName, RETRY_AFTER,
    WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use serde_json::{Map, Value};
use std::ops::Range;

/// A problem details object and the header fields that go with it.
#[derive(Clone, Debug)]
pub struct Problem {
    pub status: StatusCode,
    /// Of the kind of problem; `type` is `about:blank`, so it is the status phrase unless set (RFC 9457 §4.2.1).
    pub title: Option<&'static str>,
    /// Of this occurrence.
    pub detail: String,
    /// Boxed, as the fields are: every handler returns a `Result` with a problem in it.
    pub extensions: Box<Map<String, Value>>,
    pub fields: Box<HeaderMap>,
}

impl Problem {
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, title: None, detail: detail.into(), extensions: Box::default(), fields: Box::default() }
    }

    /// Adds a member for programs (RFC 9457 §3.2). The standard members cannot be overwritten.
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.extensions.insert(name.to_owned(), value.into());
        self
    }

    /// Adds a header field line.
    pub fn field(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.fields.append(name, value);
        self
    }

    fn number(self, name: HeaderName, value: u64) -> Self {
        self.field(name, HeaderValue::from(value))
    }

    /// 400: the request is wrong in itself.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// 401 with both schemes: Bearer for programs, Basic for ffmpeg and curl.
    pub fn unauthorized(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, detail)
            .field(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"weir\""))
            .field(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
    }

    /// 403: the key is valid, but not for this.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, detail)
    }

    /// 404.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    /// 405; `allow` lists the methods, such as `GET, HEAD`.
    pub fn method_not_allowed(allow: &'static str) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, format!("this resource allows {allow}"))
            .field(ALLOW, HeaderValue::from_static(allow))
    }

    /// 409: the state of the resource does not allow it.
    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, detail)
    }

    /// 411: the route needs to know the length first.
    pub fn length_required(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::LENGTH_REQUIRED, detail)
    }

    /// 412.
    pub fn precondition_failed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PRECONDITION_FAILED, detail)
    }

    /// 413; `limit_bytes` is what would have been accepted.
    pub fn content_too_large(detail: impl Into<String>, limit_bytes: u64) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, detail).with("limit_bytes", limit_bytes)
    }

    /// 414.
    pub fn uri_too_long(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::URI_TOO_LONG, detail)
    }

    /// 415.
    pub fn unsupported_media_type(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail)
    }

    /// 416 of a representation of `len` bytes (RFC 9110 §15.5.17).
    pub fn range_not_satisfiable(len: u64) -> Self {
        Self::range_not_within(0..len)
    }

    /// 416 of a representation of which these bytes can be read.
    pub fn range_not_within(Range { start, end: len }: Range<u64>) -> Self {
        let detail = if start < len {
            format!("no byte of the range exists; write bytes=first-last within {start}-{}", len - 1)
        } else {
            "no byte of the range exists: this is empty".to_owned()
        };
        let value = HeaderValue::try_from(unsatisfied(len)).expect("digits and punctuation are a field value");
        Self::new(StatusCode::RANGE_NOT_SATISFIABLE, detail)
            .with("length", len)
            .field(CONTENT_RANGE, value)
            .field(ACCEPT_RANGES, HeaderValue::from_static("bytes"))
    }

    /// 422: well-formed, but this resource cannot answer it.
    pub fn unprocessable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
    }

    /// 422 for a value outside the resource: the first and last legal value in the form that was asked.
    pub fn outside(detail: impl Into<String>, first: impl Into<Value>, last: impl Into<Value>) -> Self {
        Self::unprocessable(detail).with("first", first).with("last", last)
    }

    /// 429.
    pub fn too_many_requests(detail: impl Into<String>, retry_after_seconds: u64) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, detail).number(RETRY_AFTER, retry_after_seconds)
    }

    /// 431.
    pub fn header_fields_too_large(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, detail)
    }

    /// 501: a supported container or method, but not for this.
    pub fn not_implemented(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_IMPLEMENTED, detail)
    }

    /// 503: busy or draining.
    pub fn unavailable(detail: impl Into<String>, retry_after_seconds: u64) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail).number(RETRY_AFTER, retry_after_seconds)
    }

    /// 507: no room on the disk.
    pub fn insufficient_storage(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::INSUFFICIENT_STORAGE, detail)
    }

    /// The body alone.
    pub fn to_json(&self) -> Value {
        let mut body = Map::new();
        body.insert("type".to_owned(), "about:blank".into());
        let title = self.title.or(self.status.canonical_reason()).unwrap_or("Error");
        body.insert("title".to_owned(), title.into());
        body.insert("status".to_owned(), self.status.as_u16().into());
        body.insert("detail".to_owned(), self.detail.as_str().into());
        for (name, value) in self.extensions.iter() {
            body.entry(name.as_str()).or_insert_with(|| value.clone());
        }
        Value::Object(body)
    }

    /// The whole response. An error is never stored by a cache: 404, 405, 414 and 501 would be (RFC 9110 §15.1).
    pub fn into_response(self) -> Response<Bytes> {
        let mut body = self.to_json().to_string();
        body.push('\n');
        let mut response = Response::new(Bytes::from(body));
        *response.status_mut() = self.status;
        let length = HeaderValue::from(response.body().len());
        let fields = response.headers_mut();
        *fields = *self.fields;
        fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        fields.insert(CONTENT_LENGTH, length);
        fields.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
        fields.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        response
    }
}

impl From<QueryError> for Problem {
    fn from(error: QueryError) -> Self {
        let problem = match error {
            QueryError::TooLong { .. } => Self::uri_too_long(error.to_string()),
            _ => Self::bad_request(error.to_string()),
        };
        match error.parameter() {
            Some(name) => problem.with("parameter", name),
            None => problem,
        }
    }
}

impl From<Unready> for Problem {
    fn from(unready: Unready) -> Self {
        let seconds = unready.retry_after.as_millis().div_ceil(1000);
        let retry_after = u64::try_from(seconds).unwrap_or(u64::MAX).max(1);
        Self::unavailable(unready.to_string(), retry_after).with("component", unready.component)
    }
}

impl From<super::range::PartialPutError> for Problem {
    fn from(error: super::range::PartialPutError) -> Self {
        Self::bad_request(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::query::Query;

    fn json(response: &Response<Bytes>) -> Value {
        serde_json::from_slice(response.body()).expect("JSON")
    }

    #[test]
    fn body_and_fields() {
        let response = Problem::outside("frame 600 is past the end", 0, 599).into_response();
        assert_eq!(response.status(), 422);
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        assert_eq!(response.headers()["cache-control"], "no-store");
        assert_eq!(response.headers()["content-length"], response.body().len().to_string().as_str());
        let expected = serde_json::json!({
            "type": "about:blank", "title": "Unprocessable Entity", "status": 422,
            "detail": "frame 600 is past the end", "first": 0, "last": 599,
        });
        assert_eq!(json(&response), expected);
    }

    #[test]
    fn statuses_and_the_fields_they_call_for() {
        let table: &[(Problem, u16, &[(&str, &str)])] = &[
            (Problem::bad_request("x"), 400, &[]),
            (
                Problem::unauthorized("x"),
                401,
                &[("www-authenticate", "Basic realm=\"weir\""), ("www-authenticate", "Bearer")],
            ),
            (Problem::forbidden("x"), 403, &[]),
            (Problem::not_found("x"), 404, &[]),
            (Problem::method_not_allowed("GET, HEAD"), 405, &[("allow", "GET, HEAD")]),
            (Problem::conflict("x"), 409, &[]),
            (Problem::length_required("x"), 411, &[]),
            (Problem::precondition_failed("x"), 412, &[]),
            (Problem::content_too_large("x", 9), 413, &[]),
            (Problem::uri_too_long("x"), 414, &[]),
            (Problem::unsupported_media_type("x"), 415, &[]),
            (Problem::range_not_satisfiable(1234), 416, &[("content-range", "bytes */1234")]),
            (Problem::range_not_within(7..1234), 416, &[("content-range", "bytes */1234")]),
            (Problem::range_not_satisfiable(0), 416, &[("content-range", "bytes */0")]),
            (Problem::unprocessable("x"), 422, &[]),
            (Problem::too_many_requests("x", 7), 429, &[("retry-after", "7")]),
            (Problem::header_fields_too_large("x"), 431, &[]),
            (Problem::not_implemented("x"), 501, &[]),
            (Problem::unavailable("x", 2), 503, &[("retry-after", "2")]),
            (Problem::insufficient_storage("x"), 507, &[]),
        ];
        for (problem, status, fields) in table {
            let response = problem.clone().into_response();
            assert_eq!(response.status(), *status);
            assert_eq!(json(&response)["status"], *status);
            for (name, value) in *fields {
                assert!(response.headers().get_all(*name).iter().any(|v| v == value), "{status}: {name}");
            }
        }
    }

    #[test]
    fn standard_members_are_not_overwritten() {
        let response = Problem::not_found("no such video").with("status", 200).with("detail", "").into_response();
        assert_eq!(json(&response)["status"], 404);
        assert_eq!(json(&response)["detail"], "no such video");
    }

    #[test]
    fn query_errors_name_their_parameter() {
        let error = Query::parse(Some("size=-1")).expect("well-formed").u64("size").expect_err("negative");
        let response = Problem::from(error).into_response();
        assert_eq!(response.status(), 400);
        assert_eq!(json(&response)["parameter"], "size");
        let long = "x".repeat(9000);
        let error = Query::parse(Some(&long)).expect_err("too long");
        assert_eq!(Problem::from(error).status, 414);
    }
}
