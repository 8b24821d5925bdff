//! The pure directories of the server, compiled again for the fuzzer, and the bounds that every target holds.
//!
//! The files are the server's own (`#[path]`), not copies. Must not know: anything that is not pure.

#[path = "../../src/media/mod.rs"]
pub mod media;

/// The pure files of the edge.
#[path = "../../src/http"]
pub mod http {
    pub mod conditional;
    pub mod form;
    pub mod query;
    pub mod range;
}

/// Still frames, without the queue and the threads around them.
#[path = "../../src/frame"]
pub mod frame {
    pub mod adjust;
    pub mod colour;
    pub mod decode;
    pub mod encode;
    pub mod enhance;
    pub mod error;
    pub mod exif;
    mod h264;
    mod hevc;
    pub mod image;
    pub mod kernel;
    pub mod planes;
    pub mod upload;

    pub use error::{FrameError, Limits};
}

pub mod bounds;
pub mod seek;
