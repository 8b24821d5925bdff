//! Arguments as typed: `--name value` pairs, flags, and what follows `--`.

use std::collections::HashMap;
use std::str::FromStr;

/// Options that take no value.
const FLAGS: &[&str] = &["copy"];

#[derive(Debug, Default)]
pub struct Args {
    values: HashMap<String, Vec<String>>,
    /// The words after `--`.
    pub rest: Vec<String>,
}

impl Args {
    pub fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut args = Self::default();
        while let Some(word) = words.next() {
            if word == "--" {
                args.rest = words.collect();
                break;
            }
            let name = word.strip_prefix("--").ok_or_else(|| format!("unexpected argument: {word}"))?;
            let value = if FLAGS.contains(&name) {
                String::new()
            } else {
                words.next().ok_or_else(|| format!("--{name} needs a value"))?
            };
            args.values.entry(name.to_owned()).or_default().push(value);
        }
        Ok(args)
    }

    pub fn flag(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    pub fn all(&self, name: &str) -> &[String] {
        self.values.get(name).map_or(&[], Vec::as_slice)
    }

    pub fn text(&self, name: &str) -> Result<&str, String> {
        self.all(name).last().map(String::as_str).ok_or_else(|| format!("--{name} is missing"))
    }

    pub fn number<T: FromStr>(&self, name: &str, default: T) -> Result<T, String> {
        match self.all(name).last() {
            None => Ok(default),
            Some(text) => text.parse().map_err(|_| format!("--{name}: not a number: {text}")),
        }
    }
}

/// A number of bytes, with an optional suffix k, m or g.
pub fn size(text: &str) -> Result<u64, String> {
    let bad = || format!("not a size: {text}");
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'k') => (&text[..text.len() - 1], 10),
        Some(b'm') => (&text[..text.len() - 1], 20),
        Some(b'g') => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    let number: u64 = digits.parse().map_err(|_| bad())?;
    number.checked_mul(1 << shift).ok_or_else(bad)
}
