//! The window at its edges: viewers that are too slow for it, writes that are merged, and playlists of what has left the
//! memory, of one group of pictures that lasts a minute, after a publisher's return and after a crash of the server.

use crate::support::oracle;
use crate::support::publisher::{BY_FRAME, Chunked, encode, eventually, fragments, slow_viewer, state};
use crate::support::server::Server;
use std::io::Read;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

const BY_KEYFRAME: [&str; 4] = ["-f", "mp4", "-movflags", "frag_keyframe+empty_moov+default_base_moof"];
/// About 18 Mb/s.
const NOISE: [&str; 6] = ["-vf", "scale=320:180,noise=alls=90:allf=t", "-crf", "5", "-f", "mpegts"];
const PACKET: usize = 188;

fn media(seconds: u32, extra: &[&str]) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("media");
    encode(&path, seconds, extra);
    std::fs::read(path).unwrap()
}

/// Reads while `may_read` says so, to the end of the body.
fn read_when(mut viewer: TcpStream, may_read: &AtomicBool) -> Vec<u8> {
    let (mut all, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(60) {
        if !may_read.load(Relaxed) {
            std::thread::sleep(Duration::from_millis(5));
            continue;
        }
        match viewer.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => all.extend_from_slice(&buffer[..n]),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "{error}"),
        }
    }
    let head = all.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
    all.split_off(head)
}

/// Each PID's packets with a payload are counted on, but where a discontinuity is announced; how often one is.
fn announced(body: &[u8]) -> usize {
    let (mut last, mut announced) = (std::collections::HashMap::new(), 0);
    for packet in body.chunks(PACKET) {
        assert!(packet.len() == PACKET && packet[0] == 0x47, "not whole packets");
        let pid = u16::from(packet[1] & 0x1f) << 8 | u16::from(packet[2]);
        let discontinuity = packet[3] & 0x20 != 0 && packet[4] > 0 && packet[5] & 0x80 != 0;
        announced += usize::from(discontinuity);
        let before = last.insert(pid, packet[3] & 15).filter(|_| !discontinuity && (0x100..0x1000).contains(&pid));
        if let Some(before) = before {
            assert_eq!(packet[3] & 15, (before + (packet[3] >> 4 & 1)) & 15, "PID {pid:#x}");
        }
    }
    announced
}

#[test]
fn who_falls_behind_skips_to_a_keyframe_and_is_ended_when_it_does_so_again() {
    let builder = Server::builder().argument("--window-bytes", "1536 KiB").argument("--record", "false");
    let server = builder.argument("--lags-max", "1").start();
    let noise = media(16, &NOISE);
    let mut publisher = Chunked::begin(&server, "/live/cam");
    let mut sent = 0;
    let mut send = |publisher: &mut Chunked, count: usize| {
        for bytes in noise[sent..sent + count].chunks(64 << 10) {
            publisher.send(bytes);
        }
        sent += count;
        eventually("what was sent", || state(&server, "cam")["received_bytes"].as_u64() >= Some(sent as u64));
    };
    send(&mut publisher, 1 << 20);
    let (viewer, may_read) = (slow_viewer(&server, "cam"), AtomicBool::new(false));
    let received = std::thread::scope(|scope| {
        let viewer = scope.spawn(|| read_when(viewer, &may_read));
        eventually("a viewer", || state(&server, "cam")["viewers"] == 1);
        send(&mut publisher, 6 << 20);
        may_read.store(true, Relaxed);
        eventually("a skip", || state(&server, "cam")["lagged"] == 1);
        may_read.store(false, Relaxed);
        assert_eq!(state(&server, "cam")["viewers"], 1, "one skip is allowed");
        send(&mut publisher, 6 << 20);
        may_read.store(true, Relaxed);
        viewer.join().unwrap()
    });
    let status = state(&server, "cam");
    assert_eq!((&status["state"], &status["lagged"]), (&"live".into(), &2.into()), "{status}");
    assert_eq!(server.metric("weir_viewer_lags"), 2.0);
    assert!(announced(&received) >= 2, "pictures and sound begin anew behind the gap");
    let (all, frames) = (oracle::decode(&noise), oracle::decode(&received));
    let mut rest = all.iter();
    assert!(frames.iter().all(|frame| rest.any(|other| other == frame)), "a frame that was not sent, or no order");
    assert!(frames.len() > 12 && frames.len() < all.len() / 2, "{} frames", frames.len());
    assert_eq!(publisher.finish().status, 200);
}

