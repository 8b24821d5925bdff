//! Decoding: the units of a plan, in order, through the decoder for their coding, within limits of size and time.
//!
//! Decoders are strangers: each runs under a panic guard, is asked for nothing larger than the limits, and is left
//! between two pieces of a unit (a NAL unit, an OBU) when the time is up. Must not know pixels.

use super::planes::Planes;
use super::{FrameError, Limits, h264, hevc};
use crate::media::ReadAt;
use crate::media::still::{Coding, Still};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// Decodes towards one picture.
pub trait StillDecoder {
    /// Takes the next unit; `wanted` when it is of the picture that is asked for, which may come back at once. Looks at
    /// the time before each piece: a unit may have any number of them, and each may be a whole picture's work.
    fn decode(&mut self, unit: &[u8], wanted: bool, time: &Deadline) -> Result<Option<Planes>, FrameError>;

    /// There are no more units: the picture, if it has not come yet.
    fn finish(&mut self) -> Result<Option<Planes>, FrameError>;
}

/// When decoding has to be done.
pub struct Deadline {
    until: Instant,
    limit: Duration,
}

impl Deadline {
    fn after(limit: Duration) -> Self {
        Self { until: Instant::now() + limit, limit }
    }

    pub fn check(&self) -> Result<(), FrameError> {
        if Instant::now() < self.until { Ok(()) } else { Err(FrameError::TooSlow { limit: self.limit }) }
    }
}

/// The picture of a plan. `src` is what the plan was made for, `decoder` is for its coding.
pub fn decode(
    src: &dyn ReadAt,
    still: &Still,
    mut decoder: Box<dyn StillDecoder>,
    limits: &Limits,
) -> Result<Planes, FrameError> {
    guarded(move || {
        let time = Deadline::after(limits.time);
        decoder.decode(&still.setup, false, &time)?;
        for n in 0..still.len() {
            let unit = still.unit(src, n)?;
            if let Some(planes) = decoder.decode(&unit, n >= still.wanted(), &time)? {
                return Ok(planes);
            }
        }
        decoder.finish()?.ok_or_else(|| FrameError::Damaged(format!("frame {} has no whole picture", still.frame)))
    })
}

/// Runs what may panic on hostile input; a panic is an error.
pub(crate) fn guarded<T>(work: impl FnOnce() -> Result<T, FrameError>) -> Result<T, FrameError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(Err(FrameError::Panicked))
}

/// A new decoder.
pub fn decoder(coding: &Coding, limits: Limits) -> Result<Box<dyn StillDecoder>, FrameError> {
    match coding {
        Coding::H264 => Ok(Box::new(h264::Decoder::new(limits))),
        Coding::Hevc => Ok(Box::new(hevc::Decoder::new(limits))),
        #[cfg(feature = "av1")]
        Coding::Av1 => Ok(Box::new(super::av1::Decoder::new(limits)?)),
        #[cfg(not(feature = "av1"))]
        Coding::Av1 => Err(FrameError::Unsupported { what: "this video is AV1".to_owned() }),
        Coding::Other(name) => Err(FrameError::Unsupported { what: format!("this video is {name}") }),
    }
}

/// Holds the size of a picture and what a decoder needs for it against the limits, before anything is allocated.
/// `references`: pictures that are kept; `sample_bytes`: of one pixel with its chroma and what is kept per block.
pub(super) fn check_size(
    (width, height): (u64, u64),
    references: u64,
    sample_bytes: u64,
    limits: &Limits,
) -> Result<(), FrameError> {
    let pixels = width.saturating_mul(height);
    if pixels > limits.pixels_max {
        let text = format!("the picture has {width} × {height} pixels; at most {} are decoded", limits.pixels_max);
        return Err(FrameError::TooLarge(text));
    }
    let bytes = pixels.saturating_mul(sample_bytes).saturating_mul(references.saturating_add(2));
    if bytes > limits.bytes_max {
        let text = format!(
            "decoding pictures of {width} × {height} pixels that refer to {references} others takes {bytes} bytes; at \
             most {} are allowed",
            limits.bytes_max
        );
        return Err(FrameError::TooLarge(text));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parts of the video that carry no picture (ISO/IEC 14496-10 and 23008-2, access unit delimiters; AV1, a temporal
    /// delimiter): decoded for nothing, however many a unit has.
    #[test]
    fn the_time_is_looked_at_before_each_piece_of_a_unit() {
        let limits = Limits { pixels_max: 1 << 20, bytes_max: 1 << 28, time: Duration::from_millis(5) };
        let codings: [(Coding, &[u8]); 3] = [
            (Coding::H264, &[0, 0, 0, 1, 0x09, 0xf0]),
            (Coding::Hevc, &[0, 0, 0, 1, 0x46, 0x01, 0x50]),
            (Coding::Av1, &[0x12, 0x00]),
        ];
        for (coding, piece) in codings {
            let Ok(mut decoder) = decoder(&coding, limits) else { continue };
            let late = Deadline::after(Duration::ZERO);
            let stopped = decoder.decode(&piece.repeat(1000), true, &late);
            assert!(matches!(stopped, Err(FrameError::TooSlow { .. })), "{coding:?}: {:?}", stopped.err());
        }
    }
}
