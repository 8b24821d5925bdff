//! Query strings of Weir's own routes: strict, so that a mistyped request is refused and not guessed at.
//!
//! PURE: text in, parameters out. Must not know: routes, which parameters they take, timecodes, axum.
//!
//! Percent-decoding as in RFC 3986 §2.1, `+` for a space as HTML forms write it, pairs apart at `&` only: a `;`
//! belongs to the value (`timecode=01:00:00;00` and `%3B` are equal). A name given twice is an error; a name that a
//! route does not know is ignored.

use std::borrow::Cow;
use std::ops::RangeInclusive;

/// Longest query string in bytes; the longest meaningful one is a few hundred.
pub const QUERY_BYTES_MAX: usize = 8 << 10;
/// Most parameters of one request: keeps the search for duplicates small.
pub const PARAMETERS_MAX: usize = 64;

/// What is wrong with a query, and what would be right: 400 (414 for [`QueryError::TooLong`]).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    #[error("the query string has {bytes} bytes; at most {QUERY_BYTES_MAX} are allowed")]
    TooLong { bytes: usize },
    #[error("the query string has more than {PARAMETERS_MAX} parameters")]
    TooMany,
    #[error("\"{text}\" in the query string is not a percent escape: a % is followed by two hexadecimal digits (%25)")]
    Escape { text: String },
    #[error("the parameter \"{name}\" is not UTF-8 after percent-decoding")]
    NotUtf8 { name: String },
    #[error("the parameter \"{name}\" is given more than once; give it once")]
    Duplicate { name: String },
    #[error("the parameter \"{name}\" is empty; {expected}")]
    Empty { name: &'static str, expected: String },
    #[error("{name}={value} is not valid; {expected}")]
    Invalid { name: &'static str, value: String, expected: String },
    #[error("{name}={value} is larger than 2^64-1; {expected}")]
    TooBig { name: &'static str, value: String, expected: String },
    #[error("the query names none of {names}; exactly one is needed")]
    NoneOf { names: String },
    #[error("the query names {given}; exactly one of {names} is needed")]
    SeveralOf { given: String, names: String },
}

impl QueryError {
    /// The parameter that is wrong, where it is one.
    pub fn parameter(&self) -> Option<&str> {
        match self {
            Self::NotUtf8 { name } | Self::Duplicate { name } => Some(name),
            Self::Empty { name, .. } | Self::Invalid { name, .. } | Self::TooBig { name, .. } => Some(name),
            Self::TooLong { .. } | Self::TooMany | Self::Escape { .. } => None,
            Self::NoneOf { .. } | Self::SeveralOf { .. } => None,
        }
    }
}

/// The parameters of one request; borrowed where nothing was escaped.
#[derive(Clone, Debug, Default)]
pub struct Query<'a> {
    parameters: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

impl<'a> Query<'a> {
    /// Parses what follows the `?`, without it; `None` and the empty string are no parameters.
    pub fn parse(raw: Option<&'a str>) -> Result<Self, QueryError> {
        Self::parse_repeated(raw, &[])
    }

    /// The same where some parameters may be given several times; [`Query::iter`] has them all.
    pub fn parse_repeated(raw: Option<&'a str>, repeated: &[&str]) -> Result<Self, QueryError> {
        let raw = raw.unwrap_or_default();
        if raw.len() > QUERY_BYTES_MAX {
            return Err(QueryError::TooLong { bytes: raw.len() });
        }
        let mut query = Self::default();
        for pair in raw.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode(name, name)?;
            let value = decode(value, &name)?;
            query.push(name, value, repeated)?;
        }
        Ok(query)
    }

    /// Parameters that came otherwise than in a URL, as the fields of a form.
    pub fn of(parameters: impl IntoIterator<Item = (Cow<'a, str>, Cow<'a, str>)>) -> Result<Self, QueryError> {
        let mut query = Self::default();
        for (name, value) in parameters {
            query.push(name, value, &[])?;
        }
        Ok(query)
    }

    fn push(&mut self, name: Cow<'a, str>, value: Cow<'a, str>, repeated: &[&str]) -> Result<(), QueryError> {
        if self.parameters.len() == PARAMETERS_MAX {
            return Err(QueryError::TooMany);
        }
        let known = self.parameters.iter().any(|(known, _)| *known == name);
        if known && !repeated.contains(&&*name) {
            return Err(QueryError::Duplicate { name: shown(&name) });
        }
        self.parameters.push((name, value));
        Ok(())
    }

    /// The decoded value, which may be empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(known, _)| known == name).map(|(_, value)| &**value)
    }

    /// All parameters in the order given.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.parameters.iter().map(|(name, value)| (&**name, &**value))
    }

    /// A value that must not be empty; `expected` continues the error text ("write …") where there is one.
    pub fn text(&self, name: &'static str, expected: impl FnOnce() -> String) -> Result<Option<&str>, QueryError> {
        match self.get(name) {
            Some("") => Err(QueryError::Empty { name, expected: expected() }),
            value => Ok(value),
        }
    }

    /// A whole number from 0 to 2^64-1, in digits.
    pub fn u64(&self, name: &'static str) -> Result<Option<u64>, QueryError> {
        self.u64_in(name, 0..=u64::MAX)
    }

    /// A whole number within bounds.
    pub fn u64_in(&self, name: &'static str, bounds: RangeInclusive<u64>) -> Result<Option<u64>, QueryError> {
        let expected = || match (*bounds.start(), *bounds.end()) {
            (least, u64::MAX) => format!("write a whole number of at least {least}, in digits"),
            (least, most) => format!("write a whole number from {least} to {most}, in digits"),
        };
        let Some(value) = self.get(name) else { return Ok(None) };
        if value.is_empty() {
            return Err(QueryError::Empty { name, expected: expected() });
        }
        if !value.bytes().all(|b| b.is_ascii_digit()) {
            return Err(invalid(name, value, expected()));
        }
        let Ok(number) = value.parse() else {
            return Err(QueryError::TooBig { name, value: shown(value), expected: expected() });
        };
        if bounds.contains(&number) { Ok(Some(number)) } else { Err(invalid(name, value, expected())) }
    }

    /// A decimal number within bounds, such as `-30`, `0.5` or `1.25`: no exponent, no infinity.
    pub fn decimal_in(&self, name: &'static str, bounds: RangeInclusive<f64>) -> Result<Option<f64>, QueryError> {
        let expected = || format!("write a decimal number from {} to {}", bounds.start(), bounds.end());
        let Some(value) = self.text(name, expected)? else { return Ok(None) };
        let digits = value.strip_prefix('-').unwrap_or(value);
        let plain = digits.bytes().all(|b| b.is_ascii_digit() || b == b'.') && digits.bytes().any(|b| b != b'.');
        match value.parse::<f64>() {
            Ok(number) if plain && bounds.contains(&number) => Ok(Some(number)),
            _ => Err(invalid(name, value, expected())),
        }
    }

    /// `0` or `1`.
    pub fn flag(&self, name: &'static str) -> Result<Option<bool>, QueryError> {
        Ok(self.one_of(name, &["0", "1"])?.map(|value| value == "1"))
    }

    /// One of a few words.
    pub fn one_of(
        &self,
        name: &'static str,
        words: &'static [&'static str],
    ) -> Result<Option<&'static str>, QueryError> {
        let expected = || format!("write {}", words.join(" or "));
        let Some(value) = self.text(name, expected)? else { return Ok(None) };
        match words.iter().find(|word| **word == value) {
            Some(word) => Ok(Some(word)),
            None => Err(invalid(name, value, expected())),
        }
    }

    /// Which of `names` is given: one, and only one.
    pub fn exactly_one(&self, names: &'static [&'static str]) -> Result<&'static str, QueryError> {
        let given: Vec<_> = names.iter().copied().filter(|name| self.get(name).is_some()).collect();
        match given[..] {
            [name] => Ok(name),
            [] => Err(QueryError::NoneOf { names: names.join(", ") }),
            _ => Err(QueryError::SeveralOf { given: given.join(" and "), names: names.join(", ") }),
        }
    }
}

