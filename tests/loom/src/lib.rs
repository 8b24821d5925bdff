//! The profiler's call tree and what lends values, without the server around them. Must not hold code of its own but what
//! stands in for threads.

pub mod profile;
pub mod store;
