//! Exact time: rates, decimal times and SMPTE timecodes. No floating point decides anything here.
//!
//! Sources: SMPTE ST 12-1 (timecode labels, drop-frame counting), RFC 2326 section 3.6 (npt: seconds and
//! HH:MM:SS.mmm). Must not know containers or HTTP.

use std::cmp::Ordering;
use std::fmt;
use std::num::NonZeroU32;

const SECONDS_PER_DAY: u64 = 86_400;

/// Frames per second (or any rate) as a reduced fraction, e.g. 30000/1001.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rate {
    pub num: u32,
    pub den: u32,
}

/// A time in seconds as an exact fraction; may be negative.
#[derive(Clone, Copy, Debug)]
pub struct Seconds {
    pub num: i128,
    /// Always positive.
    pub den: u64,
}

/// A time as a client wrote it: an exact decimal with the number of decimals it was written with.
/// `value / 10^decimals` seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecimalTime {
    pub value: i64,
    pub decimals: u8,
}

/// A timecode label as written, before it is checked against a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label {
    pub hours: u32,
    pub minutes: u32,
    pub seconds: u32,
    pub frames: u32,
    /// The separator before the frames was `;`: drop-frame.
    pub drop: bool,
}

/// How a video counts timecode: nominal frames per second and drop-frame or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counting {
    pub rate: Rate,
    pub drop: bool,
}

/// What is wrong with a time or a timecode as written; says what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TimeError(pub String);

impl Rate {
    /// A reduced rate; `None` when either part is zero.
    pub fn new(num: u32, den: u32) -> Option<Rate> {
        if num == 0 || den == 0 {
            return None;
        }
        let divisor = gcd(u128::from(num), u128::from(den)) as u32;
        Some(Rate { num: num / divisor, den: den / divisor })
    }

    /// Frames per labelled second: the rate rounded to a whole number, halves up; at least 1.
    pub fn nominal(self) -> u32 {
        let (num, den) = (u64::from(self.num), u64::from(self.den.max(1)));
        u32::try_from(((num * 2 + den) / (den * 2)).max(1)).unwrap_or(u32::MAX)
    }

    /// Drop-frame counting is defined for rates 1/1001 below a multiple of 30 (29.97, 59.94, 119.88).
    pub fn allows_drop_frame(self) -> bool {
        let nominal = self.nominal();
        // Rates that were measured, such as 2997/100, are close to the exact ones but not equal.
        let (num, den) = (u128::from(self.num), u128::from(self.den));
        let exact = u128::from(nominal) * 1000;
        matches!(nominal, 30 | 60 | 120) && (num * 1001).abs_diff(exact * den) * 10_000 < exact * den
    }

    /// Start of frame `frame` when every frame lasts `1/rate`.
    pub fn start_of(self, frame: i64) -> Seconds {
        Seconds { num: i128::from(frame) * i128::from(self.den), den: u64::from(self.num.max(1)) }.reduced()
    }

    /// The whole number of frames nearest to `time`, halves up. Saturates.
    pub fn frames_in(self, time: Seconds) -> i64 {
        let den = i128::from(time.den).saturating_mul(i128::from(self.den.max(1))).saturating_mul(2);
        let doubled = time.num.saturating_mul(i128::from(self.num)).saturating_mul(2);
        let frames = doubled.saturating_add(den / 2).div_euclid(den);
        i64::try_from(frames).unwrap_or(if frames < 0 { i64::MIN } else { i64::MAX })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.num, self.den)
    }
}

impl Seconds {
    pub const ZERO: Seconds = Seconds { num: 0, den: 1 };

    /// `num / den`, reduced; `None` when `den` is zero.
    pub fn new(num: i128, den: u64) -> Option<Seconds> {
        (den != 0).then(|| Seconds { num, den }.reduced())
    }

    /// `ticks` of a clock with `timescale` ticks per second.
    pub fn from_ticks(ticks: i64, timescale: NonZeroU32) -> Seconds {
        Seconds { num: i128::from(ticks), den: u64::from(timescale.get()) }.reduced()
    }

