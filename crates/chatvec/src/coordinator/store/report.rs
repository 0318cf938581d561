//! What a report holds, and reports of failure.

use chatvec_core::ids::{Crc64, FileOrdinal, JobId, PartOrdinal, TaskOrdinal};
use chatvec_core::job::JobState;
use chatvec_core::problem::Problem;
use chatvec_core::task::{
    FailureKind, Lease, TaskCounters, TaskFailure, TaskState, Verdict, job_retries_max, judge,
};
use sqlx::any::AnyRow;

use super::cancel::fail_locked_job;
use super::decode::stored;
use super::error::exactly_one;
use super::job::lock_job;
use super::lease::{job_state, lost};
use super::task::read_counters;
use super::{JobError, Store, StoreError, Tx, decode};

/// A finished part, as its worker reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPart {
    /// The output file.
    pub file: FileOrdinal,
    /// Its position in the file.
    pub part: PartOrdinal,
    /// What storage calls it.
    pub part_id: String,
    /// The checksum of its bytes.
    pub crc64: Crc64,
    /// Its length in bytes.
    pub bytes: u64,
    /// Encoded statistics of its tensors.
    pub stats: Vec<u8>,
}

/// A finished part as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartRow {
    /// The task that wrote it.
    pub task: TaskOrdinal,
    /// What was reported.
    pub part: NewPart,
}

/// What became of a task whose failure was reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailOutcome {
    /// It is READY again.
    Retried {
        /// Not before this time of the database's clock.
        not_before_ms: i64,
    },
    /// It is DONE again, by the parts that it reported before.
    Kept,
    /// It is FAILED, and so is its job.
    GaveUp,
    /// It is CANCELLED: its job is not wanted any more.
    Cancelled,
}

const PARTS: &str = "-- parts
    SELECT task_no, file_no, part_no, part_id, crc64, bytes, stats FROM part
    WHERE job_id = $1 ORDER BY file_no, part_no";

const CHARGE_FAILURE: &str = "-- charge_failure
    UPDATE task SET failures = failures + $4, error_kind = $5, error_subject = $6,
                    error_message = $7, error_hint = $8, updated_at_ms = {now}
    WHERE job_id = $1 AND task_no = $2 AND fence = $3 AND state = 'LEASED'
    RETURNING failures, crashes, crashed_workers";

const SPENT_BY_JOB: &str = "-- spent_by_job
    SELECT count(*) AS tasks, CAST(sum(failures) AS bigint) AS failures
    FROM task WHERE job_id = $1";

const END_LEASE: &str = "-- end_lease
    UPDATE task SET state = $4, not_before_ms = {now} + $5, worker_id = NULL,
                    lease_expires_at_ms = NULL, progress_bytes = 0, updated_at_ms = {now}
    WHERE job_id = $1 AND task_no = $2 AND fence = $3 AND state = 'LEASED'
    RETURNING not_before_ms";

/// The parts that the commit has frozen are there.
const KEEP_DONE: &str = "-- keep_done
    UPDATE task SET state = 'DONE', done_fence = fence, done_by = worker_id, worker_id = NULL,
                    lease_expires_at_ms = NULL, progress_bytes = bytes, updated_at_ms = {now}
    WHERE job_id = $1 AND task_no = $2 AND fence = $3 AND state = 'LEASED'";

impl Store {
    /// Ends a lease with a failure and decides what follows by
    /// [`chatvec_core::task::judge`]. A task that is given up fails its job
    /// with the task's error, and so do charged failures beyond
    /// [`job_retries_max`]. `jitter` is a random number in `0.0..1.0`.
    ///
    /// A repair in COMMITTING whose upload is gone is DONE again as it was: a
    /// finalizer that was held up may have completed the upload meanwhile, and
    /// the next one finds out whether the object is there.
    ///
    /// Transaction `fail_task`.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`] changes nothing.
    pub async fn fail_task(
        &self,
        lease: &Lease,
        failure: &TaskFailure,
        jitter: f64,
    ) -> Result<FailOutcome, StoreError> {
        let mut tx = self.begin().await?;
        let counters = charge_failure(&mut tx, lease, failure).await?;
        let outcome = match job_state(&mut tx, &lease.job).await? {
            state if state.is_unwanted() => {
                end_lease(&mut tx, lease, TaskState::Cancelled, 0).await?;
                FailOutcome::Cancelled
            }
            JobState::Committing if failure.kind == FailureKind::UploadGone => {
                keep_done(&mut tx, lease).await?;
                FailOutcome::Kept
            }
            _ => match verdict(&mut tx, lease, failure, counters, jitter).await? {
                Ok(delay_ms) => FailOutcome::Retried {
                    not_before_ms: end_lease(&mut tx, lease, TaskState::Ready, delay_ms).await?,
                },
                Err(error) => {
                    end_lease(&mut tx, lease, TaskState::Failed, 0).await?;
                    let job = lock_job(&mut tx, &lease.job).await?;
                    fail_locked_job(&mut tx, &job, &error).await?;
                    FailOutcome::GaveUp
                }
            },
        };
        tx.commit().await?;
        match outcome {
            FailOutcome::Retried { .. } => self.wake.tasks_ready(),
            FailOutcome::Kept | FailOutcome::GaveUp | FailOutcome::Cancelled => {
                self.wake.jobs_changed();
            }
        }
        Ok(outcome)
    }

