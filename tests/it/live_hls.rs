//! LL-HLS: what playlists name decodes to what was sent, requests wait for what is not there yet, and a thousand
//! clients that wait cost one rendering.

use crate::support::client::{Connection, Response, request_head};
use crate::support::oracle;
use crate::support::publisher::{
    BY_FRAME, BY_KEYFRAME, Chunked, encode, eventually, fragments, packets, push_as, state,
};
use crate::support::server::Server;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// A keyframe each second.
const BY_SECOND: [&str; 4] = ["-g", "25", "-sc_threshold", "0"];

/// A publisher of pictures that sends fragments of 0.12 s when it is told to.
struct Feed {
    request: Chunked,
    fragments: std::vec::IntoIter<Vec<u8>>,
}

impl Feed {
    fn open(server: &Server, name: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("source.mp4");
        let cut = ["-an", "-movflags", "empty_moov+default_base_moof", "-frag_duration", "100000"];
        encode(&path, 20, &[&BY_SECOND[..], &cut].concat());
        let (init, all) = fragments(&std::fs::read(&path).unwrap());
        let mut request = Chunked::begin(server, &format!("/live/{name}"));
        request.send(&init);
        Self { request, fragments: all.into_iter() }
    }

    fn send(&mut self, count: usize) {
        let bytes: Vec<u8> = self.fragments.by_ref().take(count).flatten().collect();
        self.request.send(&bytes);
    }

    fn end(self) {
        assert_eq!(self.request.finish().status, 200);
    }
}

fn playlist(server: &Server, name: &str) -> String {
    let response = server.get(&format!("/live/{name}/index.m3u8"));
    assert_eq!(response.status, 200, "{}", response.text());
    response.text()
}

/// Names that a playlist lists, of lines and of URIs with a tag.
fn names<'a>(text: &'a str, tag: &str) -> Vec<&'a str> {
    let of = |line: &'a str| match tag {
        "" => Some(line).filter(|line| !line.starts_with('#')),
        tag => line.strip_prefix(tag)?.split("URI=\"").nth(1)?.split('"').next(),
    };
    text.lines().filter_map(of).collect()
}

fn bytes(server: &Server, name: &str, resource: &str) -> Vec<u8> {
    let response = server.get(&format!("/live/{name}/{resource}"));
    assert_eq!(response.status, 200, "{resource}: {}", response.text());
    response.body
}

/// Ways to publish.
const WAYS: [(&str, &[&str]); 5] = [
    ("keys", &["-f", "mp4", "-movflags", BY_KEYFRAME]),
    ("frames", &["-f", "mp4", "-movflags", BY_FRAME]),
    ("times", &["-f", "mp4", "-movflags", "empty_moov+default_base_moof", "-frag_duration", "100000"]),
    // Offsets from the start of the file, which nobody has who joins later.
    ("absolute", &["-f", "mp4", "-movflags", "frag_keyframe+empty_moov"]),
    ("ts", &["-f", "mpegts"]),
];

#[test]
fn segments_and_parts_are_the_frames_that_were_sent() {
    let server = Server::builder().start();
    let directory = tempfile::tempdir().unwrap();
    let source = directory.path().join("source.mp4");
    encode(&source, 12, &BY_SECOND);
    let sent = oracle::decode(&std::fs::read(&source).unwrap());
    assert_eq!(sent.len(), 300);
    std::thread::scope(|scope| {
        for (name, format) in WAYS {
            let (server, source, sent) = (&server, &source, &sent);
            scope.spawn(move || {
                follow(server, name, push_as(server, source, name, format), source, sent);
            });
        }
    });
}

