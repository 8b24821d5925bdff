//! Chunks made with `as=fmp4` of a file with more than a picture and a sound: a second picture whose keyframes lie
//! elsewhere, two sounds, and subtitles. Expected values are ffprobe's, of the file itself.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::client::Connection;
use crate::support::oracle::{probe, vector};
use crate::support::server::Server;

/// Text from 1 s to 3 s, and from 5 s to 6.5 s.
const SUBTITLES: &str = "1\n00:00:01,000 --> 00:00:03,000\nfirst\n\n2\n00:00:05,000 --> 00:00:06,500\nsecond\n";

fn many_tracks(directory: &Path, name: &str) -> PathBuf {
    let (file, text) = (directory.join(name), directory.join("text.srt"));
    std::fs::write(&text, SUBTITLES).unwrap();
    let ffmpeg = |arguments: &[&str]| {
        let status = Command::new("ffmpeg").args(["-nostdin", "-loglevel", "error", "-y"]).args(arguments).status();
        assert!(status.expect("ffmpeg is installed").success());
    };
    let inputs = [vector("ndf25.mp4"), file.clone(), text].map(|path| path.to_str().expect("UTF-8").to_owned());
    let sources = ["-f", "lavfi", "-i", "testsrc=s=160x120:r=25", "-f", "lavfi", "-i", "sine=frequency=300"];
    let maps = ["-map", "0:v", "-map", "2:v", "-map", "0:a", "-map", "3:a", "-map", "1:s", "-t", "8"];
    let codecs =
        ["-c:v:0", "copy", "-c:v:1", "libx264", "-g:v:1", "60", "-bf:v:1", "2", "-c:a", "aac", "-c:s", "mov_text"];
    let input = ["-i", &inputs[0], "-i", &inputs[2]];
    ffmpeg(&[&input[..], &sources, &maps, &codecs, &[&inputs[1]]].concat());
    file
}

/// Presentation time and duration in seconds, and checksum, of each packet of a stream.
fn packets(media: &[u8], stream: &str) -> Vec<(f64, f64, String)> {
    let seen = probe(media, &["-show_packets", "-show_data_hash", "md5", "-select_streams", stream]);
    let number = |value: &serde_json::Value| value.as_str().and_then(|text| text.parse::<f64>().ok());
    let packets = seen["packets"].as_array().into_iter().flatten();
    let packet = |p: &serde_json::Value| {
        // ffprobe gives text in fragments no duration.
        let lasts = number(&p["duration_time"]).unwrap_or(f64::INFINITY);
        Some((number(&p["pts_time"])?, lasts, p["data_hash"].as_str()?.to_owned()))
    };
    packets.filter_map(packet).collect()
}

