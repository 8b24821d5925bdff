//! The profilers of the running server, and the formats they write.
//!
//! Spans are named pieces of the server's own code, counted and timed where they run. Off, a span is one relaxed load.
//! On, it adds to a node of its thread's call tree (`tree`); a report is the difference of two readings of all trees
//! (`snapshot`, `window`). Does not belong here: HTTP words, what a video is.

pub mod clock;
pub mod cost;
pub mod cpu;
pub mod flame;
mod future;
mod guard;
pub mod heap;
pub mod json;
mod maps;
mod marks;
pub mod pprof;
pub mod proto;
pub mod pstats;
pub mod runcall;
pub mod select;
mod site;
mod slot;
pub mod snapshot;
pub mod stack;
mod stage;
mod switch;
pub mod symbols;
mod sync;
pub mod table;
pub mod text;
mod thread;
mod timers;
mod tree;
pub mod window;
pub mod workload;

pub use crate::{site, span};
pub use future::{Call, Profiled, SpanExt, profiled, spawned, spawned_by};
pub use guard::{Origin, Span};
pub use site::{Kind, Site};
pub use stage::Stage;
pub use switch::{Hold, is_on};
pub use thread::{NodeId, current_node};
pub use window::{WINDOWS, Window};
