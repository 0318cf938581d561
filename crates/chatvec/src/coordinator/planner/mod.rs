//! From a recipe to a plan in the job store: reads headers and indexes, never
//! tensor data, and reports all problems at once.

mod blueprint;
mod draft;
mod inputs;
mod prepare;
mod tensors;

pub use blueprint::{Blueprint, PlannedFile, PlannedSide, SideContent};
pub use draft::{Draft, draft};
pub use inputs::SurveyedInputs;
pub use tensors::{PlannedTensor, PlannedTensors};

use chatvec_core::ids::JobId;
use chatvec_core::problem::Problem;
use chatvec_core::task::{FailureKind, TaskFailure};
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use tracing::Instrument as _;

use super::Resources;
use super::epoch::{self, Held};
use super::store::{Epoch, JobError, JobRow, StoreError};
use super::uploads::{self, OpenError};
use super::view::stored_recipe;
use super::weaknesses;
use crate::fault::{self, Failpoint};
use crate::storage::Output;
use crate::telemetry;
use prepare::{Prepared, prepare};

/// Jobs planned at once by one coordinator.
const JOBS_AT_ONCE: usize = 4;
/// Uploads created at once for one job.
const UPLOADS_AT_ONCE: usize = 16;

/// Plans every job that waits for it.
pub(super) async fn plan_waiting_jobs(resources: &Resources) -> Result<(), StoreError> {
    let jobs = resources.store.jobs_to_plan().await?;
    // Made first: a closure over references is not general enough for a task.
    let plans: Vec<_> = jobs.iter().map(|job| plan_job(resources, job)).collect();
    let mut plans = stream::iter(plans).buffer_unordered(JOBS_AT_ONCE);
    while let Some(planned) = plans.next().await {
        planned?;
    }
    Ok(())
}

async fn plan_job(resources: &Resources, job: &JobId) -> Result<(), StoreError> {
    let (store, lease_ms) = (&resources.store, resources.options.lease_ms());
    let epoch = match store.start_planning(job, lease_ms).await {
        Ok(Some(epoch)) => epoch,
        // Another coordinator is at it, or the job was cancelled since it was listed.
        Ok(None) | Err(StoreError::WrongState { .. }) => return Ok(()),
        Err(error) => return Err(error),
    };
    let row = store
        .job(job)
        .await?
        .ok_or_else(|| StoreError::JobNotFound(job.clone()))?;
    let span = tracing::info_span!("plan job", job.id = %job);
    let span = telemetry::continued(span, row.traceparent.as_deref());
    let work = plan_under(resources, &row, epoch).instrument(span);
    match epoch::hold(store, job, epoch, lease_ms, work).await {
        // Cancelled, or taken over by another coordinator, while it was planned.
        Held::Done(Err(StoreError::WrongState { .. } | StoreError::EpochLost { .. }))
        | Held::Lost => Ok(()),
        Held::Done(outcome) => outcome,
    }
}

/// Why a job cannot be planned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unplannable {
    /// The class: [`FailureKind::Transient`] may pass by itself.
    pub kind: FailureKind,
    /// Everything that is wrong, at least one.
    pub problems: Vec<Problem>,
}

impl From<Vec<Problem>> for Unplannable {
    /// What the user asked cannot work.
    fn from(problems: Vec<Problem>) -> Self {
        Self {
            kind: FailureKind::BadInput,
            problems,
        }
    }
}

impl From<Problem> for Unplannable {
    /// What the user asked cannot work.
    fn from(problem: Problem) -> Self {
        vec![problem].into()
    }
}

impl From<TaskFailure> for Unplannable {
    fn from(failure: TaskFailure) -> Self {
        Self {
            kind: failure.kind,
            problems: vec![failure.problem],
        }
    }
}

async fn plan_under(resources: &Resources, row: &JobRow, epoch: Epoch) -> Result<(), StoreError> {
    let (store, job) = (&resources.store, &row.job_id);
    fault::hit(Failpoint::PlanStarted, &row.output_url).await?;
    let prepared = match forget_probe(resources, row, epoch).await {
        Ok(()) => prepare_apart(resources, row).await?,
        Err(unplannable) => Err(unplannable),
    };
    let opened = match prepared {
        Ok(prepared) => open_uploads(resources, job, epoch, prepared).await?,
        Err(unplannable) => Err(unplannable),
    };
    match opened {
        Ok(prepared) => {
            let tasks = prepared.tasks.len();
            fault::hit(Failpoint::PlanReady, &row.output_url).await?;
            store
                .finish_planning(job, epoch, &prepared.into_plan())
                .await?;
            fault::hit(Failpoint::PlanStored, &row.output_url).await?;
            tracing::info!(job.tasks = tasks, "job planned");
            Ok(())
        }
        Err(unplannable) => refuse(resources, job, epoch, unplannable).await,
    }
}

