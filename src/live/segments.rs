//! The segments of a stream and the parts of each, as playlists list them: runs of bytes of the stream, by number.
//!
//! PURE. What a part of a playlist consists of are the window's parts, which are shorter; where one begins was decided
//! where they were cut. Bytes are not kept here: a run of them is read from the window, or back from the recording.

use super::arrival::Init;
use super::resource::Resource;
use crate::media::cadence::{Mark, Targets};
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// A run of bytes with a duration that viewers can ask for as soon as it is whole.
#[derive(Clone, Debug)]
pub struct SegmentPart {
    pub range: Range<u64>,
    pub duration_us: i64,
    /// Start in microseconds and first byte of the first keyframe in it.
    pub keyframe: Option<(i64, u64)>,
}

/// A run of parts.
#[derive(Clone)]
pub struct Segment {
    pub number: u64,
    pub init: Arc<Init>,
    /// Number of the first segment with this init segment, which names it.
    pub init_number: u64,
    /// Time or coding begins anew here.
    pub discontinuity: bool,
    /// By the clock on the wall.
    pub start: SystemTime,
    pub start_us: i64,
    pub range: Range<u64>,
    pub duration_us: i64,
    pub parts: Vec<SegmentPart>,
}

impl Segment {
    pub fn end_us(&self) -> i64 {
        self.start_us.saturating_add(self.duration_us)
    }
}

/// A part of the window that comes to its place.
pub struct Appended<'a> {
    pub range: Range<u64>,
    pub init: &'a Arc<Init>,
    /// Start and end in the stream, by the track that is cut.
    pub span_us: (i64, i64),
    /// It has samples of that track.
    pub leads: bool,
    pub keyframe: bool,
    pub discontinuity: bool,
    pub begins: Mark,
    pub ends: Mark,
}

/// How far a stream has come; what waits for it is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Number of the segment that is open or comes next, and its parts that are whole.
    pub segment: u64,
    pub parts: usize,
    /// Parts of the segment before.
    pub parts_before: usize,
    /// Segments that are whole.
    pub whole: u64,
    pub ended: bool,
}

impl Progress {
    /// Whether a segment, or a part of it, is there. A part behind the last one of a segment that is whole is the first
    /// of the next.
    pub fn has(&self, segment: u64, part: Option<u64>) -> bool {
        let behind = |parts: usize, n: u64| (parts as u64) <= n;
        match part {
            _ if segment.saturating_add(1) < self.segment => true,
            None => segment < self.segment,
            Some(n) if segment == self.segment => !behind(self.parts, n),
            Some(n) => segment < self.segment && (!behind(self.parts_before, n) || self.parts > 0),
        }
    }
}

/// All segments that can be had.
pub struct Segments {
    targets: Targets,
    /// How much playlists list.
    listed_us: i64,
    whole: VecDeque<Arc<Segment>>,
    /// How many of them have left the playlist, and how many discontinuities did so in all.
    unlisted: usize,
    discontinuities: u64,
    open: Option<Open>,
    /// Number of the segment after the last one.
    next: u64,
    finished: u64,
    /// A moment by the clock on the wall, and in the stream.
    anchor: Option<(SystemTime, i64)>,
    ended: bool,
    /// Counts what changes a playlist.
    version: u64,
}

struct Open {
    segment: Segment,
    part: Option<OpenPart>,
}

struct OpenPart {
    range: Range<u64>,
    span_us: (i64, i64),
    leads: bool,
    keyframe: Option<(i64, u64)>,
}

impl Segments {
    /// Segments are numbered from `segment` on, discontinuities from `discontinuity` on.
    pub fn new(targets: Targets, listed_us: i64, segment: u64, discontinuity: u64) -> Self {
        Self {
            targets,
            listed_us: listed_us.max(3 * targets.duration_seconds() * 1_000_000),
            whole: VecDeque::new(),
            unlisted: 0,
            discontinuities: discontinuity,
            open: None,
            next: segment,
            finished: 0,
            anchor: None,
            ended: false,
            version: 0,
        }
    }

