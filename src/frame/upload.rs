//! Images that somebody sends: JPEG and PNG, told apart by their first bytes.
//!
//! A few bytes can claim any size: the header is read and held against the limits before anything is allocated.
//! Must not know how they were sent.

use super::decode::guarded;
use super::encode::{Format, QUALITY};
use super::image::Image;
use super::{FrameError, Limits};
use std::io::Cursor;
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

const JPEG: &[u8] = &[0xff, 0xd8, 0xff];
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";
/// The longest side of a JPEG.
const JPEG_SIDE_MAX: usize = 65_535;

/// The image in `bytes`, and the format in which to give it back.
pub fn read(bytes: &[u8], limits: &Limits) -> Result<(Image, Format), FrameError> {
    if bytes.starts_with(JPEG) {
        return Ok((guarded(|| jpeg(bytes, limits))?, Format::Jpeg { quality: QUALITY }));
    }
    if bytes.starts_with(PNG) {
        return Ok((guarded(|| png(bytes, limits))?, Format::Png));
    }
    Err(FrameError::NotAnImage)
}

/// Whether [`read`] would look into a file that begins like this.
pub fn is_image(first: &[u8]) -> bool {
    first.starts_with(JPEG) || first.starts_with(PNG)
}

fn check(width: usize, height: usize, limits: &Limits) -> Result<(), FrameError> {
    let pixels = (width as u64).saturating_mul(height as u64);
    if pixels <= limits.pixels_max {
        return Ok(());
    }
    let text = format!("the image has {width} × {height} pixels; at most {} are decoded", limits.pixels_max);
    Err(FrameError::TooLarge(text))
}

fn jpeg(bytes: &[u8], limits: &Limits) -> Result<Image, FrameError> {
    let broken = |error: &dyn std::fmt::Debug| FrameError::Damaged(format!("no whole JPEG: {error:?}"));
    let options = DecoderOptions::default().set_max_width(JPEG_SIDE_MAX).set_max_height(JPEG_SIDE_MAX);
    let options = options.jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(|error| broken(&error))?;
    let info = decoder.info().ok_or_else(|| broken(&"no header"))?;
    let (width, height) = (usize::from(info.width), usize::from(info.height));
    check(width, height, limits)?;
    let pixels = decoder.decode().map_err(|error| broken(&error))?;
    if pixels.len() != width * height * 3 {
        return Err(broken(&"another size than it says"));
    }
    Ok(Image { width, height, pixels, alpha: None })
}

fn png(bytes: &[u8], limits: &Limits) -> Result<Image, FrameError> {
    let broken = |error: &dyn std::fmt::Display| FrameError::Damaged(format!("no whole PNG: {error}"));
    let mut decoder = png::Decoder::new(Cursor::new(bytes));
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    decoder.set_transformations(png::Transformations::normalize_to_color8());
    decoder.set_limits(png::Limits { bytes: usize::try_from(limits.bytes_max).unwrap_or(usize::MAX) });
    let header = decoder.read_header_info().map_err(|error| broken(&error))?;
    let (width, height) = (header.width as usize, header.height as usize);
    check(width, height, limits)?;
    let mut reader = decoder.read_info().map_err(|error| broken(&error))?;
    let size = reader.output_buffer_size().ok_or_else(|| broken(&"its size overflows"))?;
    let mut samples = vec![0; size];
    let info = reader.next_frame(&mut samples).map_err(|error| broken(&error))?;
    samples.truncate(info.buffer_size());
    if (info.width as usize, info.height as usize) != (width, height) {
        return Err(broken(&"another size than it says"));
    }
    let (pixels, alpha): (Vec<u8>, Option<Vec<u8>>) = match info.color_type {
        png::ColorType::Rgb => (samples, None),
        png::ColorType::Grayscale => (samples.iter().flat_map(|grey| [*grey; 3]).collect(), None),
        png::ColorType::GrayscaleAlpha => {
            let pairs = samples.as_chunks::<2>().0;
            (pairs.iter().flat_map(|[grey, _]| [*grey; 3]).collect(), Some(pairs.iter().map(|[_, a]| *a).collect()))
        }
        png::ColorType::Rgba => {
            let quads = samples.as_chunks::<4>().0;
            let pixels = quads.iter().flat_map(|[r, g, b, _]| [*r, *g, *b]).collect();
            (pixels, Some(quads.iter().map(|[.., a]| *a).collect()))
        }
        png::ColorType::Indexed => return Err(broken(&"its palette is missing")),
    };
    Ok(Image { width, height, pixels, alpha })
}
