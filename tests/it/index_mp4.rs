//! The MP4 index against ffprobe and ffmpeg: every frame of every vector.
//!
//! The library's index without a server: every vector that is there, and damage of all kinds.

use bytes::Bytes;
use serde_json::Value;
use std::path::Path;
use weir::media::index::{Index, Position, Seek};
use weir::media::time::{DecimalTime, Label, Rate, Seconds};
use weir::store::MappedFile;

use crate::support::oracle::vectors;

struct Video {
    name: String,
    file: MappedFile,
    index: Index,
    oracle: Value,
}

impl Video {
    fn open(directory: &Path, name: &str) -> Option<Video> {
        let oracle = std::fs::read(directory.join(format!("{name}.frames.json"))).ok()?;
        let oracle = serde_json::from_slice(&oracle).expect("ffprobe writes JSON");
        let file = MappedFile::open(&directory.join(name)).expect("the vector is readable");
        let entry = Index::build(&file).unwrap_or_else(|e| panic!("{name}: {e}"));
        let index = Index::open(Bytes::from(entry)).unwrap_or_else(|e| panic!("{name}: {e}"));
        Some(Video { name: name.to_owned(), file, index, oracle })
    }

    fn seek(&self, position: &Position) -> Seek {
        self.index.resolve(&self.file, position).unwrap_or_else(|e| panic!("{}: {position:?}: {e}", self.name))
    }

    fn frames(&self) -> &Vec<Value> {
        self.oracle["frames"].as_array().expect("frames")
    }

    fn time_base(&self) -> u64 {
        let text = self.oracle["streams"][0]["time_base"].as_str().expect("time_base");
        text.strip_prefix("1/").expect("1/n").parse().expect("a number")
    }
}

fn number(value: &Value) -> i64 {
    value.as_i64().or_else(|| value.as_str()?.parse().ok()).unwrap_or_else(|| panic!("a number: {value}"))
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(directory)
        .expect("the directory of vectors")
        .map(|file| file.expect("an entry").file_name().into_string().expect("UTF-8"))
        .filter(|name| ["mp4", "mov", "m4s"].iter().any(|kind| name.ends_with(&format!(".{kind}"))))
        .filter(|name| !name.starts_with('.') && !name.starts_with("minute-"))
        .collect();
    names.sort();
    names
}

/// Every frame: its bytes, its time, and that what is printed for it finds it again.
#[test]
fn every_frame_is_where_ffprobe_sees_it() {
    let directory = vectors();
    let mut checked = 0;
    let mut failures = Vec::new();
    for name in names(directory).iter().filter(|name| !name.starts_with("day") && *name != "empty_video.mp4") {
        let Some(video) = Video::open(directory, name) else { continue };
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check_frames(&video)));
        match outcome {
            Ok(()) => checked += 1,
            Err(error) => failures.push(format!(
                "{name}: {}",
                error.downcast_ref::<String>().cloned().unwrap_or_else(|| "panicked".to_owned())
            )),
        }
    }
    assert!(failures.is_empty(), "{checked} agree, {} do not:\n{}", failures.len(), failures.join("\n"));
    assert!(checked > 30, "only {checked} vectors were there");
}

fn check_frames(video: &Video) {
    let (frames, base) = (video.frames(), video.time_base());
    let track = video.index.summary().tracks.iter().find(|track| track.frame_rate.is_some()).expect("a picture");
    assert_eq!(track.frames, frames.len() as u64, "frames");
    let first = number(&frames[0]["pts"]);
    let mut labels = std::collections::HashSet::new();
    for (n, frame) in frames.iter().enumerate() {
        let seek = video.seek(&Position::Frame(n as u64));
        assert_eq!(seek.sample_offset, number(&frame["pkt_pos"]) as u64, "offset of frame {n}");
        // ffprobe does not know the size of what libdav1d decoded.
        let size = number(&frame["pkt_size"]) as u64;
        assert!(size == 0 || seek.sample_size == size, "size of frame {n}: {} and {size}", seek.sample_size);
        let pts = number(&frame["pts"]);
        let expected = Seconds::new(i128::from(pts - first), base).expect("a time base");
        assert_eq!(seek.time, expected, "time of frame {n}: {} and {expected}", seek.time);
        let presented = Seconds::new(i128::from(pts), base).expect("a time base");
        assert_eq!(seek.presentation_time, presented, "presentation of frame {n}");
        let time = DecimalTime::parse(&seek.time.to_string()).expect("a printed time");
        assert_eq!(video.seek(&Position::Time(time)).frame, Some(n as u64), "time={time}");
        let text = seek.timecode.clone().expect("a timecode");
        let label = Label::parse(&text).expect("a printed timecode");
        if labels.insert(text.clone()) {
            let again = video.seek(&Position::Timecode { label, drop: None });
            assert_eq!(again.frame, Some(n as u64), "timecode={text}");
        } else {
            assert!(track.variable_rate, "{text} twice");
        }
        assert!(seek.keyframe.frame.expect("a picture") <= n as i64, "keyframe of frame {n}");
    }
    let rate = video.oracle["streams"][0]["r_frame_rate"].as_str().expect("a rate");
    let (num, den) = rate.split_once('/').expect("a fraction");
    let rate = Rate::new(num.parse().expect("num"), den.parse().expect("den"));
    assert_eq!(track.frame_rate, rate, "rate");
    let tags = &video.oracle["streams"][0]["tags"]["timecode"];
    let start = video.index.summary().start_timecode.clone().expect("a start").0;
    assert_eq!(start, tags.as_str().unwrap_or("00:00:00:00"), "start timecode");
}

