//! `weir serve`: from arguments to a configuration to a running server, until a signal drains it.

use super::{USAGE, fail, say};
use crate::config::{Config, ConfigError, Settings};
use crate::lazy::Components;
use crate::observe::log;
use crate::server::{self, Running};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

#[derive(clap::Args)]
#[command(after_help = "\
Every flag is also a variable (--idle-time: WEIR_IDLE_TIME) and a key of the config file (idle_time = \"75 s\").
Flags win over variables, variables over the file. config/weir.toml shows every key.")]
pub(super) struct Arguments {
    /// Config file (TOML)
    #[arg(long, env = "WEIR_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Check the configuration and exit: 0 valid, 2 not
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    settings: Settings,
}

pub(super) fn run(arguments: Arguments, components: &Arc<Components>) -> ExitCode {
    let check = arguments.check;
    let config = match components.step("config", || resolve(arguments)) {
        Ok(config) => config,
        Err(error) => return fail(USAGE, &error),
    };
    if check {
        say!("the configuration is valid");
        return ExitCode::SUCCESS;
    }
    components.step("log", || log::init(&config));
    match server::start(config, components) {
        Ok(running) => serve(running, |_| {}),
        Err(error) => fail(1, &error),
    }
}

fn resolve(arguments: Arguments) -> Result<Config, ConfigError> {
    arguments.settings.load(arguments.config.as_deref())
}

/// Prints the addresses, then waits for the signal and the drain.
pub(super) fn serve(running: Running, greet: impl FnOnce(&Running)) -> ExitCode {
    if let Some(key) = &running.generated_key {
        say!("write key (kept in the state directory, printed this once): {key}");
    }
    say!("listening on http://{}", running.media);
    for (stream, address) in &running.tcp {
        match stream {
            Some(name) => say!("publish {name} to tcp://{address}"),
            None => say!("publish to tcp://{address} after a line: PUBLISH name key"),
        }
    }
    say!("admin on http://{}", running.admin);
    greet(&running);
    if let Err(error) = drain_on_signal(running.drain()) {
        return fail(1, &format!("cannot wait for signals: {error}"));
    }
    show_indexing(&running);
    if running.wait() { ExitCode::SUCCESS } else { fail(1, &"a core ended by a bug; see the log") }
}

/// The first SIGTERM or SIGINT drains; a second one ends the process at once.
fn drain_on_signal(drain: impl Fn() + Send + 'static) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut terminate, mut interrupt) = {
        let _inside = runtime.enter();
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)
    };
    thread::Builder::new().name("weir-signals".to_owned()).spawn(move || {
        runtime.block_on(async move {
            let mut first = true;
            loop {
                tokio::select! { _ = terminate.recv() => (), _ = interrupt.recv() => () }
                if !first {
                    std::process::exit(1);
                }
                first = false;
                tracing::info!("drain: finish what is in flight");
                drain();
            }
        });
    })?;
    Ok(())
}

/// A progress bar for the background index, on a terminal and when there is enough to wait for.
fn show_indexing(running: &Running) {
    const WORTH_A_BAR: u64 = 10;
    let progress = running.edge.library.progress();
    if !std::io::stderr().is_terminal() || progress.borrow().total < WORTH_A_BAR {
        return;
    }
    let _ = thread::Builder::new().name("weir-progress".to_owned()).spawn(move || {
        let style = ProgressStyle::with_template("indexing {bar:32} {pos}/{len} {eta}");
        let bar = ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        loop {
            let now = *progress.borrow();
            bar.set_length(now.total);
            bar.set_position(now.done);
            if now.done >= now.total {
                break;
            }
            thread::sleep(Duration::from_millis(100));
        }
        bar.finish_and_clear();
    });
}
