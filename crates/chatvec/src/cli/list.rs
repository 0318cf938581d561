//! `chatvec list`: the jobs of a coordinator.

use chatvec_core::job::JobState;
use chatvec_core::submission::Tenant;
use chatvec_proto::convert::labels_to_wire;
use chatvec_proto::v1;
use serde::Serialize;

use super::job::{self, JobJson};
use super::label::{self, Label};
use super::remote::{Address, Remote};
use super::runtime::block_on;
use super::text::write_rows;
use super::{Exit, Failure, OutputFormat, begin, output, state};

/// List jobs, the newest first.
#[derive(Debug, Clone, clap::Args)]
pub struct ListArgs {
    /// Only jobs in this state, such as running; may be repeated.
    #[arg(long, value_name = "STATE", value_parser = state::of_job)]
    state: Vec<JobState>,
    /// Only jobs with this label; may be repeated, then with all of them.
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = label::parse)]
    labels: Vec<Label>,
    /// Only jobs of this tenant.
    #[arg(long, value_name = "NAME", value_parser = label::tenant)]
    tenant: Option<Tenant>,
    /// At most this many jobs.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,
    #[command(flatten)]
    address: Address,
    /// Print text for people, or one JSON object.
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    output: OutputFormat,
}

#[derive(Debug, Serialize)]
struct ListJson {
    jobs: Vec<JobJson>,
}

pub(super) fn run(args: &ListArgs) -> Result<Exit, Failure> {
    let _telemetry = begin(args.output);
    let wanted = v1::ListJobsRequest {
        states: args
            .state
            .iter()
            .map(|state| v1::JobState::from(*state).into())
            .collect(),
        labels: labels_to_wire(&label::all(&args.labels)?),
        tenant: args
            .tenant
            .as_ref()
            .map(Tenant::to_string)
            .unwrap_or_default(),
        ..v1::ListJobsRequest::default()
    };
    let jobs = block_on(async {
        Remote::new(&args.address)?
            .list(&wanted, args.limit as usize)
            .await
    })?;
    match args.output {
        OutputFormat::Text => {
            let title = ["JOB", "STATE", "DONE", "CREATED", "OUTPUT"].map(str::to_owned);
            let rows: Vec<_> = std::iter::once(title)
                .chain(jobs.iter().map(job::row))
                .collect();
            output::print(|out| write_rows(&rows, "", out))?;
        }
        OutputFormat::Json => output::print_json(&ListJson {
            jobs: jobs.iter().map(JobJson::from).collect(),
        })?,
    }
    Ok(Exit::Success)
}
