//! Live streams of fragmented MP4 over HTTP: what viewers receive decodes to what was sent.

use crate::support::client::Connection;
use crate::support::oracle;
use crate::support::publisher::{BY_FRAME, BY_KEYFRAME, eventually, packets, push, state};
use crate::support::server::{Server, WRITE_KEY};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Four seconds with B-frames and sound, a keyframe every half second.
fn source(directory: &Path) -> PathBuf {
    let path = directory.join("source.mp4");
    let input = ["-f", "lavfi", "-i", "testsrc2=s=160x90:r=25", "-f", "lavfi", "-i", "sine=r=48000", "-t", "4"];
    let coding = ["-c:v", "libx264", "-preset", "ultrafast", "-bf", "2", "-g", "12", "-c:a", "aac"];
    let status = Command::new("ffmpeg").args(["-v", "error", "-y"]).args(input).args(coding).arg(&path).status();
    assert!(status.unwrap().success());
    path
}

/// What a viewer gets until the stream ends.
fn watch(server: &Server, target: &str) -> Vec<u8> {
    let mut connection = Connection::open(server.media);
    connection.get(target).body
}

#[test]
fn viewers_get_the_frames_that_were_sent() {
    let server = Server::builder().start();
    let directory = tempfile::tempdir().unwrap();
    let source = source(directory.path());
    let sent = oracle::decode(&std::fs::read(&source).unwrap());
    assert_eq!(sent.len(), 100);
    let kinds = [("keys", BY_KEYFRAME), ("frames", BY_FRAME)];
    std::thread::scope(|scope| {
        for (name, movflags) in kinds {
            let (server, source, sent) = (&server, &source, &sent);
            scope.spawn(move || {
                let mut publisher = push(server, source, name, movflags);
                eventually("the first part", || state(server, name)["window"]["bytes"].as_u64() > Some(0));
                let target = format!("/live/{name}/stream?at=-30");
                let early = scope.spawn(move || watch(server, &target));
                std::thread::sleep(Duration::from_secs(1));
                let late = watch(server, &format!("/live/{name}/stream"));
                assert!(publisher.wait().unwrap().success());
                let early = early.join().unwrap();
                assert_eq!(oracle::decode(&early), *sent, "{name}: from the beginning");
                assert_same_sound(&early, source, name);
                let late = oracle::decode(&late);
                assert!(late.len() > 20 && sent.ends_with(&late), "{name}: {} frames are no tail", late.len());
                let state = state(server, name);
                assert_eq!((&state["state"], &state["discontinuities"]), (&"ended".into(), &0.into()), "{name}");
            });
        }
    });
}

/// The same packets, and as far from each other: ffmpeg writes some of them without a duration when it sends frame by
/// frame, and at the time of the next one.
fn assert_same_sound(received: &[u8], source: &Path, name: &str) {
    let sent = packets(&std::fs::read(source).unwrap(), "a");
    let received = packets(received, "a");
    let sums = |packets: &[(i64, String)]| packets.iter().map(|(_, sum)| sum.clone()).collect::<Vec<_>>();
    assert!(sent.len() > 180 && sums(&received) == sums(&sent), "{name}: other sound");
    // The first one begins at 0 with ffmpeg, whatever the picture does.
    let steps =
        |packets: &[(i64, String)]| packets[1..].windows(2).map(|pair| pair[1].0 - pair[0].0).collect::<Vec<_>>();
    assert_eq!(steps(&received), steps(&sent), "{name}: sound at other times");
    assert!(received[1].0 > received[0].0, "{name}");
}

#[test]
fn a_publisher_that_dies_and_returns_goes_on_in_the_same_stream() {
    let server = Server::builder().start();
    let directory = tempfile::tempdir().unwrap();
    let source = source(directory.path());
    let mut first = push(&server, &source, "cam", BY_KEYFRAME);
    eventually("two seconds", || state(&server, "cam")["window"]["to"].as_f64() > Some(1.5));
    std::thread::scope(|scope| {
        let viewer = scope.spawn(|| watch(&server, "/live/cam/stream?at=-30"));
        first.kill().unwrap();
        first.wait().unwrap();
        eventually("waiting", || state(&server, "cam")["state"] == "waiting");
        assert!(push(&server, &source, "cam", BY_KEYFRAME).wait().unwrap().success());
        let body = viewer.join().unwrap();
        let file = directory.path().join("received.mp4");
        std::fs::write(&file, &body).unwrap();
        let sent = oracle::decode(&std::fs::read(&source).unwrap());
        let received = oracle::decode(&body);
        assert!(received.len() > sent.len() + 20 && received.ends_with(&sent), "{} frames", received.len());
        assert_times_advance(&file);
    });
    assert_eq!(state(&server, "cam")["discontinuities"], 1);
}

/// Chromium freezes for good when time runs backwards.
fn assert_times_advance(file: &Path) {
    let arguments = ["-v", "error", "-show_entries", "packet=stream_index,dts", "-of", "csv=p=0"];
    let output = Command::new("ffprobe").args(arguments).arg(file).output().unwrap();
    let mut last = std::collections::HashMap::new();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.lines().count() > 100, "{text}");
    for line in text.lines() {
        let (track, dts) = line.split_once(',').unwrap();
        let dts: i64 = dts.trim_end_matches(',').parse().unwrap();
        if let Some(before) = last.insert(track.to_owned(), dts) {
            assert!(dts > before, "track {track}: {dts} after {before}");
        }
    }
}

#[test]
fn publishing_answers_as_the_contract_says() {
    let server = Server::builder().start();
    let mut connection = Connection::open(server.media);
    let key = format!("Bearer {WRITE_KEY}");
    let with_key = [("Authorization", key.as_str())];
    let mut put = |target: &str, headers: &[(&str, &str)], body: &[u8]| {
        let mut fresh = Connection::open(server.media);
        std::mem::swap(&mut connection, &mut fresh);
        connection.call("PUT", target, headers, body).unwrap()
    };
    assert_eq!(put("/live/cam", &[], b"x").status, 401);
    assert_eq!(put("/live/cam", &[("Authorization", "Bearer wrong")], b"x").status, 401);
    // A probe for address and key publishes nothing.
    assert_eq!(put("/live/cam", &with_key, b"").status, 200);
    assert_eq!(server.get("/live/cam").status, 404);
    assert_eq!(put("/live/cam", &with_key, b"this is no video at all").status, 415);
    let fragment_first = [&8_u32.to_be_bytes()[..], b"moof", &8_u32.to_be_bytes()[..], b"mdat"].concat();
    let response = put("/live/cam", &with_key, &fragment_first);
    assert_eq!(response.status, 412, "{}", response.text());
    for bad in ["/live/..", "/live/a%2Fb", "/live/-a", "/live/index.m3u8"] {
        assert_eq!(put(bad, &with_key, b"x").status, 400, "{bad}");
    }
    assert_eq!(server.get("/live").text(), "[]\n");
}
