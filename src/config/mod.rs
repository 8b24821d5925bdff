//! Configuration: what the user typed ([`Settings`]) and what it resolves to ([`Config`]).
//!
//! Flags, `WEIR_*` variables and keys of the config file are one set, with that precedence. Only this directory
//! knows defaults; `config/weir.toml` shows every key, and a test holds it against [`Config::default`].

pub mod settings;
pub mod tcp;
pub mod units;

pub use settings::Settings;

use serde::Deserialize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tcp::TcpStream;
use units::{ByteSize, Span};

/// The names that may stand in `warm`; a test holds them against the components that a server has.
pub const COMPONENTS: &[&str] = &[
    "adjust",
    #[cfg(feature = "av1")]
    "av1",
    "benchmarks",
    "dashboard",
    "enhance",
    "enhancer",
    "flame graphs",
    "frame",
    "h264",
    "hevc",
    "jpeg",
    "recordings",
    "symboliser",
];

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Text,
    Json,
}

/// A resolved configuration: every value is there and was checked once.
#[derive(Clone, PartialEq, Eq)]
pub struct Config {
    pub library: PathBuf,
    pub state_dir: PathBuf,
    pub listen: SocketAddr,
    pub admin: SocketAddr,
    pub admin_token: Option<String>,
    pub write_key: Option<String>,
    pub log: String,
    pub log_format: LogFormat,
    pub cores: usize,
    pub pin: bool,
    pub connections_max: usize,
    pub peer_requests_per_second: u32,
    pub head_bytes_max: ByteSize,
    pub head_time: Span,
    pub idle_time: Span,
    pub stall_limit: Span,
    pub drain_limit: Span,
    pub cors_origin: String,
    pub server_timing: bool,
    pub upload_bytes_max: ByteSize,
    pub space_reserve: ByteSize,
    pub upload_expiry: Span,
    pub poll_interval: Span,
    pub index_bytes_max: ByteSize,
    pub window_seconds: Span,
    pub window_bytes: ByteSize,
    pub live_bytes_max: ByteSize,
    pub segment_target: Span,
    pub part_target: Span,
    pub reconnect_window: Span,
    pub takeover: bool,
    pub track_wait: Span,
    pub merge_write: Span,
    pub lags_max: u32,
    pub streams_max: usize,
    pub record: bool,
    pub record_sync: Span,
    pub record_max_age: Span,
    pub record_max_bytes: ByteSize,
    pub tcp: Vec<TcpStream>,
    pub tcp_preamble: Option<SocketAddr>,
    pub tcp_public: bool,
    pub warm: Vec<String>,
    pub idle_release: Span,
    /// Percent.
    pub bench_load_max: u32,
    pub read_threads: usize,
    pub frame_threads: usize,
    pub frame_queue_max: usize,
    pub frame_time: Span,
    pub frame_bytes_max: ByteSize,
    pub frame_pixels_max: u64,
    pub frame_cache_bytes: ByteSize,
    pub image_bytes_max: ByteSize,
}

/// What is wrong with a configuration: where it stands and what is allowed.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read {path}: {error}")]
    Read { path: PathBuf, error: std::io::Error },
    #[error("{path}: {error}{hint}")]
    Parse { path: PathBuf, error: Box<toml::de::Error>, hint: String },
    #[error("{path}, line {line}: {error}")]
    At { path: PathBuf, line: usize, error: Box<ConfigError> },
    #[error("{key}: {problem}")]
    Value { key: &'static str, problem: String },
}

