//! `weir enhance FILE --amount 0.8 -o OUT`: levels and sharpening of an image or a frame.

use super::picture::{self, Moment, Output};
use crate::frame::still::Edit;
use crate::lazy::Components;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  weir enhance photo.jpg --amount 0.8 -o better.jpg
  weir enhance film.mp4 --timecode 01:09:14:28 -o frame.png")]
pub(super) struct Arguments {
    /// An image (JPEG, PNG), or a video with --timecode, --time or --frame
    file: PathBuf,
    #[command(flatten)]
    moment: Moment,
    /// 0 (nothing) to 1
    #[arg(long, value_name = "A", default_value = "1", value_parser = picture::amount)]
    amount: f32,
    #[command(flatten)]
    output: Output,
}

pub(super) fn run(arguments: &Arguments, components: &Components) -> ExitCode {
    let edit = Edit { adjust: None, enhance: Some(arguments.amount) };
    picture::edit(&arguments.file, &arguments.moment, &arguments.output, &edit, components)
}
