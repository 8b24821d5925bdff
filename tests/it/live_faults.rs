//! What publishers get wrong and what happens around them: how streams end, silence, times that run backwards, no
//! keyframe at the start, a clock on the wall that jumps, buffers of a byte, and a server that is told to stop.

use crate::support::client::Connection;
use crate::support::oracle;
use crate::support::publisher::{Chunked, coded_frames, encode, eventually, fragments, plays, state};
use crate::support::server::{Server, WRITE_KEY};
use std::path::PathBuf;
use std::time::{Duration, Instant};

const BY_KEYFRAME: [&str; 4] = ["-f", "mp4", "-movflags", "frag_keyframe+empty_moov+default_base_moof"];

fn media(seconds: u32, extra: &[&str]) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("media");
    encode(&path, seconds, extra);
    std::fs::read(path).unwrap()
}

fn received(server: &Server, name: &str, bytes: usize) {
    let all = Some(bytes as u64);
    eventually("what was sent", || state(server, name)["received_bytes"].as_u64() >= all);
}

fn twice(frames: &[String]) -> Vec<String> {
    [frames, frames].concat()
}

#[test]
fn a_final_chunk_or_delete_ends_a_stream_and_a_reset_keeps_it_for_a_while() {
    let server = Server::builder().argument("--reconnect-window", "2 s").start();
    let whole = media(2, &BY_KEYFRAME);
    let key = format!("Bearer {WRITE_KEY}");
    std::thread::scope(|scope| {
        let (server, whole, key) = (&server, &whole, &key);
        for way in ["final", "delete", "reset", "between"] {
            scope.spawn(move || {
                let mut publisher = Chunked::begin(server, &format!("/live/{way}"));
                publisher.send(whole);
                received(server, way, whole.len());
                let viewer = scope.spawn(move || server.get(&format!("/live/{way}/stream?at=-60")));
                eventually("a viewer", || state(server, way)["viewers"] == 1);
                let begun = Instant::now();
                match way {
                    "final" => assert_eq!(publisher.finish().status, 200),
                    "delete" => {
                        let headers = [("Authorization", key.as_str())];
                        let response = server.request("DELETE", "/live/delete", &headers, b"");
                        assert_eq!(response.status, 204);
                        publisher.send(whole);
                        let refused = publisher.0.read_response(false).unwrap();
                        assert_eq!(refused.status, 409, "{refused:?}");
                    }
                    // With a chunk that is not whole, and without one.
                    "reset" => {
                        publisher.0.send(b"fffff\r\nabc").unwrap();
                        drop(publisher);
                    }
                    _ => drop(publisher),
                }
                let viewer = viewer.join().unwrap();
                assert!(viewer.complete, "{way}: the viewer's body broke off");
                let kept = matches!(way, "reset" | "between");
                assert!(!kept || begun.elapsed() >= Duration::from_millis(1900), "{way}: {:?}", begun.elapsed());
                assert!(oracle::decode(&viewer.body) == oracle::decode(whole), "{way}: other frames");
                assert_eq!(state(server, way)["state"], "ended", "{way}");
            });
        }
    });
}

