//! What people and programs look at beside a job's row: how fast it moves and
//! who moves it, its tasks page by page, the workers; and the removal of the
//! record of a job that nobody looks at any more.

use std::collections::HashMap;

use chatvec_core::ids::{JobId, TaskOrdinal, WorkerId};
use chatvec_core::task::TaskState;

use super::progress::add_state;
use super::{Progress, Store, StoreError, TaskRow, decode, values};

/// What a job did lately.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pace {
    /// Bytes of output that were written.
    pub bytes: u64,
    /// In so many milliseconds.
    pub span_ms: u64,
}

/// One worker's part in a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerShare {
    /// The worker.
    pub worker: WorkerId,
    /// Its machine; empty where the worker is not known any more.
    pub hostname: String,
    /// Tasks that it finished.
    pub tasks_done: u64,
    /// Bytes of these.
    pub bytes_done: u64,
    /// Tasks that it holds.
    pub tasks_leased: u64,
}

/// Which tasks of a job to list.
#[derive(Debug, Clone, Default)]
pub struct TaskFilter {
    /// In one of these states; empty for any.
    pub states: Vec<TaskState>,
    /// At most this many.
    pub limit: u32,
    /// The end of the page before, or `None` for the first tasks.
    pub after: Option<TaskOrdinal>,
}

/// What is done, and the share of running tasks that falls into the span. The
/// span begins with the plan at the earliest.
const PACE: &str = "-- pace
    WITH clock AS (
        SELECT {now} AS c_now, coalesce(planned_at_ms, {now}) AS c_planned
        FROM job WHERE job_id = $1
    ), span AS (
        SELECT c_now, CASE WHEN c_planned > c_now - $2 THEN c_planned ELSE c_now - $2 END AS c_since
        FROM clock
    )
    SELECT c_now - c_since AS span_ms,
           CAST(coalesce(sum(CASE
               WHEN state = 'DONE' AND updated_at_ms > c_since THEN bytes
               WHEN state = 'LEASED' AND leased_at_ms >= c_since THEN progress_bytes
               WHEN state = 'LEASED' AND leased_at_ms < c_now
                   THEN progress_bytes * (c_now - c_since) / (c_now - leased_at_ms)
               ELSE 0 END), 0) AS bigint) AS bytes
    FROM span LEFT JOIN task ON job_id = $1
    GROUP BY c_now, c_since";

const SHARES: &str = "-- shares
    WITH own AS (
        SELECT coalesce(done_by, worker_id) AS o_worker, state, bytes
        FROM task WHERE job_id = $1 AND coalesce(done_by, worker_id) IS NOT NULL
    )
    SELECT o_worker, coalesce(hostname, '') AS hostname,
           CAST(sum(CASE WHEN state = 'DONE' THEN 1 ELSE 0 END) AS bigint) AS done,
           CAST(sum(CASE WHEN state = 'DONE' THEN bytes ELSE 0 END) AS bigint) AS bytes,
           CAST(sum(CASE WHEN state = 'LEASED' THEN 1 ELSE 0 END) AS bigint) AS leased
    FROM own LEFT JOIN worker ON worker.worker_id = o_worker
    GROUP BY o_worker, hostname ORDER BY bytes DESC, o_worker";

const PROGRESS_OF: &str = "-- progress_of
    WITH wanted (w_job) AS (VALUES {values})
    SELECT job_id, state, count(*) AS tasks,
           CAST(sum(bytes) AS bigint) AS bytes,
           CAST(sum(CASE WHEN progress_bytes < bytes THEN progress_bytes ELSE bytes END)
                AS bigint) AS progress,
           CAST(sum(failures + crashes) AS bigint) AS retries
    FROM wanted JOIN task ON job_id = w_job GROUP BY job_id, state";

const TASKS_PAGE: &str = "-- tasks_page
    SELECT task_no, file_no, first_part, part_count, bytes, state, not_before_ms, fence,
           attempt, failures, crashes, crashed_workers,
           coalesce(worker_id, done_by) AS worker_id, lease_expires_at_ms,
           done_fence, progress_bytes, error_kind, error_subject, error_message, error_hint,
           updated_at_ms
    FROM task
    WHERE job_id = $1 AND task_no > $2 AND state IN ($3, $4, $5, $6, $7)
    ORDER BY task_no LIMIT $8";

const WORKERS_THERE: &str = "-- workers_there
    SELECT count(*) AS workers FROM worker
    WHERE last_seen_ms > {now} - $1 AND stopped_at_ms IS NULL";

