//! Streams that are published with a request per track or per segment: viewers get one stream of all tracks.

use crate::support::client::{Connection, Response};
use crate::support::oracle;
use crate::support::publisher::{Chunked, coded_frames, encode, eventually, fragments, plays, state};
use crate::support::server::{Server, WRITE_KEY};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Fragments of half a second at most.
const SHORT: [&str; 4] = ["-f", "mp4", "-movflags", "frag_keyframe+empty_moov+default_base_moof"];

fn source(directory: &Path) -> PathBuf {
    let path = directory.join("source.mp4");
    encode(&path, 4, &[]);
    path
}

/// One track as an init segment and its fragments.
fn track(source: &Path, kind: &str) -> (Vec<u8>, Vec<Vec<u8>>) {
    let path = source.with_extension(format!("{kind}.mp4"));
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error", "-y", "-i"]).arg(source).args([
        "-map",
        &format!("0:{kind}"),
        "-c",
        "copy",
    ]);
    assert!(command.args(SHORT).args(["-frag_duration", "500000"]).arg(&path).status().unwrap().success());
    fragments(&std::fs::read(path).unwrap())
}

fn url(server: &Server, path: &str) -> String {
    format!("http://weir:{WRITE_KEY}@{}/live/{path}", server.media)
}

/// ffmpeg, pushing one track in one long request.
fn push_track(server: &Server, source: &Path, kind: &str, path: &str, extra: &[&str]) -> Child {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error", "-re", "-i"]).arg(source).args([
        "-map",
        &format!("0:{kind}"),
        "-c",
        "copy",
    ]);
    command.args(SHORT).args(extra).args(["-method", "POST", &url(server, path)]);
    command.stderr(Stdio::null()).spawn().unwrap()
}

fn await_part(server: &Server, name: &str) {
    eventually("the first part", || state(server, name)["window"]["bytes"].as_u64() > Some(0));
}

/// The recording of a stream that has ended.
fn recorded(server: &Server, name: &str) -> Vec<u8> {
    eventually("the video", || state(server, name)["recording"]["state"] == "stopped");
    let id = state(server, name)["recording"]["video"].as_str().unwrap().to_owned();
    server.get(&format!("/videos/{id}/file")).body
}

/// What was received decodes to what was sent: every picture, and every packet of sound.
fn assert_same(received: &[u8], source: &Path, what: &str) {
    let sent = std::fs::read(source).unwrap();
    let (seen, expected) = (oracle::decode(received), oracle::decode(&sent));
    let same = seen.iter().zip(&expected).take_while(|(a, b)| a == b).count();
    assert!(seen == expected, "{what}: {} frames instead of {}, the same up to {same}", seen.len(), expected.len());
    assert!(coded_frames(received, "a") == coded_frames(&sent, "a"), "{what}: other sound");
    plays(received, what, 2);
}

#[test]
fn tracks_on_requests_of_their_own_are_one_stream() {
    let server = Server::builder().start();
    let directory = tempfile::tempdir().unwrap();
    let source = source(directory.path());
    std::thread::scope(|scope| {
        for (name, extra) in
            [("keys", &["-frag_duration", "300000"][..]), ("frames", &["-movflags", "+frag_every_frame"])]
        {
            let (server, source) = (&server, &source);
            scope.spawn(move || {
                let mut video = push_track(server, source, "v", &format!("{name}/Streams(video.cmfv)"), extra);
                let mut sound = push_track(server, source, "a", &format!("{name}/Streams(audio.cmfa)"), extra);
                await_part(server, name);
                let viewer = server.get(&format!("/live/{name}/stream?at=-60")).body;
                assert!(video.wait().unwrap().success() && sound.wait().unwrap().success());
                assert_same(&viewer, source, name);
                eventually("the end", || state(server, name)["state"] == "ended");
                assert_eq!(state(server, name)["discontinuities"], 0, "{name}");
                assert_same(&recorded(server, name), source, name);
            });
        }
    });
}

