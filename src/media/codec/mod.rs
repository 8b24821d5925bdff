//! Codecs as far as an index goes: the strings of RFC 6381, and what a picture's first bytes say.
//!
//! Must not know containers beyond the sample entry; decodes no pictures.

pub mod avc;
pub(crate) mod bits;
pub mod hevc;
mod strings;

pub(crate) use strings::SampleEntry;
