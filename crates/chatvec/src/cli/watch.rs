//! `chatvec watch`: follows a job to its end.

use chatvec_core::ids::JobId;
use chatvec_core::job::JobState;
use chatvec_proto::convert::JobView;

use super::job::{self, JobJson};
use super::progress::Progress;
use super::remote::{Address, Remote};
use super::runtime::block_on;
use super::{Exit, Failure, OutputFormat, begin, output, signals};

/// Follow a job to its end, and fail if it fails.
#[derive(Debug, Clone, clap::Args)]
pub struct WatchArgs {
    /// The id of the job.
    job: String,
    #[command(flatten)]
    address: Address,
    /// Print the job at its end for people, or one JSON object a line at each change.
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    output: OutputFormat,
}

pub(super) fn run(args: &WatchArgs) -> Result<Exit, Failure> {
    let _telemetry = begin(args.output);
    block_on(async {
        let remote = Remote::new(&args.address)?;
        to_the_end(
            &remote,
            &JobId(args.job.clone()),
            args.output,
            Show::Changes,
        )
        .await
    })
}

/// What of a job is printed as JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Show {
    /// Every change, one object a line.
    Changes,
    /// One object at the end.
    End,
}

/// Follows a job, and prints it when it has ended.
pub(super) async fn to_the_end(
    remote: &Remote,
    id: &JobId,
    format: OutputFormat,
    show_json: Show,
) -> Result<Exit, Failure> {
    let progress = Progress::on_stderr();
    let interrupt = signals::interrupt(|| {})?;
    let changes_as_json = format == OutputFormat::Json && show_json == Show::Changes;
    let mut state = None;
    let seen = |job: &JobView| {
        progress.show(job);
        if changes_as_json {
            return output::print_json_line(&JobJson::from(job));
        }
        if state.replace(job.state) != Some(job.state) && !progress.is_shown() {
            output::note(&format!("{}: {}", job.job, job.state));
        }
        Ok(())
    };
    let ended = tokio::select! {
        ended = remote.watch(id, seen) => ended,
        () = interrupt.cancelled() => {
            Err(Failure::Interrupted(format!("the job goes on: `chatvec watch {id}`, `chatvec cancel {id}`")))
        }
    };
    progress.clear();
    let ended = ended?;
    if changes_as_json {
        return job::end(&ended);
    }
    show(&ended, format)?;
    // The job has told its problems.
    match ended.state {
        JobState::Failed => job::end(&ended).or_else(|failure| Ok(failure.exit())),
        _ => job::end(&ended),
    }
}

/// Prints a job as it stands.
pub(super) fn show(job: &JobView, format: OutputFormat) -> Result<(), Failure> {
    match format {
        OutputFormat::Text => output::print(|out| job::write(job, out)),
        OutputFormat::Json => output::print_json(&JobJson::from(job)),
    }
}