#[test]
fn a_request_per_segment_as_ffmpeg_sends_dash() {
    // Longer than a busy machine keeps this test from ending its streams.
    let server = Server::builder().argument("--reconnect-window", "120 s").start();
    let directory = tempfile::tempdir().unwrap();
    let source = source(directory.path());
    let named = ["-init_seg_name", "$RepresentationID$/init.mp4", "-media_seg_name", "$RepresentationID$/$Number$.m4s"];
    let low_latency = ["-streaming", "1", "-frag_type", "duration", "-frag_duration", "0.2"];
    std::thread::scope(|scope| {
        for (name, extra) in [("flat", &[][..]), ("deep", &named[..]), ("chunks", &low_latency[..])] {
            let (server, source) = (&server, &source);
            scope.spawn(move || {
                let mut command = Command::new("ffmpeg");
                command.args(["-nostdin", "-v", "error", "-re", "-i"]).arg(source).args(["-c", "copy", "-f", "dash"]);
                command.args(["-seg_duration", "1", "-method", "PUT"]).args(extra);
                command.arg(url(server, &format!("{name}/manifest.mpd"))).stderr(Stdio::null());
                let mut publisher = command.spawn().unwrap();
                await_part(server, name);
                let viewer = scope.spawn(move || server.get(&format!("/live/{name}/stream?at=-60")).body);
                assert!(publisher.wait().unwrap().success());
                // No request says that it is the last, nor does ffmpeg wait for its answer.
                let received = || state(server, name)["received_bytes"].as_u64();
                eventually("all of it", || {
                    let before = received();
                    std::thread::sleep(std::time::Duration::from_secs(3));
                    state(server, name)["window"]["to"].as_f64() >= Some(3.99) && received() == before
                });
                assert_ne!(state(server, name)["state"], "ended");
                assert_eq!(request(server, "DELETE", name, b"").status, 204);
                assert_same(&viewer.join().unwrap(), source, name);
                assert_same(&recorded(server, name), source, name);
            });
        }
    });
}

fn request(server: &Server, method: &str, path: &str, body: &[u8]) -> Response {
    let key = format!("Bearer {WRITE_KEY}");
    server.request(method, &format!("/live/{path}"), &[("Authorization", &key)], body)
}

/// Puts something below the stream `cam` that is taken.
fn put(server: &Server, path: &str, body: &[u8]) {
    let response = request(server, "PUT", &format!("cam/{path}"), body);
    assert_eq!(response.status, 200, "{path}: {response:?}");
}

#[test]
fn segments_may_be_sent_again() {
    let server = Server::builder().argument("--track-wait", "0 s").start();
    let directory = tempfile::tempdir().unwrap();
    let source = source(directory.path());
    let ((init, video), (sound_init, sound)) = (track(&source, "v"), track(&source, "a"));
    let put = |path: &str, body: &[u8]| put(&server, path, body);
    put("audio/init.mp4", &sound_init);
    put("video/init.mp4", &init);
    let numbers = 0..video.len().max(sound.len());
    let last_byte = || state(&server, "cam")["window"]["last_byte"].as_u64().unwrap_or(0);
    for n in numbers.clone() {
        for (name, init, all) in [("video", &init, &video), ("audio", &sound_init, &sound)] {
            let Some(segment) = all.get(n) else { continue };
            put(&format!("{name}/{n}.m4s"), segment);
            // Again, alone or behind its init segment, and an earlier one.
            put(&format!("{name}/{n}.m4s"), segment);
            if n == 3 {
                put(&format!("{name}/init.mp4"), init);
                put(&format!("{name}/{}.m4s", n - 1), &[&init[..], &all[n - 1][..]].concat());
            }
        }
    }
    eventually("all of it", || state(&server, "cam")["window"]["to"].as_f64() >= Some(3.99));
    let before = last_byte();
    for n in numbers.rev().take(3) {
        for (name, all) in [("video", &video), ("audio", &sound)] {
            all.get(n).into_iter().for_each(|segment| put(&format!("{name}/{n}.m4s"), segment));
        }
    }
    std::thread::sleep(std::time::Duration::from_millis(1500));
    assert_eq!(last_byte(), before);
    assert!(server.metric("weir_fragments_again_total") >= (video.len() + sound.len()) as f64);
    assert_eq!(state(&server, "cam")["discontinuities"], 0);
    assert_eq!(request(&server, "DELETE", "cam", b"").status, 204);
    assert_same(&recorded(&server, "cam"), &source, "segments");
}

