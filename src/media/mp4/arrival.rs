//! Fragmented MP4 as it arrives: finds the init segment and the fragments in a run of buffers, without joining them.
//!
//! PURE. Buffers in, events out; media bytes stay in the buffers they came in. What is copied: `moov` and `moof` boxes
//! that straddle two buffers, a `moof` whose times are shifted, and those that [`super::split`] writes.
//! Source: ISO/IEC 14496-12 §8.8 (movie fragments), §8.16.2 (`styp`).

use super::boxes::{Broken, be32, be64, kind_at, printable};
use super::filling::{Filling, SHORT, SHORT_MAX};
pub use super::init::Init;
pub use super::shift::shift_times;
use super::split::{self, Head, Reached};
use crate::media::cadence::{Cadence, Mark, Targets};
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;
use std::sync::Arc;

/// A `moov` without samples; one with tables for hours stays below this.
const MOOV_MAX: u64 = 16 << 20;
/// A `moof` with half a million samples.
const MOOF_MAX: u64 = 8 << 20;
/// Media of one fragment: a minute at 32 Mb/s.
const MDAT_MAX: u64 = 256 << 20;
/// Boxes that are passed over: `styp`, `sidx`, `prft`, `emsg`, `free`, `mfra`.
const OTHER_MAX: u64 = 4 << 20;

/// A fragment, or a chunk of one: `moof` and `mdat`.
pub struct Fragment {
    /// The boxes in order, in as many buffers as they came in.
    pub rope: Vec<Bytes>,
    /// The first two of these as one, where they lie behind each other in one buffer: half the buffers to send.
    pub front: Option<Bytes>,
    pub len: u64,
    pub runs: Vec<TrackRun>,
    /// The first picture is a sync sample (any sample, where the publication has no pictures).
    pub keyframe: bool,
    /// What begins with it, and what is known to end with it.
    pub begins: Mark,
    pub ends: Mark,
}

/// The samples of one track in a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrackRun {
    /// Position among the tracks of the init segment.
    pub track: usize,
    pub timescale: u32,
    /// Decode time of the first sample, and after the last one, in ticks.
    pub start: i64,
    pub end: i64,
    pub video: bool,
    pub samples: u32,
    pub bytes: u64,
}

pub enum Event {
    Init(Arc<Init>),
    Fragment(Fragment),
}

/// Why a publication ends: what is wrong, and at which of its bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {position}")]
pub struct ArrivalError {
    pub what: String,
    pub position: u64,
    pub kind: Wrong,
}

/// What the publisher can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// Send something else: this is not the format.
    Format,
    /// Send the init segment first.
    NoInit,
    /// Mend the stream.
    Broken,
    /// Send shorter fragments.
    TooLarge { limit: u64 },
}

/// The parser of one publication.
pub struct Arrival {
    queue: VecDeque<Bytes>,
    /// How many of the last buffers are short.
    short: usize,
    /// Bytes in `queue`, and before them.
    have: u64,
    position: u64,
    ftyp: Vec<Bytes>,
    init: Option<Arc<Init>>,
    /// A `moof` whose `mdat` has not begun, where it stood, and what of its buffer begins with it.
    moof: Option<(Bytes, u64, Bytes)>,
    /// An `mdat` that is arriving.
    filling: Option<Filling>,
    cadence: Cadence,
    /// Number of the last `moof` that was written here.
    sequence: u32,
    /// How far each track has come, for fragments without `tfdt` and sound without durations.
    reached: Vec<Reached>,
    /// Bytes that were copied on the way.
    pub copied_bytes: u64,
}

/// Whether what begins like this is a segment, which follows an init segment that came before.
pub fn needs_init(first: &[u8]) -> bool {
    matches!(first.get(4..8), Some(b"styp" | b"sidx" | b"prft" | b"emsg" | b"moof"))
}