    pub fn targets(&self) -> Targets {
        self.targets
    }

    pub fn version(&self) -> u64 {
        self.version
    }

    /// Takes a part of the window; `now` is when it came.
    pub fn append(&mut self, part: &Appended<'_>, now: SystemTime) {
        let other_coding = self.open.as_ref().is_some_and(|open| !Arc::ptr_eq(&open.segment.init, part.init));
        let anew = part.discontinuity || other_coding;
        // Sound that came in front of the first picture of a part is of that part.
        let is_early = |open: &mut OpenPart| !anew && part.begins != Mark::Nothing && !open.leads;
        let mut early = self.open.as_mut().and_then(|open| open.part.take_if(is_early));
        let is_begun = early.is_some() && self.open.as_ref().is_some_and(|open| open.segment.parts.is_empty());
        if anew || (part.begins == Mark::Segment && !is_begun) {
            self.close_segment();
        } else if part.begins == Mark::Part {
            self.close_part();
        }
        let open = match &mut self.open {
            Some(open) => open,
            None => {
                let start = early.as_ref().map_or(part.range.start, |early| early.range.start);
                let segment = self.begin(part, start, now);
                self.open.insert(Open { segment, part: None })
            }
        };
        open.part = open.part.take().or_else(|| early.take());
        match &mut open.part {
            Some(open) => open.take(part),
            none => *none = Some(OpenPart::new(part)),
        }
        match part.ends {
            Mark::Segment => self.close_segment(),
            Mark::Part => self.close_part(),
            Mark::Nothing => {}
        }
    }

    /// A segment from a byte on, with this part or one before it.
    fn begin(&mut self, part: &Appended<'_>, first_byte: u64, now: SystemTime) -> Segment {
        let before = self.whole.back();
        let same_coding = before.filter(|before| Arc::ptr_eq(&before.init, part.init));
        let discontinuity = before.is_some() && (part.discontinuity || same_coding.is_none());
        let (start_us, end_us) = part.span_us;
        if discontinuity || self.anchor.is_none() {
            // The last of it was taken just now.
            self.anchor = Some((now - micros(end_us.saturating_sub(start_us)), start_us));
        }
        let (at, at_us) = self.anchor.unwrap_or((now, start_us));
        let start = if start_us >= at_us { at + micros(start_us - at_us) } else { at - micros(at_us - start_us) };
        Segment {
            number: self.next,
            init: Arc::clone(part.init),
            init_number: same_coding.map_or(self.next, |before| before.init_number),
            discontinuity,
            start,
            start_us,
            range: first_byte..first_byte,
            duration_us: 0,
            parts: Vec::new(),
        }
    }

    /// Ends the open part, as when the publisher has left.
    pub fn close_part(&mut self) {
        let Some(open) = &mut self.open else { return };
        let Some(part) = open.part.take() else { return };
        let duration_us = part.span_us.1.saturating_sub(part.span_us.0).max(0);
        if open.segment.parts.is_empty() {
            open.segment.start_us = part.span_us.0;
        }
        open.segment.duration_us = open.segment.duration_us.saturating_add(duration_us);
        open.segment.range.end = part.range.end;
        open.segment.parts.push(SegmentPart { range: part.range, duration_us, keyframe: part.keyframe });
        self.version += 1;
    }

    fn close_segment(&mut self) {
        self.close_part();
        let Some(open) = self.open.take() else { return };
        self.next += 1;
        self.finished += 1;
        self.whole.push_back(Arc::new(open.segment));
        self.version += 1;
        self.trim();
    }

    /// The stream has ended.
    pub fn end(&mut self) {
        if !self.ended {
            self.close_segment();
            self.ended = true;
            self.version += 1;
        }
    }

