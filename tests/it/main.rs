//! The only integration binary.

mod index_mp4;
