//! From decoding order and 33-bit timestamps to presentation order and one time line.
//!
//! Rules:
//! - Time is unwrapped along the decoding timestamps: the next one is the nearest of all values that are equal modulo
//!   2^33. A new segment of time begins where the time base is marked as discontinuous, where time jumps by more than
//!   10 s either way, where a decoding timestamp runs back by more than 0.1 s, and at a keyframe that claims to be
//!   shown before a frame that precedes it in decoding order (no codec allows that).
//! - The first frame shown of a segment comes one frame duration after the last one of the segment before.
//! - Frames are shown by segment, then by time; presentation time never runs backwards.
//! - Frames that ffmpeg does not show are not counted: what precedes the first keyframe (HEVC excepted, where ffmpeg
//!   shows it), and leading pictures of a keyframe at which decoding started.
//!
//! Must not know about packets or bytes of pictures.

use super::access::{AccessUnit, Sync};
use super::picture::{Kind, Leading, Order};
use super::table::{Frame, Full, Key, Writer};
use crate::media::time::Rate;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

/// Ticks per second of PES timestamps.
pub const CLOCK: u32 = 90_000;
const WRAP: i64 = 1 << 33;
const JUMP: i64 = 10 * CLOCK as i64;
const STEP_BACK: i64 = CLOCK as i64 / 10;
/// Frames that may be decoded between two that are shown one after the other; decoders hold 16 at most.
const REORDER: usize = 64;
/// Frames that a decoder holds at most.
const DECODER_FRAMES: usize = 16;
/// Distinct frame distances that are counted.
const DISTANCES: usize = 64;
/// Frame duration where nothing is known: 25 per second.
const DEFAULT_DURATION: i64 = 3600;

/// Takes access units in decoding order, writes frames in presentation order.
pub struct Timeline {
    pub writer: Writer,
    nominal: Option<Rate>,
    clock: Clock,
    order: OrderCount,
    heap: BinaryHeap<Reverse<Pending>>,
    sequence: u64,
    start: Start,
    key: Option<CurrentKey>,
    gradual: Option<Gradual>,
    /// Frames of a first refresh under way; those shown after its end count.
    held: Vec<Pending>,
    shown: Shown,
    /// Keyframes shown, whether or not decoding can start there.
    pub keyframes: u64,
}

/// A frame that waits for its turn; ordered by time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Pending {
    segment: u32,
    pts: i64,
    sequence: u64,
    offset: u64,
    size: u64,
    /// Index of its own entry point.
    key: Option<u32>,
    /// It is itself not right when decoding starts there.
    refreshing: bool,
    /// Index of an entry point from which this frame is the first, so far, that decodes.
    cleans: Option<u32>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Start {
    /// No keyframe yet.
    Waiting,
    Decoding,
}

/// The keyframe that came last.
#[derive(Clone, Copy)]
struct CurrentKey {
    index: Option<u32>,
    segment: u32,
    pts: i64,
    /// Leading pictures decode.
    closed: bool,
    /// Leading pictures that do not decode are not shown.
    hides_leading: bool,
}

/// A refresh that is under way.
#[derive(Clone, Copy)]
struct Gradual {
    index: u32,
    frames: u32,
    number: u32,
}

/// What has left the heap.
#[derive(Default)]
struct Shown {
    first: bool,
    segment: u32,
    /// Added to `pts` in this segment.
    shift: i64,
    pts: i64,
    time: i64,
    distances: BTreeMap<i64, u64>,
    total: u64,
    /// The most frequent distance, as of a short while ago.
    mode: Option<i64>,
}

impl Timeline {
    pub fn new(stride: usize) -> Self {
        Self {
            writer: Writer::new(stride),
            nominal: None,
            clock: Clock::default(),
            order: OrderCount::default(),
            heap: BinaryHeap::new(),
            sequence: 0,
            start: Start::Waiting,
            key: None,
            gradual: None,
            held: Vec::new(),
            shown: Shown::default(),
            keyframes: 0,
        }
    }