    /// Takes off the playlist what is older than it may list, and forgets what has been off it for as long again.
    fn trim(&mut self) {
        let Some(end_us) = self.whole.back().map(|last| last.end_us()) else { return };
        let ends_before =
            |segment: &Segment, us: i64| segment.end_us() <= end_us.saturating_sub(us) && us < i64::MAX / 4;
        while self.whole.get(self.unlisted).is_some_and(|oldest| ends_before(oldest, self.listed_us)) {
            self.unlist();
        }
        let kept_us = self.listed_us.saturating_mul(2).saturating_add(self.targets.segment_us.saturating_mul(2));
        while self.unlisted > 0 && self.whole.front().is_some_and(|oldest| ends_before(oldest, kept_us)) {
            self.whole.pop_front();
            self.unlisted -= 1;
        }
    }

    fn unlist(&mut self) {
        self.discontinuities += u64::from(self.whole[self.unlisted].discontinuity);
        self.unlisted += 1;
        self.version += 1;
    }

    /// Takes off the playlist what begins before this byte: it cannot be read any more.
    pub fn unlist_before(&mut self, byte: u64) {
        while self.whole.get(self.unlisted).is_some_and(|oldest| oldest.range.start < byte) {
            self.unlist();
        }
    }

    pub fn progress(&self) -> Progress {
        Progress {
            segment: self.next,
            parts: self.open.as_ref().map_or(0, |open| open.segment.parts.len()),
            parts_before: self.whole.back().map_or(0, |last| last.parts.len()),
            whole: self.finished,
            ended: self.ended,
        }
    }

    /// The segments that playlists list.
    pub fn listed(&self) -> impl Iterator<Item = &Arc<Segment>> {
        self.whole.iter().skip(self.unlisted)
    }

    /// All segments that are known, also those that playlists do not list any more.
    pub fn all(&self) -> impl Iterator<Item = &Segment> {
        self.whole.iter().map(|segment| &**segment).chain(self.open())
    }

    /// The segment that is open, with its parts that are whole.
    pub fn open(&self) -> Option<&Segment> {
        self.open.as_ref().map(|open| &open.segment).filter(|segment| !segment.parts.is_empty())
    }

    /// Discontinuities before the first segment that is listed.
    pub fn discontinuities(&self) -> u64 {
        self.discontinuities
    }

    /// Numbers of the segment and of the discontinuity that come next: where another stream of this name goes on.
    pub fn next(&self) -> (u64, u64) {
        let open = self.open.as_ref().map(|open| open.segment.discontinuity);
        let listed = self.listed().map(|segment| segment.discontinuity).chain(open).filter(|is| *is).count();
        (self.next + u64::from(open.is_some()), self.discontinuities + listed as u64 + 1)
    }

    /// A segment that is whole, on the playlist or just off it.
    fn get(&self, number: u64) -> Option<&Arc<Segment>> {
        let first = self.whole.front()?.number;
        self.whole.get(usize::try_from(number.checked_sub(first)?).ok()?)
    }

    /// The same, or the one that is open.
    fn begun(&self, number: u64) -> Option<&Segment> {
        let open = self.open.as_ref().map(|open| &open.segment).filter(|open| open.number == number);
        open.or_else(|| self.get(number).map(|segment| &**segment))
    }

    /// How something that playlists name is coded; `None` when there is no such thing.
    pub fn init_of(&self, resource: &Resource) -> Option<&Arc<Init>> {
        let (segment, extension) = match *resource {
            Resource::Init(number) => {
                let open = self.open.as_ref().map(|open| &open.segment);
                let mut all = self.whole.iter().map(|segment| &**segment).chain(open);
                let named = all.find(|segment| segment.init_number == number);
                return named.map(|segment| &segment.init).filter(|init| !init.bytes().is_empty());
            }
            Resource::Segment { segment, extension } | Resource::Part { segment, extension, .. } => {
                (segment, extension)
            }
        };
        let init = &self.begun(segment)?.init;
        (init.segment_extension() == extension).then_some(init)
    }