#[test]
fn who_is_silent_for_five_seconds_may_be_replaced() {
    let server = Server::builder().start();
    let (init, parts) = fragments(&media(2, &BY_KEYFRAME));
    let whole = [&init[..], &parts.concat()].concat();
    let mut silent = Chunked::begin(&server, "/live/cam");
    let begun = Instant::now();
    silent.send(&whole);
    received(&server, "cam", whole.len());
    let mut refused = 0;
    loop {
        let mut second = Chunked::begin(&server, "/live/cam");
        second.send(&whole);
        match second.finish().status {
            200 => break,
            status => assert_eq!(status, 409),
        }
        refused += 1;
        assert!(begun.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(refused > 0 && begun.elapsed() >= Duration::from_secs(5), "{refused} in {:?}", begun.elapsed());
    silent.send(&parts[0]);
    let late = silent.0.read_response(false).unwrap();
    assert_eq!(late.status, 409, "{late:?}");
    assert_eq!(state(&server, "cam")["discontinuities"], 1);
    let frames = oracle::decode(&server.get("/live/cam/stream?at=-60").body);
    assert!(frames == twice(&oracle::decode(&whole)), "{} frames", frames.len());
}

/// Fragments alone, as from an encoder that sets its clock: no init segment says that something begins anew.
#[test]
fn times_of_fragments_that_jump_and_run_backwards() {
    let server = Server::builder().start();
    let (init, parts) = fragments(&media(3, &BY_KEYFRAME));
    let ahead = fragments(&media(3, &[&BY_KEYFRAME[..], &["-output_ts_offset", "5000"]].concat())).1;
    let sent = oracle::decode(&[&init[..], &parts.concat()].concat());
    for (name, behind) in [("backwards", &parts), ("ahead", &ahead)] {
        let whole = [&init[..], &parts.concat(), &behind.concat()].concat();
        let mut publisher = Chunked::begin(&server, &format!("/live/{name}"));
        publisher.send(&whole);
        received(&server, name, whole.len());
        assert_eq!(publisher.finish().status, 200, "{name}");
        let status = state(&server, name);
        assert_eq!(status["discontinuities"], 1, "{name}: {status}");
        let to = status["window"]["to"].as_f64().unwrap();
        assert!((5.9..6.3).contains(&to), "{name} ends at {to} s");
        let viewer = server.get(&format!("/live/{name}/stream?at=-60")).body;
        plays(&viewer, name, 2);
        assert!(oracle::decode(&viewer) == twice(&sent), "{name}: other frames");
        let text = server.get(&format!("/live/{name}/index.m3u8")).text();
        assert_eq!(text.matches("#EXT-X-DISCONTINUITY\n").count(), 1, "{name}: {text}");
        let id = status["recording"]["video"].as_str().unwrap().to_owned();
        plays(&server.get(&format!("/videos/{id}/file")).body, name, 2);
    }
    assert_eq!(server.metric("weir_discontinuities"), 2.0);
}

#[test]
fn a_stream_begins_at_its_first_keyframe_also_in_fragments() {
    let server = Server::builder().start();
    let cut = ["-f", "mp4", "-movflags", "empty_moov+default_base_moof", "-frag_duration", "100000", "-g", "25"];
    let (init, parts) = fragments(&media(3, &[&cut[..], &["-sc_threshold", "0"]].concat()));
    let mut publisher = Chunked::begin(&server, "/live/cam");
    publisher.send(&init);
    parts[1..].iter().for_each(|part| publisher.send(part));
    assert_eq!(publisher.finish().status, 200);
    let viewer = server.get("/live/cam/stream?at=-60").body;
    // The second keyframe is frame 25.
    let sent = oracle::decode(&[&init[..], &parts.concat()].concat());
    assert!(oracle::decode(&viewer) == sent[25..], "other frames");
    assert!(server.get("/live/cam/index.m3u8").text().contains("INDEPENDENT=YES"));
    // One that never sends any shows nothing, and ends like any other.
    let mut never = Chunked::begin(&server, "/live/never");
    never.send(&[&init[..], &parts[1], &parts[2]].concat());
    eventually("the publisher", || state(&server, "never")["state"] == "live");
    assert_eq!(state(&server, "never")["window"]["bytes"], 0);
    assert_eq!(never.finish().status, 200);
    assert_eq!(server.get("/live/never/stream").body.len(), 0);
}

#[test]
fn buffers_of_a_byte_cost_no_more_than_their_bytes() {
    let server = Server::builder().argument("--record", "false").start();
    for (name, media) in [("mp4", media(2, &BY_KEYFRAME)), ("ts", media(2, &["-f", "mpegts"]))] {
        let before = server.metric("weir_bytes_copied_total");
        let mut publisher = Chunked::begin(&server, &format!("/live/{name}"));
        let chunks: Vec<u8> = media.iter().flat_map(|byte| [b'1', b'\r', b'\n', *byte, b'\r', b'\n']).collect();
        publisher.0.send(&chunks).unwrap();
        assert_eq!(publisher.finish().status, 200);
        let written = server.metric("weir_writes_total");
        let viewer = server.get(&format!("/live/{name}/stream?at=-60")).body;
        let writes = server.metric("weir_writes_total") - written;
        assert!(oracle::decode(&viewer) == oracle::decode(&media), "{name}: other frames");
        assert!(coded_frames(&viewer, "a") == coded_frames(&media, "a"), "{name}: other sound");
        // A viewer gets parts, not bytes; and they were joined once.
        assert!(writes < 1000.0, "{name}: {writes} writes");
        let copied = server.metric("weir_bytes_copied_total") - before;
        assert!(copied < 3.0 * media.len() as f64, "{name}: {copied} bytes copied of {}", media.len());
    }
}

/// libfaketime, which moves the clock on the wall for one process.
fn faketime() -> PathBuf {
    let directories = std::fs::read_dir("/usr/lib").unwrap().map(|entry| entry.unwrap().path());
    let mut found =
        directories.map(|directory| directory.join("faketime/libfaketimeMT.so.1")).filter(|path| path.exists());
    found.next().expect("libfaketime; tests/run.sh installs it")
}

#[test]
fn a_clock_on_the_wall_that_jumps_a_day_disturbs_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let clock = directory.path().join("clock");
    std::fs::write(&clock, "+0\n").unwrap();
    let builder = Server::builder().argument("--reconnect-window", "20 s").argument("--record-max-age", "1 h");
    let server = builder
        .variable("LD_PRELOAD", faketime().to_str().unwrap())
        .variable("FAKETIME_TIMESTAMP_FILE", clock.to_str().unwrap())
        .variable("FAKETIME_NO_CACHE", "1")
        .variable("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .variable("NO_FAKE_STAT", "1")
        .start();
    let (init, parts) = fragments(&media(12, &BY_KEYFRAME));
    // A recording that is there already must not be found too old.
    let mut earlier = Chunked::begin(&server, "/live/earlier");
    earlier.send(&[&init[..], &parts[0]].concat());
    assert_eq!(earlier.finish().status, 200);
    let date = || server.get("/live").header("date").unwrap()[5..16].to_owned();
    let today = date();
    let mut publisher = Chunked::begin(&server, "/live/cam");
    publisher.send(&init);
    let third = parts.len() / 3;
    for (n, part) in parts.iter().enumerate() {
        match n {
            n if n == third => std::fs::write(&clock, "+86400\n").unwrap(),
            n if n == 2 * third => std::fs::write(&clock, "-86400\n").unwrap(),
            _ => {}
        }
        if n == third + 1 || n == 2 * third + 1 {
            eventually("another day", || date() != today);
            assert_eq!(state(&server, "cam")["state"], "live");
        }
        publisher.send(part);
        std::thread::sleep(Duration::from_millis(20));
    }
    received(&server, "cam", init.len() + parts.concat().len());
    let text = server.get("/live/cam/index.m3u8").text();
    let dates: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("#EXT-X-PROGRAM-DATE-TIME:")).collect();
    let days: std::collections::BTreeSet<&str> = dates.iter().map(|date| &date[..10]).collect();
    // All from one reading of the clock; a run over midnight has two.
    assert!(dates.len() >= 2 && dates.is_sorted() && days.len() <= 2, "{text}");
    assert_eq!(publisher.finish().status, 200);
    let status = state(&server, "cam");
    assert_eq!((&status["discontinuities"], &status["lagged"]), (&0.into(), &0.into()), "{status}");
    let whole = [&init[..], &parts.concat()].concat();
    assert!(oracle::decode(&server.get("/live/cam/stream?at=-60").body) == oracle::decode(&whole));
    assert_eq!(server.get("/videos").json().as_array().unwrap().len(), 2, "neither recording is too old");
    drop(server);
}

#[test]
fn recordings_go_at_their_age() {
    let foreign = media(1, &["-f", "mp4"]);
    let builder = Server::builder().bytes("cam-20260101T000000Z.mp4", &foreign).argument("--record-max-age", "2 s");
    let server = builder.start();
    let mut publisher = Chunked::begin(&server, "/live/cam");
    publisher.send(&media(1, &BY_KEYFRAME));
    assert_eq!(publisher.finish().status, 200);
    assert_eq!(state(&server, "cam")["recording"]["state"], "stopped");
    eventually("the recording to go", || server.metric("weir_recordings_retired_total") == 1.0);
    let left = server.get("/videos").json();
    assert_eq!(left[0]["id"], "cam-20260101T000000Z.mp4", "what Weir did not record stays");
    assert_eq!(left.as_array().unwrap().len(), 1);
}

#[test]
fn a_server_that_stops_ends_its_streams_and_keeps_what_came() {
    let mut server = Server::builder().argument("--drain-limit", "25 s").start();
    let whole = media(6, &BY_KEYFRAME);
    let mut publisher = Chunked::begin(&server, "/live/cam");
    publisher.send(&whole);
    received(&server, "cam", whole.len());
    std::thread::scope(|scope| {
        let media = server.media;
        let get = |target: &'static str| scope.spawn(move || Connection::open(media).get(target));
        let (viewer, held) = (get("/live/cam/stream?at=-60"), get("/live/cam/index.m3u8?_HLS_msn=2"));
        eventually("both", || state(&server, "cam")["viewers"] == 1);
        std::thread::sleep(Duration::from_millis(300));
        let begun = Instant::now();
        assert!(server.terminate().success(), "exit code 0");
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}: the deadline was needed", begun.elapsed());
        let (viewer, held) = (viewer.join().unwrap(), held.join().unwrap());
        assert!(viewer.complete && oracle::decode(&viewer.body) == oracle::decode(&whole), "viewers get all of it");
        assert!(matches!(held.status, 200 | 503), "{held:?}");
    });
    server.restart();
    let videos = server.get("/videos").json();
    let id = videos[0]["id"].as_str().unwrap();
    let recording = server.get(&format!("/videos/{id}/file")).body;
    assert!(oracle::decode(&recording) == oracle::decode(&whole), "the recording has all of it");
    plays(&recording, "stopped", 2);
}
