//! From finished parts to a published checkpoint.
//!
//! Two halves, with the point of no return between them:
//!
//! 1. *Stage*, while the job is still RUNNING: everything that can fail for a
//!    reason that lies outside (a side file that changed, a full disk, a bucket
//!    that may not be written) is done here. In a folder, weights are synced and
//!    the small files written next to them; below a prefix, the small files are
//!    uploaded as far as their last step.
//! 2. *Publish*, in COMMITTING: only renames or the completion of uploads, and
//!    the manifest. Every step can be repeated by another coordinator after a
//!    crash, and ends the same.

mod folder;
mod prefix;
mod record;
mod report;
mod small;

use std::io;

use chatvec_core::ids::JobId;
use chatvec_core::job::JobState;
use chatvec_core::problem::Problem;
use chatvec_core::task::{FailureKind, TaskFailure};
use futures_util::stream::{self, StreamExt as _};
use tracing::Instrument as _;

use super::Resources;
use super::epoch::{self, Held};
use super::planner::Blueprint;
use super::resume;
use super::store::{Epoch, JobError, JobRow, PartRow, Store, StoreError};
use super::uploads::OpenError;
use super::view::stored_recipe;
use crate::fault::{self, Failpoint, Injected};
use crate::storage::Output;
use crate::storage::local::LocalError;
use crate::storage::object::ObjectError;
use crate::telemetry;

/// Jobs published at once by one coordinator.
const JOBS_AT_ONCE: usize = 8;

/// Between two tries to publish a job, at least. What stands in the way, such as
/// a full disk, seldom goes at once.
const PAUSE_MS: i64 = 1_000;

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
    /// The object store refused.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// What workers wrote cannot be verified.
    #[error("finished parts cannot be verified: {0:#}")]
    Verify(anyhow::Error),
}

impl From<OpenError> for FinalizeError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Store(error) => Self::Store(error),
            OpenError::Object(error) => Self::Object(error),
        }
    }
}

impl From<Injected> for FinalizeError {
    fn from(injected: Injected) -> Self {
        Self::Store(injected.into())
    }
}

impl FinalizeError {
    /// What to tell a user who waits for the job.
    pub(super) fn problem(&self) -> Problem {
        match self {
            Self::Store(error) => Problem::new("job store", error.to_string()),
            Self::Local(error) => error.failure().problem,
            Self::Object(error) => error.failure().problem,
            Self::Verify(_) => Problem::new("unfinished files", self.to_string()),
        }
    }
}

