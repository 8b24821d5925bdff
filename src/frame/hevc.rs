//! HEVC, decoded by `rusty_h265`: Main and Main 10, 4:2:0.
//!
//! The decoder hands pictures out in presentation order, each with the number that was pushed with its unit; when all
//! units are in, the one with the wanted number is among those that are left. Must not know containers.

use super::decode::{Deadline, StillDecoder, check_size};
use super::planes::{Plane, Planes, Window};
use super::{FrameError, Limits};
use crate::media::still::{Colour, nal_units};
use rusty_h265::{Error, Frame, nal, ps};

/// Bytes per pixel that the decoder keeps of a picture: 4:2:0 samples of two bytes, and motion.
const BYTES_PER_PIXEL: u64 = 4;

const SPS: u8 = 33;
/// Below this, even numbers are pictures that no other picture of their temporal layer refers to.
const SUB_LAYER_TYPES: u8 = 16;

pub(super) struct Decoder {
    inner: rusty_h265::Decoder,
    limits: Limits,
    /// The highest temporal layer.
    layers: u8,
    pixel_aspect: Option<(u32, u32)>,
    colour: Option<Colour>,
    found: Option<Planes>,
}

/// The number of units before the frame, and of the frame.
const BEFORE: i64 = 0;
const WANTED: i64 = 1;

impl Decoder {
    pub(super) fn new(limits: Limits) -> Self {
        let inner = rusty_h265::Decoder::new();
        Self { inner, limits, layers: 0, pixel_aspect: None, colour: None, found: None }
    }

    /// Reads a parameter set before the decoder does.
    fn sequence(&mut self, payload: &[u8]) -> Result<(), FrameError> {
        let sps = ps::parse_sps(&nal::unescape(payload).data).map_err(refused)?;
        let highest = sps.ordering.get(usize::from(sps.max_sub_layers_minus1));
        let references = highest.map_or(16, |ordering| u64::from(ordering.max_dec_pic_buffering_minus1));
        let size = (u64::from(sps.width), u64::from(sps.height));
        check_size(size, references.min(16), BYTES_PER_PIXEL, &self.limits)?;
        self.layers = sps.max_sub_layers_minus1;
        if let Some(vui) = &sps.vui {
            let aspect = (u32::from(vui.sar_width), u32::from(vui.sar_height));
            self.pixel_aspect = Some(aspect).filter(|(width, height)| *width > 0 && *height > 0);
            // The crate leaves 0 where nothing is said, which is no matrix of 4:2:0 anyway.
            let matrix = if vui.matrix_coeffs == 0 { 2 } else { vui.matrix_coeffs };
            self.colour = Some(Colour { matrix, full_range: vui.video_full_range_flag });
        }
        Ok(())
    }

    /// Takes what came out so far; only the wanted picture is kept.
    fn collect(&mut self) -> Result<(), FrameError> {
        while let Ok(frame) = self.inner.next_frame() {
            if frame.pts == Some(WANTED) && self.found.is_none() {
                let wrong = || FrameError::Damaged("the picture has another size than it says".to_owned());
                self.found = Some(self.planes(&frame).ok_or_else(wrong)?);
            }
        }
        Ok(())
    }

    fn planes(&self, frame: &Frame) -> Option<Planes> {
        let picture = &frame.picture;
        let (left, top, width, height) = picture.crop;
        let window = Window { left, top, width, height };
        let [luma, first, second] = &picture.planes;
        Some(Planes {
            luma: Plane::cut(&luma.data, luma.stride, window)?,
            chroma: [
                Plane::cut_chroma(&first.data, first.stride, window)?,
                Plane::cut_chroma(&second.data, second.stride, window)?,
            ],
            depth: u32::from(picture.bit_depth_luma),
            pixel_aspect: self.pixel_aspect,
            colour: self.colour,
        })
    }
}

impl StillDecoder for Decoder {
    fn decode(&mut self, unit: &[u8], wanted: bool, time: &Deadline) -> Result<Option<Planes>, FrameError> {
        for (_, body) in nal_units(unit) {
            let [first, second, payload @ ..] = body else { continue };
            let kind = first >> 1 & 0x3f;
            if kind == SPS && first & 1 == 0 && second >> 3 == 0 {
                self.sequence(payload)?;
            }
            let layer = (second & 7).saturating_sub(1);
            let disposable = kind < SUB_LAYER_TYPES && kind.is_multiple_of(2) && layer >= self.layers;
            if disposable && !wanted {
                continue;
            }
            time.check()?;
            let number = if wanted { WANTED } else { BEFORE };
            self.inner.push_nal(body, Some(number)).map_err(refused)?;
        }
        self.collect()?;
        Ok(None)
    }

    fn finish(&mut self) -> Result<Option<Planes>, FrameError> {
        self.inner.flush();
        self.collect()?;
        if self.inner.stats.generated_refs > 0 {
            return Err(FrameError::Damaged("a picture that the frame refers to is missing".to_owned()));
        }
        Ok(self.found.take())
    }
}

fn refused(error: Error) -> FrameError {
    match error {
        Error::Unsupported(what) => FrameError::Unsupported { what: format!("this video is HEVC with {what}") },
        other => FrameError::Damaged(format!("HEVC decoder: {other}")),
    }
}
