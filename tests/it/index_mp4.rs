//! The MP4 index against ffprobe and ffmpeg: every frame of every vector.
//!
//! The vectors and what ffprobe says about them come from tests/fixtures/vectors.sh; `WEIR_VECTORS` names the
//! directory. Without it these tests have nothing to compare with and say so.

use bytes::Bytes;
use serde_json::Value;
use std::path::{Path, PathBuf};
use weir::media::index::{Index, Position, Seek};
use weir::media::time::{DecimalTime, Label, Rate, Seconds};
use weir::store::MappedFile;

fn vectors() -> Option<PathBuf> {
    let named = std::env::var_os("WEIR_VECTORS").map(PathBuf::from);
    if named.is_none() {
        eprintln!("WEIR_VECTORS is not set: no vectors to compare with");
    }
    named
}

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
    let Some(directory) = vectors() else { return };
    let mut checked = 0;
    let mut failures = Vec::new();
    for name in names(&directory).iter().filter(|name| !name.starts_with("day") && *name != "empty_video.mp4") {
        let Some(video) = Video::open(&directory, name) else { continue };
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
        assert_eq!(seek.sample_size, number(&frame["pkt_size"]) as u64, "size of frame {n}");
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
