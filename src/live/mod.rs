//! Live streams: what publishers send and viewers follow.
//!
//! A stream has one publisher and any number of viewers. What arrives is cut into parts, which are ropes of the very
//! buffers they came in; the window keeps the newest of them; each viewer has a cursor and gets clones of the same
//! buffers. No viewer can slow the publisher: one that falls out of the window skips to the newest keyframe.
//! Does not belong here: sockets, HTTP words, how parts are found in bytes (`media`).

pub mod arrival;
mod audience;
pub mod cursor;
pub mod follow;
pub mod group;
mod hls;
mod master;
pub mod memory;
mod meter;
pub mod numbers;
pub mod playlist;
mod publication;
pub mod resource;
pub mod segments;
mod status;
pub mod stream;
pub mod streams;
mod times;
pub mod window;

pub use arrival::{Arrival, Arrived, Init};
pub use audience::{Audience, Viewing};
pub use cursor::{Cursor, Next};
pub use follow::{Followed, Follower, Reader};
pub use group::Group;
pub use meter::Rates;
pub use playlist::{Form, Playlist};
pub use publication::Publication;
pub use resource::Resource;
pub use segments::Segment;
pub use status::Status;
pub use stream::{PublishError, State, Stream};
pub use streams::{LiveConfig, Streams};
pub use window::{Located, Part};
