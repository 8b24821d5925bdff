//! `weir inspect FILE`: what a file contains, or where a moment of it lies. Reads the file, writes nothing.

use super::{fail, say};
use crate::http::chunk::seek_json;
use crate::lazy::Components;
use crate::media::index::{Container, Index, Position, Seek, Summary, TrackKind};
use crate::media::time::{Label, TimeError};
use crate::store::MappedFile;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// A video: MP4, MOV or MPEG-TS
    file: PathBuf,
    /// HH:MM:SS:FF, with ; before FF for drop-frame: where this frame lies
    #[arg(long, value_name = "TIMECODE")]
    timecode: Option<String>,
    /// Print the JSON of GET /videos/{id}, or of /seek
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, components: &Components) -> ExitCode {
    match inspect(arguments, components) {
        Ok(text) => {
            say!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            let code = if error.is::<TimeError>() { super::USAGE } else { 1 };
            fail(code, &format!("{}: {error}", arguments.file.display()))
        }
    }
}

type Failure = Box<dyn std::error::Error>;

fn inspect(arguments: &Arguments, components: &Components) -> Result<String, Failure> {
    let file = components.step("open", || MappedFile::open(&arguments.file))?;
    let entry = components.step("index", || Index::build(&file))?;
    let index = Index::open(entry.into())?;
    let id = arguments.file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let Some(timecode) = &arguments.timecode else {
        return Ok(if arguments.json {
            pretty(&crate::http::videos::describe_file(&id, file.len(), index.summary()))
        } else {
            describe(&arguments.file, file.len(), index.summary())
        });
    };
    let position = Position::Timecode { label: Label::parse(timecode)?, drop: None };
    let seek = index.resolve(&file, &position)?;
    Ok(if arguments.json { pretty(&seek_json(&id, &seek)) } else { describe_seek(&seek) })
}

fn pretty(value: &Value) -> String {
    format!("{value:#}")
}

fn describe(path: &Path, size: u64, summary: &Summary) -> String {
    let container = match summary.container {
        Container::Mp4 => "MP4",
        Container::Ts => "MPEG-TS",
    };
    let mut text = format!("{}: {size} bytes, {container}", path.display());
    if summary.fragmented {
        text += ", fragmented";
    }
    if let Some(duration) = summary.duration {
        text += &format!(", {duration} s");
    }
    if let Some((label, counting)) = &summary.start_timecode {
        let drop = if counting.drop { "drop-frame" } else { "non-drop" };
        let source = if summary.has_timecode_track { "" } else { ", no timecode track" };
        text += &format!("\nstarts at {label} ({} {drop}{source})", counting.rate);
    }
    for track in &summary.tracks {
        text += &format!("\ntrack {}: {} {}", track.id, kind(track.kind), track.codec);
        if let (Some(width), Some(height)) = (track.width, track.height) {
            text += &format!(", {width}x{height}");
        }
        if let Some(rate) = track.frame_rate {
            text += &format!(", {rate} frames/s");
        }
        if let (Some(rate), Some(channels)) = (track.sample_rate, track.channels) {
            text += &format!(", {rate} Hz, {channels} channels");
        }
        let unit = if track.kind == TrackKind::Video { "frame" } else { "sample" };
        let plural = if track.frames == 1 { "" } else { "s" };
        text += &format!(", {} {unit}{plural}", track.frames);
        if track.kind == TrackKind::Video {
            text += &format!(", {} keyframes", track.keyframes);
        }
    }
    text
}

fn kind(kind: TrackKind) -> &'static str {
    match kind {
        TrackKind::Video => "video",
        TrackKind::Audio => "audio",
        TrackKind::Timecode => "timecode",
        TrackKind::Text => "text",
        TrackKind::Other => "other",
    }
}

fn describe_seek(seek: &Seek) -> String {
    let of = |frame: Option<u64>| frame.map_or(json!(null), |frame| json!(frame));
    format!(
        "frame {} at {} s, timecode {}\nkeyframe at {} s, byte {}\nsample at byte {}, {} bytes",
        of(seek.frame),
        seek.time,
        seek.timecode.as_deref().unwrap_or("none"),
        seek.keyframe.time,
        seek.keyframe.offset,
        seek.sample_offset,
        seek.sample_size,
    )
}
