//! Jobs as clients see them.

use std::collections::HashMap;

use chatvec_core::ids::{JobId, RequestId, WorkerId};
use chatvec_core::job::JobState;
use chatvec_core::problem::Problem;
use chatvec_core::recipe::Recipe;
use chatvec_core::submission::{Labels, Priority, Tenant};
use chatvec_core::task::FailureKind;

use super::recipe::{recipe_from_wire, recipe_to_wire};
use super::task::failure_kind;
use super::{ConvertError, required};
use crate::v1;

/// Milliseconds since the Unix epoch, by the database's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimeMs(pub i64);

/// A job as it stands, as clients see it.
#[derive(Debug, Clone, PartialEq)]
pub struct JobView {
    /// The job.
    pub job: JobId,
    /// The client's name for the call that made it.
    pub request: RequestId,
    /// Where it stands.
    pub state: JobState,
    /// What was asked, with defaults spelled out.
    pub recipe: Recipe,
    /// Why it failed; only in FAILED. The list is not empty.
    pub error: Option<(FailureKind, Vec<Problem>)>,
    /// How far it is.
    pub progress: ProgressView,
    /// Raised at each change of state.
    pub revision: u64,
    /// When it was made.
    pub created: TimeMs,
    /// When it ended.
    pub ended: Option<TimeMs>,
    /// What the client says about it.
    pub labels: Labels,
    /// How urgent it is.
    pub priority: Priority,
    /// Whom it is accounted to.
    pub tenant: Tenant,
    /// What the user should know and nothing stops for.
    pub warnings: Vec<Problem>,
    /// What holds it up just now.
    pub conditions: Vec<Condition>,
}

/// What holds a job up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// Tasks are waiting, and no worker was seen for a minute.
    WaitingForWorkers,
}

/// How far a job is.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ProgressView {
    /// Bytes of output weights in all.
    pub bytes_total: u64,
    /// Bytes in finished tasks, or reported by running ones.
    pub bytes_done: u64,
    /// Tasks in all.
    pub tasks_total: u64,
    /// Finished tasks.
    pub tasks_done: u64,
    /// Tasks under a lease.
    pub tasks_leased: u64,
    /// Charged failures and crashes so far.
    pub retries: u64,
    /// Tasks that wait for a worker.
    pub tasks_ready: u64,
    /// Tasks that were given up.
    pub tasks_failed: u64,
    /// Tasks that are not needed any more.
    pub tasks_cancelled: u64,
    /// Bytes of output a second, lately; 0 where nothing moves.
    pub bytes_per_second: f64,
    /// At that rate; `None` where it cannot be told.
    pub seconds_left: Option<f64>,
    /// Who has done how much, the most first.
    pub workers: Vec<ShareView>,
}

/// One worker's share of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShareView {
    /// The worker.
    pub worker: WorkerId,
    /// Its machine; empty where it is not known any more.
    pub hostname: String,
    /// Tasks that it finished.
    pub tasks_done: u64,
    /// Bytes of these.
    pub bytes_done: u64,
    /// Tasks that it holds.
    pub tasks_leased: u64,
}

impl Condition {
    /// Every condition.
    pub const ALL: [Self; 1] = [Self::WaitingForWorkers];

    /// The name on the screen and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::WaitingForWorkers => "WAITING_FOR_WORKERS",
        }
    }
}

impl From<Condition> for v1::JobCondition {
    fn from(condition: Condition) -> Self {
        match condition {
            Condition::WaitingForWorkers => Self::WaitingForWorkers,
        }
    }
}

fn condition(value: i32) -> Result<Condition, ConvertError> {
    let wire = v1::JobCondition::try_from(value).ok();
    let named = Condition::ALL
        .into_iter()
        .find(|candidate| Some(v1::JobCondition::from(*candidate)) == wire);
    named.ok_or(ConvertError::UnknownValue {
        field: "conditions",
        value,
    })
}

impl From<JobState> for v1::JobState {
    fn from(state: JobState) -> Self {
        match state {
            JobState::Planning => Self::Planning,
            JobState::Queued => Self::Queued,
            JobState::Running => Self::Running,
            JobState::Committing => Self::Committing,
            JobState::Succeeded => Self::Succeeded,
            JobState::Failed => Self::Failed,
            JobState::Cancelling => Self::Cancelling,
            JobState::Cancelled => Self::Cancelled,
        }
    }
}

/// The state behind its number on the wire.
///
/// # Errors
/// If the number is `UNSPECIFIED` or names no state.
pub fn job_state(value: i32) -> Result<JobState, ConvertError> {
    let state = v1::JobState::try_from(value).ok();
    let named = JobState::ALL
        .into_iter()
        .find(|candidate| Some(v1::JobState::from(*candidate)) == state);
    named.ok_or(ConvertError::UnknownValue {
        field: "state",
        value,
    })
}

