//! What handlers may reach; shared by all cores.

use super::admin::Tools;
use super::images::Editors;
use crate::bench::job::Jobs;
use crate::config::Config;
use crate::frame::Parts;
use crate::ingest::tracks::Tracks;
use crate::lazy::{Component, Components};
use crate::library::{Library, WriteKey};
use crate::live::Streams;
use crate::net::Limits;
use crate::observe::metrics::Metrics;
use crate::record::Recorder;
use crate::store::Pool;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

pub struct Edge {
    pub config: Config,
    /// Of connections.
    pub limits: Limits,
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
    /// What the admin listener builds when somebody looks.
    pub tools: Tools,
    /// Where viewers' page faults and index look-ups wait for the disk.
    pub read_pool: Pool,
    /// Where chunks are planned: a long one takes a while, and must not keep viewers waiting.
    pub plan_pool: Pool,
    /// The components of still frames.
    pub frames: Arc<Parts>,
    /// The handlers of `/adjust` and `/enhance`.
    pub editors: Editors,
    /// Cancelled when the server begins to drain.
    pub drain: CancellationToken,
    /// Random per start; request ids count on from it.
    pub run_id: u64,
}
