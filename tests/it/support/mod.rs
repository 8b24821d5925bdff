//! What the integration tests stand on. It must not know Weir's library: nothing here is shared with the code under
//! test.
#![allow(dead_code)] // each item is used by some of the subjects, not by all

pub mod box_cursor;
pub mod client;
pub mod oracle;
pub mod publisher;
pub mod server;
pub mod tmpfs;
