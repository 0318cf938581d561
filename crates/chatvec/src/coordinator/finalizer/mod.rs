//! From finished parts to a published checkpoint.
//!
//! Two halves, with the point of no return between them:
//!
//! 1. *Stage*, while the job is still RUNNING: everything that can fail for a
//!    reason that lies outside (a side file that changed, a full disk) is done
//!    here. Weights are synced, side files and statistics written next to them.
//! 2. *Publish*, in COMMITTING: only renames, and the manifest. Every step can
//!    be repeated by another coordinator after a crash, and ends the same.

mod publish;
mod report;
mod stage;

use std::io;

use chatvec_core::ids::JobId;
use chatvec_core::job::JobState;
use chatvec_core::problem::Problem;
use chatvec_core::task::FailureKind;
use tracing::Instrument as _;

use super::planner::Blueprint;
use super::store::{Commit, JobError, JobRow, PartRow, Store, StoreError};
use super::view::stored_recipe;
use crate::storage::local::LocalError;
use crate::storage::{OutputFolder, Partials};
use crate::telemetry;

/// Why a job could not be published just now. The job keeps its state, and the
/// next round tries again.
#[derive(Debug, thiserror::Error)]
pub(super) enum FinalizeError {
    /// The job store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The filesystem refused.
    #[error(transparent)]
    Local(#[from] LocalError),
}

impl FinalizeError {
    /// What to tell a user who waits for the job.
    pub(super) fn problem(&self) -> Problem {
        match self {
            Self::Store(error) => Problem::new("job store", error.to_string()),
            Self::Local(error) => error.failure().problem,
        }
    }
}

/// Publishes every job whose tasks are all done, and goes on with those that
/// an earlier coordinator left half-way. Returns what stopped the first job
/// that could not be published.
pub(super) async fn publish_finished_jobs(store: &Store) -> Result<Option<Problem>, StoreError> {
    let mut trouble = None;
    for job in store.jobs_to_commit().await? {
        if let Err(error) = finalize(store, &job).await {
            tracing::warn!(job.id = %job, %error, "job could not be published, it will be tried again");
            trouble.get_or_insert(error.problem());
        }
    }
    Ok(trouble)
}

/// Everything that both halves need of a job.
#[derive(Debug, Clone)]
struct Finished {
    row: JobRow,
    blueprint: Blueprint,
    parts: Vec<PartRow>,
    output: OutputFolder,
    partials: Partials,
    overwrite: bool,
}

async fn finalize(store: &Store, job: &JobId) -> Result<(), FinalizeError> {
    let finished = load(store, job).await?;
    let span = tracing::info_span!("publish job", job.id = %job);
    let span = telemetry::continued(span, finished.row.traceparent.as_deref());
    publish_job(store, &finished).instrument(span).await
}

async fn publish_job(store: &Store, finished: &Finished) -> Result<(), FinalizeError> {
    let job = &finished.row.job_id;
    if finished.row.state != JobState::Committing {
        let work = finished.clone();
        if let Err(failure) = blocking(move || stage::stage(&work)).await? {
            store.fail_job(job, &failure, &[]).await?;
            return Ok(());
        }
    }
    let Some(commit) = store.start_commit(job).await? else {
        // A task was reopened, or the job was cancelled, since it was listed.
        return Ok(());
    };
    let at_ms = commit.committing_at_ms;
    let work = finished.clone();
    let published = blocking(move || publish::publish(&work, at_ms)).await?;
    conclude(store, job, &commit, published).await?;
    if let Err(error) = finished.partials.remove() {
        tracing::warn!(%error, "the job is published, but its leftovers could not be removed");
    }
    finished.output.forget_if_empty();
    Ok(())
}

async fn conclude(
    store: &Store,
    job: &JobId,
    commit: &Commit,
    published: Result<publish::Published, JobError>,
) -> Result<(), StoreError> {
    match published {
        Ok(checkpoint) => {
            store.finish_commit(job, commit.epoch).await?;
            tracing::info!(job.files = checkpoint.files, "job published");
        }
        Err(failure) => {
            tracing::error!(job.problem = %failure.problem, "job cannot be published");
            store.fail_commit(job, commit.epoch, &failure).await?;
        }
    }
    Ok(())
}

async fn load(store: &Store, job: &JobId) -> Result<Finished, FinalizeError> {
    let row = store
        .job(job)
        .await?
        .ok_or_else(|| StoreError::JobNotFound(job.clone()))?;
    let plan = store.plan(job).await?.unwrap_or_default();
    let corrupt = |what: String| StoreError::Corrupt {
        column: "plan",
        value: what,
    };
    let blueprint = Blueprint::decode(&plan).map_err(|error| corrupt(error.to_string()))?;
    let recipe = stored_recipe(&row)?;
    let output =
        OutputFolder::at(&row.output_url).map_err(|problem| corrupt(problem.to_string()))?;
    let partials = output.partials(job);
    let parts = store.parts(job).await?;
    Ok(Finished {
        row,
        blueprint,
        parts,
        output,
        partials,
        overwrite: recipe.output.overwrite,
    })
}

/// Runs filesystem work apart from the threads that serve requests.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LocalError> + Send + 'static,
) -> Result<T, LocalError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(panic) => Err(LocalError::Io {
            action: "publish",
            path: Default::default(),
            source: io::Error::other(format!("the finalizer hit a bug: {panic}")),
        }),
    }
}

fn failure(kind: FailureKind, problem: Problem) -> JobError {
    JobError { kind, problem }
}