    /// Every recorded part of the job, by file and position.
    pub async fn parts(&self, job: &JobId) -> Result<Vec<PartRow>, StoreError> {
        let rows = sqlx::query(self.sql(PARTS))
            .bind(job.as_str())
            .fetch_all(self.database())
            .await?;
        rows.iter().map(PartRow::read).collect()
    }
}

impl PartRow {
    /// From the columns of `part`.
    pub(super) fn read(row: &AnyRow) -> Result<Self, StoreError> {
        let crc64: i64 = decode::number(row, "crc64")?;
        Ok(Self {
            task: TaskOrdinal(decode::number(row, "task_no")?),
            part: NewPart {
                file: FileOrdinal(decode::number(row, "file_no")?),
                part: PartOrdinal(decode::number(row, "part_no")?),
                part_id: decode::text(row, "part_id")?,
                crc64: Crc64(crc64.cast_unsigned()),
                bytes: decode::number(row, "bytes")?,
                stats: decode::bytes(row, "stats")?,
            },
        })
    }
}

/// Stores the failure on the task, counts it if its kind is charged, and locks
/// the task's row. Returns the counters with this failure.
async fn charge_failure(
    tx: &mut Tx,
    lease: &Lease,
    failure: &TaskFailure,
) -> Result<TaskCounters, StoreError> {
    let rows = sqlx::query(tx.sql(CHARGE_FAILURE))
        .bind(lease.job.as_str())
        .bind(i64::from(lease.task.0))
        .bind(stored(lease.fence.0)?)
        .bind(i64::from(failure.kind.is_charged()))
        .bind(failure.kind.name())
        .bind(failure.problem.subject.as_str())
        .bind(failure.problem.message.as_str())
        .bind(failure.problem.hint.clone())
        .fetch_all(tx.connection())
        .await?;
    exactly_one(rows.len() as u64, || lost(lease))?;
    read_counters(&rows[0])
}

/// The delay of the next try, or the error that the job fails with.
async fn verdict(
    tx: &mut Tx,
    lease: &Lease,
    failure: &TaskFailure,
    counters: TaskCounters,
    jitter: f64,
) -> Result<Result<u64, JobError>, StoreError> {
    let error = |message: String| JobError {
        kind: failure.kind,
        problem: Problem {
            message,
            ..failure.problem.clone()
        },
    };
    let delay_ms = match judge(Some(failure.kind), counters, jitter) {
        Verdict::GiveUp => return Ok(Err(error(failure.problem.message.clone()))),
        Verdict::RetryAfterMs(delay_ms) => delay_ms,
    };
    if failure.kind.is_charged() {
        let (tasks, spent) = spent_by_job(tx, &lease.job).await?;
        let allowed = job_retries_max(tasks);
        if spent > allowed {
            return Ok(Err(error(format!(
                "more than {allowed} failed attempts in {tasks} tasks, the last: {}",
                failure.problem.message
            ))));
        }
    }
    Ok(Ok(delay_ms))
}

/// The job's tasks and the charged failures of all of them.
async fn spent_by_job(tx: &mut Tx, job: &JobId) -> Result<(u64, u64), StoreError> {
    let row = sqlx::query(tx.sql(SPENT_BY_JOB))
        .bind(job.as_str())
        .fetch_one(tx.connection())
        .await?;
    Ok((
        decode::number(&row, "tasks")?,
        decode::number(&row, "failures")?,
    ))
}

/// Ends the lease of a repair that found nothing to repair.
async fn keep_done(tx: &mut Tx, lease: &Lease) -> Result<(), StoreError> {
    let done = sqlx::query(tx.sql(KEEP_DONE))
        .bind(lease.job.as_str())
        .bind(i64::from(lease.task.0))
        .bind(stored(lease.fence.0)?)
        .execute(tx.connection())
        .await?;
    exactly_one(done.rows_affected(), || lost(lease))
}

/// Ends the lease in a state that holds no lease; returns the time before
/// which the task is not leased again.
async fn end_lease(
    tx: &mut Tx,
    lease: &Lease,
    next: TaskState,
    delay_ms: u64,
) -> Result<i64, StoreError> {
    debug_assert!(TaskState::Leased.may_become(next) && next != TaskState::Done);
    let rows = sqlx::query(tx.sql(END_LEASE))
        .bind(lease.job.as_str())
        .bind(i64::from(lease.task.0))
        .bind(stored(lease.fence.0)?)
        .bind(next.name())
        .bind(stored(delay_ms)?)
        .fetch_all(tx.connection())
        .await?;
    exactly_one(rows.len() as u64, || lost(lease))?;
    decode::number(&rows[0], "not_before_ms")
}
