//! Editing pictures: `/adjust` and `/enhance`, their command lines, and pictures of live streams. Expected values come
//! from fixtures/edit.py, which has the rules in double precision.

use crate::support::client::Response;
use crate::support::oracle::vector;
use crate::support::publisher::{Chunked, encode, eventually, fragments, state};
use crate::support::server::Server;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;
use weir::frame::image::Image;
use weir::frame::{Limits, upload};

const LIMITS: Limits = Limits { pixels_max: 1 << 24, bytes_max: 256 << 20, time: Duration::from_secs(60) };

fn weir(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_weir")).args(arguments).output().unwrap()
}

/// A picture with gradients and edges, as ffmpeg writes it.
fn picture(path: &Path) -> Vec<u8> {
    let source = ["-f", "lavfi", "-i", "testsrc2=s=96x64", "-vf", "gblur=2,eq=contrast=0.6", "-frames:v", "1"];
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error", "-y"]).args(source).args(["-pix_fmt", "rgb24"]).arg(path);
    assert!(command.status().unwrap().success());
    std::fs::read(path).unwrap()
}

fn pixels(file: &[u8]) -> Image {
    upload::read(file, &LIMITS).unwrap()
}

/// What the rules make of a picture, by Python.
fn expected(image: &Image, brightness: f64, contrast: f64, amount: f64) -> Vec<u8> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/edit.py");
    let numbers = [brightness, contrast, amount].map(|number| number.to_string());
    let mut python = Command::new("python3");
    let python = python.arg(script).args(numbers).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = python.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(format!("P6\n{} {}\n255\n", image.width, image.height).as_bytes()).unwrap();
    input.write_all(&image.pixels).unwrap();
    drop(input);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    output.stdout[output.stdout.len() - image.pixels.len()..].to_vec()
}

/// Single and double precision round differently where a value lies between two bytes, and there only.
fn assert_same(got: &[u8], expected: &[u8], what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}");
    let off = got.iter().zip(expected).map(|(a, b)| a.abs_diff(*b));
    assert!(off.clone().all(|off| off <= 1), "{what}: {} off", off.clone().max().unwrap_or(0));
    let differ = off.filter(|off| *off > 0).count();
    assert!(differ * 100 < got.len(), "{what}: {differ} of {} values differ", got.len());
}

