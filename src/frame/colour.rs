//! Luma and chroma to red, green and blue (ITU-T H.273 §8.3), in floating point.
//!
//! Chroma is sited as 4:2:0 video has it: on the left of two luma samples, between two rows. Must not know codecs.

use super::image::Image;
use super::planes::{Plane, Planes};
use crate::media::still::Colour;

/// Weights of red and blue in luma.
struct Weights {
    red: f32,
    blue: f32,
}

/// Of `MatrixCoefficients`; where those say nothing, players take BT.709 for HD and BT.601 below.
fn weights(matrix: u8, width: usize, height: usize) -> Weights {
    let (red, blue) = match matrix {
        1 => (0.2126, 0.0722),
        4 => (0.30, 0.11),
        5 | 6 => (0.299, 0.114),
        7 => (0.212, 0.087),
        9 | 10 => (0.2627, 0.0593),
        _ if width >= 1280 || height >= 720 => (0.2126, 0.0722),
        _ => (0.299, 0.114),
    };
    Weights { red, blue }
}

/// What a sample stands for, from its bits: `value = (sample - zero) * scale`.
struct Range {
    zero: f32,
    scale: f32,
}

impl Range {
    fn luma(depth: u32, full: bool) -> Self {
        let unit = (1u32 << (depth - 8)) as f32;
        if full {
            Self { zero: 0.0, scale: 1.0 / most(depth) }
        } else {
            Self { zero: 16.0 * unit, scale: 1.0 / (219.0 * unit) }
        }
    }

    fn chroma(depth: u32, full: bool) -> Self {
        let unit = (1u32 << (depth - 8)) as f32;
        Self { zero: 128.0 * unit, scale: if full { 1.0 / most(depth) } else { 1.0 / (224.0 * unit) } }
    }
}

fn most(depth: u32) -> f32 {
    ((1u32 << depth) - 1) as f32
}

/// The pixels of a picture. The bitstream's word on colour counts before the container's, as in FFmpeg.
pub fn to_rgb(planes: &Planes, container: Option<Colour>) -> Image {
    let (width, height) = (planes.luma.width, planes.luma.height);
    let known = [planes.colour, container].into_iter().flatten().find(|colour| colour.matrix != 2);
    let full = planes.colour.or(container).is_some_and(|colour| colour.full_range);
    let Weights { red, blue } = weights(known.map_or(2, |colour| colour.matrix), width, height);
    let green = 1.0 - red - blue;
    let depth = planes.depth.clamp(8, 16);
    let (luma, chroma) = (Range::luma(depth, full), Range::chroma(depth, full));
    let mut pixels = vec![0u8; width * height * 3];
    let mut rows = [vec![0.0f32; width], vec![0.0f32; width]];
    for (y, out) in pixels.chunks_exact_mut((width * 3).max(1)).enumerate() {
        for (row, plane) in rows.iter_mut().zip(&planes.chroma) {
            chroma_row(plane, y, &chroma, row);
        }
        let [blueness, redness] = &rows;
        let samples = planes.luma.row(y).iter().zip(blueness.iter().zip(redness));
        for (pixel, (sample, (cb, cr))) in out.as_chunks_mut::<3>().0.iter_mut().zip(samples) {
            let luma = (f32::from(*sample) - luma.zero) * luma.scale;
            let r = luma + 2.0 * (1.0 - red) * cr;
            let b = luma + 2.0 * (1.0 - blue) * cb;
            let g = (luma - red * r - blue * b) / green;
            *pixel = [to_byte(r), to_byte(g), to_byte(b)];
        }
    }
    Image { width, height, pixels, alpha: None }
}

/// Row `y` of the picture out of a chroma plane of half its size; zeros where there is none.
fn chroma_row(plane: &Plane, y: usize, range: &Range, out: &mut [f32]) {
    if plane.samples.is_empty() {
        return;
    }
    let near = plane.row((y / 2).min(plane.height - 1));
    let beside = if y.is_multiple_of(2) { (y / 2).saturating_sub(1) } else { y / 2 + 1 };
    let far = plane.row(beside.min(plane.height - 1));
    let at = |x: usize| 0.75 * f32::from(near[x]) + 0.25 * f32::from(far[x]);
    for (x, value) in out.iter_mut().enumerate() {
        let left = (x / 2).min(plane.width - 1);
        let sample =
            if x.is_multiple_of(2) { at(left) } else { 0.5 * (at(left) + at((left + 1).min(plane.width - 1))) };
        *value = (sample - range.zero) * range.scale;
    }
}

/// A value in 0..1 as a byte, clamped.
pub(crate) fn to_byte(value: f32) -> u8 {
    (value * 255.0 + 0.5) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(y: u16, cb: u16, cr: u16, depth: u32, colour: Colour) -> [u8; 3] {
        let plane = |sample| Plane { width: 1, height: 1, samples: vec![sample] };
        let planes = Planes { luma: plane(y), chroma: [plane(cb), plane(cr)], depth, ..Planes::default() };
        let image = to_rgb(&planes, Some(colour));
        [image.pixels[0], image.pixels[1], image.pixels[2]]
    }

    /// 75 % colour bars in 8 bits: grey, yellow and blue of BT.709, red of BT.601; 191 is three quarters of 255. The
    /// expected values were worked out with a calculator from H.273 (equations 39 to 44).
    #[test]
    fn colour_bars() {
        let bt709 = Colour { matrix: 1, full_range: false };
        let bt601 = Colour { matrix: 6, full_range: false };
        assert_eq!(one(180, 128, 128, 8, bt709), [191, 191, 191]);
        assert_eq!(one(168, 44, 136, 8, bt709), [191, 191, 0]);
        assert_eq!(one(28, 212, 120, 8, bt709), [0, 0, 191]);
        assert_eq!(one(65, 100, 212, 8, bt601), [191, 0, 1]);
        assert_eq!(one(16, 128, 128, 8, bt709), [0, 0, 0]);
        assert_eq!(one(235, 128, 128, 8, bt709), [255, 255, 255]);
        assert_eq!(one(940, 512, 512, 10, bt709), [255, 255, 255]);
        assert_eq!(one(16, 128, 128, 8, Colour { matrix: 1, full_range: true }), [16, 16, 16]);
    }
}
