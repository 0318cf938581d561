//! `chatvec inspect`: what a checkpoint holds, without reading its weights.

mod report;
mod text;

pub use report::Report;

use std::io::{self, Write};

use chatvec_core::problem::Problem;

use super::{Exit, Failure, OutputFormat, output};
use crate::storage::object::{ObjectStorage, ObjectStorageOptions};
use crate::storage::{Location, LocationError, SurveyError, survey};

/// Show which files of a checkpoint are read, and the tensors in them.
#[derive(Debug, Clone, clap::Args)]
pub struct InspectArgs {
    /// The folder of the checkpoint.
    pub dir: String,
    /// List every tensor with its place in the files.
    #[arg(long)]
    pub tensors: bool,
    /// Print text for people, or one JSON object.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: OutputFormat,
}

/// Why nothing, or not everything, was shown.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// The argument names no place.
    #[error(transparent)]
    Location(#[from] LocationError),
    /// The checkpoint cannot be read.
    #[error(transparent)]
    Survey(#[from] SurveyError),
    /// The output, or the current folder, failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl InspectError {
    /// All that is wrong with the checkpoint, with advice.
    pub fn problems(&self) -> Vec<Problem> {
        match self {
            Self::Location(error) => error.problems(),
            Self::Survey(error) => error.problems(),
            Self::Io(error) => vec![Problem::new("output", error.to_string())],
        }
    }
}

/// Prints the checkpoint to stdout.
///
/// # Errors
/// What is wrong with the checkpoint.
pub(super) fn command(args: &InspectArgs) -> Result<Exit, Failure> {
    output::tell_as(args.output);
    let mut text = Vec::new();
    run(args, &mut text).map_err(|error| Failure::bad_input(error.problems()))?;
    output::print(|out| out.write_all(&text))?;
    Ok(Exit::Success)
}

/// Surveys the checkpoint and prints what it is to `out`.
///
/// # Errors
/// It is no whole checkpoint, or `out` fails. A quantised checkpoint is shown.
pub fn run(args: &InspectArgs, out: &mut dyn Write) -> Result<(), InspectError> {
    let storage = ObjectStorage::new(ObjectStorageOptions::from_environment());
    let location = Location::parse(&args.dir, &std::env::current_dir()?)?;
    let surveyed = survey(&storage, &location)?;
    let report = Report::new(&surveyed, args.tensors);
    match args.output {
        OutputFormat::Text => text::write(&report, out)?,
        OutputFormat::Json => {
            serde_json::to_writer_pretty(&mut *out, &report).map_err(io::Error::from)?;
            writeln!(out)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