    /// Where a segment or a part that is whole lies in the stream, and how long it lasts.
    pub fn find(&self, resource: &Resource) -> Option<(Range<u64>, i64)> {
        match *resource {
            Resource::Init(_) => None,
            Resource::Segment { segment, .. } => {
                self.get(segment).map(|found| (found.range.clone(), found.duration_us))
            }
            Resource::Part { segment, part, .. } => {
                self.begun(segment)?.parts.get(part).map(|found| (found.range.clone(), found.duration_us))
            }
        }
    }
}

impl OpenPart {
    fn new(part: &Appended<'_>) -> Self {
        let keyframe = part.keyframe.then_some((part.span_us.0, part.range.start));
        Self { range: part.range.clone(), span_us: part.span_us, leads: part.leads, keyframe }
    }

    fn take(&mut self, part: &Appended<'_>) {
        self.range.end = part.range.end;
        self.keyframe = self.keyframe.or(part.keyframe.then_some((part.span_us.0, part.range.start)));
        let (start, end) = part.span_us;
        match (self.leads, part.leads) {
            // Sound at the edges of pictures does not count.
            (true, false) => {}
            (false, true) => self.span_us = part.span_us,
            _ => self.span_us = (self.span_us.0.min(start), self.span_us.1.max(end)),
        }
        self.leads |= part.leads;
    }
}

