//! Every frame of every test video, by number, time and timecode, against what ffprobe and ffmpeg say about the file:
//! frame, time, byte offset and the keyframe from which it decodes.

use std::os::unix::fs::FileExt;
use std::path::Path;

use serde_json::Value;

use crate::support::box_cursor;
use crate::support::client::{Connection, encode};
use crate::support::oracle::{self, Oracle};
use crate::support::server::{Builder, Server};

pub const PROGRESSIVE: [&str; 21] = [
    "df2997.mp4",
    "ndf2997.mov",
    "ndf25.mp4",
    "tail.mp4",
    "opengop.mp4",
    "longgop.mp4",
    "df5994.mp4",
    "ntsc_film.mp4",
    "rate30.mp4",
    "allintra.mp4",
    "vfr.mp4",
    "aud_pyramid.mp4",
    "hevc.mp4",
    "av1.mp4",
    "no_edits.mp4",
    "ctts_v1.mp4",
    "rotated.mp4",
    "mdat_to_end.mp4",
    "empty_audio.mp4",
    "co64_fast.mp4",
    "co64_tail.mp4",
];
pub const EDITED: [&str; 5] =
    ["editlist.mp4", "editlist_av.mp4", "empty_edit.mp4", "multi_edit.mp4", "empty_then_edit.mp4"];
pub const FRAGMENTED: [&str; 19] = [
    "frag.mp4",
    "frag_time.mp4",
    "frag_frame.mp4",
    "frag_offset.mp4",
    "frag_mfra.mp4",
    "frag_hybrid.mp4",
    "frag_cts.mp4",
    "cmaf.mp4",
    "dash.mp4",
    "df2997_frag.mp4",
    "sidx.mp4",
    "sidx_video.mp4",
    "sidx_wrong.mp4",
    "sidx_nested.mp4",
    "opengop_frag.mp4",
    "vfr_frag.mp4",
    "hevc_frag.mp4",
    "av1_frag.mp4",
    "vod.m4s",
];
const TRANSPORT: [&str; 10] = [
    "ndf25.ts",
    "ndf25.m2ts",
    "opengop.ts",
    "hevc.ts",
    "longgop.ts",
    "vfr.ts",
    "wrap.ts",
    "cut.ts",
    "mpeg2.ts",
    "cut_opengop.ts",
];

fn serve(names: &[&str]) -> Server {
    names.iter().fold(Server::builder(), |builder: Builder, name| builder.video(&oracle::vector(name), name)).start()
}

fn is_variable(name: &str) -> bool {
    name.starts_with("vfr")
}

/// Runs a check over each video and reports all that fail, not only the first.
pub fn each(names: &[&str], check: impl Fn(&mut Connection, &Oracle) -> Result<(), String>) {
    let mut server = serve(names);
    let mut failures = Vec::new();
    for name in names {
        let oracle = Oracle::of(name);
        assert!(!oracle.frames.is_empty(), "{name}: ffprobe saw no frame");
        let mut connection = Connection::open(server.media);
        if let Err(failure) = check(&mut connection, &oracle) {
            failures.push(format!("{name}: {failure}"));
        }
    }
    server.assert_alive("seeking");
    assert!(failures.is_empty(), "{} of {} videos:\n{}", failures.len(), names.len(), failures.join("\n"));
}

pub fn seek(connection: &mut Connection, name: &str, query: &str) -> Result<Value, String> {
    let target = format!("/videos/{}/seek?{query}", encode(name));
    let response = connection.call("GET", &target, &[], b"").map_err(|e| format!("{query}: {e}"))?;
    if response.status != 200 {
        return Err(format!("{query}: {} {}", response.status, response.text()));
    }
    Ok(response.json())
}

/// The answers to many questions about one video, asked in pipelined batches.
fn seek_all(connection: &mut Connection, name: &str, queries: &[String]) -> Result<Vec<Value>, String> {
    let path = format!("/videos/{}/seek", encode(name));
    let mut answers = Vec::with_capacity(queries.len());
    for batch in queries.chunks(64) {
        let targets: Vec<String> = batch.iter().map(|query| format!("{path}?{query}")).collect();
        let responses = connection.get_all(&targets).map_err(|e| format!("{}: {e}", batch[0]))?;
        for (query, response) in batch.iter().zip(responses) {
            if response.status != 200 {
                return Err(format!("{query}: {} {}", response.status, response.text()));
            }
            answers.push(response.json());
        }
    }
    Ok(answers)
}