const DELETE_JOB: &str = "-- delete_job
    DELETE FROM job
    WHERE job_id = $1
      AND (state = 'SUCCEEDED' OR (state IN ('FAILED', 'CANCELLED') AND cleaned_at_ms IS NOT NULL))
      AND NOT EXISTS (SELECT 1 FROM upload WHERE upload.job_id = job.job_id
                      AND upload.state IN ('INTENT', 'OPEN'))";

impl Store {
    /// What the job did in the last `span_ms`.
    pub async fn pace(&self, job: &JobId, span_ms: i64) -> Result<Pace, StoreError> {
        let row = sqlx::query(self.sql(PACE))
            .bind(job.as_str())
            .bind(span_ms)
            .fetch_optional(self.database())
            .await?;
        row.map_or(Ok(Pace::default()), |row| {
            Ok(Pace {
                bytes: decode::number(&row, "bytes")?,
                span_ms: decode::number(&row, "span_ms")?,
            })
        })
    }

    /// Who has done how much of a job, the most first.
    pub async fn shares(&self, job: &JobId) -> Result<Vec<WorkerShare>, StoreError> {
        let rows = sqlx::query(self.sql(SHARES))
            .bind(job.as_str())
            .fetch_all(self.database())
            .await?;
        let share = |row| {
            Ok(WorkerShare {
                worker: WorkerId(decode::text(row, "o_worker")?),
                hostname: decode::text(row, "hostname")?,
                tasks_done: decode::number(row, "done")?,
                bytes_done: decode::number(row, "bytes")?,
                tasks_leased: decode::number(row, "leased")?,
            })
        };
        rows.iter().map(share).collect()
    }

    /// How far each of these jobs has come; none for a job without tasks.
    pub async fn progress_of(
        &self,
        jobs: &[JobId],
    ) -> Result<HashMap<JobId, Progress>, StoreError> {
        let mut found: HashMap<JobId, Progress> = HashMap::new();
        for batch in values::slices(jobs) {
            let list = values::rows(batch.len(), "", 1, 1);
            let mut query = sqlx::query(self.sql(&PROGRESS_OF.replace("{values}", &list)));
            for job in batch {
                query = query.bind(job.as_str());
            }
            for row in query.fetch_all(self.database()).await? {
                let job = JobId(decode::text(&row, "job_id")?);
                add_state(found.entry(job).or_default(), &row)?;
            }
        }
        Ok(found)
    }

    /// A page of a job's tasks, in order. `worker` of a task that is DONE is
    /// who finished it.
    pub async fn tasks_page(
        &self,
        job: &JobId,
        filter: &TaskFilter,
    ) -> Result<Vec<TaskRow>, StoreError> {
        let wanted = if filter.states.is_empty() {
            &TaskState::ALL[..]
        } else {
            &filter.states
        };
        let mut query = sqlx::query(self.sql(TASKS_PAGE))
            .bind(job.as_str())
            .bind(filter.after.map_or(-1, |task| i64::from(task.0)));
        for position in 0..TaskState::ALL.len() {
            query = query.bind(wanted[position.min(wanted.len() - 1)].name());
        }
        let rows = query
            .bind(i64::from(filter.limit))
            .fetch_all(self.database())
            .await?;
        rows.iter().map(TaskRow::read).collect()
    }

    /// How many workers were seen within this time and go on.
    pub async fn workers_there(&self, seen_within_ms: i64) -> Result<u64, StoreError> {
        let row = sqlx::query(self.sql(WORKERS_THERE))
            .bind(seen_within_ms)
            .fetch_one(self.database())
            .await?;
        decode::number(&row, "workers")
    }

    /// Removes the record of a job that has ended and left nothing behind. What
    /// it published stays.
    ///
    /// # Errors
    /// [`StoreError::JobActive`] if it has not, [`StoreError::JobNotFound`].
    pub async fn delete_job(&self, job: &JobId) -> Result<(), StoreError> {
        let done = sqlx::query(self.sql(DELETE_JOB))
            .bind(job.as_str())
            .execute(self.database())
            .await?;
        if done.rows_affected() > 0 {
            self.wake.jobs_changed();
            return Ok(());
        }
        match self.job(job).await? {
            Some(row) => Err(StoreError::JobActive {
                job: job.clone(),
                state: row.state,
            }),
            None => Err(StoreError::JobNotFound(job.clone())),
        }
    }
}
