//! `weir demo`: an embedded sample video in a temporary library, a live stream made of it, and every URL worth opening.
//! Needs nothing on disk.

use super::publish::Publisher;
use super::{fail, say, serve};
use crate::config::{Config, Settings};
use crate::lazy::Components;
use crate::observe::log;
use crate::server::{self, Running};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;

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

pub(super) fn run(arguments: &Arguments, components: &Arc<Components>) -> ExitCode {
    let directory = match Temporary::create() {
        Ok(directory) => directory,
        Err(error) => return fail(1, &format!("cannot make a temporary library: {error}")),
    };
    let key = match random() {
        Ok(random) => format!("{random:016x}"),
        Err(error) => return fail(1, &format!("no random numbers: {error}")),
    };
    let settings = Settings {
        write_key: Some(key.clone()),
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
    match server::start(config, components) {
        Ok(running) => {
            go_live(&running, directory.0.join("library/demo.mp4"), key);
            serve::serve(running, greet)
        }
        Err(error) => fail(1, &error),
    }
}

/// Publishes the sample over and over, as an encoder would. When the server drains, the request ends with it.
fn go_live(running: &Running, sample: PathBuf, key: String) {
    let address = running.media.to_string();
    let _ = thread::Builder::new().name("weir-demo-live".to_owned()).spawn(move || {
        let published = Publisher::open(&sample)
            .and_then(|publisher| publisher.publish(&address, "/live/demo", &key, true, |_| ()));
        if let Err(error) = published {
            tracing::debug!(%error, "the demo's live stream ended");
        }
    });
}

fn greet(running: &Running) {
    let media = format!("http://{}", running.media);
    let admin = format!("http://{}", running.admin);
    say!();
    say!("Open in a browser:");
    say!("  {media}/                                      the videos and the live stream, with players");
    say!("Ask with curl:");
    say!("  curl {media}/videos                           what there is, as JSON");
    say!("  curl '{media}/videos/demo.mp4/seek?timecode=01:00:10;00'");
    say!("  curl -o a.mp4 '{media}/videos/demo.mp4/chunk?timecode=01:00:10;00&duration=5&as=fmp4'");
    say!("  curl -o b.bin '{media}/videos/demo.mp4/chunk?offset=100000&size=200000'");
    say!("  curl -r 0-99 {media}/videos/demo.mp4/file | xxd | head");
    say!("  curl {media}/live                             the live streams; this one is the sample, over and over");
    say!("  curl {media}/live/demo/index.m3u8             its LL-HLS playlist, for players");
    say!("  curl -s {media}/live/demo/stream | ffplay -     the live stream, endless");
    say!("  curl {admin}/metrics");
    say!();
    say!("Ctrl-C ends it; nothing stays behind.");
}

fn random() -> std::io::Result<u64> {
    getrandom::u64().map_err(|error| std::io::Error::other(error.to_string()))
}

/// A directory of its own that goes away with the value.
struct Temporary(PathBuf);

impl Temporary {
    fn create() -> std::io::Result<Self> {
        let random = random()?;
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