#[test]
fn who_takes_nothing_is_dropped_at_the_stall_limit() {
    let builder = Server::builder().argument("--window-bytes", "2 MiB").argument("--record", "false");
    let server = builder.argument("--stall-limit", "3 s").start();
    let noise = media(12, &NOISE);
    let mut publisher = Chunked::begin(&server, "/live/cam");
    // More than a part: the end of one is known by the beginning of the next.
    publisher.send(&noise[..4 << 20]);
    eventually("parts", || state(&server, "cam")["window"]["bytes"].as_u64() > Some(0));
    let begun = Instant::now();
    let stuck = slow_viewer(&server, "cam");
    eventually("a viewer", || state(&server, "cam")["viewers"] == 1);
    let mut pieces = noise[4 << 20..].chunks(16 << 10);
    eventually("nobody", || {
        // Something to write is always there, and the publisher is not silent.
        pieces.next().into_iter().for_each(|piece| publisher.send(piece));
        state(&server, "cam")["viewers"] == 0
    });
    assert!(begun.elapsed() > Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(server.metric("weir_connections_stalled_total"), 1.0);
    drop(stuck);
    assert_eq!(publisher.finish().status, 200);
}

#[test]
fn merged_writes_are_few_and_have_every_frame() {
    let server = Server::builder().argument("--merge-write", "400 ms").argument("--record", "false").start();
    let whole = media(5, &["-an", "-f", "mp4", "-movflags", BY_FRAME]);
    let (init, parts) = fragments(&whole);
    assert_eq!(parts.len(), 125);
    let mut publisher = Chunked::begin(&server, "/live/cam");
    publisher.send(&[&init[..], &parts[0]].concat());
    eventually("a part", || state(&server, "cam")["window"]["bytes"].as_u64() > Some(0));
    let received = std::thread::scope(|scope| {
        let viewer = scope.spawn(|| server.get("/live/cam/stream").body);
        eventually("a viewer", || state(&server, "cam")["viewers"] == 1);
        let before = server.metric("weir_writes_total");
        for part in &parts[1..] {
            publisher.send(part);
            std::thread::sleep(Duration::from_millis(20));
        }
        let writes = server.metric("weir_writes_total") - before;
        assert!(writes < parts.len() as f64 / 2.0, "{writes} writes for {} parts", parts.len());
        assert_eq!(publisher.finish().status, 200);
        viewer.join().unwrap()
    });
    assert!(oracle::decode(&received) == oracle::decode(&whole), "other frames");
}

/// Names of segments on a playlist, with their numbers.
fn segments(text: &str) -> Vec<(u64, String)> {
    let number = |name: &str| name.split(['-', '.']).nth(1)?.parse().ok();
    let names = text.lines().filter(|line| !line.starts_with('#'));
    names.map(|name| (number(name).unwrap(), name.to_owned())).collect()
}

fn value(text: &str, tag: &str) -> u64 {
    text.lines().find_map(|line| line.strip_prefix(tag)?.parse().ok()).unwrap_or_else(|| panic!("no {tag} in {text}"))
}

fn playlist(server: &Server, name: &str) -> String {
    server.get(&format!("/live/{name}/index.m3u8")).text()
}

/// The bytes of all segments of a playlist, behind their init segment.
fn joined(server: &Server, name: &str, text: &str) -> Vec<u8> {
    let map = text.lines().find_map(|line| line.strip_prefix("#EXT-X-MAP:URI=\"")?.strip_suffix('"'));
    let all = map.map(str::to_owned).into_iter().chain(segments(text).into_iter().map(|(_, name)| name));
    let get = |resource: String| {
        let response = server.get(&format!("/live/{name}/{resource}"));
        assert_eq!(response.status, 200, "{name}/{resource}: {response:?}");
        response.body
    };
    all.flat_map(get).collect()
}

/// Sends a stream to its end, with a pause behind every 8 KiB: where the memory is small, not faster than a recorder
/// follows.
fn publish(server: &Server, name: &str, media: &[u8], pause_ms: u64) {
    let mut publisher = Chunked::begin(server, &format!("/live/{name}"));
    for bytes in media.chunks(8 << 10) {
        publisher.send(bytes);
        std::thread::sleep(Duration::from_millis(pause_ms));
    }
    assert_eq!(publisher.finish().status, 200, "{name}");
}

#[test]
fn segments_that_left_the_memory_are_read_from_the_recording() {
    let server = Server::builder().argument("--window-bytes", "150 KiB").argument("--window-seconds", "1 h").start();
    for (name, media) in [("mp4", media(14, &BY_KEYFRAME)), ("ts", media(14, &["-f", "mpegts"]))] {
        publish(&server, name, &media, 50);
        let status = state(&server, name);
        assert!(status["window"]["from"].as_f64() > Some(2.0), "{status}");
        let text = playlist(&server, name);
        assert_eq!(segments(&text)[0].0, 0, "{text}");
        let decoded = oracle::decode(&joined(&server, name, &text));
        assert!(decoded == oracle::decode(&media), "{name}: {} frames", decoded.len());
    }
}

#[test]
fn a_group_of_pictures_that_lasts_a_minute_is_cut_without_keyframes() {
    let server = Server::builder().argument("--window-seconds", "120 s").start();
    let group = ["-g", "3000", "-sc_threshold", "0", "-keyint_min", "3000"];
    for (name, container) in [("mp4", &BY_KEYFRAME[..]), ("ts", &["-f", "mpegts"])] {
        let media = media(60, &[&group[..], container].concat());
        publish(&server, name, &media, 0);
        let text = playlist(&server, name);
        let target = value(&text, "#EXT-X-TARGETDURATION:");
        let lengths = text.lines().filter_map(|line| line.strip_prefix("#EXTINF:")?.trim_end_matches(',').parse().ok());
        let lengths: Vec<f64> = lengths.collect();
        assert!(lengths.len() >= 14 && (lengths.iter().sum::<f64>() - 60.0).abs() < 0.1, "{name}: {lengths:?}");
        assert!(lengths.iter().all(|length| length.round() as u64 <= target), "{name}: {lengths:?} of {target}");
        // Of the parts that are still listed none but the first of all would be a place to join.
        assert!(text.contains("#EXT-X-PART:") && !text.contains("INDEPENDENT=YES"), "{name}: {text}");
        assert_eq!(state(&server, name)["discontinuities"], 0);
        let decoded = oracle::decode(&joined(&server, name, &text));
        assert!(decoded == oracle::decode(&media), "{name}: {} frames", decoded.len());
    }
}

#[test]
fn playlists_go_on_when_the_publisher_returns_and_after_a_crash_of_the_server() {
    let mut server = Server::builder().start();
    let (init, parts) = fragments(&media(9, &BY_KEYFRAME));
    let whole = [&init[..], &parts.concat()].concat();
    let numbers = |text: &str| {
        let last = segments(text).last().unwrap().0;
        (value(text, "#EXT-X-MEDIA-SEQUENCE:"), value(text, "#EXT-X-DISCONTINUITY-SEQUENCE:"), last)
    };
    let send = |server: &Server, rounds: u64| {
        let mut publisher = Chunked::begin(server, "/live/cam");
        publisher.send(&whole);
        let all = Some(whole.len() as u64 * rounds);
        eventually("all of it", || state(server, "cam")["received_bytes"].as_u64() >= all);
        publisher
    };
    let first = send(&server, 1);
    let before = playlist(&server, "cam");
    let get = |(_, name): &(u64, String)| server.get(&format!("/live/cam/{name}")).body;
    let known: Vec<Vec<u8>> = segments(&before).iter().map(get).collect();
    drop(first);
    eventually("waiting", || state(&server, "cam")["state"] == "waiting");
    let second = send(&server, 2);
    let returned = playlist(&server, "cam");
    assert_eq!(returned.lines().filter(|line| *line == "#EXT-X-DISCONTINUITY").count(), 1, "{returned}");
    let ((msn, discontinuity, last), (msn_now, discontinuity_now, last_now)) = (numbers(&before), numbers(&returned));
    assert!(msn_now >= msn && discontinuity_now >= discontinuity && last_now > last, "{before}\n{returned}");
    for ((_, name), bytes) in segments(&before).iter().zip(&known) {
        assert!(server.get(&format!("/live/cam/{name}")).body == *bytes, "{name} has other bytes");
    }
    server.kill();
    drop(second);
    server.restart();
    let third = send(&server, 1);
    let restarted = playlist(&server, "cam");
    let (msn_then, discontinuity_then, _) = numbers(&restarted);
    assert!(msn_then > last_now && discontinuity_then >= discontinuity_now, "{returned}\n{restarted}");
    for (_, name) in segments(&returned) {
        assert_eq!(server.get(&format!("/live/cam/{name}")).status, 404, "{name} of before the crash");
    }
    assert_eq!(third.finish().status, 200);
}