fn micros(us: i64) -> Duration {
    Duration::from_micros(u64::try_from(us).unwrap_or(0))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::media::cadence::{Cadence, Unit};
    use std::time::UNIX_EPOCH;

    const TARGETS: Targets = Targets { part_us: 500_000, segment_us: 4_000_000 };

    fn init() -> Arc<Init> {
        Arc::new(Init::Mp4(crate::media::mp4::arrival::Init::for_tests()))
    }

    /// A publisher that sends frame by frame, pictures of 40 ms and sound behind each; `each` sees every state.
    pub(in crate::live) struct Sender {
        pub(in crate::live) segments: Segments,
        cadence: Cadence,
        init: Arc<Init>,
        frame: i64,
        byte: u64,
        discontinuity: bool,
    }

    impl Sender {
        pub(in crate::live) fn new(listed_us: i64) -> Self {
            let (segments, cadence) = (Segments::new(TARGETS, listed_us, 7, 3), Cadence::new(TARGETS));
            Self { segments, cadence, init: init(), frame: 0, byte: 0, discontinuity: false }
        }

        /// The publisher comes back, with the same coding or another one.
        pub(in crate::live) fn return_as(&mut self, other_coding: bool) {
            self.segments.close_part();
            self.cadence = Cadence::new(TARGETS);
            self.discontinuity = true;
            if other_coding {
                self.init = init();
            }
        }

        fn append(&mut self, span_us: (i64, i64), leads: bool, keyframe: bool, (begins, ends): (Mark, Mark)) {
            let range = self.byte..self.byte + 100;
            self.byte += 100;
            let discontinuity = std::mem::take(&mut self.discontinuity);
            let init = Arc::clone(&self.init);
            let part = Appended { range, init: &init, span_us, leads, keyframe, discontinuity, begins, ends };
            self.segments.append(&part, UNIX_EPOCH + micros(span_us.1));
        }

        pub(in crate::live) fn send(&mut self, frames: i64, gop: i64, mut each: impl FnMut(&mut Segments)) {
            for n in 0..frames {
                let start_us = self.frame * 40_000;
                self.frame += 1;
                let unit = Unit { start_us, end_us: start_us + 40_000, keyframe: n % gop == 0 };
                let marks = (self.cadence.begin(unit, false), self.cadence.end(40_000));
                self.append((start_us, start_us + 40_000), true, unit.keyframe, marks);
                each(&mut self.segments);
                self.append((start_us + 10_000, start_us + 55_000), false, false, (Mark::Nothing, Mark::Nothing));
                each(&mut self.segments);
            }
        }
    }

    #[test]
    fn sound_between_the_pictures_changes_no_part() {
        let mut sender = Sender::new(60_000_000);
        sender.send(230, 25, |_| ());
        let segments: Vec<_> = sender.segments.listed().cloned().collect();
        assert_eq!(segments.len(), 2);
        for (n, segment) in segments.iter().enumerate() {
            assert_eq!(
                (segment.number, segment.start_us, segment.duration_us),
                (7 + n as u64, n as i64 * 4_000_000, 4_000_000)
            );
            let durations: Vec<i64> = segment.parts.iter().map(|part| part.duration_us).collect();
            assert_eq!(durations, [vec![480_000; 8], vec![160_000]].concat());
            assert!(segment.parts.iter().step_by(2).take(4).all(|part| part.keyframe.is_some()));
        }
        // Every byte is in exactly one part.
        let parts: Vec<_> = segments.iter().flat_map(|segment| &segment.parts).map(|part| part.range.clone()).collect();
        assert_eq!(parts[0].start, 0);
        assert!(parts.windows(2).all(|pair| pair[0].end == pair[1].start));
        assert!(segments.iter().all(|s| s.range == (s.parts[0].range.start..s.parts.last().unwrap().range.end)));
    }

    #[test]
    fn old_segments_leave_the_playlist_and_stay_for_as_long_again() {
        let mut sender = Sender::new(20_000_000);
        sender.send(100 * 30, 25, |segments| {
            let listed: i64 = segments.listed().map(|segment| segment.duration_us).sum();
            let whole = segments.progress().whole;
            assert!(listed <= 20_000_000 && (listed >= 20_000_000 || whole < 6));
            if let Some(oldest) = segments.listed().next().filter(|_| whole > 10) {
                let removed = oldest.number - 1;
                let name = Resource::Segment { segment: removed, extension: "m4s" };
                assert!(segments.find(&name).is_some(), "segment {removed} is there");
            }
        });
        assert!(sender.segments.whole.len() <= 13, "{} segments are kept", sender.segments.whole.len());
        let byte = sender.segments.listed().nth(2).expect("a segment").range.start;
        sender.segments.unlist_before(byte);
        assert_eq!(sender.segments.listed().count(), 3);
    }

    #[test]
    fn numbers_go_on_and_codings_are_told_apart() {
        let mut sender = Sender::new(20_000_000);
        sender.send(100, 25, |_| ());
        sender.return_as(false);
        sender.send(100, 25, |_| ());
        sender.return_as(true);
        sender.send(100, 25, |_| ());
        let seen: Vec<_> = sender.segments.listed().map(|s| (s.number, s.init_number, s.discontinuity)).collect();
        assert_eq!(seen, [(7, 7, false), (8, 7, true)]);
        let open = sender.segments.open().expect("open");
        assert_eq!((open.number, open.init_number, open.discontinuity), (9, 9, true));
        assert_eq!(sender.segments.next(), (10, 6), "three before the stream, two in it, and one for what comes");
        sender.segments.end();
        assert_eq!(sender.segments.next(), (10, 6));
        assert_eq!(sender.segments.progress().segment, 10);
        // The oldest discontinuity leaves with its segment.
        sender.segments.unlist_before(u64::MAX);
        assert_eq!(sender.segments.discontinuities(), 5);
    }

    #[test]
    fn what_is_there() {
        let at = Progress { segment: 5, parts: 2, parts_before: 9, whole: 5, ended: false };
        assert!(at.has(4, None) && at.has(3, Some(100)) && at.has(5, Some(1)) && at.has(4, Some(8)));
        // Behind the last part of a whole segment comes the first of the next.
        assert!(at.has(4, Some(9)));
        assert!(!at.has(5, None) && !at.has(5, Some(2)) && !at.has(6, Some(0)));
        assert!(!Progress { parts: 0, ..at }.has(4, Some(9)));
    }
}
