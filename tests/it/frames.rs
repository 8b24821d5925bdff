//! Still frames of videos: the luma is ffmpeg's, sample by sample, whatever the container; colours, shapes and turns are
//! ffmpeg's within rounding; answers follow the rules of every other answer.

use crate::support::client::{Connection, request};
use crate::support::oracle::{Oracle, vector};
use crate::support::server::Server;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use weir::frame::still;
use weir::frame::stills::StillsConfig;
use weir::frame::{FrameError, Job, Limits, Parts};
use weir::lazy::Components;
use weir::media::index::{Index, Position};
use weir::store::MappedFile;

const LIMITS: Limits = Limits { pixels_max: 1 << 24, bytes_max: 256 << 20, time: Duration::from_secs(60) };

/// A picture that nobody else asks for.
fn job(limits: Limits) -> Job {
    let components = Components::new(std::time::Instant::now());
    let config = StillsConfig { threads: 1, queue_max: 1, cache_bytes: 0, limits };
    Parts::add(&components, config).job("test".to_owned())
}

fn ffmpeg(arguments: &[&str]) -> Vec<u8> {
    let output = Command::new("ffmpeg").args(["-nostdin", "-v", "fatal", "-y"]).args(arguments).output().unwrap();
    assert!(output.status.success(), "ffmpeg {arguments:?}");
    output.stdout
}

/// Decoded luma of every frame, one after another.
fn luma_of_ffmpeg(path: &Path) -> Vec<u8> {
    // As the bitstream crops it: ffmpeg keeps what is cut off on the left where that suits its alignment.
    let input = [
        "-noautorotate",
        "-flags",
        "unaligned",
        "-i",
        path.to_str().unwrap(),
        "-map",
        "0:v:0",
        "-fps_mode",
        "passthrough",
    ];
    ffmpeg(&[&input[..], &["-vf", "extractplanes=y", "-f", "rawvideo", "-"]].concat())
}

/// Without the header.
fn body_of_pgm(pgm: &[u8]) -> &[u8] {
    let ends = pgm.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at);
    &pgm[ends.take(3).last().unwrap() + 1..]
}

fn assert_luma(path: &Path, frames: impl Iterator<Item = u64>) {
    let file = MappedFile::open(path).unwrap();
    let index = Index::open_trusted(Index::build(&file).unwrap().into()).unwrap();
    let expected = luma_of_ffmpeg(path);
    let count = index.summary().tracks.iter().find(|track| track.width.is_some()).unwrap().frames;
    for number in frames.filter(|number| *number < count) {
        let decoded = still::frame(&index, &file, &Position::Frame(number), &job(LIMITS));
        let decoded = decoded.unwrap_or_else(|error| panic!("{} frame {number}: {error}", path.display()));
        let pgm = decoded.planes.to_pgm();
        let luma = body_of_pgm(&pgm);
        let start = number as usize * luma.len();
        assert!(luma == &expected[start..start + luma.len()], "{} frame {number} differs", path.display());
    }
}

/// First frames, both sides of keyframes (every 50, 48 or 30 of these files), and the last.
fn probes(name: &str) -> Vec<u64> {
    let last = Oracle::of(name).md5.len() as u64 - 1;
    vec![0, 1, 2, 23, 24, 25, 47, 48, 49, 50, 51, 97, last.saturating_sub(1), last]
}

#[test]
fn progressive_and_fragmented() {
    for name in ["ndf25.mp4", "co64_tail.mp4", "frag.mp4", "frag_frame.mp4", "frag_hybrid.mp4", "vfr.mp4"] {
        assert_luma(&vector(name), probes(name).into_iter());
    }
}

#[test]
fn b_frames_and_edit_lists() {
    for name in ["aud_pyramid.mp4", "ctts_v1.mp4", "editlist.mp4", "multi_edit.mp4", "empty_then_edit.mp4"] {
        assert_luma(&vector(name), probes(name).into_iter());
    }
}

#[test]
fn open_groups_of_pictures() {
    for name in ["opengop.mp4", "opengop_frag.mp4", "opengop.ts"] {
        assert_luma(&vector(name), 0..110);
    }
}

