//! `chatvec cancel`: stops a job.

use chatvec_core::ids::JobId;

use super::remote::{Address, Remote};
use super::runtime::block_on;
use super::{Exit, Failure, OutputFormat, begin, watch};

/// Stop a job; one that is publishing already goes on to its end.
#[derive(Debug, Clone, clap::Args)]
pub struct CancelArgs {
    /// The id of the job.
    job: String,
    #[command(flatten)]
    address: Address,
    /// Print text for people, or one JSON object.
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    output: OutputFormat,
}

pub(super) fn run(args: &CancelArgs) -> Result<Exit, Failure> {
    let _telemetry = begin(args.output);
    let job = block_on(async {
        Remote::new(&args.address)?
            .cancel(&JobId(args.job.clone()))
            .await
    })?;
    watch::show(&job, args.output)?;
    Ok(Exit::Success)
}