/// Follows a stream part by part as a player does, to its end.
fn follow(server: &Server, name: &str, mut publisher: Child, source: &Path, sent: &[String]) {
    eventually("the stream", || state(server, name)["window"]["bytes"].as_u64() > Some(0));
    let mut parts: Vec<(String, Vec<u8>)> = Vec::new();
    let mut text = playlist(server, name);
    loop {
        for part in names(&text, "#EXT-X-PART:") {
            if !parts.iter().any(|(known, _)| known == part) {
                parts.push((part.to_owned(), bytes(server, name, part)));
            }
        }
        if text.contains("#EXT-X-ENDLIST") {
            break;
        }
        let hint = names(&text, "#EXT-X-PRELOAD-HINT:")[0].to_owned();
        let (segment, part) = hint.strip_prefix("part-").unwrap().split_once('.').unwrap();
        let part = part.split_once('.').unwrap().0;
        let target = format!("/live/{name}/index.m3u8?_HLS_msn={segment}&_HLS_part={part}");
        let response = server.get(&target);
        assert_eq!(response.status, 200, "{target}: {}", response.text());
        text = response.text();
    }
    assert!(publisher.wait().unwrap().success());
    let init = names(&text, "#EXT-X-MAP:").first().map_or_else(Vec::new, |init| bytes(server, name, init));
    let joined = |all: &[Vec<u8>]| [init.clone(), all.concat()].concat();
    let of_parts: Vec<Vec<u8>> = parts.iter().map(|(_, bytes)| bytes.clone()).collect();
    assert!(oracle::decode(&joined(&of_parts)) == *sent, "{name}: the parts are not the frames that were sent");
    let (sound, sent_sound) = (packets(&joined(&of_parts), "a"), packets(&std::fs::read(source).unwrap(), "a"));
    assert!(sound.windows(2).all(|pair| pair[0].0 < pair[1].0), "{name}: sound that stands still");
    // In MPEG-TS each packet has a header.
    let same = name == "ts" || sound.iter().zip(&sent_sound).all(|(received, sent)| received.1 == sent.1);
    assert!(same && sound.len() == sent_sound.len(), "{name}: other sound");
    let segments: Vec<Vec<u8>> = names(&text, "").iter().map(|segment| bytes(server, name, segment)).collect();
    assert!(segments.len() >= 3, "{text}");
    // A segment is its parts, and all of them are the resource that grew.
    assert!(segments.concat() == of_parts.concat(), "{name}: segments and parts differ");
    let file = server.get(&format!("/live/{name}/file"));
    assert!(file.body == joined(&segments), "{name}: segments and /file differ");
    // ffmpeg reads the playlist itself.
    let url = format!("http://{}/live/{name}/index.m3u8", server.media);
    assert!(oracle::decode_from(url.as_ref()) == *sent, "{name}: ffmpeg reads other frames from the playlist");
}

