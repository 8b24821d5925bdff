//! Recordings of live streams and `/live/{name}/file`: the same frames as what was sent, byte for byte the same as what
//! was watched, through crashes of both ends and a full disk.

use crate::support::client::{Connection, Response};
use crate::support::oracle;
use crate::support::publisher::{BY_FRAME, BY_KEYFRAME, eventually, plays, push, state};
use crate::support::server::Server;
use crate::support::tmpfs::Tmpfs;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The last position of one who wants what is to come (RFC 8673).
const FOR_EVER: &str = "9007199254740991";

/// B-frames and sound, a keyframe every half second.
fn source(directory: &Path, seconds: u32) -> PathBuf {
    let path = directory.join(format!("source{seconds}.mp4"));
    let input = ["-f", "lavfi", "-i", "testsrc2=s=320x180:r=25", "-f", "lavfi", "-i", "sine=r=48000"];
    let coding = ["-c:v", "libx264", "-preset", "ultrafast", "-bf", "2", "-g", "12", "-c:a", "aac"];
    let mut command = Command::new("ffmpeg");
    command.args(["-v", "error", "-y"]).args(input).args(["-t", &seconds.to_string()]).args(coding).arg(&path);
    assert!(command.status().unwrap().success());
    path
}

fn await_part(server: &Server, name: &str) {
    eventually("the first part", || state(server, name)["window"]["bytes"].as_u64() > Some(0));
}

fn with_range(server: &Server, method: &str, name: &str, range: &str) -> Response {
    let mut connection = Connection::open(server.media);
    connection.call(method, &format!("/live/{name}/file"), &[("Range", range)], b"").unwrap()
}

