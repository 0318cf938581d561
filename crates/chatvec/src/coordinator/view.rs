//! Jobs as clients see them, from their rows.

use chatvec_core::ids::JobId;
use chatvec_core::recipe::Recipe;
use chatvec_proto::convert::{JobView, ProgressView, TimeMs};

use super::store::{JobRow, Progress, Store, StoreError};

/// The job as it stands.
pub(super) async fn job_view(store: &Store, job: &JobId) -> Result<JobView, StoreError> {
    let row = store
        .job(job)
        .await?
        .ok_or_else(|| StoreError::JobNotFound(job.clone()))?;
    view_of(store, row).await
}

/// The view of a row that was just read.
pub(super) async fn view_of(store: &Store, row: JobRow) -> Result<JobView, StoreError> {
    let progress = progress_view(&store.progress(&row.job_id).await?);
    let recipe = stored_recipe(&row)?;
    let error = match row.error {
        Some(error) => {
            let mut problems = vec![error.problem];
            problems.extend(store.more_problems(&row.job_id).await?);
            Some((error.kind, problems))
        }
        None => None,
    };
    Ok(JobView {
        job: row.job_id,
        request: row.request_id,
        state: row.state,
        recipe,
        error,
        progress,
        revision: row.revision,
        created: TimeMs(row.created_at_ms),
        ended: row.finished_at_ms.map(TimeMs),
    })
}

/// The recipe of a row; what stands there was valid when it was stored.
pub(super) fn stored_recipe(row: &JobRow) -> Result<Recipe, StoreError> {
    let corrupt = || StoreError::Corrupt {
        column: "recipe",
        value: row.recipe_json.clone(),
    };
    let value = serde_json::from_str(&row.recipe_json).map_err(|_| corrupt())?;
    Recipe::from_value(&value)
        .map(|parsed| parsed.recipe)
        .map_err(|_| corrupt())
}

fn progress_view(progress: &Progress) -> ProgressView {
    ProgressView {
        bytes_total: progress.bytes_total,
        bytes_done: progress.bytes_done + progress.bytes_leased_progress,
        tasks_total: progress.ready
            + progress.leased
            + progress.done
            + progress.failed
            + progress.cancelled,
        tasks_done: progress.done,
        tasks_leased: progress.leased,
        retries: progress.retries,
    }
}