/// A value that its route found wrong, in the same words as the getters here.
pub fn invalid(name: &'static str, value: &str, expected: impl Into<String>) -> QueryError {
    QueryError::Invalid { name, value: shown(value), expected: expected.into() }
}

/// Undoes percent escapes and `+`. `name` is the parameter it belongs to.
fn decode<'a>(text: &'a str, name: &str) -> Result<Cow<'a, str>, QueryError> {
    if !text.bytes().any(|b| b == b'%' || b == b'+') {
        return Ok(Cow::Borrowed(text));
    }
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'%' => {
                let digits = bytes.get(at + 1).zip(bytes.get(at + 2));
                let Some(byte) = digits.and_then(|(high, low)| Some(nibble(*high)? << 4 | nibble(*low)?)) else {
                    let escape = &bytes[at..bytes.len().min(at + 3)];
                    return Err(QueryError::Escape { text: shown(&String::from_utf8_lossy(escape)) });
                };
                decoded.push(byte);
                at += 3;
            }
            byte => {
                decoded.push(if byte == b'+' { b' ' } else { byte });
                at += 1;
            }
        }
    }
    String::from_utf8(decoded).map(Cow::Owned).map_err(|_| QueryError::NotUtf8 { name: shown(name) })
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// A foreign text as an error may show it: short, without control characters.
fn shown(text: &str) -> String {
    const SHOWN_CHARS_MAX: usize = 64;
    let mut short: String = text.chars().take(SHOWN_CHARS_MAX).flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN_CHARS_MAX).is_some() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(raw: &str) -> Query<'_> {
        Query::parse(Some(raw)).expect(raw)
    }

    #[test]
    fn decoding() {
        let table: &[(&str, &[(&str, &str)])] = &[
            ("", &[]),
            ("&&", &[]),
            ("a=1", &[("a", "1")]),
            ("a=1&b=2", &[("a", "1"), ("b", "2")]),
            ("a", &[("a", "")]),
            ("a=", &[("a", "")]),
            ("a=b=c", &[("a", "b=c")]),
            ("timecode=01:00:00;00&size=5", &[("timecode", "01:00:00;00"), ("size", "5")]),
            ("timecode=01%3A00%3a00%3B00", &[("timecode", "01:00:00;00")]),
            ("%61=%C3%A9", &[("a", "é")]),
            ("a=x+y%2Bz", &[("a", "x y+z")]),
            ("a=%26%3D%25", &[("a", "&=%")]),
            ("A=1&a=2", &[("A", "1"), ("a", "2")]),
            ("a=%00", &[("a", "\0")]),
        ];
        for (raw, expected) in table {
            assert_eq!(parse(raw).iter().collect::<Vec<_>>(), *expected, "{raw}");
        }
        assert_eq!(Query::parse(None).expect("nothing").iter().count(), 0);
    }

    #[test]
    fn what_cannot_be_parsed() {
        let table = [
            ("a=%", "\"%\" in the query"),
            ("a=%4", "\"%4\" in the query"),
            ("a=%4g", "\"%4g\" in the query"),
            ("a=%+1", "\"%+1\" in the query"),
            ("a=%é", "in the query string is not a percent escape"),
            ("%zz=1", "\"%zz\" in the query"),
            ("a=%ff", "the parameter \"a\" is not UTF-8"),
            ("a=%c3%28", "the parameter \"a\" is not UTF-8"),
            ("size=1&size=1", "the parameter \"size\" is given more than once"),
            ("size=1&%73ize=2", "the parameter \"size\" is given more than once"),
            ("size&size", "the parameter \"size\" is given more than once"),
        ];
        for (raw, expected) in table {
            let error = Query::parse(Some(raw)).expect_err(raw).to_string();
            assert!(error.contains(expected), "{raw}: {error}");
        }
    }

    #[test]
    fn bounds_of_the_whole() {
        let longest = format!("a={}", "x".repeat(QUERY_BYTES_MAX - 2));
        assert!(Query::parse(Some(&longest)).is_ok());
        let longer = longest + "x";
        assert_eq!(Query::parse(Some(&longer)).expect_err("too long"), QueryError::TooLong { bytes: 8193 });
        let names = |count: usize| (0..count).map(|n| format!("p{n}")).collect::<Vec<_>>().join("&");
        assert!(Query::parse(Some(&names(64))).is_ok());
        assert_eq!(Query::parse(Some(&names(65))).expect_err("too many"), QueryError::TooMany);
    }

    #[test]
    fn whole_numbers() {
        let table: &[(&str, Result<Option<u64>, &str>)] = &[
            ("", Ok(None)),
            ("size=0", Ok(Some(0))),
            ("size=007", Ok(Some(7))),
            ("size=18446744073709551615", Ok(Some(u64::MAX))),
            ("size=18446744073709551616", Err("size=18446744073709551616 is larger than 2^64-1; write a whole number")),
            ("size=-1", Err("size=-1 is not valid; write a whole number of at least 0")),
            ("size=+1", Err("size= 1 is not valid")),
            ("size=%2B1", Err("size=+1 is not valid")),
            ("size=1.5", Err("size=1.5 is not valid")),
            ("size=1e6", Err("size=1e6 is not valid")),
            ("size=0x10", Err("size=0x10 is not valid")),
            ("size=20MB", Err("size=20MB is not valid")),
            ("size=", Err("the parameter \"size\" is empty; write a whole number")),
            ("size", Err("the parameter \"size\" is empty")),
            ("size=%D9%A3", Err("size=٣ is not valid")),
            ("size=1%00", Err("size=1\\0 is not valid")),
        ];
        for (raw, expected) in table {
            match (parse(raw).u64("size"), expected) {
                (Ok(number), Ok(expected)) => assert_eq!(number, *expected, "{raw}"),
                (Err(error), Err(text)) => {
                    assert!(error.to_string().starts_with(text), "{raw}: {error}");
                    assert_eq!(error.parameter(), Some("size"));
                }
                (got, _) => panic!("{raw}: {got:?}"),
            }
        }
    }

    #[test]
    fn bounded_numbers_name_their_bounds() {
        let error = parse("size=0").u64_in("size", 1..=u64::MAX).expect_err("zero").to_string();
        assert_eq!(error, "size=0 is not valid; write a whole number of at least 1, in digits");
        let error = parse("width=9000").u64_in("width", 16..=4096).expect_err("wide").to_string();
        assert_eq!(error, "width=9000 is not valid; write a whole number from 16 to 4096, in digits");
        assert_eq!(parse("width=16").u64_in("width", 16..=4096), Ok(Some(16)));
    }

    #[test]
    fn decimals() {
        for (raw, expected) in [("-30", -30.0), ("0.5", 0.5), ("1", 1.0), (".5", 0.5), ("100.", 100.0)] {
            assert_eq!(parse(&format!("at={raw}")).decimal_in("at", -100.0..=100.0), Ok(Some(expected)), "{raw}");
        }
        for raw in ["nan", "inf", "-inf", "1e1", "", ".", "-", "--1", "1.2.3", "101", "1,5", "%2B1"] {
            let raw = format!("at={raw}");
            let error = parse(&raw).decimal_in("at", -100.0..=100.0).expect_err(&raw).to_string();
            assert!(error.ends_with("write a decimal number from -100 to 100"), "{raw}: {error}");
        }
    }

    #[test]
    fn words_and_flags() {
        assert_eq!(parse("as=fmp4").one_of("as", &["bytes", "fmp4"]), Ok(Some("fmp4")));
        let error = parse("as=FMP4").one_of("as", &["bytes", "fmp4"]).expect_err("case matters").to_string();
        assert_eq!(error, "as=FMP4 is not valid; write bytes or fmp4");
        assert_eq!(parse("drop=1").flag("drop"), Ok(Some(true)));
        assert_eq!(parse("drop=0").flag("drop"), Ok(Some(false)));
        assert_eq!(parse("").flag("drop"), Ok(None));
        assert!(parse("drop=yes").flag("drop").is_err());
    }

    #[test]
    fn exactly_one() {
        const NAMES: &[&str] = &["offset", "timecode", "time", "frame"];
        assert_eq!(parse("frame=3&size=1").exactly_one(NAMES), Ok("frame"));
        let none = parse("size=1").exactly_one(NAMES).expect_err("none").to_string();
        assert_eq!(none, "the query names none of offset, timecode, time, frame; exactly one is needed");
        let two = parse("time=1&offset=2").exactly_one(NAMES).expect_err("two").to_string();
        assert_eq!(two, "the query names offset and time; exactly one of offset, timecode, time, frame is needed");
    }

    #[test]
    fn a_long_value_is_shown_in_part() {
        let raw = format!("as={}", "é".repeat(500));
        let error = parse(&raw).one_of("as", &["fmp4"]).expect_err("not a word").to_string();
        assert!(error.chars().count() < 120 && error.contains('…'), "{error}");
    }
}
