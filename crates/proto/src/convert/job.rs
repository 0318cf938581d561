//! Jobs as clients see them.

use chatvec_core::ids::{JobId, RequestId};
use chatvec_core::job::JobState;
use chatvec_core::problem::Problem;
use chatvec_core::recipe::Recipe;
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
}

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
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
        let error = view.error.map(|(kind, problems)| v1::JobError {
            kind: v1::FailureKind::from(kind).into(),
            problems: problems.into_iter().map(Into::into).collect(),
        });
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
            ..Self::default()
        }
    }
}

impl TryFrom<v1::Job> for JobView {
    type Error = ConvertError;

    fn try_from(job: v1::Job) -> Result<Self, ConvertError> {
        let error = match job.error {
            Some(error) => {
                let problems = error.problems.into_iter().map(Into::into).collect();
                Some((failure_kind(error.kind)?, problems))
            }
            None => None,
        };
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
            ..Self::default()
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
        }
    }
}

fn timestamp(time: TimeMs) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: time.0.div_euclid(1000),
        nanos: i32::try_from(time.0.rem_euclid(1000) * 1_000_000)
            .expect("less than a second in nanoseconds"),
    }
}

fn time_ms(time: &prost_types::Timestamp) -> TimeMs {
    TimeMs(time.seconds * 1000 + i64::from(time.nanos) / 1_000_000)
}
