//! The id of a video in a path: one segment, `/` written as `%2F`, looked up and never joined to a path.

use super::problem::Problem;
use crate::observe::metrics::segments;
use http::Uri;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use std::borrow::Cow;

/// Longest id that is looked up, decoded; Linux's own limit for a path.
const ID_BYTES_MAX: usize = 4096;

/// What stays as it is in a link (RFC 3986 unreserved).
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The `{id}` of `/videos/{id}` and of every route below it, decoded.
pub fn of(uri: &Uri) -> Result<Cow<'_, str>, Problem> {
    decode(segments(uri.path()).nth(1).unwrap_or_default())
}

fn decode(raw: &str) -> Result<Cow<'_, str>, Problem> {
    let id = if raw.bytes().any(|byte| byte == b'%') {
        let decoded = percent_decode_str(raw).decode_utf8();
        decoded.map_err(|_| Problem::bad_request("the id is not UTF-8 once %XX is decoded"))?
    } else {
        // Nothing to decode, and no other checks to be made again.
        Cow::Borrowed(raw)
    };
    if id.is_empty() {
        return Err(Problem::not_found("an id is missing; /videos lists them"));
    }
    if id.contains('\0') {
        return Err(Problem::bad_request("the id has a NUL byte"));
    }
    if id.len() > ID_BYTES_MAX {
        return Err(Problem::uri_too_long(format!("an id has at most {ID_BYTES_MAX} bytes")));
    }
    Ok(id)
}

/// An id as it stands in a link.
pub fn encode(id: &str) -> String {
    utf8_percent_encode(id, ESCAPED).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_survive_a_link() {
        for id in ["a.mp4", "sub/dir/b c.mp4", "ü%2F?#;&.ts", ".."] {
            let link = encode(id);
            assert!(!link.contains(['/', '?', '#', ' ']), "{link}");
            assert_eq!(decode(&link).expect("decodes"), id);
        }
        assert_eq!(encode("a/b.mp4"), "a%2Fb.mp4");
    }
}
