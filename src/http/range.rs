//! The `Range` and `Content-Range` fields of RFC 9110 §14: parse, resolve against a length, write.
//!
//! PURE: field values and a length in, byte ranges out. Must not know: methods, files, bodies, axum. That a range
//! counts only for GET (§14.2), and only if `If-Range` holds, is decided by the caller (see `conditional`).
//!
//! Where RFC 9110 leaves the choice to the server:
//! - a `bytes` set that breaks the grammar (`bytes=abc`, `bytes=5-3`) is rejected with 416 (§14.2), as nginx does:
//!   the client asked for a part, so it is not sent a whole video;
//! - more than [`RANGES_MAX`] ranges, or more than two that overlap, are ignored (§14.2, §17.15);
//! - several `Range` field lines are ignored (§14.2): combined by §5.2 they would not be a valid set;
//! - a suffix of an empty representation is the whole of it, as a 200: `Content-Range` has no form for no bytes
//!   (§14.4).

use std::ops::Range;

/// More ranges than this in one request are ignored (§17.15): each costs a part header and a slice.
pub const RANGES_MAX: usize = 16;

/// Ranges with fewer bytes than this between them become one. 0 joins only what overlaps: §15.3.7.2 would allow to
/// join what lies within a part header's length (about 80) too, but a client that names two parts is sent those two.
pub const COALESCE_GAP_BYTES: u64 = 0;

/// What a `Range` field means for a representation of a known length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolved {
    /// No range, or one that is ignored: 200 with everything.
    Whole,
    /// 206 with one `Content-Range`; never empty.
    One(Range<u64>),
    /// 206 `multipart/byteranges`: at least two, disjoint, none empty, in the order in which they were asked for.
    Many(Vec<Range<u64>>),
    /// 416 with [`unsatisfied`].
    Unsatisfiable,
}

/// Resolves the `Range` field lines of one request; `len` is the length of the selected representation in bytes.
pub fn resolve_lines<'a>(mut lines: impl Iterator<Item = &'a [u8]>, len: u64) -> Resolved {
    match (lines.next(), lines.next()) {
        (Some(value), None) => resolve(value, len),
        _ => Resolved::Whole,
    }
}

/// Resolves one `Range` field value. A single range costs no allocation.
pub fn resolve(value: &[u8], len: u64) -> Resolved {
    let Some(set) = bytes_set(value) else { return Resolved::Whole };
    let mut found = Satisfiable::new();
    let mut specs = 0_usize;
    let mut all_of_nothing = false;
    for member in set.split(|&b| b == b',').map(<[u8]>::trim_ascii) {
        // 1#range-spec: a recipient ignores empty list members (§5.6.1.2).
        if member.is_empty() {
            continue;
        }
        let Some(spec) = Spec::parse(member) else { return Resolved::Unsatisfiable };
        specs += 1;
        if specs <= RANGES_MAX
            && let Some(range) = spec.within(len)
        {
            found.push(range);
        }
        all_of_nothing |= len == 0 && matches!(spec, Spec::Suffix(1..));
    }
    if specs > RANGES_MAX || all_of_nothing || found.overlapping() > 2 { Resolved::Whole } else { found.coalesce() }
}

/// The range-set of a `bytes` ranges-specifier; `None` for another unit, which must be ignored (§14.2).
pub(super) fn bytes_set(value: &[u8]) -> Option<&[u8]> {
    let value = value.trim_ascii();
    let equals = value.iter().position(|&b| b == b'=')?;
    // range-unit is case-insensitive (§14.1).
    value[..equals].eq_ignore_ascii_case(b"bytes").then_some(&value[equals + 1..])
}

/// One range-spec of the `bytes` unit (§14.1.2). Positions past 2^64-1 are kept as 2^64-1: as a first position that is
/// past any end, as a last position and as a suffix it is clipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spec {
    From(u64),
    /// Both inclusive.
    Between(u64, u64),
    Suffix(u64),
}

impl Spec {
    /// int-range = first-pos "-" [ last-pos ]; suffix-range = "-" suffix-length.
    pub(super) fn parse(member: &[u8]) -> Option<Self> {
        let dash = member.iter().position(|&b| b == b'-')?;
        let (first, last) = (&member[..dash], &member[dash + 1..]);
        match (first.is_empty(), last.is_empty()) {
            (true, _) => number(last).map(Self::Suffix),
            (false, true) => number(first).map(Self::From),
            (false, false) => {
                let (from, to) = (number(first)?, number(last)?);
                // An int-range whose last-pos is less than its first-pos is invalid (§14.1.1).
                (from < to || !less(last, first)).then_some(Self::Between(from, to))
            }
        }
    }

