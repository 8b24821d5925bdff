//! The profilers of the running server and the formats they write: `profile.proto` for `go tool pprof`.
//! Does not belong here: HTTP words, what a video is.

pub mod proto;