/// Removes what a planner that died under an earlier epoch may have left where
/// the output is: this one would take it for somebody else's.
async fn forget_probe(
    resources: &Resources,
    row: &JobRow,
    epoch: Epoch,
) -> Result<(), Unplannable> {
    if epoch.is_first() {
        return Ok(());
    }
    match Output::at(&resources.storage, &row.output_url) {
        Ok(Output::Prefix(output)) => weaknesses::forget(&output, &row.job_id)
            .await
            .map_err(|error| error.failure().into()),
        // What is wrong with the output is told with everything else.
        Ok(Output::Folder(_)) | Err(_) => Ok(()),
    }
}

/// Prepares the job apart from the threads that serve requests.
async fn prepare_apart(
    resources: &Resources,
    row: &JobRow,
) -> Result<Result<Prepared, Unplannable>, StoreError> {
    let recipe = stored_recipe(row)?;
    let (storage, job, part_size) = (
        resources.storage.clone(),
        row.job_id.clone(),
        resources.options.part_size,
    );
    let work = move || prepare(&storage, &recipe, &job, part_size);
    Ok(match tokio::task::spawn_blocking(work).await {
        Ok(prepared) => prepared,
        Err(panic) => {
            let problem = Problem::new("plan", format!("the planner hit a bug: {panic}"));
            Err(Unplannable {
                kind: FailureKind::Internal,
                problems: vec![problem],
            })
        }
    })
}

/// Creates the uploads of the weight files, where the output is a prefix: first
/// the record that one is meant to be, so that no crash leaves one unknown. What
/// the store does not keep becomes a warning of the job.
async fn open_uploads(
    resources: &Resources,
    job: &JobId,
    epoch: Epoch,
    mut prepared: Prepared,
) -> Result<Result<Prepared, Unplannable>, StoreError> {
    let Some(output) = &prepared.prefix else {
        return Ok(Ok(prepared));
    };
    let store = &resources.store;
    store.add_uploads(job, epoch, &prepared.uploads).await?;
    fault::hit(Failpoint::UploadsIntended, output.url()).await?;
    let opens: Vec<_> = prepared
        .uploads
        .iter()
        .map(|upload| uploads::open(store, output.bucket(), job, epoch, upload))
        .collect();
    let opened = stream::iter(opens)
        .buffer_unordered(UPLOADS_AT_ONCE)
        .try_for_each(|_| std::future::ready(Ok(())));
    let (opened, weaknesses) = tokio::join!(opened, resources.weaknesses.of(output, job));
    match opened {
        Ok(()) => {
            prepared.warnings.extend(weaknesses);
            Ok(Ok(prepared))
        }
        Err(OpenError::Store(error)) => Err(error),
        Err(OpenError::Object(error)) => Ok(Err(error.failure().into())),
    }
}

/// Fails the job, unless what went wrong may pass by itself.
async fn refuse(
    resources: &Resources,
    job: &JobId,
    epoch: Epoch,
    unplannable: Unplannable,
) -> Result<(), StoreError> {
    let store = &resources.store;
    let Unplannable { kind, mut problems } = unplannable;
    telemetry::failed(&problems[0]);
    // A coordinator that is to blame itself leaves the job to another one.
    let passes = matches!(kind, FailureKind::Transient | FailureKind::Preempted);
    if passes && store.age_of_job(job).await? < resources.options.storage_patience {
        tracing::warn!(job.problem = %problems[0], "job cannot be planned just now, it will be tried again");
        // Nobody takes the job up before this epoch's lease has run out: a pause.
        return Ok(());
    }
    tracing::info!(job.problems = problems.len(), "job cannot be planned");
    let error = JobError {
        kind,
        problem: problems.remove(0),
    };
    store.fail_job(job, epoch, &error, &problems).await?;
    Ok(())
}
