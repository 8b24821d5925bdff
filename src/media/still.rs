//! What a decoder needs for one frame: the coded pictures from its keyframe on, and how the picture is to be shown.
//!
//! PURE. Plans are made from an index ([`super::index::Index::still`]); nothing here decodes. Must not know decoders.

use super::ReadAt;
use super::index::SeekError;

/// Coded pictures between a keyframe and the frame at most: two minutes at 60 per second.
pub(crate) const UNITS_MAX: usize = 7200;

/// What pictures are coded in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Coding {
    H264,
    Hevc,
    Av1,
    /// Named as the track names it.
    Other(String),
}

impl Coding {
    /// By the four characters of a sample entry, with which codec strings begin.
    pub(crate) fn of(codec: &str) -> Self {
        match codec.get(..4).unwrap_or_default() {
            "avc1" | "avc2" | "avc3" | "avc4" => Self::H264,
            "hvc1" | "hev1" => Self::Hevc,
            "av01" => Self::Av1,
            _ => Self::Other(codec.to_owned()),
        }
    }
}

/// How the container says that pictures are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Display {
    pub orientation: Orientation,
    /// Width to height of one pixel; `None` where the container does not say.
    pub pixel_aspect: Option<(u32, u32)>,
    pub colour: Option<Colour>,
}

/// Mirroring and turning: first the axes are swapped, then each may run backwards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Orientation {
    pub transpose: bool,
    pub flip_x: bool,
    pub flip_y: bool,
}

/// How luma and chroma become red, green and blue (ITU-T H.273).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Colour {
    /// `MatrixCoefficients`; 2 is unspecified.
    pub matrix: u8,
    /// Samples use all values; otherwise luma 16 to 235 and chroma 16 to 240, of 8 bits.
    pub full_range: bool,
}

/// One frame, ready to be read and decoded.
#[derive(Debug)]
pub struct Still {
    /// Its number, in presentation order.
    pub frame: u64,
    pub coding: Coding,
    /// Parameter sets from outside the coded pictures: NAL units behind start codes; OBUs of AV1.
    pub setup: Vec<u8>,
    pub display: Display,
    pub(crate) units: Units,
}

/// Coded pictures in decoding order.
#[derive(Debug)]
pub(crate) enum Units {
    /// In the file, each NAL unit behind its length of so many bytes; whole where that is `None`. The last is wanted.
    Samples { places: Vec<(u64, u32)>, length_size: Option<usize> },
    /// Taken out of packets; from `wanted` on they are parts of the frame.
    Packets { units: Vec<Vec<u8>>, wanted: usize },
}

impl Still {
    /// Coded pictures that are at hand, the last of them wanted.
    pub fn of_units(coding: Coding, units: Vec<Vec<u8>>) -> Self {
        let wanted = units.len().saturating_sub(1);
        let units = Units::Packets { units, wanted };
        Self { frame: 0, coding, setup: Vec::new(), display: Display::default(), units }
    }

    /// Number of units.
    pub fn len(&self) -> usize {
        match &self.units {
            Units::Samples { places, .. } => places.len(),
            Units::Packets { units, .. } => units.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first unit of the frame itself; those before it are what it refers to.
    pub fn wanted(&self) -> usize {
        match &self.units {
            Units::Samples { places, .. } => places.len().saturating_sub(1),
            Units::Packets { wanted, .. } => *wanted,
        }
    }

    /// Unit `n`, in the form in which decoders take it: NAL units behind start codes, or OBUs.
    pub fn unit(&self, src: &dyn ReadAt, n: usize) -> Result<Vec<u8>, SeekError> {
        match &self.units {
            Units::Packets { units, .. } => Ok(units.get(n).cloned().unwrap_or_default()),
            Units::Samples { places, length_size } => {
                let Some(&(offset, size)) = places.get(n) else { return Ok(Vec::new()) };
                if offset.saturating_add(u64::from(size)) > src.size() {
                    return Err(SeekError::Damaged(format!("a sample of {size} bytes at byte {offset} is cut off")));
                }
                let mut bytes = vec![0; size as usize];
                src.read_exact_at(offset, &mut bytes)?;
                match length_size {
                    Some(length_size) => start_codes(&bytes, *length_size),
                    None => Ok(bytes),
                }
            }
        }
    }
}

/// The plan names too many coded pictures or bytes.
pub(crate) fn too_far(what: &str) -> SeekError {
    SeekError::Unanswerable(format!("this frame is too far behind its keyframe to be decoded: {what}"))
}

/// Replaces the length before each NAL unit by a start code.
fn start_codes(sample: &[u8], length_size: usize) -> Result<Vec<u8>, SeekError> {
    let mut out = Vec::with_capacity(sample.len() + 16);
    let mut rest = sample;
    while !rest.is_empty() {
        let unit = rest.split_at_checked(length_size).and_then(|(length, after)| {
            let length = length.iter().fold(0usize, |sum, byte| sum << 8 | usize::from(*byte));
            after.split_at_checked(length)
        });
        let Some((unit, after)) = unit else {
            return Err(SeekError::Damaged("a NAL unit reaches beyond its sample".to_owned()));
        };
        push_unit(&mut out, unit);
        rest = after;
    }
    Ok(out)
}

/// The NAL units of a byte stream (ISO/IEC 14496-10 annex B): each with its start code, and what follows that.
pub fn nal_units(stream: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut at = next_start(stream, 0);
    std::iter::from_fn(move || {
        let start = at?;
        let end = next_start(stream, start + 3);
        at = end;
        let whole = &stream[start..end.unwrap_or(stream.len())];
        Some((whole, &whole[3..]))
    })
}

/// Where the next start code begins, at or after `from`.
fn next_start(stream: &[u8], from: usize) -> Option<usize> {
    let rest = stream.get(from..)?;
    rest.windows(3).position(|code| code == [0, 0, 1]).map(|found| from + found)
}

/// Appends a NAL unit behind a start code.
pub(crate) fn push_unit(out: &mut Vec<u8>, unit: &[u8]) {
    if !unit.is_empty() {
        out.extend_from_slice(&[0, 0, 0, 1]);
        out.extend_from_slice(unit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_become_start_codes() {
        let sample = [0, 2, 0x67, 1, 0, 0, 0, 1, 0x68];
        assert_eq!(start_codes(&sample, 2).expect("whole"), [0, 0, 0, 1, 0x67, 1, 0, 0, 0, 1, 0x68]);
        assert!(start_codes(&sample[..4], 2).is_ok_and(|out| out == [0, 0, 0, 1, 0x67, 1]));
        assert!(start_codes(&[0, 3, 1], 2).is_err());
        assert!(start_codes(&[0], 4).is_err());
    }

    #[test]
    fn units_of_a_stream() {
        let stream = [9, 0, 0, 0, 1, 0x67, 5, 0, 0, 1, 0x68, 0, 0, 1];
        let bodies: Vec<_> = nal_units(&stream).map(|(_, body)| body).collect();
        assert_eq!(bodies, [&[0x67, 5][..], &[0x68], &[]]);
        assert_eq!(nal_units(&stream).next().map(|(whole, _)| whole), Some(&[0, 0, 1, 0x67, 5][..]));
        assert_eq!(nal_units(&[0, 0]).count(), 0);
    }
}