/// A small generator with a fixed seed (Knuth's MMIX constants), so that a failure repeats.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound.max(1)
    }
}

/// Bytes of the boxes that say where samples are; the media itself matters little.
fn structure(file: &[u8]) -> Vec<usize> {
    let (mut at, mut found) = (0, Vec::new());
    while at + 8 <= file.len() {
        let size = u32::from_be_bytes(file[at..at + 4].try_into().expect("four bytes")) as usize;
        if matches!(&file[at + 4..at + 8], b"moov" | b"moof" | b"sidx" | b"mfra") {
            found.extend(at..at + size);
        } else {
            found.extend(at..at + 8);
        }
        at += size.max(8);
    }
    found
}

fn mutate(file: &mut Vec<u8>, places: &[usize], random: &mut Random) {
    for _ in 0..1 + random.below(4) {
        let at = places[random.below(places.len())];
        match random.below(5) {
            0 => file[at] = random.below(256) as u8,
            1 => file[at] ^= 1 << random.below(8),
            // Numbers at the edges of their range.
            2 => {
                let value = [0u32, 1, 2, 7, 8, 0x7fff_ffff, 0x8000_0000, u32::MAX][random.below(8)];
                let end = (at + 4).min(file.len());
                file[at..end].copy_from_slice(&value.to_be_bytes()[..end - at]);
            }
            3 => {
                let from = places[random.below(places.len())];
                let len = random.below(32).min(file.len() - at.max(from));
                file.copy_within(from..from + len, at);
            }
            _ => {
                if random.below(20) == 0 {
                    file.truncate(at);
                    return;
                }
                file[at] = file[at].wrapping_add(1);
            }
        }
        if at >= file.len() {
            return;
        }
    }
}

/// Mutations of each file and of its entry.
const ROUNDS: usize = 400;

/// No input makes the index panic, or take long.
#[test]
fn mutated_files_and_entries_are_refused_or_answered() {
    let directory = vectors();
    let mut random = Random(20_261_122);
    let names = [
        "multi_edit.mp4",
        "frag_offset.mp4",
        "frag_frame.mp4",
        "hevc.mp4",
        "df5994.mp4",
        "audio.m4a",
        "hevc_frag.mp4",
        "tmcd_breaks.mp4",
        "vfr.mp4",
        "frag_hybrid.mp4",
    ];
    let mut opened = 0;
    for name in names {
        let original = std::fs::read(directory.join(name)).expect("a vector");
        let places = structure(&original);
        let entry = Index::build(&original.as_slice()).expect("well-formed");
        let derived: Vec<usize> = (0..entry.len()).collect();
        for round in 0..ROUNDS {
            let began = std::time::Instant::now();
            let mut file = original.clone();
            mutate(&mut file, &places, &mut random);
            if let Ok(entry) = Index::build(&file.as_slice()) {
                opened += ask(&file, entry, &mut random);
            }
            let mut entry = entry.clone();
            mutate(&mut entry, &derived, &mut random);
            ask(&original, entry, &mut random);
            let took = began.elapsed();
            assert!(took.as_secs() < 2, "{name} round {round} took {took:?}");
        }
    }
    assert!(opened > ROUNDS * 3, "only {opened} mutated files had an index: the mutations are too coarse");
}

