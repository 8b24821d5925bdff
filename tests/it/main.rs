//! The only integration binary.

mod index_ts;
