//! Brightness and contrast: a function of one byte, so a table of 256.
//!
//! Must not know images, or what is done with a value afterwards.

use super::colour::to_byte;
use super::image::Image;

/// Each value v in 0..1 becomes clamp((v − 0.5)(1 + contrast) + 0.5 + brightness); both are from -1 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Adjust {
    pub brightness: f32,
    pub contrast: f32,
}

impl Adjust {
    /// The value of every byte.
    pub fn table(&self) -> [f32; 256] {
        std::array::from_fn(|byte| {
            let value = byte as f32 / 255.0;
            ((value - 0.5) * (1.0 + self.contrast) + 0.5 + self.brightness).clamp(0.0, 1.0)
        })
    }

    /// Adjusts every channel of every pixel; alpha stays.
    pub fn apply(&self, image: &mut Image) {
        let bytes = self.table().map(to_byte);
        for byte in &mut image.pixels {
            *byte = bytes[usize::from(*byte)];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: 64 is 0.25098; (0.25098 − 0.5) · 0.9 + 0.5 + 0.3 = 0.57588, which is 146.85 of 255.
    #[test]
    fn by_hand() {
        let of = |brightness, contrast, byte: u8| {
            let mut image = Image { width: 1, height: 1, pixels: vec![byte; 3], alpha: Some(vec![7]) };
            Adjust { brightness, contrast }.apply(&mut image);
            assert_eq!((image.pixels[0], image.alpha), (image.pixels[2], Some(vec![7])));
            image.pixels[0]
        };
        assert_eq!(of(0.3, -0.1, 64), 147);
        assert_eq!(of(0.0, 0.0, 64), 64);
        assert_eq!(of(1.0, 0.0, 0), 255);
        assert_eq!(of(-1.0, 0.0, 255), 0);
        // Contrast -1 leaves the middle grey, 127.5 of 255; contrast 0.5 adds half of the distance from it.
        assert_eq!(of(0.0, -1.0, 3), 128);
        assert_eq!(of(0.0, 0.5, 100), 86);
        assert_eq!(of(0.0, 0.5, 32), 0);
    }
}
