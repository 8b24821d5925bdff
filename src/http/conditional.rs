//! Conditional requests of RFC 9110 §13: entity tags, dates, and the order in which they decide.
//!
//! PURE: request fields, the validators of what is there and the current time in, a [`Decision`] out. Must not know:
//! files, bodies, axum, and how an entity tag is made.

use http::HeaderMap;
use http::header::{HeaderName, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// An entity tag as it stands in a field (§8.8.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntityTag<'a> {
    pub weak: bool,
    /// Between the quotes.
    pub opaque: &'a [u8],
}

impl<'a> EntityTag<'a> {
    /// Parses a field value that is one entity tag.
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        let (tag, rest) = Self::take(value.trim_ascii())?;
        rest.is_empty().then_some(tag)
    }

    /// entity-tag = [ %s"W/" ] DQUOTE *etagc DQUOTE; the tag and what follows it.
    fn take(text: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (weak, quoted) = match text.strip_prefix(b"W/") {
            Some(quoted) => (true, quoted),
            None => (false, text),
        };
        let inner = quoted.strip_prefix(b"\"")?;
        let end = inner.iter().position(|&b| b == b'"')?;
        let opaque = &inner[..end];
        // etagc = %x21 / %x23-7E / obs-text
        let legal = opaque.iter().all(|&b| b > b' ' && b != 0x7f);
        legal.then_some((Self { weak, opaque }, &inner[end + 1..]))
    }

    /// Strong comparison (§8.8.3.2).
    pub fn strong_eq(&self, other: &Self) -> bool {
        !self.weak && !other.weak && self.opaque == other.opaque
    }

    /// Weak comparison (§8.8.3.2).
    pub fn weak_eq(&self, other: &Self) -> bool {
        self.opaque == other.opaque
    }
}

/// The selected representation as it is now.
#[derive(Clone, Copy, Debug)]
pub struct Validators<'a> {
    pub etag: Option<EntityTag<'a>>,
    pub last_modified: Option<SystemTime>,
}

/// What the method does with the representation: decides what a failed condition is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// GET, HEAD.
    Read,
    /// PUT, POST, DELETE.
    Write,
}

/// What to do with the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Perform the method. `range`: a `Range` field counts as far as `If-Range` goes; whether it counts for the method
    /// is the caller's to say (§14.2: GET only).
    Proceed { range: bool },
    /// 304.
    NotModified,
    /// 412.
    PreconditionFailed,
}

/// Whether something with this entity tag and date may be read, and its ranges; `now` is asked only where there is a
/// condition.
pub fn read(
    fields: &HeaderMap,
    etag: &[u8],
    last_modified: Option<SystemTime>,
    now: impl FnOnce() -> SystemTime,
) -> Decision {
    if !asks(fields) {
        return Decision::Proceed { range: true };
    }
    evaluate(fields, Access::Read, Some(&Validators { etag: EntityTag::parse(etag), last_modified }), now())
}

/// Whether a request has a condition at all; most have none, and are spared the rest.
fn asks(fields: &HeaderMap) -> bool {
    const CONDITIONS: [HeaderName; 5] = [IF_MATCH, IF_UNMODIFIED_SINCE, IF_NONE_MATCH, IF_MODIFIED_SINCE, IF_RANGE];
    fields.keys().any(|name| CONDITIONS.contains(name))
}