    /// Nearest tick of a clock with `timescale` ticks per second, halves up. Saturates.
    pub fn to_ticks(self, timescale: NonZeroU32) -> i64 {
        Rate { num: timescale.get(), den: 1 }.frames_in(self)
    }

    /// Last tick at or before this time of a clock with `timescale` ticks per second. Saturates.
    pub fn to_ticks_floor(self, timescale: NonZeroU32) -> i64 {
        let ticks = self.num.saturating_mul(i128::from(timescale.get())).div_euclid(i128::from(self.den.max(1)));
        i64::try_from(ticks).unwrap_or(if ticks < 0 { i64::MIN } else { i64::MAX })
    }

    /// `None` when the exact sum does not fit.
    pub fn checked_add(self, other: Seconds) -> Option<Seconds> {
        let (a, b) = (self.reduced(), other.reduced());
        let common = gcd(u128::from(a.den), u128::from(b.den)) as u64;
        let left = a.num.checked_mul(i128::from(b.den / common))?;
        let right = b.num.checked_mul(i128::from(a.den / common))?;
        Seconds::new(left.checked_add(right)?, a.den.checked_mul(b.den / common)?)
    }

    /// `None` when the exact difference does not fit.
    pub fn checked_sub(self, other: Seconds) -> Option<Seconds> {
        self.checked_add(Seconds { num: other.num.checked_neg()?, den: other.den })
    }

    /// The same value with the smallest denominator.
    pub fn reduced(self) -> Seconds {
        let den = self.den.max(1);
        let divisor = gcd(self.num.unsigned_abs(), u128::from(den)) as u64;
        Seconds { num: self.num / i128::from(divisor), den: den / divisor }
    }

    /// Millionths of a second, rounded to nearest, halves away from zero: what is printed. Saturates.
    fn micros(self) -> i128 {
        let den = u128::from(self.den.max(1));
        let magnitude = self.num.unsigned_abs();
        let (whole, rest) = (magnitude / den, magnitude % den);
        // `rest < 2^64`, so the products below stay under 2^85.
        let fraction = (rest * 2_000_000 + den) / (den * 2);
        let micros = whole.saturating_mul(1_000_000).saturating_add(fraction);
        let micros = i128::try_from(micros).unwrap_or(i128::MAX);
        if self.num < 0 { -micros } else { micros }
    }
}

/// JSON number: up to six decimals, trailing zeros trimmed.
impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.micros();
        let (whole, fraction) = (micros.unsigned_abs() / 1_000_000, micros.unsigned_abs() % 1_000_000);
        if micros < 0 {
            f.write_str("-")?;
        }
        write!(f, "{whole}")?;
        if fraction > 0 {
            f.write_str(".")?;
            f.write_str(format!("{fraction:06}").trim_end_matches('0'))?;
        }
        Ok(())
    }
}

impl PartialEq for Seconds {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Seconds {}

impl PartialOrd for Seconds {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Seconds {
    /// Exact whatever the sizes: whole parts first; the remainders cross-multiplied fit 128 bits.
    fn cmp(&self, other: &Self) -> Ordering {
        let (a, b) = (i128::from(self.den.max(1)), i128::from(other.den.max(1)));
        let whole = self.num.div_euclid(a).cmp(&other.num.div_euclid(b));
        let left = self.num.rem_euclid(a).unsigned_abs() * b.unsigned_abs();
        let right = other.num.rem_euclid(b).unsigned_abs() * a.unsigned_abs();
        whole.then(left.cmp(&right))
    }
}

impl DecimalTime {
    /// Decimals that are kept; more are cut off. A billionth of a second is far below any frame.
    const DECIMALS_MAX: u8 = 9;

