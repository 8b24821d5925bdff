//! AV1, decoded by `re_rav1d` (feature `av1`): 4:2:0 and monochrome.
//!
//! The decoder hands out the picture that each temporal unit shows, with the number that was sent with it.
//! Must not know containers.

use super::decode::StillDecoder;
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
    fn decode(&mut self, unit: &[u8], wanted: bool) -> Result<Option<Planes>, FrameError> {
        if unit.is_empty() {
            return Ok(None);
        }
        let number = if wanted { WANTED } else { BEFORE };
        let mut sent = self.inner.send_data(unit.to_vec(), None, Some(number), None);
        while let Err(Error::Again) = sent {
            self.collect()?;
            sent = self.inner.send_pending_data();
        }
        sent.map_err(refused)?;
        self.collect()?;
        Ok(self.found.take())
    }

    fn finish(&mut self) -> Result<Option<Planes>, FrameError> {
        self.collect()?;
        Ok(self.found.take())
    }
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