/// An encoder whose segments of sound are shorter than its groups of pictures.
#[test]
fn sound_that_comes_long_before_the_first_picture_is_kept() {
    let server = Server::builder().argument("--track-wait", "0 s").start();
    let directory = tempfile::tempdir().unwrap();
    let source = source(directory.path());
    let ((init, video), (sound_init, sound)) = (track(&source, "v"), track(&source, "a"));
    let put = |path: &str, body: &[u8]| put(&server, path, body);
    put("video/init.mp4", &init);
    put("audio/init.mp4", &sound_init);
    put("audio/0.m4s", &sound.concat());
    // Longer than fragments wait for those of other tracks.
    std::thread::sleep(std::time::Duration::from_millis(1500));
    put("video/0.m4s", &video.concat());
    eventually("all of it", || state(&server, "cam")["window"]["to"].as_f64() >= Some(3.99));
    assert_eq!(request(&server, "DELETE", "cam", b"").status, 204);
    assert_same(&recorded(&server, "cam"), &source, "late pictures");
}

/// As ffmpeg does with `-http_persistent 1`: the next request follows before the last one's answer.
#[test]
fn requests_on_one_connection_follow_each_other() {
    let server = Server::builder().argument("--track-wait", "0 s").start();
    let directory = tempfile::tempdir().unwrap();
    let source = source(directory.path());
    let (init, video) = track(&source, "v");
    let mut connection = Connection::open(server.media);
    let bodies: Vec<&[u8]> = std::iter::once(&init[..]).chain(video.iter().map(Vec::as_slice)).collect();
    for (n, body) in bodies.iter().enumerate() {
        let (key, length) = (format!("Authorization: Bearer {WRITE_KEY}"), body.len());
        let head =
            format!("PUT /live/cam/v/{n}.m4s HTTP/1.1\r\nHost: weir\r\n{key}\r\nContent-Length: {length}\r\n\r\n");
        connection.send(&[head.as_bytes(), body].concat()).unwrap();
    }
    for n in 0..bodies.len() {
        assert_eq!(connection.read_response(false).unwrap().status, 200, "{n}");
    }
    assert_eq!(request(&server, "DELETE", "cam", b"").status, 204);
    assert_eq!(oracle::decode(&recorded(&server, "cam")), oracle::decode(&std::fs::read(&source).unwrap()));
}