impl Default for Config {
    fn default() -> Self {
        Self {
            library: PathBuf::from("."),
            state_dir: default_state_dir(),
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            admin: SocketAddr::from(([127, 0, 0, 1], 9090)),
            admin_token: None,
            write_key: None,
            log: "info".to_owned(),
            log_format: LogFormat::Text,
            cores: 0,
            pin: false,
            connections_max: 16_384,
            peer_requests_per_second: 0,
            head_bytes_max: ByteSize(32 << 10),
            head_time: Span::from_secs(10),
            idle_time: Span::from_secs(75),
            stall_limit: Span::from_secs(30),
            drain_limit: Span::from_secs(30),
            cors_origin: "*".to_owned(),
            server_timing: false,
            upload_bytes_max: ByteSize(64 << 30),
            space_reserve: ByteSize(256 << 20),
            upload_expiry: Span::from_secs(24 * 3600),
            poll_interval: Span::from_secs(0),
            index_bytes_max: ByteSize(256 << 20),
            window_seconds: Span::from_secs(60),
            window_bytes: ByteSize(256 << 20),
            live_bytes_max: ByteSize(4 << 30),
            segment_target: Span::from_secs(4),
            part_target: Span::from_millis(500),
            reconnect_window: Span::from_secs(10),
            takeover: false,
            track_wait: Span::from_secs(2),
            merge_write: Span::from_secs(0),
            lags_max: 8,
            streams_max: 256,
            record: true,
            record_sync: Span::from_millis(500),
            record_max_age: Span::from_secs(0),
            record_max_bytes: ByteSize(0),
            tcp: Vec::new(),
            tcp_preamble: None,
            tcp_public: false,
            warm: Vec::new(),
            idle_release: Span::from_secs(0),
            bench_load_max: 25,
            read_threads: 8,
            frame_threads: 2,
            frame_queue_max: 256,
            frame_time: Span::from_secs(10),
            frame_bytes_max: ByteSize(512 << 20),
            frame_pixels_max: 40_000_000,
            frame_cache_bytes: ByteSize(64 << 20),
            image_bytes_max: ByteSize(32 << 20),
        }
    }
}

/// The state directory of a service manager, of the user, or one in the current directory.
fn default_state_dir() -> PathBuf {
    let variable = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    if let Some(given) = variable("STATE_DIRECTORY") {
        return given;
    }
    match (variable("XDG_STATE_HOME"), variable("HOME")) {
        (Some(state), _) => state.join("weir"),
        (None, Some(home)) => home.join(".local/state/weir"),
        (None, None) => PathBuf::from("weir-state"),
    }
}

impl Settings {
    /// Reads the keys of a config file; an unknown key or a wrong type names line and key, and what the key is.
    fn from_text(text: &str, path: &Path) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|error: toml::de::Error| {
            let line = error.span().and_then(|span| text.get(..span.start)).map_or(0, |before| before.lines().count());
            let written = text.lines().nth(line.saturating_sub(1)).unwrap_or_default();
            let hint = hint(written.split('=').next().unwrap_or_default().trim());
            ConfigError::Parse { path: path.to_owned(), error: Box::new(error), hint }
        })
    }

    /// Resolves flags and variables (`self`) over the keys of a file, if there is one, over the defaults. A value that
    /// is wrong in the file is reported with its line.
    pub fn load(self, file: Option<&Path>) -> Result<Config, ConfigError> {
        let Some(path) = file else { return self.resolve(Self::default()) };
        let text = std::fs::read_to_string(path).map_err(|error| ConfigError::Read { path: path.to_owned(), error })?;
        let file = Self::from_text(&text, path)?;
        self.resolve(file.clone()).map_err(|error| {
            let ConfigError::Value { key, .. } = &error else { return error };
            // With the file alone it is wrong too: then the flags are not to blame.
            let is_of_file =
                matches!(Self::default().resolve(file), Err(ConfigError::Value { key: k, .. }) if k == *key);
            match line_of(&text, key).filter(|_| is_of_file) {
                Some(line) => ConfigError::At { path: path.to_owned(), line, error: Box::new(error) },
                None => error,
            }
        })
    }

    /// Resolves flags and variables (`self`) over a file's keys over the defaults.
    pub fn resolve(self, file: Self) -> Result<Config, ConfigError> {
        let defaults = Config::default();
        macro_rules! pick {
            ($($key:ident),* $(,)?) => {
                Config {
                    $($key: self.$key.clone().or_else(|| file.$key.clone()).unwrap_or(defaults.$key),)*
                    tcp_preamble: self.tcp_preamble.or(file.tcp_preamble),
                    admin_token: secret("admin_token", [
                        (&self.admin_token, &self.admin_token_file), (&file.admin_token, &file.admin_token_file)])?,
                    write_key: secret("write_key", [
                        (&self.write_key, &self.write_key_file), (&file.write_key, &file.write_key_file)])?,
                }
            };
        }
        let config = pick!(
            library,
            state_dir,
            listen,
            admin,
            log,
            log_format,
            cores,
            pin,
            connections_max,
            peer_requests_per_second,
            head_bytes_max,
            head_time,
            idle_time,
            stall_limit,
            drain_limit,
            cors_origin,
            server_timing,
            upload_bytes_max,
            space_reserve,
            upload_expiry,
            poll_interval,
            index_bytes_max,
            window_seconds,
            window_bytes,
            live_bytes_max,
            segment_target,
            part_target,
            reconnect_window,
            takeover,
            track_wait,
            merge_write,
            lags_max,
            streams_max,
            record,
            record_sync,
            record_max_age,
            record_max_bytes,
            tcp,
            tcp_public,
            warm,
            idle_release,
            bench_load_max,
            read_threads,
            frame_threads,
            frame_queue_max,
            frame_time,
            frame_bytes_max,
            frame_pixels_max,
            frame_cache_bytes,
            image_bytes_max,
        );
        config.check()?;
        Ok(config)
    }
}

