//! What a process tells about itself: its log, and the spans of its work.
//!
//! The log goes to stderr. Spans go to an OpenTelemetry collector if the
//! environment names one; otherwise nothing of that is set up and a span costs
//! what it costs the log.

mod log;
mod trace;

use tracing_subscriber::Layer as _;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

pub use log::LogFormat;
pub use trace::{continued, failed, inject, traceparent, traceparent_of};

use trace::Export;

/// What the process is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A command that somebody waits for. It logs warnings, and continues the
    /// trace that the variable `TRACEPARENT` names.
    Client,
    /// A service that gives out work. It logs what it does, and each job
    /// brings its trace.
    Coordinator,
    /// A service that does the work; as the coordinator.
    Worker,
}

impl Role {
    /// As spans and this module name it.
    fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Coordinator => "coordinator",
            Self::Worker => "worker",
        }
    }

    /// What is logged where the environment does not say.
    fn default_level(self) -> &'static str {
        match self {
            Self::Client => "warn",
            Self::Coordinator | Self::Worker => "info",
        }
    }
}

/// The telemetry of a process. Dropped at its end, it sends the spans that
/// wait, for two seconds at most.
#[derive(Debug)]
#[must_use = "spans that end after it is dropped are lost"]
pub struct Telemetry {
    _parent: Option<opentelemetry::ContextGuard>,
    _export: Option<Export>,
}

/// Begins to log, and to export spans if a collector is named. Once in a
/// process; a second call changes nothing.
///
/// A collector that is away, or a setting that makes no sense, costs spans and
/// a warning, never the process.
pub fn init(role: Role, format: LogFormat) -> Telemetry {
    let (export, trouble) = match Export::from_environment(role) {
        Ok(export) => (export, None),
        Err(error) => (None, Some(error)),
    };
    let subscriber = tracing_subscriber::registry()
        .with(export.as_ref().map(Export::layer))
        .with(format.layer().with_filter(log::filter(role)));
    // An error means that a log is kept already.
    let _kept_already = subscriber.try_init();
    if let Some(error) = trouble {
        tracing::warn!(%error, "spans are not exported");
    }
    let parent = match role {
        Role::Client => trace::parent_of_process().map(opentelemetry::Context::attach),
        Role::Coordinator | Role::Worker => None,
    };
    Telemetry {
        _parent: parent,
        _export: export,
    }
}