    /// The bytes of a representation of `len` bytes, or `None` where that is unsatisfiable (§14.1.2).
    fn within(self, len: u64) -> Option<Range<u64>> {
        let range = match self {
            Self::From(first) => first..len,
            Self::Between(first, last) => first..last.saturating_add(1).min(len),
            Self::Suffix(suffix) => len.saturating_sub(suffix)..len,
        };
        (range.start < range.end).then_some(range)
    }
}

/// 1*DIGIT, saturating.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |value, b| {
        b.is_ascii_digit().then(|| value.saturating_mul(10).saturating_add(u64::from(b - b'0')))
    })
}

/// Whether the decimal number `a` is less than `b`, of any length.
fn less(a: &[u8], b: &[u8]) -> bool {
    let significant = |digits: &[u8]| digits.iter().position(|&d| d != b'0').unwrap_or(digits.len());
    let (a, b) = (&a[significant(a)..], &b[significant(b)..]);
    (a.len(), a) < (b.len(), b)
}

/// The satisfiable ranges of a set, in the order in which they were asked for; on the stack.
struct Satisfiable {
    ranges: [(u64, u64); RANGES_MAX],
    count: usize,
}

impl Satisfiable {
    fn new() -> Self {
        Self { ranges: [(0, 0); RANGES_MAX], count: 0 }
    }

    fn push(&mut self, range: Range<u64>) {
        self.ranges[self.count] = (range.start, range.end);
        self.count += 1;
    }

    fn as_slice(&self) -> &[(u64, u64)] {
        &self.ranges[..self.count]
    }

    /// How many of the ranges share a byte with another one.
    fn overlapping(&self) -> usize {
        let ranges = self.as_slice();
        let meets = |a: (u64, u64), b: (u64, u64)| a.0 < b.1 && b.0 < a.1;
        let shared = |i: usize| ranges.iter().enumerate().any(|(j, &other)| i != j && meets(ranges[i], other));
        (0..ranges.len()).filter(|&i| shared(i)).count()
    }

    /// Joins what overlaps or nearly touches. A joined range stands where its first member was asked for.
    fn coalesce(&self) -> Resolved {
        match *self.as_slice() {
            [] => return Resolved::Unsatisfiable,
            [(start, end)] => return Resolved::One(start..end),
            _ => {}
        }
        // (start, end, place in the request)
        let mut sorted = [(0, 0, 0); RANGES_MAX];
        for (place, &(start, end)) in self.as_slice().iter().enumerate() {
            sorted[place] = (start, end, place);
        }
        let sorted = &mut sorted[..self.count];
        sorted.sort_unstable();
        let mut last = 0;
        for i in 1..sorted.len() {
            let (start, end, place) = sorted[i];
            if start < sorted[last].1.saturating_add(COALESCE_GAP_BYTES) {
                sorted[last].1 = sorted[last].1.max(end);
                sorted[last].2 = sorted[last].2.min(place);
            } else {
                last += 1;
                sorted[last] = (start, end, place);
            }
        }
        let joined = &mut sorted[..=last];
        if let [(start, end, _)] = *joined {
            // Never multipart for a single range (§15.3.7.2).
            return Resolved::One(start..end);
        }
        joined.sort_unstable_by_key(|&(_, _, place)| place);
        Resolved::Many(joined.iter().map(|&(start, end, _)| start..end).collect())
    }
}

/// `Content-Range` of a 206 with one range, or of one part (§14.4). The range must not be empty.
pub fn content_range(range: &Range<u64>, len: u64) -> String {
    debug_assert!(range.start < range.end && range.end <= len, "{range:?} of {len}");
    // Written out by hand: every small request pays for it, and `format!` costs five times as much.
    let mut text = String::with_capacity("bytes -/".len() + 3 * DIGITS_MAX);
    text.push_str("bytes ");
    push_decimal(&mut text, range.start);
    text.push('-');
    push_decimal(&mut text, range.end.saturating_sub(1));
    text.push('/');
    push_decimal(&mut text, len);
    text
}

/// Digits of 2^64-1.
const DIGITS_MAX: usize = 20;

pub(super) fn push_decimal(text: &mut String, value: u64) {
    text.push_str(itoa::Buffer::new().format(value));
}

