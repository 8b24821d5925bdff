//! A decoded picture: one plane of luma and two of chroma, and what the bitstream says about showing it.
//!
//! Must not know codecs or colours.

use crate::media::still::Colour;

/// One plane, row after row without padding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plane {
    pub width: usize,
    pub height: usize,
    pub samples: Vec<u16>,
}

impl Plane {
    pub fn row(&self, y: usize) -> &[u16] {
        &self.samples[y * self.width..(y + 1) * self.width]
    }
}

/// A picture, cropped to what is shown, 4:2:0 unless the chroma planes are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Planes {
    pub luma: Plane,
    pub chroma: [Plane; 2],
    /// Bits of a sample.
    pub depth: u32,
    /// Of one pixel, where the bitstream says.
    pub pixel_aspect: Option<(u32, u32)>,
    pub colour: Option<Colour>,
}

/// A rectangle of a plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) left: usize,
    pub(crate) top: usize,
    pub(crate) width: usize,
    pub(crate) height: usize,
}

impl Plane {
    /// The window of a plane of `stride` samples per row; `None` when it reaches beyond.
    pub(crate) fn cut<T: Copy + Into<u16>>(samples: &[T], stride: usize, window: Window) -> Option<Plane> {
        let Window { left, top, width, height } = window;
        let mut out = Vec::with_capacity(width.checked_mul(height)?.min(samples.len()));
        for y in top..top.checked_add(height)? {
            let start = y.checked_mul(stride)?.checked_add(left)?;
            let row = samples.get(start..start.checked_add(width)?).filter(|_| left + width <= stride)?;
            out.extend(row.iter().map(|sample| (*sample).into()));
        }
        Some(Plane { width, height, samples: out })
    }

    /// The same window in a plane of half the width and height.
    pub(crate) fn cut_chroma<T: Copy + Into<u16>>(samples: &[T], stride: usize, luma: Window) -> Option<Plane> {
        let half = Window {
            left: luma.left / 2,
            top: luma.top / 2,
            width: luma.width.div_ceil(2),
            height: luma.height.div_ceil(2),
        };
        Self::cut(samples, stride, half)
    }
}

impl Planes {
    /// The luma as a portable graymap (`pgm(5)`): samples as they were decoded, two bytes each above 8 bits.
    pub fn to_pgm(&self) -> Vec<u8> {
        let most = (1u32 << self.depth) - 1;
        let mut out = format!("P5\n{} {}\n{most}\n", self.luma.width, self.luma.height).into_bytes();
        if most < 256 {
            out.extend(self.luma.samples.iter().map(|sample| *sample as u8));
        } else {
            out.extend(self.luma.samples.iter().flat_map(|sample| sample.to_be_bytes()));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_of_planes() {
        let samples: Vec<u8> = (0..12).collect();
        let plane = Plane::cut(&samples, 4, Window { left: 1, top: 1, width: 2, height: 2 }).expect("inside");
        assert_eq!(plane.samples, [5, 6, 9, 10]);
        assert_eq!(plane.row(1), [9, 10]);
        assert!(Plane::cut(&samples, 4, Window { left: 3, top: 0, width: 2, height: 1 }).is_none());
        assert!(Plane::cut(&samples, 4, Window { left: 0, top: 2, width: 4, height: 2 }).is_none());
        let luma = Window { left: 2, top: 0, width: 3, height: 3 };
        let chroma = Plane::cut_chroma(&samples, 4, luma).expect("inside");
        assert_eq!((chroma.width, chroma.height, chroma.samples), (2, 2, vec![1, 2, 5, 6]));
    }

    #[test]
    fn luma_as_a_graymap() {
        let luma = Plane { width: 2, height: 1, samples: vec![16, 235] };
        let planes = Planes { luma: luma.clone(), depth: 8, ..Planes::default() };
        assert_eq!(planes.to_pgm(), b"P5\n2 1\n255\n\x10\xeb");
        assert_eq!(Planes { luma, depth: 10, ..Planes::default() }.to_pgm(), b"P5\n2 1\n1023\n\0\x10\0\xeb");
    }
}
