//! HEVC: kinds of NAL units. Source: ITU-T H.265 table 7-1; ISO/IEC 14496-15 for `hvcC`.

use super::SampleEntry;
use std::ops::Range;

const RADL_N: u8 = 6;
const RADL_R: u8 = 7;

/// The kind of a unit, by its first byte.
pub(crate) fn unit(first: u8) -> u8 {
    first >> 1 & 0x3f
}

/// Units 0 to 31 carry pictures.
pub fn is_picture(unit: u8) -> bool {
    unit < 32
}

/// A leading picture that decodes without anything before its own random access point.
pub fn is_decodable_leading(unit: u8) -> bool {
    matches!(unit, RADL_N | RADL_R)
}

/// Bytes of the length before each NAL unit; `None` when the track is not HEVC.
pub(crate) fn nal_length_size(moov: &[u8], stsd: Range<usize>) -> Option<usize> {
    let entry = SampleEntry::first(moov, stsd)?;
    if !matches!(&entry.kind, b"hvc1" | b"hev1" | b"dvh1" | b"dvhe") {
        return None;
    }
    let config = entry.child(moov, b"hvcC")?;
    moov.get(config.start + 21).filter(|_| config.len() > 21).map(|byte| usize::from(byte & 3) + 1)
}
