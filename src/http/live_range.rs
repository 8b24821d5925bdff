//! Ranges of a resource that grows (RFC 8673): which bytes of a live stream a `Range` field means.
//!
//! PURE: a field value and what can be read in, byte ranges and a `Content-Range` out. Where the RFCs leave the choice:
//! - a last position of 2^53-1 or more asks for the bytes as they come, and is echoed digit by digit (RFC 8673 §2.2);
//!   any other position past the present end is clipped to it, as in RFC 9110 §14.1.2;
//! - a range that begins before the oldest byte is answered from the oldest byte on (RFC 8673 §3);
//! - several ranges are ignored (RFC 9110 §14.2).

use super::range::{Spec, bytes_set, push_decimal};
use std::ops::Range;

/// From this last position on a client asks for what is to come (RFC 8673 §4 suggests it for clients).
const VERY_LARGE: u64 = (1 << 53) - 1;

/// What can be read of a stream: runs of bytes, in order, with holes between them.
pub struct Readable<'a> {
    pub spans: &'a [Range<u64>],
    /// The last span still grows.
    pub grows: bool,
}

/// What a `Range` field means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolved {
    /// No range, or one that is ignored.
    Whole,
    /// 206 with these bytes; never empty.
    Bytes { range: Range<u64>, content_range: String },
    /// 206 with the bytes from here on, as long as they come.
    Open { from: u64, content_range: String },
    /// 416.
    Unsatisfiable,
}

/// Resolves one `Range` field value.
pub fn resolve(value: &[u8], readable: &Readable) -> Resolved {
    let Some(set) = bytes_set(value) else { return Resolved::Whole };
    let mut members = set.split(|&b| b == b',').map(<[u8]>::trim_ascii).filter(|member| !member.is_empty());
    let (Some(member), None) = (members.next(), members.next()) else { return Resolved::Whole };
    let Some(spec) = Spec::parse(member) else { return Resolved::Unsatisfiable };
    let Some(newest) = readable.spans.last() else { return Resolved::Unsatisfiable };
    let (first, last) = match spec {
        Spec::From(first) => (first, u64::MAX),
        Spec::Between(first, last) if last >= VERY_LARGE && readable.grows => {
            let from = first.max(readable.spans[0].start);
            if (newest.start..=newest.end).contains(&from) {
                let digits = member.split(|&b| b == b'-').nth(1).unwrap_or_default();
                let mut text = "bytes ".to_owned();
                push_decimal(&mut text, from);
                text.push('-');
                // ASCII digits, as the grammar says.
                text.extend(digits.iter().map(|&digit| char::from(digit)));
                text.push_str("/*");
                return Resolved::Open { from, content_range: text };
            }
            (first, last)
        }
        Spec::Between(first, last) => (first, last),
        Spec::Suffix(0) => return Resolved::Unsatisfiable,
        Spec::Suffix(count) => (newest.end.saturating_sub(count).max(newest.start), u64::MAX),
    };
    let Some(span) = readable.spans.iter().find(|span| span.end > first) else { return Resolved::Unsatisfiable };
    let range = first.max(span.start)..last.saturating_add(1).min(span.end);
    if range.is_empty() {
        return Resolved::Unsatisfiable;
    }
    let content_range = content_range(&range, (!readable.grows).then_some(newest.end));
    Resolved::Bytes { range, content_range }
}

/// `Content-Range` of a range that is not empty; `total` is known once the stream has ended.
fn content_range(range: &Range<u64>, total: Option<u64>) -> String {
    let total = total.map_or_else(|| "*".to_owned(), |total| total.to_string());
    format!("bytes {}-{}/{total}", range.start, range.end - 1)
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "a stream without holes is one span")]
mod tests {
    use super::*;

    /// What the answer is: `Content-Range`, and whether it goes on for ever.
    fn answer(value: &str, spans: &[Range<u64>], grows: bool) -> String {
        match resolve(value.as_bytes(), &Readable { spans, grows }) {
            Resolved::Whole => "whole".to_owned(),
            Resolved::Unsatisfiable => "416".to_owned(),
            Resolved::Bytes { content_range, .. } => content_range,
            Resolved::Open { content_range, .. } => format!("{content_range} open"),
        }
    }

    fn table(spans: &[Range<u64>], grows: bool, rows: &[(&str, &str)]) {
        for (value, expected) in rows {
            assert_eq!(answer(value, spans, grows), *expected, "{value} of {spans:?}");
        }
    }

    #[test]
    fn of_a_stream_that_grows() {
        // The first rows are the examples of RFC 8673 §2 and §3.
        let rows = [
            ("bytes=0-", "bytes 0-1234567/*"),
            ("bytes=1230000-9007199254740991", "bytes 1230000-9007199254740991/* open"),
            ("bytes=0-9007199254740991", "bytes 0-9007199254740991/* open"),
            ("bytes=1234568-9007199254740991", "bytes 1234568-9007199254740991/* open"),
            ("bytes=1234569-9007199254740991", "416"),
            ("bytes=5-99999999999999999999999999999999", "bytes 5-99999999999999999999999999999999/* open"),
            ("bytes=5-009007199254740991", "bytes 5-009007199254740991/* open"),
            ("bytes=5-9007199254740990", "bytes 5-1234567/*"),
            ("bytes=5-2000000", "bytes 5-1234567/*"),
            ("bytes=5-6", "bytes 5-6/*"),
            ("bytes=1234567-1234567", "bytes 1234567-1234567/*"),
            ("bytes=1234568-", "416"),
            ("bytes=1234568-1234569", "416"),
            ("bytes=-100", "bytes 1234468-1234567/*"),
            ("bytes=-99999999999", "bytes 0-1234567/*"),
            ("bytes=-0", "416"),
            ("bytes=6-5", "416"),
            ("bytes=abc", "416"),
            ("bytes=1-2,4-5", "whole"),
            ("bytes=", "whole"),
            ("seconds=1-2", "whole"),
            ("BYTES=0-1", "bytes 0-1/*"),
            ("bytes=99999999999999999999999-99999999999999999999999", "416"),
        ];
        table(&[0..1_234_568], true, &rows);
    }

    #[test]
    fn of_a_window_that_moves() {
        let rows = [
            ("bytes=0-", "bytes 1000000-1234567/*"),
            ("bytes=0-9007199254740991", "bytes 1000000-9007199254740991/* open"),
            ("bytes=0-999999", "416"),
            ("bytes=999999-1000000", "bytes 1000000-1000000/*"),
            ("bytes=-9999999", "bytes 1000000-1234567/*"),
        ];
        table(&[1_000_000..1_234_568], true, &rows);
        table(&[0..0], true, &[("bytes=0-", "416"), ("bytes=0-9007199254740991", "bytes 0-9007199254740991/* open")]);
    }

    #[test]
    fn of_a_stream_with_a_hole() {
        let rows = [
            ("bytes=0-", "bytes 0-99/*"),
            ("bytes=50-250", "bytes 50-99/*"),
            ("bytes=100-199", "416"),
            ("bytes=100-250", "bytes 200-250/*"),
            ("bytes=0-9007199254740991", "bytes 0-99/*"),
            ("bytes=200-9007199254740991", "bytes 200-9007199254740991/* open"),
        ];
        table(&[0..100, 200..300], true, &rows);
    }

    #[test]
    fn of_a_stream_that_ended() {
        let rows = [
            ("bytes=0-", "bytes 0-99/100"),
            ("bytes=10-9007199254740991", "bytes 10-99/100"),
            ("bytes=100-", "416"),
            ("bytes=-1", "bytes 99-99/100"),
        ];
        table(&[0..100], false, &rows);
    }
}
