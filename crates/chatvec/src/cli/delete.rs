//! `chatvec delete`: removes the record of an ended job.

use chatvec_core::ids::JobId;
use serde::Serialize;

use super::remote::{Address, Remote};
use super::runtime::block_on;
use super::{Exit, Failure, OutputFormat, begin, output};

/// Remove the record of a job that has ended; what it published stays.
#[derive(Debug, Clone, clap::Args)]
pub struct DeleteArgs {
    /// The id of the job.
    job: String,
    #[command(flatten)]
    address: Address,
    /// Print text for people, or one JSON object.
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    output: OutputFormat,
}

#[derive(Debug, Serialize)]
struct DeletedJson<'a> {
    deleted_job_id: &'a str,
}

pub(super) fn run(args: &DeleteArgs) -> Result<Exit, Failure> {
    let _telemetry = begin(args.output);
    block_on(async {
        Remote::new(&args.address)?
            .delete(&JobId(args.job.clone()))
            .await
    })?;
    match args.output {
        OutputFormat::Text => output::print(|out| writeln!(out, "deleted {}", args.job))?,
        OutputFormat::Json => output::print_json(&DeletedJson {
            deleted_job_id: &args.job,
        })?,
    }
    Ok(Exit::Success)
}
