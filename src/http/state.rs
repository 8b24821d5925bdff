//! What handlers may reach, and the answers that belong to no route.

use super::credentials::{self, Access, WriteKey};
use super::problem::Problem;
use crate::config::Config;
use crate::library::Library;
use crate::observe::metrics::Metrics;
use crate::store::Pool;
use axum::body::Body;
use axum::response::IntoResponse;
use http::header::{ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Shared by all cores.
pub struct Edge {
    pub config: Config,
    pub library: Library,
    pub write_key: WriteKey,
    pub metrics: Arc<Metrics>,
    /// Where viewers' page faults and index look-ups wait for the disk.
    pub read_pool: Pool,
    /// Cancelled when the server begins to drain.
    pub drain: CancellationToken,
    /// Random per start; request ids count on from it.
    pub run_id: u64,
}

/// What a handler returns: a problem is an answer too.
pub type Answer = Result<Response<Body>, Problem>;

impl IntoResponse for Problem {
    fn into_response(self) -> Response<Body> {
        Problem::into_response(self).map(Body::from)
    }
}

impl Edge {
    /// Writes need the key; asked before the body is read.
    pub fn authorize(&self, headers: &HeaderMap) -> Result<(), Problem> {
        match credentials::authorized(headers.get(AUTHORIZATION), &self.write_key) {
            Access::Granted => Ok(()),
            Access::Missing => {
                Err(Problem::unauthorized("this needs the write key, as Bearer token or Basic password"))
            }
            Access::Wrong => Err(Problem::unauthorized("the write key is wrong")),
        }
    }
}

/// An answer of JSON; the body of HEAD is dropped by the route table.
pub fn json(value: &serde_json::Value, cache: &'static str) -> Answer {
    let mut text = value.to_string();
    text.push('\n');
    text_of(text, "application/json", cache)
}

pub fn text_of(text: impl Into<bytes::Bytes>, content_type: &'static str, cache: &'static str) -> Answer {
    let text = text.into();
    let length = text.len();
    let mut response = Response::new(Body::from(text));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(cache));
    Ok(response)
}

/// The fallback of a route: OPTIONS tells the methods, any other method is 405.
pub async fn only_methods(method: Method, allow: &'static str) -> Answer {
    if method != Method::OPTIONS {
        return Err(Problem::method_not_allowed(allow));
    }
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    Ok(response)
}

/// No such route.
pub async fn nowhere(uri: Uri) -> Problem {
    Problem::not_found(format!("nothing is at {}; the page at / lists what there is", uri.path()))
}

/// A header value that was made from checked text.
pub fn header(value: String) -> Result<HeaderValue, Problem> {
    HeaderValue::try_from(value).map_err(|_| Problem::bad_request("a value cannot stand in a header field"))
}
