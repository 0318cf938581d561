//! Plans that are only looked at: drafted, told, and forgotten.

use std::sync::Arc;
use std::time::Duration;

use chatvec_core::plan::PartSize;
use chatvec_core::recipe::Recipe;
use chatvec_core::task::FailureKind;
use chatvec_proto::convert::{PlanView, PlannedFileView};
use chatvec_proto::status::{Reason, bad_request};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tonic::Status;

use super::planner::{self, Draft, Unplannable};
use crate::storage::object::ObjectStorage;

/// Plans that are drafted at once. Each reads the headers of whole families and
/// holds them in memory.
const DRY_RUNS_MAX: usize = 2;
/// How long a plan may wait for its turn.
const TURN_WAIT_MAX: Duration = Duration::from_secs(10);
/// How long it may take. Storage that hangs must not hold a client for ever.
const DRAFT_TIME_MAX: Duration = Duration::from_secs(60);

/// Drafts plans, a few at once.
#[derive(Debug, Clone)]
pub(super) struct DryRuns {
    turns: Arc<Semaphore>,
    storage: ObjectStorage,
    part_size: PartSize,
}

impl DryRuns {
    pub(super) fn new(storage: ObjectStorage, part_size: PartSize) -> Self {
        Self {
            turns: Arc::new(Semaphore::new(DRY_RUNS_MAX)),
            storage,
            part_size,
        }
    }

    /// What the merge would do.
    ///
    /// # Errors
    /// All problems of recipe, inputs and output, or that it takes too long.
    pub(super) async fn plan(&self, recipe: Recipe) -> Result<PlanView, Status> {
        let turn = timeout(TURN_WAIT_MAX, Arc::clone(&self.turns).acquire_owned()).await;
        let Ok(turn) = turn else {
            return Err(Reason::Unavailable.status("other plans are under way; try again"));
        };
        let (storage, part_size) = (self.storage.clone(), self.part_size);
        let draft = tokio::task::spawn_blocking(move || {
            // Held to the end of the work, also when the client has gone.
            let _turn = turn;
            planner::draft(&storage, &recipe, part_size).map(|draft| plan_view(&draft))
        });
        match timeout(DRAFT_TIME_MAX, draft).await {
            Ok(Ok(Ok(view))) => Ok(view),
            Ok(Ok(Err(Unplannable {
                kind: FailureKind::Transient,
                problems,
            }))) => Err(Reason::Unavailable.status(problems[0].to_string())),
            Ok(Ok(Err(Unplannable { problems, .. }))) => Err(bad_request(&problems)),
            Ok(Err(panic)) => {
                tracing::error!(%panic, "a plan panicked");
                Err(Reason::Internal
                    .status("the planner hit a bug; the coordinator's log has the details"))
            }
            Err(_elapsed) => Err(Reason::DeadlineExceeded.status(format!(
                "the inputs could not be looked at within {} s",
                DRAFT_TIME_MAX.as_secs()
            ))),
        }
    }
}

fn plan_view(draft: &Draft) -> PlanView {
    let plan = &draft.plan;
    let merged = plan.merged() as u64;
    let files = plan.files.iter().map(|file| PlannedFileView {
        name: file.name.clone(),
        size: file.size,
    });
    PlanView {
        warnings: draft.warnings.clone(),
        merged_tensors: merged,
        copied_tensors: plan.decisions().len() as u64 - merged,
        bytes_read: plan.bytes_read(),
        bytes_written: plan.bytes_written(),
        files: files.collect(),
        tasks: plan.tasks.len() as u64,
        part_size_bytes: plan.part_size.bytes(),
    }
}