    /// Takes the next access unit of a video stream. `nominal` is what its parameters say, `shows_all` whether frames
    /// before the first keyframe are shown.
    pub fn video(&mut self, unit: &AccessUnit, nominal: Option<Rate>, shows_all: bool) -> Result<(), Full> {
        let Some(picture) = unit.picture else { return Ok(()) };
        self.nominal = self.nominal.or(nominal);
        let sync = unit.sync();
        let duration = self.duration();
        let order = self.order.of(&picture, unit.group.is_some());
        let estimate = order.and_then(|order| self.order.time(order, duration));
        let (segment, pts) =
            self.clock.place(unit, estimate, matches!(sync, Sync::Closed | Sync::Open { .. }), duration);
        if let Some(order) = order {
            self.order.anchor(order, pts, unit.pes.pts.is_some());
        }
        let mut pending = self.pending(unit, segment, pts);
        let decoding = self.start == Start::Decoding;
        match sync {
            Sync::Closed | Sync::Open { .. } => {
                let hides_leading = !decoding || unit.after_end || picture.kind == Kind::Broken;
                // Without sequence parameters a decoder can go on here, but not begin.
                let index = if unit.parameters || !decoding { self.add_key(unit, Key::UNKNOWN) } else { None };
                let closed = matches!(sync, Sync::Closed | Sync::Open { closed: true });
                self.key = Some(CurrentKey { index, segment, pts, closed, hides_leading });
                self.start = Start::Decoding;
                (pending.key, self.gradual) = (index, None);
                self.keyframes += 1;
            }
            Sync::Gradual(frames) => {
                if unit.parameters || !decoding {
                    pending.key = self.add_key(unit, Key::UNKNOWN);
                    pending.refreshing = true;
                    self.gradual = pending.key.map(|index| Gradual { index, frames, number: picture.number });
                }
                self.keyframes += u64::from(decoding);
            }
            Sync::No => {
                let leading = self.leading(picture.leading, segment, pts);
                match (leading, self.key) {
                    (Leading::Skipped, None) => return Ok(()),
                    (Leading::Skipped, Some(key)) if key.hides_leading => return Ok(()),
                    (Leading::Decodable, Some(key)) => pending.cleans = key.index,
                    _ => {}
                }
                // A picture that is no reference has the number of the reference behind it.
                let complete = if picture.reference { self.advance_gradual(picture.number) } else { None };
                if let Some(index) = complete {
                    pending.cleans = Some(index);
                    self.start = Start::Decoding;
                    for held in std::mem::take(&mut self.held) {
                        if (held.segment, held.pts) > (segment, pts) {
                            self.queue(held)?;
                        }
                    }
                }
            }
        }
        if self.start == Start::Waiting {
            if !shows_all {
                self.hold(pending);
                return Ok(());
            }
            if self.writer.keys.is_empty() {
                pending.key = self.add_key(unit, 0);
            }
        }
        self.queue(pending)
    }

    /// Keeps what a decoder may hold back.
    fn hold(&mut self, pending: Pending) {
        if self.gradual.is_some() {
            if self.held.len() == DECODER_FRAMES {
                self.held.remove(0);
            }
            self.held.push(pending);
        }
    }

    /// Takes one PES packet of a stream in which everything is a keyframe.
    pub fn audio(&mut self, unit: &AccessUnit) -> Result<(), Full> {
        let duration = self.duration();
        let (segment, pts) = self.clock.place(unit, None, true, duration);
        let mut pending = self.pending(unit, segment, pts);
        pending.key = self.add_key(unit, Key::UNKNOWN);
        self.queue(pending)
    }

    /// Nothing follows.
    pub fn finish(&mut self) -> Result<(), Full> {
        while let Some(Reverse(next)) = self.heap.pop() {
            self.show(next)?;
        }
        // ffmpeg shows nothing of a refresh that is complete only with the last frame.
        let last = self.writer.count().saturating_sub(1);
        self.writer.keys.retain(|key| key.clean_from < last || key.clean_from == last && key.frame == last);
        // An entry point that was never shown itself is named by the first frame that decodes from it.
        for key in &mut self.writer.keys {
            if key.frame == Key::UNKNOWN {
                key.frame = key.clean_from;
            }
        }
        Ok(())
    }

    /// 90 kHz, from frame 0 to the end of the last one.
    pub fn total(&self) -> u64 {
        if self.writer.count() == 0 { 0 } else { (self.shown.time + self.duration()).max(0) as u64 }
    }

