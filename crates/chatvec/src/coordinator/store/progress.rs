//! How far a job has come, counted from its tasks on demand: a counter kept on
//! the job's row would make every report wait for every other.

use chatvec_core::ids::JobId;
use chatvec_core::task::TaskState;
use sqlx::any::AnyRow;

use super::{Store, StoreError, decode};

/// How far a job has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Tasks that wait for a worker.
    pub ready: u64,
    /// Tasks that a worker holds.
    pub leased: u64,
    /// Tasks whose parts are recorded.
    pub done: u64,
    /// Tasks that were given up.
    pub failed: u64,
    /// Tasks that are not needed any more.
    pub cancelled: u64,
    /// Bytes of output of all tasks.
    pub bytes_total: u64,
    /// Bytes of the tasks that are done.
    pub bytes_done: u64,
    /// Bytes that the holders of leases say they have written.
    pub bytes_leased_progress: u64,
    /// Charged failures and expired leases of all tasks.
    pub retries: u64,
}

const PROGRESS: &str = "-- progress
    SELECT state, count(*) AS tasks,
           CAST(sum(bytes) AS bigint) AS bytes,
           CAST(sum(CASE WHEN progress_bytes < bytes THEN progress_bytes ELSE bytes END)
                AS bigint) AS progress,
           CAST(sum(failures + crashes) AS bigint) AS retries
    FROM task WHERE job_id = $1 GROUP BY state";

impl Store {
    /// How far the job has come; all zero for a job without tasks.
    pub async fn progress(&self, job: &JobId) -> Result<Progress, StoreError> {
        let rows = sqlx::query(self.sql(PROGRESS))
            .bind(job.as_str())
            .fetch_all(self.database())
            .await?;
        let mut sum = Progress::default();
        for row in &rows {
            add_state(&mut sum, row)?;
        }
        Ok(sum)
    }
}

/// Adds the row of one state: its tasks, their bytes, progress and retries.
pub(super) fn add_state(sum: &mut Progress, row: &AnyRow) -> Result<(), StoreError> {
    let tasks = decode::number(row, "tasks")?;
    let bytes: u64 = decode::number(row, "bytes")?;
    match decode::name(row, "state")? {
        TaskState::Ready => sum.ready = tasks,
        TaskState::Leased => {
            sum.leased = tasks;
            sum.bytes_leased_progress = decode::number(row, "progress")?;
        }
        TaskState::Done => {
            sum.done = tasks;
            sum.bytes_done = bytes;
        }
        TaskState::Failed => sum.failed = tasks,
        TaskState::Cancelled => sum.cancelled = tasks,
    }
    sum.bytes_total += bytes;
    sum.retries += decode::number::<u64>(row, "retries")?;
    Ok(())
}