/// Asks an entry of unknown worth everything; the answers do not matter.
fn ask(file: &[u8], entry: Vec<u8>, random: &mut Random) -> usize {
    let Ok(index) = Index::open_trusted(Bytes::from(entry)) else { return 0 };
    let count = index.summary().tracks.iter().map(|track| track.frames).max().unwrap_or(0);
    for position in [
        Position::Frame(0),
        Position::Frame(count.saturating_sub(1)),
        Position::Frame(random.below(700) as u64),
        Position::Time(DecimalTime { value: random.below(20_000) as i64, decimals: 3 }),
        Position::Timecode {
            label: Label {
                hours: 1,
                minutes: 0,
                seconds: random.below(60) as u32,
                frames: 3,
                drop: random.below(2) == 0,
            },
            drop: [None, Some(true), Some(false)][random.below(3)],
        },
    ] {
        let _ = index.resolve(&file, &position);
    }
    if let Some(tracks) = index.tracks(&file) {
        for track in 0..tracks.len() {
            let from = random.below(500) as u64;
            let _ = tracks.samples(track, from).take(3).count();
            let _ = tracks.sample_at_or_after(track, random.below(100_000) as i64);
            let _ = tracks.get(track).map(|track| track.stsd.len());
        }
    }
    1
}

/// What a cut file still holds whole is indexed; what is cut off is not.
#[test]
fn truncated_files_keep_what_is_whole() {
    for name in ["frag.mp4", "frag_frame.mp4", "ndf25.mp4"] {
        let whole = std::fs::read(vectors().join(name)).expect("a vector");
        let oracle = std::fs::read(vectors().join(format!("{name}.frames.json"))).expect("an oracle");
        let oracle: Value = serde_json::from_slice(&oracle).expect("ffprobe writes JSON");
        for len in [whole.len() * 3 / 5, whole.len() * 3 / 5 + 1234] {
            let cut = &whole[..len];
            let entry = Index::build(&cut).unwrap_or_else(|e| panic!("{name}: {e}"));
            let index = Index::open(Bytes::from(entry)).expect("its own entry");
            let frames = index.summary().tracks[0].frames;
            let frame = |n: u64| index.resolve(&cut, &Position::Frame(n)).expect("inside");
            for (n, seen) in oracle["frames"].as_array().expect("frames").iter().enumerate().take(frames as usize) {
                let seek = frame(n as u64);
                // The last few may miss the frames that would be shown between them.
                if n as u64 + 6 < frames {
                    assert_eq!(seek.sample_offset, number(&seen["pkt_pos"]) as u64, "{name} frame {n}");
                }
                assert!(seek.sample_offset + seek.sample_size <= len as u64, "{name} frame {n}");
            }
            // 500 frames of about equal size; a fragment holds at most 50.
            assert!((200..400).contains(&frames), "{name}: {frames} frames in 3/5 of the file");
            assert!(index.resolve(&cut, &Position::Frame(frames)).is_err());
        }
    }
}

/// No sync sample at all: everything decodes from the first sample.
#[test]
fn an_empty_stss_means_the_first_sample() {
    let video = Video::open(vectors(), "stss_empty.mp4").expect("a vector");
    let first = number(&video.frames()[0]["pkt_pos"]) as u64;
    for frame in [0, 1, 250, 499] {
        let seek = video.seek(&Position::Frame(frame));
        assert_eq!((seek.keyframe.offset, seek.keyframe.frame), (first, Some(0)), "frame {frame}");
    }
}

#[test]
fn sound_alone_has_times_and_nothing_else() {
    let file = std::fs::read(vectors().join("audio.m4a")).expect("a vector");
    let index = Index::open(Bytes::from(Index::build(&file.as_slice()).expect("well-formed"))).expect("its own entry");
    let ask = |position| index.resolve(&file.as_slice(), &position);
    let label = Label { hours: 0, minutes: 0, seconds: 1, frames: 0, drop: false };
    for position in [Position::Frame(3), Position::Timecode { label, drop: None }] {
        assert!(matches!(ask(position), Err(weir::media::index::SeekError::Unanswerable(_))), "{position:?}");
    }
    let seek = ask(Position::Time(DecimalTime { value: 2, decimals: 0 })).expect("5 s long");
    assert_eq!((seek.frame, &seek.timecode, seek.keyframe.frame), (None, &None, None));
    // Frames of 1024 samples at 48 kHz: the first one that starts at or after 2 s is number 94.
    assert_eq!(seek.time.to_string(), "2.005333");
    assert_eq!(seek.keyframe.offset, seek.sample_offset);
    let outside = ask(Position::Time(DecimalTime { value: 5100, decimals: 3 })).expect_err("5 s long").to_string();
    assert!(outside.contains("this video has 0 to 4.9"), "{outside}");
}
