//! The profiler's call tree without the server around it. Must not hold code of its own but what stands in for threads.

pub mod profile;
