//! One frame from its video to a file: planned, decoded, scaled, adjusted, enhanced, encoded, in that order.
//!
//! Must not know queues, caches, or how it was asked for.

use super::adjust::Adjust;
use super::decode::decode;
use super::encode::{self, Format};
use super::image::{Image, shown_size};
use super::planes::Planes;
use super::{FrameError, Job, Limits, colour};
use crate::media::ReadAt;
use crate::media::index::{Index, Position};
use crate::media::still::Display;

/// What is done to a picture.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Edit {
    pub adjust: Option<Adjust>,
    /// The amount, from 0 to 1.
    pub enhance: Option<f32>,
}

/// How a frame is given.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    pub width: Option<u32>,
    pub edit: Edit,
    pub format: Format,
}

/// A decoded frame, and how its container says it is shown.
pub struct Decoded {
    pub frame: u64,
    pub planes: Planes,
    pub display: Display,
}

impl Edit {
    /// Adjusts, then enhances; nothing is rounded in between.
    pub fn apply(&self, image: &mut Image, job: &Job) -> Result<(), FrameError> {
        match (&self.adjust, self.enhance) {
            (adjust, Some(amount)) => {
                let adjusted = adjust.map(|adjust| adjust.table());
                job.enhancer()?.apply(image, amount, adjusted.as_ref());
            }
            (Some(adjust), None) => adjust.apply(image),
            (None, None) => {}
        }
        Ok(())
    }
}

/// The file of an image.
pub fn encode(image: &Image, format: Format, job: &Job) -> Result<Vec<u8>, FrameError> {
    match format {
        Format::Jpeg { quality } => job.jpeg()?.encode(image, quality),
        Format::Png => encode::png(image),
    }
}

/// Decodes the frame at a moment.
pub fn frame(index: &Index, src: &dyn ReadAt, position: &Position, job: &Job) -> Result<Decoded, FrameError> {
    let still = index.still(src, position, job.limits.bytes_max)?;
    let planes = decode(src, &still, job.decoder(&still.coding)?, &job.limits)?;
    Ok(Decoded { frame: still.frame, planes, display: still.display })
}

impl Decoded {
    /// The picture as it is shown, `width` pixels wide.
    pub fn image(&self, width: Option<u32>, limits: &Limits) -> Result<Image, FrameError> {
        let Planes { luma, pixel_aspect, .. } = &self.planes;
        let (aspect, orientation) = (self.display.pixel_aspect.or(*pixel_aspect), self.display.orientation);
        let (x, y) = shown_size((luma.width, luma.height), aspect, orientation, width, limits)?;
        Ok(colour::to_rgb(&self.planes, self.display.colour).scaled(x, y)?.oriented(orientation))
    }
}

/// The file of the frame at a moment.
pub fn render(
    index: &Index,
    src: &dyn ReadAt,
    position: &Position,
    options: &Options,
    job: &Job,
) -> Result<Vec<u8>, FrameError> {
    let mut image = frame(index, src, position, job)?.image(options.width, &job.limits)?;
    options.edit.apply(&mut image, job)?;
    encode(&image, options.format, job)
}