/// What a key is and may be, in the words of `--help`, on a line of its own; empty for what is no key.
fn hint(key: &str) -> String {
    let command = <Settings as clap::Args>::augment_args(clap::Command::new("weir"));
    let help = command.get_arguments().find(|argument| argument.get_id() == key).and_then(clap::Arg::get_help);
    help.map(|help| format!("\n{key}: {help}")).unwrap_or_default()
}

/// The line, from 1, on which a key or its `_file` twin is set.
fn line_of(text: &str, key: &str) -> Option<usize> {
    let sets = |line: &str| {
        let name = line.split('=').next().unwrap_or_default().trim();
        line.contains('=') && name.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest == "_file")
    };
    text.lines().position(sets).map(|line| line + 1)
}

/// A secret given directly or by file; the earlier source wins, and within one source only one of the two may stand.
fn secret(key: &'static str, sources: [(&Option<String>, &Option<PathBuf>); 2]) -> Result<Option<String>, ConfigError> {
    for (value, path) in sources {
        let found = match (value, path) {
            (Some(_), Some(_)) => {
                let problem = format!("given twice: as {key} and as {key}_file; keep one of them");
                return Err(ConfigError::Value { key, problem });
            }
            (Some(value), None) => value.clone(),
            (None, Some(path)) => std::fs::read_to_string(path)
                .map_err(|error| ConfigError::Read { path: path.clone(), error })?
                .trim()
                .to_owned(),
            (None, None) => continue,
        };
        if found.is_empty() {
            return Err(ConfigError::Value { key, problem: "is empty; leave it out to have none".to_owned() });
        }
        // It must fit a header field in both schemes.
        if !found.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(ConfigError::Value { key, problem: "printable ASCII characters without spaces".to_owned() });
        }
        return Ok(Some(found));
    }
    Ok(None)
}

impl Config {
    fn check(&self) -> Result<(), ConfigError> {
        let wrong = |key, problem: &str| Err(ConfigError::Value { key, problem: problem.to_owned() });
        if !self.admin.ip().is_loopback() && self.admin_token.is_none() {
            return wrong("admin", "an address other than loopback needs an admin_token (or admin_token_file)");
        }
        if self.listen == self.admin && self.listen.port() != 0 {
            return wrong("admin", "the same address as listen; the admin listener needs one of its own");
        }
        if self.cores > 1024 {
            return wrong("cores", "0 (all) to 1024");
        }
        if self.connections_max == 0 {
            return wrong("connections_max", "at least 1");
        }
        if !(1..=256).contains(&self.read_threads) {
            return wrong("read_threads", "1 to 256");
        }
        if !(1..=256).contains(&self.frame_threads) {
            return wrong("frame_threads", "1 to 256");
        }
        if !(1 << 10..=1 << 20).contains(&self.head_bytes_max.0) {
            return wrong("head_bytes_max", "1 KiB to 1 MiB");
        }
        for (key, span) in
            [("head_time", self.head_time), ("idle_time", self.idle_time), ("stall_limit", self.stall_limit)]
        {
            if span.0.is_zero() {
                return wrong(key, "longer than 0");
            }
        }
        let (segment, part) = (self.segment_target.0, self.part_target.0);
        if !(Duration::from_secs(1)..=Duration::from_secs(60)).contains(&segment) {
            return wrong("segment_target", "1 s to 60 s");
        }
        if !(Duration::from_millis(50)..=segment / 3).contains(&part) {
            return wrong("part_target", "50 ms to a third of segment_target");
        }
        if !self.tcp_public && self.tcp.iter().any(|stream| !stream.address.ip().is_loopback()) {
            return wrong("tcp", "an address other than loopback lets anybody publish: tcp_public = true allows it");
        }
        if let Some(unknown) = self.warm.iter().find(|name| !COMPONENTS.contains(&name.as_str())) {
            return wrong("warm", &format!("there is no component {unknown}; there are {}", COMPONENTS.join(", ")));
        }
        let origin = self.cors_origin.as_str();
        let is_origin = origin.starts_with("http://") || origin.starts_with("https://");
        if !(origin.is_empty() || origin == "*" || is_origin && origin.bytes().all(|b| b.is_ascii_graphic())) {
            return wrong("cors_origin", "*, an origin like https://example.org, or empty to turn CORS off");
        }
        if let Err(error) = self.log.parse::<tracing_subscriber::EnvFilter>() {
            let problem = format!("{error}; examples: warn, info,weir::net=debug");
            return Err(ConfigError::Value { key: "log", problem });
        }
        Ok(())
    }