/// `Content-Range` of a 416 (§15.5.17).
pub fn unsatisfied(len: u64) -> String {
    format!("bytes */{len}")
}

/// `Content-Range` of a partial PUT (§14.5): where the enclosed bytes belong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartialPut {
    /// Never empty, and inside `0..total`.
    pub range: Range<u64>,
    pub total: u64,
}

/// Why a `Content-Range` of an upload cannot be used: 400 each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PartialPutError {
    #[error("Content-Range must be \"bytes first-last/total\", for example \"bytes 0-1048575/20971520\"")]
    Grammar,
    #[error("Content-Range must name the total length: \"bytes first-last/total\", not \"*\"")]
    UnknownTotal,
    #[error("Content-Range has a number beyond 2^64-1")]
    TooBig,
    #[error("Content-Range: the last position {last} is before the first {first}")]
    Reversed { first: u64, last: u64 },
    #[error("Content-Range: the last position {last} must be less than the total {total}; positions count from 0")]
    PastEnd { last: u64, total: u64 },
}

impl PartialPut {
    /// range-resp = first-pos "-" last-pos "/" ( complete-length / "*" ), after `bytes SP` (§14.4).
    pub fn parse(value: &[u8]) -> Result<Self, PartialPutError> {
        use PartialPutError as E;
        let (unit, rest) = split(value.trim_ascii(), b' ').ok_or(E::Grammar)?;
        let (positions, total) = split(rest.trim_ascii_start(), b'/').ok_or(E::Grammar)?;
        if !unit.eq_ignore_ascii_case(b"bytes") {
            return Err(E::Grammar);
        }
        let (first, last) = split(positions, b'-').ok_or(E::Grammar)?;
        let (first, last) = (exact_number(first)?, exact_number(last)?);
        if total == b"*" {
            return Err(E::UnknownTotal);
        }
        let total = exact_number(total)?;
        if last < first {
            return Err(E::Reversed { first, last });
        }
        if last >= total {
            return Err(E::PastEnd { last, total });
        }
        Ok(Self { range: first..last + 1, total })
    }
}

fn split(text: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let place = text.iter().position(|&b| b == at)?;
    Some((&text[..place], &text[place + 1..]))
}

/// 1*DIGIT that fits.
fn exact_number(digits: &[u8]) -> Result<u64, PartialPutError> {
    if number(digits).is_none() {
        return Err(PartialPutError::Grammar);
    }
    digits
        .iter()
        .try_fold(0_u64, |value, b| value.checked_mul(10)?.checked_add(u64::from(b - b'0')))
        .ok_or(PartialPutError::TooBig)
}

#[cfg(test)]
mod tests {
    use super::Resolved::{Unsatisfiable, Whole};
    use super::*;

    fn one(start: u64, end: u64) -> Resolved {
        Resolved::One(start..end)
    }

    fn many(ranges: &[(u64, u64)]) -> Resolved {
        Resolved::Many(ranges.iter().map(|&(start, end)| start..end).collect())
    }

