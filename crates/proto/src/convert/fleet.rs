//! Tasks, workers, tenants and plans as clients see them.

use chatvec_core::ids::{Attempt, Fence, FileOrdinal, PartOrdinal, TaskOrdinal, WorkerId};
use chatvec_core::problem::Problem;
use chatvec_core::submission::Tenant;
use chatvec_core::task::{FailureKind, TaskCounters, TaskState};

use super::job::{TimeMs, error_from_wire, error_to_wire, time_ms, timestamp};
use super::{ConvertError, required};
use crate::v1;

/// A task as it stands, as clients see it.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskView {
    /// Its position in the job.
    pub task: TaskOrdinal,
    /// Where it stands.
    pub state: TaskState,
    /// The output file.
    pub file: FileOrdinal,
    /// Its first part.
    pub first_part: PartOrdinal,
    /// How many parts.
    pub part_count: u32,
    /// Bytes of output that it writes.
    pub bytes: u64,
    /// Bytes written so far, as its holder said.
    pub progress_bytes: u64,
    /// Leases given so far.
    pub attempt: Attempt,
    /// The number that reports must name.
    pub fence: Fence,
    /// What went wrong so far. On the wire it lacks the number of workers.
    pub counters: TaskCounters,
    /// Who holds it, or finished it.
    pub worker: Option<WorkerId>,
    /// The last failure or crash.
    pub error: Option<(FailureKind, Problem)>,
    /// When it last changed.
    pub updated: TimeMs,
}

/// A worker as last seen, as clients see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerView {
    /// Its id, fresh at every start.
    pub worker: WorkerId,
    /// Its machine.
    pub hostname: String,
    /// Its program's version.
    pub version: String,
    /// Tasks it runs at once, at most.
    pub slots: u32,
    /// Memory that its tasks use, at most.
    pub memory_bytes: u64,
    /// Tasks that it holds.
    pub tasks_leased: u64,
    /// When it first asked for work.
    pub first_seen: TimeMs,
    /// When it last asked for work or sent a heartbeat.
    pub last_seen: TimeMs,
    /// When it said that it stops.
    pub stopped: Option<TimeMs>,
}

/// A tenant, as clients see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantView {
    /// Its name.
    pub tenant: Tenant,
    /// Its share of the workers, relative to the other tenants'.
    pub weight: u32,
    /// Most tasks of it that are leased at once.
    pub leased_tasks_max: Option<u32>,
    /// Most jobs of it that have not ended.
    pub open_jobs_max: Option<u32>,
    /// Its tasks that are leased.
    pub leased_tasks: u64,
    /// Its jobs that have not ended.
    pub open_jobs: u64,
}

/// What a merge would do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PlanView {
    /// What the user should know and nothing stops for.
    pub warnings: Vec<Problem>,
    /// Tensors that are merged.
    pub merged_tensors: u64,
    /// Tensors that are copied from cp.
    pub copied_tensors: u64,
    /// Bytes of weights that the workers would read.
    pub bytes_read: u64,
    /// Bytes of the output's weight files.
    pub bytes_written: u64,
    /// The weight files of the output.
    pub files: Vec<PlannedFileView>,
    /// Tasks that the job would have.
    pub tasks: u64,
    /// Bytes of a part.
    pub part_size_bytes: u64,
}

/// A weight file of the output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedFileView {
    /// Its name.
    pub name: String,
    /// Its length in bytes.
    pub size: u64,
}

impl From<TaskState> for v1::TaskState {
    fn from(state: TaskState) -> Self {
        match state {
            TaskState::Ready => Self::Ready,
            TaskState::Leased => Self::Leased,
            TaskState::Done => Self::Done,
            TaskState::Failed => Self::Failed,
            TaskState::Cancelled => Self::Cancelled,
        }
    }
}

/// The state behind its number on the wire.
///
/// # Errors
/// If the number is `UNSPECIFIED` or names no state.
pub fn task_state(value: i32) -> Result<TaskState, ConvertError> {
    let state = v1::TaskState::try_from(value).ok();
    let named = TaskState::ALL
        .into_iter()
        .find(|candidate| Some(v1::TaskState::from(*candidate)) == state);
    named.ok_or(ConvertError::UnknownValue {
        field: "state",
        value,
    })
}

