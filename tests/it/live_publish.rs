//! Who may publish what when: one publisher of a stream at a time, keys, and numbers that are never used again.

use crate::support::client::Connection;
use crate::support::oracle;
use crate::support::publisher::{Chunked, encode, eventually, fragments, packets, state};
use crate::support::server::{Server, WRITE_KEY};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const FRAGMENTED: [&str; 4] = ["-f", "mp4", "-movflags", "frag_keyframe+empty_moov+default_base_moof"];

/// Four seconds: an init segment and eight fragments or more.
fn media() -> (Vec<u8>, Vec<Vec<u8>>) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("media.mp4");
    encode(&path, 4, &FRAGMENTED);
    fragments(&std::fs::read(path).unwrap())
}

fn window(server: &Server, key: &str) -> u64 {
    state(server, "cam")["window"][key].as_u64().unwrap()
}

fn await_parts(server: &Server, name: &str, sent: &[&[u8]]) {
    let bytes: usize = sent.iter().map(|part| part.len()).sum();
    eventually("what was sent", || {
        let state = state(server, name);
        state["state"] == "live" && state["received_bytes"].as_u64() >= Some(bytes as u64)
    });
}

#[test]
fn a_second_publisher_is_refused_unless_it_may_take_over() {
    let (init, parts) = media();
    for takeover in ["false", "true"] {
        let server = Server::builder().argument("--takeover", takeover).start();
        let mut first = Chunked::begin(&server, "/live/cam");
        first.send(&init);
        first.send(&parts[0]);
        await_parts(&server, "cam", &[&init, &parts[0]]);
        let mut second = Chunked::begin(&server, "/live/cam");
        second.send(&init);
        second.send(&parts[0]);
        if takeover == "false" {
            let refused = second.0.read_response(false).unwrap();
            assert_eq!(refused.status, 409, "{refused:?}");
            assert!(refused.problem().contains("has a publisher"));
            first.send(&parts[1]);
            assert_eq!(first.finish().status, 200);
            assert_eq!(state(&server, "cam")["discontinuities"], 0);
        } else {
            await_parts(&server, "cam", &[&init, &parts[0], &init, &parts[0]]);
            first.send(&parts[1]);
            let refused = first.0.read_response(false).unwrap();
            assert_eq!(refused.status, 409, "{refused:?}");
            assert!(refused.problem().contains("took the stream over"));
            second.send(&parts[1]);
            assert_eq!(second.finish().status, 200);
            assert_eq!(state(&server, "cam")["discontinuities"], 1);
        }
    }
}

#[test]
fn a_key_in_the_query_is_enough_and_is_not_logged() {
    let (init, parts) = media();
    let server = Server::builder().start();
    let mut publisher = Chunked::begin(&server, &format!("/live/cam?key={WRITE_KEY}"));
    publisher.send(&init);
    publisher.send(&parts[0]);
    assert_eq!(publisher.finish().status, 200);
    for key in ["wrong", ""] {
        let mut connection = Connection::open(server.media);
        let response = connection.call("PUT", &format!("/live/cam?key={key}"), &[], b"x").unwrap();
        assert_eq!(response.status, 401, "{key}");
        assert!(!response.text().contains(WRITE_KEY));
    }
    // Nothing else takes it from there.
    let delete = server.request("DELETE", &format!("/live/cam?key={WRITE_KEY}"), &[], b"");
    assert_eq!(delete.status, 401);
    assert!(server.log().contains("key=…"));
    assert!(!server.log().contains(WRITE_KEY));
}