fn form(fields: &[(&str, &str)], file: &[u8]) -> (String, Vec<u8>) {
    let mut body = Vec::new();
    for (name, value) in fields {
        let part = format!("--xx\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
        body.extend(part.as_bytes());
    }
    let head = "--xx\r\nContent-Disposition: form-data; name=\"the_file\"; filename=\"a.png\"\r\n\r\n";
    body.extend([head.as_bytes(), file, b"\r\n--xx--\r\n"].concat());
    ("multipart/form-data; boundary=xx".to_owned(), body)
}

fn post(server: &Server, target: &str, content_type: &str, body: &[u8]) -> Response {
    server.request("POST", target, &[("Content-Type", content_type)], body)
}

#[test]
fn images_are_edited_by_the_rules() {
    let directory = tempfile::tempdir().unwrap();
    let png = picture(&directory.path().join("a.png"));
    let image = pixels(&png);
    let server = Server::builder().start();

    let adjusted = post(&server, "/adjust?brightness=.3&contrast=-0.1", "image/png", &png);
    assert_eq!((adjusted.status, adjusted.header("content-type")), (200, Some("image/png")), "{adjusted:?}");
    assert_same(&pixels(&adjusted.body).pixels, &expected(&image, 0.3, -0.1, 0.0), "adjust");
    let (content_type, body) = form(&[("brightness", ".3"), ("contrast", "-0.1")], &png);
    let by_form = post(&server, "/adjust", &content_type, &body);
    assert_eq!((by_form.status, &by_form.body), (200, &adjusted.body), "a form is the same");
    assert_eq!(post(&server, "/adjust", "image/png", &png).status, 200, "nothing asked for, nothing changed");

    let enhanced = post(&server, "/enhance?amount=0.8", "image/png", &png);
    assert_same(&pixels(&enhanced.body).pixels, &expected(&image, 0.0, 0.0, 0.8), "enhance");
    let (content_type, body) = form(&[("amount", "0.8")], &png);
    assert_eq!(post(&server, "/enhance", &content_type, &body).body, enhanced.body);

    // A JPEG comes back as a JPEG, unless a PNG is asked for.
    let jpeg = post(&server, "/adjust?format=jpg&quality=95", "", &png);
    assert_eq!(jpeg.header("content-type"), Some("image/jpeg"));
    let again = post(&server, "/enhance?amount=0", "image/jpeg", &jpeg.body);
    assert_eq!((again.status, again.header("content-type")), (200, Some("image/jpeg")));
    let png = post(&server, "/enhance?amount=0&format=png", "image/jpeg", &jpeg.body);
    assert_eq!(png.header("content-type"), Some("image/png"));
    assert_eq!(pixels(&png.body).pixels, pixels(&jpeg.body).pixels);

    // One connection takes one image after the other.
    let mut connection = crate::support::client::Connection::open(server.media);
    for _ in 0..3 {
        let answer = connection.call("POST", "/adjust?contrast=.5", &[], &jpeg.body).unwrap();
        assert_eq!(answer.status, 200);
    }
}

/// Enhancing comes after adjusting, on values that were not rounded.
#[test]
fn frames_are_edited_by_the_same_rules() {
    let server = Server::builder().video(&vector("ndf25.mp4"), "a.mp4").start();
    let target = "/videos/a.mp4/frame.jpg?frame=60&width=120&format=png";
    let image = pixels(&server.get(target).body);
    for (query, numbers) in [
        ("&brightness=-0.2&contrast=0.5", [-0.2, 0.5, 0.0]),
        ("&enhance=1", [0.0, 0.0, 1.0]),
        ("&brightness=0.05&contrast=-0.4&enhance=0.7", [0.05, -0.4, 0.7]),
    ] {
        let edited = pixels(&server.get(&format!("{target}{query}")).body);
        let [brightness, contrast, amount] = numbers;
        assert_same(&edited.pixels, &expected(&image, brightness, contrast, amount), query);
    }
}

#[test]
fn what_is_no_image_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let png = picture(&directory.path().join("a.png"));
    let server = Server::builder().argument("--image-bytes-max", "64 KiB").start();
    let mut bomb = png.clone();
    bomb[16..24].copy_from_slice(&[0, 0, 0xff, 0xff, 0, 0, 0xff, 0xff]);
    bomb.truncate(33);
    let checksum = crc32(&bomb[12..29]);
    bomb[29..33].copy_from_slice(&checksum.to_be_bytes());
    let (content_type, body) = form(&[("brightness", ".3")], &png);
    let (_, without) = form(&[], &png);
    let without = without.into_iter().map(|byte| if byte == b'_' { b'-' } else { byte }).collect::<Vec<_>>();
    let cases: [(&str, &str, &[u8], u16, &str); 14] = [
        ("/adjust", "image/png", b"GIF89a no image", 415, "JPEG"),
        ("/adjust", "image/png", b"", 415, "JPEG"),
        ("/adjust", "image/png", &png[..200], 422, "damaged"),
        ("/adjust", "image/png", &bomb, 422, "65535"),
        ("/adjust?brightness=2", "image/png", &png, 400, "-1 to 1"),
        ("/adjust?brightness=1e-1", "image/png", &png, 400, "-1 to 1"),
        ("/enhance?amount=-1", "image/png", &png, 400, "0 to 1"),
        ("/enhance?format=webp", "image/png", &png, 400, "jpg"),
        ("/adjust?brightness=.3", &content_type, &body, 400, "not in both"),
        ("/adjust", "multipart/form-data", &body, 400, "boundary"),
        ("/adjust", "multipart/form-data; boundary=yy", &body, 400, "boundary"),
        ("/adjust", &content_type, &without, 400, "the_file"),
        ("/adjust", &content_type, &body[..body.len() - 30], 400, "boundary"),
        ("/adjust", "image/png", &[0; 70_000], 413, "65536"),
    ];
    for (target, content_type, body, status, said) in cases {
        let response = post(&server, target, content_type, body);
        assert_eq!(response.status, status, "{target} {content_type}: {response:?}");
        assert!(response.problem().contains(said), "{target}: no {said:?} in {}", response.problem());
    }
    assert_eq!(server.get("/adjust").status, 405);
    assert_eq!(server.request("PUT", "/enhance", &[], &png).status, 405);
}

/// CRC-32 of ISO 3309, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

