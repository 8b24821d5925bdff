//! Sample entries: codec strings (RFC 6381, ISO/IEC 14496-15 annex E, AV1-ISOBMFF, VP9 in ISOBMFF) and audio format.

use crate::media::mp4::boxes::{be16, be32, be64, children, find, printable};
use std::ops::Range;

/// One entry of `stsd`.
#[derive(Clone, Debug)]
pub(crate) struct SampleEntry {
    pub(crate) kind: [u8; 4],
    /// Of the entry's header.
    pub(crate) start: usize,
    body: Range<usize>,
}

impl SampleEntry {
    /// The first entry of an `stsd` body.
    pub(crate) fn first(moov: &[u8], stsd: Range<usize>) -> Option<SampleEntry> {
        Self::nth(moov, stsd, 1)
    }

    /// The entry that samples name by this number, from 1.
    pub(crate) fn nth(moov: &[u8], stsd: Range<usize>, number: u32) -> Option<SampleEntry> {
        let nth = usize::try_from(number).ok()?.checked_sub(1)?;
        let entry = children(moov, stsd.start.checked_add(8)?..stsd.end).nth(nth)?.ok()?;
        Some(SampleEntry { kind: entry.kind, start: entry.start, body: entry.body })
    }

    /// A box inside the entry, in the place where video, audio or QuickTime audio entries have theirs.
    pub(crate) fn child(&self, moov: &[u8], kind: &[u8; 4]) -> Option<Range<usize>> {
        // Bytes before the children: visual entries 78, audio 28, QuickTime audio 16 more in version 1, 36 in 2.
        [78, 28, 44, 64].into_iter().find_map(|skip| {
            let inner = self.body.start.checked_add(skip).filter(|at| *at < self.body.end)?..self.body.end;
            let direct = find(moov, inner.clone(), kind).ok()?;
            direct.or_else(|| find(moov, find(moov, inner, b"wave").ok()??, kind).ok()?)
        })
    }

    /// Sample rate and channels of an audio entry.
    pub(crate) fn audio(&self, moov: &[u8]) -> (u32, u16) {
        let at = self.start;
        if be16(moov, at + 16) == 2 {
            let rate = f64::from_bits(be64(moov, at + 40));
            return (rate as u32, u16::try_from(be32(moov, at + 48)).unwrap_or(0));
        }
        (be32(moov, at + 32) >> 16, be16(moov, at + 24))
    }

    /// The codec string; the four characters where there is no rule or the configuration is missing.
    pub(crate) fn codec(&self, moov: &[u8]) -> String {
        let plain = printable(self.kind).trim_end().to_owned();
        let config = |kind| self.child(moov, kind).and_then(|range| moov.get(range));
        let string = match &self.kind {
            b"avc1" | b"avc3" | b"dvav" | b"dva1" => config(b"avcC").and_then(avc),
            b"hvc1" | b"hev1" => config(b"hvcC").and_then(hevc),
            b"av01" => config(b"av1C").and_then(av1),
            b"vp08" | b"vp09" => config(b"vpcC").and_then(vp9),
            b"mp4a" | b"mp4v" => config(b"esds").and_then(|esds| mpeg4(esds.get(4..)?)),
            b".mp3" => return "mp4a.6B".to_owned(),
            b"fLaC" => return "flac".to_owned(),
            _ => None,
        };
        string.map_or(plain.clone(), |rest| format!("{plain}.{rest}"))
    }
}

fn avc(config: &[u8]) -> Option<String> {
    let [_, profile, constraints, level, ..] = *config else { return None };
    Some(format!("{profile:02x}{constraints:02x}{level:02x}"))
}

