//! Every setting as a user types it: a flag, a `WEIR_*` variable, a key of the config file.

use super::LogFormat;
use super::tcp::TcpStream;
use super::units::{ByteSize, Span};
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Every key, as typed; absent means "the next source, or the default".
#[derive(Clone, Debug, Default, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Directory of videos; found recursively and watched [default: .]
    #[arg(long, env = "WEIR_LIBRARY", value_name = "DIR")]
    pub library: Option<PathBuf>,
    /// Index cache, generated key, upload journals [default: $STATE_DIRECTORY, $XDG_STATE_HOME/weir or
    /// ~/.local/state/weir]
    #[arg(long, env = "WEIR_STATE_DIR", value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Media listener [default: 127.0.0.1:8080]; port 0 takes a free one and prints it
    #[arg(long, env = "WEIR_LISTEN", value_name = "ADDR")]
    pub listen: Option<SocketAddr>,
    /// Admin listener: health and metrics [default: 127.0.0.1:9090]; other than loopback needs an admin token
    #[arg(long, env = "WEIR_ADMIN", value_name = "ADDR")]
    pub admin: Option<SocketAddr>,
    /// Token that the admin listener asks for (Bearer, or the Basic password)
    #[arg(long, env = "WEIR_ADMIN_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    pub admin_token: Option<String>,
    /// File that holds the admin token
    #[arg(long, env = "WEIR_ADMIN_TOKEN_FILE", value_name = "FILE")]
    pub admin_token_file: Option<PathBuf>,
    /// Key for uploads and deletes (Bearer, or the Basic password) [default: generated once, in state_dir]
    #[arg(long, env = "WEIR_WRITE_KEY", value_name = "KEY", hide_env_values = true)]
    pub write_key: Option<String>,
    /// File that holds the write key
    #[arg(long, env = "WEIR_WRITE_KEY_FILE", value_name = "FILE")]
    pub write_key_file: Option<PathBuf>,
    /// Log levels, by module if wanted: warn, info,weir::net=debug [default: info]
    #[arg(long, env = "WEIR_LOG", value_name = "LEVELS")]
    pub log: Option<String>,
    /// Log lines as text or as JSON [default: text]
    #[arg(long, env = "WEIR_LOG_FORMAT", value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
    /// Cores that serve, each with a runtime and a listener of its own; 0 means all [default: 0]
    #[arg(long, env = "WEIR_CORES", value_name = "N")]
    pub cores: Option<usize>,
    /// Pin each core's thread to its CPU [default: false]
    #[arg(long, env = "WEIR_PIN", value_name = "BOOL")]
    pub pin: Option<bool>,
    /// Open connections at most; one more is answered 503 [default: 16384]
    #[arg(long, env = "WEIR_CONNECTIONS_MAX", value_name = "N")]
    pub connections_max: Option<usize>,
    /// Requests per second of one peer address; more is answered 429; 0 is no limit [default: 0]
    #[arg(long, env = "WEIR_PEER_REQUESTS_PER_SECOND", value_name = "N")]
    pub peer_requests_per_second: Option<u32>,
    /// Size of a request's head at most; more is answered 431 [default: 32 KiB]
    #[arg(long, env = "WEIR_HEAD_BYTES_MAX", value_name = "SIZE")]
    pub head_bytes_max: Option<ByteSize>,
    /// Time from the first byte of a request's head to its last [default: 10 s]
    #[arg(long, env = "WEIR_HEAD_TIME", value_name = "TIME")]
    pub head_time: Option<Span>,
    /// How long a keep-alive connection may wait for its next request [default: 75 s]
    #[arg(long, env = "WEIR_IDLE_TIME", value_name = "TIME")]
    pub idle_time: Option<Span>,
    /// A peer that takes, or sends, no byte of a body for this long is dropped [default: 30 s]
    #[arg(long, env = "WEIR_STALL_LIMIT", value_name = "TIME")]
    pub stall_limit: Option<Span>,
    /// How long responses in flight may take to finish after SIGTERM [default: 30 s]
    #[arg(long, env = "WEIR_DRAIN_LIMIT", value_name = "TIME")]
    pub drain_limit: Option<Span>,
    /// Origin that other sites' pages may read from (CORS); * is any, an empty one turns it off [default: *]
    #[arg(long, env = "WEIR_CORS_ORIGIN", value_name = "ORIGIN")]
    pub cors_origin: Option<String>,
    /// Tell in Server-Timing where each answer's time went [default: false]
    #[arg(long, env = "WEIR_SERVER_TIMING", value_name = "BOOL")]
    pub server_timing: Option<bool>,
    /// Size of an upload at most; more is answered 413 [default: 64 GiB]
    #[arg(long, env = "WEIR_UPLOAD_BYTES_MAX", value_name = "SIZE")]
    pub upload_bytes_max: Option<ByteSize>,
    /// Free space that uploads leave on the library's disk; else 507 [default: 256 MiB]
    #[arg(long, env = "WEIR_SPACE_RESERVE", value_name = "SIZE")]
    pub space_reserve: Option<ByteSize>,
    /// An upload in parts that nobody continues for this long is removed [default: 24 h]
    #[arg(long, env = "WEIR_UPLOAD_EXPIRY", value_name = "TIME")]
    pub upload_expiry: Option<Span>,
    /// Scan the library this often instead of watching it; 0 watches, and polls where it cannot [default: 0]
    #[arg(long, env = "WEIR_POLL_INTERVAL", value_name = "TIME")]
    pub poll_interval: Option<Span>,
    /// Memory and mappings for opened indexes [default: 256 MiB]
    #[arg(long, env = "WEIR_INDEX_BYTES_MAX", value_name = "SIZE")]
    pub index_bytes_max: Option<ByteSize>,
    /// How much of a live stream can be read back, in time [default: 60 s]
    #[arg(long, env = "WEIR_WINDOW_SECONDS", value_name = "TIME")]
    pub window_seconds: Option<Span>,
    /// How much of a live stream is kept in memory; the rest is read from the recording [default: 256 MiB]
    #[arg(long, env = "WEIR_WINDOW_BYTES", value_name = "SIZE")]
    pub window_bytes: Option<ByteSize>,
    /// Memory of all live streams together; beyond it each keeps its share [default: 4 GiB]
    #[arg(long, env = "WEIR_LIVE_BYTES_MAX", value_name = "SIZE")]
    pub live_bytes_max: Option<ByteSize>,
    /// How long a segment of a live stream should be; 1 s to 60 s [default: 4 s]
    #[arg(long, env = "WEIR_SEGMENT_TARGET", value_name = "TIME")]
    pub segment_target: Option<Span>,
    /// Longest part of a segment; 50 ms to a third of segment_target [default: 500 ms]
    #[arg(long, env = "WEIR_PART_TARGET", value_name = "TIME")]
    pub part_target: Option<Span>,
    /// How long a publisher may be gone before its stream ends [default: 10 s]
    #[arg(long, env = "WEIR_RECONNECT_WINDOW", value_name = "TIME")]
    pub reconnect_window: Option<Span>,
    /// A second publisher takes a stream over instead of being answered 409 [default: false]
    #[arg(long, env = "WEIR_TAKEOVER", value_name = "BOOL")]
    pub takeover: Option<bool>,
    /// How long the first track of a stream waits for others that come on requests of their own [default: 2 s]
    #[arg(long, env = "WEIR_TRACK_WAIT", value_name = "TIME")]
    pub track_wait: Option<Span>,
    /// Parts of a live stream are collected this long and sent together; 0 sends each at once [default: 0]
    #[arg(long, env = "WEIR_MERGE_WRITE", value_name = "TIME")]
    pub merge_write: Option<Span>,
    /// How often a viewer may fall out of the window before its body is ended [default: 8]
    #[arg(long, env = "WEIR_LAGS_MAX", value_name = "N")]
    pub lags_max: Option<u32>,
    /// Live streams at most; one more is answered 503 [default: 256]
    #[arg(long, env = "WEIR_STREAMS_MAX", value_name = "N")]
    pub streams_max: Option<usize>,
    /// Record live streams into the library [default: true]
    #[arg(long, env = "WEIR_RECORD", value_name = "BOOL")]
    pub record: Option<bool>,
    /// A recording is synced at the first keyframe after this much media [default: 500 ms]
    #[arg(long, env = "WEIR_RECORD_SYNC", value_name = "TIME")]
    pub record_sync: Option<Span>,
    /// Recordings are deleted when they are this old; 0 keeps them [default: 0]
    #[arg(long, env = "WEIR_RECORD_MAX_AGE", value_name = "TIME")]
    pub record_max_age: Option<Span>,
    /// The oldest recordings are deleted when all of them take more room than this; 0 is no limit [default: 0]
    #[arg(long, env = "WEIR_RECORD_MAX_BYTES", value_name = "SIZE")]
    pub record_max_bytes: Option<ByteSize>,
    /// A TCP port that publishes a stream, as cam=127.0.0.1:9000; may be repeated [default: none]
    #[arg(long, env = "WEIR_TCP", value_name = "NAME=ADDR", value_delimiter = ',')]
    pub tcp: Option<Vec<TcpStream>>,
    /// A TCP port where publishers begin with a line: PUBLISH name key [default: none]
    #[arg(long, env = "WEIR_TCP_PREAMBLE", value_name = "ADDR")]
    pub tcp_preamble: Option<SocketAddr>,
    /// Let tcp listen on other addresses than loopback, where whoever connects may publish [default: false]
    #[arg(long, env = "WEIR_TCP_PUBLIC", value_name = "BOOL")]
    pub tcp_public: Option<bool>,
    /// Components to initialise in the background once the listeners are up, instead of at their first use; may be
    /// repeated [default: none]
    #[arg(long, env = "WEIR_WARM", value_name = "NAME", value_delimiter = ',')]
    pub warm: Option<Vec<String>>,
    /// Release components that nobody has used for this long; 0 keeps them [default: 0]
    #[arg(long, env = "WEIR_IDLE_RELEASE", value_name = "TIME")]
    pub idle_release: Option<Span>,
    /// Percent of the machine's CPU that the server may use when it is asked to run a benchmark; above, it answers 503
    /// [default: 25]
    #[arg(long, env = "WEIR_BENCH_LOAD_MAX", value_name = "PERCENT")]
    pub bench_load_max: Option<u32>,
    /// Threads that wait for the disk on behalf of viewers [default: 8]
    #[arg(long, env = "WEIR_READ_THREADS", value_name = "N")]
    pub read_threads: Option<usize>,
    /// Threads that decode still frames and uploaded images [default: 2]
    #[arg(long, env = "WEIR_FRAME_THREADS", value_name = "N")]
    pub frame_threads: Option<usize>,
    /// Pictures that may wait for such a thread; one more is answered 503 [default: 256]
    #[arg(long, env = "WEIR_FRAME_QUEUE_MAX", value_name = "N")]
    pub frame_queue_max: Option<usize>,
    /// How long the decoding of one frame may take; longer is answered 503 [default: 10 s]
    #[arg(long, env = "WEIR_FRAME_TIME", value_name = "TIME")]
    pub frame_time: Option<Span>,
    /// Memory for the decoding of one frame, and coded bytes that are read for it; more is answered 422
    /// [default: 512 MiB]
    #[arg(long, env = "WEIR_FRAME_BYTES_MAX", value_name = "SIZE")]
    pub frame_bytes_max: Option<ByteSize>,
    /// Pixels of a picture or an uploaded image at most; more is answered 422 [default: 40000000]
    #[arg(long, env = "WEIR_FRAME_PIXELS_MAX", value_name = "N")]
    pub frame_pixels_max: Option<u64>,
    /// Memory for still frames that were made before [default: 64 MiB]
    #[arg(long, env = "WEIR_FRAME_CACHE_BYTES", value_name = "SIZE")]
    pub frame_cache_bytes: Option<ByteSize>,
    /// Size of an image sent to /adjust or /enhance at most; more is answered 413 [default: 32 MiB]
    #[arg(long, env = "WEIR_IMAGE_BYTES_MAX", value_name = "SIZE")]
    pub image_bytes_max: Option<ByteSize>,
}
