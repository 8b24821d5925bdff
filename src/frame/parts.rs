//! The components of this room: each decoder, what enhancing works with, the JPEG encoder, and the queue with its cache
//! are built when a picture first needs them, and the start-up table says which request that was.
//!
//! A decoder's component makes one and lets it go: what it needs from then on is there. Must not know HTTP.

use super::decode::{self, StillDecoder};
use super::encode::Jpeg;
use super::enhance::Enhancer;
use super::stills::{Stills, StillsConfig};
use super::{FrameError, Limits};
use crate::lazy::{Component, Components, Unready};
use crate::media::still::Coding;
use crate::store::Pool;
use std::sync::Arc;

/// The components.
pub struct Parts {
    pub stills: Component<Stills>,
    pub enhancer: Component<Enhancer>,
    h264: Component<()>,
    hevc: Component<()>,
    #[cfg(feature = "av1")]
    av1: Component<()>,
    jpeg: Component<Jpeg>,
    limits: Limits,
}

/// The making of one picture: what it may use, its limits, and who asked for it.
#[derive(Clone)]
pub struct Job {
    parts: Arc<Parts>,
    pub limits: Limits,
    asked: String,
}

impl Parts {
    /// Adds the components to a table.
    pub fn add(components: &Components, config: StillsConfig) -> Arc<Self> {
        let limits = config.limits;
        // Threads start with the first job.
        let pool = Pool::background("frame", config.threads);
        let decoder = |name, coding: Coding| {
            components.add(name, move |_| {
                decode::decoder(&coding, limits)?;
                Ok(())
            })
        };
        Arc::new(Self {
            stills: components.add_releasable("frame", move |_| Ok(Stills::new(pool.clone(), &config))),
            enhancer: components.add_releasable("enhancer", |_| Ok(Enhancer::default())),
            h264: decoder("h264", Coding::H264),
            hevc: decoder("hevc", Coding::Hevc),
            #[cfg(feature = "av1")]
            av1: decoder("av1", Coding::Av1),
            jpeg: components.add("jpeg", |_| Ok(Jpeg::new()?)),
            limits,
        })
    }

    /// A picture that somebody asked for, named without secrets.
    pub fn job(self: &Arc<Self>, asked: String) -> Job {
        Job { parts: Arc::clone(self), limits: self.limits, asked }
    }
}

impl Job {
    pub fn decoder(&self, coding: &Coding) -> Result<Box<dyn StillDecoder>, FrameError> {
        match coding {
            Coding::H264 => self.need(&self.parts.h264).map(drop)?,
            Coding::Hevc => self.need(&self.parts.hevc).map(drop)?,
            #[cfg(feature = "av1")]
            Coding::Av1 => self.need(&self.parts.av1).map(drop)?,
            _ => {}
        }
        decode::decoder(coding, self.limits)
    }

    pub fn enhancer(&self) -> Result<Arc<Enhancer>, FrameError> {
        self.need(&self.parts.enhancer)
    }

    pub fn jpeg(&self) -> Result<Arc<Jpeg>, FrameError> {
        self.need(&self.parts.jpeg)
    }

    fn need<T: Send + Sync + 'static>(&self, component: &Component<T>) -> Result<Arc<T>, FrameError> {
        Ok(component.wait(|| self.asked.clone())?)
    }
}

impl From<Unready> for FrameError {
    fn from(unready: Unready) -> Self {
        Self::Unready { what: unready.to_string(), retry_after: unready.retry_after }
    }
}
