//! Boxes of ISO/IEC 14496-12: walking them, and reading big-endian numbers out of them without trust.
//!
//! Must not know what a box means. No recursion: callers walk the levels they know by name.

use std::ops::Range;

/// Children of one container; a container with more holds garbage.
const CHILDREN_MAX: u32 = 65_536;

/// Broken structure: what, and at which byte of the slice that was walked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Broken {
    pub(crate) what: String,
    pub(crate) at: usize,
}

impl Broken {
    pub(crate) fn new(what: impl Into<String>, at: usize) -> Broken {
        Broken { what: what.into(), at }
    }
}

/// One box inside a slice: positions are those of the slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BoxRef {
    pub(crate) kind: [u8; 4],
    pub(crate) start: usize,
    pub(crate) body: Range<usize>,
}

/// The boxes that lie directly in `range` of `bytes`.
pub(crate) struct Children<'a> {
    bytes: &'a [u8],
    at: usize,
    end: usize,
    left: u32,
}

pub(crate) fn children(bytes: &[u8], range: Range<usize>) -> Children<'_> {
    let end = range.end.min(bytes.len());
    Children { bytes, at: range.start.min(end), end, left: CHILDREN_MAX }
}

impl Iterator for Children<'_> {
    type Item = Result<BoxRef, Broken>;

    fn next(&mut self) -> Option<Self::Item> {
        // Fewer than 8 bytes cannot be a box: QuickTime ends some containers with a 32-bit zero.
        if self.end - self.at < 8 {
            return None;
        }
        if self.left == 0 {
            self.at = self.end;
            return Some(Err(Broken::new("more boxes in one container than any file needs", self.at)));
        }
        self.left -= 1;
        let start = self.at;
        let room = self.end - start;
        let kind = kind_at(self.bytes, start + 4);
        let (header, size) = match be32(self.bytes, start) {
            0 => (8, room as u64),
            1 if room >= 16 => (16, be64(self.bytes, start + 8)),
            size => (8, u64::from(size)),
        };
        let fits = usize::try_from(size).ok().filter(|size| (header..=room).contains(size));
        let Some(size) = fits else {
            self.at = self.end;
            let what = format!("box {} of size {size} does not fit its parent", printable(kind));
            return Some(Err(Broken::new(what, start)));
        };
        self.at = start + size;
        Some(Ok(BoxRef { kind, start, body: start + header..start + size }))
    }
}

/// The first child of this kind.
pub(crate) fn find(bytes: &[u8], range: Range<usize>, kind: &[u8; 4]) -> Result<Option<Range<usize>>, Broken> {
    for child in children(bytes, range) {
        let child = child?;
        if &child.kind == kind {
            return Ok(Some(child.body));
        }
    }
    Ok(None)
}

/// Four characters as text, anything unprintable as `.`.
pub(crate) fn printable(kind: [u8; 4]) -> String {
    kind.iter().map(|&b| if (0x20..0x7f).contains(&b) { char::from(b) } else { '.' }).collect()
}

/// The numbers below read 0 beyond the end: every length is checked where a table is opened, and a wrong number can
/// only lead to a wrong answer, never out of bounds.
pub(crate) fn be16(bytes: &[u8], at: usize) -> u16 {
    array(bytes, at).map_or(0, u16::from_be_bytes)
}

pub(crate) fn be24(bytes: &[u8], at: usize) -> u32 {
    array(bytes, at).map_or(0, |[a, b, c]: [u8; 3]| u32::from_be_bytes([0, a, b, c]))
}

pub(crate) fn be32(bytes: &[u8], at: usize) -> u32 {
    array(bytes, at).map_or(0, u32::from_be_bytes)
}

pub(crate) fn be64(bytes: &[u8], at: usize) -> u64 {
    array(bytes, at).map_or(0, u64::from_be_bytes)
}

pub(crate) fn kind_at(bytes: &[u8], at: usize) -> [u8; 4] {
    array(bytes, at).unwrap_or_default()
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(bytes: &[u8]) -> Vec<Result<(String, Range<usize>), usize>> {
        children(bytes, 0..bytes.len()).map(|c| c.map(|c| (printable(c.kind), c.body)).map_err(|e| e.at)).collect()
    }

    #[test]
    fn sizes_32_bit_64_bit_and_to_the_end() {
        let mut bytes = b"\0\0\0\x0afreexx".to_vec();
        bytes.extend(b"\0\0\0\x01mdat\0\0\0\0\0\0\0\x12yy");
        bytes.extend(b"\0\0\0\0moovzzz");
        let expected = [("free", 8..10), ("mdat", 26..28), ("moov", 36..39)];
        let expected: Vec<_> = expected.map(|(k, r)| Ok((k.to_owned(), r))).into();
        assert_eq!(kinds(&bytes), expected);
    }

    #[test]
    fn wrong_sizes_end_the_walk() {
        assert_eq!(kinds(b"\0\0\0\x07free----"), [Err(0)]);
        assert_eq!(kinds(b"\0\0\0\x0dfree----"), [Err(0)]);
        assert_eq!(kinds(b"\0\0\0\x01free\xff\xff\xff\xff\xff\xff\xff\xff"), [Err(0)]);
        // A 64-bit size smaller than its own header, and one without room for it.
        assert_eq!(kinds(b"\0\0\0\x01free\0\0\0\0\0\0\0\x08"), [Err(0)]);
        assert_eq!(kinds(b"\0\0\0\x01free\0\0\0"), [Err(0)]);
        assert_eq!(kinds(b"\0\0\0\0"), []);
    }
}
