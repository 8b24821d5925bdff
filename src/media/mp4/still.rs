//! One frame of an MP4 for a decoder: its samples from the keyframe on, its parameter sets, and how it is shown.
//!
//! Sources: ISO/IEC 14496-12 §8.3.2 (matrix), §12.1.4 and §12.1.5 (`pasp`, `colr`), ISO/IEC 14496-15 (`avcC`, `hvcC`),
//! AV1-ISOBMFF (`av1C`). Must not know decoders.

use super::boxes::{be16, be32};
use super::seek::Seeker;
use crate::media::codec::SampleEntry;
use crate::media::index::{Position, SeekError};
use crate::media::still::{Coding, Colour, Display, Orientation, Still, UNITS_MAX, Units, push_unit, too_far};
use std::ops::Range;

/// Plans the frame at a moment; its coded pictures may have `bytes_max` bytes together.
pub(crate) fn plan(seeker: &Seeker<'_>, position: &Position, bytes_max: u64) -> Result<Still, SeekError> {
    seeker.need_picture("still frames")?;
    let (number, _) = seeker.resolve_number(position)?;
    let start = seeker.start_of(number)?;
    let view = seeker.frames.view;
    let mut places = Vec::new();
    let mut bytes = 0u64;
    let mut description = 1;
    for sample in view.cursor(seeker.frames.src, start.track, start.key.index) {
        let sample = sample?;
        bytes = bytes.saturating_add(u64::from(sample.size));
        if places.len() == UNITS_MAX || bytes > bytes_max {
            return Err(too_far(&format!("at most {UNITS_MAX} pictures and {bytes_max} bytes are")));
        }
        places.push((sample.offset, sample.size));
        description = sample.description;
        if sample.index >= start.frame.index {
            break;
        }
    }
    let trak = view.trak(start.track);
    let missing = || SeekError::Damaged("the track does not say how it is coded".to_owned());
    let entry = SampleEntry::nth(view.moov, trak.stsd.clone(), description).ok_or_else(missing)?;
    let coding = Coding::of(&entry.codec(view.moov));
    let (setup, length_size) = setup(view.moov, &entry, &coding).ok_or_else(missing)?;
    let display = Display {
        orientation: orientation(view.moov.get(trak.tkhd.clone()).unwrap_or_default()),
        pixel_aspect: entry.child(view.moov, b"pasp").and_then(|pasp| pixel_aspect(view.moov.get(pasp)?)),
        colour: entry.child(view.moov, b"colr").and_then(|colr| colour(view.moov.get(colr)?)),
    };
    Ok(Still { frame: number, coding, setup, display, units: Units::Samples { places, length_size } })
}

/// Parameter sets behind start codes, and how many bytes the lengths in samples have.
fn setup(moov: &[u8], entry: &SampleEntry, coding: &Coding) -> Option<(Vec<u8>, Option<usize>)> {
    let config = |kind: &[u8; 4]| moov.get(entry.child(moov, kind)?);
    match coding {
        Coding::H264 => {
            let config = config(b"avcC")?;
            let mut out = Vec::new();
            let sets = usize::from(config.get(5)? & 31);
            let at = parameter_sets(config, 6, sets, &mut out)?;
            let sets = usize::from(*config.get(at)?);
            parameter_sets(config, at + 1, sets, &mut out)?;
            Some((out, Some(usize::from(config[4] & 3) + 1)))
        }
        Coding::Hevc => {
            let config = config(b"hvcC")?;
            let mut out = Vec::new();
            let mut at = 23;
            for _ in 0..*config.get(22)? {
                let sets = usize::from(be16(config.get(..at + 3)?, at + 1));
                at = parameter_sets(config, at + 3, sets, &mut out)?;
            }
            Some((out, Some(usize::from(config[21] & 3) + 1)))
        }
        Coding::Av1 => Some((config(b"av1C")?.get(4..)?.to_vec(), None)),
        Coding::Other(_) => Some((Vec::new(), None)),
    }
}

/// Copies `sets` NAL units, each behind its length in two bytes; returns where they end.
fn parameter_sets(config: &[u8], mut at: usize, sets: usize, out: &mut Vec<u8>) -> Option<usize> {
    for _ in 0..sets {
        let length = usize::from(be16(config.get(..at + 2)?, at));
        push_unit(out, config.get(at + 2..at + 2 + length)?);
        at += 2 + length;
    }
    Some(at)
}

/// The matrix of `tkhd`: a point (x, y) goes to (a·x + c·y, b·x + d·y), and y points down.
fn orientation(tkhd: &[u8]) -> Orientation {
    let Some(matrix) = tkhd.len().checked_sub(44).and_then(|at| tkhd.get(at..at + 36)) else {
        return Orientation::default();
    };
    let value = |n: usize| be32(matrix, 4 * n) as i32;
    let (a, b, c, d) = (value(0), value(1), value(3), value(4));
    if a.unsigned_abs() >= b.unsigned_abs() {
        return Orientation { transpose: false, flip_x: a < 0, flip_y: d < 0 };
    }
    Orientation { transpose: true, flip_x: c < 0, flip_y: b < 0 }
}

fn pixel_aspect(pasp: &[u8]) -> Option<(u32, u32)> {
    let pasp = pasp.get(..8)?;
    Some((be32(pasp, 0), be32(pasp, 4))).filter(|(width, height)| *width > 0 && *height > 0)
}

/// `nclx`, and QuickTime's `nclc`, which has no range.
fn colour(colr: &[u8]) -> Option<Colour> {
    let kind: Range<usize> = 0..4;
    let (numbers, full_range) = match colr.get(kind)? {
        b"nclx" => (colr.get(4..11)?, colr[10] & 0x80 != 0),
        b"nclc" => (colr.get(4..10)?, false),
        _ => return None,
    };
    Some(Colour { matrix: u8::try_from(be16(numbers, 4)).ok()?, full_range })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matrices_of_the_four_turns_and_a_mirror() {
        let tkhd = |a: i32, b: i32, c: i32, d: i32| {
            let mut body = vec![0; 40];
            for value in [a, b, 0, c, d, 0, 0, 0, 0x4000] {
                body.extend((value * 0x1_0000).to_be_bytes());
            }
            body.extend([0; 8]);
            orientation(&body)
        };
        let of = |transpose, flip_x, flip_y| Orientation { transpose, flip_x, flip_y };
        assert_eq!(tkhd(1, 0, 0, 1), of(false, false, false));
        // Clockwise by 90°: what points right points down.
        assert_eq!(tkhd(0, 1, -1, 0), of(true, true, false));
        assert_eq!(tkhd(-1, 0, 0, -1), of(false, true, true));
        assert_eq!(tkhd(0, -1, 1, 0), of(true, false, true));
        assert_eq!(tkhd(-1, 0, 0, 1), of(false, true, false));
        assert_eq!(orientation(&[0; 12]), of(false, false, false));
    }

    #[test]
    fn colours_and_pixels() {
        let bt709 = Some(Colour { matrix: 1, full_range: false });
        assert_eq!(colour(b"nclx\0\x01\0\x01\0\x01\0"), bt709);
        assert_eq!(colour(b"nclc\0\x01\0\x01\0\x01"), bt709);
        assert_eq!(colour(b"nclx\0\x05\0\x06\0\x06\x80"), Some(Colour { matrix: 6, full_range: true }));
        assert_eq!((colour(b"prof...."), colour(b"nclx\0")), (None, None));
        assert_eq!(pixel_aspect(&[0, 0, 0, 16, 0, 0, 0, 11]), Some((16, 11)));
        assert_eq!(pixel_aspect(&[0; 8]), None);
    }
}
