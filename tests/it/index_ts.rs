//! The MPEG-TS index against ffprobe and ffmpeg, on files that ffmpeg makes, and against damaged bytes.
//!
//! What a file holds is what ffmpeg decodes from it: number, order, time and content of the frames.

mod hostile;
mod muxed;

use bytes::Bytes;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use weir::media::ReadAt;
use weir::media::index::{Position, Seek, SeekError, Summary, TrackKind};
use weir::media::time::{DecimalTime, Label, Rate};
use weir::media::ts::{self, PacketSize, Table};

const VIDEO: &str = "testsrc2=size=160x90:rate=";

/// A directory for one test; removed at its end.
fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

/// Runs ffmpeg on a test picture of `seconds` at `rate` and a tone.
fn make(dir: &Path, name: &str, rate: &str, seconds: &str, options: &str) -> PathBuf {
    let out = dir.join(name);
    let mut command = Command::new("ffmpeg");
    command.args(["-v", "error", "-y", "-f", "lavfi", "-i", &format!("{VIDEO}{rate}")]);
    command.args(["-f", "lavfi", "-i", "sine=1000", "-t", seconds, "-shortest"]);
    command.args(options.split_whitespace()).arg(&out);
    assert!(command.status().expect("ffmpeg").success(), "{name}");
    out
}

fn output(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// MD5 of every frame that ffmpeg shows.
fn frames_of(path: &Path) -> Vec<String> {
    let args =
        ["-v", "quiet", "-i", path.to_str().expect("UTF-8"), "-map", "0:v:0", "-vsync", "0", "-f", "framemd5", "-"];
    let text = output("ffmpeg", &args);
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.rsplit(", ").next()).map(|md5| md5.trim().to_owned()).collect()
}

/// Counts how often each frame content occurs.
fn counted(frames: &[String]) -> HashMap<&str, usize> {
    frames.iter().fold(HashMap::new(), |mut counts, md5| {
        *counts.entry(md5.as_str()).or_default() += 1;
        counts
    })
}

struct Memory {
    data: Vec<u8>,
    read: AtomicU64,
}

impl Memory {
    fn new(data: Vec<u8>) -> Self {
        Self { data, read: AtomicU64::new(0) }
    }
}