#[test]
fn every_track_goes_along() {
    let directory = tempfile::tempdir().unwrap();
    let file = many_tracks(directory.path(), "many.mp4");
    let source = std::fs::read(&file).unwrap();
    let server = Server::builder().video(&file, "many.mp4").start();
    let mut connection = Connection::open(server.media);
    for (frame, length) in [(0, "duration=2"), (60, "duration=3"), (140, "duration=1.5"), (60, "size=200000")] {
        let target = format!("/videos/many.mp4/chunk?frame={frame}&as=fmp4&{length}");
        let chunk = connection.get(&target);
        assert_eq!(chunk.status, 200, "{target}: {}", chunk.text());
        let kinds = probe(&chunk.body, &[]);
        let kinds: Vec<_> = kinds["streams"].as_array().unwrap().iter().map(|s| s["codec_name"].clone()).collect();
        assert_eq!(kinds[..5], ["h264", "h264", "aac", "aac", "mov_text"], "{target}");
        // Where the chunk's 0 lies in the file, and how far the picture goes.
        let (all, leading) = (packets(&source, "v:0"), packets(&chunk.body, "v:0"));
        let shift = all.iter().find(|p| p.2 == leading[0].2).expect("a picture of the file").0 - leading[0].0;
        let end = leading.iter().map(|p| p.0 + p.1).fold(0.0, f64::max);
        for stream in ["v:1", "a:0", "a:1"] {
            let (all, seen) = (packets(&source, stream), packets(&chunk.body, stream));
            // What is not hidden, at its time; two samples of sound may be missing at each edge, and no picture.
            let edge = if stream == "v:1" { 0.001 } else { 0.045 };
            let place = |p: &&(f64, f64, String)| p.0 >= shift + edge && p.0 + p.1 <= shift + end - edge;
            let expected: Vec<_> = all.iter().filter(place).collect();
            assert!(expected.len() > 30, "{target} {stream}: {} packets", expected.len());
            for packet in &expected {
                let found = seen.iter().any(|p| p.2 == packet.2 && (p.0 + shift - packet.0).abs() < 0.002);
                assert!(found, "{target} {stream}: no packet at {} of the file", packet.0);
            }
        }
        // Text that is shown when the chunk begins or later, clipped to the chunk.
        let shown = |media: &[u8]| -> Vec<(f64, f64)> {
            let all = packets(media, "s:0");
            let next = |n: usize| all.get(n + 1).map_or(f64::INFINITY, |next| next.0);
            let until = all.iter().enumerate().map(|(n, p)| (p.0, (p.0 + p.1).min(next(n))));
            until.zip(&all).filter(|(_, p)| p.2 != EMPTY).map(|(shown, _)| shown).collect()
        };
        let clipped = |(from, to): (f64, f64)| ((from - shift).max(0.0), (to - shift).min(end));
        let expected: Vec<_> = shown(&source).into_iter().map(clipped).filter(|(from, to)| to - from > 0.05).collect();
        let seen: Vec<_> = shown(&chunk.body)
            .into_iter()
            .map(|(from, to)| (from, to.min(end)))
            .filter(|(from, to)| to - from > 0.05)
            .collect();
        assert_eq!(seen.len(), expected.len(), "{target}: {seen:?} instead of {expected:?}");
        let near = |a: f64, b: f64| (a - b).abs() < 0.05;
        assert!(seen.iter().zip(&expected).all(|(a, b)| near(a.0, b.0) && near(a.1, b.1)), "{seen:?} {expected:?}");
    }
}

/// The text is shown for 1,000 s in the file, the chunk lasts two.
#[test]
fn text_does_not_make_a_chunk_longer() {
    let directory = tempfile::tempdir().unwrap();
    let (file, text) = (directory.path().join("long.mp4"), directory.path().join("long.srt"));
    std::fs::write(&text, "1\n00:00:01,000 --> 00:16:40,000\nlong\n").unwrap();
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-nostdin", "-loglevel", "error", "-i"]).arg(vector("ndf25.mp4")).arg("-i").arg(&text);
    let status = ffmpeg.args(["-map", "0:v", "-map", "1:s", "-c:v", "copy", "-c:s", "mov_text"]).arg(&file).status();
    assert!(status.expect("ffmpeg is installed").success());
    let server = Server::builder().video(&file, "long.mp4").start();
    for frame in [0, 60] {
        let chunk = server.get(&format!("/videos/long.mp4/chunk?frame={frame}&as=fmp4&duration=2"));
        let end = packets(&chunk.body, "v:0").iter().map(|p| p.0 + p.1).fold(0.0, f64::max);
        let seen = probe(&chunk.body, &["-show_packets", "-select_streams", "s:0"]);
        assert!(seen["packets"].as_array().is_some_and(|packets| !packets.is_empty()), "frame {frame}: no text");
        let duration: f64 = seen["format"]["duration"].as_str().unwrap().parse().unwrap();
        assert!(duration < end + 0.1, "frame {frame}: {duration} s instead of {end}");
    }
}

/// A sample without text: two bytes of length.
const EMPTY: &str = "MD5:c4103f122d27677c9db144cae1394a66";
