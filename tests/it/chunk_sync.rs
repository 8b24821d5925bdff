//! Chunks made with `as=fmp4` as players see them: from time 0 on, picture and sound as far apart as in the file, and
//! an ETag that is one body's alone. Files are remuxed here with ffmpeg; expected values are ffprobe's.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::client::Connection;
use crate::support::oracle::{probe, vector};
use crate::support::server::Server;

/// Name, source, options before the input, options before the output.
const FILES: [(&str, &str, &str, &str); 8] = [
    ("bframes.mp4", "ndf25.mp4", "", ""),
    ("df.mp4", "df2997.mp4", "", ""),
    ("cut.mp4", "ndf25.mp4", "-ss 3.31", ""),
    ("no_edit_list.mp4", "ndf25.mp4", "", "-use_editlist 0"),
    ("negative.mp4", "ndf25.mp4", "", "-movflags +empty_moov+frag_keyframe+default_base_moof+negative_cts_offsets"),
    ("edits_in_fragments.mp4", "ndf25.mp4", "-ss 3.31", "-movflags +frag_keyframe+delay_moov"),
    // Each track's data begins where that of the one before ends.
    ("implicit_offsets.mp4", "ndf25.mp4", "", "-movflags +empty_moov+frag_keyframe+omit_tfhd_offset"),
    ("pcm.mov", "ndf25.mp4", "", "-c:a pcm_s16le"),
];

fn remux(directory: &Path, (name, source, before, after): (&str, &str, &str, &str)) -> std::path::PathBuf {
    let file = directory.join(name);
    let status = Command::new("ffmpeg")
        .args(["-nostdin", "-loglevel", "error", "-y"])
        .args(before.split_whitespace())
        .arg("-i")
        .arg(vector(source))
        .args(["-map", "0:v", "-map", "0:a", "-c", "copy"])
        .args(after.split_whitespace())
        .arg(&file)
        .status();
    assert!(status.expect("ffmpeg is installed").success(), "{name}");
    file
}

/// Presentation time in seconds and checksum of each packet of a kind.
fn packets(media: &[u8], kind: &str) -> Vec<(f64, String)> {
    let seen = probe(media, &["-show_packets", "-show_data_hash", "md5", "-select_streams", kind]);
    let packets = seen["packets"].as_array().into_iter().flatten();
    packets.filter_map(|p| Some((p["pts_time"].as_str()?.parse().ok()?, p["data_hash"].as_str()?.to_owned()))).collect()
}

fn video_of(seen: &Value) -> &Value {
    seen["streams"].as_array().and_then(|s| s.iter().find(|s| s["codec_type"] == "video")).expect("a video stream")
}

#[test]
fn picture_begins_at_0_and_sound_keeps_its_distance() {
    let directory = tempfile::tempdir().unwrap();
    let files: Vec<_> = FILES.iter().map(|&file| (file.0, remux(directory.path(), file))).collect();
    let mut builder = Server::builder();
    for (name, file) in &files {
        builder = builder.video(file, name);
    }
    let server = builder.start();
    let mut connection = Connection::open(server.media);
    for (name, file) in &files {
        let source = std::fs::read(file).unwrap();
        let (pictures, sounds) = (packets(&source, "v:0"), packets(&source, "a:0"));
        for frame in [0, 60, 130] {
            let target = format!("/videos/{name}/chunk?frame={frame}&as=fmp4&duration=1");
            let chunk = connection.get(&target);
            assert_eq!(chunk.status, 200, "{target}: {}", chunk.text());
            assert_eq!(video_of(&probe(&chunk.body, &[]))["start_time"], "0.000000", "{target}");
            let (picture, sound) = (packets(&chunk.body, "v:0"), packets(&chunk.body, "a:0"));
            // Of a picture that is shown: ffprobe gives those that an edit hides other times.
            let (last, of_last) = picture.last().expect("pictures");
            let shown = pictures.iter().find(|p| p.1 == *of_last).unwrap_or_else(|| panic!("{target}: other pictures"));
            let shift = shown.0 - last;
            if name.ends_with(".mov") {
                // Packets of PCM are cut as the muxer likes: what counts is where they begin.
                assert!(sound[0].0.abs() < 0.001, "{target}: sound at {}", sound[0].0);
                continue;
            }
            assert!(sound.len() > 40, "{target}: {} packets of sound", sound.len());
            // Sound that an edit hides is listed by ffprobe only from shortly before the edit on.
            let listed = sounds[0].0 - shift - 0.001;
            let sound: Vec<_> = sound.into_iter().filter(|packet| packet.0 > listed).collect();
            // A steady tone repeats its packets, so the run that is also in place counts.
            let same = |run: &[(f64, String)]| {
                run.iter().zip(&sound).all(|(a, b)| a.1 == b.1 && (a.0 - b.0 - shift).abs() < 0.001)
            };
            assert!(sounds.windows(sound.len()).any(same), "{target}: sound begins at {:?}", sound[0]);
        }
    }
}