impl ReadAt for Memory {
    fn size(&self) -> u64 {
        self.data.len() as u64
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> std::io::Result<usize> {
        let n = self.data[..].read_at(offset, buf)?;
        self.read.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

struct Opened {
    src: Memory,
    summary: Summary,
    table: Table,
}

impl Opened {
    fn new(data: Vec<u8>) -> Self {
        let src = Memory::new(data);
        let built = ts::build(&src).expect("an index");
        let table = Table::open(Bytes::from(built.table)).expect("a table");
        Self { src, summary: built.summary, table }
    }

    fn at(path: &Path) -> Self {
        Self::new(std::fs::read(path).expect("the file"))
    }

    fn seek(&self, position: Position) -> Result<Seek, SeekError> {
        self.table.resolve(&self.summary, &self.src, &position)
    }

    fn frame(&self, n: u64) -> Seek {
        self.seek(Position::Frame(n)).unwrap_or_else(|error| panic!("frame {n}: {error}"))
    }

    fn rate(&self) -> Rate {
        self.summary.tracks[0].frame_rate.expect("a rate")
    }
}

/// Number and content of the frames are ffmpeg's; every frame is in what decodes from its keyframe's offset; its time,
/// as printed, and its timecode resolve to it.
fn check_frames(path: &Path) -> Opened {
    let name = path.file_name().expect("a name").to_string_lossy().into_owned();
    let opened = Opened::at(path);
    let frames = frames_of(path);
    assert_eq!(opened.table.frames(), frames.len() as u64, "{name}: frames");
    let mut chunk: (u64, Vec<String>) = (u64::MAX, Vec::new());
    for (n, md5) in frames.iter().enumerate() {
        let seek = opened.frame(n as u64);
        if chunk.0 != seek.keyframe.offset {
            let part = path.with_extension("part.ts");
            std::fs::write(&part, &opened.src.data[seek.keyframe.offset as usize..]).expect("a chunk");
            chunk = (seek.keyframe.offset, frames_of(&part));
        }
        let (have, want) = (counted(&chunk.1), counted(&frames[n..]));
        assert!(have.get(md5.as_str()) >= want.get(md5.as_str()), "{name}: frame {n} is not in {seek:?}");
        round_trip(&opened, n as u64, &seek);
        let end = seek.sample_offset + seek.sample_size;
        assert!(seek.keyframe.offset <= seek.sample_offset && end <= opened.src.size(), "{name}: {seek:?}");
    }
    let outside = opened.seek(Position::Frame(frames.len() as u64));
    let last = (frames.len() - 1).to_string();
    assert!(matches!(outside, Err(SeekError::Outside { first, last: l, .. }) if first == "0" && l == last));
    opened
}

fn round_trip(opened: &Opened, n: u64, seek: &Seek) {
    assert_eq!(seek.frame, Some(n));
    let time = DecimalTime::parse(&seek.time.to_string()).expect("a time");
    assert_eq!(opened.seek(Position::Time(time)).expect("inside").frame, Some(n), "time {}", seek.time);
    if let Some(timecode) = &seek.timecode {
        let label = Label::parse(timecode).expect("a label");
        let again = opened.seek(Position::Timecode { label, drop: None }).expect("inside");
        assert_eq!(again.frame, Some(n), "timecode {timecode}");
        assert_eq!(again.timecode.as_deref(), Some(timecode.as_str()));
    }
}

/// Times and keyframes are those of ffprobe: `(ticks since the first frame, is a keyframe)` of each frame shown.
fn check_probe(path: &Path, opened: &Opened) {
    let args =
        ["-v", "quiet", "-select_streams", "v:0", "-show_entries", "frame=pts,key_frame,pkt_pos", "-of", "csv=p=0"];
    let text = output("ffprobe", &[&args[..], &[path.to_str().expect("UTF-8")]].concat());
    let rows: Vec<Vec<&str>> =
        text.lines().map(|line| line.split(',').collect()).filter(|r: &Vec<_>| r.len() >= 3).collect();
    assert_eq!(rows.len() as u64, opened.table.frames());
    let number = |text: &str| text.parse::<i64>().unwrap_or_else(|_| panic!("{text:?} in {path:?}"));
    let first = number(rows[0][1]);
    let prefix = opened.table.stride() - 188;
    let mut keyframes = 0;
    for (n, row) in rows.iter().enumerate() {
        let frame = opened.table.frame(n as u64).expect("a frame");
        assert_eq!(frame.time as i64, number(row[1]) - first, "frame {n}");
        assert_eq!(frame.offset + prefix, number(row[2]) as u64 + prefix, "position of frame {n}");
        let seek = opened.frame(n as u64);
        let is_key = row[0] == "1";
        keyframes += u64::from(is_key);
        assert_eq!(seek.keyframe.frame == Some(n as i64), is_key, "frame {n} of {path:?}");
    }
    assert_eq!(opened.summary.tracks[0].keyframes, keyframes);
}

fn check(path: &Path) -> Opened {
    let opened = check_frames(path);
    check_probe(path, &opened);
    opened
}

const X264: &str = "-c:v libx264 -preset ultrafast -c:a aac";

#[test]
fn b_frames_and_audio() {
    let dir = directory();
    let path = make(dir.path(), "b.ts", "25", "4", "-c:v libx264 -preset veryfast -g 25 -bf 3 -c:a aac");
    let opened = check(&path);
    let [video, audio] = &opened.summary.tracks[..] else { panic!("two tracks: {:?}", opened.summary) };
    assert_eq!((video.kind, video.width, video.height), (TrackKind::Video, Some(160), Some(90)));
    assert_eq!((video.codec.as_str(), video.frame_rate), ("avc1.64000b", Rate::new(25, 1)));
    assert_eq!((audio.codec.as_str(), audio.sample_rate, audio.channels), ("mp4a.40.2", Some(44_100), Some(1)));
    let probe = output(
        "ffprobe",
        &[
            "-v",
            "quiet",
            "-count_packets",
            "-select_streams",
            "a",
            "-show_entries",
            "stream=nb_read_packets",
            "-of",
            "csv=p=0",
            path.to_str().expect("UTF-8"),
        ],
    );
    assert!(probe.starts_with(&audio.frames.to_string()), "{probe} {}", audio.frames);
    assert_eq!(opened.summary.duration.expect("known").to_string(), "4");
    // The PAT is the packet two before the first video packet.
    assert_eq!(opened.frame(0).keyframe.offset, opened.frame(0).sample_offset - 2 * 188);
}

#[test]
fn open_gop() {
    let dir = directory();
    let options = "-c:v libx264 -preset veryfast -x264-params open-gop=1:keyint=25:bframes=3:scenecut=0 -c:a aac";
    let path = make(dir.path(), "open.ts", "25", "4", options);
    let opened = check(&path);
    // A leading picture decodes from the keyframe before the one it follows.
    let keys: Vec<i64> = (0..100).filter_map(|n| opened.frame(n).keyframe.frame).collect();
    assert!(keys.windows(2).all(|pair| pair[0] <= pair[1]));
    assert!(opened.summary.tracks[0].keyframes >= 4);
}

#[test]
fn one_keyframe() {
    let dir = directory();
    let path = make(dir.path(), "long.ts", "25", "8", &format!("{X264} -g 1000 -bf 0"));
    assert_eq!(check(&path).summary.tracks[0].keyframes, 1);
}

#[test]
fn hevc_open_gop() {
    let dir = directory();
    let options =
        "-c:v libx265 -preset ultrafast -x265-params open-gop=1:keyint=25:bframes=3:scenecut=0:log-level=none -c:a aac";
    let opened = check(&make(dir.path(), "hevc.ts", "25", "4", options));
    assert_eq!((opened.summary.tracks[0].width, opened.summary.tracks[0].height), (Some(160), Some(90)));
    assert!(opened.summary.tracks[0].codec.starts_with("hvc1.1.6.L"), "{}", opened.summary.tracks[0].codec);
}

#[test]
fn mpeg2() {
    let dir = directory();
    let opened = check(&make(dir.path(), "m2v.ts", "25", "4", "-c:v mpeg2video -g 12 -bf 2 -c:a mp2"));
    assert_eq!(opened.rate(), Rate { num: 25, den: 1 });
    assert_eq!(opened.summary.tracks[1].codec, "mp4a.6B");
}

#[test]
fn interlaced() {
    let dir = directory();
    let options = "-s 160x96 -c:v libx264 -preset veryfast -flags +ilme+ildct -x264-params tff=1:keyint=20 -c:a ac3";
    let opened = check(&make(dir.path(), "tff.ts", "25", "3", options));
    assert_eq!((opened.rate(), opened.summary.tracks[0].height), (Rate { num: 25, den: 1 }, Some(96)));
    assert_eq!(opened.summary.tracks[1].codec, "ac-3");
}

#[test]
fn clock_wraps() {
    let dir = directory();
    let opened =
        check(&make(dir.path(), "wrap.ts", "25", "20", &format!("{X264} -g 50 -bf 2 -output_ts_offset 95434")));
    assert_eq!(opened.frame(499).time.to_string(), "19.96");
}

#[test]
fn packets_of_192_bytes() {
    let dir = directory();
    let path = make(dir.path(), "blu.m2ts", "25", "4", &format!("{X264} -g 25 -bf 2 -f mpegts -mpegts_m2ts_mode 1"));
    let opened = Opened::at(&path);
    assert_eq!(ts::sniff(&opened.src), Some(PacketSize::M2ts192));
    let opened = check(&path);
    for n in 0..100 {
        let seek = opened.frame(n);
        assert_eq!((seek.keyframe.offset % 192, seek.sample_offset % 192, seek.sample_size % 192), (0, 0, 0));
    }
}

#[test]
fn ntsc_rates_and_drop_frame() {
    let dir = directory();
    for (rate, expected) in [
        ("30000/1001", (30_000, 1001)),
        ("60000/1001", (60_000, 1001)),
        ("24000/1001", (24_000, 1001)),
        ("60", (60, 1)),
    ] {
        let name = format!("{}.ts", rate.replace('/', "_"));
        let opened = check(&make(dir.path(), &name, rate, "4", &format!("{X264} -g 30 -bf 2")));
        assert_eq!(opened.rate(), Rate { num: expected.0, den: expected.1 });
        let asked = Position::Timecode { label: Label::parse("00:00:02;05").expect("a label"), drop: None };
        let answer = opened.seek(asked);
        if expected.1 == 1 || expected.0 == 24_000 {
            assert!(matches!(&answer, Err(SeekError::Invalid(text)) if text.contains("00:00:02:05")), "{answer:?}");
        } else {
            let seek = answer.expect("drop-frame");
            assert_eq!(
                (seek.frame, seek.timecode.as_deref()),
                (Some(2 * u64::from(opened.rate().nominal()) + 5), Some("00:00:02;05"))
            );
        }
    }
}

#[test]
fn drop_frame_labels_that_do_not_exist() {
    let dir = directory();
    let opened = Opened::at(&make(dir.path(), "min.ts", "30000/1001", "62", &format!("{X264} -s 32x32 -g 30")));
    let ask = |text: &str| opened.seek(Position::Timecode { label: Label::parse(text).expect("a label"), drop: None });
    assert!(matches!(ask("00:01:00;00"), Err(SeekError::Invalid(text)) if text.contains("00:01:00;02")));
    assert_eq!(ask("00:01:00;02").expect("legal").frame, Some(1800));
    assert_eq!(ask("00:01:00:00").expect("legal").frame, Some(1800));
    assert!(matches!(ask("00:00:00:30"), Err(SeekError::Invalid(text)) if text.contains("00:00:00:29")));
    assert!(
        matches!(ask("10:00:00:00"), Err(SeekError::Outside { first, last, .. }) if first == "00:00:00:00" && last.starts_with("00:01:0"))
    );
}

#[test]
fn concatenated_files() {
    let dir = directory();
    let one = std::fs::read(make(dir.path(), "1.ts", "25", "4", &format!("{X264} -g 25 -bf 2"))).expect("one");
    let two = std::fs::read(make(dir.path(), "2.ts", "25", "20", &format!("{X264} -g 25 -bf 2"))).expect("two");
    let path = dir.path().join("twice.ts");
    std::fs::write(&path, [&one[..], &two, &one].concat()).expect("written");
    let opened = check_frames(&path);
    assert_eq!(opened.table.frames(), 700);
    for n in 0..700 {
        assert_eq!(opened.table.frame(n).expect("a frame").time, n * 3600, "frame {n}");
    }
    assert!(!opened.summary.tracks[0].variable_rate);
}

#[test]
fn cut_in_a_packet() {
    let dir = directory();
    let path = make(dir.path(), "whole.ts", "25", "4", &format!("{X264} -g 25 -bf 2"));
    let data = std::fs::read(&path).expect("read");
    for cut in [data.len() - 100, data.len() * 2 / 3, data.len() / 2 + 31] {
        let path = dir.path().join(format!("cut{cut}.ts"));
        std::fs::write(&path, &data[..cut]).expect("written");
        let (opened, frames) = (Opened::at(&path), frames_of(&path));
        assert_eq!(opened.table.frames(), frames.len() as u64, "cut at {cut}");
    }
}

#[test]
fn no_keyframe_first() {
    let dir = directory();
    let codecs = [
        ("h264", "-c:v libx264 -preset veryfast -g 25 -bf 3"),
        ("open", "-c:v libx264 -preset veryfast -x264-params open-gop=1:keyint=25:bframes=3:scenecut=0"),
        ("hevc", "-c:v libx265 -preset ultrafast -x265-params open-gop=1:keyint=25:bframes=3:log-level=none"),
        ("mpeg2", "-c:v mpeg2video -g 12 -bf 2"),
    ];
    for (name, options) in codecs {
        let data = std::fs::read(make(dir.path(), &format!("{name}.ts"), "25", "4", options)).expect("read");
        for percent in [7, 20, 35, 61] {
            let path = dir.path().join(format!("{name}{percent}.ts"));
            std::fs::write(&path, &data[data.len() * percent / 100 / 188 * 188..]).expect("written");
            check_frames(&path);
        }
    }
}

#[test]
fn audio_only() {
    let dir = directory();
    let path = make(dir.path(), "tone.ts", "25", "10", "-vn -c:a aac");
    let opened = Opened::at(&path);
    assert_eq!(opened.summary.tracks[0].kind, TrackKind::Audio);
    let seek = opened.seek(Position::Time(DecimalTime { value: 5000, decimals: 3 })).expect("inside");
    assert!(seek.frame.is_none() && seek.timecode.is_none() && seek.keyframe.frame.is_none());
    // ffprobe's last packet that begins a PES packet at or before 5 s.
    let text = output(
        "ffprobe",
        &["-v", "quiet", "-show_entries", "packet=pts,pos", "-of", "csv=p=0", path.to_str().expect("UTF-8")],
    );
    let rows: Vec<(i64, u64)> = text
        .lines()
        .filter_map(|l| l.split_once(','))
        .filter_map(|(a, b)| Some((a.parse().ok()?, b.trim_end_matches(',').parse().ok()?)))
        .collect();
    let expected = rows.iter().rfind(|row| row.0 - rows[0].0 <= 450_000).expect("a row");
    assert_eq!(seek.sample_offset, expected.1);
    assert!(matches!(opened.seek(Position::Frame(0)), Err(SeekError::Unanswerable(_))));
}

/// The second file's first packets follow a packet that was cut.
#[test]
fn cut_and_continued() {
    let dir = directory();
    let data = std::fs::read(make(dir.path(), "a.ts", "25", "2", &format!("{X264} -g 25 -bf 2"))).expect("read");
    let path = dir.path().join("joined.ts");
    std::fs::write(&path, [&data[..data.len() - 61], &data[..]].concat()).expect("written");
    let opened = Opened::at(&path);
    assert_eq!(opened.table.frames(), frames_of(&path).len() as u64);
    assert_eq!(opened.table.frames(), 100);
    assert_eq!(opened.frame(50).keyframe.offset, data.len() as u64 - 61 + 188);
}

#[test]
fn gradual_refresh() {
    let dir = directory();
    let options = "-c:v libx264 -preset veryfast -x264-params intra-refresh=1:keyint=20:bframes=2 -c:a aac";
    let path = make(dir.path(), "refresh.ts", "25", "4", options);
    check_frames(&path);
    let data = std::fs::read(&path).expect("read");
    let cut = dir.path().join("cut.ts");
    std::fs::write(&cut, &data[data.len() * 3 / 10 / 188 * 188..]).expect("written");
    let opened = Opened::at(&cut);
    assert_eq!(opened.table.frames(), frames_of(&cut).len() as u64);
}

#[test]
fn unequally_spaced() {
    let dir = directory();
    let options = format!("{X264} -vf select='lt(n\\,50)+not(mod(n\\,3))' -vsync vfr -g 25 -bf 2");
    let opened = check(&make(dir.path(), "vfr.ts", "25", "8", &options));
    assert!(opened.summary.tracks[0].variable_rate);
    assert_eq!(opened.rate(), Rate { num: 25, den: 1 });
    // Frame 51 of the source is the first after the 50 that are kept whole.
    assert_eq!(opened.frame(50).timecode.as_deref(), Some("00:00:02:01"));
}
