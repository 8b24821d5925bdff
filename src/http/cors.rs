//! CORS for reading: other sites' pages may GET and HEAD, and see the headers that a player needs (Fetch standard,
//! "CORS protocol").

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, VARY,
};
use http::{HeaderMap, HeaderValue};

/// Response headers that a script may read besides the safelisted ones.
const EXPOSED: &str = "Accept-Ranges, Content-Length, Content-Location, Content-Range, Date, ETag, Media-Seek, \
    Media-Source-Range, Server-Timing";
/// Request headers that a page may send.
const REQUESTED: &str = "Range, If-Range, If-None-Match, If-Modified-Since, Cache-Control";

/// Adds what the configured origin may see; an empty origin allows none. Added to every answer, asked for by a page or
/// not: a cache may give the one that it stored to the other.
pub fn allow(origin: &str, preflight: bool, headers: &mut HeaderMap) {
    if origin.is_empty() {
        return;
    }
    if origin == "*" {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    } else {
        let Ok(value) = HeaderValue::try_from(origin) else { return };
        headers.append(VARY, HeaderValue::from_static("Origin"));
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, value);
    }
    if preflight {
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, HEAD"));
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(REQUESTED));
        headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    } else {
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
    }
}