pub fn expect_eq<T: PartialEq + std::fmt::Debug>(what: &str, got: T, wanted: T) -> Result<(), String> {
    if got == wanted { Ok(()) } else { Err(format!("{what}: got {got:?}, wanted {wanted:?}")) }
}

fn expect_near(what: &str, got: &Value, wanted: f64) -> Result<(), String> {
    match got.as_f64() {
        Some(value) if (value - wanted).abs() <= 1e-6 => Ok(()),
        _ => Err(format!("{what}: got {got}, wanted {wanted:.6}")),
    }
}

/// Where the chunk that decodes a keyframe begins, by container (DESIGN.md section 6).
struct Starts {
    moofs: Vec<u64>,
    transport: Option<std::fs::File>,
    unit: u64,
}

impl Starts {
    fn of(name: &str) -> Self {
        let path = oracle::vector(name);
        let transport = name.ends_with("ts").then(|| std::fs::File::open(&path).unwrap());
        let moofs = if transport.is_none() { box_cursor::top_level(&path, b"moof") } else { Vec::new() };
        Self { moofs, transport, unit: if name.ends_with(".m2ts") { 192 } else { 188 } }
    }

    fn of_sample(&self, position: u64) -> u64 {
        if let Some(file) = &self.transport {
            return self.psi_before(file, position);
        }
        self.moofs.iter().rev().find(|&&moof| moof < position).copied().unwrap_or(position)
    }

    /// Back over the tables that stand directly before the packet, to their PAT.
    fn psi_before(&self, file: &std::fs::File, position: u64) -> u64 {
        let mut start = position;
        let mut at = position;
        while at >= self.unit {
            at -= self.unit;
            let mut head = [0; 3];
            file.read_exact_at(&mut head, at + self.unit - 188).unwrap();
            let pid = u16::from_be_bytes([head[1], head[2]]) & 0x1FFF;
            match pid {
                0 => start = at,
                // ffmpeg's SDT, and its PMT: in M2TS mode, where 0x1011 is the video, or else, where 0x100 is.
                0x11 => {}
                0x100 if self.unit == 192 => {}
                0x1000 if self.unit == 188 => {}
                _ => break,
            }
        }
        start
    }
}

fn check_answer(answer: &Value, oracle: &Oracle, starts: &Starts, n: usize) -> Result<(), String> {
    let frame = &oracle.frames[n];
    expect_eq("frame", answer["frame"].as_i64(), Some(n as i64))?;
    expect_near("time", &answer["time"], oracle.time(n))?;
    if starts.transport.is_none() {
        // Chromium's currentTime is ffprobe's pts, with edit lists and without, fragmented or not.
        expect_near("presentation_time", &answer["presentation_time"], oracle.seconds(frame.pts))?;
    }
    if starts.transport.is_none() {
        expect_eq("sample.offset", answer["sample"]["offset"].as_u64(), Some(frame.position))?;
        // ffprobe does not know the packet of some AV1 frames.
        if frame.size > 0 {
            expect_eq("sample.size", answer["sample"]["size"].as_u64(), Some(frame.size))?;
        }
    }
    let key = &answer["keyframe"];
    match oracle.key_of(n) {
        Some(k) => {
            expect_eq("keyframe.frame", key["frame"].as_i64(), Some(k as i64))?;
            expect_near("keyframe.time", &key["time"], oracle.time(k))?;
            expect_eq("keyframe.offset", key["offset"].as_u64(), Some(starts.of_sample(oracle.frames[k].position)))
        }
        None => {
            let hidden = key["frame"].as_i64().is_some_and(|f| f < 0) && key["time"].as_f64().is_some_and(|t| t < 0.0);
            let before = key["offset"].as_u64().is_some_and(|offset| offset <= frame.position);
            if hidden && before { Ok(()) } else { Err(format!("keyframe: got {key}, wanted one that an edit hides")) }
        }
    }
}

