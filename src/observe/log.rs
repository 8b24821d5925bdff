//! Log set-up: levels by module, text or JSON lines on standard error.
//!
//! Standard output is for what a person or a script asked for (addresses, a generated key).

use crate::config::{Config, LogFormat};
use std::io::{self, IsTerminal};
use tracing_subscriber::EnvFilter;

/// Installs the subscriber of the process; a second call changes nothing.
pub fn init(config: &Config) {
    let filter = config.log.parse::<EnvFilter>().unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let _ = match config.log_format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Text => builder.with_ansi(io::stderr().is_terminal()).try_init(),
    };
}
