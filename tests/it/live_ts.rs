//! Live streams of MPEG-TS over HTTP and TCP: what viewers receive decodes to what was sent.

use crate::support::client::Connection;
use crate::support::oracle;
use crate::support::server::{Server, WRITE_KEY};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PACKET: usize = 188;

/// Four seconds with B-frames and sound, a keyframe every half second.
fn source(directory: &Path) -> PathBuf {
    let path = directory.join("source.ts");
    let input = ["-f", "lavfi", "-i", "testsrc2=s=160x90:r=25", "-f", "lavfi", "-i", "sine=r=48000", "-t", "4"];
    let coding = ["-c:v", "libx264", "-preset", "ultrafast", "-bf", "2", "-g", "12", "-c:a", "aac", "-f", "mpegts"];
    let status = Command::new("ffmpeg").args(["-v", "error", "-y"]).args(input).args(coding).arg(&path).status();
    assert!(status.unwrap().success());
    path
}

fn push(source: &Path, arguments: &[&str], url: &str) -> Child {
    Command::new("ffmpeg")
        .args(["-nostdin", "-v", "error", "-re", "-i"])
        .arg(source)
        .args(["-c", "copy", "-f", "mpegts", "-flush_packets", "1"])
        .args(arguments)
        .arg(url)
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn push_http(server: &Server, source: &Path, name: &str) -> Child {
    let key = format!("Authorization: Bearer {WRITE_KEY}");
    push(source, &["-method", "PUT", "-headers", &key], &format!("http://{}/live/{name}", server.media))
}

/// Where the server said that publishers of `name` may connect.
fn address(server: &Server, name: &str) -> SocketAddr {
    let log = server.log();
    let found = log.lines().find_map(|line| line.strip_prefix(&format!("publish {name} to tcp://")));
    found.unwrap_or_else(|| panic!("no address of {name} in {log}")).trim().parse().unwrap()
}

fn preamble_address(server: &Server) -> SocketAddr {
    let log = server.log();
    let found = log.lines().find_map(|line| line.strip_prefix("publish to tcp://")?.split(' ').next());
    found.unwrap().parse().unwrap()
}

fn state(server: &Server, name: &str) -> serde_json::Value {
    let response = server.get(&format!("/live/{name}"));
    if response.status == 200 { response.json() } else { serde_json::Value::Null }
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{what} never came");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What a viewer gets until the stream ends.
fn watch(server: &Server, target: &str) -> Vec<u8> {
    let mut connection = Connection::open(server.media);
    let response = connection.get(target);
    assert_eq!(response.header("content-type"), Some("video/mp2t"));
    response.body
}

fn pids(body: &[u8]) -> Vec<u16> {
    assert_eq!(body.len() % PACKET, 0, "not whole packets");
    assert!(body.chunks(PACKET).all(|packet| packet[0] == 0x47), "not in sync");
    body.chunks(PACKET).map(|packet| u16::from(packet[1] & 0x1f) << 8 | u16::from(packet[2])).collect()
}

/// Continuity counters of packets with a payload go up by one, but where a discontinuity is announced.
fn assert_continuous(body: &[u8]) -> usize {
    let mut last = std::collections::HashMap::new();
    let mut announced = 0;
    for (packet, pid) in body.chunks(PACKET).zip(pids(body)) {
        let (adaptation, payload) = (packet[3] & 0x20 != 0, packet[3] & 0x10 != 0);
        let discontinuity = adaptation && packet[4] > 0 && packet[5] & 0x80 != 0;
        announced += usize::from(discontinuity);
        let counter = packet[3] & 15;
        // Tables may be repeated; they carry no media.
        if let Some(before) = last.insert(pid, counter).filter(|_| !discontinuity && (0x100..0x1000).contains(&pid)) {
            assert_eq!(counter, (before + u8::from(payload)) & 15, "PID {pid:#x}");
        }
    }
    announced
}

fn assert_begins_at_a_keyframe(body: &[u8]) {
    assert_eq!(pids(body)[..3], [0, 0x1000, 0x100], "PAT, PMT, video");
    assert!(body[2 * PACKET + 5] & 0x40 != 0, "random_access_indicator");
}

/// Decode times of the packets of each stream, as ffprobe reads them.
fn assert_times_advance(body: &[u8]) {
    let packets = oracle::probe(body, &["-show_entries", "packet=stream_index,dts"]);
    let packets = packets["packets"].as_array().unwrap();
    assert!(packets.len() > 100);
    let mut last = std::collections::HashMap::new();
    for packet in packets {
        let (track, dts) = (packet["stream_index"].as_u64().unwrap(), packet["dts"].as_i64().unwrap());
        if let Some(before) = last.insert(track, dts) {
            assert!(dts > before, "track {track}: {dts} after {before}");
        }
    }
}

#[test]
fn viewers_get_the_frames_that_were_sent() {
    let server = Server::builder()
        .argument("--tcp", "bare=127.0.0.1:0")
        .argument("--tcp-preamble", "127.0.0.1:0")
        .argument("--reconnect-window", "1 s")
        .start();
    let directory = tempfile::tempdir().unwrap();
    let source = source(directory.path());
    let sent = oracle::decode(&std::fs::read(&source).unwrap());
    assert_eq!(sent.len(), 100);
    std::thread::scope(|scope| {
        for name in ["http", "bare", "asked"] {
            let (server, source, sent) = (&server, &source, &sent);
            scope.spawn(move || {
                let mut publisher = match name {
                    "http" => push_http(server, source, name),
                    "bare" => push(source, &[], &format!("tcp://{}", address(server, name))),
                    _ => with_preamble(server, source, name),
                };
                eventually("the first part", || state(server, name)["window"]["bytes"].as_u64() > Some(0));
                let target = format!("/live/{name}/stream?at=-30");
                let early = scope.spawn(move || watch(server, &target));
                std::thread::sleep(Duration::from_secs(1));
                let late = watch(server, &format!("/live/{name}/stream"));
                assert!(publisher.wait().unwrap().success());
                let early = early.join().unwrap();
                for body in [&early, &late] {
                    assert_begins_at_a_keyframe(body);
                    assert_continuous(body);
                    assert_times_advance(body);
                }
                assert_eq!(oracle::decode(&early), *sent, "{name}: from the beginning");
                let late = oracle::decode(&late);
                assert!(late.len() > 20 && sent.ends_with(&late), "{name}: {} frames are no tail", late.len());
                let state = state(server, name);
                assert_eq!((&state["state"], &state["discontinuities"]), (&"ended".into(), &0.into()), "{name}");
                assert_eq!(state["container"], "ts");
                let probed = oracle::probe(&std::fs::read(source).unwrap(), &["-show_streams", "-select_streams", "a"]);
                let (sound, probed) = (&state["tracks"][1], &probed["streams"][0]);
                assert_eq!(sound["sample_rate"].to_string(), probed["sample_rate"].as_str().unwrap(), "{name}");
                assert_eq!(sound["channels"], probed["channels"], "{name}");
                let to = state["window"]["to"].as_f64().unwrap() - state["window"]["from"].as_f64().unwrap();
                assert!((to - 4.0).abs() < 0.01, "{name}: {to} s");
            });
        }
    });
}

/// ffmpeg cannot send a line first: a thread stands between.
fn with_preamble(server: &Server, source: &Path, name: &str) -> Child {
    let mut publisher = Command::new("ffmpeg")
        .args(["-nostdin", "-v", "error", "-re", "-i"])
        .arg(source)
        .args(["-c", "copy", "-f", "mpegts", "-flush_packets", "1", "-"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = publisher.stdout.take().unwrap();
    let mut socket = TcpStream::connect(preamble_address(server)).unwrap();
    writeln!(socket, "PUBLISH {name} {WRITE_KEY}").unwrap();
    std::thread::spawn(move || std::io::copy(&mut output, &mut socket));
    publisher
}

#[test]
fn a_publisher_that_dies_and_returns_goes_on_in_the_same_stream() {
    let server = Server::builder().argument("--tcp", "cam=127.0.0.1:0").start();
    let directory = tempfile::tempdir().unwrap();
    let source = source(directory.path());
    let sent = oracle::decode(&std::fs::read(&source).unwrap());
    let start = |name: &str| match name {
        "cam" => push(&source, &[], &format!("tcp://{}", address(&server, name))),
        _ => push_http(&server, &source, name),
    };
    std::thread::scope(|scope| {
        for name in ["cam", "http"] {
            let (server, sent, start) = (&server, &sent, &start);
            scope.spawn(move || {
                let mut first = start(name);
                eventually("two seconds", || state(server, name)["window"]["to"].as_f64() > Some(3.0));
                let target = format!("/live/{name}/stream?at=-30");
                let viewer = scope.spawn(move || watch(server, &target));
                // Child::kill sends SIGKILL.
                first.kill().unwrap();
                first.wait().unwrap();
                eventually("waiting", || state(server, name)["state"] == "waiting");
                let before = state(server, name)["window"]["to"].as_f64().unwrap();
                assert!(start(name).wait().unwrap().success());
                let after = state(server, name);
                let key = format!("Bearer {WRITE_KEY}");
                server.request("DELETE", &format!("/live/{name}"), &[("Authorization", &key)], b"");
                let body = viewer.join().unwrap();
                assert_begins_at_a_keyframe(&body);
                // Video and sound.
                assert_eq!(assert_continuous(&body), 2, "{name}: discontinuities announced");
                let received = oracle::decode(&body);
                let head = received.len() - sent.len();
                assert!(head > 20 && received.ends_with(sent), "{name}: {} frames", received.len());
                assert!(are_some_of(&received[..head], sent), "{name}: before the break");
                assert_eq!(after["discontinuities"], 1, "{name}");
                let to = after["window"]["to"].as_f64().unwrap();
                assert!((to - before - 4.0).abs() < 0.01, "{name}: from {before} to {to}");
            });
        }
    });
}

#[test]
fn a_stream_begins_at_its_first_keyframe() {
    let server = Server::builder().argument("--tcp", "cam=127.0.0.1:0").start();
    let directory = tempfile::tempdir().unwrap();
    let bytes = std::fs::read(source(directory.path())).unwrap();
    let sent = oracle::decode(&bytes);
    // From the middle of the first picture's packets on: 11 pictures come before the second keyframe.
    let mut socket = TcpStream::connect(address(&server, "cam")).unwrap();
    let middle = 30 * PACKET + 57;
    // A viewer's sync is lost on the way in, and found again.
    socket.write_all(&bytes[middle..]).unwrap();
    drop(socket);
    eventually("waiting", || state(&server, "cam")["state"] == "waiting");
    let key = format!("Bearer {WRITE_KEY}");
    let viewer = watch_ended(&server, &key);
    assert_begins_at_a_keyframe(&viewer);
    let received = oracle::decode(&viewer);
    assert_eq!(received.len(), 88);
    assert!(sent.ends_with(&received));
}

/// In the same order. Where a publisher broke off, a picture may be missing whose successor came before it.
fn are_some_of(received: &[String], sent: &[String]) -> bool {
    let mut rest = sent.iter();
    received.iter().all(|frame| rest.any(|sent| sent == frame))
}

/// The whole window of a stream that is ended on the way.
fn watch_ended(server: &Server, key: &str) -> Vec<u8> {
    std::thread::scope(|scope| {
        let viewer = scope.spawn(|| watch(server, "/live/cam/stream?at=-30"));
        eventually("a viewer", || state(server, "cam")["viewers"] == 1);
        server.request("DELETE", "/live/cam", &[("Authorization", key)], b"");
        viewer.join().unwrap()
    })
}

#[test]
fn what_is_no_stream_is_refused_with_a_reason() {
    let mut server = Server::builder()
        .argument("--tcp", "cam=127.0.0.1:0")
        .argument("--tcp-preamble", "127.0.0.1:0")
        .allow("end a publisher")
        .start();
    let ask = |address: SocketAddr, bytes: &[u8]| {
        let mut socket = TcpStream::connect(address).unwrap();
        socket.write_all(bytes).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        answer
    };
    let (bare, asked) = (address(&server, "cam"), preamble_address(&server));
    assert_eq!(ask(asked, b"PUBLISH cam wrong\n"), "ERROR wrong key\n");
    assert_eq!(ask(asked, b"GET / HTTP/1.1\r\n"), "ERROR the first line must be: PUBLISH name key\n");
    assert!(ask(asked, format!("PUBLISH ../cam {WRITE_KEY}\n").as_bytes()).starts_with("ERROR a stream's name"));
    assert!(ask(asked, &[b'P'; 5000]).starts_with("ERROR the first line"));
    // Not text where a box's name would be.
    let garbage: Vec<u8> = (0..200_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8 | 0x80).collect();
    assert!(ask(bare, &garbage).contains("at byte 0"));
    let key = format!("Bearer {WRITE_KEY}");
    let response = server.request("PUT", "/live/cam", &[("Authorization", &key)], &garbage);
    assert_eq!(response.status, 415, "{response:?}");
    assert!(response.problem().contains("MPEG-TS"));
    assert_eq!(server.get("/live/cam").status, 404);
    // A stream that turns to garbage: its window stays, the reason and the place are told.
    let directory = tempfile::tempdir().unwrap();
    let bytes = std::fs::read(source(directory.path())).unwrap();
    let answer = ask(bare, &[&bytes[..], &garbage].concat());
    assert!(answer.contains(&format!("at byte {}", bytes.len())), "{answer}");
    let sent = oracle::decode(&bytes);
    assert_eq!(state(&server, "cam")["state"], "waiting");
    let received = oracle::decode(&watch_ended(&server, &key));
    assert!(received.len() >= sent.len() - 1 && are_some_of(&received, &sent), "{} frames", received.len());
    assert!(server.log().contains(&format!("at byte {}", bytes.len())));
    server.assert_alive("garbage");
}

/// Players that take each part for itself find the sets of its pictures in it, and the counters go on.
#[test]
fn every_part_has_the_parameter_sets_of_its_pictures() {
    let server = Server::builder().argument("--segment-target", "4 s").argument("--part-target", "500 ms").start();
    let directory = tempfile::tempdir().unwrap();
    // A keyframe in four seconds; delimiters and lengths of PES packets as ffmpeg's muxer writes them, and otherwise.
    let codings: [(&str, &[&str], &[&str]); 3] = [
        ("h264", &["libx264", "-preset", "ultrafast", "-bf", "2"], &[]),
        ("hevc", &["libx265", "-preset", "ultrafast", "-x265-params", "log-level=none:keyint=100:min-keyint=100"], &[]),
        ("lengths", &["libx264", "-preset", "ultrafast"], &["-omit_video_pes_length", "0"]),
    ];
    for (name, coding, muxing) in codings {
        let path = directory.path().join(name);
        let status = Command::new("ffmpeg")
            .args(["-v", "error", "-f", "lavfi", "-i", "testsrc2=s=160x90:r=25", "-t", "4", "-g", "100", "-c:v"])
            .args(coding)
            .args(["-f", "mpegts"])
            .args(muxing)
            .arg(&path)
            .status();
        assert!(status.unwrap().success());
        let sent = std::fs::read(&path).unwrap();
        let key = format!("Bearer {WRITE_KEY}");
        let response = server.request("PUT", &format!("/live/{name}"), &[("Authorization", &key)], &sent);
        assert_eq!(response.status, 200, "{}", response.text());
        let text = server.get(&format!("/live/{name}/index.m3u8")).text();
        let named = text.lines().filter_map(|line| line.strip_prefix("#EXT-X-PART:")?.split('"').nth(1));
        let parts: Vec<Vec<u8>> = named.map(|part| server.get(&format!("/live/{name}/{part}")).body).collect();
        assert!(parts.len() >= 8, "{text}");
        for (n, part) in parts.iter().enumerate() {
            let video = &oracle::probe(part, &[])["streams"][0];
            assert_eq!((&video["width"], &video["height"]), (&160.into(), &90.into()), "{name}, part {n}: {video}");
        }
        let file = server.get(&format!("/live/{name}/file")).body;
        assert_continuous(&file);
        let (received, expected) = (oracle::decode(&file), oracle::decode(&sent));
        assert!(expected.len() == 100 && received == expected, "{name}: {} frames", received.len());
    }
}
