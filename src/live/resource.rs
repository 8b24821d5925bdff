//! The names of what playlists list: `init-3.mp4`, `segment-3.m4s`, `part-3.0.m4s`; `.ts` in MPEG-TS.
//!
//! PURE.

use std::fmt;

/// What a playlist names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// The init segment of the segments from this one on.
    Init(u64),
    Segment {
        segment: u64,
        extension: &'static str,
    },
    Part {
        segment: u64,
        part: usize,
        extension: &'static str,
    },
}

impl Resource {
    /// Reads a name; `None` for what is not written exactly as it is printed.
    pub fn parse(name: &str) -> Option<Self> {
        let (stem, extension) = name.rsplit_once('.')?;
        let extension = ["mp4", "m4s", "ts"].into_iter().find(|known| *known == extension)?;
        let (kind, numbers) = stem.split_once('-')?;
        let parsed = match (kind, extension) {
            ("init", "mp4") => Self::Init(numbers.parse().ok()?),
            ("segment", "m4s" | "ts") => Self::Segment { segment: numbers.parse().ok()?, extension },
            ("part", "m4s" | "ts") => {
                let (segment, part) = numbers.split_once('.')?;
                Self::Part { segment: segment.parse().ok()?, part: part.parse().ok()?, extension }
            }
            _ => return None,
        };
        (parsed.to_string() == name).then_some(parsed)
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Init(segment) => write!(f, "init-{segment}.mp4"),
            Self::Segment { segment, extension } => write!(f, "segment-{segment}.{extension}"),
            Self::Part { segment, part, extension } => write!(f, "part-{segment}.{part}.{extension}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for name in ["init-0.mp4", "segment-18446744073709551615.m4s", "segment-7.ts", "part-7.0.m4s", "part-7.12.ts"] {
            assert_eq!(Resource::parse(name).expect(name).to_string(), name);
        }
        for name in
            ["init-0.m4s", "init-.mp4", "segment-1", "segment-01.ts", "segment-1.mp4", "part-1.ts", "part-1.+1.ts"]
        {
            assert_eq!(Resource::parse(name), None, "{name}");
        }
    }
}
