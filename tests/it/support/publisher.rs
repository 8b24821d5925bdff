//! A publisher of live streams: ffmpeg over HTTP, and what the server says of the stream meanwhile.

use super::client::{Connection, Response};
use super::oracle;
use super::server::{Server, WRITE_KEY};
use serde_json::Value;
use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How ffmpeg cuts fragments (`-movflags`).
pub const BY_KEYFRAME: &str = "frag_keyframe+empty_moov+default_base_moof";
pub const BY_FRAME: &str = "frag_every_frame+empty_moov+default_base_moof";

/// ffmpeg, pushing a file as fragmented MP4 at its own speed.
pub fn push(server: &Server, source: &Path, name: &str, movflags: &str) -> Child {
    push_as(server, source, name, &["-f", "mp4", "-movflags", movflags])
}

/// The same in any format.
pub fn push_as(server: &Server, source: &Path, name: &str, format: &[&str]) -> Child {
    Command::new("ffmpeg")
        .args(["-nostdin", "-v", "error", "-re", "-i"])
        .arg(source)
        .args(["-c", "copy"])
        .args(format)
        .args(["-method", "PUT"])
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

/// A viewer with little room in its kernel, whose body is everything behind the head (HTTP/1.0 has no chunks).
pub fn slow_viewer(server: &Server, name: &str) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(16 << 10).unwrap();
    socket.connect(&server.media.into()).unwrap();
    let mut stream = TcpStream::from(socket);
    stream.write_all(format!("GET /live/{name}/stream HTTP/1.0\r\nHost: weir\r\n\r\n").as_bytes()).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    stream
}

/// A file of H.264 with B-frames and AAC, a keyframe every half second: what encoders send, at 25 frames a second.
pub fn encode(path: &Path, seconds: u32, extra: &[&str]) {
    let input = ["-f", "lavfi", "-i", "testsrc2=s=160x90:r=25", "-f", "lavfi", "-i", "sine=r=48000"];
    let coding = ["-c:v", "libx264", "-preset", "ultrafast", "-bf", "2", "-g", "12", "-c:a", "aac"];
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error", "-y"]).args(input).args(["-t", &seconds.to_string()]).args(coding);
    assert!(command.args(extra).arg(path).status().unwrap().success());
}

/// The boxes of an fMP4 file: the init segment, and each `moof` with its `mdat`.
pub fn fragments(bytes: &[u8]) -> (Vec<u8>, Vec<Vec<u8>>) {
    let (mut init, mut fragments, mut at) = (Vec::new(), Vec::<Vec<u8>>::new(), 0);
    while at + 8 <= bytes.len() {
        let size = u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        let whole = &bytes[at..at + size];
        match &whole[4..8] {
            b"ftyp" | b"moov" => init.extend_from_slice(whole),
            b"moof" => fragments.push(whole.to_vec()),
            b"mdat" => fragments.last_mut().unwrap().extend_from_slice(whole),
            _ => {}
        }
        at += size;
    }
    (init, fragments)
}

/// A publisher whose every byte the test sends itself: one long chunked request.
pub struct Chunked(pub Connection);

impl Chunked {
    pub fn begin(server: &Server, target: &str) -> Self {
        let mut connection = Connection::open(server.media);
        let key =
            if target.contains("key=") { String::new() } else { format!("Authorization: Bearer {WRITE_KEY}\r\n") };
        let head = format!("PUT {target} HTTP/1.1\r\nHost: weir\r\n{key}Transfer-Encoding: chunked\r\n\r\n");
        connection.send(head.as_bytes()).unwrap();
        Self(connection)
    }

    pub fn send(&mut self, bytes: &[u8]) {
        let chunk = [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat();
        let _ = self.0.send(&chunk);
    }

    /// The final chunk, and the answer.
    pub fn finish(mut self) -> Response {
        let _ = self.0.send(b"0\r\n\r\n");
        self.0.read_response(false).unwrap()
    }
}

/// ffprobe reads every packet, says nothing, and finds that decode times never run backwards in a stream.
pub fn plays(media: &[u8], what: &str, tracks: usize) {
    let file = tempfile::Builder::new().prefix("plays-").tempfile_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    std::fs::write(file.path(), media).unwrap();
    let arguments = ["-v", "warning", "-show_entries", "packet=stream_index,dts", "-of", "csv=p=0"];
    let output = Command::new("ffprobe").args(arguments).arg(file.path()).output().unwrap();
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && complaints.is_empty(), "{what}: {complaints}");
    let mut last = std::collections::HashMap::new();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let (track, dts) = line.split_once(',').unwrap();
        let dts: i64 = dts.trim_end_matches(',').parse().unwrap();
        if let Some(before) = last.insert(track.to_owned(), dts) {
            assert!(dts >= before, "{what}: track {track}: {dts} after {before}");
        }
    }
    assert_eq!(last.len(), tracks, "{what}: tracks");
}

/// Checksums of the coded frames of one kind of track (`v`, `a`), in their order.
pub fn coded_frames(media: &[u8], kind: &str) -> Vec<String> {
    let file = tempfile::Builder::new().prefix("coded-").tempfile_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    std::fs::write(file.path(), media).unwrap();
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "fatal", "-i"]).arg(file.path());
    let output = command.args(["-map", &format!("0:{kind}"), "-c", "copy", "-f", "framemd5", "-"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let sums = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split(',').nth(5));
    sums.map(|sum| sum.trim().to_owned()).collect()
}

/// Time in ticks and checksum of each packet of one kind of track, in their order.
pub fn packets(media: &[u8], kind: &str) -> Vec<(i64, String)> {
    let seen = oracle::probe(media, &["-show_packets", "-show_data_hash", "md5", "-select_streams", kind]);
    let packets = seen["packets"].as_array().into_iter().flatten();
    packets.map(|packet| (packet["pts"].as_i64().unwrap(), packet["data_hash"].as_str().unwrap().to_owned())).collect()
}
