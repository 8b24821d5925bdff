//! Images as files: JPEG and PNG.
//!
//! Must not know where they go.

use super::FrameError;
use super::image::Image;
use jpeg_encoder::{ColorType, Encoder};

/// JPEG quality where none is asked for.
pub const QUALITY: u8 = 85;
/// The longest side of a JPEG.
const JPEG_SIDE_MAX: usize = 65_535;

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Jpeg { quality: u8 },
    Png,
}

impl Format {
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Jpeg { .. } => "image/jpeg",
            Self::Png => "image/png",
        }
    }
}

/// The JPEG encoder, once it has shown that it works.
pub struct Jpeg(());

impl Jpeg {
    /// Encodes one block, with which come the code and the tables of all others.
    pub fn new() -> Result<Self, FrameError> {
        let block = Image { width: 8, height: 8, pixels: vec![128; 8 * 8 * 3], alpha: None };
        jpeg(&block, QUALITY)?;
        Ok(Self(()))
    }

    /// The bytes of a file. A JPEG has no alpha: what is transparent becomes white.
    pub fn encode(&self, image: &Image, quality: u8) -> Result<Vec<u8>, FrameError> {
        jpeg(image, quality)
    }
}

fn jpeg(image: &Image, quality: u8) -> Result<Vec<u8>, FrameError> {
    let side = |side: usize| {
        let text = || format!("a JPEG has sides of at most {JPEG_SIDE_MAX} pixels, and this picture has {side}");
        u16::try_from(side).map_err(|_| FrameError::TooLarge(text()))
    };
    let (width, height) = (side(image.width)?, side(image.height)?);
    let mut out = Vec::new();
    let encoder = Encoder::new(&mut out, quality);
    let opaque = image.alpha.as_ref().map(|alpha| on_white(&image.pixels, alpha));
    let pixels = opaque.as_deref().unwrap_or(&image.pixels);
    let encoded = encoder.encode(pixels, width, height, ColorType::Rgb);
    encoded.map_err(|error| FrameError::TooLarge(format!("no JPEG of this picture: {error}")))?;
    Ok(out)
}

fn on_white(pixels: &[u8], alpha: &[u8]) -> Vec<u8> {
    let over = |byte: u8, alpha: u8| {
        let (byte, alpha) = (u32::from(byte), u32::from(alpha));
        ((byte * alpha + 255 * (255 - alpha) + 127) / 255) as u8
    };
    pixels
        .as_chunks::<3>()
        .0
        .iter()
        .zip(alpha)
        .flat_map(|(pixel, alpha)| pixel.map(|byte| over(byte, *alpha)))
        .collect()
}

/// The bytes of a PNG.
pub fn png(image: &Image) -> Result<Vec<u8>, FrameError> {
    write_png(image).map_err(|error| FrameError::TooLarge(format!("no PNG of this picture: {error}")))
}

fn write_png(image: &Image) -> Result<Vec<u8>, png::EncodingError> {
    let mut out = Vec::new();
    let side = |side: usize| u32::try_from(side).unwrap_or(0);
    let mut encoder = png::Encoder::new(&mut out, side(image.width), side(image.height));
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::Fast);
    encoder.set_color(if image.alpha.is_some() { png::ColorType::Rgba } else { png::ColorType::Rgb });
    let mut writer = encoder.write_header()?;
    match &image.alpha {
        None => writer.write_image_data(&image.pixels)?,
        Some(alpha) => {
            let pixels = image.pixels.as_chunks::<3>().0.iter().zip(alpha);
            let rgba: Vec<u8> = pixels.flat_map(|([r, g, b], alpha)| [*r, *g, *b, *alpha]).collect();
            writer.write_image_data(&rgba)?;
        }
    }
    writer.finish()?;
    Ok(out)
}