impl From<TaskView> for v1::Task {
    fn from(view: TaskView) -> Self {
        Self {
            task: view.task.0,
            state: v1::TaskState::from(view.state).into(),
            file: view.file.0,
            first_part: view.first_part.0,
            part_count: view.part_count,
            bytes: view.bytes,
            progress_bytes: view.progress_bytes,
            attempt: view.attempt.0,
            fence: view.fence.0,
            failures: view.counters.failures,
            crashes: view.counters.crashes,
            worker_id: view.worker.map(|worker| worker.0).unwrap_or_default(),
            error: view
                .error
                .map(|(kind, problem)| error_to_wire((kind, vec![problem]))),
            update_time: Some(timestamp(view.updated)),
        }
    }
}

impl TryFrom<v1::Task> for TaskView {
    type Error = ConvertError;

    fn try_from(task: v1::Task) -> Result<Self, ConvertError> {
        let error = match task.error.map(error_from_wire).transpose()? {
            Some((kind, problems)) => {
                let first = problems.into_iter().next();
                Some((kind, required(first, "error.problems")?))
            }
            None => None,
        };
        let counters = TaskCounters {
            failures: task.failures,
            crashes: task.crashes,
            crashed_workers: 0,
        };
        Ok(Self {
            task: TaskOrdinal(task.task),
            state: task_state(task.state)?,
            file: FileOrdinal(task.file),
            first_part: PartOrdinal(task.first_part),
            part_count: task.part_count,
            bytes: task.bytes,
            progress_bytes: task.progress_bytes,
            attempt: Attempt(task.attempt),
            fence: Fence(task.fence),
            counters,
            worker: Some(task.worker_id)
                .filter(|id| !id.is_empty())
                .map(WorkerId),
            error,
            updated: time_ms(&required(task.update_time, "update_time")?),
        })
    }
}

impl From<WorkerView> for v1::WorkerStatus {
    fn from(view: WorkerView) -> Self {
        Self {
            worker_id: view.worker.0,
            hostname: view.hostname,
            version: view.version,
            slots: view.slots,
            memory_bytes: view.memory_bytes,
            tasks_leased: view.tasks_leased,
            first_seen_time: Some(timestamp(view.first_seen)),
            last_seen_time: Some(timestamp(view.last_seen)),
            stop_time: view.stopped.map(timestamp),
        }
    }
}

impl TryFrom<v1::WorkerStatus> for WorkerView {
    type Error = ConvertError;

    fn try_from(worker: v1::WorkerStatus) -> Result<Self, ConvertError> {
        Ok(Self {
            worker: WorkerId(worker.worker_id),
            hostname: worker.hostname,
            version: worker.version,
            slots: worker.slots,
            memory_bytes: worker.memory_bytes,
            tasks_leased: worker.tasks_leased,
            first_seen: time_ms(&required(worker.first_seen_time, "first_seen_time")?),
            last_seen: time_ms(&required(worker.last_seen_time, "last_seen_time")?),
            stopped: worker.stop_time.as_ref().map(time_ms),
        })
    }
}

impl From<TenantView> for v1::Tenant {
    fn from(view: TenantView) -> Self {
        Self {
            tenant: view.tenant.to_string(),
            weight: view.weight,
            leased_tasks_max: view.leased_tasks_max,
            open_jobs_max: view.open_jobs_max,
            leased_tasks: view.leased_tasks,
            open_jobs: view.open_jobs,
        }
    }
}

impl TryFrom<v1::Tenant> for TenantView {
    type Error = ConvertError;

    fn try_from(tenant: v1::Tenant) -> Result<Self, ConvertError> {
        let name = Tenant::parse(&tenant.tenant).ok();
        Ok(Self {
            tenant: required(name, "tenant")?,
            weight: tenant.weight,
            leased_tasks_max: tenant.leased_tasks_max,
            open_jobs_max: tenant.open_jobs_max,
            leased_tasks: tenant.leased_tasks,
            open_jobs: tenant.open_jobs,
        })
    }
}

impl From<PlanView> for v1::PlanJobResponse {
    fn from(view: PlanView) -> Self {
        let file = |file: PlannedFileView| v1::PlannedFile {
            name: file.name,
            size: file.size,
        };
        Self {
            warnings: view.warnings.into_iter().map(Into::into).collect(),
            merged_tensors: view.merged_tensors,
            copied_tensors: view.copied_tensors,
            bytes_read: view.bytes_read,
            bytes_written: view.bytes_written,
            files: view.files.into_iter().map(file).collect(),
            tasks: view.tasks,
            part_size_bytes: view.part_size_bytes,
        }
    }
}
