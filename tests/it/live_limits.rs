//! What bounds live streams: the memory of windows and what is read back from recordings, how long recordings are kept,
//! viewers that take nothing, many publishers at once, and clocks that publishers get wrong.

use crate::support::client::{Connection, request_head};
use crate::support::oracle;
use crate::support::publisher::{Chunked, coded_frames, encode, eventually, fragments, plays, slow_viewer, state};
use crate::support::server::{Server, WRITE_KEY};
use std::io::Read;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

const FRAGMENTED: [&str; 4] = ["-f", "mp4", "-movflags", "frag_keyframe+empty_moov+default_base_moof"];

/// Encoded by ffmpeg into the container that the arguments say.
fn media(seconds: u32, extra: &[&str]) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("media");
    encode(&path, seconds, extra);
    std::fs::read(path).unwrap()
}

/// Publishes a stream in one go; viewers have it until its end.
fn publish(server: &Server, name: &str, media: &[u8]) {
    let mut publisher = Chunked::begin(server, &format!("/live/{name}"));
    media.chunks(64 << 10).for_each(|bytes| publisher.send(bytes));
    let response = publisher.finish();
    assert_eq!(response.status, 200, "{name}: {response:?}");
}

/// Not faster than a recorder can follow where the memory is very small.
fn slowly(publisher: &mut Chunked, media: &[u8]) {
    for bytes in media.chunks(8 << 10) {
        publisher.send(bytes);
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

fn end(server: &Server, name: &str) {
    let key = format!("Bearer {WRITE_KEY}");
    server.request("DELETE", &format!("/live/{name}"), &[("Authorization", &key)], b"");
}

fn videos(server: &Server) -> Vec<String> {
    let list = server.get("/videos").json();
    list.as_array().unwrap().iter().map(|video| video["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn what_left_the_memory_is_read_from_the_recording() {
    let server = Server::builder().argument("--window-bytes", "100 KiB").argument("--window-seconds", "1 h").start();
    for (name, media) in [("mp4", media(8, &FRAGMENTED)), ("ts", media(8, &["-f", "mpegts"]))] {
        let mut publisher = Chunked::begin(&server, &format!("/live/{name}"));
        let (now, later) = media.split_at(media.len() * 3 / 4);
        slowly(&mut publisher, now);
        eventually("parts", || state(&server, name)["window"]["to"].as_f64() > Some(5.5));
        let status = state(&server, name);
        assert!(status["window"]["bytes"].as_u64() < Some(140 << 10), "{status}");
        assert!(status["window"]["from"].as_f64() > Some(2.0), "{status}");
        assert_eq!(status["window"]["first_byte"], 0, "{status}");
        let (whole, some) = std::thread::scope(|scope| {
            let server = &server;
            let whole = scope.spawn(move || server.get(&format!("/live/{name}/stream?at=-3600")).body);
            let some = scope.spawn(move || server.get(&format!("/live/{name}/stream?at=-4")).body);
            std::thread::sleep(std::time::Duration::from_millis(500));
            slowly(&mut publisher, later);
            assert_eq!(publisher.finish().status, 200);
            (whole.join().unwrap(), some.join().unwrap())
        });
        let sent = oracle::decode(&media);
        assert!(oracle::decode(&whole) == sent, "{name}: other frames");
        assert!(coded_frames(&whole, "a") == coded_frames(&media, "a"), "{name}: other sound");
        let some = oracle::decode(&some);
        assert!(some.len() > 100 && some.len() < sent.len() && sent.ends_with(&some), "{name}: {}", some.len());
    }
}

#[test]
fn all_windows_together_are_bounded() {
    let builder = Server::builder().argument("--live-bytes-max", "400 KiB").argument("--record", "false");
    let server = builder.start();
    let media = media(8, &FRAGMENTED);
    assert!(media.len() > 200 << 10);
    let (init, parts) = fragments(&media);
    let mut publishers: Vec<Chunked> = (0..4).map(|n| Chunked::begin(&server, &format!("/live/cam{n}"))).collect();
    publishers.iter_mut().for_each(|publisher| publisher.send(&init));
    for part in &parts {
        publishers.iter_mut().for_each(|publisher| publisher.send(part));
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let sent = (init.len() + parts.concat().len()) as u64;
    let all = || (0..4).map(|n| state(&server, &format!("cam{n}")));
    eventually("all of it", || all().all(|state| state["received_bytes"].as_u64() >= Some(sent)));
    let bytes: Vec<u64> = all().map(|state| state["window"]["bytes"].as_u64().unwrap()).collect();
    // A part more for each: what came last always stays.
    assert!(bytes.iter().sum::<u64>() < 700 << 10, "{bytes:?}");
    assert!(bytes.iter().all(|bytes| *bytes > 30 << 10), "{bytes:?}");
}

/// ffmpeg puts all pictures of a fragment in front of its sound, so nothing of it can be watched until the sound comes;
/// pictures alone go on part by part while they arrive.
#[test]
fn a_fragment_that_does_not_fit_ends_its_publisher_and_one_that_is_divided_does_not() {
    const BOUND: u64 = 2 << 20;
    let server = Server::builder().argument("--window-bytes", "2 MiB").argument("--record", "false").start();
    let noise = ["-vf", "scale=320:180,noise=alls=90:allf=t", "-crf", "5", "-g", "1500", "-sc_threshold", "0"];
    let one_fragment = |extra: &[&str]| media(4, &[&noise[..], &FRAGMENTED, extra].concat());
    let (with_sound, pictures) = (one_fragment(&[]), one_fragment(&["-an"]));
    assert!(fragments(&with_sound).1.len() == 1 && with_sound.len() > 3 << 20, "{} bytes", with_sound.len());
    let mut refused = Chunked::begin(&server, "/live/refused");
    with_sound.chunks(64 << 10).for_each(|bytes| refused.send(bytes));
    let response = refused.finish();
    assert_eq!((response.status, response.json()["limit_bytes"].as_u64()), (413, Some(BOUND)), "{response:?}");
    let detail = response.problem();
    let position: u64 = detail.split("at byte ").nth(1).unwrap().split(';').next().unwrap().parse().unwrap();
    assert!((BOUND..BOUND + (512 << 10)).contains(&position), "{detail}");
    assert_eq!(state(&server, "refused")["publisher"], serde_json::Value::Null);
    assert_eq!(server.metric("weir_live_bytes"), 0.0, "nothing of it is kept");
    let mut divided = Chunked::begin(&server, "/live/divided");
    pictures.chunks(64 << 10).for_each(|bytes| divided.send(bytes));
    assert_eq!(divided.finish().status, 200);
    let status = state(&server, "divided");
    assert!(status["window"]["to"].as_f64() > Some(3.9), "{status}");
}

#[test]
fn recordings_are_kept_as_long_as_configured() {
    let foreign = media(1, &["-f", "mp4"]);
    let recorded = media(2, &FRAGMENTED);
    let limit = (recorded.len() * 5 / 2).to_string();
    let builder = Server::builder().bytes("cam-20260101T000000Z.mp4", &foreign).argument("--record-max-bytes", &limit);
    let mut server = builder.start();
    for name in ["a", "b"] {
        publish(&server, name, &recorded);
    }
    assert_eq!(videos(&server).len(), 3);
    // The list survives a restart.
    assert!(server.terminate().success());
    server.restart();
    publish(&server, "c", &recorded);
    eventually("the oldest to go", || videos(&server).len() == 3);
    let kept = videos(&server);
    assert!(kept[0].starts_with("b-") && kept[1].starts_with("c-"), "{kept:?}");
    assert_eq!(server.metric("weir_recordings_retired_total"), 1.0);
    // All but the index that ffmpeg puts behind the last fragment.
    assert!(server.metric("weir_recorded_bytes_total") > recorded.len() as f64 * 0.9);
    assert_eq!(kept[2], "cam-20260101T000000Z.mp4", "what Weir did not record is not its own to delete");
}

#[test]
fn a_viewer_that_reads_a_byte_a_second_is_dropped_and_harms_nobody() {
    let builder = Server::builder().argument("--window-bytes", "4 MiB").argument("--record", "false");
    let server = builder.argument("--stall-limit", "3 s").start();
    let noise = media(12, &["-vf", "scale=320:180,noise=alls=90:allf=t", "-crf", "5", "-f", "mpegts"]);
    assert!(noise.len() > 20 << 20, "{} bytes", noise.len());
    let (first, rest) = noise.split_at(3 << 20);
    let mut publisher = Chunked::begin(&server, "/live/cam");
    publisher.send(first);
    eventually("parts", || state(&server, "cam")["window"]["bytes"].as_u64() > Some(0));
    let (mut slow, mut quick) = (slow_viewer(&server, "cam"), Connection::open(server.media));
    quick.send(&request_head("GET", "/live/cam/stream?at=-60", &[], 0)).unwrap();
    eventually("both", || state(&server, "cam")["viewers"] == 2);
    let resident = || server.metric("process_resident_memory_bytes") as u64;
    let (before, over) = (resident(), AtomicBool::new(false));
    let (response, read) = std::thread::scope(|scope| {
        let read = scope.spawn(|| {
            let mut read = 0;
            while !over.load(Relaxed) {
                // What lies in the kernel can still be read behind the end.
                read += slow.read(&mut [0]).unwrap_or(0);
                std::thread::sleep(std::time::Duration::from_secs(1));
            }
            read
        });
        let quick = scope.spawn(|| quick.read_response(false).unwrap());
        // Twice as fast as it is recorded, for longer than the stall limit.
        for bytes in rest.chunks(64 << 10) {
            publisher.send(bytes);
            std::thread::sleep(std::time::Duration::from_millis(14));
        }
        eventually("one viewer to be dropped", || state(&server, "cam")["viewers"] == 1);
        assert_eq!(server.metric("weir_connections_stalled_total"), 1.0);
        let grown = resident().saturating_sub(before);
        assert!(grown < 12 << 20, "{grown} bytes for a window of 4 MiB");
        assert_eq!(publisher.finish().status, 200);
        over.store(true, Relaxed);
        (quick.join().unwrap(), read.join().unwrap())
    });
    assert!(read >= 3, "{read} bytes");
    assert!(oracle::decode(&response.body) == oracle::decode(&noise), "the other viewer has every frame");
}

#[test]
fn two_hundred_publishers_at_once() {
    let server = Server::builder().argument("--record", "false").start();
    let (init, parts) = fragments(&media(2, &FRAGMENTED));
    std::thread::scope(|scope| {
        for group in 0..10 {
            let (server, init, parts) = (&server, &init, &parts);
            scope.spawn(move || {
                let target = |n: usize| format!("/live/cam{}", group * 20 + n);
                let mut publishers: Vec<Chunked> = (0..20).map(|n| Chunked::begin(server, &target(n))).collect();
                publishers.iter_mut().for_each(|publisher| publisher.send(init));
                for part in parts {
                    publishers.iter_mut().for_each(|publisher| publisher.send(part));
                    std::thread::sleep(std::time::Duration::from_millis(100));
                }
                publishers.into_iter().for_each(|publisher| assert_eq!(publisher.finish().status, 200));
            });
        }
    });
    let sent = oracle::decode(&[&init[..], &parts.concat()].concat());
    let list = server.get("/live").json();
    let list = list.as_array().unwrap();
    assert_eq!(list.len(), 200);
    let whole = (init.len() + parts.concat().len()) as u64;
    for stream in list {
        assert_eq!(stream["received_bytes"], whole, "{stream}");
        assert_eq!((&stream["discontinuities"], &stream["window"]["first_byte"]), (&0.into(), &0.into()), "{stream}");
    }
    assert!(oracle::decode(&server.get("/live/cam77/stream?at=-60").body) == sent);
}

/// Two sources behind each other, as an encoder sends that was disturbed.
#[test]
fn clocks_that_jump_wrap_and_run_backwards() {
    let mut server = Server::builder().start();
    let ts = |seconds, extra: &[&str]| media(seconds, &[extra, &["-f", "mpegts"]].concat());
    let plain = ts(2, &[]);
    let other = ["-vf", "scale=320:180"];
    let cases: [(&str, Vec<Vec<u8>>, u64); 6] = [
        ("backwards", vec![plain.clone(), plain.clone()], 1),
        ("far-ahead", vec![plain.clone(), ts(2, &["-output_ts_offset", "5000"])], 1),
        // 2^33 ticks of 90 kHz are 95,443.7 s.
        ("wraps", vec![ts(4, &["-output_ts_offset", "95441"])], 0),
        ("coding", vec![plain.clone(), ts(2, &[&other[..], &["-output_ts_offset", "2"]].concat())], 1),
        ("silent", vec![ts(3, &["-an"])], 0),
        ("long-group", vec![ts(12, &["-g", "1500", "-sc_threshold", "0"])], 0),
    ];
    for (name, pieces, discontinuities) in &cases {
        publish(&server, name, &pieces.concat());
        let status = state(&server, name);
        assert_eq!(status["discontinuities"], *discontinuities, "{name}: {status}");
        let viewer = server.get(&format!("/live/{name}/stream?at=-3600")).body;
        let first = oracle::decode(&pieces[0]);
        let received = oracle::decode(&viewer);
        if *name == "coding" {
            assert!(received == first, "a body ends where the coding changes: {} frames", received.len());
            eventually("two recordings", || videos(&server).iter().filter(|id| id.starts_with("coding")).count() == 2);
        } else {
            let sent: Vec<String> = pieces.iter().flat_map(|piece| oracle::decode(piece)).collect();
            assert!(received == sent, "{name}: {} frames of {}", received.len(), sent.len());
        }
        end(&server, name);
    }
    for id in videos(&server) {
        let complaints = complaints(&server.library().join(&id));
        assert!(complaints.is_empty(), "{id}: {complaints}");
        assert_eq!(server.get(&format!("/videos/{id}/seek?time=1")).status, 200, "{id}");
    }
    let twice = media(2, &FRAGMENTED);
    publish(&server, "mp4", &twice.repeat(2));
    assert_eq!(state(&server, "mp4")["discontinuities"], 1);
    let viewer = server.get("/live/mp4/stream?at=-3600").body;
    plays(&viewer, "twice", 2);
    let once = oracle::decode(&twice);
    assert!(oracle::decode(&viewer) == [&once[..], &once[..]].concat());
    server.assert_alive("clocks");
}

/// What ffprobe says while it reads every packet.
fn complaints(file: &Path) -> String {
    let output =
        Command::new("ffprobe").args(["-v", "error", "-show_packets", "-of", "csv"]).arg(file).output().unwrap();
    String::from_utf8_lossy(&output.stderr).into_owned()
}