    /// Seconds (`4154.884`), `MM:SS.mmm` or `HH:MM:SS.mmm`. Numbers too large to hold become the largest one,
    /// which lies beyond the end of any video.
    pub fn parse(text: &str) -> Result<DecimalTime, TimeError> {
        let error = || TimeError("a time is written in seconds, 4154.884, or as HH:MM:SS.mmm, 01:09:14.884".to_owned());
        let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let (clock, fraction) = text.split_once('.').unwrap_or((text, ""));
        if !fraction.bytes().all(|b| b.is_ascii_digit()) {
            return Err(error());
        }
        let mut seconds: i64 = 0;
        for (at, group) in clock.split(':').enumerate() {
            let digits = !group.is_empty() && group.bytes().all(|b| b.is_ascii_digit());
            if at > 2 && digits {
                let text = "a time has at most HH:MM:SS.mmm; HH:MM:SS:FF is a timecode, written timecode=";
                return Err(TimeError(text.to_owned()));
            }
            // Minutes and seconds after a colon have two digits and stay below 60.
            let small = group.len() <= 2 && group.parse().is_ok_and(|v: u32| v < 60);
            if !digits || (at > 0 && !small) {
                return Err(error());
            }
            let value = group.bytes().fold(0i64, |v, b| v.saturating_mul(10).saturating_add(i64::from(b - b'0')));
            seconds = seconds.saturating_mul(60).saturating_add(value);
        }
        let mut time = DecimalTime { value: seconds, decimals: 0 };
        for digit in fraction.bytes().take(usize::from(Self::DECIMALS_MAX)) {
            let longer = time.value.checked_mul(10).and_then(|v| v.checked_add(i64::from(digit - b'0')));
            let Some(value) = longer else { break };
            time = DecimalTime { value, decimals: time.decimals + 1 };
        }
        Ok(if negative { DecimalTime { value: -time.value, ..time } } else { time })
    }

    /// The exact value.
    pub fn seconds(self) -> Seconds {
        Seconds { num: i128::from(self.value), den: self.unit_den() }.reduced()
    }

    /// Half a unit of the last decimal: how far below a frame's start this time may lie and still mean that frame.
    pub fn half_unit(self) -> Seconds {
        Seconds { num: 1, den: self.unit_den().saturating_mul(2) }
    }

    /// Given that this time lies at or after the frame that starts at `start` and before the one that starts at
    /// `next`: does it mean `next`? It does within half its last decimal, unless it is how `start` is printed.
    pub fn means_next(self, start: Option<Seconds>, next: Seconds) -> bool {
        let time = self.seconds();
        let prints_as_start = start.is_some_and(|start| start.micros() == time.micros());
        let distance = next.checked_sub(time);
        !prints_as_start && distance.is_some_and(|distance| distance <= self.half_unit())
    }

    fn unit_den(self) -> u64 {
        10u64.saturating_pow(u32::from(self.decimals))
    }
}

/// As it was written, in seconds.
impl fmt::Display for DecimalTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, magnitude) = (self.unit_den(), self.value.unsigned_abs());
        let sign = if self.value < 0 { "-" } else { "" };
        write!(f, "{sign}{}", magnitude / unit)?;
        if self.decimals > 0 {
            write!(f, ".{:0width$}", magnitude % unit, width = usize::from(self.decimals))?;
        }
        Ok(())
    }
}