impl Arrival {
    pub fn new(targets: Targets) -> Self {
        Self {
            queue: VecDeque::new(),
            short: 0,
            have: 0,
            position: 0,
            ftyp: Vec::new(),
            init: None,
            moof: None,
            filling: None,
            cadence: Cadence::new(targets),
            sequence: 0,
            reached: Vec::new(),
            copied_bytes: 0,
        }
    }

    /// A parser for what follows an init segment that came before.
    pub fn after(init: Arc<Init>, targets: Targets) -> Self {
        let reached = vec![Reached::default(); init.track_count()];
        Self { init: Some(init), reached, ..Self::new(targets) }
    }

    /// Takes the next bytes of the publication and reports what became whole.
    pub fn push(&mut self, bytes: Bytes, events: &mut Vec<Event>) -> Result<(), ArrivalError> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.keep(bytes);
        while self.fill(events) {
            let Some((kind, size)) = self.header()? else { break };
            if &kind == b"mdat" && self.moof.is_some() {
                self.begin_media(size)?;
                continue;
            }
            if self.have < size {
                break;
            }
            let (at, no_init) = (self.position, self.init.is_none() && matches!(&kind, b"moof" | b"mdat"));
            let buffer = self.queue.front().cloned().unwrap_or_default();
            let rope = self.take(size);
            self.boxed(kind, at, rope, buffer, events).map_err(|broken| {
                let what = format!("{} in the {} box", broken.what, printable(kind));
                let kind = if no_init { Wrong::NoInit } else { Wrong::Broken };
                ArrivalError { what, position: at + broken.at as u64, kind }
            })?;
        }
        Ok(())
    }

    /// Short buffers are joined: kept one by one they would take more memory than their bytes.
    fn keep(&mut self, bytes: Bytes) {
        self.have += bytes.len() as u64;
        self.short = if bytes.len() < SHORT { self.short.min(self.queue.len()) + 1 } else { 0 };
        self.queue.push_back(bytes);
        if self.short == SHORT_MAX {
            let short = self.queue.split_off(self.queue.len() - SHORT_MAX);
            let whole = self.joined(short.into());
            self.queue.push_back(whole);
            self.short = 0;
        }
    }

    /// Bytes that are here and in no fragment yet.
    pub fn held_bytes(&self) -> u64 {
        let moof = self.moof.as_ref().map_or(0, |(moof, ..)| moof.len() as u64);
        self.have + moof + self.filling.as_ref().map_or(0, Filling::held_bytes)
    }

    /// Whether the publication may end here: not in the middle of a box.
    pub fn is_between_boxes(&self) -> bool {
        self.have == 0 && self.moof.is_none() && self.filling.is_none()
    }

    /// The `mdat` of a fragment begins at the front of the queue.
    fn begin_media(&mut self, size: u64) -> Result<(), ArrivalError> {
        let (Some((moof, moof_at, buffer)), Some(init)) = (self.moof.take(), self.init.clone()) else { return Ok(()) };
        let mut first = [0; 16];
        self.peek(&mut first);
        let mdat_header = if be32(&first, 0) == 1 { 16 } else { 8 };
        let head = Head { moof: &moof, moof_at, mdat_at: self.position, mdat_size: size, mdat_header };
        let planned = split::plan(&head, &init, &mut self.reached, &mut self.cadence, &mut self.sequence);
        let planned = planned.map_err(|broken| ArrivalError {
            what: format!("{} in the moof box", broken.what),
            position: moof_at + broken.at as u64,
            kind: Wrong::Broken,
        })?;
        self.filling = Some(Filling::new(planned, size, buffer));
        Ok(())
    }

    /// Moves what arrived into the open `mdat` and reports the chunks that became whole; false while it is open.
    fn fill(&mut self, events: &mut Vec<Event>) -> bool {
        let Some(mut filling) = self.filling.take() else { return true };
        self.take(filling.missing().min(self.have)).into_iter().for_each(|piece| filling.push(piece));
        self.copied_bytes += std::mem::take(&mut filling.copied_bytes);
        while let Some((fragment, made)) = filling.next() {
            self.copied_bytes += made;
            events.push(Event::Fragment(fragment));
        }
        let whole = filling.missing() == 0;
        if !whole {
            self.filling = Some(filling);
        }
        whole
    }

    /// Kind and size of the box at the front, once its header is there.
    fn header(&self) -> Result<Option<([u8; 4], u64)>, ArrivalError> {
        let is_first = self.position == 0 && self.init.is_none();
        let kind = if is_first { Wrong::Format } else { Wrong::Broken };
        let wrong = |what: String| ArrivalError { what, position: self.position, kind };
        let mut head = [0u8; 16];
        let got = self.peek(&mut head);
        if got < 8 {
            return Ok(None);
        }
        let kind = kind_at(&head, 4);
        if is_first && !kind.iter().all(u8::is_ascii_alphanumeric) {
            return Err(wrong("this is not fragmented MP4".to_owned()));
        }
        let size = match be32(&head, 0) {
            1 if got < 16 => return Ok(None),
            1 => be64(&head, 8),
            0 => {
                return Err(wrong(format!(
                    "a {} box of unknown size, which a live stream cannot have",
                    printable(kind)
                )));
            }
            size => u64::from(size),
        };
        let limit = match &kind {
            b"moov" => MOOV_MAX,
            b"moof" => MOOF_MAX,
            b"mdat" => MDAT_MAX,
            _ => OTHER_MAX,
        };
        if size < 8 {
            return Err(wrong(format!("a {} box of {size} bytes", printable(kind))));
        }
        if size > limit {
            return Err(wrong(format!("a {} box of {size} bytes; up to {limit} are taken", printable(kind))));
        }
        Ok(Some((kind, size)))
    }

    fn peek(&self, out: &mut [u8; 16]) -> usize {
        let mut got = 0;
        for piece in &self.queue {
            let n = piece.len().min(out.len() - got);
            out[got..got + n].copy_from_slice(&piece[..n]);
            got += n;
            if got == out.len() {
                break;
            }
        }
        got
    }

    /// Takes `size` bytes off the front, which are there.
    fn take(&mut self, size: u64) -> Vec<Bytes> {
        let mut left = size;
        let mut rope = Vec::new();
        while left > 0 {
            let Some(mut piece) = self.queue.pop_front() else { break };
            let n = (piece.len() as u64).min(left);
            // `n` is at most the length of a buffer.
            rope.push(piece.split_to(n as usize));
            if !piece.is_empty() {
                self.queue.push_front(piece);
            }
            left -= n;
        }
        self.have -= size;
        self.position += size;
        rope
    }

    fn joined(&mut self, rope: Vec<Bytes>) -> Bytes {
        if rope.len() == 1 {
            return rope.into_iter().next().unwrap_or_default();
        }
        let mut whole = BytesMut::with_capacity(rope.iter().map(Bytes::len).sum());
        rope.iter().for_each(|piece| whole.extend_from_slice(piece));
        self.copied_bytes += whole.len() as u64;
        whole.freeze()
    }

    /// Takes a box that is whole. `buffer` is the one that it begins in, from there on.
    fn boxed(
        &mut self,
        kind: [u8; 4],
        at: u64,
        rope: Vec<Bytes>,
        buffer: Bytes,
        events: &mut Vec<Event>,
    ) -> Result<(), Broken> {
        match &kind {
            b"ftyp" => self.ftyp = rope,
            b"moov" => {
                let moov = self.joined(rope);
                let init = Arc::new(Init::parse(&self.ftyp, &moov)?);
                self.copied_bytes += init.bytes.len() as u64;
                self.reached = vec![Reached::default(); init.track_count()];
                self.init = Some(Arc::clone(&init));
                events.push(Event::Init(init));
            }
            b"moof" => {
                if self.init.is_none() {
                    return Err(Broken::new("a fragment before any init segment (ftyp and moov)", 0));
                }
                self.moof = Some((self.joined(rope), at, buffer));
            }
            b"mdat" => return Err(Broken::new("media without a moof before it", 0)),
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Longer than any fragment here: none is divided.
    const TARGETS: Targets = Targets { part_us: 3_600_000_000, segment_us: 3_600_000_000 };

    /// The demo sample as fragments, made by the chunk writer.
    pub(crate) fn fragmented() -> Vec<u8> {
        use crate::media::index::{Index, Position, Until};
        use crate::media::mp4::Along;
        use crate::media::slices::Piece;
        let file: &[u8] = include_bytes!("../../../assets/demo.mp4");
        let index = Index::open_trusted(Index::build(&file).expect("indexed").into()).expect("opened");
        let (_, chunk) = index.fmp4(&file, &Position::Frame(0), Until::Size(u64::MAX), Along::Sound).expect("planned");
        let whole = 0..chunk.length();
        let mut out = Vec::new();
        for part in chunk.parts(&whole) {
            for piece in index.fmp4_part(&file, &chunk, part, &whole).expect("made") {
                match piece {
                    Piece::Generated(bytes) => out.extend_from_slice(&bytes),
                    Piece::Source { offset, len } => {
                        out.extend_from_slice(&file[offset as usize..(offset + len) as usize]);
                    }
                }
            }
        }
        out
    }

    /// A fragment with its bytes joined.
    #[derive(PartialEq)]
    pub(crate) struct Joined {
        pub(crate) bytes: Vec<u8>,
        pub(crate) keyframe: bool,
        pub(crate) runs: Vec<TrackRun>,
        pub(crate) begins: Mark,
    }

    pub(crate) struct Seen {
        pub(crate) init: Arc<Init>,
        pub(crate) fragments: Vec<Joined>,
        pub(crate) copied_bytes: u64,
    }

    pub(crate) fn arrive_with(targets: Targets, buffers: impl Iterator<Item = Bytes>) -> Seen {
        let (mut arrival, mut events) = (Arrival::new(targets), Vec::new());
        buffers.for_each(|bytes| arrival.push(bytes, &mut events).expect("valid"));
        let (mut init, mut fragments) = (None, Vec::new());
        for event in events {
            match event {
                Event::Init(found) => init = Some(found),
                Event::Fragment(f) => {
                    let bytes: Vec<u8> = f.rope.iter().flat_map(|piece| piece.to_vec()).collect();
                    assert_eq!(bytes.len() as u64, f.len);
                    assert!(f.front.as_ref().is_none_or(|front| **front == f.rope[..2].concat()), "another front");
                    fragments.push(Joined { bytes, keyframe: f.keyframe, runs: f.runs, begins: f.begins });
                }
            }
        }
        Seen { init: init.expect("an init segment"), fragments, copied_bytes: arrival.copied_bytes }
    }

    fn arrive(buffers: impl Iterator<Item = Bytes>) -> Seen {
        arrive_with(TARGETS, buffers)
    }

    #[test]
    fn how_the_bytes_are_cut_changes_nothing() {
        let whole = Bytes::from(fragmented());
        let expected = arrive(std::iter::once(whole.clone()));
        // assets/demo.sh: 16 keyframes, and the writer begins a fragment at each.
        assert_eq!(expected.fragments.len(), 16);
        assert!(expected.fragments.iter().all(|fragment| fragment.keyframe && fragment.runs.len() >= 2));
        let fragments = expected.fragments.iter().map(|fragment| fragment.bytes.clone());
        let joined: Vec<u8> = fragments.fold(expected.init.bytes.to_vec(), |all, bytes| [all, bytes].concat());
        assert_eq!(joined, whole);
        for size in [1, 7, 1000, 65_536] {
            let buffers = (0..whole.len()).step_by(size).map(|at| whole.slice(at..whole.len().min(at + size)));
            let seen = arrive(buffers);
            let same = seen.init.bytes == expected.init.bytes && seen.fragments == expected.fragments;
            assert!(same, "buffers of {size} bytes");
            let media = if size < 64 { whole.len() as u64 } else { 0 };
            assert!(seen.copied_bytes < 60_000 + media, "{} bytes copied: more than heads", seen.copied_bytes);
        }
    }

    #[test]
    fn a_fragment_in_one_buffer_can_be_sent_as_one() {
        let whole = Bytes::from(fragmented());
        let fronts = |targets: Targets, size: usize| {
            let (mut arrival, mut events) = (Arrival::new(targets), Vec::new());
            for at in (0..whole.len()).step_by(size) {
                let bytes = whole.slice(at..whole.len().min(at.saturating_add(size)));
                arrival.push(bytes, &mut events).expect("valid");
            }
            let front = |event| match event {
                Event::Fragment(fragment) => {
                    Some(fragment.front.map_or(0, |front| front.len() as u64 * 100 / fragment.len))
                }
                Event::Init(_) => None,
            };
            events.into_iter().filter_map(front).collect::<Vec<u64>>()
        };
        assert_eq!(fronts(TARGETS, usize::MAX), [100; 16], "percent of each fragment");
        // Heads that are written here are one, without media.
        let parts = Targets { part_us: 500_000, segment_us: 4_000_000 };
        assert!(fronts(parts, usize::MAX).iter().all(|percent| (1..50).contains(percent)));
        // A moof that straddles buffers has none.
        assert!(fronts(TARGETS, 300).iter().all(|percent| *percent < 2));
    }

    #[test]
    fn a_head_that_comes_byte_by_byte_is_kept_in_few_buffers() {
        let (mut arrival, mut events) = (Arrival::new(TARGETS), Vec::new());
        let whole = [&100_000_u32.to_be_bytes()[..], b"moov", &[0; 60_000]].concat();
        whole.iter().for_each(|byte| arrival.push(vec![*byte].into(), &mut events).expect("not whole"));
        assert_eq!(arrival.held_bytes(), 60_008);
        assert!(arrival.queue.len() < 60_008 / SHORT_MAX + SHORT_MAX, "{}", arrival.queue.len());
    }

    #[test]
    fn times_are_moved_in_a_copy_of_the_head() {
        let seen = arrive(std::iter::once(Bytes::from(fragmented())));
        let second = &seen.fragments[1].bytes;
        let size = be32(second, 0) as usize;
        let moof = Bytes::copy_from_slice(&second[..size]);
        let mut rope = vec![moof.clone()];
        shift_times(&mut rope, &[(1, 30_000), (2, 48_000)]).expect("moved");
        let moved = &rope[0];
        assert_eq!(moved.len(), moof.len());
        let differing = moof.iter().zip(&moved[..]).filter(|(a, b)| a != b).count();
        assert!((1..=16).contains(&differing), "{differing} bytes: only those of two tfdt");
    }

    #[test]
    fn what_is_no_stream_is_refused_with_its_place() {
        let push = |bytes: &[u8]| {
            let (mut arrival, mut events) = (Arrival::new(TARGETS), Vec::new());
            arrival.push(Bytes::copy_from_slice(bytes), &mut events).expect_err("refused")
        };
        let error = push(b"\x00\x00\x00\x05ftyp");
        assert_eq!((error.position, error.kind), (0, Wrong::Format));
        assert_eq!(push(b"\x00\x00\x00\x08moof\x00\x00\x00\x08mdat").kind, Wrong::NoInit);
        assert_eq!(push(b"\x00\x00\x00\x08free\x7f\xff\xff\xffmoov").position, 8);
        assert_eq!(push(b"\x00\x00\x00\x08free\x00\x00\x00\x00mdat").kind, Wrong::Broken);
    }
}