    /// Cores that serve.
    pub fn core_count(&self) -> usize {
        match self.cores {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n,
        }
    }
}

/// Secrets are never shown.
impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field("library", &self.library)
            .field("state_dir", &self.state_dir)
            .field("listen", &self.listen)
            .field("admin", &self.admin)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Settings {
        toml::from_str(text).expect("valid settings")
    }

    #[test]
    fn flags_win_over_file_over_defaults() {
        let flags = settings("cores = 3");
        let file = settings("cores = 2\nidle_time = \"5 s\"");
        let config = flags.resolve(file).expect("valid");
        assert_eq!(config.cores, 3);
        assert_eq!(config.idle_time, Span::from_secs(5));
        assert_eq!(config.stall_limit, Config::default().stall_limit);
    }

    #[test]
    fn the_shipped_file_shows_every_key_with_its_default() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/weir.toml");
        let text = std::fs::read_to_string(&path).expect("the file is in the tree");
        // Keys without a fixed default (secrets, state_dir) stand there commented out; uncommented they must parse.
        let all: String = text.lines().map(|l| l.strip_prefix("#: ").unwrap_or(l)).flat_map(|l| [l, "\n"]).collect();
        let table: toml::Table = toml::from_str(&all).expect("a table");
        let command = <Settings as clap::Args>::augment_args(clap::Command::new("weir"));
        let mut keys: Vec<String> = command.get_arguments().map(|a| a.get_id().to_string()).collect();
        let mut shown: Vec<String> = table.keys().cloned().collect();
        keys.retain(|key| key != "Settings");
        keys.sort();
        shown.sort();
        assert_eq!(keys, shown);
        let config = Settings::default().resolve(settings(&text)).expect("valid");
        assert_eq!(config, Config::default());
    }

    #[test]
    fn errors_name_the_line_the_key_and_what_is_allowed() {
        let unknown = toml::from_str::<Settings>("library = \"x\"\nlisten_on = 1").expect_err("unknown key");
        let text = unknown.to_string();
        assert!(text.contains("line 2") && text.contains("listen_on"), "{text}");
        let size = toml::from_str::<Settings>("upload_bytes_max = \"many\"").expect_err("no size").to_string();
        assert!(size.contains("line 1") && size.contains("64 MiB"), "{size}");
        let admin = settings("admin = \"0.0.0.0:9090\"").resolve(Settings::default()).expect_err("needs a token");
        assert!(admin.to_string().contains("admin_token"), "{admin}");
    }

    #[test]
    fn a_wrong_value_is_found_in_the_file_or_among_the_flags() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "# limits\n\nconnections_max = 0\n").expect("written");
        let load = |flags: &str| settings(flags).load(Some(file.path())).expect_err("wrong").to_string();
        let text = load("");
        let expected = format!("{}, line 3: connections_max: at least 1", file.path().display());
        assert_eq!(text, expected);
        std::fs::write(file.path(), "connections_max = 5\n").expect("written");
        assert_eq!(load("connections_max = 0"), "connections_max: at least 1");
        std::fs::write(file.path(), "\nlisten = 5\n").expect("written");
        let text = load("");
        assert!(text.contains("line 2") && text.contains("\nlisten: Media listener"), "{text}");
        std::fs::write(file.path(), "write_key = \"two words\"\n").expect("written");
        let text = load("");
        assert!(text.ends_with("line 1: write_key: printable ASCII characters without spaces"), "{text}");
    }

    #[test]
    fn a_secret_stands_once_and_may_come_from_a_file() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "s3cret\n").expect("written");
        let flags = Settings { write_key_file: Some(file.path().to_owned()), ..Settings::default() };
        let config = flags.clone().resolve(settings("write_key = \"other\"")).expect("valid");
        assert_eq!(config.write_key.as_deref(), Some("s3cret"));
        let both = Settings { write_key: Some("x".to_owned()), ..flags };
        assert!(both.resolve(Settings::default()).is_err());
    }
}
