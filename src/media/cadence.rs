//! Where segments begin in a live publication, and the parts that they consist of.
//!
//! PURE. Knows times of samples and nothing of containers. One cadence serves one publication: its first sample begins
//! a segment. A segment begins at a keyframe, unless none comes in time. A part lasts at most its target, and at least
//! 85 % of it unless a segment ends with it (draft-pantos-hls-rfc8216bis §4.4.4.9); a keyframe within a segment begins
//! no part of its own.

/// How long parts and segments should be, in microseconds; fixed for the life of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Targets {
    pub part_us: i64,
    pub segment_us: i64,
}

impl Targets {
    /// The longest a segment may last, rounded to whole seconds.
    pub fn duration_seconds(&self) -> i64 {
        self.segment_us.div_euclid(1_000_000) + i64::from(self.segment_us % 1_000_000 > 0)
    }

    /// Segments last less than this, so that they round to [`Self::duration_seconds`].
    fn segment_limit_us(&self) -> i64 {
        self.duration_seconds() * 1_000_000 + 500_000
    }

    /// A shorter part must have a reason.
    pub fn part_min_us(&self) -> i64 {
        self.part_us - self.part_us * 15 / 100
    }
}

/// What begins, or ends, at a sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mark {
    #[default]
    Nothing,
    Part,
    Segment,
}

/// A sample, or a run of them that stays whole. Times in microseconds.
#[derive(Clone, Copy, Debug)]
pub struct Unit {
    pub start_us: i64,
    pub end_us: i64,
    pub keyframe: bool,
}

impl Unit {
    pub fn length(&self) -> i64 {
        self.end_us.saturating_sub(self.start_us)
    }
}

/// Whether time jumped between something that lasted from `start_us` to `end_us` and what begins at `next_us`.
pub fn jumps((start_us, end_us): (i64, i64), next_us: i64) -> bool {
    /// A clock that is further ahead than this was set.
    const AHEAD_US: i64 = 10_000_000;
    next_us < start_us || next_us.saturating_sub(end_us) > AHEAD_US
}

/// Counts along with the samples of the track that is cut: video, where there is some.
#[derive(Clone, Debug)]
pub struct Cadence {
    targets: Targets,
    /// Start of the open segment; none before the first sample.
    segment: Option<i64>,
    /// Start of the open part, and start and end of its last sample.
    part: i64,
    start: i64,
    end: i64,
    /// Start of the last keyframe, and the distance of the last two.
    keyframe: Option<i64>,
    gop: i64,
    /// What was already said to end with the last sample.
    ended: Mark,
}

impl Cadence {
    pub fn new(targets: Targets) -> Self {
        Self { targets, segment: None, part: 0, start: 0, end: 0, keyframe: None, gop: 0, ended: Mark::Nothing }
    }

    pub fn targets(&self) -> Targets {
        self.targets
    }

    /// Whether the publisher's clock jumped between the last unit and this one: back behind the beginning of that, or
    /// far ahead of its end.
    pub fn jumps(&self, unit: Unit) -> bool {
        self.segment.is_some() && jumps((self.start, self.end), unit.start_us)
    }

    /// Takes the next unit; says what begins with it. `jump`: the publisher's clock jumped before it.
    pub fn begin(&mut self, unit: Unit, jump: bool) -> Mark {
        if unit.keyframe {
            self.gop = self.keyframe.map_or(0, |last| (unit.start_us - last).max(0));
            self.keyframe = Some(unit.start_us);
        }
        let mark = self.judge(unit, jump);
        if mark == Mark::Segment {
            self.segment = Some(unit.start_us);
        }
        if mark != Mark::Nothing {
            self.part = unit.start_us;
        }
        (self.start, self.end) = (unit.start_us, unit.end_us);
        self.ended = Mark::Nothing;
        mark
    }

    fn judge(&self, unit: Unit, jump: bool) -> Mark {
        let Some(segment) = self.segment.filter(|_| !jump) else { return Mark::Segment };
        let elapsed = unit.start_us - segment;
        // The next keyframe would come too late, if it comes as soon as this one did.
        let last_chance = elapsed > 0 && elapsed + self.gop >= self.targets.segment_limit_us();
        if unit.keyframe && (elapsed >= self.targets.segment_us || last_chance) {
            return Mark::Segment;
        }
        if elapsed > 0 && unit.end_us - segment >= self.targets.segment_limit_us() {
            return Mark::Segment;
        }
        let full = unit.end_us - self.part > self.targets.part_us && unit.start_us > self.part;
        if full { self.part_end(segment, unit.start_us) } else { self.ended }
    }

    /// What ends with a part: the segment too if it is long enough, and no keyframe is due that it can wait for.
    fn part_end(&self, segment: i64, end: i64) -> Mark {
        let due = self.keyframe.filter(|_| self.gop > 0).map(|last| last + self.gop);
        let waits = due.is_some_and(|due| due > end && due - segment < self.targets.segment_limit_us());
        if end - segment >= self.targets.segment_us && !waits { Mark::Segment } else { Mark::Part }
    }

