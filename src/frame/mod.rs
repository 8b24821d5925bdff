//! Still frames: exactly the frame asked for, decoded from its keyframe on, then scaled, adjusted and enhanced.
//!
//! Reading order: [`decode`] (a plan of `media` to planes, by one of [`h264`] and [`hevc`]), [`planes`], [`colour`]
//! (planes to pixels), [`image`] (scaling, turning), [`adjust`], [`enhance`] with its [`kernel`], [`encode`] and
//! [`upload`] (JPEG and PNG), [`still`] (all of it for one frame), [`storyboard`] (many), [`stills`] (bounded, cached),
//! [`parts`] (what of this is initialised when).
//! Knows `media` and `store`. Must not know HTTP, ids, or where bytes come from and go to.

pub mod adjust;
#[cfg(feature = "av1")]
mod av1;
pub mod colour;
pub mod decode;
pub mod encode;
pub mod enhance;
pub mod error;
mod exif;
pub mod exported;
mod h264;
mod hevc;
pub mod image;
pub mod kernel;
pub mod parts;
pub mod planes;
pub mod still;
pub mod stills;
pub mod storyboard;
pub mod upload;

pub use error::{FrameError, Limits, SUPPORTED};
pub use parts::{Job, Parts};