fn hevc(config: &[u8]) -> Option<String> {
    let head = config.get(..13)?;
    let space = ["", "A", "B", "C"][usize::from(head[1] >> 6)];
    let tier = if head[1] & 0x20 != 0 { 'H' } else { 'L' };
    let (profile, level) = (head[1] & 0x1f, head[12]);
    let compatibility = be32(head, 2).reverse_bits();
    let mut string = format!("{space}{profile}.{compatibility:X}.{tier}{level}");
    // Constraint bytes, without trailing zeros.
    let constraints = &head[6..12];
    let used = constraints.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    for byte in &constraints[..used] {
        string.push_str(&format!(".{byte:X}"));
    }
    Some(string)
}

fn av1(config: &[u8]) -> Option<String> {
    let [_, profile_level, flags, ..] = *config else { return None };
    let tier = if flags & 0x80 != 0 { 'H' } else { 'M' };
    let depth = match flags >> 5 & 3 {
        0 => 8,
        2 => 10,
        _ => 12,
    };
    Some(format!("{}.{:02}{tier}.{depth:02}", profile_level >> 5, profile_level & 31))
}

fn vp9(config: &[u8]) -> Option<String> {
    // Version and flags, then profile, level, and the bit depth in the upper half of the next byte.
    let (profile, level, depth) = (config.get(4)?, config.get(5)?, config.get(6)? >> 4);
    Some(format!("{profile:02}.{level:02}.{depth:02}"))
}

/// Object type of an ES descriptor, and for MPEG-4 audio the audio object type.
fn mpeg4(mut bytes: &[u8]) -> Option<String> {
    let es = descriptor(&mut bytes, 3)?;
    let flags = *es.get(2)?;
    let mut skip = 3;
    skip += if flags & 0x80 != 0 { 2 } else { 0 };
    if flags & 0x40 != 0 {
        skip += 1 + usize::from(*es.get(skip)?);
    }
    skip += if flags & 0x20 != 0 { 2 } else { 0 };
    let mut rest = es.get(skip..)?;
    let config = descriptor(&mut rest, 4)?;
    let object_type = *config.first()?;
    let mut rest = config.get(13..)?;
    let specific = descriptor(&mut rest, 5);
    match (object_type, specific) {
        (0x40, Some([first, second, ..])) if first >> 3 == 31 => {
            Some(format!("40.{}", 32 + ((first & 7) << 3 | second >> 5)))
        }
        (0x40, Some([first, ..])) => Some(format!("40.{}", first >> 3)),
        (0x20, Some([0, 0, 1, 0xb0, profile, ..])) => Some(format!("20.{profile}")),
        _ => Some(format!("{object_type:02X}")),
    }
}

/// The body of the next descriptor if it has this tag (ISO/IEC 14496-1 section 8.3.3).
fn descriptor<'a>(bytes: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    let (&found, mut rest) = bytes.split_first()?;
    let mut len = 0usize;
    for _ in 0..4 {
        let (&byte, after) = rest.split_first()?;
        rest = after;
        len = len << 7 | usize::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            break;
        }
    }
    let body = rest.get(..len.min(rest.len()))?;
    *bytes = rest.get(body.len()..)?;
    (found == tag).then_some(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_of_the_specifications() {
        // ISO/IEC 14496-15 E.3: main profile, compatible with main and main 10, level 3.1, progressive frames only.
        let hvcc = [1, 1, 0x60, 0, 0, 0, 0xb0, 0, 0, 0, 0, 0, 93];
        assert_eq!(hevc(&hvcc).as_deref(), Some("1.6.L93.B0"));
        assert_eq!(avc(&[1, 0x64, 0, 0x1e]).as_deref(), Some("64001e"));
        // AV1-ISOBMFF section 5: av01.0.04M.10.
        assert_eq!(av1(&[0x81, 4, 0x40, 0]).as_deref(), Some("0.04M.10"));
        assert_eq!(vp9(&[1, 0, 0, 0, 2, 10, 0xa0]).as_deref(), Some("02.10.10"));
        let esds = [3, 0x19, 0, 1, 0, 4, 0x11, 0x40, 0x15, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 2, 0x12, 0x10];
        assert_eq!(mpeg4(&esds).as_deref(), Some("40.2"));
        assert_eq!(mpeg4(&esds[..9]), None);
    }
}
