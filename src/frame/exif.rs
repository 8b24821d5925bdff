//! How a JPEG from a camera is to be turned: the orientation in its Exif data (Exif 2.3 §4.6.4, TIFF 6.0 §2).
//!
//! Pure. Whatever is damaged or missing turns nothing: it is the picture that counts. Must not know JPEG.

use crate::media::still::Orientation;

const HEADER: &[u8] = b"Exif\0\0";
/// The tag `Orientation`, the type SHORT, and what an entry of a directory takes.
const TAG: u16 = 0x0112;
const SHORT: u16 = 3;
const ENTRY_BYTES: usize = 12;

/// Of Exif data, with its header or without.
pub fn orientation(exif: &[u8]) -> Orientation {
    turned(value(exif.strip_prefix(HEADER).unwrap_or(exif)).unwrap_or(1))
}

/// The value of the tag in the first directory.
fn value(tiff: &[u8]) -> Option<u16> {
    let little = match tiff.get(..4)? {
        b"II*\0" => true,
        b"MM\0*" => false,
        _ => return None,
    };
    let u16_at = |at: usize| {
        let bytes: [u8; 2] = tiff.get(at..at.checked_add(2)?)?.try_into().ok()?;
        Some(if little { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) })
    };
    let (first, second) = (u16_at(4)?, u16_at(6)?);
    let (low, high) = if little { (first, second) } else { (second, first) };
    let directory = usize::from(high) << 16 | usize::from(low);
    let entries = directory.checked_add(2)?;
    let mut places = (0..usize::from(u16_at(directory)?)).map(|n| entries.saturating_add(n * ENTRY_BYTES));
    let place = places.find(|place| u16_at(*place) == Some(TAG))?;
    (u16_at(place + 2)? == SHORT).then(|| u16_at(place + 8))?
}

/// Which side row 0 and column 0 are: 1 top left, 2 top right, 3 bottom right, 4 bottom left, 5 left top, 6 right top,
/// 7 right bottom, 8 left bottom.
fn turned(value: u16) -> Orientation {
    let (transpose, flip_x, flip_y) = match value {
        2 => (false, true, false),
        3 => (false, true, true),
        4 => (false, false, true),
        5 => (true, false, false),
        6 => (true, true, false),
        7 => (true, true, true),
        8 => (true, false, true),
        _ => (false, false, false),
    };
    Orientation { transpose, flip_x, flip_y }
}

/// The Exif data of a picture with this orientation, for tests.
#[cfg(test)]
pub(super) fn example(value: u16, little: bool) -> Vec<u8> {
    let n16 = |n: u16| if little { n.to_le_bytes() } else { n.to_be_bytes() };
    let n32 = |n: u32| if little { n.to_le_bytes() } else { n.to_be_bytes() };
    let mark: &[u8] = if little { b"II*\0" } else { b"MM\0*" };
    let mut exif = [HEADER, mark, &n32(8), &n16(2)].concat();
    // Another tag first: ImageWidth as a LONG.
    exif.extend([&n16(0x0100)[..], &n16(4), &n32(1), &n32(20)].concat());
    exif.extend([&n16(TAG)[..], &n16(SHORT), &n32(1), &n16(value), &n16(0), &n32(0)].concat());
    exif
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_byte_order_is_read() {
        let clockwise = Orientation { transpose: true, flip_x: true, flip_y: false };
        for little in [false, true] {
            assert_eq!(orientation(&example(6, little)), clockwise);
            assert_eq!(orientation(&example(6, little)[HEADER.len()..]), clockwise, "without the header");
            assert_eq!(orientation(&example(1, little)), Orientation::default());
            assert_eq!(orientation(&example(9, little)), Orientation::default(), "no such value");
        }
    }

    #[test]
    fn damage_turns_nothing_and_is_no_panic() {
        let whole = example(6, true);
        // The directory's last four bytes, which say where the next is, are not needed.
        for len in 0..whole.len() - 6 {
            assert_eq!(orientation(&whole[..len]), Orientation::default(), "{len}");
        }
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] = 0xff;
            let _ = orientation(&changed);
        }
    }
}
