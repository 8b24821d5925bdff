//! The pure directories of the server, compiled again for the fuzzer, and the bounds that every target holds.
//!
//! The files are the server's own (`#[path]`), not copies. Must not know: anything that is not pure.

#[path = "../../src/media/mod.rs"]
pub mod media;

/// The pure files of the edge.
#[path = "../../src/http"]
pub mod http {
    pub mod conditional;
    pub mod query;
    pub mod range;
}

pub mod bounds;
pub mod seek;
