//! Sizes and times as people write them: `64 MiB`, `1500`, `10 s`, `500 ms`, `24 h`.

use serde::{Deserialize, Deserializer, de};
use std::str::FromStr;
use std::time::Duration;

/// A size in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteSize(pub u64);

/// A length of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

impl Span {
    pub fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    pub fn from_millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }
}

/// A number and the unit behind it, both trimmed.
fn split(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..digits].parse().ok()?, text[digits..].trim()))
}

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a size; write bytes, or KiB, MiB, GiB, TiB: 64 MiB");
        let (number, unit) = split(text).ok_or_else(wrong)?;
        let factor: u64 = match unit.to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "k" | "kib" => 1 << 10,
            "m" | "mib" => 1 << 20,
            "g" | "gib" => 1 << 30,
            "t" | "tib" => 1 << 40,
            "kb" => 1_000,
            "mb" => 1_000_000,
            "gb" => 1_000_000_000,
            _ => return Err(wrong()),
        };
        number.checked_mul(factor).map(Self).ok_or_else(wrong)
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a time; write a number with ms, s, min, h or d: 10 s");
        let (number, unit) = split(text).ok_or_else(wrong)?;
        let ms: u64 = match unit {
            "ms" => 1,
            "s" | "" => 1_000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(wrong()),
        };
        number.checked_mul(ms).map(|ms| Self(Duration::from_millis(ms))).ok_or_else(wrong)
    }
}

/// A key may hold the number alone, or a string with a unit.
#[derive(Deserialize)]
#[serde(untagged)]
enum Typed {
    Number(u64),
    Text(String),
}

fn parsed<'de, D: Deserializer<'de>, T: FromStr<Err = String>>(deserializer: D) -> Result<T, D::Error> {
    let text = match Typed::deserialize(deserializer) {
        Ok(Typed::Number(number)) => number.to_string(),
        Ok(Typed::Text(text)) => text,
        Err(_) => {
            return Err(de::Error::custom("write a number, or a string with a unit such as \"64 MiB\" or \"10 s\""));
        }
    };
    text.parse().map_err(de::Error::custom)
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parsed(deserializer)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parsed(deserializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_as_people_write_them() {
        assert_eq!("64 MiB".parse(), Ok(ByteSize(67_108_864)));
        assert_eq!("1500".parse(), Ok(ByteSize(1500)));
        assert_eq!("500 ms".parse(), Ok(Span(Duration::from_millis(500))));
        assert_eq!("24h".parse(), Ok(Span::from_secs(86_400)));
        for bad in ["", "x", "-1", "5 parsecs", "99999999999999999999", "18446744073709551615 KiB"] {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad}");
            assert!(bad.parse::<Span>().is_err(), "{bad}");
        }
    }
}
