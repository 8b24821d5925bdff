//! AV1, decoded by `re_rav1d` (feature `av1`): 4:2:0 and monochrome.
//!
//! The decoder hands out the picture that each temporal unit shows, with the number that was sent with it.
//! Must not know containers.

use super::decode::{Deadline, StillDecoder};
use super::planes::{Plane, Planes, Window};
use super::{FrameError, Limits};
use crate::media::still::Colour;
use re_rav1d::dav1d::{self, Error, PixelLayout, PlanarImageComponent, Settings};

/// The number of units before the frame, and of the frame.
const BEFORE: i64 = 0;
const WANTED: i64 = 1;

pub(super) struct Decoder {
    inner: dav1d::Decoder,
    found: Option<Planes>,
}

impl Decoder {
    pub(super) fn new(limits: Limits) -> Result<Self, FrameError> {
        let mut settings = Settings::new();
        settings.set_n_threads(1);
        settings.set_max_frame_delay(1);
        settings.set_frame_size_limit(u32::try_from(limits.pixels_max).unwrap_or(u32::MAX));
        Ok(Self { inner: dav1d::Decoder::with_settings(&settings).map_err(refused)?, found: None })
    }

    fn collect(&mut self) -> Result<(), FrameError> {
        loop {
            match self.inner.get_picture() {
                Ok(picture) if picture.timestamp() == Some(WANTED) => self.found = Some(planes(&picture)?),
                Ok(_) => {}
                Err(Error::Again) => return Ok(()),
                Err(error) => return Err(refused(error)),
            }
        }
    }
}

impl StillDecoder for Decoder {
    fn decode(&mut self, unit: &[u8], wanted: bool, time: &Deadline) -> Result<Option<Planes>, FrameError> {
        let number = if wanted { WANTED } else { BEFORE };
        for piece in pieces(unit) {
            time.check()?;
            let mut sent = self.inner.send_data(piece.to_vec(), None, Some(number), None);
            while let Err(Error::Again) = sent {
                self.collect()?;
                sent = self.inner.send_pending_data();
            }
            sent.map_err(refused)?;
            self.collect()?;
        }
        Ok(self.found.take())
    }

    fn finish(&mut self) -> Result<Option<Planes>, FrameError> {
        self.collect()?;
        Ok(self.found.take())
    }
}

/// The OBUs of a temporal unit (AV1 section 5.3): the decoder would decode all of their pictures in one call. What has
/// no size of its own, or a broken one, is a last piece.
fn pieces(unit: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = unit;
    std::iter::from_fn(move || {
        let (piece, after) = rest.split_at_checked(obu_len(rest)?).unwrap_or((rest, &[]));
        rest = after;
        Some(piece)
    })
}

/// The length of the OBU that bytes begin with; `None` where there are none.
fn obu_len(bytes: &[u8]) -> Option<usize> {
    const HAS_EXTENSION: u8 = 1 << 2;
    const HAS_SIZE: u8 = 1 << 1;
    let first = *bytes.first()?;
    let head = if first & HAS_EXTENSION != 0 { 2 } else { 1 };
    let digits = bytes.get(head..).unwrap_or_default();
    let last = digits.iter().take(4).position(|digit| digit & 0x80 == 0);
    let Some(last) = last.filter(|_| first & HAS_SIZE != 0) else { return Some(bytes.len()) };
    let size = digits[..=last].iter().rev().fold(0, |size, digit| size << 7 | usize::from(digit & 0x7f));
    Some(head + last + 1 + size)
}

fn planes(picture: &dav1d::Picture) -> Result<Planes, FrameError> {
    let layout = picture.pixel_layout();
    if !matches!(layout, PixelLayout::I420 | PixelLayout::I400) {
        return Err(FrameError::Unsupported { what: format!("this video is AV1 with {layout:?} chroma") });
    }
    let depth = picture.bits_per_component().map_or(8, |bits| bits.0 as u32);
    let window = Window { left: 0, top: 0, width: picture.width() as usize, height: picture.height() as usize };
    let samples = |component| -> (Vec<u16>, usize) {
        let (plane, stride) = (picture.plane(component), picture.stride(component) as usize);
        if depth == 8 {
            return (plane.iter().map(|byte| u16::from(*byte)).collect(), stride);
        }
        (plane.as_chunks::<2>().0.iter().map(|bytes| u16::from_ne_bytes(*bytes)).collect(), stride / 2)
    };
    let wrong = || FrameError::Damaged("the picture has another size than it says".to_owned());
    let (luma, stride) = samples(PlanarImageComponent::Y);
    let luma = Plane::cut(&luma, stride, window).ok_or_else(wrong)?;
    let mut chroma = [Plane::default(), Plane::default()];
    if layout == PixelLayout::I420 {
        for (plane, component) in chroma.iter_mut().zip([PlanarImageComponent::U, PlanarImageComponent::V]) {
            let (samples, stride) = samples(component);
            *plane = Plane::cut_chroma(&samples, stride, window).ok_or_else(wrong)?;
        }
    }
    let full_range = picture.color_range() == dav1d::pixel::YUVRange::Full;
    let colour = Colour { matrix: picture.matrix_coefficients() as u8, full_range };
    Ok(Planes { luma, chroma, depth, pixel_aspect: None, colour: Some(colour) })
}

fn refused(error: Error) -> FrameError {
    match error {
        Error::UnsupportedBitstream => FrameError::Unsupported { what: "this video is AV1 of another kind".to_owned() },
        other => FrameError::Damaged(format!("AV1 decoder: {other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_cut_where_its_obus_end() {
        // A temporal delimiter without content; one of 130 bytes with an extension; one that goes on to the end.
        let long = [&[0x36, 0, 0x82, 0x01][..], &[7; 130]].concat();
        let unit = [&[0x12, 0x00][..], &long, &[0x30, 1, 2, 3]].concat();
        let cut: Vec<&[u8]> = pieces(&unit).collect();
        assert_eq!(cut, [&[0x12, 0x00][..], &long, &[0x30, 1, 2, 3]]);
        assert_eq!(pieces(&[]).count(), 0);
        for broken in [&[0x32][..], &[0x32, 0x80], &[0x32, 0xff, 0xff, 0xff, 0xff, 0xff], &[0x32, 9, 1]] {
            assert_eq!(pieces(broken).collect::<Vec<_>>(), [broken]);
        }
    }
}