impl Label {
    /// `HH:MM:SS:FF`, or `HH:MM:SS;FF` for drop-frame. `.` and `,` before the frames mean different things to
    /// different tools and are refused.
    pub fn parse(text: &str) -> Result<Label, TimeError> {
        let error = || {
            TimeError(
                "a timecode is written HH:MM:SS:FF, 01:09:14:28, or with `;` before the frames for drop-frame"
                    .to_owned(),
            )
        };
        let mut groups = [0u32; 4];
        let mut separators = [0u8; 3];
        let mut rest = text.as_bytes();
        for at in 0..4 {
            let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
            // Three digits of frames exist from 120 frames per second on.
            if digits == 0 || digits > if at == 3 { 3 } else { 2 } {
                return Err(error());
            }
            groups[at] = rest[..digits].iter().fold(0, |v, b| v * 10 + u32::from(b - b'0'));
            rest = &rest[digits..];
            if at < 3 {
                let Some((separator, after)) = rest.split_first() else { return Err(error()) };
                separators[at] = *separator;
                rest = after;
            }
        }
        if !rest.is_empty() || separators[0] != b':' || separators[1] != b':' {
            return Err(error());
        }
        if matches!(separators[2], b'.' | b',') {
            return Err(TimeError(
                "`.` or `,` before the last group is ambiguous: write `;` for drop-frame timecode, \
                 or time= for decimals of a second"
                    .to_owned(),
            ));
        }
        if !matches!(separators[2], b':' | b';') {
            return Err(error());
        }
        let [hours, minutes, seconds, frames] = groups;
        Ok(Label { hours, minutes, seconds, frames, drop: separators[2] == b';' })
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let separator = if self.drop { ';' } else { ':' };
        let Label { hours, minutes, seconds, frames, .. } = self;
        write!(f, "{hours:02}:{minutes:02}:{seconds:02}{separator}{frames:02}")
    }
}

impl Counting {
    /// Frame numbers that a drop-frame count leaves out at the start of each minute but every tenth; 0 when the
    /// count is non-drop or the rate has no drop-frame form.
    fn dropped_per_minute(self) -> u64 {
        let nominal = u64::from(self.rate.nominal());
        if self.drop && nominal % 30 == 0 { nominal / 15 } else { 0 }
    }

    /// Labels in 24 hours.
    pub fn labels_per_day(self) -> u64 {
        // 1440 minutes, of which 144 are multiples of ten and drop nothing.
        u64::from(self.rate.nominal()) * SECONDS_PER_DAY - self.dropped_per_minute() * (1440 - 144)
    }

    /// The number of the label, counted from 00:00:00:00. Only `self.drop` decides how it is counted; the separator
    /// is the caller's matter. An illegal label is an error that names the nearest legal one.
    pub fn number_of(self, label: Label) -> Result<u64, TimeError> {
        let nearest = self.nearest_legal(label);
        if (Label { drop: self.drop, ..label }) != nearest {
            return Err(TimeError(format!(
                "{label} is not a label at {}: {}; the nearest one is {nearest}",
                self.describe(),
                self.reason(label),
            )));
        }
        let nominal = u64::from(self.rate.nominal());
        let minutes = u64::from(label.hours) * 60 + u64::from(label.minutes);
        let counted = (minutes * 60 + u64::from(label.seconds)) * nominal + u64::from(label.frames);
        Ok(counted - self.dropped_per_minute() * (minutes - minutes / 10))
    }

    /// The label with this number, modulo 24 hours; negative numbers count back from midnight.
    pub fn label_of(self, number: i64) -> Label {
        let day = i128::from(self.labels_per_day());
        let mut number = i128::from(number).rem_euclid(day) as u64;
        let nominal = u64::from(self.rate.nominal());
        let dropped = self.dropped_per_minute();
        if dropped > 0 {
            let per_minute = nominal * 60 - dropped;
            let per_ten_minutes = per_minute * 10 + dropped;
            let (tens, rest) = (number / per_ten_minutes, number % per_ten_minutes);
            // The first minute of the ten is whole; each later one skips `dropped` numbers.
            let skipped = if rest < nominal * 60 { 0 } else { 1 + (rest - nominal * 60) / per_minute };
            number += dropped * (tens * 9 + skipped);
        }
        let (total_seconds, frames) = (number / nominal, number % nominal);
        Label {
            hours: (total_seconds / 3600) as u32,
            minutes: (total_seconds / 60 % 60) as u32,
            seconds: (total_seconds % 60) as u32,
            frames: frames as u32,
            drop: self.drop,
        }
    }