    /// Clause, field value, length, expected. Rows at 10000 bytes are the examples of §14.1.2.
    #[test]
    fn rfc_9110_single_ranges() {
        let table: &[(&str, &str, u64, Resolved)] = &[
            ("14.1.2 first 500", "bytes=0-499", 10000, one(0, 500)),
            ("14.1.2 second 500", "bytes=500-999", 10000, one(500, 1000)),
            ("14.1.2 final 500", "bytes=-500", 10000, one(9500, 10000)),
            ("14.1.2 final 500", "bytes=9500-", 10000, one(9500, 10000)),
            ("14.1.2 first byte", "bytes=0-0", 10000, one(0, 1)),
            ("14.1.2 last byte", "bytes=-1", 10000, one(9999, 10000)),
            ("14.1.2 last byte by position", "bytes=9999-9999", 10000, one(9999, 10000)),
            ("14.1.2 whole, open", "bytes=0-", 10000, one(0, 10000)),
            ("14.1.2 last-pos past the end", "bytes=9990-20000", 10000, one(9990, 10000)),
            ("14.1.2 first-pos at the end", "bytes=10000-", 10000, Unsatisfiable),
            ("14.1.2 first-pos past the end", "bytes=10001-10002", 10000, Unsatisfiable),
            ("14.1.2 suffix longer than all", "bytes=-20000", 10000, one(0, 10000)),
            ("14.1.2 suffix of all", "bytes=-10000", 10000, one(0, 10000)),
            ("14.1.2 suffix of nothing", "bytes=-0", 10000, Unsatisfiable),
            ("14.1 case-insensitive unit", "BYTES=0-1", 10000, one(0, 2)),
            ("14.1 case-insensitive unit", "Bytes=0-1", 10000, one(0, 2)),
            ("14.1 leading zeros", "bytes=000-0001", 10000, one(0, 2)),
            ("14.1.2 beyond 2^64, last", "bytes=5-99999999999999999999999", 10000, one(5, 10000)),
            ("14.1.2 2^64-1, last", "bytes=5-18446744073709551615", 10000, one(5, 10000)),
            ("14.1.2 beyond 2^64, first", "bytes=18446744073709551616-", 10000, Unsatisfiable),
            ("14.1.2 beyond 2^64, both", "bytes=99999999999999999998-99999999999999999999", 10000, Unsatisfiable),
            ("14.1.2 beyond 2^64, suffix", "bytes=-99999999999999999999999", 10000, one(0, 10000)),
            ("14.1.2 longest representation", "bytes=18446744073709551614-", u64::MAX, one(u64::MAX - 1, u64::MAX)),
            ("14.2 unknown unit", "seconds=1-2", 10000, Whole),
            ("14.2 unknown unit", "bytes =0-1", 10000, Whole),
            ("14.2 no unit", "0-1", 10000, Whole),
            ("14.2 no set", "bytes", 10000, Whole),
            ("14.2 nothing", "", 10000, Whole),
            ("14.1.1 invalid: empty set", "bytes=", 10000, Unsatisfiable),
            ("14.1.1 invalid: only empty members", "bytes=, ,", 10000, Unsatisfiable),
            ("14.1.1 invalid: no digits", "bytes=abc", 10000, Unsatisfiable),
            ("14.1.1 invalid: dash alone", "bytes=-", 10000, Unsatisfiable),
            ("14.1.1 invalid: no dash", "bytes=5", 10000, Unsatisfiable),
            ("14.1.1 invalid: reversed", "bytes=5-3", 10000, Unsatisfiable),
            ("14.1.1 invalid: negative", "bytes=--5", 10000, Unsatisfiable),
            ("14.1.1 invalid: sign", "bytes=+1-2", 10000, Unsatisfiable),
            ("14.1.1 invalid: hexadecimal", "bytes=0x1-0x2", 10000, Unsatisfiable),
            ("14.1.1 invalid: space inside", "bytes=0 - 1", 10000, Unsatisfiable),
            ("14.1.1 invalid: three positions", "bytes=0-1-2", 10000, Unsatisfiable),
            ("14.1.2 empty representation", "bytes=0-", 0, Unsatisfiable),
            ("14.1.2 empty representation", "bytes=0-0", 0, Unsatisfiable),
            ("14.1.2 empty representation, no suffix", "bytes=-0", 0, Unsatisfiable),
            ("14.4 empty representation, suffix", "bytes=-5", 0, Whole),
            ("14.1.2 one byte", "bytes=0-", 1, one(0, 1)),
        ];
        for (clause, value, len, expected) in table {
            assert_eq!(resolve(value.as_bytes(), *len), *expected, "{clause}: {value} of {len}");
        }
    }

