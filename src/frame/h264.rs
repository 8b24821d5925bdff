//! H.264, decoded by `rusty_h264`: progressive, 8 bits, 4:2:0.
//!
//! The decoder returns each picture when its last slice is in, in decoding order; pictures that nothing refers to are
//! left out unless one is wanted. Must not know containers.

use super::decode::{Deadline, StillDecoder, check_size};
use super::planes::{Plane, Planes, Window};
use super::{FrameError, Limits};
use crate::media::still::nal_units;
use crate::media::ts::h264::{Sps, parse_sps};
use rusty_h264_decoder::DecodeError;

/// Bytes per pixel that the decoder keeps of a picture: 4:2:0 samples, and motion of two lists per 4×4 block.
const BYTES_PER_PIXEL: u64 = 3;

pub(super) struct Decoder {
    inner: rusty_h264_decoder::Decoder,
    limits: Limits,
    sps: Option<Sps>,
}

impl Decoder {
    pub(super) fn new(limits: Limits) -> Self {
        Self { inner: rusty_h264_decoder::Decoder::new(), limits, sps: None }
    }

    /// Looks at the parameter sets of a unit before the decoder does; whether a picture in it is referred to.
    fn look(&mut self, unit: &[u8]) -> Result<bool, FrameError> {
        let (mut pictures, mut referred) = (false, false);
        for (_, body) in nal_units(unit) {
            let Some((&first, rest)) = body.split_first() else { continue };
            match first & 0x1f {
                1..=5 => {
                    pictures = true;
                    referred |= first & 0x60 != 0;
                }
                7 => {
                    let sps = parse_sps(rest);
                    let sps = sps.ok_or_else(|| FrameError::Damaged("a parameter set is broken".to_owned()))?;
                    let size = (u64::from(sps.coded_width), u64::from(sps.coded_height));
                    check_size(size, u64::from(sps.references), BYTES_PER_PIXEL, &self.limits)?;
                    self.sps = Some(sps);
                }
                _ => {}
            }
        }
        Ok(referred || !pictures)
    }

    /// Luma and chroma as they come, with `stride` samples of luma per row.
    fn planes(&self, [luma, first, second]: [&[u8]; 3], stride: usize) -> Option<Planes> {
        let sps = self.sps?;
        // The decoder cuts off what is not shown to the right and below only.
        let window = Window {
            left: sps.left as usize,
            top: sps.top as usize,
            width: sps.width as usize,
            height: sps.height as usize,
        };
        let half = stride.div_ceil(2);
        Some(Planes {
            luma: Plane::cut(luma, stride, window)?,
            chroma: [Plane::cut_chroma(first, half, window)?, Plane::cut_chroma(second, half, window)?],
            depth: 8,
            pixel_aspect: sps.vui.pixel_aspect,
            colour: sps.vui.colour,
        })
    }
}

impl StillDecoder for Decoder {
    fn decode(&mut self, unit: &[u8], wanted: bool, time: &Deadline) -> Result<Option<Planes>, FrameError> {
        if !self.look(unit)? && !wanted {
            return Ok(None);
        }
        // One NAL unit after another: what follows the picture in its last packet is another's.
        for (whole, _) in nal_units(unit) {
            time.check()?;
            let frame = self.inner.decode(whole).map_err(refused)?;
            if let Some(frame) = frame.filter(|_| wanted) {
                let planes = self.planes([&frame.y, &frame.u, &frame.v], frame.width);
                let wrong = || FrameError::Damaged("the picture has another size than it says".to_owned());
                return planes.map(Some).ok_or_else(wrong);
            }
        }
        Ok(None)
    }

    fn finish(&mut self) -> Result<Option<Planes>, FrameError> {
        Ok(None)
    }
}

/// The decoder's word for what it does not know is the same as for what makes no sense: only what parameter sets and
/// whole streams are made of is the former.
fn refused(error: DecodeError) -> FrameError {
    const KNOWN: [&str; 6] = ["bit depth", "interlace", "non-4:2:0", "slice groups", "transform-bypass", "explicit B"];
    match error {
        DecodeError::Unsupported(what) if KNOWN.iter().any(|known| what.starts_with(known)) => {
            FrameError::Unsupported { what: format!("this video is H.264 with {what}") }
        }
        other => FrameError::Damaged(format!("H.264 decoder: {other}")),
    }
}
