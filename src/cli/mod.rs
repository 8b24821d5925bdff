//! The command line: one file per subcommand. Prints what a person asked for; everything else is logged.

mod adjust;
mod bench;
mod demo;
mod enhance;
mod frame;
mod inspect;
mod picture;
mod profile;
mod publish;
mod serve;

use crate::lazy::{Components, HEADER, Row};
use crate::profile::{stack, symbols};
use clap::{Parser, Subcommand};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

/// A media server that streams video without copying it and measures itself while it does.
#[derive(Parser)]
#[command(
    name = "weir",
    version,
    about,
    max_term_width = 100,
    after_help = "\
Examples:
  weir demo                                    a sample video, and every URL worth opening
  weir serve --library ~/Videos                serve a directory at http://127.0.0.1:8080
  weir publish film.mp4 http://127.0.0.1:8080/live/cam --loop
  weir inspect film.mp4 --timecode 01:09:14:28 where a frame lies in a file
  weir frame film.mp4 --timecode 01:09:14:28 -o frame.jpg
                                               that frame as a picture
  weir profile http://127.0.0.1:9090           where a running server's time goes
  weir bench chunk-slice                       what a chunk costs, on this machine"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Print what the start took, and each component as it is initialised, in the columns of python -X importtime
    #[arg(long, global = true)]
    startup_times: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Serve a library of videos
    Serve(Box<serve::Arguments>),
    /// Serve an embedded sample video and print every URL worth opening
    Demo(demo::Arguments),
    /// Push a file as a live stream, at its own speed
    Publish(publish::Arguments),
    /// Print where a running server's time goes
    Profile(profile::Arguments),
    /// Measure Weir's hot operations on this machine, as python -m timeit does
    Bench(bench::Arguments),
    /// Say what a file contains, or where a moment of it lies
    Inspect(inspect::Arguments),
    /// Write one frame of a video as a picture
    Frame(frame::Arguments),
    /// Change brightness and contrast of an image, or of a frame
    Adjust(adjust::Arguments),
    /// Stretch the levels of an image, or of a frame, and sharpen it
    Enhance(enhance::Arguments),
    /// Name addresses; the server asks it of a child process
    #[command(name = symbols::COMMAND, hide = true)]
    Symbols,
}

/// Exit code of wrong usage or a wrong configuration.
const USAGE: u8 = 2;

pub fn main() -> ExitCode {
    stack::prepare();
    symbols::offer();
    let components = Components::new(Instant::now());
    let arguments = components.step("arguments", Arguments::parse);
    if arguments.startup_times {
        announce(&components);
    }
    // A closed pipe (`weir inspect … | head`) ends quietly: Rust ignores SIGPIPE, writes then fail and are dropped.
    match arguments.command {
        Command::Serve(arguments) => serve::run(*arguments, &components),
        Command::Demo(arguments) => demo::run(&arguments, &components),
        Command::Publish(arguments) => publish::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Inspect(arguments) => inspect::run(&arguments, &components),
        Command::Frame(arguments) => frame::run(&arguments, &components),
        Command::Adjust(arguments) => adjust::run(&arguments, &components),
        Command::Enhance(arguments) => enhance::run(&arguments, &components),
        Command::Profile(arguments) => profile::run(&arguments),
        Command::Symbols => match symbols::answer(std::io::stdin(), std::io::stdout()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(1, &error),
        },
    }
}

/// Prints the table's lines as they come, on standard error as importtime does.
fn announce(components: &Arc<Components>) {
    eprintln!("{HEADER}");
    components.rows().iter().for_each(|row| eprintln!("{}", row.line()));
    components.announce(|row: &Row| eprintln!("{}", row.line()));
}

/// Prints an error as a person wants to read it.
fn fail(code: u8, error: &impl std::fmt::Display) -> ExitCode {
    eprintln!("weir: {error}");
    ExitCode::from(code)
}

/// Prints a line on standard output; a reader that went away is no error.
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write;
        let _ = writeln!(std::io::stdout(), $($text)*);
    }};
}
use say;