    /// Frame rate, and whether frames are unequally spaced.
    pub fn rate(&self) -> (Option<Rate>, bool) {
        let Some((mode, near, count, sum)) = self.shown.typical() else { return (self.nominal, false) };
        let variable = (self.shown.total - near) * 100 > self.shown.total;
        // `sum / count` ticks per frame, exact within one tick over the whole file.
        let close = |rate: &Rate| {
            let ticks = i128::from(CLOCK) * i128::from(rate.den) * i128::from(count);
            let error = (ticks - i128::from(sum) * i128::from(rate.num)).unsigned_abs();
            error * 2500 <= ticks.unsigned_abs() || error <= 2 * u128::from(rate.num)
        };
        if let Some(rate) = self.nominal.filter(close) {
            return (Some(rate), variable);
        }
        let standard = STANDARD.iter().map(|&(num, den)| Rate { num, den }).find(close);
        let measured = || Rate::new(CLOCK, u32::try_from(mode).ok()?);
        (standard.or_else(measured), variable)
    }

    fn pending(&mut self, unit: &AccessUnit, segment: u32, pts: i64) -> Pending {
        self.sequence += 1;
        let (offset, size) = (unit.pes.offset, unit.end.saturating_sub(unit.pes.offset));
        Pending { segment, pts, sequence: self.sequence, offset, size, key: None, refreshing: false, cleans: None }
    }

    fn add_key(&mut self, unit: &AccessUnit, clean_from: u32) -> Option<u32> {
        let index = u32::try_from(self.writer.keys.len()).ok()?;
        let pes = unit.pes;
        self.writer.keys.push(Key { entry: pes.entry, sample: pes.offset, frame: Key::UNKNOWN, clean_from });
        Some(index)
    }

    /// Whether a frame behind a keyframe is shown before it, and decodes from it.
    fn leading(&self, marked: Leading, segment: u32, pts: i64) -> Leading {
        match (marked, self.key) {
            (Leading::Unmarked, Some(key)) if segment == key.segment && pts < key.pts => {
                if key.closed {
                    Leading::Decodable
                } else {
                    Leading::Skipped
                }
            }
            (Leading::Unmarked, _) => Leading::No,
            _ => marked,
        }
    }

    /// The entry point whose refresh is complete with this frame.
    fn advance_gradual(&mut self, number: u32) -> Option<u32> {
        let gradual = self.gradual.as_mut()?;
        if gradual.number != number {
            gradual.number = number;
            gradual.frames = gradual.frames.saturating_sub(1);
        }
        if gradual.frames > 0 {
            return None;
        }
        self.gradual.take().map(|gradual| gradual.index)
    }

    fn duration(&self) -> i64 {
        let nominal = self.nominal.map(|rate| i64::from(CLOCK) * i64::from(rate.den) / i64::from(rate.num.max(1)));
        self.shown.mode.or(nominal).unwrap_or(DEFAULT_DURATION).clamp(1, i64::from(CLOCK) * 10)
    }

    fn queue(&mut self, pending: Pending) -> Result<(), Full> {
        self.heap.push(Reverse(pending));
        if self.heap.len() > REORDER
            && let Some(Reverse(next)) = self.heap.pop()
        {
            self.show(next)?;
        }
        Ok(())
    }

    fn show(&mut self, next: Pending) -> Result<(), Full> {
        let number = self.writer.count();
        if !self.shown.first {
            self.shown = Shown { first: true, segment: next.segment, shift: -next.pts, ..Shown::default() };
        } else if next.segment != self.shown.segment {
            let start = self.shown.time + self.duration();
            (self.shown.segment, self.shown.shift) = (next.segment, start - next.pts);
        } else {
            self.shown.count(next.pts - self.shown.pts);
        }
        self.shown.pts = next.pts;
        self.shown.time = self.shown.time.max(next.pts.saturating_add(self.shown.shift));
        self.writer.push(Frame { offset: next.offset, size: next.size, time: self.shown.time as u64 })?;
        if let Some(key) = next.key.and_then(|n| self.writer.keys.get_mut(n as usize)) {
            key.frame = number;
            if !next.refreshing {
                key.clean_from = key.clean_from.min(number);
            }
        }
        if let Some(key) = next.cleans.and_then(|n| self.writer.keys.get_mut(n as usize)) {
            key.clean_from = key.clean_from.min(number);
        }
        Ok(())
    }
}

