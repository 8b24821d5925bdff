//! What `weir frame`, `weir adjust` and `weir enhance` share: a picture out of a file, and into one. Files are images
//! (JPEG, PNG) or videos; results are written by the extension of their name.

use crate::config::Config;
use crate::frame::encode::{Format, QUALITY};
use crate::frame::image::Image;
use crate::frame::still::{self, Decoded, Edit};
use crate::frame::stills::StillsConfig;
use crate::frame::{Job, Limits, Parts, upload};
use crate::lazy::Components;
use crate::media::index::{Index, Position};
use crate::media::time::{DecimalTime, Label};
use crate::store::MappedFile;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use std::{fs, io};

/// The moment of a video.
#[derive(clap::Args)]
#[group(multiple = false)]
pub(super) struct Moment {
    /// HH:MM:SS:FF, with ; before FF for drop-frame
    #[arg(long, value_name = "TIMECODE", value_parser = timecode)]
    timecode: Option<Label>,
    /// Seconds from the first frame, or HH:MM:SS.mmm
    #[arg(long, value_name = "TIME", value_parser = time)]
    time: Option<DecimalTime>,
    /// Number of the frame, from 0
    #[arg(long, value_name = "N")]
    frame: Option<u64>,
}

/// Where the picture goes, and how.
#[derive(clap::Args)]
pub(super) struct Output {
    /// File to write: .jpg or .png
    #[arg(short, long, value_name = "OUT")]
    pub(super) output: PathBuf,
    /// Of a JPEG, 1 to 100
    #[arg(long, value_name = "N", default_value_t = QUALITY, value_parser = clap::value_parser!(u8).range(1..=100))]
    quality: u8,
}

/// Exit code and text.
pub(super) type Failure = (u8, String);

impl Moment {
    pub(super) fn position(&self) -> Option<Position> {
        let timecode = self.timecode.map(|label| Position::Timecode { label, drop: None });
        timecode.or(self.time.map(Position::Time)).or(self.frame.map(Position::Frame))
    }
}

fn timecode(text: &str) -> Result<Label, String> {
    Label::parse(text).map_err(|error| error.to_string())
}

fn time(text: &str) -> Result<DecimalTime, String> {
    DecimalTime::parse(text).map_err(|error| error.to_string())
}

/// A number of a range, as an argument.
fn number(text: &str, least: f32, most: f32) -> Result<f32, String> {
    let number = text.parse::<f32>().ok().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| format!("write a number from {least} to {most}"))
}

/// From -1 to 1.
pub(super) fn signed(text: &str) -> Result<f32, String> {
    number(text, -1.0, 1.0)
}

/// From 0 to 1.
pub(super) fn amount(text: &str) -> Result<f32, String> {
    number(text, 0.0, 1.0)
}

/// A picture with the server's default limits; time is not short on a command line.
pub(super) fn job(components: &Components) -> Job {
    let config = Config::default();
    let time = Duration::from_secs(3600);
    let limits = Limits { pixels_max: config.frame_pixels_max, bytes_max: config.frame_bytes_max.0, time };
    let (threads, queue_max, cache_bytes) = (1, 1, 0);
    let parts = Parts::add(components, StillsConfig { threads, queue_max, cache_bytes, limits });
    parts.job("command line".to_owned())
}

/// The frame of a video.
pub(super) fn decoded(
    path: &Path,
    position: &Position,
    job: &Job,
    components: &Components,
) -> Result<Decoded, Failure> {
    let failed = |error: &dyn std::fmt::Display| (1, format!("{}: {error}", path.display()));
    let file = components.step("open", || MappedFile::open(path)).map_err(|error| failed(&error))?;
    let entry = components.step("index", || Index::build(&file)).map_err(|error| failed(&error))?;
    let index = Index::open_trusted(entry.into()).map_err(|error| failed(&error))?;
    still::frame(&index, &file, position, job).map_err(|error| failed(&error))
}

/// Edits an image, or a frame of a video where a moment is named, and writes it.
pub(super) fn edit(path: &Path, moment: &Moment, output: &Output, edit: &Edit, components: &Components) -> ExitCode {
    let edited = || {
        let job = job(components);
        let mut image = open(path, moment, &job, components)?;
        edit.apply(&mut image, &job).map_err(|error| (1, error.to_string()))?;
        write(&image, output, &job)
    };
    finish(edited())
}

pub(super) fn finish(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, text)) => super::fail(code, &text),
    }
}

fn open(path: &Path, moment: &Moment, job: &Job, components: &Components) -> Result<Image, Failure> {
    let failed = |error: &dyn std::fmt::Display| (1, format!("{}: {error}", path.display()));
    if let Some(position) = moment.position() {
        let decoded = decoded(path, &position, job, components)?;
        return decoded.image(None, &job.limits).map_err(|error| failed(&error));
    }
    let mut first = Vec::new();
    let mut file = fs::File::open(path).map_err(|error| failed(&error))?;
    io::Read::read_to_end(&mut io::Read::take(&mut file, 16), &mut first).map_err(|error| failed(&error))?;
    if upload::format(&first).is_err() {
        let text = "no JPEG and no PNG; of a video, say which frame with --timecode, --time or --frame";
        return Err((super::USAGE, format!("{}: {text}", path.display())));
    }
    io::Read::read_to_end(&mut file, &mut first).map_err(|error| failed(&error))?;
    upload::read(&first, &job.limits).map_err(|error| failed(&error))
}

/// Writes an image in the format that the name asks for.
pub(super) fn write(image: &Image, output: &Output, job: &Job) -> Result<(), Failure> {
    let extension = output.output.extension().unwrap_or_default().to_ascii_lowercase();
    let format = match extension.to_str() {
        Some("jpg" | "jpeg") => Format::Jpeg { quality: output.quality },
        Some("png") => Format::Png,
        _ => return Err((super::USAGE, format!("{}: the name ends in .jpg or .png", output.output.display()))),
    };
    let bytes = still::encode(image, format, job).map_err(|error| (1, error.to_string()))?;
    save(&output.output, &bytes)
}

pub(super) fn save(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    fs::write(path, bytes).map_err(|error| (1, format!("{}: {error}", path.display())))
}
