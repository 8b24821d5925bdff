//! Starts the real `weir serve` on free ports with directories of its own, keeps its log, ends it on drop and fails the
//! test when the log holds a warning, an error or a panic that the test did not announce.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::client::{self, Response};

pub const WRITE_KEY: &str = "correct-horse-battery-staple";
const START_LIMIT: Duration = Duration::from_secs(30);

#[derive(Default)]
struct Log {
    text: String,
    media: Option<SocketAddr>,
    admin: Option<SocketAddr>,
    open_pipes: usize,
}

type SharedLog = Arc<(Mutex<Log>, Condvar)>;

/// A server to be: directories, arguments and what its log may hold.
pub struct Builder {
    dirs: TempDir,
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
    allowed: Vec<&'static str>,
}

impl Builder {
    pub fn new() -> Self {
        let dirs = tempfile::Builder::new().prefix("weir-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        std::fs::create_dir(dirs.path().join("library")).unwrap();
        std::fs::create_dir(dirs.path().join("state")).unwrap();
        Self { dirs, arguments: Vec::new(), variables: Vec::new(), allowed: Vec::new() }
    }

    /// Copies a file into the library. A copy, not a link: links would change the inode's ctime under other tests.
    pub fn video(self, source: &Path, id: &str) -> Self {
        let target = self.dirs.path().join("library").join(id);
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        let status = Command::new("cp").args(["--reflink=auto", "--sparse=auto"]).args([source, &target]).status();
        assert!(status.unwrap().success(), "cp {} failed", source.display());
        self
    }

    pub fn bytes(self, id: &str, content: &[u8]) -> Self {
        let target = self.dirs.path().join("library").join(id);
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::write(target, content).unwrap();
        self
    }

    pub fn library(&self) -> PathBuf {
        self.dirs.path().join("library")
    }

    pub fn argument(mut self, name: &str, value: &str) -> Self {
        self.arguments.extend([name.to_owned(), value.to_owned()]);
        self
    }

    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Warnings and errors that contain `text` are expected in this test.
    pub fn allow(mut self, text: &'static str) -> Self {
        self.allowed.push(text);
        self
    }

    pub fn start(self) -> Server {
        let log = SharedLog::default();
        let child = spawn(&self, &log);
        let mut server = Server { setup: self, child, log, media: unset(), admin: unset(), ended: None };
        server.await_addresses();
        server
    }
}

fn unset() -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], 0))
}

fn spawn(setup: &Builder, log: &SharedLog) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("WEIR_")) {
        command.env_remove(name);
    }
    let mut child = command
        .arg("serve")
        .arg("--library")
        .arg(setup.dirs.path().join("library"))
        .arg("--state-dir")
        .arg(setup.dirs.path().join("state"))
        .args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
        .args(&setup.arguments)
        .env("WEIR_WRITE_KEY", WRITE_KEY)
        .env("NO_COLOR", "1")
        .envs(setup.variables.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the weir binary starts");
    log.0.lock().unwrap().open_pipes += 2;
    follow(child.stdout.take().unwrap(), log.clone());
    follow(child.stderr.take().unwrap(), log.clone());
    child
}

/// Collects a pipe's lines and picks the addresses out of them.
fn follow(pipe: impl Read + Send + 'static, log: SharedLog) {
    std::thread::spawn(move || {
        let mut reader = BufReader::new(pipe);
        let mut line = Vec::new();
        loop {
            line.clear();
            let end = !matches!(reader.read_until(b'\n', &mut line), Ok(n) if n > 0);
            let text = String::from_utf8_lossy(&line);
            let (state, changed) = &*log;
            let mut state = state.lock().unwrap();
            if end {
                state.open_pipes -= 1;
                changed.notify_all();
                return;
            }
            state.text.push_str(&text);
            let address =
                |prefix: &str| text.trim().strip_prefix(prefix).and_then(|a| a.trim_end_matches('/').parse().ok());
            if let Some(media) = address("listening on http://") {
                state.media = Some(media);
            }
            if let Some(admin) = address("admin on http://") {
                state.admin = Some(admin);
            }
            changed.notify_all();
        }
    });
}

/// A running server. Dropping it kills it and judges its log.
pub struct Server {
    setup: Builder,
    child: Child,
    log: SharedLog,
    pub media: SocketAddr,
    pub admin: SocketAddr,
    ended: Option<ExitStatus>,
}