#[test]
fn hevc() {
    for name in ["hevc.mp4", "hevc_frag.mp4", "hevc.ts"] {
        assert_luma(&vector(name), probes(name).into_iter().chain(26..40));
    }
}

#[test]
#[cfg(feature = "av1")]
fn av1() {
    for name in ["av1.mp4", "av1_frag.mp4"] {
        assert_luma(&vector(name), probes(name).into_iter());
    }
}

#[test]
fn mpeg_ts() {
    for name in ["ndf25.ts", "ndf25.m2ts", "vfr.ts", "jump.ts", "wrap.ts", "cut.ts", "cut_opengop.ts"] {
        assert_luma(&vector(name), probes(name).into_iter());
    }
}

#[test]
fn ten_bits_cropping_and_several_slices() {
    let directory = tempfile::tempdir().unwrap();
    let source = ["-f", "lavfi", "-i", "testsrc2=s=162x94:r=25", "-frames:v", "30"];
    let codings: [&[&str]; 4] = [
        &["-c:v", "libx265", "-pix_fmt", "yuv420p10le", "-x265-params", "log-level=none"],
        &["-c:v", "libx264", "-x264-params", "slices=3:keyint=12"],
        &["-c:v", "libx264", "-profile:v", "baseline", "-g", "12"],
        &["-c:v", "libx264", "-bsf:v", "h264_metadata=crop_left=16:crop_top=8:crop_right=6:crop_bottom=4"],
    ];
    for (n, coding) in codings.iter().enumerate() {
        let path = directory.path().join(format!("{n}.mp4"));
        ffmpeg(&[&source[..], coding, &[path.to_str().unwrap()]].concat());
        if n == 0 {
            // ffmpeg's samples are little-endian, a graymap's big-endian.
            let expected = luma_of_ffmpeg(&path);
            let file = MappedFile::open(&path).unwrap();
            let index = Index::open_trusted(Index::build(&file).unwrap().into()).unwrap();
            let decoded = still::frame(&index, &file, &Position::Frame(17), &job(LIMITS)).unwrap();
            let luma: Vec<u8> = decoded.planes.luma.samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
            assert!(luma == expected[17 * luma.len()..18 * luma.len()], "ten bits");
            continue;
        }
        assert_luma(&path, [0, 1, 11, 12, 13, 29].into_iter());
    }
}

/// Red, green and blue as ffmpeg makes them of a frame, with its size.
fn rgb_of_ffmpeg(path: &Path, frame: u32, filter: &str) -> Vec<u8> {
    let filter = format!("select=eq(n\\,{frame}),{filter}");
    let input = ["-i", path.to_str().unwrap(), "-vf", &filter, "-frames:v", "1"];
    ffmpeg(&[&input[..], &["-f", "rawvideo", "-pix_fmt", "rgb24", "-"]].concat())
}

fn decoded(picture: &[u8]) -> (u32, u32, Vec<u8>) {
    let limits = LIMITS;
    let image = weir::frame::upload::read(picture, &limits).unwrap();
    (image.width as u32, image.height as u32, image.pixels)
}

/// Largest and mean distance of two runs of bytes.
fn distance(a: &[u8], b: &[u8]) -> (u8, f64) {
    assert_eq!(a.len(), b.len());
    let all = a.iter().zip(b).map(|(a, b)| a.abs_diff(*b));
    let sum: u64 = all.clone().map(u64::from).sum();
    (all.max().unwrap_or(0), sum as f64 / a.len().max(1) as f64)
}

