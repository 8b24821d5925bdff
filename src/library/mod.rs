//! The library: which videos there are, their open files and indexes, and how videos come and go.
//!
//! [`Library`] is a cheap handle that every core holds. Looking up an id is a hash lookup in an immutable snapshot
//! ([`catalogue`]); everything that touches the disk runs on pools or on threads of the library's own (watcher,
//! background indexer), never on a core. Futures of this module are runtime-agnostic: they use channels and pools, no
//! timers and no spawned tasks.
//!
//! An id is a key of the catalogue and nothing else: no id from a request is joined to a path, except a new name for
//! an upload, which is a validated [`name::NewName`] without separators.
//! Does not belong here: HTTP words (the edge maps these errors to statuses), media formats.

pub mod cache;
pub mod catalogue;
mod continued;
pub mod delete;
mod hidden;
pub mod indexer;
mod journal;
pub mod key;
mod listing;
mod lock;
pub mod name;
mod open;
pub mod parts;
mod publish;
pub mod ranges;
mod recording;
mod room;
pub mod scan;
mod shelf;
pub mod upload;
pub mod video;
mod watch;
mod writer;

pub use catalogue::Catalogue;
pub use delete::DeleteError;
pub use indexer::{IndexError, Progress};
pub use key::{KeyError, WriteKey};
pub use lock::{LockError, Locks};
pub use open::{Library, LibraryConfig, OpenError};
pub use parts::{Part, PartOutcome};
pub use recording::{RecordingFile, STEM_BYTES_MAX};
pub use upload::{Condition, Stored, Upload, UploadError};
pub use video::{FileError, IndexState, NoIndex, Video};
