//! The log of a process: to stderr, its level by `CHATVEC_LOG`.

use std::io;

use tracing_subscriber::EnvFilter;

/// The variable that sets the level, such as `debug` or `chatvec=debug`.
const LEVEL_VARIABLE: &str = "CHATVEC_LOG";

/// The level where the variable sets none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DefaultLevel {
    /// For commands that somebody waits for.
    Warn,
    /// For services.
    Info,
}

/// How a line of the log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Begins to log. Once in a process; a second call changes nothing.
pub fn init(level: DefaultLevel, format: LogFormat) {
    let default = match level {
        DefaultLevel::Warn => "warn",
        DefaultLevel::Info => "info",
    };
    let filter = std::env::var(LEVEL_VARIABLE)
        .ok()
        .filter(|text| !text.is_empty());
    let filter = EnvFilter::new(filter.as_deref().unwrap_or(default));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr);
    // An error means that a log is kept already.
    let _kept_already = match format {
        LogFormat::Text => {
            use io::IsTerminal as _;
            let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            subscriber
                .with_ansi(io::stderr().is_terminal() && !no_color)
                .try_init()
        }
        LogFormat::Json => subscriber.json().try_init(),
    };
}