    #[test]
    fn rfc_9110_several_ranges() {
        let table: &[(&str, &str, u64, Resolved)] = &[
            ("14.1.2 first and last byte", "bytes=0-0,-1", 10000, many(&[(0, 1), (9999, 10000)])),
            ("14.1.2 first, middle, last", "bytes= 0-999, 4500-5499, -1000", 10000, {
                many(&[(0, 1000), (4500, 5500), (9000, 10000)])
            }),
            ("14.1.2 second 500, adjacent", "bytes=500-600,601-999", 10000, many(&[(500, 601), (601, 1000)])),
            ("14.1.2 second 500, overlapping", "bytes=500-700,601-999", 10000, one(500, 1000)),
            ("14.2 order as requested", "bytes=-100,0-99", 10000, many(&[(9900, 10000), (0, 100)])),
            ("5.6.1.2 empty members and OWS", "bytes=,0-0 ,\t, -1,", 10000, many(&[(0, 1), (9999, 10000)])),
            ("14.1.2 unsatisfiable members dropped", "bytes=0-0,20000-", 10000, one(0, 1)),
            ("14.1.2 unsatisfiable members dropped", "bytes=-0,20000-,7-7", 10000, one(7, 8)),
            ("15.5.17 all unsatisfiable", "bytes=10000-,20000-,-0", 10000, Unsatisfiable),
            ("14.1.1 one invalid member", "bytes=0-0,abc", 10000, Unsatisfiable),
            ("14.1.1 one reversed member", "bytes=0-0,9-8", 10000, Unsatisfiable),
            (
                "14.1.1 reversed beyond 2^64",
                "bytes=0-0,99999999999999999999-99999999999999999998",
                10000,
                Unsatisfiable,
            ),
            ("15.3.7.2 one range left", "bytes=0-0,0-0", 10000, one(0, 1)),
            ("14.2 a small gap stays", "bytes=0-9,20-29", 10000, many(&[(0, 10), (20, 30)])),
            ("15.3.7.2 joined where first asked", "bytes=5000-5009,0-9,5005-5019", 10000, {
                many(&[(5000, 5020), (0, 10)])
            }),
            ("15.3.7.2 contained", "bytes=20-29,0-99", 10000, one(0, 100)),
            ("14.2 two overlap", "bytes=0-,-5", 10000, one(0, 10000)),
            ("14.2 three overlap", "bytes=0-99,50-149,100-199", 10000, Whole),
            ("14.2 two pairs overlap", "bytes=0-9,5-14,500-509,505-514", 10000, Whole),
            ("17.15 the whole, many times", "bytes=0-,0-,0-,0-,0-", 10000, Whole),
        ];
        for (clause, value, len, expected) in table {
            assert_eq!(resolve(value.as_bytes(), *len), *expected, "{clause}: {value} of {len}");
        }
    }

    #[test]
    fn more_than_sixteen_ranges_are_ignored() {
        let set = |count: u64| {
            let members: Vec<_> = (0..count).map(|n| format!("{}-{}", n * 1000, n * 1000 + 9)).collect();
            format!("bytes={}", members.join(","))
        };
        let sixteen: Vec<_> = (0..16).map(|n| (n * 1000, n * 1000 + 10)).collect();
        assert_eq!(resolve(set(16).as_bytes(), 100_000), many(&sixteen));
        assert_eq!(resolve(set(17).as_bytes(), 100_000), Whole);
        // The count is of ranges asked for, satisfiable or not.
        assert_eq!(resolve(set(17).as_bytes(), 10), Whole);
        // Validity comes before the count.
        assert_eq!(resolve(format!("{},x", set(17)).as_bytes(), 100_000), Unsatisfiable);
    }

    #[test]
    fn several_field_lines_are_ignored() {
        let lines = |lines: &[&'static str]| resolve_lines(lines.iter().map(|l| l.as_bytes()), 100);
        assert_eq!(lines(&[]), Whole);
        assert_eq!(lines(&["bytes=1-2"]), one(1, 3));
        assert_eq!(lines(&["bytes=1-2", "bytes=4-5"]), Whole);
    }

    #[test]
    fn content_range_is_inclusive() {
        assert_eq!(content_range(&(0..500), 1234), "bytes 0-499/1234");
        assert_eq!(unsatisfied(1234), "bytes */1234");
    }

    #[test]
    fn partial_put() {
        use PartialPutError as E;
        let table: &[(&str, Result<(Range<u64>, u64), E>)] = &[
            ("bytes 0-499/1234", Ok((0..500, 1234))),
            ("Bytes 734-1233/1234", Ok((734..1234, 1234))),
            ("bytes 0-0/1", Ok((0..1, 1))),
            ("bytes 0-499/*", Err(E::UnknownTotal)),
            ("bytes */1234", Err(E::Grammar)),
            ("bytes 0-1234/1234", Err(E::PastEnd { last: 1234, total: 1234 })),
            ("bytes 9-3/1234", Err(E::Reversed { first: 9, last: 3 })),
            ("bytes 0-18446744073709551615/18446744073709551615", {
                Err(E::PastEnd { last: u64::MAX, total: u64::MAX })
            }),
            ("bytes 0-1/18446744073709551616", Err(E::TooBig)),
            ("bytes=0-499/1234", Err(E::Grammar)),
            ("bytes 0-/1234", Err(E::Grammar)),
            ("bytes -5/1234", Err(E::Grammar)),
            ("chunks 0-1/2", Err(E::Grammar)),
            ("bytes 0-1", Err(E::Grammar)),
            ("", Err(E::Grammar)),
        ];
        for (value, expected) in table {
            let expected = expected.clone().map(|(range, total)| PartialPut { range, total });
            assert_eq!(PartialPut::parse(value.as_bytes()), expected, "{value}");
        }
    }
}
