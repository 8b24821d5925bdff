//! `weir demo`: an embedded sample video in a temporary library, and every URL worth opening. Needs nothing on disk.

use super::{fail, say, serve};
use crate::config::{Config, Settings};
use crate::observe::log;
use crate::server::{self, Running};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// 20 seconds of H.264 and AAC with burnt-in drop-frame timecode; assets/demo.sh makes it.
const SAMPLE: &[u8] = include_bytes!("../../assets/demo.mp4");

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Media listener; port 0 takes a free one
    #[arg(long, env = "WEIR_LISTEN", value_name = "ADDR", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Admin listener
    #[arg(long, env = "WEIR_ADMIN", value_name = "ADDR", default_value = "127.0.0.1:9090")]
    admin: SocketAddr,
    /// Log levels
    #[arg(long, env = "WEIR_LOG", value_name = "LEVELS", default_value = "warn")]
    log: String,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let directory = match Temporary::create() {
        Ok(directory) => directory,
        Err(error) => return fail(1, &format!("cannot make a temporary library: {error}")),
    };
    let settings = Settings {
        library: Some(directory.0.join("library")),
        state_dir: Some(directory.0.join("state")),
        listen: Some(arguments.listen),
        admin: Some(arguments.admin),
        log: Some(arguments.log.clone()),
        ..Settings::default()
    };
    let config: Config = match settings.resolve(Settings::default()) {
        Ok(config) => config,
        Err(error) => return fail(super::USAGE, &error),
    };
    log::init(&config);
    match server::start(config) {
        Ok(running) => serve::serve(running, greet),
        Err(error) => fail(1, &error),
    }
}

fn greet(running: &Running) {
    let media = format!("http://{}", running.media);
    let admin = format!("http://{}", running.admin);
    say!();
    say!("Open in a browser:");
    say!("  {media}/                                      the videos, a player, a jump to a timecode");
    say!("Ask with curl:");
    say!("  curl {media}/videos                           what there is, as JSON");
    say!("  curl '{media}/videos/demo.mp4/seek?timecode=01:00:10;00'");
    say!("  curl -o a.mp4 '{media}/videos/demo.mp4/chunk?timecode=01:00:10;00&duration=5&as=fmp4'");
    say!("  curl -o b.bin '{media}/videos/demo.mp4/chunk?offset=100000&size=200000'");
    say!("  curl -r 0-99 {media}/videos/demo.mp4/file | xxd | head");
    say!("  curl {admin}/metrics");
    say!();
    say!("Ctrl-C ends it; nothing stays behind.");
}

/// A directory of its own that goes away with the value.
struct Temporary(PathBuf);

impl Temporary {
    fn create() -> std::io::Result<Self> {
        let random = getrandom::u64().map_err(|error| std::io::Error::other(error.to_string()))?;
        let path = std::env::temp_dir().join(format!("weir-demo-{random:016x}"));
        std::fs::create_dir(&path)?;
        let directory = Self(path);
        for inner in ["library", "state"] {
            std::fs::create_dir(directory.0.join(inner))?;
        }
        write(&directory.0.join("library/demo.mp4"))?;
        Ok(directory)
    }
}

fn write(path: &Path) -> std::io::Result<()> {
    std::fs::write(path, SAMPLE)
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
