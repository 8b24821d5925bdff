//! Names that an upload may create.

/// Longest name that an upload may create, in bytes.
pub const NAME_BYTES_MAX: usize = 128;

/// A validated name for a new video: `[A-Za-z0-9][A-Za-z0-9._-]{0,127}`. It has no separator and no leading dot, so it
/// is a plain name in the library's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewName(String);

impl NewName {
    pub fn parse(id: &str) -> Option<Self> {
        let bytes = id.as_bytes();
        let first = bytes.first()?;
        let rest = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let legal = bytes.len() <= NAME_BYTES_MAX && first.is_ascii_alphanumeric() && bytes.iter().all(rest);
        legal.then(|| Self(id.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_names() {
        for good in ["a", "0", "a.mp4", "A-b_c.d..mp4", &"x".repeat(128)] {
            assert!(NewName::parse(good).is_some(), "{good}");
        }
        let long = "x".repeat(129);
        for bad in ["", ".", "..", ".a", "-a", "_a", "a/b", "/a", "a\0", "a b", "a\\b", "ä", "a\n", "a%2Fb", &long] {
            assert!(NewName::parse(bad).is_none(), "{bad:?}");
        }
    }
}