#[test]
fn the_command_line_does_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let place = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let png = picture(&directory.path().join("a.png"));
    let server = Server::builder().video(&vector("ndf25.mp4"), "a.mp4").start();
    let (input, output) = (place("a.png"), place("out.png"));
    let video = vector("ndf25.mp4");
    let video = video.to_str().unwrap();
    let same = |arguments: &[&str], expected: &[u8]| {
        let ran = weir(&[arguments, &["-o", &output]].concat());
        assert!(ran.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&ran.stderr));
        assert_eq!(std::fs::read(&output).unwrap(), expected, "{arguments:?}");
    };
    let adjusted = post(&server, "/adjust?brightness=.3&contrast=-0.1", "image/png", &png).body;
    same(&["adjust", &input, "--brightness", ".3", "--contrast", "-0.1"], &adjusted);
    same(&["enhance", &input, "--amount", "0.8"], &post(&server, "/enhance?amount=0.8", "image/png", &png).body);
    let frame = |query: &str| server.get(&format!("/videos/a.mp4/frame.jpg?frame=100&format=png{query}")).body;
    same(&["frame", video, "--timecode", "01:09:04:00"], &frame(""));
    same(&["frame", video, "--time", "4", "--width", "99", "--enhance", ".5"], &frame("&width=99&enhance=.5"));
    same(&["adjust", video, "--frame", "100", "--contrast", "1"], &frame("&contrast=1"));
    same(&["enhance", video, "--timecode", "01:09:04:00", "--amount", "1"], &frame("&enhance=1"));

    let luma = place("luma.pgm");
    assert!(weir(&["frame", video, "--frame", "7", "-o", &luma]).status.success());
    assert!(std::fs::read(&luma).unwrap().starts_with(b"P5\n640 360\n255\n"));

    for (arguments, code) in [
        (&["frame", video, "-o", &output][..], 2),
        (&["frame", video, "--frame", "1", "-o", "x.gif"], 2),
        (&["frame", video, "--frame", "1", "--time", "1", "-o", &output], 2),
        (&["frame", video, "--frame", "9999", "-o", &output], 1),
        (&["adjust", video, "-o", &output], 2),
        (&["adjust", &input, "--brightness", "2", "-o", &output], 2),
        (&["enhance", "/nowhere.png", "-o", &output], 1),
    ] {
        assert_eq!(weir(arguments).status.code(), Some(code), "{arguments:?}");
    }
}

#[test]
fn pictures_of_live_streams() {
    let directory = tempfile::tempdir().unwrap();
    let (whole, cut, ts) =
        (directory.path().join("a.mp4"), directory.path().join("b.mp4"), directory.path().join("c.ts"));
    encode(&whole, 4, &[]);
    let copy = |arguments: &[&str], path: &Path| {
        let mut command = Command::new("ffmpeg");
        command.args(["-nostdin", "-v", "error", "-y", "-i"]).arg(&whole).args(["-c", "copy"]).args(arguments);
        assert!(command.arg(path).status().unwrap().success());
    };
    copy(&["-movflags", "frag_keyframe+empty_moov+default_base_moof"], &cut);
    copy(&["-f", "mpegts"], &ts);
    let server = Server::builder().video(&whole, "a.mp4").start();
    let vod = |frame: usize| server.get(&format!("/videos/a.mp4/frame.jpg?frame={frame}&format=png&width=80")).body;
    let number = |picture: &Response| {
        assert_eq!((picture.status, picture.header("content-type")), (200, Some("image/png")), "{picture:?}");
        (0..100).rev().find(|frame| vod(*frame) == picture.body).expect("a frame that was sent")
    };
    assert_eq!(server.get("/live/mp4/frame.jpg").status, 404);

    let (init, parts) = fragments(&std::fs::read(&cut).unwrap());
    let mut publisher = Chunked::begin(&server, "/live/mp4");
    publisher.send(&init);
    publisher.send(&parts.concat());
    eventually("the stream", || state(&server, "mp4")["window"]["to"].as_f64() > Some(3.5));
    let newest = server.get("/live/mp4/frame.jpg?format=png&width=80");
    assert_eq!(number(&newest), 99, "the newest is the last that was sent");
    let etag = newest.header("etag").unwrap();
    let again = server.request("GET", "/live/mp4/frame.jpg?format=png&width=80", &[("If-None-Match", etag)], b"");
    assert_eq!(again.status, 304);
    let earlier = server.get("/live/mp4/frame.jpg?format=png&width=80&at=-1");
    // The end of frame 99 is 4 s, though the sound goes on for longer; frame 75 is shown from 3 s on.
    assert_eq!(number(&earlier), 75);
    // A millisecond before 2.88 s, where a group begins: the last picture of the one before.
    let edge = |at: &str| number(&server.get(&format!("/live/mp4/frame.jpg?format=png&width=80&at={at}")));
    assert_eq!((edge("-1.121"), edge("-1.12"), edge("-0.001"), edge("0")), (71, 72, 99, 99));
    assert_eq!(edge("-100"), 0, "the oldest that there is");
    assert_eq!(server.get("/live/mp4/frame.jpg?at=5").status, 400);

    let mut publisher_ts = Chunked::begin(&server, "/live/ts");
    let sent = std::fs::read(&ts).unwrap();
    publisher_ts.send(&sent);
    eventually("the stream", || state(&server, "ts")["received_bytes"] == sent.len());
    let newest = number(&server.get("/live/ts/frame.jpg?format=png&width=80"));
    assert!(newest > 80, "frame {newest} is near the end");
    let earlier = number(&server.get("/live/ts/frame.jpg?format=png&width=80&at=-1"));
    assert!((newest - 30..newest - 20).contains(&earlier), "frame {earlier} is a second before frame {newest}");
}

