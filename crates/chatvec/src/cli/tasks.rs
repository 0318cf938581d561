//! `chatvec tasks`: the tasks of a job.

use chatvec_core::problem::Problem;
use chatvec_core::task::{FailureKind, TaskState};
use chatvec_proto::convert::TaskView;
use chatvec_proto::v1;
use serde::Serialize;

use super::job::utc;
use super::remote::{Address, Remote};
use super::runtime::block_on;
use super::text::{size, write_rows};
use super::{Exit, Failure, OutputFormat, begin, output, state};

/// List the tasks of a job, in order.
#[derive(Debug, Clone, clap::Args)]
pub struct TasksArgs {
    /// The id of the job.
    job: String,
    /// Only tasks in this state, such as leased; may be repeated.
    #[arg(long, value_name = "STATE", value_parser = state::of_task)]
    state: Vec<TaskState>,
    /// At most this many tasks.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    limit: u32,
    #[command(flatten)]
    address: Address,
    /// Print text for people, or one JSON object.
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    output: OutputFormat,
}

#[derive(Debug, Serialize)]
struct TasksJson {
    tasks: Vec<TaskJson>,
}

/// A task in JSON. Sizes are bytes; times are UTC by RFC 3339.
#[derive(Debug, Serialize)]
struct TaskJson {
    task: u32,
    /// `READY`, `LEASED`, `DONE`, `FAILED` or `CANCELLED`.
    state: TaskState,
    file: u32,
    first_part: u32,
    part_count: u32,
    bytes: u64,
    progress_bytes: u64,
    attempt: u32,
    fence: u64,
    failures: u32,
    crashes: u32,
    /// Who holds it, or finished it.
    worker_id: Option<String>,
    /// The last failure.
    error: Option<ErrorJson>,
    updated: String,
}

#[derive(Debug, Serialize)]
struct ErrorJson {
    kind: FailureKind,
    problem: Problem,
}

impl From<&TaskView> for TaskJson {
    fn from(task: &TaskView) -> Self {
        let error = task.error.as_ref();
        Self {
            task: task.task.0,
            state: task.state,
            file: task.file.0,
            first_part: task.first_part.0,
            part_count: task.part_count,
            bytes: task.bytes,
            progress_bytes: task.progress_bytes,
            attempt: task.attempt.0,
            fence: task.fence.0,
            failures: task.counters.failures,
            crashes: task.counters.crashes,
            worker_id: task.worker.as_ref().map(|worker| worker.0.clone()),
            error: error.map(|(kind, problem)| ErrorJson {
                kind: *kind,
                problem: problem.clone(),
            }),
            updated: utc(task.updated),
        }
    }
}

pub(super) fn run(args: &TasksArgs) -> Result<Exit, Failure> {
    let _telemetry = begin(args.output);
    let wanted = v1::ListTasksRequest {
        job_id: args.job.clone(),
        states: args
            .state
            .iter()
            .map(|state| v1::TaskState::from(*state).into())
            .collect(),
        ..v1::ListTasksRequest::default()
    };
    let tasks = block_on(async {
        Remote::new(&args.address)?
            .tasks(&wanted, args.limit as usize)
            .await
    })?;
    match args.output {
        OutputFormat::Text => {
            let title = [
                "TASK",
                "STATE",
                "FILE",
                "PARTS",
                "DONE",
                "ATTEMPT",
                "WORKER",
                "LAST FAILURE",
            ];
            let rows: Vec<_> = std::iter::once(title.map(str::to_owned))
                .chain(tasks.iter().map(row))
                .collect();
            output::print(|out| write_rows(&rows, "", out))?;
        }
        OutputFormat::Json => output::print_json(&TasksJson {
            tasks: tasks.iter().map(TaskJson::from).collect(),
        })?,
    }
    Ok(Exit::Success)
}

fn row(task: &TaskView) -> [String; 8] {
    let last = task.first_part.0 + task.part_count.saturating_sub(1);
    let parts = match task.part_count {
        1 => last.to_string(),
        _ => format!("{}-{last}", task.first_part),
    };
    let done = match task.state {
        TaskState::Done => task.bytes,
        _ => task.progress_bytes.min(task.bytes),
    };
    let worker = task.worker.as_ref();
    let error = task.error.as_ref();
    [
        task.task.to_string(),
        task.state.to_string(),
        task.file.to_string(),
        parts,
        format!("{} of {}", size(done), size(task.bytes)),
        task.attempt.to_string(),
        worker.map_or_else(|| "-".to_owned(), |worker| worker.0.clone()),
        error.map_or_else(String::new, |(kind, problem)| format!("{kind}: {problem}")),
    ]
}

#[cfg(test)]
mod tests {
    use chatvec_core::ids::{Attempt, Fence, FileOrdinal, PartOrdinal, TaskOrdinal, WorkerId};
    use chatvec_core::task::TaskCounters;
    use chatvec_proto::convert::TimeMs;

    use super::*;

    #[test]
    fn a_task_is_a_line() {
        let task = TaskView {
            task: TaskOrdinal(7),
            state: TaskState::Leased,
            file: FileOrdinal(1),
            first_part: PartOrdinal(4),
            part_count: 2,
            bytes: 2000,
            progress_bytes: 500,
            attempt: Attempt(2),
            fence: Fence(3),
            counters: TaskCounters::default(),
            worker: Some(WorkerId("w1".to_owned())),
            error: Some((
                FailureKind::Transient,
                Problem::new("s3://b/k", "timed out"),
            )),
            updated: TimeMs(0),
        };
        assert_eq!(
            row(&task).join(" "),
            "7 LEASED 1 4-5 500 B of 2.00 kB 2 w1 TRANSIENT: s3://b/k: timed out"
        );
        let json = serde_json::to_value(TaskJson::from(&task)).unwrap();
        assert_eq!(json["state"], "LEASED");
        assert_eq!(json["error"]["kind"], "TRANSIENT");
    }
}
