//! The command line: one module a sub-command.
//!
//! Results go to stdout, everything else to stderr, both as text or both as
//! JSON; the exit code says how it ended, see [`Exit`].

mod exit;
pub mod output;
mod text;

mod progress;
mod recipe;
mod runtime;
mod signals;
mod size;
mod slots;
mod state_home;

mod job;
mod label;
mod remote;
mod state;

pub mod inspect;
pub mod merge;
pub mod plan;

pub mod doctor;
pub mod migrate;
pub mod serve;
pub mod worker;

pub mod cancel;
pub mod delete;
pub mod get;
pub mod list;
pub mod submit;
pub mod tasks;
pub mod tenants;
pub mod watch;
pub mod workers;

pub use exit::{Exit, Failure};

use std::process::ExitCode;

use clap::Parser as _;

use crate::telemetry::{self, LogFormat, Role, Telemetry};

/// The whole program: parses the command line, runs the sub-command, and tells
/// what went wrong.
pub fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(exit) => exit.into(),
        Err(failure) => {
            output::failure(&failure);
            failure.exit().into()
        }
    }
}

/// Merges large language models: out = cp + Σ λ·(chat − base).
#[derive(Debug, clap::Parser)]
#[command(name = "chatvec", version, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Merge(merge::MergeArgs),
    Plan(plan::PlanArgs),
    Inspect(inspect::InspectArgs),
    Doctor(doctor::DoctorArgs),
    Migrate(migrate::MigrateArgs),
    Serve(serve::ServeArgs),
    Worker(worker::WorkerArgs),
    Submit(submit::SubmitArgs),
    Get(get::GetArgs),
    List(list::ListArgs),
    Watch(watch::WatchArgs),
    Cancel(cancel::CancelArgs),
    Delete(delete::DeleteArgs),
    Tasks(tasks::TasksArgs),
    Workers(workers::WorkersArgs),
    Tenants(tenants::TenantsArgs),
}

impl Cli {
    /// Runs the sub-command to its end.
    ///
    /// # Errors
    /// [`Failure`], which knows its exit code.
    pub fn run(self) -> Result<Exit, Failure> {
        match self.command {
            Command::Merge(args) => merge::run(&args),
            Command::Plan(args) => plan::run(&args),
            Command::Inspect(args) => inspect::command(&args),
            Command::Doctor(args) => doctor::run(&args),
            Command::Migrate(args) => migrate::run(&args),
            Command::Serve(args) => serve::run(&args),
            Command::Worker(args) => worker::run(&args),
            Command::Submit(args) => submit::run(&args),
            Command::Get(args) => get::run(&args),
            Command::List(args) => list::run(&args),
            Command::Watch(args) => watch::run(&args),
            Command::Cancel(args) => cancel::run(&args),
            Command::Delete(args) => delete::run(&args),
            Command::Tasks(args) => tasks::run(&args),
            Command::Workers(args) => workers::run(&args),
            Command::Tenants(args) => tenants::run(&args),
        }
    }
}

/// How a result is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum OutputFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object.
    Json,
}

/// Begins a command that ends by itself: what it logs and tells beside its
/// result has the result's format.
fn begin(format: OutputFormat) -> Telemetry {
    output::tell_as(format);
    let log_format = match format {
        OutputFormat::Text => LogFormat::Text,
        OutputFormat::Json => LogFormat::Json,
    };
    telemetry::init(Role::Client, log_format)
}
