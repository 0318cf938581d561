//! Ending a job early: by its own failure, or because the user asks.

use chatvec_core::ids::JobId;
use chatvec_core::job::JobState;
use chatvec_core::problem::Problem;
use sqlx::any::AnyRow;

use super::epoch::end_epoch;
use super::error::exactly_one;
use super::job::{lock_job, set_job_state};
use super::submit::release_output;
use super::{Epoch, JobError, JobRow, Store, StoreError, Tx, decode, values};

/// The rows are locked when they are updated, so their state is not asked for
/// again: a database that knows nothing yet of a new job's tasks would go through
/// the index of all READY ones for each of them.
const CANCEL_WAITING: &str = "-- cancel_waiting
    WITH c AS MATERIALIZED (
        SELECT job_id AS c_job, task_no AS c_task FROM task
        WHERE job_id = $1 AND state = 'READY' AND state <> 'DONE'{skip_locked}
    )
    UPDATE task SET state = 'CANCELLED', fence = fence + 1, updated_at_ms = {now}
    FROM c WHERE job_id = c_job AND task_no = c_task";

/// As in `cancel_waiting`.
const CANCEL_OPEN: &str = "-- cancel_open
    WITH c AS MATERIALIZED (
        SELECT job_id AS c_job, task_no AS c_task FROM task
        WHERE job_id = $1 AND state IN ('READY', 'LEASED') AND state <> 'DONE'{skip_locked}
    )
    UPDATE task SET state = 'CANCELLED', fence = fence + 1, worker_id = NULL,
                    lease_expires_at_ms = NULL, updated_at_ms = {now}
    FROM c WHERE job_id = c_job AND task_no = c_task";

const OPEN_TASKS: &str = "-- open_tasks
    SELECT count(*) AS tasks FROM task
    WHERE job_id = $1 AND state IN ('READY', 'LEASED') AND state <> 'DONE'";

const JOBS_TO_CLEAN: &str = "-- jobs_to_clean
    SELECT job_id FROM job
    WHERE state IN ('FAILED', 'CANCELLED') AND cleaned_at_ms IS NULL
      AND NOT EXISTS (SELECT 1 FROM task WHERE task.job_id = job.job_id
                      AND task.state IN ('READY', 'LEASED') AND task.state <> 'DONE')
    ORDER BY finished_at_ms, job_id";

const INSERT_PROBLEMS: &str = "-- insert_problems
    INSERT INTO job_problem (job_id, problem_no, subject, message, hint) VALUES ";

const MORE_PROBLEMS: &str = "-- more_problems
    SELECT subject, message, hint FROM job_problem WHERE job_id = $1 ORDER BY problem_no";

const MARK_CLEANED: &str = "-- mark_cleaned
    UPDATE job SET cleaned_at_ms = coalesce(cleaned_at_ms, {now}), updated_at_ms = {now}
    WHERE job_id = $1 AND state IN ('FAILED', 'CANCELLED')";

impl Store {
    /// Fails a job in PLANNING, QUEUED or RUNNING on behalf of its planner or
    /// of the finalizer that stages it. Its waiting tasks and its leases are
    /// cancelled. (In COMMITTING see [`Store::fail_commit`].) `more` are the
    /// problems beside the one of `error`.
    ///
    /// Transaction `fail_job`.
    ///
    /// # Errors
    /// [`StoreError::EpochLost`] if another coordinator took over,
    /// [`StoreError::WrongState`] in any other state.
    pub async fn fail_job(
        &self,
        job: &JobId,
        epoch: Epoch,
        error: &JobError,
        more: &[Problem],
    ) -> Result<JobRow, StoreError> {
        let mut tx = self.begin().await?;
        let row = lock_job(&mut tx, job).await?;
        row.check_epoch(epoch)?;
        if row.state == JobState::Committing {
            return Err(row.wrong_state());
        }
        let failed = set_job_state(&mut tx, &row, JobState::Failed, Some(error)).await?;
        end_epoch(&mut tx, job, epoch).await?;
        insert_problems(&mut tx, INSERT_PROBLEMS, job, more).await?;
        cancel_open(&mut tx, job).await?;
        tx.commit().await?;
        self.wake.jobs_changed();
        Ok(failed)
    }

    /// The problems of a failed job beside the one on its row.
    pub async fn more_problems(&self, job: &JobId) -> Result<Vec<Problem>, StoreError> {
        let rows = sqlx::query(self.sql(MORE_PROBLEMS))
            .bind(job.as_str())
            .fetch_all(self.database())
            .await?;
        rows.iter().map(read_problem).collect()
    }