#[test]
fn offsets_go_on_when_a_stream_begins_again_and_after_a_crash() {
    let (init, parts) = media();
    let sent: usize = [&init, &parts[0], &parts[1]].iter().map(|part| part.len()).sum();
    let mut server = Server::builder().start();
    let publish = |server: &Server, end: bool| {
        let mut publisher = Chunked::begin(server, "/live/cam");
        publisher.send(&init);
        publisher.send(&parts[0]);
        publisher.send(&parts[1]);
        await_parts(server, "cam", &[&init, &parts[0], &parts[1]]);
        if end {
            assert_eq!(publisher.finish().status, 200);
            None
        } else {
            Some(publisher)
        }
    };
    let total = sent as u64;
    publish(&server, true);
    assert_eq!((window(&server, "first_byte"), window(&server, "last_byte")), (0, total - 1));
    let before = server.get("/live/cam/file").body;
    let open = publish(&server, false);
    assert_eq!((window(&server, "first_byte"), window(&server, "last_byte")), (total, 2 * total - 1));
    server.kill();
    drop(open);
    server.restart();
    publish(&server, true);
    // A crash costs the rest of the block that was reserved.
    let first = window(&server, "first_byte");
    assert_eq!(first, total + (1 << 30));
    let file = |range: String| Connection::open(server.media).call("GET", "/live/cam/file", &[("Range", &range)], b"");
    for range in ["bytes=0-99".to_owned(), format!("bytes={}-{}", first - 100, first - 1)] {
        let response = file(range).unwrap();
        assert_eq!(response.status, 416, "the hole");
        assert!(response.problem().ends_with(&format!("within {first}-{}", first + total - 1)), "{response:?}");
    }
    let response = file(format!("bytes={first}-")).unwrap();
    assert_eq!((response.status, &response.body), (206, &before));
    assert_eq!(server.get("/live/cam/file").body, before);
    assert_eq!(oracle::decode(&server.get("/live/cam/stream?at=-60").body), oracle::decode(&before));
    // An orderly end costs nothing.
    let next = window(&server, "last_byte") + 1;
    assert!(server.terminate().success());
    server.restart();
    publish(&server, true);
    assert_eq!(window(&server, "first_byte"), next);
}

fn weir_publish(server: &Server, file: &Path, name: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    command.arg("publish").arg(file).arg(format!("http://{}/live/{name}", server.media));
    command.env("WEIR_WRITE_KEY", WRITE_KEY).stderr(Stdio::null());
    command
}

#[test]
fn weir_publish_pushes_what_weir_can_index() {
    let server = Server::builder().start();
    let directory = tempfile::tempdir().unwrap();
    let m2ts = ["-f", "mpegts", "-mpegts_m2ts_mode", "1"];
    let files: [(&str, &[&str]); 4] =
        [("a.mp4", &[]), ("b.ts", &[]), ("c.m2ts", &m2ts), ("d.ts", &["-c:v", "mpeg2video", "-bf", "0"])];
    std::thread::scope(|scope| {
        for (file, extra) in files {
            let (server, path) = (&server, directory.path().join(file));
            scope.spawn(move || {
                encode(&path, 2, extra);
                let name = &file[..1];
                let begun = Instant::now();
                assert!(weir_publish(server, &path, name).status().unwrap().success(), "{file}");
                assert!(begun.elapsed() >= Duration::from_millis(1900), "{file} at its own speed");
                let viewer = server.get(&format!("/live/{name}/stream?at=-60")).body;
                let sent = std::fs::read(&path).unwrap();
                assert!(oracle::decode(&viewer) == oracle::decode(&sent), "{file}: other frames");
                let of = |media: &[u8]| packets(media, "a").into_iter().map(|(_, sum)| sum).collect::<Vec<_>>();
                let sound = of(&sent);
                // 48,000 / 1,024 packets a second.
                assert!(sound.len() > 90 && of(&viewer) == sound, "{file}: other sound");
                if file.ends_with("ts") {
                    looped(server, &path, &format!("{name}-loop"), sent.len() as u64);
                }
            });
        }
    });
    // Without a picture there is sound.
    let sound = directory.path().join("sound.m4a");
    encode(&sound, 1, &["-vn"]);
    assert!(weir_publish(&server, &sound, "sound").status().unwrap().success());
    let viewer = server.get("/live/sound/stream?at=-60").body;
    assert_eq!(packets(&viewer, "a"), packets(&std::fs::read(&sound).unwrap(), "a"));
}

/// At the end it begins again: in the same stream, whose time goes on.
fn looped(server: &Server, file: &Path, name: &str, bytes: u64) {
    let mut publisher = weir_publish(server, file, name).arg("--loop").spawn().unwrap();
    eventually("the second round", || state(server, name)["window"]["to"].as_f64() > Some(4.0));
    let status = state(server, name);
    assert!(status["received_bytes"].as_u64() > Some(bytes * 9 / 10), "{status}");
    assert_eq!(status["discontinuities"], 1, "{status}");
    publisher.kill().unwrap();
    publisher.wait().unwrap();
}
