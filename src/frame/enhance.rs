//! Enhancing: levels, so that the darkest and the brightest luma reach black and white, then sharpening.
//!
//! Per channel of 0..1, with the amount a from 0 to 1: v + a·(s(v) − v), where s stretches the luma percentiles 0.5
//! and 99.5 to 0 and 1; then + 0.5·a·(v − blur(v)), where blur is the separable binomial (1 4 6 4 1)/16 with edges
//! repeated; clamped at the end. Up to the blur a value depends on its byte alone, so that five rows of numbers are
//! all the memory it takes. Must not know files.

use super::colour::to_byte;
use super::image::Image;
use super::kernel::dot_product;

const BINOMIAL: [f32; 5] = [1.0 / 16.0, 4.0 / 16.0, 6.0 / 16.0, 4.0 / 16.0, 1.0 / 16.0];
/// Luma of red, green and blue (BT.709, the primaries of sRGB).
const LUMA: [f32; 3] = [0.2126, 0.7152, 0.0722];
const LOW: f64 = 0.005;
const HIGH: f64 = 0.995;
/// Steps in which luma is counted; a power of two, less one.
const STEPS: usize = (1 << 16) - 1;
/// Luma that spans less than a step of a byte has no levels to stretch.
const SPAN_MIN: f32 = 1.0 / 255.0;

/// What enhancing works with; made once.
pub struct Enhancer {
    /// The value of every byte where nothing was adjusted before.
    plain: [f32; 256],
}

impl Default for Enhancer {
    fn default() -> Self {
        Self { plain: std::array::from_fn(|byte| byte as f32 / 255.0) }
    }
}

impl Enhancer {
    /// Enhances an image whose bytes stand for the values of `adjusted`, if it was adjusted; alpha stays.
    pub fn apply(&self, image: &mut Image, amount: f32, adjusted: Option<&[f32; 256]>) {
        let values = adjusted.unwrap_or(&self.plain);
        let (low, high) = percentiles(image, values);
        let span = high - low;
        let stretched = values.map(|value| {
            let full = if span < SPAN_MIN { value } else { (value - low) / span };
            value + amount * (full - value)
        });
        sharpen(image, 0.5 * amount, &stretched);
    }
}

/// The luma percentiles, interpolated between ranks as `numpy.percentile` does.
fn percentiles(image: &Image, values: &[f32; 256]) -> (f32, f32) {
    let mut counts = vec![0u64; STEPS + 1];
    for pixel in image.pixels.as_chunks::<3>().0 {
        let value = pixel.map(|byte| values[usize::from(byte)]);
        let luma = dot_product(&value, &LUMA).unwrap_or_default();
        counts[((luma * STEPS as f32 + 0.5) as usize).min(STEPS)] += 1;
    }
    let pixels: u64 = counts.iter().sum();
    let at_rank = |rank: u64| {
        let mut below = 0;
        let step = counts.iter().position(|count| {
            below += count;
            below > rank
        });
        step.unwrap_or(STEPS) as f64 / STEPS as f64
    };
    let percentile = |fraction: f64| {
        let rank = fraction * pixels.saturating_sub(1) as f64;
        let (low, high) = (at_rank(rank.floor() as u64), at_rank(rank.ceil() as u64));
        (low + (high - low) * rank.fract()) as f32
    };
    (percentile(LOW), percentile(HIGH))
}

/// Adds `amount` of what the blur takes away. Rows are blurred along themselves once, and five of them across.
fn sharpen(image: &mut Image, amount: f32, values: &[f32; 256]) {
    let (width, height) = (image.width, image.height);
    let stride = 3 * width;
    if width == 0 || height == 0 {
        return;
    }
    let source = image.pixels.clone();
    let row = |y: isize| {
        let y = y.clamp(0, height as isize - 1) as usize;
        &source[y * stride..(y + 1) * stride]
    };
    let mut blurred: [Vec<f32>; 5] = std::array::from_fn(|n| blur_row(row(n as isize - 2), values));
    for y in 0..height {
        let own = row(y as isize);
        let out = &mut image.pixels[y * stride..(y + 1) * stride];
        for (x, (out, byte)) in out.iter_mut().zip(own).enumerate() {
            let column: [f32; 5] = std::array::from_fn(|n| blurred[n][x]);
            let value = values[usize::from(*byte)];
            let blur = dot_product(&column, &BINOMIAL).unwrap_or(value);
            *out = to_byte((value + amount * (value - blur)).clamp(0.0, 1.0));
        }
        blurred.rotate_left(1);
        blurred[4] = blur_row(row(y as isize + 3), values);
    }
}

