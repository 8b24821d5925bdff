//! Seeks in an index that may describe anything: what every target that has an index asks of it.
//!
//! Must not know: which container the media is.

use crate::bounds::bounded;
use crate::media::ReadAt;
use crate::media::index::{Index, Position};
use crate::media::time::{DecimalTime, Label};
use bytes::Bytes;

/// Builds an index of `media`, opens it and seeks in it, each step within the bounds.
pub fn build_open_seek(media: &[u8]) {
    let media: &dyn ReadAt = &Media(media);
    if let Ok(entry) = bounded(|| Index::build(media)) {
        let opened = bounded(|| Index::open(Bytes::from(entry)));
        let index = opened.unwrap_or_else(|error| panic!("an entry that was just built does not open: {error}"));
        seek(&index, media);
    }
}

/// Seeks to the start, the end and far beyond, in every way that a client can ask.
pub fn seek(index: &Index, media: &dyn ReadAt) {
    let times = [(0, 0), (1, 3), (-1, 0), (i64::MAX, 0), (i64::MIN + 1, 9), (1, 9)];
    let labels = [(0, 0, 0, 0), (0, 0, 1, 1), (1, 0, 0, 0), (23, 59, 59, 29), (u32::MAX, u32::MAX, u32::MAX, u32::MAX)];
    let mut positions: Vec<_> = [0, 1, 2, 299, 1 << 31, u64::MAX].map(Position::Frame).to_vec();
    positions.extend(times.map(|(value, decimals)| Position::Time(DecimalTime { value, decimals })));
    for (hours, minutes, seconds, frames) in labels {
        for (separator, drop) in [(false, None), (true, None), (false, Some(true)), (true, Some(false))] {
            let label = Label { hours, minutes, seconds, frames, drop: separator };
            positions.push(Position::Timecode { label, drop });
        }
    }
    for position in positions {
        if let Ok(seek) = bounded(|| index.resolve(media, &position)) {
            if let Position::Frame(frame) = position {
                assert_eq!(seek.frame.unwrap_or(frame), frame);
            }
            // What is printed is found again.
            if let Some(frame) = seek.frame {
                let again = index.resolve(media, &Position::Frame(frame));
                assert!(again.is_ok_and(|again| again.keyframe.offset == seek.keyframe.offset));
            }
        }
    }
}

/// Bytes behind the same interface as a file.
pub struct Media<'a>(pub &'a [u8]);

impl ReadAt for Media<'_> {
    fn size(&self) -> u64 {
        self.0.size()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> std::io::Result<usize> {
        self.0.read_at(offset, buf)
    }
}