#[test]
fn what_is_refused_on_a_track_and_why() {
    let mut server = Server::builder().argument("--track-wait", "0 s").start();
    let directory = tempfile::tempdir().unwrap();
    let source = source(directory.path());
    let (init, video) = track(&source, "v");
    let put = |path: &str, body: &[u8]| request(&server, "PUT", &format!("cam/{path}"), body);
    assert_eq!(server.request("PUT", "/live/cam/video", &[], b"x").status, 401);
    assert_eq!(put("video", b"").status, 200, "a probe");
    for own in ["manifest.mpd", "master.m3u8", "index.m3u8"] {
        assert_eq!(put(own, b"whatever").status, 200, "Weir writes its own instead of {own}");
    }
    assert_eq!(server.get("/live/cam").status, 404, "nothing was published");
    let response = put("video/1.m4s", &video[0]);
    assert_eq!(response.status, 412);
    assert!(response.problem().contains("init segment"));
    let other = put("video", b"\x89PNG\r\n\x1a\n and so on");
    assert_eq!(other.status, 415);
    assert!(other.problem().contains("not fragmented MP4"), "{other:?}");
    assert_eq!(put("video", &[0x47; 376]).status, 415, "MPEG-TS is no track");
    for outside in ["../video/1.m4s", "%2e%2e%2fx/1.m4s", "a/b/c.m4s", "-x/1.m4s", "init.mp4"] {
        assert_eq!(put(outside, &init).status, 404, "{outside}");
    }
    for route in ["stream", "file", "segment-1.m4s"] {
        assert_eq!(put(route, &init).status, 405, "{route} is no track");
    }
    assert_eq!(put("stream/1.m4s", &init).status, 404, "nor is it a track's directory");
    assert_eq!(put("video/init.mp4", &init).status, 200);
    assert_eq!(put("video/1.m4s", &video[0]).status, 200);
    let second = put("other/init.mp4", &init);
    assert_eq!(second.status, 415);
    assert!(second.problem().contains("video track already"));
    let torn = [&video[1][..], &[0, 0, 0, 3], b"moof"].concat();
    let broken = put("video/2.m4s", &torn);
    assert_eq!(broken.status, 400);
    assert!(broken.problem().contains(&format!("at byte {}", video[1].len())), "{broken:?}");
    let huge = put("video/2.m4s", b"\xff\xff\xff\xffmoof");
    assert_eq!(huge.status, 400, "the track's format is known");
    let mut open = Chunked::begin(&server, "/live/cam/video/3.m4s");
    open.send(&video[2][..100]);
    eventually("the open request", || put("video/3.m4s", &video[2]).status == 409);
    open.send(&video[2][100..]);
    assert_eq!(open.finish().status, 200);
    assert_eq!(put("video/4.m4s", &video[3]).status, 200);
    assert_eq!(request(&server, "DELETE", "cam/video/1.m4s", b"").status, 204);
    assert_eq!(server.get("/live/cam/video").status, 404);
    // A publisher of all tracks at once would be a second one.
    let mut whole = Chunked::begin(&server, "/live/cam");
    whole.send(&[&init[..], &video[0][..]].concat());
    assert_eq!(whole.0.read_response(false).unwrap().status, 409);
    let viewer = std::thread::scope(|scope| {
        let viewer = scope.spawn(|| server.get("/live/cam/stream?at=-60").body);
        eventually("a viewer", || state(&server, "cam")["viewers"] == 1);
        assert_eq!(request(&server, "DELETE", "cam", b"").status, 204);
        viewer.join().unwrap()
    });
    let sent = oracle::decode(&std::fs::read(&source).unwrap());
    let received = oracle::decode(&viewer);
    assert!(received.len() >= 36 && sent.starts_with(&received[..received.len() - 3]), "{} frames", received.len());
    server.assert_alive("refusals");
}

#[test]
fn publishers_of_tracks_that_die_and_return_go_on_in_the_same_stream() {
    let server = Server::builder().start();
    let directory = tempfile::tempdir().unwrap();
    let source = source(directory.path());
    let extra = ["-frag_duration", "300000"];
    let both = || ["v", "a"].map(|kind| push_track(&server, &source, kind, &format!("cam/{kind}"), &extra));
    let mut first = both();
    eventually("two seconds", || state(&server, "cam")["window"]["to"].as_f64() > Some(1.5));
    std::thread::scope(|scope| {
        let viewer = scope.spawn(|| server.get("/live/cam/stream?at=-60").body);
        for publisher in &mut first {
            publisher.kill().unwrap();
            publisher.wait().unwrap();
        }
        // Not before the server knows.
        std::thread::sleep(std::time::Duration::from_millis(500));
        both().iter_mut().for_each(|publisher| assert!(publisher.wait().unwrap().success()));
        let received = viewer.join().unwrap();
        let sent = oracle::decode(&std::fs::read(&source).unwrap());
        let frames = oracle::decode(&received);
        assert!(frames.len() > sent.len() + 20 && frames.ends_with(&sent), "{} frames", frames.len());
        let sound = coded_frames(&std::fs::read(&source).unwrap(), "a");
        assert!(coded_frames(&received, "a").ends_with(&sound), "other sound");
        plays(&received, "returned", 2);
        assert_eq!(state(&server, "cam")["discontinuities"], Value::from(1));
        plays(&recorded(&server, "cam"), "the recording", 2);
    });
}
