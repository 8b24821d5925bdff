//! Why there is no picture, and the limits that are some of the reasons.
//!
//! Must not know how a reason is told to anybody.

use crate::media::index::SeekError;
use std::time::Duration;

/// Why there is no picture.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The moment could not be found.
    #[error(transparent)]
    Seek(#[from] SeekError),
    /// Coded in a way that no decoder here knows: says what is known.
    #[error("{what}; still frames are made of {SUPPORTED}")]
    Unsupported { what: String },
    /// The coded pictures are broken, or some are missing.
    #[error("the media is damaged: {0}")]
    Damaged(String),
    /// Larger than the limits allow, or than the format that was asked for can hold.
    #[error("{0}")]
    TooLarge(String),
    /// What was uploaded is no image.
    #[error("this is no image: its first bytes are neither those of a JPEG nor of a PNG")]
    NotAnImage,
    /// It took longer than a frame may.
    #[error("decoding took longer than {} s, which is the limit", limit.as_secs_f32())]
    TooSlow { limit: Duration },
    /// As much work waits as may.
    #[error("{queued} pictures wait to be decoded already")]
    Busy { queued: usize },
    /// What the picture needs could not be initialised.
    #[error("{what}")]
    Unready { what: String, retry_after: Duration },
    /// A decoder panicked. Weir goes on; the media is to blame, or the decoder.
    #[error("the media is damaged: the decoder gave up on it")]
    Panicked,
}

/// What is decoded, in the words of an error.
#[cfg(not(feature = "av1"))]
pub const SUPPORTED: &str = "progressive H.264 (8 bits, 4:2:0) and HEVC (Main and Main 10, 4:2:0)";
/// What is decoded, in the words of an error.
#[cfg(feature = "av1")]
pub const SUPPORTED: &str = "progressive H.264 (8 bits, 4:2:0), HEVC (Main and Main 10, 4:2:0) and AV1";

/// What one picture may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Pixels of a decoded picture, or of an uploaded image.
    pub pixels_max: u64,
    /// Memory of a decoder with the pictures it refers to; also the coded bytes that are read for a frame.
    pub bytes_max: u64,
    /// From the start of decoding to its end.
    pub time: Duration,
}
