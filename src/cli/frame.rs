//! `weir frame FILE --timecode … -o OUT`: one frame of a video as a picture, or its decoded luma as it is.

use super::picture::{self, Failure, Moment, Output};
use crate::frame::adjust::Adjust;
use crate::frame::still::Edit;
use crate::lazy::Components;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  weir frame film.mp4 --timecode 01:09:14:28 -o frame.jpg
  weir frame film.mp4 --frame 500 --width 640 --enhance 0.8 -o frame.png
  weir frame film.mp4 --time 12.5 -o luma.pgm       the decoded luma: not scaled, turned or edited")]
pub(super) struct Arguments {
    /// A video: MP4, MOV or MPEG-TS
    file: PathBuf,
    #[command(flatten)]
    moment: Moment,
    #[command(flatten)]
    output: Output,
    /// Of the picture, in pixels; the height follows
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(1..=16384))]
    width: Option<u32>,
    /// -1 to 1
    #[arg(long, value_name = "B", allow_negative_numbers = true, value_parser = picture::signed)]
    brightness: Option<f32>,
    /// -1 to 1
    #[arg(long, value_name = "C", allow_negative_numbers = true, value_parser = picture::signed)]
    contrast: Option<f32>,
    /// Levels and sharpening, 0 to 1
    #[arg(long, value_name = "A", value_parser = picture::amount)]
    enhance: Option<f32>,
}

pub(super) fn run(arguments: &Arguments, components: &Components) -> ExitCode {
    picture::finish(frame(arguments, components))
}

fn frame(arguments: &Arguments, components: &Components) -> Result<(), Failure> {
    let missing = || (super::USAGE, "say which frame: --timecode, --time or --frame".to_owned());
    let position = arguments.moment.position().ok_or_else(missing)?;
    let job = picture::job(components);
    let decoded = picture::decoded(&arguments.file, &position, &job, components)?;
    let path = &arguments.output.output;
    if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("pgm")) {
        return picture::save(path, &decoded.planes.to_pgm());
    }
    let failed = |error| (1, format!("{}: {error}", arguments.file.display()));
    let mut image = decoded.image(arguments.width, &job.limits).map_err(failed)?;
    let (brightness, contrast) = (arguments.brightness, arguments.contrast);
    let adjust = (brightness.is_some() || contrast.is_some())
        .then(|| Adjust { brightness: brightness.unwrap_or(0.0), contrast: contrast.unwrap_or(0.0) });
    Edit { adjust, enhance: arguments.enhance }.apply(&mut image, &job).map_err(failed)?;
    picture::write(&image, &arguments.output, &job)
}