#[test]
fn shapes_turns_and_colours_are_those_of_ffmpeg() {
    let directory = tempfile::tempdir().unwrap();
    let make = |name: &str, arguments: &[&str]| {
        let path = directory.path().join(name);
        ffmpeg(&[arguments, &["-c:v", "libx264", "-g", "5", "-frames:v", "9", path.to_str().unwrap()]].concat());
        path
    };
    // Soft pictures: what is compared are colours and places, not two ways to sharpen an edge.
    let soft = "testsrc2=s=720x576:r=25,gblur=6";
    let wide = make("wide.mp4", &["-f", "lavfi", "-i", soft, "-vf", "setsar=64/45"]);
    let full = make("full.mp4", &["-f", "lavfi", "-i", soft, "-vf", "scale=out_range=full", "-color_range", "pc"]);
    let hd = ["-f", "lavfi", "-i", "testsrc2=s=1280x720:r=25,gblur=6", "-vf", "scale=out_color_matrix=bt709"];
    let hd = make("hd.mp4", &[&hd[..], &["-colorspace", "bt709"]].concat());
    let builder = Server::builder().video(&wide, "wide.mp4").video(&full, "full.mp4").video(&hd, "hd.mp4");
    let server = builder.video(&vector("rotated.mp4"), "rotated.mp4").start();
    let cases = [
        ("wide.mp4", "", (1024, 576), "scale=1024:576", &wide),
        ("wide.mp4", "&width=512", (512, 288), "format=rgb24,scale=512:288:flags=lanczos", &wide),
        ("full.mp4", "", (720, 576), "null", &full),
        ("hd.mp4", "", (1280, 720), "scale=in_color_matrix=bt709", &hd),
        ("rotated.mp4", "", (360, 640), "null", &vector("rotated.mp4")),
        ("rotated.mp4", "&width=90", (90, 160), "format=rgb24,scale=90:160:flags=lanczos", &vector("rotated.mp4")),
    ];
    for (id, query, size, filter, path) in cases {
        let response = server.get(&format!("/videos/{id}/frame.jpg?frame=7&format=png{query}"));
        assert_eq!((response.status, response.header("content-type")), (200, Some("image/png")), "{id}{query}");
        let (width, height, pixels) = decoded(&response.body);
        assert_eq!((width, height), size, "{id}{query}");
        let (_, mean) = distance(&pixels, &rgb_of_ffmpeg(path, 7, filter));
        assert!(mean < 2.5, "{id}{query}: {mean} off on average");
    }
}

#[test]
fn an_answer_like_every_other() {
    let server = Server::builder().video(&vector("ndf25.mp4"), "a.mp4").start();
    let target = "/videos/a.mp4/frame.jpg?timecode=01:09:04:00&width=320";
    let first = server.get(target);
    assert_eq!((first.status, first.header("content-type")), (200, Some("image/jpeg")), "{first:?}");
    let (width, height, _) = decoded(&first.body);
    assert_eq!((width, height), (320, 180));
    let etag = first.header("etag").unwrap().to_owned();
    let location = first.header("content-location").unwrap().to_owned();
    assert_eq!(location, "/videos/a.mp4/frame.jpg?frame=100&width=320");
    assert!(first.header("media-seek").unwrap().contains("frame=100"), "{first:?}");
    assert_eq!(first.header("cache-control"), Some("public, no-cache"));
    assert!(first.header("last-modified").is_some());

    // Every way to ask for one moment is one resource; HEAD and conditions are answered like GET.
    for same in [&location, "/videos/a.mp4/frame.jpg?time=4&width=320&quality=85", target] {
        let again = server.get(same);
        assert_eq!((again.header("etag"), &again.body), (Some(&*etag), &first.body), "{same}");
    }
    let head = server.request("HEAD", target, &[], b"");
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("content-length"), Some(&*first.body.len().to_string()));
    let cached = server.request("GET", target, &[("If-None-Match", &etag)], b"");
    assert_eq!((cached.status, cached.body.len(), cached.header("etag")), (304, 0, Some(&*etag)));
    let other = server.request("GET", target, &[("If-Match", "\"other\"")], b"");
    assert_eq!(other.status, 412);

    // Whatever changes the bytes changes the ETag.
    let mut etags = vec![etag];
    for more in ["&quality=20", "&format=png", "&brightness=0.1", "&contrast=.1", "&enhance=.5", "&enhance=.6"] {
        let response = server.get(&format!("{target}{more}"));
        assert_eq!(response.status, 200, "{more}: {response:?}");
        assert_ne!(response.body, first.body, "{more}");
        etags.push(response.header("etag").unwrap().to_owned());
    }
    etags.push(server.get("/videos/a.mp4/frame.jpg?frame=101&width=320").header("etag").unwrap().to_owned());
    let all = etags.len();
    etags.sort();
    etags.dedup();
    assert_eq!(etags.len(), all);
}

