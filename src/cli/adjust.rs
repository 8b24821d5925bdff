//! `weir adjust FILE --brightness .3 --contrast -0.1 -o OUT`: brightness and contrast of an image or a frame.

use super::picture::{self, Moment, Output};
use crate::frame::adjust::Adjust;
use crate::frame::still::Edit;
use crate::lazy::Components;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  weir adjust photo.jpg --brightness .3 --contrast -0.1 -o brighter.jpg
  weir adjust film.mp4 --timecode 01:09:14:28 --contrast 0.2 -o frame.png")]
pub(super) struct Arguments {
    /// An image (JPEG, PNG), or a video with --timecode, --time or --frame
    file: PathBuf,
    #[command(flatten)]
    moment: Moment,
    /// -1 to 1
    #[arg(long, value_name = "B", default_value = "0", allow_negative_numbers = true, value_parser = picture::signed)]
    brightness: f32,
    /// -1 to 1
    #[arg(long, value_name = "C", default_value = "0", allow_negative_numbers = true, value_parser = picture::signed)]
    contrast: f32,
    #[command(flatten)]
    output: Output,
}

pub(super) fn run(arguments: &Arguments, components: &Components) -> ExitCode {
    let adjust = Adjust { brightness: arguments.brightness, contrast: arguments.contrast };
    let edit = Edit { adjust: Some(adjust), enhance: None };
    picture::edit(&arguments.file, &arguments.moment, &arguments.output, &edit, components)
}
