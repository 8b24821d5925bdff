//! Wiring: builds each part from the configuration, starts it, and drains it. Knows everything; decides little.
//!
//! Start: library (listed at once) → listeners bound → cores and admin thread serve → background indexing.
//! Drain: SIGTERM or SIGINT → readyz 503 → no new connections → responses in flight finish → exit.

use crate::bench::job::Jobs;
use crate::config::{self, Config};
use crate::frame::stills::StillsConfig;
use crate::frame::{self, Parts};
use crate::http::admin::{self, AdminService, Tools};
use crate::http::images::Editors;
use crate::http::peers::Peers;
use crate::http::service::EdgeService;
use crate::http::state::Edge;
use crate::ingest::tcp;
use crate::ingest::tracks::Tracks;
use crate::lazy::Components;
use crate::library::{KeyError, Library, LibraryConfig, Locks, WriteKey};
use crate::live::window::Bounds;
use crate::live::{LiveConfig, Streams};
use crate::media::cadence::Targets;
use crate::net::{self, Cores, Limits, Listeners, Server, Traffic};
use crate::observe::metrics::Metrics;
use crate::record::{self, Job, Keep, Made, NumberFile, Recorder};
use crate::store::Pool;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_util::sync::CancellationToken;

/// A chunk of a whole day is planned in some tenths of a second with some megabytes; others wait for their turn.
const PLAN_THREADS: usize = 2;

/// A server that is up.
pub struct Running {
    pub media: SocketAddr,
    pub admin: SocketAddr,
    /// Where publishers connect; without a name they begin with a line.
    pub tcp: Vec<(Option<String>, SocketAddr)>,
    pub edge: Arc<Edge>,
    /// The write key, when this start generated it: to be printed once.
    pub generated_key: Option<String>,
    drain: CancellationToken,
    /// The admin listener outlives the media cores, so that `/readyz` tells of the drain until the end.
    admin_end: CancellationToken,
    numbers: Arc<NumberFile>,
    cores: Cores,
    recording: Cores,
    admin_thread: Cores,
    ingest_thread: Cores,
    _locks: Locks,
}