#[test]
fn requests_are_answered_as_the_draft_says() {
    let server = Server::builder().argument("--reconnect-window", "60 s").start();
    let mut feed = Feed::open(&server, "cam");
    // Nothing there yet, for a name that nobody publishes.
    assert_eq!(server.get("/live/nobody/index.m3u8").status, 404);
    let ask = |query: &str| -> (Response, Duration) {
        let begun = Instant::now();
        let response = server.get(&format!("/live/cam/index.m3u8{query}"));
        (response, begun.elapsed())
    };
    feed.send(75);
    eventually("two segments", || ask("").0.text().contains("segment-1.m4s"));
    let text = ask("").0.text();
    let hint = names(&text, "#EXT-X-PRELOAD-HINT:")[0].to_owned();
    assert!(hint.starts_with("part-2."), "{text}");
    let header = |response: &Response, name: &str| response.header(name).unwrap_or_default().to_owned();
    for (query, status, lasts) in [
        ("", 200, "max-age=2"),
        ("?_HLS_msn=0", 200, "max-age=24"),
        ("?_HLS_msn=1&_HLS_part=3", 200, "max-age=24"),
        ("?_HLS_msn=0&_HLS_part=500", 200, "max-age=24"),
        ("?_HLS_skip=YES", 200, "max-age=2"),
        ("?session=7", 200, "max-age=2"),
        ("?_HLS_part=0", 400, "max-age=16"),
        ("?_HLS_msn=9", 400, "max-age=16"),
        ("?_HLS_msn=2&_HLS_part=40", 400, "max-age=16"),
        ("?_HLS_msn=x", 400, "max-age=16"),
        ("?_HLS_msn=1&_HLS_msn=1", 400, ""),
        ("?_HLS_skip=maybe", 400, "max-age=16"),
    ] {
        let (response, took) = ask(query);
        assert_eq!(response.status, status, "{query}: {}", response.text());
        assert!(took < Duration::from_secs(8), "{query} took {took:?}");
        assert!(lasts.is_empty() || header(&response, "cache-control") == lasts, "{query}: {response:?}");
    }
    for (name, status) in [
        ("segment-0.m4s", 200),
        ("segment-2.m4s", 404),
        ("segment-0.ts", 404),
        ("part-0.0.m4s", 200),
        ("part-2.90.m4s", 404),
        ("part-9.0.m4s", 404),
        ("init-0.mp4", 200),
        ("init-1.mp4", 404),
    ] {
        assert_eq!(server.get(&format!("/live/cam/{name}")).status, status, "{name}");
    }
    let ranged = server.request("GET", "/live/cam/segment-0.m4s", &[("Range", "bytes=8-15")], b"");
    assert_eq!((ranged.status, ranged.body.len()), (206, 8));
    assert!(header(&ranged, "content-range").starts_with("bytes 8-15/"), "{ranged:?}");
    let etag = header(&ranged, "etag");
    let other = header(&server.get("/live/cam/segment-1.m4s"), "etag");
    assert!(etag.len() > 2 && etag != other, "{etag} {other}");
    for (fields, status) in [
        (&[("Range", "bytes=99999999-")][..], 416),
        (&[("Range", "bytes=8-15"), ("If-Range", &etag)], 206),
        (&[("Range", "bytes=8-15"), ("If-Range", &other)], 200),
        (&[("If-None-Match", &etag)], 304),
        (&[("If-None-Match", &other)], 200),
        (&[("If-Match", &other)], 412),
    ] {
        let response = server.request("GET", "/live/cam/segment-0.m4s", fields, b"");
        assert_eq!(response.status, status, "{fields:?}: {response:?}");
    }
    let zipped = server.request("GET", "/live/cam/index.m3u8", &[("Accept-Encoding", "gzip")], b"");
    assert_eq!(header(&zipped, "content-encoding"), "gzip");
    assert_eq!(zipped.body[..2], [0x1f, 0x8b]);
    let master = server.get("/live/cam/master.m3u8").text();
    assert!(master.contains("RESOLUTION=160x90") && master.contains("CODECS=\"avc1."), "{master}");
    assert!(master.contains("FRAME-RATE=25.000\nindex.m3u8\n"), "{master}");
    read_by_another_parser(&text, &master, &hint);
    waits(&server, &mut feed, &hint);
    feed.end();
    eventually("the end", || ask("").0.text().ends_with("#EXT-X-ENDLIST\n"));
    // Nothing is waited for any more.
    let (response, took) = ask("?_HLS_msn=99");
    assert!(response.status == 200 && took < Duration::from_secs(8), "{response:?} took {took:?}");
}

/// The package m3u8, which tests/run.sh installs, finds in the playlists what was published.
fn read_by_another_parser(media: &str, master: &str, hint: &str) {
    let script = "import m3u8, sys\n\
        media, master = (m3u8.loads(text) for text in sys.argv[1:])\n\
        print(media.media_sequence, media.target_duration, media.part_inf.part_target,\
         media.server_control.part_hold_back, media.preload_hint.uri)\n\
        for s in media.segments:\n\
        \x20 if s.uri: print(s.uri, s.duration, s.init_section.uri, round(sum(p.duration for p in s.parts), 6))\n\
        variant = master.playlists[0]\n\
        print(variant.uri, variant.stream_info.resolution, variant.stream_info.frame_rate)\n";
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/python");
    let output = Command::new("python3").args(["-c", script, media, master]).env("PYTHONPATH", tools).output().unwrap();
    let expected = format!(
        "0 4 0.5 1.5 {hint}\nsegment-0.m4s 4.0 init-0.mp4 4.0\nsegment-1.m4s 4.0 init-0.mp4 4.0\n\
         index.m3u8 (160, 90) 25.0\n"
    );
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{complaints}\n{media}");
}

