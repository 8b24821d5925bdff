//! Exact time: rates, decimal times and SMPTE timecodes. No floating point decides anything here.
//!
//! Source: SMPTE ST 12-1 (timecode labels, drop-frame counting).

use std::fmt;

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

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.num, self.den)
    }
}
