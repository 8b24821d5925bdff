//! `multipart/byteranges` (RFC 9110 §14.6, RFC 2046 §5.1.1): the body as a plan whose length is exact before a byte
//! is sent.
//!
//! PURE: ranges in, pieces out. Must not know: files, randomness (the boundary is an argument), axum.

use super::range::content_range;
use crate::media::slices::Piece;
use bytes::Bytes;
use std::fmt::Write;
use std::ops::Range;

/// A boundary of 48 hexadecimal digits (RFC 2046 §5.1.1 allows 70 characters). 192 random bits do not occur in the
/// content by chance, and nobody can have put them there.
pub fn boundary(random: [u8; 24]) -> String {
    random.iter().fold(String::with_capacity(48), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A planned body.
#[derive(Clone, Debug)]
pub struct Multipart {
    /// Value of the response's own `Content-Type`.
    pub content_type: String,
    /// Sum of all pieces.
    pub content_length: u64,
    /// Alternating headers and content, then the closing delimiter. `Source` offsets count from the start of the
    /// representation whose ranges these are.
    pub pieces: Vec<Piece>,
}

/// Plans the body for `ranges` of a representation of `len` bytes whose own type is `part_type`. The ranges are what
/// `range::Resolved::Many` holds: disjoint, not empty, within `len`.
pub fn plan(boundary: &str, part_type: &str, ranges: &[Range<u64>], len: u64) -> Multipart {
    let mut pieces = Vec::with_capacity(ranges.len() * 2 + 1);
    let mut line_break = "";
    for range in ranges {
        let content_range = content_range(range, len);
        let head =
            format!("{line_break}--{boundary}\r\nContent-Type: {part_type}\r\nContent-Range: {content_range}\r\n\r\n");
        pieces.push(Piece::Generated(Bytes::from(head)));
        pieces.push(Piece::Source { offset: range.start, len: range.end.saturating_sub(range.start) });
        // The CRLF before a delimiter belongs to the delimiter.
        line_break = "\r\n";
    }
    pieces.push(Piece::Generated(Bytes::from(format!("{line_break}--{boundary}--\r\n"))));
    // Disjoint ranges of a file and 16 small headers do not come near 2^64.
    let content_length = pieces.iter().map(piece_len).fold(0, u64::saturating_add);
    Multipart { content_type: format!("multipart/byteranges; boundary={boundary}"), content_length, pieces }
}

fn piece_len(piece: &Piece) -> u64 {
    match piece {
        Piece::Generated(bytes) => bytes.len() as u64,
        Piece::Source { len, .. } => *len,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(plan: &Multipart, content: &[u8]) -> Vec<u8> {
        let mut body = Vec::new();
        for piece in &plan.pieces {
            match piece {
                Piece::Generated(bytes) => body.extend_from_slice(bytes),
                Piece::Source { offset, len } => {
                    body.extend_from_slice(&content[*offset as usize..(*offset + *len) as usize]);
                }
            }
        }
        body
    }

    /// The shape of the example in RFC 9110 §15.3.7.2.
    #[test]
    fn body_byte_by_byte() {
        let content = b"0123456789abcdefghij";
        let plan = plan("SEP", "video/mp4", &[0..2, 17..20], 20);
        let expected = "--SEP\r\nContent-Type: video/mp4\r\nContent-Range: bytes 0-1/20\r\n\r\n01\r\n\
            --SEP\r\nContent-Type: video/mp4\r\nContent-Range: bytes 17-19/20\r\n\r\nhij\r\n--SEP--\r\n";
        assert_eq!(String::from_utf8(render(&plan, content)).expect("ASCII"), expected);
        assert_eq!(plan.content_length, expected.len() as u64);
        assert_eq!(plan.content_type, "multipart/byteranges; boundary=SEP");
    }

    #[test]
    fn length_is_known_without_the_content() {
        let tib = 1 << 40;
        let plan = plan("SEP", "video/mp4", &[0..tib, 2 * tib..3 * tib], 3 * tib);
        let heads: usize = [
            "--SEP\r\nContent-Type: video/mp4\r\nContent-Range: bytes 0-1099511627775/3298534883328\r\n\r\n",
            "\r\n--SEP\r\nContent-Type: video/mp4\r\n",
            "Content-Range: bytes 2199023255552-3298534883327/3298534883328\r\n\r\n",
            "\r\n--SEP--\r\n",
        ]
        .iter()
        .map(|text| text.len())
        .sum();
        assert_eq!(plan.content_length, 2 * tib + heads as u64);
    }

    #[test]
    fn boundary_is_legal() {
        let boundary = boundary([0xa5; 24]);
        assert_eq!(boundary, "a5".repeat(24));
        assert!(boundary.len() <= 70);
    }
}