    /// The label itself when it is legal, else the nearest legal one: the last before it where a group is too
    /// large, the next one where drop-frame leaves it out.
    pub fn nearest_legal(self, label: Label) -> Label {
        let last_frame = self.rate.nominal() - 1;
        let mut legal = Label { drop: self.drop, ..label };
        if legal.hours > 23 {
            legal = Label { hours: 23, minutes: 59, seconds: 59, frames: last_frame, ..legal };
        } else if legal.minutes > 59 {
            legal = Label { minutes: 59, seconds: 59, frames: last_frame, ..legal };
        } else if legal.seconds > 59 {
            legal = Label { seconds: 59, frames: last_frame, ..legal };
        } else if legal.frames > last_frame {
            legal.frames = last_frame;
        }
        let dropped = self.dropped_per_minute() as u32;
        if legal.seconds == 0 && !legal.minutes.is_multiple_of(10) {
            legal.frames = legal.frames.max(dropped);
        }
        legal
    }

    fn reason(self, label: Label) -> String {
        if label.hours > 23 {
            "hours end at 23".to_owned()
        } else if label.minutes > 59 {
            "minutes end at 59".to_owned()
        } else if label.seconds > 59 {
            "seconds end at 59".to_owned()
        } else if label.frames >= self.rate.nominal() {
            format!("frames end at {:02}", self.rate.nominal() - 1)
        } else {
            let last = self.dropped_per_minute().saturating_sub(1);
            format!("drop-frame leaves out frames 00 to {last:02} at the start of this minute")
        }
    }

    /// Rate and kind of count, for messages.
    pub fn describe(self) -> String {
        let kind = if self.drop { "drop-frame" } else { "non-drop" };
        format!("{} frames per second {kind}", self.rate)
    }
}

/// Greatest common divisor; never 0 as long as `b` is not.
/// Year, month and day of a number of days since 1970-01-01: the year begins in March, so that the leap day is its
/// last day.
pub fn civil(days: u64) -> (u64, u64, u64) {
    const ERA_DAYS: u64 = 146_097;
    // 1970-01-01 is day 719,468 after 0000-03-01.
    let since = days + 719_468;
    let (era, day) = (since / ERA_DAYS, since % ERA_DAYS);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + carry, month, day)
}

/// Microseconds of a number of ticks, rounded towards zero. Saturates.
pub fn ticks_to_us(ticks: i64, timescale: u32) -> i64 {
    i64::try_from(i128::from(ticks) * 1_000_000 / i128::from(timescale.max(1))).unwrap_or(i64::MAX)
}

