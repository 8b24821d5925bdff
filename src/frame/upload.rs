//! Images that somebody sends: JPEG and PNG, told apart by their first bytes.
//!
//! A few bytes can claim any size: the header is read and held against the limits before anything is allocated.
//! Must not know how they were sent.

use super::decode::guarded;
use super::encode::{Format, QUALITY};
use super::image::Image;
use super::{FrameError, Limits, exif};
use std::io::Cursor;
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

const JPEG: &[u8] = &[0xff, 0xd8, 0xff];
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";
/// The longest side of a JPEG.
const JPEG_SIDE_MAX: usize = 65_535;

/// The format of a file that begins like this.
pub fn format(first: &[u8]) -> Result<Format, FrameError> {
    if first.starts_with(JPEG) {
        return Ok(Format::Jpeg { quality: QUALITY });
    }
    if first.starts_with(PNG) { Ok(Format::Png) } else { Err(FrameError::NotAnImage) }
}

/// The image in `bytes`.
pub fn read(bytes: &[u8], limits: &Limits) -> Result<Image, FrameError> {
    match format(bytes)? {
        Format::Jpeg { .. } => guarded(|| jpeg(bytes, limits)),
        Format::Png => guarded(|| png(bytes, limits)),
    }
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
    // Some of the decoder's words end in a line of their own.
    let broken =
        |error: &dyn std::fmt::Debug| FrameError::Damaged(format!("no whole JPEG: {error:?}").trim_end().to_owned());
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
    let orientation = decoder.exif().map(|exif| exif::orientation(exif)).unwrap_or_default();
    Ok(Image { width, height, pixels, alpha: None }.oriented(orientation))
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

#[cfg(test)]
mod tests {
    use super::super::encode::{Jpeg, png};
    use super::*;
    use std::time::Duration;

    const LIMITS: Limits = Limits { pixels_max: 1 << 20, bytes_max: 1 << 26, time: Duration::from_secs(1) };

    const FINE: Format = Format::Jpeg { quality: 100 };

    fn encode(image: &Image, format: Format) -> Result<Vec<u8>, FrameError> {
        match format {
            Format::Jpeg { quality } => Jpeg::new()?.encode(image, quality),
            Format::Png => png(image),
        }
    }

    fn image(alpha: bool) -> Image {
        let pixels = (0..24 * 16u32).flat_map(|n| [n as u8, 255 - n as u8, 90]).collect();
        Image { width: 24, height: 16, pixels, alpha: alpha.then(|| (0..24 * 16u32).map(|n| n as u8).collect()) }
    }

    #[test]
    fn what_was_written_is_read() {
        for alpha in [false, true] {
            let image = image(alpha);
            let file = encode(&image, Format::Png).expect("fits");
            assert_eq!(format(&file).expect("an image"), Format::Png);
            assert_eq!(read(&file, &LIMITS).expect("whole"), image);
        }
        let flat = Image { width: 20, height: 10, pixels: [200, 100, 50].repeat(200), alpha: None };
        let file = encode(&flat, Format::Jpeg { quality: 100 }).expect("fits");
        let read = read(&file, &LIMITS).expect("whole");
        assert_eq!((read.width, read.height), (20, 10));
        assert!(read.pixels.iter().zip(&flat.pixels).all(|(a, b)| a.abs_diff(*b) <= 2));
        let clear = Image { alpha: Some(vec![0; 200]), ..flat };
        let file = encode(&clear, Format::Jpeg { quality: 90 }).expect("fits");
        assert!(super::read(&file, &LIMITS).expect("whole").pixels.iter().all(|byte| *byte > 250), "on white");
    }

    /// By hand: row 0 is the right side and column 0 the top of a picture with orientation 6, so that what is stored on
    /// the left is on top. Of 3 all is upside down, of 8 row 0 is the left side, and the stored left is at the bottom.
    #[test]
    fn pictures_of_cameras_are_turned() {
        let row = [[20, 20, 20].repeat(16), [220, 220, 220].repeat(16)].concat();
        let file = encode(&Image { width: 32, height: 16, pixels: row.repeat(16), alpha: None }, FINE).expect("fits");
        let dark = |image: &Image, x: usize, y: usize| image.pixels[(y * image.width + x) * 3] < 100;
        let turned = |value: u16| {
            let exif = exif::example(value, false);
            let length = u16::try_from(exif.len() + 2).expect("short").to_be_bytes();
            let file = [&file[..2], &[0xff, 0xe1], &length, &exif, &file[2..]].concat();
            let image = read(&file, &LIMITS).expect("whole");
            let corners = [dark(&image, 0, 0), dark(&image, image.width - 1, 0), dark(&image, 0, image.height - 1)];
            (image.width, image.height, corners)
        };
        assert_eq!(turned(1), (32, 16, [true, false, true]));
        assert_eq!(turned(3), (32, 16, [false, true, false]));
        assert_eq!(turned(6), (16, 32, [true, true, false]));
        assert_eq!(turned(8), (16, 32, [false, false, true]));
    }

    /// A PNG of 33 bytes may claim four billion pixels by four billion.
    #[test]
    fn sizes_are_checked_before_anything_is_allocated() {
        let mut png = encode(&image(false), Format::Png).expect("fits");
        png[16..24].copy_from_slice(&[0x7f, 0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff]);
        let crc = crc32fast::hash(&png[12..29]).to_be_bytes();
        png[29..33].copy_from_slice(&crc);
        let error = read(&png, &LIMITS).expect_err("too large");
        assert!(matches!(&error, FrameError::TooLarge(text) if text.contains("2147483647")), "{error}");
        let mut jpeg = encode(&image(false), Format::Jpeg { quality: 50 }).expect("fits");
        let frame = jpeg.windows(2).position(|marker| marker == [0xff, 0xc0]).expect("a frame header");
        jpeg[frame + 5..frame + 9].fill(0xff);
        assert!(matches!(read(&jpeg, &LIMITS), Err(FrameError::TooLarge(_))));
    }

    #[test]
    fn broken_files_are_errors() {
        assert!(matches!(read(b"GIF89a", &LIMITS), Err(FrameError::NotAnImage)));
        assert!(matches!(read(b"", &LIMITS), Err(FrameError::NotAnImage)));
        for format in [Format::Png, Format::Jpeg { quality: 80 }] {
            let file = encode(&image(true), format).expect("fits");
            for len in 3..file.len() {
                let _ = read(&file[..len], &LIMITS);
                let mut changed = file.clone();
                changed[len] ^= 0x55;
                let _ = read(&changed, &LIMITS);
            }
        }
        assert!(read(&encode(&image(false), Format::Png).expect("fits")[..60], &LIMITS).is_err());
    }
}