impl Server {
    pub fn builder() -> Builder {
        Builder::new()
    }

    fn await_addresses(&mut self) {
        let deadline = Instant::now() + START_LIMIT;
        let (state, changed) = &*self.log;
        let mut state = state.lock().unwrap();
        loop {
            if let (Some(media), Some(admin)) = (state.media, state.admin) {
                (self.media, self.admin) = (media, admin);
                return;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let dead = state.open_pipes == 0;
            if left.is_zero() || dead {
                let text = state.text.clone();
                drop(state); // not poisoned by the panic: the drop of the server reads it
                panic!("weir printed no addresses; its output:\n{text}");
            }
            state = changed.wait_timeout(state, left).unwrap().0;
        }
    }

    pub fn library(&self) -> PathBuf {
        self.setup.dirs.path().join("library")
    }

    pub fn state_dir(&self) -> PathBuf {
        self.setup.dirs.path().join("state")
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn log(&self) -> String {
        self.log.0.lock().unwrap().text.clone()
    }

    /// GET on the media listener, on a connection of its own.
    pub fn get(&self, target: &str) -> Response {
        client::request(self.media, "GET", target, &[], b"")
    }

    pub fn request(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        client::request(self.media, method, target, headers, body)
    }

    pub fn admin_get(&self, target: &str) -> Response {
        client::request(self.admin, "GET", target, &[], b"")
    }

    /// The value of a metric without labels, or the sum over its labels.
    pub fn metric(&self, name: &str) -> f64 {
        let response = self.admin_get("/metrics");
        assert_eq!(response.status, 200, "/metrics: {response:?}");
        let text = response.text();
        let values: Vec<f64> = text
            .lines()
            .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{'])))
            .filter_map(|line| line.rsplit(' ').next()?.parse().ok())
            .collect();
        assert!(!values.is_empty(), "no metric {name} in\n{text}");
        values.iter().sum()
    }

    /// The server still answers: called after every attack on it.
    pub fn assert_alive(&mut self, after: &str) {
        if let Ok(Some(status)) = self.child.try_wait() {
            panic!("weir ended with {status} after {after}; its output:\n{}", self.log());
        }
        assert_eq!(self.admin_get("/healthz").status, 200, "/healthz after {after}");
        assert_eq!(self.get("/videos").status, 200, "/videos after {after}");
    }

    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status().unwrap();
        assert!(status.success(), "kill -{name} failed");
    }

    pub fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().unwrap() {
                self.ended = Some(status);
                return Some(status);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        None
    }

    pub fn terminate(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.wait(Duration::from_secs(30)).expect("weir ends within 30 s of SIGTERM")
    }

    pub fn kill(&mut self) {
        let _ = self.child.kill();
        self.ended = self.child.wait().ok();
    }

    /// Starts the server again with the same directories, on new ports. End it first, in the way that the test is
    /// about.
    pub fn restart(&mut self) {
        assert!(self.ended.is_some(), "restart: the server still runs");
        {
            let mut log = self.log.0.lock().unwrap();
            (log.media, log.admin) = (None, None);
            log.text.push_str("--- restarted by the test ---\n");
        }
        self.child = spawn(&self.setup, &self.log);
        self.ended = None;
        self.await_addresses();
    }

    /// Complaints in the log that no `allow` covers.
    fn complaints(&self) -> Vec<String> {
        let levels = ["WARN ", "ERROR ", "\"level\":\"WARN\"", "\"level\":\"ERROR\"", "panicked"];
        self.log()
            .lines()
            .filter(|line| levels.iter().any(|level| line.contains(level)))
            .filter(|line| !self.setup.allowed.iter().any(|text| line.contains(text)) || line.contains("panicked"))
            .map(str::to_owned)
            .collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        let deadline = Instant::now() + Duration::from_secs(5);
        while self.log.0.lock().unwrap().open_pipes > 0 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
        if std::thread::panicking() {
            let log = self.log();
            let start = log.char_indices().rev().nth(4000).map_or(0, |(at, _)| at);
            eprintln!("--- the end of weir's output ---\n{}", &log[start..]);
            return;
        }
        let complaints = self.complaints();
        assert!(complaints.is_empty(), "unexpected in weir's log:\n{}", complaints.join("\n"));
    }
}