/// Why a server did not come up.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot listen on {address} ({what}): {error}")]
    Listen { what: &'static str, address: SocketAddr, error: io::Error },
    #[error(transparent)]
    Library(#[from] crate::library::OpenError),
    #[error(transparent)]
    Lock(#[from] crate::library::LockError),
    #[error("write key: {0}")]
    Key(String),
    #[error("numbers of live streams: {0}")]
    Numbers(io::Error),
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
    #[error("no random numbers: {0}")]
    Random(String),
}

/// Starts everything and returns as soon as connections are accepted.
pub fn start(config: Config, components: &Arc<Components>) -> Result<Running, StartError> {
    let warm = config.warm.clone();
    let running = components.step("server", || start_parts(config, components))?;
    // What runs in the background begins when connections are accepted.
    running.edge.library.start_background();
    components.warm(&warm);
    Ok(running)
}

fn start_parts(config: Config, components: &Arc<Components>) -> Result<Running, StartError> {
    let started = Instant::now();
    let drain = CancellationToken::new();
    check_file_limit(config.connections_max);
    let bound = components.step("listeners", || {
        let media = listen("listen", config.listen, config.core_count())?;
        Ok::<_, StartError>((media, listen("admin", config.admin, 1)?, listen_tcp(&config)?))
    });
    let (listeners, admin_listeners, tcp_listeners) = bound?;
    // Where it cannot be made, nothing is kept; what needs it says so.
    let _ = std::fs::create_dir_all(&config.state_dir);
    let locks = Locks::take([("state_dir", config.state_dir.as_path()), ("library", &config.library)])?;
    let library_config = library_config(&config, components);
    let library = components.step("library", || Library::open(library_config))?;
    let (recorder, jobs) = recorder(&config, &library, components);
    let token = config.admin_token.clone().map(WriteKey::new).transpose();
    let token = token.map_err(|error| StartError::Key(format!("admin_token: {error}")))?;
    let (write_key, generated_key) = components.step("write key", || write_key(&config))?;
    let numbers = Arc::new(NumberFile::open(&config.state_dir).map_err(StartError::Numbers)?);
    let traffic = Arc::new(Traffic::default());
    let frames = Parts::add(components, stills_config(&config));
    let streams = Arc::new(Streams::new(live_config(&config), Arc::clone(&numbers) as _));
    let edge = Arc::new(Edge {
        library,
        recorder: Arc::clone(&recorder),
        tracks: Tracks::new(Arc::clone(&streams), Arc::clone(&traffic), config.track_wait.0),
        streams,
        write_key,
        metrics: Arc::new(Metrics::new(Arc::clone(&traffic), started)),
        components: Arc::clone(components),
        benchmarks: components.add("benchmarks", |_| Ok(Jobs::default())),
        tools: Tools::add(components),
        read_pool: Pool::new("read", config.read_threads),
        plan_pool: Pool::new("plan", PLAN_THREADS),
        editors: Editors::add(components, &frames),
        frames,
        drain: drain.clone(),
        run_id: run_id()?,
        limits: limits(&config),
        config,
    });
    let admin_end = CancellationToken::new();
    let (media, admin) = (listeners.address, admin_listeners.address);
    let tcp = tcp_listeners.iter().map(|listener| (listener.stream.clone(), listener.address)).collect();
    let threads = components.step("threads", || {
        let recording = start_recorder(&edge, jobs)?;
        let cores = start_media(&edge, listeners, traffic)?;
        let admin_thread = start_admin(&edge, admin_listeners, token, admin_end.clone())?;
        Ok((recording, cores, admin_thread, start_tcp(&edge, tcp_listeners)?))
    });
    let (recording, cores, admin_thread, ingest_thread) = threads.map_err(StartError::Thread)?;
    for cores in [&cores, &recording, &admin_thread, &ingest_thread] {
        edge.metrics.follow(cores.runtimes());
    }
    Ok(Running {
        media,
        admin,
        tcp,
        edge,
        generated_key,
        drain,
        admin_end,
        numbers,
        cores,
        recording,
        admin_thread,
        ingest_thread,
        _locks: locks,
    })
}

impl Running {
    /// Begins the drain; `wait` returns when it is done.
    pub fn drain(&self) -> impl Fn() + Send + 'static + use<> {
        let drain = self.drain.clone();
        move || drain.cancel()
    }

    /// Waits until the server has drained; false when a core died of a bug.
    pub fn wait(self) -> bool {
        let cores = self.cores.join();
        // What was recorded becomes videos before the process ends.
        self.edge.streams.end_all();
        self.edge.recorder.close();
        let cores = self.recording.join() && cores;
        self.numbers.flush();
        self.admin_end.cancel();
        let ingest = self.ingest_thread.join();
        self.admin_thread.join() && cores && ingest
    }
}

fn check_file_limit(connections_max: usize) {
    if let Some(files) = net::raise_file_limit()
        && files < connections_max as u64
    {
        tracing::info!(files, connections_max, "the system allows fewer open files than connections");
    }
}

fn listen(what: &'static str, address: SocketAddr, count: usize) -> Result<Listeners, StartError> {
    Listeners::bind(address, count).map_err(|error| StartError::Listen { what, address, error })
}

fn listen_tcp(config: &Config) -> Result<Vec<tcp::Listener>, StartError> {
    let named = config.tcp.iter().map(|stream| ("tcp", Some(stream.name.clone()), stream.address));
    let preamble = config.tcp_preamble.map(|address| ("tcp_preamble", None, address));
    let mut listeners = Vec::new();
    for (what, stream, address) in named.chain(preamble) {
        let Listeners { address, sockets } = listen(what, address, 1)?;
        let bound = sockets.into_iter().map(|socket| tcp::Listener { socket, address, stream: stream.clone() });
        listeners.extend(bound);
    }
    Ok(listeners)
}

fn run_id() -> Result<u64, StartError> {
    getrandom::u64().map_err(|error| StartError::Random(error.to_string()))
}

/// The configured key, or the one in the state directory, generated at the first start.
fn write_key(config: &Config) -> Result<(WriteKey, Option<String>), StartError> {
    let wrong = |error: KeyError| StartError::Key(error.to_string());
    if let Some(key) = &config.write_key {
        return Ok((WriteKey::new(key.clone()).map_err(wrong)?, None));
    }
    let (key, new) = WriteKey::load_or_generate(&config.state_dir).map_err(wrong)?;
    let generated = new.then(|| key.expose().to_owned());
    Ok((key, generated))
}

fn library_config(config: &Config, components: &Components) -> LibraryConfig {
    LibraryConfig {
        opened: components.tally("index"),
        indexed: components.tally("background index"),
        state_dir: Some(config.state_dir.clone()),
        poll: Some(config.poll_interval.0).filter(|interval| !interval.is_zero()),
        upload_bytes_max: config.upload_bytes_max.0,
        space_reserve: config.space_reserve.0,
        upload_expiry: config.upload_expiry.0,
        index_bytes_max: config.index_bytes_max.0,
        ..LibraryConfig::new(&config.library)
    }
}

fn stills_config(config: &Config) -> StillsConfig {
    StillsConfig {
        threads: config.frame_threads,
        queue_max: config.frame_queue_max,
        cache_bytes: config.frame_cache_bytes.0,
        limits: frame::Limits {
            pixels_max: config.frame_pixels_max,
            bytes_max: config.frame_bytes_max.0,
            time: config.frame_time.0,
        },
    }
}

fn live_config(config: &Config) -> LiveConfig {
    let us = |span: config::units::Span| i64::try_from(span.0.as_micros()).unwrap_or(i64::MAX);
    LiveConfig {
        window: Bounds { duration_us: us(config.window_seconds), bytes: config.window_bytes.0 },
        targets: Targets { part_us: us(config.part_target), segment_us: us(config.segment_target) },
        streams_max: config.streams_max,
        memory_max: config.live_bytes_max.0,
        reconnect_window: config.reconnect_window.0,
        takeover: config.takeover,
        lags_max: config.lags_max,
    }
}

/// The recorder; off where the library takes no videos. Takes up what a crash interrupted: only where there is such a
/// recording is its directory read, and then before anybody can ask for the video.
fn recorder(
    config: &Config,
    library: &Library,
    components: &Components,
) -> (Arc<Recorder>, Option<UnboundedReceiver<Job>>) {
    let keep = Keep { age: config.record_max_age.0, bytes: config.record_max_bytes.0 };
    let (made, sync) = (Arc::new(Made::open(&config.state_dir, keep)), config.record_sync.0);
    let is_writable = library.is_writable();
    let interrupted = is_writable && library.has_interrupted_recordings();
    let (recorded, list) = (library.clone(), Arc::clone(&made));
    let recordings = components.add("recordings", move |_| {
        if interrupted {
            record::recover::recover(&recorded, &list);
        }
        Ok(())
    });
    if interrupted && let Err(error) = recordings.wait(|| "start".to_owned()) {
        tracing::error!(%error, "take up interrupted recordings");
    }
    if !is_writable || !config.record {
        return (Arc::new(Recorder::off(library.clone(), made, sync)), None);
    }
    let (recorder, jobs) = Recorder::new(library.clone(), made, sync);
    (Arc::new(recorder), Some(jobs))
}

/// The recorder has a thread of its own; the disk work is on its pool.
fn start_recorder(edge: &Arc<Edge>, jobs: Option<UnboundedReceiver<Job>>) -> io::Result<Cores> {
    let recorder = Arc::clone(&edge.recorder);
    edge.streams.on_new(move |stream| recorder.begin(stream));
    let recorder = Arc::clone(&edge.recorder);
    let tasks = jobs.map(|jobs| move || async move { recorder.run(jobs).await });
    Cores::start("record", false, tasks.into_iter().collect())
}

/// Ends streams whose publisher stayed away, and all of them when the server drains; releases idle components.
async fn tidy_streams(edge: Arc<Edge>) {
    const EVERY: Duration = Duration::from_millis(250);
    while tokio::time::timeout(EVERY, edge.drain.cancelled()).await.is_err() {
        edge.tracks.tidy();
        edge.streams.tidy();
        edge.components.release_idle(edge.config.idle_release.0);
    }
    for stream in edge.streams.list() {
        edge.tracks.flush(stream.name()).await;
    }
    edge.streams.end_all();
}

/// One thread, one runtime and one listener per core; all share the edge.
fn start_media(edge: &Arc<Edge>, listeners: Listeners, traffic: Arc<Traffic>) -> io::Result<Cores> {
    let peers = Arc::new(Peers::new(edge.config.peer_requests_per_second));
    let tasks = listeners.sockets.into_iter().map(|listener| {
        let (shared, peers) = (Arc::clone(edge), Arc::clone(&peers));
        let server = Server {
            service: move |conn| EdgeService::new(Arc::clone(&shared), Arc::clone(&peers), conn),
            limits: edge.limits,
            traffic: Arc::clone(&traffic),
            drain: edge.drain.clone(),
        };
        move || ended(server.run(listener))
    });
    Cores::start("core", edge.config.pin, tasks.collect())
}

/// Publishers over TCP share one thread, if there are any.
fn start_tcp(edge: &Arc<Edge>, listeners: Vec<tcp::Listener>) -> io::Result<Cores> {
    if listeners.is_empty() {
        return Cores::start("ingest", false, Vec::<fn() -> std::future::Ready<()>>::new());
    }
    let ingest = Arc::new(tcp::Ingest {
        streams: Arc::clone(&edge.streams),
        write_key: edge.write_key.clone(),
        traffic: Arc::clone(&edge.metrics.traffic),
        head_time: edge.config.head_time.0,
        stall_limit: edge.config.stall_limit.0,
        drain: edge.drain.clone(),
    });
    let task = move || async move {
        let mut serving = tokio::task::JoinSet::new();
        for listener in listeners {
            serving.spawn(ended(tcp::serve(Arc::clone(&ingest), listener)));
        }
        while serving.join_next().await.is_some() {}
    };
    Cores::start("ingest", false, vec![task])
}

/// The admin listener, on a thread of its own, with counters of its own: `/metrics` speaks of media traffic only.
fn start_admin(
    edge: &Arc<Edge>,
    listeners: Listeners,
    token: Option<WriteKey>,
    end: CancellationToken,
) -> io::Result<Cores> {
    let routes = admin::routes(Arc::clone(edge));
    // Who hangs up wants no profile any more, and another may begin one.
    let limits = Limits { half_close: false, ..limits(&edge.config) };
    let tasks = listeners.sockets.into_iter().map(|listener| {
        let service = AdminService::new(routes.clone(), token.clone());
        let service = move |conn| service.of(conn);
        let server = Server { service, limits, traffic: Arc::default(), drain: end.clone() };
        let edge = Arc::clone(edge);
        move || async move {
            tokio::spawn(tidy_streams(edge));
            ended(server.run(listener)).await;
        }
    });
    Cores::start("admin", false, tasks.collect())
}

/// A listener that cannot be served is logged; the others go on.
async fn ended(serving: impl Future<Output = io::Result<()>>) {
    if let Err(error) = serving.await {
        tracing::error!(%error, "serve a listener");
    }
}

fn limits(config: &Config) -> Limits {
    Limits {
        connections_max: config.connections_max,
        // hyper refuses a head beyond its buffer with a bare 431; ours says what the limit is, so it comes first.
        buffer_bytes_max: usize::try_from(config.head_bytes_max.0).unwrap_or(1 << 20) + (256 << 10),
        head_time: config.head_time.0,
        idle_time: config.idle_time.0,
        stall_limit: config.stall_limit.0,
        drain_limit: config.drain_limit.0,
        half_close: true,
    }
}
