//! What handlers may reach; shared by all cores.

use crate::config::Config;
use crate::frame::Limits;
use crate::frame::stills::{Stills, StillsConfig};
use crate::library::{Library, WriteKey};
use crate::live::Streams;
use crate::observe::metrics::Metrics;
use crate::record::Recorder;
use crate::store::Pool;
use std::sync::{Arc, OnceLock};
use tokio_util::sync::CancellationToken;

pub struct Edge {
    pub config: Config,
    pub library: Library,
    pub recorder: Arc<Recorder>,
    pub streams: Arc<Streams>,
    pub write_key: WriteKey,
    pub metrics: Arc<Metrics>,
    /// Where viewers' page faults and index look-ups wait for the disk.
    pub read_pool: Pool,
    /// Made by the first who asks for a picture: [`Edge::stills`].
    pub stills: OnceLock<Arc<Stills>>,
    /// Cancelled when the server begins to drain.
    pub drain: CancellationToken,
    /// Random per start; request ids count on from it.
    pub run_id: u64,
}

impl Edge {
    /// Where pictures are made.
    pub fn stills(&self) -> Arc<Stills> {
        let config = &self.config;
        let make = || {
            let limits = Limits {
                pixels_max: config.frame_pixels_max,
                bytes_max: config.frame_bytes_max.0,
                time: config.frame_time.0,
            };
            Stills::new(StillsConfig {
                threads: config.frame_threads,
                queue_max: config.frame_queue_max,
                cache_bytes: config.frame_cache_bytes.0,
                limits,
            })
        };
        Arc::clone(self.stills.get_or_init(make))
    }
}
