//! An image of red, green and blue bytes: scaled and turned.
//!
//! Must not know where it comes from, or formats of files.

use super::{FrameError, Limits};
use crate::media::still::Orientation;
use fast_image_resize::images::{Image as Buffer, ImageRef};
use fast_image_resize::{PixelType, Resizer};

/// An aspect beyond this is no picture's.
const ASPECT_MAX: u64 = 20;

/// Three bytes per pixel, row after row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    pub width: usize,
    pub height: usize,
    pub pixels: Vec<u8>,
    /// One byte per pixel; `None` where all is opaque.
    pub alpha: Option<Vec<u8>>,
}

impl Image {
    /// Scaled to exactly this size; alpha is dropped.
    pub fn scaled(self, width: u32, height: u32) -> Result<Image, FrameError> {
        if (self.width, self.height) == (width as usize, height as usize) {
            return Ok(Image { alpha: None, ..self });
        }
        let failed =
            |error: &dyn std::fmt::Display| FrameError::TooLarge(format!("the picture cannot be scaled: {error}"));
        let side = |side: usize| u32::try_from(side).map_err(|error| failed(&error));
        let source = ImageRef::new(side(self.width)?, side(self.height)?, &self.pixels, PixelType::U8x3);
        let source = source.map_err(|error| failed(&error))?;
        let mut out = Buffer::new(width, height, PixelType::U8x3);
        Resizer::new().resize(&source, &mut out, None).map_err(|error| failed(&error))?;
        Ok(Image { width: width as usize, height: height as usize, pixels: out.into_vec(), alpha: None })
    }

    /// Turned and mirrored.
    pub fn oriented(self, orientation: Orientation) -> Image {
        if orientation == Orientation::default() {
            return self;
        }
        let (width, height) = if orientation.transpose { (self.height, self.width) } else { (self.width, self.height) };
        let mut pixels = Vec::with_capacity(self.pixels.len());
        let mut alpha = self.alpha.as_ref().map(|alpha| Vec::with_capacity(alpha.len()));
        for y in 0..height {
            for x in 0..width {
                let x = if orientation.flip_x { width - 1 - x } else { x };
                let y = if orientation.flip_y { height - 1 - y } else { y };
                let at = if orientation.transpose { x * self.width + y } else { y * self.width + x };
                pixels.extend_from_slice(&self.pixels[3 * at..3 * at + 3]);
                if let (Some(out), Some(from)) = (&mut alpha, &self.alpha) {
                    out.push(from[at]);
                }
            }
        }
        Image { width, height, pixels, alpha }
    }
}

/// The size at which a picture of `coded` pixels is shown before it is turned: pixels made square by their width, the
/// whole scaled so that it is `width` wide once it is turned.
pub fn shown_size(
    coded: (usize, usize),
    pixel_aspect: Option<(u32, u32)>,
    orientation: Orientation,
    width: Option<u32>,
    limits: &Limits,
) -> Result<(u32, u32), FrameError> {
    let (wide, high) = pixel_aspect.map_or((1, 1), |(wide, high)| (u64::from(wide), u64::from(high)));
    let plausible = wide <= high.saturating_mul(ASPECT_MAX) && high <= wide.saturating_mul(ASPECT_MAX);
    let (wide, high) = if plausible { (wide, high) } else { (1, 1) };
    let (mut x, mut y) = (rounded(coded.0 as u64, wide, high), coded.1.max(1) as u64);
    if let Some(width) = width.map(u64::from) {
        (x, y) = if orientation.transpose { (rounded(width, x, y), width) } else { (width, rounded(width, y, x)) };
    }
    if x.saturating_mul(y) > limits.pixels_max {
        let (shown_x, shown_y) = if orientation.transpose { (y, x) } else { (x, y) };
        let most = limits.pixels_max;
        let text = format!("the picture would have {shown_x} × {shown_y} pixels; at most {most} are made");
        return Err(FrameError::TooLarge(text));
    }
    let side = |side: u64| u32::try_from(side).map_err(|_| FrameError::TooLarge(format!("a side of {side} pixels")));
    Ok((side(x)?, side(y)?))
}

/// `length` times `num` over `den`, to the nearest whole number above 0.
fn rounded(length: u64, num: u64, den: u64) -> u64 {
    let den = u128::from(den.max(1));
    let value = (u128::from(length) * u128::from(num) + den / 2) / den;
    u64::try_from(value).unwrap_or(u64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const LIMITS: Limits = Limits { pixels_max: 1 << 24, bytes_max: 1 << 30, time: Duration::from_secs(1) };

    fn numbered(width: usize, height: usize) -> Image {
        let pixels = (0..width * height).flat_map(|n| [n as u8; 3]).collect();
        Image { width, height, pixels, alpha: Some((0..width * height).map(|n| n as u8).collect()) }
    }

    #[test]
    fn turning_and_mirroring() {
        let of = |transpose, flip_x, flip_y| {
            let out = numbered(3, 2).oriented(Orientation { transpose, flip_x, flip_y });
            let firsts: Vec<u8> = out.pixels.iter().step_by(3).copied().collect();
            assert_eq!(out.alpha.as_ref(), Some(&firsts));
            (out.width, firsts)
        };
        // 0 1 2
        // 3 4 5
        assert_eq!(of(false, false, false), (3, vec![0, 1, 2, 3, 4, 5]));
        assert_eq!(of(false, true, true), (3, vec![5, 4, 3, 2, 1, 0]));
        // Clockwise: the left column becomes the top row, from below.
        assert_eq!(of(true, true, false), (2, vec![3, 0, 4, 1, 5, 2]));
        assert_eq!(of(true, false, true), (2, vec![2, 5, 1, 4, 0, 3]));
    }

    #[test]
    fn sizes_keep_the_shape() {
        let turned = Orientation { transpose: true, flip_x: true, flip_y: false };
        let upright = Orientation::default();
        let size = |coded, aspect, orientation, width| shown_size(coded, aspect, orientation, width, &LIMITS).ok();
        assert_eq!(size((1920, 1080), None, upright, Some(640)), Some((640, 360)));
        assert_eq!(size((1920, 1080), None, turned, Some(270)), Some((480, 270)));
        // PAL 16:9: 720 × 576 with pixels of 64:45 is 1024 × 576.
        assert_eq!(size((720, 576), Some((64, 45)), upright, None), Some((1024, 576)));
        assert_eq!(size((720, 576), Some((64, 45)), upright, Some(512)), Some((512, 288)));
        assert_eq!(size((720, 576), Some((1, 4_000_000_000)), upright, None), Some((720, 576)));
        assert_eq!(size((4000, 1), None, upright, Some(1)), Some((1, 1)));
        assert_eq!(size((16, 16), None, upright, Some(1_000_000)), None);
    }

    #[test]
    fn scaling_keeps_flat_colour() {
        let image = Image { width: 64, height: 32, pixels: [10, 200, 90].repeat(64 * 32), alpha: None };
        let scaled = image.scaled(17, 9).expect("fits");
        assert_eq!((scaled.width, scaled.height), (17, 9));
        assert_eq!(scaled.pixels, [10, 200, 90].repeat(17 * 9));
    }
}
