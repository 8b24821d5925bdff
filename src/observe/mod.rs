//! Metrics and logging: what the server says of itself. Knows the facts others report to it, and how they are
//! written; decides nothing.

pub mod command_line;
pub mod exposition;
pub mod latency;
pub mod log;
pub mod metrics;
pub mod process;