/// Publishes every job whose tasks are all done, and goes on with those that
/// an earlier coordinator left half-way. Returns what stopped the first job
/// that could not be published.
pub(super) async fn publish_finished_jobs(
    resources: &Resources,
) -> Result<Option<Problem>, StoreError> {
    let jobs = resources.store.jobs_to_commit().await?;
    // Made first: a closure over references is not general enough for a task.
    let works: Vec<_> = jobs.iter().map(|job| finalize(resources, job)).collect();
    let mut works = stream::iter(works).buffer_unordered(JOBS_AT_ONCE);
    let mut trouble = None;
    while let Some(outcome) = works.next().await {
        if let Err(error) = outcome {
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
    output: Output,
    overwrite: bool,
}

/// How far publishing came.
#[derive(Debug)]
enum Published {
    /// The checkpoint is complete; so many files are in it, but for the manifest.
    Complete { files: usize },
    /// Parts are made again before it can go on.
    Repairing,
    /// It can never be completed.
    Refused(JobError),
}

async fn finalize(resources: &Resources, job: &JobId) -> Result<(), FinalizeError> {
    let (store, lease_ms) = (&resources.store, resources.options.lease_ms());
    let Some(epoch) = store.start_finalizing(job, lease_ms).await? else {
        // Another coordinator is at it.
        return Ok(());
    };
    let finished = load(resources, job).await?;
    let span = tracing::info_span!("publish job", job.id = %job);
    let span = telemetry::continued(span, finished.row.traceparent.as_deref());
    let work = finalize_under(resources, &finished, epoch).instrument(span);
    match epoch::hold(store, job, epoch, lease_ms, work).await {
        Held::Done(Ok(())) | Held::Lost => Ok(()),
        Held::Done(Err(FinalizeError::Store(StoreError::EpochLost { .. }))) => Ok(()),
        Held::Done(Err(error)) => {
            if let Some(refusal) = lasting_refusal(resources, job, &error).await? {
                tracing::error!(job.id = %job, job.problem = %refusal.problem, "job cannot be published, it is given up");
                store.fail_commit(job, epoch, &refusal).await?;
                return Ok(());
            }
            tracing::warn!(job.id = %job, %error, "job could not be published, it will be tried again");
            // Nobody takes it up before that: a pause.
            match store.renew_epoch(job, epoch, PAUSE_MS).await {
                Ok(()) | Err(StoreError::EpochLost { .. }) => Err(error),
                Err(unpaused) => Err(unpaused.into()),
            }
        }
    }
}

/// The end of a job in COMMITTING that its bucket refuses for too long: its
/// permission or the bucket itself is gone, and nobody has mended that. A store
/// that cannot be asked is waited for, however long that takes.
async fn lasting_refusal(
    resources: &Resources,
    job: &JobId,
    error: &FinalizeError,
) -> Result<Option<JobError>, StoreError> {
    let FinalizeError::Object(error) = error else {
        return Ok(None);
    };
    let TaskFailure { kind, problem } = error.failure();
    if !matches!(kind, FailureKind::PermissionDenied | FailureKind::BadInput) {
        return Ok(None);
    }
    let waited = resources.store.age_of_commit(job).await?;
    let is_over = waited.is_some_and(|waited| waited >= resources.options.commit_patience);
    let hint = "mend the bucket and submit the job again; \
                what was published in part is removed once the store allows it";
    Ok(is_over.then(|| failure(kind, problem.with_hint(hint))))
}

async fn finalize_under(
    resources: &Resources,
    finished: &Finished,
    epoch: Epoch,
) -> Result<(), FinalizeError> {
    let (store, job) = (&resources.store, &finished.row.job_id);
    let output_url = &finished.row.output_url;
    fault::hit(Failpoint::PublishStarted, output_url).await?;
    if may_have_lost_writes(finished) {
        let verified = resume::verify(store, &resources.storage, job).await;
        if verified.map_err(FinalizeError::Verify)?.reopened_tasks > 0 {
            store.release_epoch(job, epoch).await?;
            return Ok(());
        }
    }
    // After the point of no return this finds everything staged, unless the
    // store has lost some of it since.
    if let Err(failure) = stage(resources, finished, epoch).await? {
        telemetry::failed(&failure.problem);
        tracing::info!(job.problem = %failure.problem, "job cannot be published");
        match finished.row.state {
            JobState::Committing => store.fail_commit(job, epoch, &failure).await?,
            _ => store.fail_job(job, epoch, &failure, &[]).await?,
        };
        return Ok(());
    }
    fault::hit(Failpoint::CommitReady, output_url).await?;
    let Some(commit) = store.start_commit(job, epoch).await? else {
        // A task was reopened, or the job was cancelled, since it was listed.
        return Ok(());
    };
    fault::hit(Failpoint::CommitStarted, output_url).await?;
    match publish(resources, finished, epoch, commit.committing_at_ms).await? {
        Published::Complete { files } => {
            fault::hit(Failpoint::ManifestFinal, output_url).await?;
            store.finish_commit(job, epoch).await?;
            fault::hit(Failpoint::CommitFinished, output_url).await?;
            tracing::info!(job.files = files, "job published");
        }
        Published::Repairing => {
            tracing::warn!("parts of the output are not what was reported, they are made again");
            store.release_epoch(job, epoch).await?;
            return Ok(());
        }
        Published::Refused(failure) => {
            tracing::error!(job.problem = %failure.problem, "job cannot be published");
            store.fail_commit(job, epoch, &failure).await?;
        }
    }
    if let Output::Folder(folder) = &finished.output {
        if let Err(error) = folder.partials(job).remove() {
            tracing::warn!(%error, "the job is published, but its leftovers could not be removed");
        }
        folder.forget_if_empty();
    }
    Ok(())
}

/// Whether the machine of the output folder has started anew since the job was
/// planned, or is another one: workers do not sync what they write, so a report
/// may outlive the bytes that it speaks of.
///
/// Asked before the commit and not at the start of a coordinator: here it costs
/// no start its time, it holds for every job store and every coordinator that
/// takes the job up, and nothing can be lost any more behind it, as staging syncs
/// what was verified.
fn may_have_lost_writes(finished: &Finished) -> bool {
    matches!(finished.output, Output::Folder(_))
        && finished.row.state != JobState::Committing
        && resume::boot_id().ok() != finished.blueprint.boot_id
}

/// The inner error ends the job; the outer one is worth another try.
async fn stage(
    resources: &Resources,
    finished: &Finished,
    epoch: Epoch,
) -> Result<Result<(), JobError>, FinalizeError> {
    match &finished.output {
        // Staged files are on the disk, or moved into place already.
        Output::Folder(_) if finished.row.state == JobState::Committing => Ok(Ok(())),
        Output::Folder(folder) => {
            let paths = small::paths(&finished.blueprint);
            let small = match small::read_all(resources, finished, &paths).await? {
                Ok(small) => small,
                Err(changed) => return Ok(Err(changed)),
            };
            let partials = folder.partials(&finished.row.job_id);
            let blueprint = finished.blueprint.clone();
            blocking(move || folder::stage(&blueprint, &partials, &small)).await?;
            Ok(Ok(()))
        }
        Output::Prefix(output) => prefix::stage(resources, finished, output, epoch).await,
    }
}

async fn publish(
    resources: &Resources,
    finished: &Finished,
    epoch: Epoch,
    at_ms: i64,
) -> Result<Published, FinalizeError> {
    match &finished.output {
        Output::Folder(folder) => {
            let (work, folder) = (finished.clone(), folder.clone());
            Ok(blocking(move || folder::publish(&work, &folder, at_ms)).await?)
        }
        Output::Prefix(output) => prefix::publish(resources, finished, output, epoch, at_ms).await,
    }
}

async fn load(resources: &Resources, job: &JobId) -> Result<Finished, StoreError> {
    let store: &Store = &resources.store;
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
    let output = Output::at(&resources.storage, &row.output_url)
        .map_err(|problem| corrupt(problem.to_string()))?;
    let parts = store.parts(job).await?;
    Ok(Finished {
        row,
        blueprint,
        parts,
        output,
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

/// What becomes of a job whose place another has taken.
fn taken(place: String, hint: &str) -> Published {
    let message = "another job has published, or is publishing, into this place";
    let problem = Problem::new(place, message).with_hint(hint);
    Published::Refused(failure(FailureKind::BadInput, problem))
}
