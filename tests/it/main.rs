//! The only integration binary: everything that needs the running server, ffmpeg, or the source tree itself.

mod bad_input;
mod ranges;
mod seek;
mod support;
mod tidy;
mod zero_copy;
