//! What ffprobe and ffmpeg see: the expected values of every test about time, frames and bytes. See
//! fixtures/vectors.sh.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::Value;

/// The directory of the generated videos; makes them at first use.
pub fn vectors() -> &'static Path {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    DIRECTORY.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let directory = std::env::var_os("WEIR_VECTORS").map_or_else(|| root.join("target/vectors"), PathBuf::from);
        let script = root.join("tests/fixtures/vectors.sh");
        let status = Command::new(script).arg(&directory).stdout(Stdio::null()).status().expect("bash is there");
        assert!(status.success(), "tests/fixtures/vectors.sh failed");
        directory
    })
}

pub fn vector(name: &str) -> PathBuf {
    vectors().join(name)
}

/// One frame as shown, in presentation order.
#[derive(Debug, Clone)]
pub struct Frame {
    pub pts: i64,
    /// First byte of its packet in the file.
    pub position: u64,
    pub size: u64,
    pub key: bool,
}

#[derive(Debug, Clone)]
pub struct Oracle {
    pub name: String,
    pub frames: Vec<Frame>,
    /// Seconds per tick of `pts`, as a fraction.
    pub time_base: (i64, i64),
    pub rate: (u64, u64),
    /// The stream's or the file's timecode tag.
    pub timecode: Option<String>,
    /// Checksums of the decoded frames, in presentation order.
    pub md5: Vec<String>,
}

impl Oracle {
    pub fn of(name: &str) -> Self {
        let json = read_json(&vector(&format!("{name}.frames.json")));
        let video = json["streams"].as_array().and_then(|s| s.iter().find(|s| s["codec_type"] == "video"));
        let video = video.unwrap_or_else(|| panic!("{name} has no video stream"));
        let (tb_num, tb_den) = fraction(&video["time_base"]);
        let (rate_num, rate_den) = fraction(&video["r_frame_rate"]);
        let frames = json["frames"].as_array().into_iter().flatten();
        let frames = frames.filter(|frame| frame["pts"].is_i64()).map(frame_of).collect();
        let tags = [&video["tags"]["timecode"], &json["format"]["tags"]["timecode"]];
        let timecode = tags.iter().find_map(|tag| tag.as_str()).map(str::to_owned);
        let md5 = std::fs::read_to_string(vector(&format!("{name}.framemd5"))).unwrap_or_default();
        Self {
            name: name.to_owned(),
            frames,
            time_base: (tb_num, tb_den),
            rate: (rate_num.unsigned_abs(), rate_den.unsigned_abs()),
            timecode,
            md5: checksums(&md5),
        }
    }

    /// Seconds from frame 0.
    pub fn time(&self, frame: usize) -> f64 {
        self.seconds(self.frames[frame].pts - self.frames[0].pts)
    }

    pub fn seconds(&self, ticks: i64) -> f64 {
        (ticks as f64) * (self.time_base.0 as f64) / (self.time_base.1 as f64)
    }

    /// The frame that decoding of `frame` must begin with, or none when it is hidden by an edit list: the last key
    /// frame that is not after it in the file, or the one before that when `frame` is a leading picture (shown before
    /// its key frame, hence referring to what came earlier).
    pub fn key_of(&self, frame: usize) -> Option<usize> {
        let wanted = &self.frames[frame];
        let mut keys: Vec<usize> = (0..self.frames.len())
            .filter(|&i| self.frames[i].key && self.frames[i].position <= wanted.position)
            .collect();
        keys.sort_by_key(|&i| self.frames[i].position);
        keys.into_iter().rev().find(|&key| self.frames[key].pts <= wanted.pts)
    }
}

fn frame_of(json: &Value) -> Frame {
    let number = |key: &str| json[key].as_str().and_then(|v| v.parse::<u64>().ok());
    Frame {
        pts: json["pts"].as_i64().expect("filtered"),
        position: number("pkt_pos").unwrap_or(u64::MAX),
        size: number("pkt_size").unwrap_or(0),
        key: json["key_frame"].as_i64() == Some(1),
    }
}

fn fraction(value: &Value) -> (i64, i64) {
    let text = value.as_str().unwrap_or("0/1");
    let (num, den) = text.split_once('/').expect("ffprobe writes fractions");
    (num.parse().unwrap(), den.parse().unwrap())
}

pub fn read_json(file: &Path) -> Value {
    let text = std::fs::read(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    serde_json::from_slice(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
}

/// The checksum column of a framemd5 listing.
fn checksums(listing: &str) -> Vec<String> {
    let rows = listing.lines().filter(|line| !line.starts_with('#'));
    rows.filter_map(|line| line.rsplit(',').next().map(|sum| sum.trim().to_owned())).collect()
}

/// Decodes the first video stream of `media` with ffmpeg; checksums of its frames in presentation order.
pub fn decode(media: &[u8]) -> Vec<String> {
    let file = tempfile::Builder::new().prefix("decode-").tempfile_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    std::fs::write(file.path(), media).unwrap();
    decode_from(file.path().as_os_str())
}

/// The same of a file, or of a URL.
pub fn decode_from(input: &OsStr) -> Vec<String> {
    let output = Command::new("ffmpeg")
        .args(["-nostdin", "-hide_banner", "-loglevel", "fatal", "-threads", "1", "-noautorotate", "-i"])
        .arg(input)
        .args(["-map", "0:v:0", "-fps_mode", "passthrough", "-fflags", "+bitexact", "-f", "framemd5", "-"])
        .output()
        .expect("ffmpeg is installed");
    checksums(&String::from_utf8_lossy(&output.stdout))
}

/// ffprobe's view of some bytes: streams and format, with the given extra arguments.
pub fn probe(media: &[u8], extra: &[&str]) -> Value {
    let file = tempfile::Builder::new().prefix("probe-").tempfile_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    std::fs::write(file.path(), media).unwrap();
    let output = Command::new("ffprobe")
        .args(["-loglevel", "error", "-of", "json", "-show_streams", "-show_format"])
        .args(extra)
        .arg(file.path())
        .output()
        .expect("ffprobe is installed");
    serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
}
