//! The edge: HTTP words in, HTTP words out. The only directory that knows axum.
//!
//! `range`, `conditional`, `multipart` and `query` are pure: header and query text in, decisions out.

pub mod conditional;
pub mod credentials;
pub mod multipart;
pub mod problem;
pub mod query;
pub mod range;
