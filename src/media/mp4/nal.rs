//! The NAL units of one sample, and what they say about where decoding can start.
//!
//! Must not know indexes. Reads a few bytes of each unit, never a whole picture.

use super::sample::Sample;
use crate::media::ReadAt;
use crate::media::codec::avc::{self, Kind};
use std::io;

/// Units of one sample that are looked at for its first picture.
const UNITS_MAX: u32 = 64;
/// Bytes of a message that are looked at: recovery points come among the first.
const MESSAGE_MAX: u64 = 256;

/// One unit: its first byte, and where it lies in the file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unit {
    pub(crate) first: u8,
    offset: u64,
    len: u64,
}

/// Walks the units of a sample.
pub(crate) struct Units<'a> {
    src: &'a dyn ReadAt,
    length_size: usize,
    at: u64,
    end: u64,
    left: u32,
}

impl<'a> Units<'a> {
    /// `length_size` bytes (1 to 4) before each unit say how long it is.
    pub(crate) fn of(src: &'a dyn ReadAt, sample: Sample, length_size: usize) -> Self {
        let end = sample.offset.saturating_add(u64::from(sample.size));
        Units { src, length_size, at: sample.offset, end, left: UNITS_MAX }
    }
}

impl Iterator for Units<'_> {
    type Item = io::Result<Unit>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut head = [0u8; 5];
        let head = &mut head[..self.length_size + 1];
        self.left = self.left.checked_sub(1)?;
        if self.end.saturating_sub(self.at) < head.len() as u64 {
            return None;
        }
        if let Err(error) = self.src.read_exact_at(self.at, head) {
            return Some(Err(error));
        }
        let len = head[..self.length_size].iter().fold(0u64, |len, byte| len << 8 | u64::from(*byte));
        let offset = self.at + self.length_size as u64;
        let unit = Unit { first: head[self.length_size], offset, len: len.min(self.end - offset) };
        self.at = offset.saturating_add(len);
        Some(Ok(unit))
    }
}

/// How many reference pictures of H.264 after this sample the first right one is (`recovery_frame_cnt`): 0 where
/// decoding starts at once.
pub(crate) fn frames_to_recovery(src: &dyn ReadAt, sample: Sample, length_size: usize) -> io::Result<u32> {
    let mut frames = 0;
    for unit in Units::of(src, sample, length_size) {
        let unit = unit?;
        match avc::kind(unit.first) {
            Kind::Instant => return Ok(0),
            Kind::Picture => break,
            Kind::Message => {
                let mut message = vec![0; unit.len.saturating_sub(1).min(MESSAGE_MAX) as usize];
                src.read_exact_at(unit.offset + 1, &mut message)?;
                frames = avc::recovery_frames(&message).unwrap_or(frames);
            }
            Kind::Other => {}
        }
    }
    Ok(frames)
}