fn gcd(mut a: u128, mut b: u128) -> u128 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;

    const NTSC: Rate = Rate { num: 30000, den: 1001 };

    fn counting(num: u32, den: u32, drop: bool) -> Counting {
        Counting { rate: Rate { num, den }, drop }
    }

    fn label(text: &str) -> Label {
        Label::parse(text).expect("well-formed")
    }

    #[test]
    fn the_ambiguous_label_of_the_specification() {
        // 4154 s of labels * 30 + 28; two numbers dropped in 69 minutes less 6 tens.
        assert_eq!(counting(30000, 1001, false).number_of(label("01:09:14:28")), Ok(124_648));
        assert_eq!(counting(30000, 1001, true).number_of(label("01:09:14;28")), Ok(124_522));
        assert_eq!(NTSC.start_of(124_648).to_string(), "4159.088267");
        assert_eq!(NTSC.start_of(124_522).to_string(), "4154.884067");
        let error = counting(25, 1, false).number_of(label("01:09:14:28")).expect_err("28 >= 25");
        assert!(error.0.contains("nearest one is 01:09:14:24"), "{error}");
    }

    #[test]
    fn nearest_legal_labels() {
        let df = counting(30000, 1001, true);
        for (written, nearest) in [
            ("01:01:00;00", "01:01:00;02"),
            ("01:01:00;01", "01:01:00;02"),
            ("01:10:00;00", "01:10:00;00"),
            ("01:01:01;00", "01:01:01;00"),
            ("01:01:00;77", "01:01:00;29"),
            ("24:00:00;00", "23:59:59;29"),
            ("99:99:99;99", "23:59:59;29"),
            ("01:75:00;00", "01:59:59;29"),
            ("01:05:60;00", "01:05:59;29"),
        ] {
            assert_eq!(df.nearest_legal(label(written)).to_string(), nearest, "{written}");
        }
        let df60 = counting(60000, 1001, true);
        assert_eq!(df60.nearest_legal(label("00:01:00;03")).to_string(), "00:01:00;04");
        assert!(df60.number_of(label("00:01:00;03")).is_err());
    }

    #[test]
    fn labels_and_numbers_are_inverse_for_a_whole_day() {
        // 2,589,408 labels in a drop-frame day at 29.97 (ST 12-1); each once, in order.
        for (counting, per_day) in [
            (counting(30000, 1001, true), 2_589_408),
            (counting(60000, 1001, true), 5_178_816),
            (counting(120000, 1001, true), 10_357_632),
            (counting(25, 1, false), 2_160_000),
            (counting(24000, 1001, false), 2_073_600),
        ] {
            assert_eq!(counting.labels_per_day(), per_day);
            for number in (0..per_day).step_by(if per_day > 6_000_000 { 7 } else { 1 }) {
                let label = counting.label_of(number as i64);
                assert_eq!(counting.number_of(label), Ok(number), "{label}");
            }
        }
    }

    #[test]
    fn a_day_wraps() {
        let ndf = counting(25, 1, false);
        assert_eq!(ndf.label_of(-1).to_string(), "23:59:59:24");
        assert_eq!(ndf.label_of(25 * 86_400).to_string(), "00:00:00:00");
        let df = counting(30000, 1001, true);
        assert_eq!(df.label_of(-1).to_string(), "23:59:59;29");
        assert_eq!(df.label_of(1799).to_string(), "00:00:59;29");
        assert_eq!(df.label_of(1800).to_string(), "00:01:00;02");
        assert_eq!(df.label_of(17_982).to_string(), "00:10:00;00");
    }

    #[test]
    fn label_grammar() {
        assert_eq!(label("1:2:3:4"), Label { hours: 1, minutes: 2, seconds: 3, frames: 4, drop: false });
        assert_eq!(label("00:00:00:119").frames, 119);
        for text in [
            "",
            "01:02:03",
            "01:02:03:",
            "01;02:03:04",
            "01:02;03:04",
            "+1:02:03:04",
            "01:02:03:04 ",
            "1e1:00:00:00",
            "001:02:03:04",
            "01:02:03:0004",
            "01:02:03:04:05",
            "٠١:02:03:04",
            "01:02:03/04",
        ] {
            assert!(Label::parse(text).is_err(), "{text}");
        }
        for text in ["01:02:03.04", "01:02:03,04"] {
            let error = Label::parse(text).expect_err("ambiguous").0;
            assert!(error.contains("`;`") && error.contains("time="), "{error}");
        }
    }

    #[test]
    fn decimal_times() {
        for (text, value, decimals) in [
            ("4154.884", 4_154_884, 3),
            ("0", 0, 0),
            ("20.02", 2002, 2),
            ("01:09:14.884", 4_154_884, 3),
            ("100:00:00", 360_000, 0),
            ("09:14.5", 5545, 1),
            ("-1.32", -132, 2),
            ("1.", 1, 0),
            ("0.1234567899999", 123_456_789, 9),
            ("99999999999999999999999999", i64::MAX, 0),
            ("9223372036854775807.5", i64::MAX, 0),
        ] {
            assert_eq!(DecimalTime::parse(text), Ok(DecimalTime { value, decimals }), "{text}");
        }
        for text in [
            "",
            ".",
            ".5",
            "-",
            "1e5",
            "inf",
            "nan",
            "1,5",
            "+1",
            "1.2.3",
            "00:60:00",
            "0:0:60",
            ":1",
            "1:",
            "00:001:00",
            "1.-5",
            " 1",
            "٣",
        ] {
            assert!(DecimalTime::parse(text).is_err(), "{text}");
        }
        assert!(DecimalTime::parse("01:02:03:04").expect_err("a timecode").0.contains("timecode="));
        assert_eq!(DecimalTime::parse("01:00.50").expect("npt").to_string(), "60.50");
    }

    #[test]
    fn seconds_print_as_json_numbers() {
        for (num, den, text) in [
            (0, 1, "0"),
            (2002, 100, "20.02"),
            (600_600, 30_000, "20.02"),
            (-132, 100, "-1.32"),
            (1, 3, "0.333333"),
            (2, 3, "0.666667"),
            (-1, 10_000_000, "0"),
            (1, 2_000_000, "0.000001"),
            (9_999_999, 10_000_000, "1"),
            (5, 1, "5"),
            (100, 1, "100"),
        ] {
            assert_eq!(Seconds { num, den }.to_string(), text);
        }
        let huge = Seconds { num: i128::MIN, den: u64::MAX };
        assert!(huge.to_string().starts_with('-'));
    }

    #[test]
    fn seconds_compare_and_add_exactly() {
        let third = Seconds { num: 1, den: 3 };
        assert!(third > Seconds { num: 333_333, den: 1_000_000 });
        assert_eq!(third, Seconds { num: 2, den: 6 });
        assert_eq!(third.checked_add(Seconds { num: 1, den: 6 }), Some(Seconds { num: 1, den: 2 }));
        assert_eq!(third.checked_sub(third), Some(Seconds::ZERO));
        assert!(Seconds { num: -1, den: 3 } < Seconds::ZERO);
        let (big, bigger) = (Seconds { num: i128::MAX - 1, den: u64::MAX }, Seconds { num: i128::MAX, den: u64::MAX });
        assert!(big < bigger);
        assert_eq!(big.checked_add(bigger), None);
    }

    #[test]
    fn a_printed_time_means_its_frame() {
        let parse = |text: &str| DecimalTime::parse(text).expect("well-formed");
        for frame in [0, 1, 2, 29, 30, 124_648, 124_522, 2_589_407] {
            let (start, next) = (NTSC.start_of(frame), NTSC.start_of(frame + 1));
            let printed = parse(&start.to_string());
            // Printed below the start: it belongs to the frame before, and means this one.
            if printed.seconds() < start {
                assert!(printed.means_next(Some(NTSC.start_of(frame - 1)), start), "{frame}");
            } else {
                assert!(!printed.means_next(Some(start), next), "{frame}");
            }
        }
        // 4159.088 is 4159.0882667 cut to three decimals.
        assert!(parse("4159.088").means_next(Some(NTSC.start_of(124_647)), NTSC.start_of(124_648)));
        assert!(!parse("4159.087").means_next(Some(NTSC.start_of(124_647)), NTSC.start_of(124_648)));
        // Printed as a whole second although it starts a little before it.
        let start = Seconds { num: 9_999_999, den: 10_000_000 };
        assert!(!parse("1").means_next(Some(start), Seconds { num: 104, den: 100 }));
    }

    #[test]
    fn rates() {
        assert_eq!(Rate::new(60_000, 2002), Some(NTSC));
        assert_eq!(Rate::new(0, 1), None);
        assert_eq!((NTSC.nominal(), Rate { num: 24_000, den: 1001 }.nominal()), (30, 24));
        assert!(NTSC.allows_drop_frame() && Rate { num: 2997, den: 100 }.allows_drop_frame());
        assert!(!Rate { num: 30, den: 1 }.allows_drop_frame() && !Rate { num: 25, den: 1 }.allows_drop_frame());
        assert_eq!(NTSC.frames_in(Seconds { num: 2002, den: 100 }), 600);
        assert_eq!(NTSC.frames_in(Seconds { num: i128::MAX, den: 1 }), i64::MAX);
        assert_eq!(Seconds { num: -1, den: 3 }.to_ticks_floor(NonZeroU32::MIN), -1);
    }
}
