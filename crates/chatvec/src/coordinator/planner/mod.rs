//! From a recipe to a plan in the job store: reads headers and indexes, never
//! tensor data, and reports all problems at once.

mod blueprint;
mod draft;
mod inputs;

pub use blueprint::{Blueprint, PlannedFile, PlannedSide, PlannedTensor, SideContent};
pub use draft::{Draft, draft};
pub use inputs::SurveyedInputs;

use chatvec_core::ids::JobId;
use chatvec_core::plan::{PartSize, Plan};
use chatvec_core::problem::Problem;
use chatvec_core::recipe::Recipe;
use chatvec_core::task::FailureKind;
use chatvec_proto::convert::encode_spec;
use tracing::Instrument as _;

use super::store::{Epoch, JobError, JobRow, NewTask, Store, StoreError};
use super::view::stored_recipe;
use crate::storage::OutputFolder;
use crate::storage::object::ObjectStorage;
use crate::telemetry;

/// Plans every job that waits for it.
pub(super) async fn plan_waiting_jobs(
    store: &Store,
    storage: &ObjectStorage,
    part_size: PartSize,
) -> Result<(), StoreError> {
    for job in store.jobs_to_plan().await? {
        plan_job(store, storage, &job, part_size).await?;
    }
    Ok(())
}

async fn plan_job(
    store: &Store,
    storage: &ObjectStorage,
    job: &JobId,
    part_size: PartSize,
) -> Result<(), StoreError> {
    let epoch = match store.start_planning(job).await {
        Ok(epoch) => epoch,
        // Cancelled between the listing and now.
        Err(StoreError::WrongState { .. }) => return Ok(()),
        Err(error) => return Err(error),
    };
    let row = store
        .job(job)
        .await?
        .ok_or_else(|| StoreError::JobNotFound(job.clone()))?;
    let span = tracing::info_span!("plan job", job.id = %job);
    let span = telemetry::continued(span, row.traceparent.as_deref());
    plan(store, storage, &row, epoch, part_size)
        .instrument(span)
        .await
}

async fn plan(
    store: &Store,
    storage: &ObjectStorage,
    row: &JobRow,
    epoch: Epoch,
    part_size: PartSize,
) -> Result<(), StoreError> {
    let job = &row.job_id;
    let recipe = stored_recipe(row)?;
    let work = {
        let (storage, job) = (storage.clone(), job.clone());
        move || prepare(&storage, &recipe, &job, part_size)
    };
    let prepared = match tokio::task::spawn_blocking(work).await {
        Ok(prepared) => prepared,
        Err(panic) => {
            let problem = Problem::new("plan", format!("the planner hit a bug: {panic}"));
            Err((FailureKind::Internal, vec![problem]))
        }
    };
    match prepared {
        Ok(prepared) => prepared.store(store, job, epoch).await,
        Err((kind, mut problems)) => {
            tracing::info!(job.problems = problems.len(), "job cannot be planned");
            let error = JobError {
                kind,
                problem: problems.remove(0),
            };
            match store.fail_job(job, &error, &problems).await {
                // Cancelled while it was planned: that stands.
                Err(StoreError::WrongState { .. }) => Ok(()),
                outcome => outcome.map(drop),
            }
        }
    }
}

/// Why a job cannot be planned: at least one problem.
type Unplannable = (FailureKind, Vec<Problem>);

/// A plan, encoded for the job store.
struct Prepared {
    key: chatvec_core::ids::Digest,
    blueprint: Vec<u8>,
    tasks: Vec<NewTask>,
}

/// Drafts the plan and creates the unfinished output files.
fn prepare(
    storage: &ObjectStorage,
    recipe: &Recipe,
    job: &JobId,
    part_size: PartSize,
) -> Result<Prepared, Unplannable> {
    let bad_input = |problems| (FailureKind::BadInput, problems);
    let draft = draft(storage, recipe, part_size).map_err(bad_input)?;
    let output =
        OutputFolder::at(&recipe.output.url).map_err(|problem| bad_input(vec![problem]))?;
    output
        .check_usable(recipe.output.overwrite)
        .map_err(|problem| bad_input(vec![problem]))?;
    let partials = output.partials(job);
    for file in &draft.plan.files {
        partials.create(&file.name, file.size).map_err(|error| {
            let failure = error.failure();
            (failure.kind, vec![failure.problem])
        })?;
    }
    let tasks = draft.plan.numbered_tasks().map(|(task, range)| NewTask {
        task,
        file: range.file,
        first_part: range.first_part,
        part_count: range.part_count,
        bytes: range.bytes,
        spec: encode_spec(
            draft
                .plan
                .task_spec(task, target(&draft.plan, &partials, range.file)),
        ),
    });
    let tasks = tasks.collect();
    let blueprint = Blueprint::of(recipe, &draft);
    Ok(Prepared {
        key: draft.inputs.key(recipe),
        blueprint: blueprint.encode(),
        tasks,
    })
}

fn target(
    plan: &Plan,
    partials: &crate::storage::Partials,
    file: chatvec_core::ids::FileOrdinal,
) -> String {
    partials
        .path(&plan.files[file.0 as usize].name)
        .to_string_lossy()
        .into_owned()
}

impl Prepared {
    async fn store(self, store: &Store, job: &JobId, epoch: Epoch) -> Result<(), StoreError> {
        let tasks = self.tasks.len();
        match store
            .finish_planning(job, epoch, &self.key, self.blueprint, &self.tasks)
            .await
        {
            Ok(_) => {
                tracing::info!(job.tasks = tasks, "job planned");
                Ok(())
            }
            // Cancelled, or taken over by another coordinator, while it was planned.
            Err(StoreError::WrongState { .. } | StoreError::EpochLost { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
