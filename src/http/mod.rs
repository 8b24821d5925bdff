//! THE EDGE.
pub mod body;
