//! The window of a stream: the newest parts, bounded by time and by bytes. Old parts are dropped whole, never
//! overwritten; a viewer that still sends one keeps it alive.
//!
//! PURE: parts in, parts out; no clock, no locks.

use super::arrival::Init;
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::Arc;

/// The smallest unit that viewers get.
#[derive(Clone)]
pub struct Part {
    /// Counts on from the streams of the same name before.
    pub number: u64,
    /// Offset of the first byte, init segments included; counts on likewise.
    pub offset: u64,
    pub len: u64,
    pub rope: Vec<Bytes>,
    /// Start and end in microseconds of the stream.
    pub start_us: i64,
    pub end_us: i64,
    /// Start and end of what it has of the track that is cut, the pictures where there are any, by decode times.
    pub leading_us: Option<(i64, i64)>,
    /// Decoding can begin here.
    pub keyframe: bool,
    /// What it was coded with; another one than the part before means that players start anew.
    pub init: Arc<Init>,
}

impl Part {
    pub fn leading_start_us(&self) -> i64 {
        self.leading_us.map_or(self.start_us, |(start_us, _)| start_us)
    }

    /// Where the init segment begins if this is the first part after it.
    pub fn init_offset(&self) -> u64 {
        self.offset.saturating_sub(self.init.bytes().len() as u64)
    }
}

/// What a window has at a byte offset.
pub enum Located {
    /// The part that holds the byte.
    Part(Arc<Part>),
    /// From the byte to the end of its init segment.
    Init(Bytes),
    /// No longer there.
    Before,
    /// Not yet there.
    Ahead,
}

/// The parts that can still be read.
#[derive(Default)]
pub struct Window {
    /// Number of the first part of the stream's life.
    first_number: u64,
    parts: VecDeque<Arc<Part>>,
    bytes: u64,
}

/// How much a window keeps.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub duration_us: i64,
    pub bytes: u64,
}

impl Window {
    /// Empty; the stream's first part will have this number.
    pub fn from(first_number: u64) -> Self {
        Self { first_number, ..Self::default() }
    }

    /// Appends a part and drops the oldest ones beyond the bounds; the newest part always stays.
    pub fn push(&mut self, part: Arc<Part>, bounds: Bounds) {
        self.bytes += part.len;
        let newest_end = part.end_us;
        self.parts.push_back(part);
        while self.parts.len() > 1 {
            let Some(oldest) = self.parts.front() else { break };
            let kept_us = newest_end.saturating_sub(oldest.end_us);
            if self.bytes <= bounds.bytes && kept_us < bounds.duration_us {
                break;
            }
            self.bytes -= oldest.len;
            self.parts.pop_front();
        }
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn first(&self) -> Option<&Arc<Part>> {
        self.parts.front()
    }

    pub fn last(&self) -> Option<&Arc<Part>> {
        self.parts.back()
    }

    /// The part with a number; `None` when it is no longer there, or not yet.
    pub fn get(&self, number: u64) -> Option<&Arc<Part>> {
        let first = self.parts.front()?.number;
        self.parts.get(usize::try_from(number.checked_sub(first)?).ok()?)
    }

    /// Offset of the oldest byte that is here; the first init segment of the stream counts as part of its first part.
    pub fn first_byte(&self) -> Option<u64> {
        let first = self.first()?;
        Some(if first.number == self.first_number { first.init_offset() } else { first.offset })
    }

    /// What lies at a byte offset of the stream.
    pub fn at(&self, offset: u64) -> Located {
        let after = self.parts.partition_point(|part| part.offset <= offset);
        if let Some(part) = after.checked_sub(1).and_then(|at| self.parts.get(at))
            && offset < part.offset + part.len
        {
            return Located::Part(Arc::clone(part));
        }
        let Some(next) = self.parts.get(after) else { return Located::Ahead };
        // Between two parts, or before the very first one, only the init segment of the later one can lie.
        let known = after > 0 || next.number == self.first_number;
        match offset.checked_sub(next.init_offset()).and_then(|skip| usize::try_from(skip).ok()) {
            Some(skip) if known && skip < next.init.bytes().len() => Located::Init(next.init.bytes().slice(skip..)),
            _ => Located::Before,
        }
    }

    /// Oldest first.
    pub fn parts(&self) -> impl DoubleEndedIterator<Item = &Arc<Part>> {
        self.parts.iter()
    }

    /// The newest part at which decoding can begin.
    pub fn newest_keyframe(&self) -> Option<&Arc<Part>> {
        self.parts.iter().rev().find(|part| part.keyframe)
    }

    /// The last keyframe part that starts at or before a time; the oldest keyframe part if all are later.
    pub fn keyframe_at(&self, time_us: i64) -> Option<&Arc<Part>> {
        let before = self.parts.iter().rev().find(|part| part.keyframe && part.leading_start_us() <= time_us);
        before.or_else(|| self.parts.iter().find(|part| part.keyframe))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(number: u64, keyframe: bool) -> Arc<Part> {
        let init = Arc::new(Init::Mp4(crate::media::mp4::arrival::Init::for_tests()));
        let start_us = number as i64 * 500_000;
        let rope = vec![Bytes::from(vec![0; 100])];
        let (offset, end_us) = (number * 100, start_us + 500_000);
        Arc::new(Part {
            number,
            offset,
            len: 100,
            rope,
            start_us,
            end_us,
            leading_us: Some((start_us, end_us)),
            keyframe,
            init,
        })
    }

    fn window(parts: u64, bounds: Bounds) -> Window {
        let mut window = Window::default();
        for number in 0..parts {
            // A keyframe every fourth part.
            window.push(part(number, number % 4 == 0), bounds);
        }
        window
    }

    #[test]
    fn time_bounds_it() {
        // 2 s of half-second parts: 8 to 11, and 7 ends exactly 2 s before the end.
        let window = window(12, Bounds { duration_us: 2_000_000, bytes: u64::MAX });
        assert_eq!((window.first().unwrap().number, window.last().unwrap().number), (8, 11));
        assert_eq!(window.bytes(), 400);
        assert!(window.get(7).is_none() && window.get(12).is_none());
        assert_eq!(window.get(9).unwrap().number, 9);
    }

    #[test]
    fn bytes_bound_it_but_the_newest_part_stays() {
        assert_eq!(window(12, Bounds { duration_us: i64::MAX, bytes: 250 }).bytes(), 200);
        assert_eq!(window(12, Bounds { duration_us: i64::MAX, bytes: 1 }).bytes(), 100);
    }

    #[test]
    fn viewers_join_at_keyframes() {
        let window = window(12, Bounds { duration_us: i64::MAX, bytes: u64::MAX });
        assert_eq!(window.newest_keyframe().unwrap().number, 8);
        assert_eq!(window.keyframe_at(3_999_999).unwrap().number, 4);
        assert_eq!(window.keyframe_at(4_000_000).unwrap().number, 8);
        assert_eq!(window.keyframe_at(-1).unwrap().number, 0, "before the window: its oldest keyframe");
    }
}
