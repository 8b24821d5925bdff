//! H.264: kinds of NAL units and the recovery point message. Source: ISO/IEC 14496-10 table 7-1 and annex D; 14496-15
//! for `avcC`.

use super::SampleEntry;
use super::bits::Bits;
use std::ops::Range;

/// What a NAL unit is, by its first byte, as far as finding a place to decode from goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A slice of a picture from which decoding starts with nothing left over.
    Instant,
    /// A slice of another picture.
    Picture,
    /// Supplemental enhancement information.
    Message,
    Other,
}

pub(crate) fn kind(first: u8) -> Kind {
    match first & 0x1f {
        1 | 2 => Kind::Picture,
        5 => Kind::Instant,
        6 => Kind::Message,
        _ => Kind::Other,
    }
}

/// Bytes of the length before each NAL unit; `None` when the track is not H.264.
pub(crate) fn nal_length_size(moov: &[u8], stsd: Range<usize>) -> Option<usize> {
    let entry = SampleEntry::first(moov, stsd)?;
    if !matches!(&entry.kind, b"avc1" | b"avc3" | b"dvav" | b"dva1") {
        return None;
    }
    let config = entry.child(moov, b"avcC")?;
    moov.get(config.start + 4).filter(|_| config.len() > 4).map(|byte| usize::from(byte & 3) + 1)
}

/// `recovery_frame_cnt` of a recovery point message (payload type 6).
pub(crate) fn recovery_frames(body: &[u8]) -> Option<u32> {
    let plain = unescape(body);
    let mut rest = &plain[..];
    loop {
        let (kind, tail) = message_number(rest)?;
        let (len, tail) = message_number(tail)?;
        if kind == 6 {
            return Bits::new(tail).ue();
        }
        rest = tail.get(len..)?;
    }
}

/// A number coded as a run of 255s and a last byte.
fn message_number(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let run = bytes.iter().take_while(|&&b| b == 0xff).count();
    let last = *bytes.get(run)?;
    Some((run * 255 + usize::from(last), &bytes[run + 1..]))
}

fn unescape(bytes: &[u8]) -> Vec<u8> {
    let mut zeros = 0;
    let mut out = Vec::with_capacity(bytes.len());
    for &byte in bytes {
        if zeros >= 2 && byte == 3 {
            zeros = 0;
            continue;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        out.push(byte);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recovery_point_behind_other_messages() {
        // buffering period (0) of 2 bytes, then recovery point (6): ue 0, exact_match 1.
        assert_eq!(recovery_frames(&[0, 2, 9, 9, 6, 1, 0xc4, 0x80]), Some(0));
        assert_eq!(recovery_frames(&[6, 1, 0b0010_1000, 0x80]), Some(4));
        assert_eq!(recovery_frames(&[5, 3, 1, 2, 3, 0x80]), None);
        assert_eq!(recovery_frames(&[0xff; 64]), None);
    }
}
