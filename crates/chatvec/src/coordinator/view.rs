//! Jobs, tasks, workers and tenants as clients see them, from their rows.

use chatvec_core::ids::JobId;
use chatvec_core::recipe::Recipe;
use chatvec_proto::convert::{
    Condition, JobView, ProgressView, ShareView, TaskView, TasksWanted, TenantView, TimeMs,
    WorkerView,
};

use super::store::{
    JobRow, Pace, Progress, Store, StoreError, TaskFilter, TaskRow, TenantRow, WorkerRow,
    WorkerShare,
};

/// A rate is what was done in so long.
const PACE_SPAN_MS: i64 = 30_000;
/// A worker counts as there if it was seen this recently.
const WORKER_SEEN_MS: i64 = 60_000;

/// The job as it stands.
pub(super) async fn job_view(store: &Store, job: &JobId) -> Result<JobView, StoreError> {
    let row = store
        .job(job)
        .await?
        .ok_or_else(|| StoreError::JobNotFound(job.clone()))?;
    view_of(store, row).await
}

/// The view of a row that was just read, with all that there is to tell.
pub(super) async fn view_of(store: &Store, row: JobRow) -> Result<JobView, StoreError> {
    let job = row.job_id.clone();
    let progress = store.progress(&job).await?;
    let mut view = bare_view(row, &progress)?;
    if let Some((_, problems)) = &mut view.error {
        problems.extend(store.more_problems(&job).await?);
    }
    view.warnings = store.warnings(&job).await?;
    view.progress.workers = store.shares(&job).await?.into_iter().map(share).collect();
    if view.state.gives_leases() {
        set_pace(&mut view.progress, &store.pace(&job, PACE_SPAN_MS).await?);
        if progress.ready > 0 && store.workers_there(WORKER_SEEN_MS).await? == 0 {
            view.conditions.push(Condition::WaitingForWorkers);
        }
    }
    Ok(view)
}

/// The views of a list, by two statements for all of them: without warnings,
/// rates and shares, and with the first problem alone.
pub(super) async fn views_of(store: &Store, rows: Vec<JobRow>) -> Result<Vec<JobView>, StoreError> {
    let jobs: Vec<_> = rows.iter().map(|row| row.job_id.clone()).collect();
    let progress = store.progress_of(&jobs).await?;
    let view = |row: JobRow| {
        let progress = progress.get(&row.job_id).copied().unwrap_or_default();
        bare_view(row, &progress)
    };
    rows.into_iter().map(view).collect()
}

fn bare_view(row: JobRow, progress: &Progress) -> Result<JobView, StoreError> {
    let recipe = stored_recipe(&row)?;
    Ok(JobView {
        job: row.job_id,
        request: row.request_id,
        state: row.state,
        recipe,
        error: row.error.map(|error| (error.kind, vec![error.problem])),
        progress: progress_view(progress),
        revision: row.revision,
        created: TimeMs(row.created_at_ms),
        ended: row.finished_at_ms.map(TimeMs),
        labels: row.labels,
        priority: row.priority,
        tenant: row.tenant,
        warnings: Vec::new(),
        conditions: Vec::new(),
    })
}

/// A page of a job's tasks.
pub(super) async fn page_of_tasks(
    store: &Store,
    wanted: &TasksWanted,
) -> Result<Vec<TaskView>, StoreError> {
    let filter = TaskFilter {
        states: wanted.states.clone(),
        limit: wanted.page.limit,
        after: wanted.page.after,
    };
    let rows = store.tasks_page(&wanted.job, &filter).await?;
    // An unknown job has no tasks; one that is not planned yet has none either.
    if rows.is_empty() && store.job(&wanted.job).await?.is_none() {
        return Err(StoreError::JobNotFound(wanted.job.clone()));
    }
    Ok(rows.into_iter().map(task_view).collect())
}

/// The workers that were seen within so many seconds.
pub(super) async fn worker_views(
    store: &Store,
    seen_within_s: u32,
) -> Result<Vec<WorkerView>, StoreError> {
    let rows = store.workers(i64::from(seen_within_s) * 1000).await?;
    Ok(rows.into_iter().map(worker_view).collect())
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
        tasks_ready: progress.ready,
        tasks_failed: progress.failed,
        tasks_cancelled: progress.cancelled,
        ..ProgressView::default()
    }
}

/// Sets the rate, and the time that is left at it.
fn set_pace(progress: &mut ProgressView, pace: &Pace) {
    if pace.bytes == 0 || pace.span_ms == 0 {
        return;
    }
    let rate = pace.bytes as f64 * 1000.0 / pace.span_ms as f64;
    let left = progress.bytes_total.saturating_sub(progress.bytes_done);
    progress.bytes_per_second = rate;
    progress.seconds_left = Some(left as f64 / rate);
}

fn share(share: WorkerShare) -> ShareView {
    ShareView {
        worker: share.worker,
        hostname: share.hostname,
        tasks_done: share.tasks_done,
        bytes_done: share.bytes_done,
        tasks_leased: share.tasks_leased,
    }
}

fn task_view(row: TaskRow) -> TaskView {
    TaskView {
        task: row.task,
        state: row.state,
        file: row.file,
        first_part: row.first_part,
        part_count: row.part_count,
        bytes: row.bytes,
        progress_bytes: row.progress_bytes,
        attempt: row.attempt,
        fence: row.fence,
        counters: row.counters,
        worker: row.worker,
        error: row.error.map(|error| (error.kind, error.problem)),
        updated: TimeMs(row.updated_at_ms),
    }
}

fn worker_view(row: WorkerRow) -> WorkerView {
    WorkerView {
        worker: row.info.worker_id,
        hostname: row.info.hostname,
        version: row.info.version,
        slots: row.info.slots,
        memory_bytes: row.info.memory_bytes,
        tasks_leased: row.tasks_leased,
        first_seen: TimeMs(row.first_seen_ms),
        last_seen: TimeMs(row.last_seen_ms),
        stopped: row.stopped_at_ms.map(TimeMs),
    }
}

/// A tenant as clients see it.
pub(super) fn tenant_view(row: TenantRow) -> TenantView {
    TenantView {
        tenant: row.tenant,
        weight: row.weight,
        leased_tasks_max: row.leased_tasks_max,
        open_jobs_max: row.open_jobs_max,
        leased_tasks: row.leased_tasks,
        open_jobs: row.open_jobs,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_is_what_is_left_over_the_rate() {
        let mut progress = ProgressView {
            bytes_total: 4_000,
            bytes_done: 1_000,
            ..ProgressView::default()
        };
        set_pace(&mut progress, &Pace::default());
        assert_eq!(
            (progress.bytes_per_second, progress.seconds_left),
            (0.0, None)
        );
        let pace = Pace {
            bytes: 3_000,
            span_ms: 30_000,
        };
        set_pace(&mut progress, &pace);
        assert_eq!(
            (progress.bytes_per_second, progress.seconds_left),
            (100.0, Some(30.0))
        );
    }
}