fn by_frame_and_time(connection: &mut Connection, oracle: &Oracle) -> Result<(), String> {
    let starts = Starts::of(&oracle.name);
    let count = oracle.frames.len();
    let numbers: Vec<String> = (0..count).map(|n| format!("frame={n}")).collect();
    let by_frame = seek_all(connection, &oracle.name, &numbers)?;
    // Each moment with the frame that is shown then: its start in three spellings, and its middle.
    let mut moments = Vec::with_capacity(4 * count);
    for (n, answer) in by_frame.iter().enumerate() {
        check_answer(answer, oracle, &starts, n).map_err(|e| format!("frame {n} of {count}: {e}"))?;
        let time = oracle.time(n);
        moments.extend([(n, format!("time={time:.6}")), (n, format!("time={time:.3}"))]);
        moments.push((n, format!("time={}", answer["time"])));
        if n + 1 < count {
            moments.push((n, format!("time={:.6}", (time + oracle.time(n + 1)) / 2.0)));
        }
    }
    let queries: Vec<String> = moments.iter().map(|(_, query)| query.clone()).collect();
    for ((n, query), answer) in moments.iter().zip(seek_all(connection, &oracle.name, &queries)?) {
        expect_eq(query, answer["frame"].as_u64(), Some(*n as u64))?;
    }
    let beyond = connection.get(&format!("/videos/{}/seek?frame={count}", encode(&oracle.name)));
    expect_eq("the frame after the last", beyond.status, 422)?;
    expect_eq("its problem names the last frame", beyond.problem().contains(&(count - 1).to_string()), true)
}

/// Counts labels one by one as a clock on the wall would, by the rule of SMPTE ST 12-1: at each new minute but every
/// tenth, the first labels do not exist.
struct Labels {
    fields: [u64; 4],
    nominal: u64,
    drop: bool,
}

impl Labels {
    fn from(start: &str, rate: (u64, u64)) -> Self {
        let numbers: Vec<u64> = start.split([':', ';']).map(|f| f.parse().unwrap()).collect();
        let nominal = (rate.0 + rate.1 / 2) / rate.1;
        Self { fields: numbers.try_into().unwrap(), nominal, drop: start.contains(';') }
    }

    fn text(&self) -> String {
        let [h, m, s, f] = self.fields;
        format!("{h:02}:{m:02}:{s:02}{}{f:02}", if self.drop { ';' } else { ':' })
    }

    fn advance(&mut self) {
        let limits = [24, 60, 60, self.nominal];
        for place in (0..4).rev() {
            self.fields[place] += 1;
            if self.fields[place] < limits[place] {
                break;
            }
            self.fields[place] = 0;
        }
        let [_, m, s, f] = self.fields;
        if self.drop && s == 0 && f == 0 && m % 10 != 0 {
            self.fields[3] = self.nominal / 15;
        }
    }
}

fn by_timecode(connection: &mut Connection, oracle: &Oracle) -> Result<(), String> {
    let start = oracle.timecode.clone().unwrap_or_else(|| "00:00:00:00".to_owned());
    let mut labels = Labels::from(&start, oracle.rate);
    let mut queries = Vec::with_capacity(oracle.frames.len());
    for _ in &oracle.frames {
        queries.push(format!("timecode={}", labels.text()));
        labels.advance();
    }
    let numbers: Vec<String> = (0..queries.len()).map(|n| format!("frame={n}")).collect();
    let by_frame = seek_all(connection, &oracle.name, &numbers)?;
    let by_label = seek_all(connection, &oracle.name, &queries)?;
    for (n, query) in queries.iter().enumerate() {
        let context = |e: String| format!("frame {n}, {query}: {e}");
        if oracle.timecode.is_some() {
            let label = query.strip_prefix("timecode=");
            expect_eq("timecode of the frame", by_frame[n]["timecode"].as_str(), label).map_err(context)?;
        }
        expect_eq("frame of the timecode", by_label[n]["frame"].as_u64(), Some(n as u64)).map_err(context)?;
        expect_eq("drop_frame", by_label[n]["drop_frame"].as_bool(), Some(labels.drop)).map_err(context)?;
    }
    let label = labels.text();
    let beyond = connection.get(&format!("/videos/{}/seek?timecode={label}", encode(&oracle.name)));
    expect_eq(&format!("{label}, one past the end"), beyond.status, 422)
}

#[test]
fn every_frame_of_progressive_files() {
    each(&PROGRESSIVE, by_frame_and_time);
}

#[test]
fn every_frame_of_edited_files() {
    each(&EDITED, by_frame_and_time);
}

#[test]
fn every_frame_of_fragmented_files() {
    each(&FRAGMENTED, by_frame_and_time);
}

#[test]
fn every_frame_of_transport_streams() {
    each(&TRANSPORT, by_frame_and_time);
}

#[test]
fn every_timecode() {
    // Variable rate: a label is no frame. Empty edits: whether the labels wait for the picture is the muxer's choice.
    let all = PROGRESSIVE.iter().chain(&FRAGMENTED).chain(&EDITED).copied();
    each(&all.filter(|name| !is_variable(name) && !name.starts_with("empty_")).collect::<Vec<_>>(), by_timecode);
}

