//! All streams by name. A stream appears when somebody publishes it, and goes some time after it has ended.

use super::memory::Memory;
use super::numbers::Keeper;
use super::publication::Publication;
use super::resource::Resource;
use super::stream::{PublishError, Stream};
use super::window::Bounds;
use crate::media::cadence::Targets;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// What [`is_name`] holds names to, for people.
pub const NAME_RULE: &str = "a stream's name is a letter or digit, then up to 127 letters, digits, '.', '_' or '-'";
/// Names of routes below `/live/{name}`, which are no names of tracks or streams.
const RESERVED: [&str; 4] = ["stream", "file", "index.m3u8", "master.m3u8"];
/// Longest name of a stream.
const NAME_BYTES_MAX: usize = 128;

/// Whether a stream may be called this.
pub fn is_name(name: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let first = name.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric);
    first
        && name.len() <= NAME_BYTES_MAX
        && name.bytes().all(legal)
        && !RESERVED.contains(&name)
        && Resource::parse(name).is_none()
}

/// How streams behave; all of it is configuration.
#[derive(Clone, Copy, Debug)]
pub struct LiveConfig {
    pub window: Bounds,
    pub targets: Targets,
    pub streams_max: usize,
    /// Bytes of all windows together.
    pub memory_max: u64,
    /// How long a publisher may be gone before its stream ends.
    pub reconnect_window: Duration,
    /// Whether a publisher may take a stream from another one.
    pub takeover: bool,
    /// A viewer that fell out of the window more often than this is ended.
    pub lags_max: u32,
}

/// How long a stream that has ended can still be asked for, at least.
const ENDED_KEPT: Duration = Duration::from_secs(60);

/// Told of every new stream, before its first part.
type OnNew = Box<dyn Fn(&Arc<Stream>) + Send + Sync>;

pub struct Streams {
    config: LiveConfig,
    keeper: Arc<dyn Keeper>,
    memory: Arc<Memory>,
    on_new: OnceLock<OnNew>,
    by_name: Mutex<BTreeMap<String, Arc<Stream>>>,
}

impl Streams {
    pub fn new(config: LiveConfig, keeper: Arc<dyn Keeper>) -> Self {
        let memory = Arc::new(Memory::new(config.memory_max));
        Self { config, keeper, memory, on_new: OnceLock::new(), by_name: Mutex::default() }
    }

    /// Has `told` called for every stream from now on. It must not block. Only the first call counts.
    pub fn on_new(&self, told: impl Fn(&Arc<Stream>) + Send + Sync + 'static) {
        let _ = self.on_new.set(Box::new(told));
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Stream>>> {
        self.by_name.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The memory of all windows.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// How long parts and segments are, of every stream.
    pub fn targets(&self) -> Targets {
        self.config.targets
    }

    /// Whether a publisher may take a stream from another one.
    pub fn allows_takeover(&self) -> bool {
        self.config.takeover
    }

    /// All streams, sorted by name.
    pub fn list(&self) -> Vec<Arc<Stream>> {
        self.lock().values().cloned().collect()
    }

    pub fn get(&self, name: &str) -> Option<Arc<Stream>> {
        self.lock().get(name).cloned()
    }

    /// Takes a stream for one publication, making it if it is not there or has ended.
    pub fn publish(&self, name: &str, address: SocketAddr) -> Result<Publication, PublishError> {
        let mut streams = self.lock();
        if let Some(stream) = streams.get(name) {
            match stream.publish(address, self.config.takeover) {
                Err(PublishError::Ended) => {}
                outcome => return outcome,
            }
        }
        if !streams.contains_key(name) && streams.len() >= self.config.streams_max {
            // Those that ended make room.
            streams.retain(|_, stream| !stream.ended_for(Duration::ZERO));
        }
        if !streams.contains_key(name) && streams.len() >= self.config.streams_max {
            return Err(PublishError::TooMany { max: self.config.streams_max });
        }
        let stream = Stream::new(name.to_owned(), self.config, Arc::clone(&self.keeper), Arc::clone(&self.memory));
        if let Some(told) = self.on_new.get() {
            told(&stream);
        }
        streams.insert(name.to_owned(), Arc::clone(&stream));
        stream.publish(address, false)
    }

    /// Ends a stream; false when there is none.
    pub fn end(&self, name: &str) -> bool {
        let Some(stream) = self.get(name) else { return false };
        stream.end();
        true
    }

    /// Ends streams whose publisher stayed away, and forgets what ended long ago. Called every now and then.
    pub fn tidy(&self) {
        for stream in self.list() {
            stream.end_if_left(self.config.reconnect_window);
        }
        let window = Duration::from_micros(u64::try_from(self.config.window.duration_us).unwrap_or(0));
        let kept = ENDED_KEPT.max(window);
        self.lock().retain(|_, stream| !stream.ended_for(kept));
    }

    /// Ends all of them: the server drains.
    pub fn end_all(&self) {
        self.list().iter().for_each(|stream| stream.end());
    }
}
