//! What handlers may reach; shared by all cores.

use crate::bench::job::Jobs;
use crate::config::Config;
use crate::ingest::tracks::Tracks;
use crate::lazy::{Component, Components};
use crate::library::{Library, WriteKey};
use crate::live::Streams;
use crate::observe::metrics::Metrics;
use crate::record::Recorder;
use crate::store::Pool;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

pub struct Edge {
    pub config: Config,
    pub library: Library,
    pub recorder: Arc<Recorder>,
    pub streams: Arc<Streams>,
    /// Streams that are published in tracks.
    pub tracks: Tracks,
    pub write_key: WriteKey,
    pub metrics: Arc<Metrics>,
    /// The table of what is initialised at its first use.
    pub components: Arc<Components>,
    pub benchmarks: Component<Jobs>,
    /// Where viewers' page faults and index look-ups wait for the disk.
    pub read_pool: Pool,
    /// Where chunks are planned: a long one takes a while, and must not keep viewers waiting.
    pub plan_pool: Pool,
    /// Cancelled when the server begins to drain.
    pub drain: CancellationToken,
    /// Random per start; request ids count on from it.
    pub run_id: u64,
}
