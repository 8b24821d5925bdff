//! The deterministic profiler: named pieces of the server's own code (spans), counted and timed where they run.
//!
//! Off, a span is one relaxed load. On, it adds to a node of its thread's call tree; a report is the difference of two
//! readings of all trees. Must not know HTTP, formats of media, or what it measures.

pub mod clock;
pub mod cost;
mod future;
mod guard;
pub mod select;
mod site;
pub mod snapshot;
mod switch;
mod sync;
pub mod table;
pub mod text;
mod thread;
mod tree;
pub mod window;

pub use future::{Profiled, SpanExt, profiled, spawned, spawned_by};
pub use guard::{Origin, Span};
pub use site::{Kind, Site};
pub use switch::{Hold, is_on};
pub use window::{WINDOWS, Window};
pub use thread::{NodeId, current_node};