/// Rates that are told apart by measuring; NTSC ones differ by 0.1 % from their neighbours.
const STANDARD: [(u32, u32); 14] = [
    (24_000, 1001),
    (24, 1),
    (25, 1),
    (30_000, 1001),
    (30, 1),
    (48, 1),
    (50, 1),
    (60_000, 1001),
    (60, 1),
    (15, 1),
    (10, 1),
    (100, 1),
    (120_000, 1001),
    (120, 1),
];

impl Shown {
    fn count(&mut self, distance: i64) {
        if distance <= 0 {
            return;
        }
        self.total += 1;
        if let Some(count) = self.distances.get_mut(&distance) {
            *count += 1;
        } else if self.distances.len() < DISTANCES {
            self.distances.insert(distance, 1);
        } else {
            // Frequent values survive, as in the counting of Misra and Gries.
            self.distances.retain(|_, count| {
                *count -= 1;
                *count > 0
            });
        }
        if self.total < 64 || self.total.is_multiple_of(64) {
            self.mode = self.typical().map(|(mode, ..)| mode);
        }
    }

    /// The most frequent distance, how many frames are near it, and count and sum of those.
    fn typical(&self) -> Option<(i64, u64, u64, i64)> {
        let (&mode, _) = self.distances.iter().max_by_key(|&(distance, &count)| (count, Reverse(*distance)))?;
        // Timestamps that were rounded to milliseconds are up to 90 ticks off.
        let near = (mode / 8).max(2);
        let range = self.distances.range(mode - near..=mode + near);
        let (count, sum) = range.fold((0, 0i64), |(n, sum), (distance, count)| {
            (n + count, sum.saturating_add(distance.saturating_mul(*count as i64)))
        });
        Some((mode, count, count, sum))
    }
}

/// Unwraps timestamps and divides them into segments.
#[derive(Default)]
struct Clock {
    segment: u32,
    /// Last decoding timestamp, unwrapped.
    dts: Option<i64>,
    /// Last presentation timestamp in decoding order.
    pts: i64,
    /// Largest presentation timestamp of the segment.
    pts_max: i64,
    marked: bool,
}

impl Clock {
    fn place(&mut self, unit: &AccessUnit, estimate: Option<i64>, keyframe: bool, duration: i64) -> (u32, i64) {
        self.marked |= unit.pes.new_timebase;
        let pts_raw = unit.pes.pts.map(|v| v as i64);
        let dts_raw = unit.pes.dts.map(|v| v as i64).or(pts_raw);
        let Some(dts_raw) = dts_raw else {
            let dts = self.dts.map_or(0, |dts| dts + duration);
            let pts = estimate.unwrap_or(if self.dts.is_some() { self.pts + duration } else { 0 });
            (self.dts, self.pts, self.pts_max) = (Some(dts), pts, self.pts_max.max(pts));
            return (self.segment, pts);
        };
        let lead = wrapped(pts_raw.unwrap_or(dts_raw) - dts_raw);
        let mut dts = dts_raw;
        if let Some(last) = self.dts {
            let step = wrapped(dts_raw - last.rem_euclid(WRAP));
            dts = last + step;
            let back = step < -STEP_BACK && unit.pes.dts.is_some();
            let before = keyframe && dts + lead < self.pts_max;
            if std::mem::take(&mut self.marked) || step.abs() > JUMP || back || before {
                self.segment = self.segment.saturating_add(1);
                dts = dts_raw;
                self.pts_max = i64::MIN;
            }
        } else {
            self.pts_max = i64::MIN;
            self.marked = false;
        }
        let pts = dts + lead;
        (self.dts, self.pts, self.pts_max) = (Some(dts), pts, self.pts_max.max(pts));
        (self.segment, pts)
    }
}

/// The difference of two 33-bit timestamps, taken the short way round.
fn wrapped(difference: i64) -> i64 {
    (difference + WRAP / 2).rem_euclid(WRAP) - WRAP / 2
}

/// Picture order count, for frames without timestamps (ISO/IEC 14496-10 §8.2.1.1 and its like).
#[derive(Default)]
struct OrderCount {
    /// Of the last reference picture, complete.
    last: i64,
    /// Order and time of a frame that had a timestamp.
    anchor: Option<(i64, i64)>,
    /// Order counts per frame: 2 where fields are counted.
    step: i64,
}