/// One row of interleaved channels, blurred along itself.
fn blur_row(row: &[u8], values: &[f32; 256]) -> Vec<f32> {
    let mut out = vec![0.0; row.len()];
    // Each channel between two repeats of its edge values.
    let mut padded = vec![0.0f32; row.len() / 3 + 4];
    for channel in 0..3 {
        let samples = row.iter().skip(channel).step_by(3).map(|byte| values[usize::from(*byte)]);
        for (to, value) in padded[2..].iter_mut().zip(samples) {
            *to = value;
        }
        let last = padded.len() - 3;
        let (first_edge, last_edge) = (padded[2], padded[last]);
        padded[..2].fill(first_edge);
        padded[last + 1..].fill(last_edge);
        for (to, window) in out.iter_mut().skip(channel).step_by(3).zip(padded.windows(5)) {
            *to = dot_product(window, &BINOMIAL).unwrap_or_default();
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::adjust::Adjust;

    /// 16 × 16: red rises to the right, green downwards, blue in steps.
    fn gradient() -> Image {
        let pixels = (0..16u32).flat_map(|y| {
            (0..16u32).flat_map(move |x| [40 + 10 * x, 60 + 8 * y, 100 + x * y % 50].map(|value| value as u8))
        });
        Image { width: 16, height: 16, pixels: pixels.collect(), alpha: None }
    }

    fn at(image: &Image, x: usize, y: usize) -> [u8; 3] {
        let at = 3 * (y * image.width + x);
        [image.pixels[at], image.pixels[at + 1], image.pixels[at + 2]]
    }

    /// The expected values are what `tests/fixtures/edit.py 0 0 0.8` makes of the same gradient.
    #[test]
    fn a_gradient() {
        let mut image = gradient();
        Enhancer::default().apply(&mut image, 0.8, None);
        let places = [(0, 0), (15, 0), (7, 7), (8, 3), (0, 15), (15, 15)];
        let expected = [[0, 7, 89], [255, 7, 85], [109, 121, 201], [129, 57, 137], [0, 251, 85], [255, 251, 141]];
        assert_eq!(places.map(|(x, y)| at(&image, x, y)), expected);
    }

    #[test]
    fn nothing_changes_what_has_no_levels_or_no_amount() {
        let mut image = gradient();
        Enhancer::default().apply(&mut image, 0.0, None);
        assert_eq!(image, gradient());
        let flat = Image { width: 3, height: 2, pixels: vec![77; 18], alpha: Some(vec![5; 6]) };
        let mut image = flat.clone();
        Enhancer::default().apply(&mut image, 1.0, None);
        assert_eq!(image, flat);
        let mut none = Image { width: 0, height: 0, pixels: vec![], alpha: None };
        Enhancer::default().apply(&mut none, 1.0, None);
        // One pixel is its own blur.
        let mut one = Image { width: 1, height: 1, pixels: vec![1, 2, 3], alpha: None };
        Enhancer::default().apply(&mut one, 0.5, None);
        assert_eq!(one.pixels, [1, 2, 3]);
    }

    #[test]
    fn adjusted_values_are_not_rounded_on_the_way() {
        let table = Adjust { brightness: 0.0, contrast: -0.99 }.table();
        let mut image = gradient();
        Enhancer::default().apply(&mut image, 1.0, Some(&table));
        // A hundredth of the contrast is a byte or two; its levels are stretched from what there was before.
        assert_eq!(at(&image, 0, 0)[..2], [0, 0]);
        assert_eq!(at(&image, 15, 15)[..2], [255, 255]);
        let greens: std::collections::HashSet<u8> = (0..16).map(|y| at(&image, 8, y)[1]).collect();
        assert!(greens.len() > 10, "{greens:?}");
    }
}