#[test]
fn a_hundred_ask_at_once() {
    let server = Server::builder().video(&vector("ndf25.mp4"), "a.mp4").start();
    let address = server.media;
    let target = "/videos/a.mp4/frame.jpg?frame=149&enhance=0.5";
    let asking: Vec<_> =
        (0..100).map(|_| std::thread::spawn(move || request(address, "GET", target, &[], b""))).collect();
    let answers: Vec<_> = asking.into_iter().map(|thread| thread.join().unwrap()).collect();
    assert!(answers.iter().all(|answer| answer.status == 200 && answer.body == answers[0].body));
}

#[test]
fn a_storyboard_shows_the_whole_video() {
    let server = Server::builder().video(&vector("ndf25.mp4"), "a.mp4").start();
    let response = server.get("/videos/a.mp4/storyboard.jpg?columns=4&rows=2&width=80&format=png");
    assert_eq!((response.status, response.header("content-type")), (200, Some("image/png")), "{response:?}");
    let (width, height, board) = decoded(&response.body);
    assert_eq!((width, height), (320, 90));
    let tile = |column: usize, row: usize| -> Vec<u8> {
        let line = |y: usize| 3 * ((row * 45 + y) * 320 + column * 80);
        (0..45).flat_map(|y| board[line(y)..line(y) + 240].to_vec()).collect()
    };
    let tiles: std::collections::HashSet<_> = (0..8).map(|n| tile(n % 4, n / 4)).collect();
    assert_eq!(tiles.len(), 8, "every tile is another picture");
    // 500 frames, a keyframe every 50: the first tile's middle is frame 31, shown by keyframe 0.
    let frame = server.get("/videos/a.mp4/frame.jpg?frame=0&width=80&format=png");
    assert_eq!(decoded(&frame.body).2, tile(0, 0));
    for wrong in ["columns=0", "rows=21", "width=99999", "format=gif"] {
        assert_eq!(server.get(&format!("/videos/a.mp4/storyboard.jpg?{wrong}")).status, 400, "{wrong}");
    }
}

#[test]
fn what_cannot_be_shown_says_why() {
    let names = ["ndf25.mp4", "rotated.mp4", "audio.m4a", "av1.mp4", "mpeg2.ts", "hevc.mp4"];
    let mut builder = Server::builder();
    for name in names {
        builder = builder.video(&vector(name), name);
    }
    let server = builder.bytes("text.txt", b"no video").start();
    let cases = [
        ("ndf25.mp4/frame.jpg", 400, "timecode, time, frame"),
        ("ndf25.mp4/frame.jpg?frame=1&time=1", 400, "exactly one"),
        ("ndf25.mp4/frame.jpg?frame=x", 400, "whole number"),
        ("ndf25.mp4/frame.jpg?frame=1&width=0", 400, "1 to 16384"),
        ("ndf25.mp4/frame.jpg?frame=1&brightness=2", 400, "-1 to 1"),
        ("ndf25.mp4/frame.jpg?frame=1&enhance=-1", 400, "0 to 1"),
        ("ndf25.mp4/frame.jpg?frame=1&format=gif", 400, "jpg"),
        ("ndf25.mp4/frame.jpg?frame=500", 422, "499"),
        ("ndf25.mp4/frame.jpg?frame=1&width=16384", 422, "pixels"),
        ("rotated.mp4/frame.jpg?frame=1&width=16384", 422, "16384 × 29127 pixels"),
        ("audio.m4a/frame.jpg?time=1", 422, "no picture"),
        ("audio.m4a/storyboard.jpg", 422, "no picture"),
        ("mpeg2.ts/frame.jpg?frame=0", 501, "HEVC"),
        ("text.txt/frame.jpg?frame=0", 422, "MP4"),
        ("none.mp4/frame.jpg?frame=0", 404, "no video"),
    ];
    for (target, status, said) in cases {
        let response = server.get(&format!("/videos/{target}"));
        assert_eq!(response.status, status, "{target}: {response:?}");
        assert!(response.problem().contains(said), "{target}: no {said:?} in {}", response.problem());
    }
    let av1 = server.get("/videos/av1.mp4/frame.jpg?frame=0");
    assert_eq!(av1.status, if cfg!(feature = "av1") { 200 } else { 501 }, "{av1:?}");
    assert_eq!(server.request("POST", "/videos/ndf25.mp4/frame.jpg?frame=0", &[], b"").status, 405);
}