/// Stream number and checksum of every coded frame, sound included: each stream in its own order.
fn packets(media: &[u8]) -> Vec<String> {
    let file = tempfile::Builder::new().prefix("packets-").tempfile_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    std::fs::write(file.path(), media).unwrap();
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "fatal", "-i"]).arg(file.path());
    let output = command.args(["-map", "0", "-c", "copy", "-f", "framemd5", "-"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let mut packets: Vec<String> = lines
        .map(|line| {
            let fields: Vec<&str> = line.split(',').map(str::trim).collect();
            format!("{} {}", fields[0], fields[5])
        })
        .collect();
    packets.sort_by_key(|packet| packet.as_bytes()[0]);
    packets
}

fn recorded(server: &Server, name: &str) -> (String, Vec<u8>) {
    // ffmpeg does not wait for the answer to its last byte, so neither the end nor the video need be there yet.
    eventually("the end", || state(server, name)["state"] == "ended");
    eventually("the video", || state(server, name)["recording"]["state"] == "stopped");
    let id = state(server, name)["recording"]["video"].as_str().unwrap().to_owned();
    let response = server.get(&format!("/videos/{id}/file"));
    assert_eq!(response.status, 200, "{id}: {response:?}");
    (id, response.body)
}

#[test]
fn a_recording_has_what_was_sent_and_is_what_was_watched() {
    let server = Server::builder().argument("--window-seconds", "1").start();
    let directory = tempfile::tempdir().unwrap();
    let source = source(directory.path(), 5);
    let original = std::fs::read(&source).unwrap();
    let (frames, sent) = (oracle::decode(&original), packets(&original));
    assert_eq!(frames.len(), 125);
    std::thread::scope(|scope| {
        for (name, movflags) in [("keys", BY_KEYFRAME), ("frames", BY_FRAME), ("more", BY_KEYFRAME)] {
            let (server, source, frames, sent) = (&server, &source, &frames, &sent);
            scope.spawn(move || {
                let mut publisher = push(server, source, name, movflags);
                await_part(server, name);
                eventually("the recording", || state(server, name)["recording"]["state"] == "recording");
                let announced = state(server, name)["recording"].clone();
                assert_eq!(announced["error"], Value::Null);
                let id = announced["video"].as_str().unwrap().to_owned();
                assert!(id.starts_with(&format!("{name}-20")) && id.ends_with("Z.mp4"), "{id}");
                assert_eq!(server.get(&format!("/videos/{id}")).status, 404, "{id} is visible before it is whole");
                let endless = scope.spawn(move || server.get(&format!("/live/{name}/file")));
                let range = format!("bytes=0-{FOR_EVER}");
                let for_ever = scope.spawn(move || with_range(server, "GET", name, &range));
                std::thread::sleep(Duration::from_millis(3200));
                let synced = state(server, name)["recording"]["synced_bytes"].as_u64().unwrap();
                assert!(synced > 20_000, "{synced} bytes synced");
                // The first bytes have left the window.
                let late = with_range(server, "GET", name, &format!("bytes=0-{FOR_EVER}"));
                let (endless, for_ever) = (endless.join().unwrap(), for_ever.join().unwrap());
                assert!(publisher.wait().unwrap().success());

                let (video, recording) = recorded(server, name);
                assert_eq!(video, id, "not the id that was announced");
                assert_eq!((endless.status, for_ever.status, late.status), (200, 206, 206));
                assert!(endless.complete && endless.body == recording, "{name}: /file differs from the recording");
                assert!(for_ever.body == recording && late.body == recording, "{name}: ranges differ");
                let status = state(server, name);
                let bytes = recording.len() as u64;
                assert_eq!(status["recording"]["bytes"], bytes, "{status}");
                assert_eq!(status["recording"]["synced_bytes"], bytes, "{status}");
                assert_eq!(status["window"]["last_byte"], bytes - 1, "{status}");
                assert_eq!(status["recording"]["state"], "stopped", "{status}");
                assert!(oracle::decode(&recording) == *frames, "{name}: other frames");
                assert!(packets(&recording) == *sent, "{name}: other packets");
                plays(&recording, name, 2);
                assert_eq!(server.get(&format!("/videos/{id}/seek?frame=100")).status, 200);
            });
        }
    });
    assert!(std::fs::read_dir(server.library().join(".weir/recordings")).unwrap().next().is_none());
}

#[test]
fn ranges_of_a_stream_that_grows() {
    let server = Server::builder().start();
    let directory = tempfile::tempdir().unwrap();
    let source = source(directory.path(), 4);
    let mut publisher = push(&server, &source, "cam", BY_KEYFRAME);
    eventually("two seconds", || state(&server, "cam")["window"]["to"].as_f64() > Some(1.8));
    let end = |response: &Response| -> u64 {
        let range = response.header("content-range").unwrap().to_owned();
        range
            .strip_prefix("bytes 0-")
            .and_then(|r| r.strip_suffix("/*"))
            .unwrap_or_else(|| panic!("{range}"))
            .parse()
            .unwrap()
    };
    for method in ["HEAD", "GET"] {
        let response = with_range(&server, method, "cam", "bytes=0-");
        let last = end(&response);
        assert_eq!(response.status, 206);
        assert_eq!(response.header("content-length"), Some(&*(last + 1).to_string()));
        assert_eq!(response.header("cache-control"), Some("no-store"));
        assert_eq!(response.body.len() as u64, if method == "GET" { last + 1 } else { 0 });
    }
    let now = with_range(&server, "GET", "cam", "bytes=0-").body;
    let middle = with_range(&server, "GET", "cam", "bytes=1000-1999");
    assert_eq!((middle.status, middle.header("content-range")), (206, Some("bytes 1000-1999/*")));
    assert_eq!(middle.body, now[1000..2000]);
    let tail = with_range(&server, "GET", "cam", "bytes=-10");
    assert_eq!((tail.status, tail.body.len()), (206, 10));
    for (range, status) in [("bytes=99999999-", 416), ("bytes=5-4", 416), ("bytes=-0", 416)] {
        let response = with_range(&server, "GET", "cam", range);
        assert_eq!(response.status, status, "{range}");
        response.problem();
    }
    for last in [FOR_EVER, "184467440737095516160000", "0009007199254740991"] {
        let head = with_range(&server, "HEAD", "cam", &format!("bytes=7-{last}"));
        assert_eq!(head.status, 206);
        assert_eq!(head.header("content-range"), Some(&*format!("bytes 7-{last}/*")));
        assert_eq!(head.header("content-length"), None);
    }
    let head = Connection::open(server.media).call("HEAD", "/live/cam/file", &[], b"").unwrap();
    assert_eq!((head.status, head.header("content-length")), (200, None));
    assert_eq!(head.header("cache-control"), Some("no-store"));
    assert_eq!(head.header("accept-ranges"), Some("bytes"));
    // From the present end on: what is to come, until the stream ends.
    let from = now.len();
    let rest = with_range(&server, "GET", "cam", &format!("bytes={from}-{FOR_EVER}"));
    assert!(rest.complete, "the end of the stream is the end of the body");
    assert!(publisher.wait().unwrap().success());
    let (_, recording) = recorded(&server, "cam");
    assert!([now, rest.body].concat() == recording, "the two halves are not the recording");
    let total = recording.len();
    let whole = with_range(&server, "GET", "cam", &format!("bytes=0-{FOR_EVER}"));
    assert_eq!(whole.header("content-range"), Some(&*format!("bytes 0-{}/{total}", total - 1)));
    assert_eq!(server.get("/live/none/file").status, 404);
}

#[test]
fn without_a_recording_only_the_window_is_there() {
    let server = Server::builder().argument("--record", "false").argument("--window-seconds", "1").start();
    let directory = tempfile::tempdir().unwrap();
    let source = source(directory.path(), 5);
    let mut publisher = push(&server, &source, "cam", BY_KEYFRAME);
    eventually("the window to move", || state(&server, "cam")["window"]["first_byte"].as_u64() > Some(10_000));
    assert_eq!(state(&server, "cam")["recording"], Value::Null);
    assert_eq!(with_range(&server, "GET", "cam", "bytes=0-99").status, 416);
    let response = with_range(&server, "GET", "cam", "bytes=0-");
    assert_eq!(response.status, 206);
    assert!(!response.header("content-range").unwrap().starts_with("bytes 0-"), "{response:?}");
    let endless = server.get("/live/cam/file");
    assert!(publisher.wait().unwrap().success());
    assert_eq!(endless.status, 200);
    let (all, tail) = (oracle::decode(&std::fs::read(&source).unwrap()), oracle::decode(&endless.body));
    assert!(tail.len() > 20 && all.ends_with(&tail), "{} frames are no tail", tail.len());
    assert_eq!(server.get("/videos").text(), "[]\n");
}

#[test]
fn a_recording_survives_the_death_of_the_server() {
    let mut server = Server::builder().start();
    let directory = tempfile::tempdir().unwrap();
    let source = source(directory.path(), 6);
    let mut publisher = push(&server, &source, "cam", BY_FRAME);
    eventually("three seconds", || state(&server, "cam")["window"]["to"].as_f64() > Some(3.0));
    let status = state(&server, "cam");
    let id = status["recording"]["video"].as_str().unwrap().to_owned();
    let synced = status["recording"]["synced_bytes"].as_u64().unwrap();
    server.kill();
    let _ = publisher.kill();
    publisher.wait().unwrap();
    // A fragment that was cut in the middle, as a crash of the machine leaves it.
    let hidden = server.library().join(".weir/recordings").join(format!("{id}.part"));
    let before = std::fs::read(&hidden).unwrap();
    let torn = [&before[..], &[0, 0, 0, 100], b"moof", &[1; 50]].concat();
    std::fs::write(&hidden, torn).unwrap();
    server.restart();
    let video = server.get(&format!("/videos/{id}/file"));
    assert_eq!(video.status, 200, "{video:?}");
    assert!(video.body.len() as u64 >= synced, "synced bytes were lost");
    assert!(before.starts_with(&video.body), "other bytes");
    plays(&video.body, "recovered", 2);
    let (sent, kept) = (oracle::decode(&std::fs::read(&source).unwrap()), oracle::decode(&video.body));
    // Frames that wait for one that never came are shown in another order by decoders: the last three do not count.
    let sure = kept.len().saturating_sub(3);
    assert!(sure > 60 && sent[..sure] == kept[..sure], "{} frames", kept.len());
    assert!(!hidden.exists());
}

#[test]
fn a_publisher_that_returns_goes_on_in_the_same_recording() {
    let server = Server::builder().start();
    let directory = tempfile::tempdir().unwrap();
    let source = source(directory.path(), 4);
    let mut first = push(&server, &source, "cam", BY_KEYFRAME);
    eventually("two seconds", || state(&server, "cam")["window"]["to"].as_f64() > Some(1.5));
    std::thread::scope(|scope| {
        let viewer = scope.spawn(|| server.get("/live/cam/file"));
        first.kill().unwrap();
        first.wait().unwrap();
        eventually("waiting", || state(&server, "cam")["state"] == "waiting");
        assert!(push(&server, &source, "cam", BY_KEYFRAME).wait().unwrap().success());
        let (_, recording) = recorded(&server, "cam");
        assert!(viewer.join().unwrap().body == recording, "/file differs from the recording");
        let (sent, kept) = (oracle::decode(&std::fs::read(&source).unwrap()), oracle::decode(&recording));
        assert!(kept.len() > sent.len() + 20 && kept.ends_with(&sent), "{} frames", kept.len());
        plays(&recording, "returned", 2);
    });
    assert_eq!(server.get("/videos").json().as_array().unwrap().len(), 1, "one file");
}

#[test]
fn a_full_disk_stops_the_recording_and_nothing_else() {
    let builder = Server::builder().argument("--space-reserve", "0").allow("not recorded").allow("recording stopped");
    let mounted = Tmpfs::mount(&builder.library(), "16m");
    let _mounted = mounted.expect("the right to mount a tmpfs: run this test as root");
    let server = builder.start();
    let ballast = server.library().join(".ballast");
    let directory = tempfile::tempdir().unwrap();
    let source = source(directory.path(), 10);
    std::fs::write(&ballast, vec![1; (16 << 20) - (200 << 10)]).unwrap();
    let mut publisher = push(&server, &source, "cam", BY_KEYFRAME);
    await_part(&server, "cam");
    std::thread::scope(|scope| {
        let viewer = scope.spawn(|| server.get("/live/cam/file"));
        eventually("the error", || state(&server, "cam")["recording"]["state"] == "stopped");
        let status = state(&server, "cam");
        assert!(status["recording"]["error"].as_str().unwrap().contains("room"), "{status}");
        assert_eq!(status["state"], "live");
        let stopped = status["recording"]["video"].clone();
        std::fs::remove_file(&ballast).unwrap();
        eventually("a new recording", || state(&server, "cam")["recording"]["state"] == "recording");
        let status = state(&server, "cam");
        assert!(status["recording"]["error"].is_null() && status["recording"]["video"] != stopped, "{status}");
        assert!(publisher.wait().unwrap().success());
        let all = viewer.join().unwrap().body;
        let sent = oracle::decode(&std::fs::read(&source).unwrap());
        assert!(oracle::decode(&all) == sent, "viewers did not get everything");
        let (_, second) = recorded(&server, "cam");
        let first = server.get(&format!("/videos/{}/file", stopped.as_str().unwrap())).body;
        assert!(all.starts_with(&first), "the first file is not the beginning of the stream");
        for (file, what) in [(&first, "first"), (&second, "second")] {
            plays(file, what, 2);
        }
        let tail = oracle::decode(&second);
        assert!(tail.len() > 20 && sent.ends_with(&tail), "the second file has {} frames", tail.len());
    });
}