/// 4 s of picture, 9 s of one sound and 7 s of another.
const LONG_SOUND: &str = "-f lavfi -i sine=440:d=9 -f lavfi -i sine=880:d=7 -map 0:v -map 1 -map 2 -c:v copy -c:a aac";

fn ends(media: &[u8]) -> Vec<f64> {
    let seen = probe(media, &["-show_packets"]);
    let number = |value: &Value| value.as_str().and_then(|text| text.parse::<f64>().ok());
    let mut ends = vec![0.0_f64; seen["streams"].as_array().map_or(0, Vec::len)];
    for packet in seen["packets"].as_array().into_iter().flatten() {
        let end = number(&packet["pts_time"]).unwrap_or(0.0) + number(&packet["duration_time"]).unwrap_or(0.0);
        let stream = packet["stream_index"].as_u64().unwrap_or(0) as usize;
        ends[stream] = ends[stream].max(end);
    }
    ends
}

#[test]
fn sound_that_outlasts_the_picture_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let source = std::fs::read(vector("ndf25.mp4")).unwrap();
    let mut builder = Server::builder();
    for (name, more) in [("whole.mp4", ""), ("frag.mp4", " -movflags frag_keyframe+empty_moov+default_base_moof")] {
        let file = directory.path().join(name);
        let output = Command::new("ffmpeg")
            .args(["-nostdin", "-loglevel", "error", "-y", "-t", "4", "-i"])
            .arg(vector("ndf25.mp4"))
            .args(format!("{LONG_SOUND}{more}").split_whitespace())
            .arg(&file)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        builder = builder.video(&file, name);
    }
    let server = builder.start();
    let pictures = packets(&source, "v:0");
    // The same in both, and there not moved by half a reordering.
    let picture = ends(&std::fs::read(directory.path().join("whole.mp4")).unwrap())[0];
    assert!(picture > 4.0 && picture < 4.2, "{picture}");
    for name in ["whole.mp4", "frag.mp4"] {
        let chunk = |query: &str| {
            let response = server.get(&format!("/videos/{name}/chunk?{query}&as=fmp4"));
            assert_eq!(response.status, 200, "{query}: {}", response.text());
            assert_eq!(response.header("content-length").unwrap(), response.body.len().to_string());
            response.body
        };
        // (query, where picture and sounds end, from the keyframe on); the last keyframe is at 2 s.
        for (query, wanted) in [
            ("time=0&size=100000000", [picture, 9.0, 7.0]),
            ("time=0&duration=60", [picture, 9.0, 7.0]),
            ("time=3&duration=2.5", [picture - 2.0, 3.5, 3.5]),
            ("time=3&duration=5.5", [picture - 2.0, 6.5, 5.0]),
        ] {
            let found = ends(&chunk(query));
            let near = |(a, b): (&f64, &f64)| (a - b).abs() < 0.04;
            assert!(found.len() >= 3 && found.iter().zip(&wanted).all(near), "{name} {query}: {found:?}");
        }
        // A size ends picture and sound together.
        let cut = ends(&chunk("time=0&size=200000"));
        assert!(cut[0] < 3.0 && cut[..3].iter().all(|end| (end - cut[0]).abs() < 0.2), "{name}: {cut:?}");
        // One frame, although three follow it in decoding order before the next is complete.
        let one = packets(&chunk("frame=0&duration=0.01"), "v:0");
        assert_eq!(one.iter().map(|p| &p.1).collect::<Vec<_>>(), [&pictures[0].1], "{name}");
    }
}

#[test]
fn an_etag_stands_for_one_body() {
    let server = Server::builder().video(&vector("ndf25.mp4"), "a.mp4").start();
    let mut connection = Connection::open(server.media);
    let mut get = |query: &str| {
        let response = connection.get(&format!("/videos/a.mp4/chunk?{query}&as=fmp4"));
        assert_eq!(response.status, 200, "{query}");
        (response.header("etag").expect("a validator").to_owned(), response.body)
    };
    let mut seen = Vec::new();
    for frame in [100, 101, 102, 149] {
        for cut in ["duration=1", "duration=0.5", "size=100000", "size=1", "size=99999999"] {
            seen.push(get(&format!("frame={frame}&{cut}")));
        }
    }
    for a in &seen {
        for b in &seen {
            assert_eq!(a.0 == b.0, a.1 == b.1, "{} and {}", a.0, b.0);
        }
    }
}

#[test]
fn encrypted_video_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let key = "-encryption_scheme cenc-aes-ctr -encryption_key 76a6c65c5ea762046bd749a2e632ccbb \
               -encryption_kid a7e61c373e219033c21091fa607bf3b8";
    let file = remux(directory.path(), ("secret.mp4", "ndf25.mp4", "", key));
    let server = Server::builder().video(&file, "secret.mp4").start();
    let response = server.get("/videos/secret.mp4/chunk?frame=0&as=fmp4&duration=1");
    assert_eq!(response.status, 501, "{}", response.text());
    assert!(response.text().contains("encrypted"), "{}", response.text());
}