/// Broken pictures: each is an error of its own kind or a picture, none a crash, none slow.
#[test]
fn damaged_media_is_an_error() {
    let job = job(LIMITS);
    for name in ["ndf25.mp4", "hevc.mp4", "opengop.ts"] {
        let whole = std::fs::read(vector(name)).unwrap();
        let index = Index::open_trusted(Index::build(&&whole[..]).unwrap().into()).unwrap();
        let seek = index.resolve(&&whole[..], &Position::Frame(60)).unwrap();
        let (start, end) = (seek.keyframe.offset as usize, (seek.sample_offset + seek.sample_size) as usize);
        let size = still::frame(&index, &&whole[..], &Position::Frame(60), &job).unwrap().planes.luma.samples.len();
        let mut failed = 0;
        let mut random = 0x9e37_79b9_u64;
        let mut next = |below: usize| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) as usize % below
        };
        for _ in 0..40 {
            let mut bytes = whole.clone();
            for _ in 0..next(20) + 1 {
                bytes[start + next(end - start)] = next(256) as u8;
            }
            match still::frame(&index, &&bytes[..], &Position::Frame(60), &job) {
                Ok(decoded) => assert_eq!(decoded.planes.luma.samples.len(), size),
                Err(FrameError::Seek(_) | FrameError::Damaged(_) | FrameError::Panicked) => failed += 1,
                Err(FrameError::Unsupported { .. } | FrameError::TooLarge(_)) => failed += 1,
                Err(other) => panic!("{name}: {other}"),
            }
        }
        assert!(failed > 0, "{name}: something was noticed");
        // Of MPEG-TS the last packet may be missing, as any may: then nothing of the frame itself is there.
        let lost = if name.ends_with(".ts") { end - seek.sample_offset as usize } else { 10 };
        let cut = &whole[..end - lost];
        assert!(still::frame(&index, &cut, &Position::Frame(60), &job).is_err(), "{name}: cut off");
        let mut empty = whole.clone();
        empty[start..end].fill(0);
        assert!(still::frame(&index, &&empty[..], &Position::Frame(60), &job).is_err(), "{name}: zeros");
    }
}

#[test]
fn limits_are_held_before_anything_is_decoded() {
    let path = vector("ndf25.mp4");
    let file = MappedFile::open(&path).unwrap();
    let index = Index::open_trusted(Index::build(&file).unwrap().into()).unwrap();
    let frame = |limits: Limits| still::frame(&index, &file, &Position::Frame(49), &job(limits)).err();
    assert!(matches!(frame(Limits { pixels_max: 640 * 368 - 1, ..LIMITS }), Some(FrameError::TooLarge(_))));
    assert!(matches!(frame(Limits { bytes_max: 1 << 20, ..LIMITS }), Some(FrameError::TooLarge(_))));
    assert!(matches!(frame(Limits { bytes_max: 1 << 10, ..LIMITS }), Some(FrameError::Seek(_))));
    assert!(matches!(frame(Limits { time: Duration::ZERO, ..LIMITS }), Some(FrameError::TooSlow { .. })));
}

#[test]
fn the_page_shows_a_poster_of_each_video() {
    let server = Server::builder().video(&vector("ndf25.mp4"), "a b.mp4").start();
    assert_eq!(server.get("/videos/a%20b.mp4").status, 200, "has its index now");
    let page = server.get("/").text();
    let link = page.split("<img").nth(1).and_then(|rest| rest.split("src=\"").nth(1)).expect("an image");
    let link = link.split('"').next().unwrap().replace("&amp;", "&");
    assert!(page.contains("loading=\"lazy\""));
    let poster = Connection::open(server.media).get(&link);
    assert_eq!((poster.status, poster.header("content-type")), (200, Some("image/jpeg")), "{link}");
}