/// The rows of components in the start-up table that are no longer cold.
fn initialised(server: &Server) -> Vec<String> {
    let rows = server.admin_get("/debug/startup?format=json").json();
    let rows = rows.as_array().unwrap().iter().filter(|row| row["paid_by"] != "start" && row["state"] == "ready");
    let mut names: Vec<_> = rows.map(|row| row["component"].as_str().unwrap().to_owned()).collect();
    names.retain(|name| !name.contains("index"));
    names.sort();
    names
}

#[test]
fn each_part_is_initialised_by_the_first_who_needs_it() {
    let directory = tempfile::tempdir().unwrap();
    let png = picture(&directory.path().join("a.png"));
    let server = Server::builder().video(&vector("ndf25.mp4"), "a.mp4").start();
    assert!(initialised(&server).is_empty());
    assert_eq!(post(&server, "/adjust?brightness=.3", "image/png", &png).status, 200);
    assert_eq!(initialised(&server), ["adjust", "frame"], "nothing of enhance, and no decoder");
    let address = server.media;
    let target = "/videos/a.mp4/frame.jpg?frame=7&width=64";
    let asking: Vec<_> = (0..100)
        .map(|_| std::thread::spawn(move || crate::support::client::request(address, "GET", target, &[], b"")))
        .collect();
    assert!(asking.into_iter().all(|thread| thread.join().unwrap().status == 200));
    assert_eq!(initialised(&server), ["adjust", "frame", "h264", "jpeg"]);
    let rows = server.admin_get("/debug/startup?format=json").json();
    let h264 = rows.as_array().unwrap().iter().find(|row| row["component"] == "h264").unwrap();
    assert_eq!((&h264["initialised"], &h264["paid_by"]), (&1.into(), &"GET /videos/a.mp4/frame.jpg".into()));
    assert_eq!(post(&server, "/enhance", "image/png", &png).status, 200);
    assert_eq!(initialised(&server), ["adjust", "enhance", "enhancer", "frame", "h264", "jpeg"]);
}

#[test]
fn the_command_line_pays_for_what_it_uses() {
    let directory = tempfile::tempdir().unwrap();
    let (input, output) = (directory.path().join("a.png"), directory.path().join("b.jpg"));
    picture(&input);
    let (input, output) = (input.to_str().unwrap(), output.to_str().unwrap());
    let video = vector("ndf25.mp4");
    let parts = |arguments: &[&str]| {
        let ran = weir(&[arguments, &["--startup-times"]].concat());
        assert!(ran.status.success(), "{arguments:?}");
        let table = String::from_utf8(ran.stderr).unwrap();
        let names = table.lines().filter_map(|line| line.rsplit('|').next()).map(|name| name.trim().to_owned());
        let known = ["enhancer", "jpeg", "h264", "hevc", "adjust", "enhance"];
        names.filter(|name| known.contains(&name.as_str())).collect::<Vec<_>>()
    };
    assert_eq!(parts(&["adjust", input, "--contrast", ".5", "-o", output]), ["jpeg"]);
    assert_eq!(parts(&["enhance", input, "-o", output]), ["enhancer", "jpeg"]);
    assert_eq!(parts(&["frame", video.to_str().unwrap(), "--frame", "3", "-o", output]), ["h264", "jpeg"]);
    assert!(parts(&["inspect", video.to_str().unwrap()]).is_empty());
}