impl From<JobView> for v1::Job {
    fn from(view: JobView) -> Self {
        let error = view.error.map(error_to_wire);
        Self {
            job_id: view.job.0,
            request_id: view.request.0,
            state: v1::JobState::from(view.state).into(),
            recipe: Some(recipe_to_wire(&view.recipe)),
            error,
            progress: Some(view.progress.into()),
            revision: view.revision,
            create_time: Some(timestamp(view.created)),
            end_time: view.ended.map(timestamp),
            labels: labels_to_wire(&view.labels),
            priority: view.priority.number().into(),
            tenant: view.tenant.as_str().to_owned(),
            warnings: view.warnings.into_iter().map(Into::into).collect(),
            conditions: view
                .conditions
                .into_iter()
                .map(|condition| v1::JobCondition::from(condition).into())
                .collect(),
        }
    }
}

impl TryFrom<v1::Job> for JobView {
    type Error = ConvertError;

    fn try_from(job: v1::Job) -> Result<Self, ConvertError> {
        let error = job.error.map(error_from_wire).transpose()?;
        let recipe = recipe_from_wire(&required(job.recipe, "recipe")?);
        Ok(Self {
            job: JobId(job.job_id),
            request: RequestId(job.request_id),
            state: job_state(job.state)?,
            recipe: recipe.map_err(|_| ConvertError::Missing("recipe"))?.recipe,
            error,
            progress: required(job.progress, "progress")?.into(),
            revision: job.revision,
            created: time_ms(&required(job.create_time, "create_time")?),
            ended: job.end_time.as_ref().map(time_ms),
            labels: Labels::parse(job.labels).map_err(|_| ConvertError::OutOfRange("labels"))?,
            priority: Priority::new(job.priority)
                .map_err(|_| ConvertError::OutOfRange("priority"))?,
            tenant: Tenant::parse(&job.tenant).map_err(|_| ConvertError::OutOfRange("tenant"))?,
            warnings: job.warnings.into_iter().map(Into::into).collect(),
            conditions: job
                .conditions
                .into_iter()
                .map(condition)
                .collect::<Result<_, _>>()?,
        })
    }
}

impl From<ProgressView> for v1::Progress {
    fn from(view: ProgressView) -> Self {
        Self {
            bytes_total: view.bytes_total,
            bytes_done: view.bytes_done,
            tasks_total: view.tasks_total,
            tasks_done: view.tasks_done,
            tasks_leased: view.tasks_leased,
            retries: view.retries,
            tasks_ready: view.tasks_ready,
            tasks_failed: view.tasks_failed,
            tasks_cancelled: view.tasks_cancelled,
            bytes_per_second: view.bytes_per_second,
            seconds_left: view.seconds_left,
            workers: view.workers.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<v1::Progress> for ProgressView {
    fn from(progress: v1::Progress) -> Self {
        Self {
            bytes_total: progress.bytes_total,
            bytes_done: progress.bytes_done,
            tasks_total: progress.tasks_total,
            tasks_done: progress.tasks_done,
            tasks_leased: progress.tasks_leased,
            retries: progress.retries,
            tasks_ready: progress.tasks_ready,
            tasks_failed: progress.tasks_failed,
            tasks_cancelled: progress.tasks_cancelled,
            bytes_per_second: progress.bytes_per_second,
            seconds_left: progress.seconds_left,
            workers: progress.workers.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<ShareView> for v1::WorkerShare {
    fn from(view: ShareView) -> Self {
        Self {
            worker_id: view.worker.0,
            hostname: view.hostname,
            tasks_done: view.tasks_done,
            bytes_done: view.bytes_done,
            tasks_leased: view.tasks_leased,
        }
    }
}

impl From<v1::WorkerShare> for ShareView {
    fn from(share: v1::WorkerShare) -> Self {
        Self {
            worker: WorkerId(share.worker_id),
            hostname: share.hostname,
            tasks_done: share.tasks_done,
            bytes_done: share.bytes_done,
            tasks_leased: share.tasks_leased,
        }
    }
}

/// Labels as a message has them.
pub fn labels_to_wire(labels: &Labels) -> HashMap<String, String> {
    labels
        .iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

pub(super) fn error_to_wire((kind, problems): (FailureKind, Vec<Problem>)) -> v1::JobError {
    v1::JobError {
        kind: v1::FailureKind::from(kind).into(),
        problems: problems.into_iter().map(Into::into).collect(),
    }
}

pub(super) fn error_from_wire(
    error: v1::JobError,
) -> Result<(FailureKind, Vec<Problem>), ConvertError> {
    let problems = error.problems.into_iter().map(Into::into).collect();
    Ok((failure_kind(error.kind)?, problems))
}

pub(super) fn timestamp(time: TimeMs) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: time.0.div_euclid(1000),
        nanos: i32::try_from(time.0.rem_euclid(1000) * 1_000_000)
            .expect("less than a second in nanoseconds"),
    }
}

pub(super) fn time_ms(time: &prost_types::Timestamp) -> TimeMs {
    TimeMs(time.seconds * 1000 + i64::from(time.nanos) / 1_000_000)
}
