//! A publisher of live streams: ffmpeg over HTTP, and what the server says of the stream meanwhile.

use super::server::{Server, WRITE_KEY};
use serde_json::Value;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How ffmpeg cuts fragments (`-movflags`).
pub const BY_KEYFRAME: &str = "frag_keyframe+empty_moov+default_base_moof";
pub const BY_FRAME: &str = "frag_every_frame+empty_moov+default_base_moof";

/// ffmpeg, pushing a file as fragmented MP4 at its own speed.
pub fn push(server: &Server, source: &Path, name: &str, movflags: &str) -> Child {
    Command::new("ffmpeg")
        .args(["-nostdin", "-v", "error", "-re", "-i"])
        .arg(source)
        .args(["-c", "copy", "-f", "mp4", "-movflags", movflags, "-method", "PUT"])
        .args(["-headers", &format!("Authorization: Bearer {WRITE_KEY}")])
        .arg(format!("http://{}/live/{name}", server.media))
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// `GET /live/{name}`, or null while there is no such stream.
pub fn state(server: &Server, name: &str) -> Value {
    let response = server.get(&format!("/live/{name}"));
    if response.status == 200 { response.json() } else { Value::Null }
}

pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{what} never came");
        std::thread::sleep(Duration::from_millis(20));
    }
}