impl OrderCount {
    /// Complete order count of a picture.
    fn of(&mut self, picture: &super::picture::Picture, new_group: bool) -> Option<i64> {
        let Order { lsb, bits, per_frame } = picture.order?;
        self.step = i64::from(per_frame);
        if picture.kind == Kind::Instant || new_group {
            (self.last, self.anchor) = (0, None);
        }
        let (range, lsb) = (1i64 << bits, i64::from(lsb));
        let half = range / 2;
        let order = self.last + (lsb - self.last.rem_euclid(range) + half).rem_euclid(range) - half;
        if picture.reference {
            self.last = order;
        }
        Some(order)
    }

    fn time(&self, order: i64, duration: i64) -> Option<i64> {
        let (anchor, time) = self.anchor?;
        time.checked_add((order - anchor).checked_mul(duration)? / self.step.max(1))
    }

    fn anchor(&mut self, order: i64, pts: i64, known: bool) {
        if known || self.anchor.is_none() {
            self.anchor = Some((order, pts));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::access::Pes;
    use super::super::picture::{Parity, Picture};
    use super::super::table::Table;
    use super::*;

    fn unit(number: u64, pts: u64, kind: Kind) -> AccessUnit {
        let pes =
            Pes { offset: number * 188, entry: number * 188, pts: Some(pts), number: number + 1, ..Pes::default() };
        let leading = Leading::Unmarked;
        let picture = Picture { kind, leading, field: None::<Parity>, number: 0, order: None, reference: true };
        AccessUnit {
            pes,
            end: number * 188 + 188,
            parameters: kind != Kind::Inter,
            recovery: None,
            group: None,
            after_end: false,
            picture: Some(picture),
        }
    }

    /// Times of the frames that come out, in ticks.
    fn times(units: &[AccessUnit]) -> Vec<u64> {
        let mut timeline = Timeline::new(188);
        for unit in units {
            timeline.video(unit, Rate::new(25, 1), false).expect("room");
        }
        timeline.finish().expect("room");
        let total = timeline.total();
        let table = Table::open(timeline.writer.finish(total).into()).expect("a table");
        (0..table.frames()).filter_map(|n| table.frame(n)).map(|frame| frame.time).collect()
    }

    fn run(pts: &[u64]) -> Vec<AccessUnit> {
        let kind = |n| if n == 0 { Kind::Instant } else { Kind::Inter };
        pts.iter().enumerate().map(|(n, &pts)| unit(n as u64, pts, kind(n))).collect()
    }

    #[test]
    fn the_33rd_bit_wraps() {
        let top = (1 << 33) - 3600;
        assert_eq!(times(&run(&[top, 0, 3600])), [0, 3600, 7200]);
    }

    #[test]
    fn a_gap_is_kept_and_a_jump_is_closed() {
        assert_eq!(times(&run(&[0, 3600, 3600 + 900_000])), [0, 3600, 903_600]);
        assert_eq!(times(&run(&[0, 3600, 3600 + 900_001])), [0, 3600, 7200]);
        assert_eq!(times(&run(&[2_000_000, 2_003_600, 90_000, 93_600])), [0, 3600, 7200, 10_800]);
    }

    #[test]
    fn a_marked_time_base_closes_a_small_gap() {
        let mut units = run(&[0, 3600, 90_000, 93_600]);
        units[2].pes.new_timebase = true;
        assert_eq!(times(&units), [0, 3600, 7200, 10_800]);
    }

    #[test]
    fn a_keyframe_before_its_past_starts_anew() {
        let mut units = run(&[10_800, 14_400, 18_000, 9_000, 12_600]);
        units[3] = unit(3, 9_000, Kind::Instant);
        assert_eq!(times(&units), [0, 3600, 7200, 10_800, 14_400]);
    }

    #[test]
    fn leading_pictures_of_the_first_keyframe_are_not_counted() {
        let mut units = run(&[7200, 3600, 10_800]);
        units[0] = unit(0, 7200, Kind::Open);
        assert_eq!(times(&units), [0, 3600]);
        // A closed group of pictures says that they decode.
        units[0].group = Some(true);
        assert_eq!(times(&units), [0, 3600, 7200]);
    }

    #[test]
    fn nothing_precedes_the_first_keyframe() {
        let mut units = run(&[0, 3600, 7200, 10_800]);
        units.swap(0, 2);
        (units[0], units[2]) = (unit(0, 0, Kind::Inter), unit(2, 7200, Kind::Instant));
        assert_eq!(times(&units), [0, 3600]);
    }
}