#[test]
fn timecode_breaks() {
    // fixtures/vectors.sh: 01:09:00:00 for 5 s, 02:00:00:00 for 5 s, 10:00:00:00 for the rest, at 25 frames per second.
    let server = serve(&["tmcd_breaks.mp4"]);
    let mut connection = Connection::open(server.media);
    for (frame, label) in [
        (0, "01:09:00:00"),
        (124, "01:09:04:24"),
        (125, "02:00:00:00"),
        (249, "02:00:04:24"),
        (250, "10:00:00:00"),
        (499, "10:00:09:24"),
    ] {
        let by_frame = seek(&mut connection, "tmcd_breaks.mp4", &format!("frame={frame}")).unwrap();
        assert_eq!(by_frame["timecode"], label, "frame {frame}");
        let by_label = seek(&mut connection, "tmcd_breaks.mp4", &format!("timecode={label}")).unwrap();
        assert_eq!(by_label["frame"], frame, "{label}");
    }
    for gap in ["01:09:05:00", "02:00:05:00", "10:00:10:00", "01:08:59:24"] {
        assert_eq!(connection.get(&format!("/videos/tmcd_breaks.mp4/seek?timecode={gap}")).status, 422, "{gap}");
    }
}

fn label_at_60(frame: i64) -> String {
    let (seconds, rest) = (frame / 60, frame % 60);
    format!("{:02}:{:02}:{:02}:{rest:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

#[test]
fn a_day_of_frames() {
    let names = ["day.mp4", "day_bframes.mp4"];
    let server = serve(&names);
    for name in names {
        let oracle = Oracle::of(name);
        let mut connection = Connection::open(server.media);
        assert!(oracle.frames.len() >= 300, "{name}: {} frames", oracle.frames.len());
        // 60 frames per second on a clock of 15360 ticks.
        let numbers: Vec<i64> = oracle.frames.iter().map(|frame| frame.pts / 256).collect();
        let labels: Vec<String> = numbers.iter().map(|&n| label_at_60(n)).collect();
        let queries: Vec<String> = numbers.iter().map(|n| format!("frame={n}")).collect();
        let by_frame = seek_all(&mut connection, name, &queries).unwrap();
        let queries: Vec<String> = labels.iter().map(|label| format!("timecode={label}")).collect();
        let by_label = seek_all(&mut connection, name, &queries).unwrap();
        for (i, frame) in oracle.frames.iter().enumerate() {
            let (n, answer) = (numbers[i], &by_frame[i]);
            assert_eq!(answer["frame"], n, "{name}");
            assert_eq!(answer["sample"]["offset"], frame.position, "{name} frame {n}");
            assert_eq!(answer["sample"]["size"], frame.size, "{name} frame {n}");
            assert_eq!(answer["keyframe"]["frame"], n - n % 60, "{name} frame {n}");
            assert_eq!(by_label[i]["frame"], n, "{name} {}", labels[i]);
        }
        assert_eq!(connection.get(&format!("/videos/{name}/seek?frame=5184000")).status, 422);
    }
}

#[test]
fn separators_and_drop_frame_labels() {
    let server = serve(&["df2997.mp4", "ndf25.mp4", "df5994.mp4", "rate30.mp4"]);
    let mut connection = Connection::open(server.media);
    for (name, query, status) in [
        ("df2997.mp4", "timecode=01:00:00;10", 200),
        ("df2997.mp4", "timecode=01%3A00%3A00%3B10", 200),
        ("df2997.mp4", "timecode=01:00:00:10", 400), // contradicts the tmcd track's flag
        ("df2997.mp4", "timecode=01:00:00:10&drop=1", 200),
        ("df2997.mp4", "timecode=01:00:00;29", 200),
        ("df2997.mp4", "timecode=01:00:00;30", 400),
        ("df2997.mp4", "timecode=01:01:00;00", 400), // does not exist
        ("df2997.mp4", "timecode=01:01:00;01", 400),
        ("df2997.mp4", "timecode=01:01:00;02", 422), // exists, past the end
        ("df2997.mp4", "timecode=01:10:00;00", 422),
        ("df2997.mp4", "timecode=00:59:59;29", 422),
        ("df5994.mp4", "timecode=00:10:00;00", 200),
        ("df5994.mp4", "timecode=00:11:00;03", 400),
        ("df5994.mp4", "timecode=00:11:00;04", 422),
        ("ndf25.mp4", "timecode=01:09:00;00", 400), // no drop-frame at 25
        ("ndf25.mp4", "timecode=01:09:00:24", 200),
        ("ndf25.mp4", "timecode=01:09:00:25", 400),
        ("ndf25.mp4", "timecode=01:60:00:00", 400),
        ("ndf25.mp4", "timecode=01:09:60:00", 400),
        ("ndf25.mp4", "timecode=24:00:00:00", 400),
    ] {
        let response = connection.get(&format!("/videos/{name}/seek?{query}"));
        assert_eq!(response.status, status, "{name} {query}: {response:?}");
        if status != 200 {
            response.problem();
        }
    }
    let illegal = connection.get("/videos/df2997.mp4/seek?timecode=01:01:00;00").problem();
    assert!(illegal.contains("01:01:00;02"), "the nearest legal label is missing: {illegal}");
    let outside = connection.get("/videos/df2997.mp4/seek?timecode=02:00:00;00").problem();
    assert!(outside.contains("01:00:00;00") && outside.contains("01:00:19;28"), "first and last label: {outside}");
    let contradiction = connection.get("/videos/df2997.mp4/seek?timecode=01:00:10:10").problem();
    assert!(contradiction.contains("01:00:10;10"), "both readings: {contradiction}");
}

#[test]
fn containers_without_an_index_say_so() {
    let mut server = serve(&["cues.webm", "ndf25.mkv", "audio.m4a", "empty_video.mp4", "jump.ts", "stss_empty.mp4"]);
    let mut connection = Connection::open(server.media);
    for name in ["cues.webm", "ndf25.mkv"] {
        let response = connection.get(&format!("/videos/{name}/seek?timecode=00:00:01:00"));
        assert_eq!(response.status, 422, "{name}: {response:?}");
        let detail = response.problem().to_ascii_lowercase();
        assert!(detail.contains("mp4") && detail.contains("ts"), "which containers have an index: {detail}");
        let file = std::fs::read(oracle::vector(name)).unwrap();
        assert!(connection.get(&format!("/videos/{name}/file")).body == file, "{name} by bytes");
    }
    for name in ["audio.m4a", "empty_video.mp4", "stss_empty.mp4"] {
        let response = connection.get(&format!("/videos/{name}/seek?frame=0"));
        assert!(matches!(response.status, 200 | 422), "{name}: {response:?}");
        assert_eq!(connection.get(&format!("/videos/{name}")).status, 200, "{name}");
    }
    assert_eq!(connection.get("/videos/jump.ts/seek?frame=700").status, 200, "a clock that jumps back");
    server.assert_alive("odd containers");
}

#[test]
fn descriptions_agree_with_ffprobe() {
    let names = ["df2997.mp4", "frag.mp4", "ndf25.ts", "hevc.mp4", "av1.mp4", "editlist.mp4"];
    let server = serve(&names);
    let list = server.get("/videos").json();
    let list = list.as_array().or_else(|| list["videos"].as_array()).expect("a list").clone();
    assert_eq!(list.len(), names.len());
    for name in names {
        let video = server.get(&format!("/videos/{name}")).json();
        let probed = oracle::read_json(&oracle::vector(&format!("{name}.streams.json")));
        let frames = Oracle::of(name).frames;
        assert_eq!(video["id"], name);
        let length = std::fs::metadata(Path::new(&oracle::vector(name))).unwrap().len();
        assert_eq!(video["size_bytes"], length, "{name}");
        assert_eq!(video["container"], if name.ends_with(".ts") { "ts" } else { "mp4" });
        assert_eq!(video["fragmented"], name == "frag.mp4", "{name}");
        let tracks = video["tracks"].as_array().unwrap();
        let track = tracks.iter().find(|t| t["kind"] == "video").unwrap_or_else(|| panic!("{name}: {video}"));
        let stream = probed["streams"].as_array().unwrap().iter().find(|s| s["codec_type"] == "video").unwrap();
        assert_eq!((&track["width"], &track["height"]), (&stream["width"], &stream["height"]), "{name}");
        assert_eq!(track["frames"], frames.len(), "{name}");
        let codec = track["codec"].as_str().unwrap();
        let prefix = match stream["codec_name"].as_str().unwrap() {
            "h264" => "avc1.",
            "hevc" => "hvc1.",
            _ => "av01.",
        };
        assert!(codec.starts_with(prefix), "{name}: {codec}");
    }
    assert_eq!(server.get("/videos/df2997.mp4").json()["start_timecode"], "01:00:00;00");
}