/// What is not there is waited for, and comes in one piece; when nothing comes for three target durations, 503.
fn waits(server: &Server, feed: &mut Feed, hint: &str) {
    std::thread::scope(|scope| {
        let part = scope.spawn(|| {
            let begun = Instant::now();
            (server.get(&format!("/live/cam/{hint}")), begun.elapsed())
        });
        let list = scope.spawn(|| server.get("/live/cam/index.m3u8?_HLS_msn=2"));
        std::thread::sleep(Duration::from_millis(700));
        assert!(!part.is_finished() && !list.is_finished(), "neither is there yet");
        feed.send(34);
        let (part, took) = part.join().unwrap();
        assert!(part.status == 200 && took >= Duration::from_millis(600), "{} after {took:?}", part.status);
        assert_eq!(part.body, bytes(server, "cam", hint));
        let list = list.join().unwrap();
        assert!(list.status == 200 && list.text().contains("\nsegment-2.m4s\n"), "{}", list.text());
    });
    let begun = Instant::now();
    let response = server.get("/live/cam/index.m3u8?_HLS_msn=4");
    assert_eq!((response.status, response.header("retry-after")), (503, Some("4")));
    assert!((11..16).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
}

#[test]
fn a_thousand_clients_that_wait_cost_one_rendering() {
    weir::net::raise_file_limit();
    let server = Server::builder().start();
    let mut feed = Feed::open(&server, "cam");
    feed.send(37);
    eventually("a segment", || state(&server, "cam")["window"]["to"].as_f64() > Some(4.3));
    // One part after the other, so that what is waited for is one state.
    let text = playlist(&server, "cam");
    let part = names(&text, "#EXT-X-PRELOAD-HINT:")[0].strip_prefix("part-1.").unwrap().split_once('.').unwrap().0;
    let before = server.metric("weir_playlists_rendered_total");
    let mut clients: Vec<Connection> = (0..1000).map(|_| Connection::open(server.media)).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        // Whatever else their queries say.
        let target = format!("/live/cam/index.m3u8?_HLS_msn=1&_HLS_part={part}&client={n}");
        client.send(&request_head("GET", &target, &[], 0)).unwrap();
    }
    // Somebody who follows the bytes is a viewer, too.
    let mut body = Connection::open(server.media);
    body.send(&request_head("GET", "/live/cam/file", &[("Range", "bytes=0-9007199254740991")], 0)).unwrap();
    let viewers = || ["viewers", "body_viewers", "hls_viewers"].map(|key| state(&server, "cam")[key].as_u64().unwrap());
    eventually("all to wait", || viewers() == [1001, 1, 1000]);
    let tasks = server.admin_get("/debug/tasks?format=json").json();
    let tasks = tasks["tasks"].as_array().unwrap().iter();
    assert_eq!(tasks.filter(|task| task["kind"] == "viewer").count(), 1001);
    feed.send(4);
    // Between two parts they are still there.
    let first = clients[0].read_response(false).unwrap();
    assert_eq!(viewers(), [1001, 1, 1000]);
    let answers: Vec<Response> = clients[1..].iter_mut().map(|client| client.read_response(false).unwrap()).collect();
    assert!(answers.iter().all(|answer| answer.status == 200 && answer.body == first.body));
    assert_eq!(server.metric("weir_playlists_rendered_total") - before, 1.0);
    feed.end();
}

/// By its media type, which is all that a client of one of these has, and by its codec (RFC 4337 §2).
#[test]
fn sound_alone_is_said_to_be_sound() {
    let server = Server::builder().start();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sound.mp4");
    let cut = ["-vn", "-movflags", "empty_moov+default_base_moof", "-frag_duration", "100000"];
    encode(&path, 5, &cut);
    let mut request = Chunked::begin(&server, "/live/radio");
    request.send(&std::fs::read(&path).unwrap());
    assert_eq!(request.finish().status, 200);
    for name in ["init-0.mp4", "segment-0.m4s", "part-1.0.m4s", "stream?at=-9", "file"] {
        let response = server.get(&format!("/live/radio/{name}"));
        assert_eq!((response.status, response.header("content-type")), (200, Some("audio/mp4")), "{name}");
    }
    let master = server.get("/live/radio/master.m3u8").text();
    assert!(master.contains("CODECS=\"mp4a.40.2\"\n"), "{master}");
}