/// Evaluates the conditions in the order of §13.2.2. `current` is `None` when there is no representation (a PUT that
/// would create one); `now` is the server's wall clock, as in `Date`.
pub fn evaluate(fields: &HeaderMap, access: Access, current: Option<&Validators>, now: SystemTime) -> Decision {
    let tag = current.and_then(|current| current.etag);
    let modified = current.and_then(|current| current.last_modified).map(whole_seconds);
    // Steps 1 and 2.
    if let Some(found) = listed(fields, &IF_MATCH, |theirs| tag.is_some_and(|ours| ours.strong_eq(theirs))) {
        let holds = match found {
            Listed::Any => current.is_some(),
            Listed::Match => true,
            Listed::NoMatch | Listed::Malformed => false,
        };
        if !holds {
            return Decision::PreconditionFailed;
        }
    } else if let (Some(since), Some(modified)) = (date(fields, &IF_UNMODIFIED_SINCE), modified)
        && modified > since
    {
        return Decision::PreconditionFailed;
    }
    // Steps 3 and 4.
    if let Some(found) = listed(fields, &IF_NONE_MATCH, |theirs| tag.is_some_and(|ours| ours.weak_eq(theirs))) {
        let holds = match found {
            Listed::Any => current.is_none(),
            Listed::Match => false,
            Listed::NoMatch => true,
            // A write whose condition cannot be read is not performed; a read is, and answers with the whole.
            Listed::Malformed => access == Access::Read,
        };
        match access {
            _ if holds => {}
            Access::Read => return Decision::NotModified,
            Access::Write => return Decision::PreconditionFailed,
        }
    } else if let (Access::Read, Some(since), Some(modified)) = (access, date(fields, &IF_MODIFIED_SINCE), modified)
        && modified <= since
    {
        return Decision::NotModified;
    }
    // Step 5.
    Decision::Proceed { range: range_condition(fields, tag, modified, now) }
}

/// A time as a field value; `None` before 1970 and after 9999, which an HTTP-date cannot say.
pub fn http_date(time: SystemTime) -> Option<String> {
    // 9999-12-31T23:59:59Z
    const LAST_SECOND: u64 = 253_402_300_799;
    let since_epoch = time.duration_since(UNIX_EPOCH).ok()?.as_secs();
    (since_epoch <= LAST_SECOND).then(|| httpdate::fmt_http_date(time))
}

/// What a field of `"*" / #entity-tag` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Listed {
    /// `*`: any current representation.
    Any,
    Match,
    NoMatch,
    Malformed,
}

/// Searches all lines of a field for a tag; `None` when the field is absent.
fn listed(fields: &HeaderMap, name: &HeaderName, is_ours: impl Fn(&EntityTag) -> bool) -> Option<Listed> {
    let mut found = None;
    for line in fields.get_all(name) {
        let mut text = line.as_bytes().trim_ascii();
        if text == b"*" {
            return Some(Listed::Any);
        }
        found = found.or(Some(Listed::NoMatch));
        loop {
            // Empty list members are ignored (RFC 9110 §5.6.1.2).
            while let Some((b',' | b' ' | b'\t', rest)) = text.split_first() {
                text = rest;
            }
            if text.is_empty() {
                break;
            }
            let Some((tag, rest)) = EntityTag::take(text) else { return Some(Listed::Malformed) };
            text = rest.trim_ascii_start();
            if !text.is_empty() && text[0] != b',' {
                return Some(Listed::Malformed);
            }
            if is_ours(&tag) {
                return Some(Listed::Match);
            }
        }
    }
    found
}

/// A date field; `None` when it is absent, not a date or given twice: it is ignored then (§13.1.3, §13.1.4).
fn date(fields: &HeaderMap, name: &HeaderName) -> Option<SystemTime> {
    let mut lines = fields.get_all(name).iter();
    match (lines.next(), lines.next()) {
        (Some(line), None) => http_date_value(line.as_bytes()),
        _ => None,
    }
}

/// Any of the three forms of §5.6.7.
fn http_date_value(value: &[u8]) -> Option<SystemTime> {
    httpdate::parse_http_date(std::str::from_utf8(value.trim_ascii()).ok()?).ok()
}

