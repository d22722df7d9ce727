//! Log lines: to standard error, each with its time (RFC 3339, UTC).

use std::io::{self, IsTerminal};

use tracing::level_filters::LevelFilter;

use crate::config::{LogFormat, Settings};

/// Starts logging as configured. A second call changes nothing.
pub(super) fn start(settings: &Settings) {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(settings.log_level.to_filter())
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    // An error means that a subscriber is there already, which then is the one to use.
    let _ = match settings.log_format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
}

/// Starts logging for a helper that has no settings of its own: what a person should know, as lines of text.
pub(super) fn start_plain() {
    let ansi = io::stderr().is_terminal();
    let _ =
        tracing_subscriber::fmt().with_max_level(LevelFilter::INFO).with_writer(io::stderr).with_ansi(ansi).try_init();
}
