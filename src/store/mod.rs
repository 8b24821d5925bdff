//! Mapped files as `Bytes`, the pools where blocking work runs, and values that can be taken back ([`lent`]).
//!
//! The one place with unsafe for mappings, and the one that knows about page faults. It deals in byte ranges only:
//! no HTTP, no media formats, no ids.
//!
//! Rules (ARCHITECTURE.md, invariants): mapped bytes are only ever handed to socket writes, where a page lost to
//! truncation is EFAULT; everything that *reads* media uses `pread` ([`MappedFile`] as [`ReadAt`]), because a load
//! from a lost page is SIGBUS. Who may truncate: nobody; videos are replaced by rename. Where faults happen: on a
//! [`pool::Pool`], before a slice is handed to a core ([`residency`]).

pub mod lent;
mod loans;
pub mod mapped;
pub mod pool;
pub mod priority;
pub mod residency;

pub use mapped::MappedFile;
pub use pool::Pool;
pub use residency::coarse_ms;