    /// What ends with the last unit, as far as can be foreseen; another one of `next_us` will follow.
    pub fn end(&mut self, next_us: i64) -> Mark {
        let length = self.end - self.part;
        if length + next_us > self.targets.part_us && length >= self.targets.part_min_us() {
            self.close();
        }
        self.ended
    }

    /// Ends the open part with the last unit.
    pub fn close(&mut self) {
        self.ended = self.part_end(self.segment.unwrap_or(self.end), self.end);
    }

    /// Whether a run that stays whole would end the open part, which is long enough.
    pub fn would_end(&self, run: Unit) -> bool {
        let long_enough = run.start_us - self.part >= self.targets.part_min_us();
        self.segment.is_some() && long_enough && run.end_us - self.part > self.targets.part_us
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGETS: Targets = Targets { part_us: 500_000, segment_us: 4_000_000 };

    /// Parts of each segment in microseconds, and whether a keyframe stands in front of the segment.
    fn run(frame_us: i64, frames: i64, is_key: impl Fn(i64) -> bool) -> Vec<(bool, Vec<i64>)> {
        let mut cadence = Cadence::new(TARGETS);
        let mut segments: Vec<(bool, Vec<i64>)> = Vec::new();
        for n in 0..frames {
            let unit = Unit { start_us: n * frame_us, end_us: (n + 1) * frame_us, keyframe: is_key(n) };
            match cadence.begin(unit, false) {
                Mark::Segment => segments.push((unit.keyframe, vec![0])),
                Mark::Part => segments.last_mut().expect("a segment").1.push(0),
                Mark::Nothing => {}
            }
            *segments.last_mut().and_then(|(_, parts)| parts.last_mut()).expect("a part") += frame_us;
        }
        segments
    }

    fn assert_rules(segments: &[(bool, Vec<i64>)]) {
        for (_, parts) in segments {
            assert!(parts.iter().sum::<i64>() < 4_500_000, "{parts:?}");
            let (last, others) = parts.split_last().expect("parts");
            assert!(*last <= 500_000 && others.iter().all(|part| (425_000..=500_000).contains(part)), "{parts:?}");
        }
    }

    #[test]
    fn segments_begin_at_keyframes_and_parts_keep_to_their_target() {
        // Frames of 40 ms; a keyframe each second: twelve frames fit a part, and 100 a segment.
        let segments = run(40_000, 1000, |n| n % 25 == 0);
        assert_rules(&segments);
        assert_eq!(segments.len(), 10);
        assert!(
            segments.iter().all(|(keyframe, parts)| *keyframe && parts[..8] == [480_000; 8] && parts[8] == 160_000)
        );
        // Keyframes each 3 s: a second one would come too late.
        let segments = run(40_000, 750, |n| n % 75 == 0);
        assert_rules(&segments);
        // The distance of keyframes is known from the second on.
        let lengths: Vec<i64> = segments.iter().map(|(_, parts)| parts.iter().sum()).collect();
        assert_eq!(lengths, [3_000_000; 10]);
        assert!(segments.iter().all(|(keyframe, _)| *keyframe));
        // A keyframe that is due soon after the target is waited for, once its distance is known.
        let segments = run(33_333, 1210, |n| n % 121 == 0);
        assert_rules(&segments);
        assert!(segments[2..].iter().all(|(keyframe, _)| *keyframe));
    }

    #[test]
    fn a_group_longer_than_the_target_is_cut_without_a_keyframe() {
        let segments = run(40_000, 1500, |n| n % 250 == 0);
        assert_rules(&segments);
        // Every keyframe begins a segment.
        assert_eq!(segments.iter().filter(|(keyframe, _)| *keyframe).count(), 6);
        assert!(segments.iter().any(|(keyframe, _)| !*keyframe));
    }

    #[test]
    fn every_rate_keeps_to_the_rules() {
        for frame_us in [16_683, 20_000, 33_333, 33_367, 41_708, 50_000, 66_667] {
            for gop in [1, 7, 12, 30, 48, 100, 250, 1000] {
                let segments = run(frame_us, 2000, |n| n % gop == 0);
                assert_rules(&segments[..segments.len() - 1]);
            }
        }
    }

    #[test]
    fn the_end_of_a_part_is_foreseen() {
        let mut cadence = Cadence::new(TARGETS);
        for n in 0..25 {
            let unit = Unit { start_us: n * 40_000, end_us: (n + 1) * 40_000, keyframe: n == 0 };
            let begins = cadence.begin(unit, false);
            let ends = cadence.end(40_000);
            assert_eq!(begins != Mark::Nothing, n % 12 == 0, "frame {n}");
            assert_eq!(ends == Mark::Part, n % 12 == 11, "frame {n}");
        }
    }

    #[test]
    fn a_jump_begins_a_segment() {
        let mut cadence = Cadence::new(TARGETS);
        let unit = Unit { start_us: 0, end_us: 40_000, keyframe: true };
        assert_eq!(cadence.begin(unit, false), Mark::Segment);
        let next = Unit { start_us: 40_000, end_us: 80_000, keyframe: false };
        assert_eq!(cadence.begin(next, true), Mark::Segment);
    }
}