/// `If-Range` (§13.1.5): true when it is absent or names exactly what is here.
fn range_condition(fields: &HeaderMap, tag: Option<EntityTag>, modified: Option<SystemTime>, now: SystemTime) -> bool {
    let mut lines = fields.get_all(IF_RANGE).iter();
    let value = match (lines.next(), lines.next()) {
        (None, _) => return true,
        (Some(line), None) => line.as_bytes().trim_ascii(),
        (Some(_), Some(_)) => return false,
    };
    // A DQUOTE among the first three characters tells an entity tag from a date.
    if value.iter().take(3).any(|&b| b == b'"') {
        return EntityTag::parse(value).zip(tag).is_some_and(|(theirs, ours)| ours.strong_eq(&theirs));
    }
    let Some((theirs, ours)) = http_date_value(value).zip(modified) else { return false };
    // A date has a resolution of one second: it is strong only once that second is over (§8.8.2.2), since the
    // representation could still change within it. Both times are of this server's clock.
    let strong = now.duration_since(ours).is_ok_and(|age| age >= Duration::from_secs(1));
    strong && theirs == ours
}

/// As precise as an HTTP-date.
fn whole_seconds(time: SystemTime) -> SystemTime {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since_epoch) => UNIX_EPOCH + Duration::from_secs(since_epoch.as_secs()),
        Err(_) => UNIX_EPOCH,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    const PROCEED: Decision = Decision::Proceed { range: true };
    const NO_RANGE: Decision = Decision::Proceed { range: false };

    /// The date of RFC 9110 §5.6.7 in its three forms; 784111777 is Python's `calendar.timegm` of it.
    const EXAMPLE_SECONDS: u64 = 784_111_777;
    const SAME: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const AFTER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

    fn fields(lines: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            let name: HeaderName = name.parse().expect("a field name");
            map.append(name, HeaderValue::from_bytes(value.as_bytes()).expect("a field value"));
        }
        map
    }

    /// An hour after a modification at half past the second, with the tag `"a"`.
    fn decide(access: Access, lines: &[(&str, &str)]) -> Decision {
        let modified = UNIX_EPOCH + Duration::from_millis(EXAMPLE_SECONDS * 1000 + 500);
        let current = Validators { etag: EntityTag::parse(b"\"a\""), last_modified: Some(modified) };
        evaluate(&fields(lines), access, Some(&current), modified + Duration::from_secs(3600))
    }

    /// RFC 9110 §8.8.3.2, its table.
    #[test]
    fn comparison_of_entity_tags() {
        let table = [
            ("W/\"1\"", "W/\"1\"", false, true),
            ("W/\"1\"", "W/\"2\"", false, false),
            ("W/\"1\"", "\"1\"", false, true),
            ("\"1\"", "\"1\"", true, true),
        ];
        for (a, b, strong, weak) in table {
            let (x, y) = (EntityTag::parse(a.as_bytes()).expect(a), EntityTag::parse(b.as_bytes()).expect(b));
            assert_eq!((x.strong_eq(&y), x.weak_eq(&y)), (strong, weak), "{a} {b}");
            assert_eq!((y.strong_eq(&x), y.weak_eq(&x)), (strong, weak), "{b} {a}");
        }
    }

    #[test]
    fn grammar_of_entity_tags() {
        for good in ["\"\"", "\"xyzzy\"", "W/\"xyzzy\"", "\"a,b\"", " \"a\" ", "\"\u{e9}\""] {
            assert!(EntityTag::parse(good.as_bytes()).is_some(), "{good}");
        }
        for bad in ["", "xyzzy", "\"", "\"a", "a\"", "w/\"a\"", "W\"a\"", "W/a", "\"a\"b", "\"a b\"", "\"a\x7f\""] {
            assert!(EntityTag::parse(bad.as_bytes()).is_none(), "{bad}");
        }
    }

    #[test]
    fn precedence_of_a_read() {
        use Decision::{NotModified, PreconditionFailed};
        let table: &[(&str, &[(&str, &str)], Decision)] = &[
            ("nothing asked", &[], PROCEED),
            ("13.1.1 same tag", &[("if-match", "\"a\"")], PROCEED),
            ("13.1.1 one of several", &[("if-match", "\"x\", \"y,z\" ,\"a\"")], PROCEED),
            ("5.3 several lines are one list", &[("if-match", "\"x\""), ("if-match", "\"a\"")], PROCEED),
            ("13.1.1 any", &[("if-match", "*")], PROCEED),
            ("13.1.1 another tag", &[("if-match", "\"b\"")], PreconditionFailed),
            ("13.1.1 strong comparison", &[("if-match", "W/\"a\"")], PreconditionFailed),
            ("13.1.1 not a tag", &[("if-match", "a")], PreconditionFailed),
            ("13.1.1 no separator", &[("if-match", "\"b\" \"a\"")], PreconditionFailed),
            ("13.1.1 something behind the tag", &[("if-match", "\"a\"x")], PreconditionFailed),
            ("13.1.2 same tag", &[("if-none-match", "\"a\"")], NotModified),
            ("13.1.2 weak comparison", &[("if-none-match", "W/\"a\"")], NotModified),
            ("13.1.2 list with empty members", &[("if-none-match", ", \"x\",,\"a\",")], NotModified),
            ("13.1.2 any", &[("if-none-match", "*")], NotModified),
            ("13.1.2 another tag", &[("if-none-match", "\"b\"")], PROCEED),
            ("13.1.2 not a tag", &[("if-none-match", "a")], PROCEED),
            ("13.1.3 same second", &[("if-modified-since", SAME)], NotModified),
            ("13.1.3 later", &[("if-modified-since", AFTER)], NotModified),
            ("13.1.3 earlier", &[("if-modified-since", BEFORE)], PROCEED),
            ("5.6.7 rfc850-date", &[("if-modified-since", "Sunday, 06-Nov-94 08:49:37 GMT")], NotModified),
            ("5.6.7 asctime-date", &[("if-modified-since", "Sun Nov  6 08:49:37 1994")], NotModified),
            ("13.1.3 not a date", &[("if-modified-since", "yesterday")], PROCEED),
            ("13.1.3 two dates", &[("if-modified-since", SAME), ("if-modified-since", SAME)], PROCEED),
            ("13.1.4 same second", &[("if-unmodified-since", SAME)], PROCEED),
            ("13.1.4 earlier", &[("if-unmodified-since", BEFORE)], PreconditionFailed),
            ("13.1.4 not a date", &[("if-unmodified-since", "0")], PROCEED),
            (
                "13.2.2 If-Match hides If-Unmodified-Since",
                &[("if-match", "\"a\""), ("if-unmodified-since", BEFORE)],
                PROCEED,
            ),
            (
                "13.2.2 If-None-Match hides If-Modified-Since",
                &[("if-none-match", "\"b\""), ("if-modified-since", SAME)],
                { PROCEED },
            ),
            ("13.2.2 412 before 304", &[("if-match", "\"b\""), ("if-none-match", "\"a\"")], PreconditionFailed),
            ("13.2.2 304 after If-Match", &[("if-match", "\"a\""), ("if-none-match", "\"a\"")], NotModified),
            ("13.2.2 412 before 304, dates", &[("if-unmodified-since", BEFORE), ("if-modified-since", AFTER)], {
                PreconditionFailed
            }),
            ("13.2.2 304 before If-Range", &[("if-none-match", "\"a\""), ("if-range", "\"b\"")], NotModified),
        ];
        for (clause, lines, expected) in table {
            assert_eq!(decide(Access::Read, lines), *expected, "{clause}: {lines:?}");
        }
    }

    #[test]
    fn precedence_of_a_write() {
        use Decision::PreconditionFailed;
        let table: &[(&str, &[(&str, &str)], Decision, Decision)] = &[
            // clause, fields, with a representation "a", without one
            ("nothing asked", &[], PROCEED, PROCEED),
            ("13.1.2 only create", &[("if-none-match", "*")], PreconditionFailed, PROCEED),
            ("13.1.2 unless this", &[("if-none-match", "\"a\"")], PreconditionFailed, PROCEED),
            ("13.1.2 unless another", &[("if-none-match", "\"b\"")], PROCEED, PROCEED),
            ("13.1.2 not a tag", &[("if-none-match", "b")], PreconditionFailed, PreconditionFailed),
            ("13.1.1 only replace", &[("if-match", "*")], PROCEED, PreconditionFailed),
            ("13.1.1 only replace this", &[("if-match", "\"a\"")], PROCEED, PreconditionFailed),
            ("13.1.1 lost update", &[("if-match", "\"b\"")], PreconditionFailed, PreconditionFailed),
            ("13.1.3 is for reads", &[("if-modified-since", AFTER)], PROCEED, PROCEED),
            ("13.1.4 lost update", &[("if-unmodified-since", BEFORE)], PreconditionFailed, PROCEED),
        ];
        for (clause, lines, present, absent) in table {
            assert_eq!(decide(Access::Write, lines), *present, "{clause}: {lines:?}");
            assert_eq!(
                evaluate(&fields(lines), Access::Write, None, UNIX_EPOCH),
                *absent,
                "{clause}: {lines:?}, absent"
            );
        }
    }

    #[test]
    fn if_range() {
        let table: &[(&str, &[(&str, &str)], Decision)] = &[
            ("13.1.5 same tag", &[("if-range", "\"a\"")], PROCEED),
            ("13.1.5 another tag", &[("if-range", "\"b\"")], NO_RANGE),
            ("13.1.5 weak never matches", &[("if-range", "W/\"a\"")], NO_RANGE),
            ("13.1.5 one tag, not a list", &[("if-range", "\"a\", \"b\"")], NO_RANGE),
            ("13.1.5 no star", &[("if-range", "*")], NO_RANGE),
            ("13.1.5 same date", &[("if-range", SAME)], PROCEED),
            ("13.1.5 earlier date", &[("if-range", BEFORE)], NO_RANGE),
            ("13.1.5 exact match, not later", &[("if-range", AFTER)], NO_RANGE),
            ("13.1.5 neither", &[("if-range", "a")], NO_RANGE),
            ("5.3 given twice", &[("if-range", "\"a\""), ("if-range", "\"a\"")], NO_RANGE),
        ];
        for (clause, lines, expected) in table {
            assert_eq!(decide(Access::Read, lines), *expected, "{clause}: {lines:?}");
        }
    }

    /// §8.8.2.2: modified at :37.5, so :37 is a strong validator from :38 on.
    #[test]
    fn a_date_is_strong_when_its_second_is_over() {
        let at = |millis: u64| {
            let modified = UNIX_EPOCH + Duration::from_millis(EXAMPLE_SECONDS * 1000 + 500);
            let current = Validators { etag: None, last_modified: Some(modified) };
            let now = UNIX_EPOCH + Duration::from_millis(EXAMPLE_SECONDS * 1000 + millis);
            evaluate(&fields(&[("if-range", SAME)]), Access::Read, Some(&current), now)
        };
        assert_eq!(at(0), NO_RANGE);
        assert_eq!(at(999), NO_RANGE);
        assert_eq!(at(1000), PROCEED);
    }

    #[test]
    fn a_weak_tag_of_ours_never_makes_a_range() {
        let current = Validators { etag: EntityTag::parse(b"W/\"a\""), last_modified: None };
        let ask = |value| evaluate(&fields(&[("if-range", value)]), Access::Read, Some(&current), UNIX_EPOCH);
        assert_eq!(ask("W/\"a\""), NO_RANGE);
        assert_eq!(ask("\"a\""), NO_RANGE);
    }

    #[test]
    fn dates_that_cannot_be_said() {
        let example = UNIX_EPOCH + Duration::from_secs(EXAMPLE_SECONDS);
        assert_eq!(http_date(example).as_deref(), Some(SAME));
        assert_eq!(http_date(UNIX_EPOCH - Duration::from_secs(1)), None);
        assert_eq!(http_date(UNIX_EPOCH + Duration::from_secs(253_402_300_800)), None);
    }
}