    /// Asks a job to stop. Waiting tasks are cancelled at once; the job is
    /// CANCELLING while some task is leased, then CANCELLED. Repeating it
    /// changes nothing.
    ///
    /// Transaction `cancel_job`.
    ///
    /// # Errors
    /// [`StoreError::WrongState`] in COMMITTING, SUCCEEDED and FAILED.
    pub async fn cancel_job(&self, job: &JobId) -> Result<JobRow, StoreError> {
        let mut tx = self.begin().await?;
        let row = lock_job(&mut tx, job).await?;
        if matches!(row.state, JobState::Cancelling | JobState::Cancelled) {
            return Ok(row);
        }
        let cancelling = set_job_state(&mut tx, &row, JobState::Cancelling, None).await?;
        cancel_waiting(&mut tx, job).await?;
        let settled = settle_locked_job(&mut tx, cancelling).await?;
        tx.commit().await?;
        self.wake.jobs_changed();
        Ok(settled)
    }

    /// The jobs that ended without output and whose leftovers in storage are
    /// still to be removed. No task of theirs is leased any more.
    pub async fn jobs_to_clean(&self) -> Result<Vec<JobId>, StoreError> {
        let rows = sqlx::query(self.sql(JOBS_TO_CLEAN))
            .fetch_all(self.database())
            .await?;
        rows.iter()
            .map(|row| Ok(JobId(decode::text(row, "job_id")?)))
            .collect()
    }

    /// Notes that the leftovers of a failed or cancelled job are removed: its
    /// output is free for other jobs. Repeating it keeps the first time.
    ///
    /// Transaction `mark_cleaned`.
    ///
    /// # Errors
    /// [`StoreError::WrongState`] in any other state.
    pub async fn mark_cleaned(&self, job: &JobId) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        let row = lock_job(&mut tx, job).await?;
        let done = sqlx::query(tx.sql(MARK_CLEANED))
            .bind(job.as_str())
            .execute(tx.connection())
            .await?;
        exactly_one(done.rows_affected(), || row.wrong_state())?;
        release_output(&mut tx, job).await?;
        tx.commit().await
    }
}

/// Inserts problems or warnings, in order. `statement` ends in front of its VALUES.
pub(super) async fn insert_problems(
    tx: &mut Tx,
    statement: &str,
    job: &JobId,
    problems: &[Problem],
) -> Result<(), StoreError> {
    let numbered: Vec<_> = (0..).zip(problems).collect();
    for batch in values::slices(&numbered) {
        let rows = values::rows(batch.len(), "$1, ", 2, 4);
        let mut query = sqlx::query(tx.sql(&format!("{statement}{rows}"))).bind(job.as_str());
        for (position, problem) in batch {
            query = query
                .bind(*position)
                .bind(problem.subject.as_str())
                .bind(problem.message.as_str())
                .bind(problem.hint.clone());
        }
        query.execute(tx.connection()).await?;
    }
    Ok(())
}

/// From the columns `subject`, `message` and `hint`.
pub(super) fn read_problem(row: &AnyRow) -> Result<Problem, StoreError> {
    Ok(Problem {
        subject: decode::text(row, "subject")?,
        message: decode::text(row, "message")?,
        hint: decode::text_or_null(row, "hint")?,
    })
}

/// Fails a locked job because of one of its tasks, unless it is on another way
/// out already: then a second failure says nothing new. In COMMITTING a task
/// that cannot be repaired is damage that nothing mends.
pub(super) async fn fail_locked_job(
    tx: &mut Tx,
    job: &JobRow,
    error: &JobError,
) -> Result<(), StoreError> {
    if !job.state.gives_leases() {
        return Ok(());
    }
    set_job_state(tx, job, JobState::Failed, Some(error)).await?;
    cancel_open(tx, &job.job_id).await
}

/// CANCELLING becomes CANCELLED if no task of the locked job is waiting or
/// leased. Else the reaper comes back to it.
pub(super) async fn settle_locked_job(tx: &mut Tx, job: JobRow) -> Result<JobRow, StoreError> {
    if job.state != JobState::Cancelling {
        return Ok(job);
    }
    let row = sqlx::query(tx.sql(OPEN_TASKS))
        .bind(job.job_id.as_str())
        .fetch_one(tx.connection())
        .await?;
    let open: u64 = decode::number(&row, "tasks")?;
    if open > 0 {
        return Ok(job);
    }
    set_job_state(tx, &job, JobState::Cancelled, None).await
}

/// READY becomes CANCELLED. A task that is being claimed right now is passed
/// over; the reaper's sweep or the worker's heartbeat gets it.
async fn cancel_waiting(tx: &mut Tx, job: &JobId) -> Result<(), StoreError> {
    sqlx::query(tx.sql(CANCEL_WAITING))
        .bind(job.as_str())
        .execute(tx.connection())
        .await?;
    Ok(())
}

/// READY and LEASED become CANCELLED: whoever holds a lease has lost it.
pub(super) async fn cancel_open(tx: &mut Tx, job: &JobId) -> Result<(), StoreError> {
    sqlx::query(tx.sql(CANCEL_OPEN))
        .bind(job.as_str())
        .execute(tx.connection())
        .await?;
    Ok(())
}
