//! The rows of tasks: reading them, and taking a finished one back.

use chatvec_core::ids::{Attempt, Fence, FileOrdinal, JobId, PartOrdinal, TaskOrdinal, WorkerId};
use chatvec_core::job::JobState;
use chatvec_core::task::{TaskCounters, TaskState};
use sqlx::any::AnyRow;

use super::epoch::end_epoch;
use super::job::lock_job;
use super::{Epoch, JobError, Store, StoreError, Tx, decode};

/// A task as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskRow {
    /// Its position in the job.
    pub task: TaskOrdinal,
    /// The output file.
    pub file: FileOrdinal,
    /// Its first part.
    pub first_part: PartOrdinal,
    /// How many parts.
    pub part_count: u32,
    /// Bytes of output that it writes.
    pub bytes: u64,
    /// Where it stands.
    pub state: TaskState,
    /// If READY, not leased before this time of the database's clock.
    pub not_before_ms: i64,
    /// The number that reports must name.
    pub fence: Fence,
    /// Leases given so far.
    pub attempt: Attempt,
    /// What went wrong so far.
    pub counters: TaskCounters,
    /// Who holds it, if it is LEASED.
    pub worker: Option<WorkerId>,
    /// When the lease ends, if it is LEASED.
    pub lease_expires_at_ms: Option<i64>,
    /// The fence under which it was done, if it is DONE.
    pub done_fence: Option<Fence>,
    /// Bytes written so far, as its holder said.
    pub progress_bytes: u64,
    /// The last failure or crash.
    pub error: Option<JobError>,
    /// When the row last changed.
    pub updated_at_ms: i64,
}

const TASKS: &str = "-- tasks
    SELECT task_no, file_no, first_part, part_count, bytes, state, not_before_ms, fence,
           attempt, failures, crashes, crashed_workers, worker_id, lease_expires_at_ms,
           done_fence, progress_bytes, error_kind, error_subject, error_message, error_hint,
           updated_at_ms
    FROM task WHERE job_id = $1 ORDER BY task_no";

const TASK_STATE: &str = "-- task_state
    SELECT state FROM task WHERE job_id = $1 AND task_no = $2";

const TOUCH_JOB: &str = "-- touch_job
    UPDATE job SET revision = revision + 1, updated_at_ms = {now} WHERE job_id = $1";

const REOPEN: &str = "-- reopen
    UPDATE task SET state = 'READY', fence = fence + 1, done_fence = NULL, done_by = NULL,
                    not_before_ms = 0, progress_bytes = 0, updated_at_ms = {now}
    WHERE job_id = $1 AND task_no = $2 AND state = 'DONE'
    RETURNING file_no, first_part, part_count";

const DELETE_PARTS: &str = "-- delete_parts
    DELETE FROM part
    WHERE job_id = $1 AND file_no = $2 AND part_no >= $3 AND part_no < $4";

impl Store {
    /// Every task of the job, in order.
    pub async fn tasks(&self, job: &JobId) -> Result<Vec<TaskRow>, StoreError> {
        let rows = sqlx::query(self.sql(TASKS))
            .bind(job.as_str())
            .fetch_all(self.database())
            .await?;
        rows.iter().map(TaskRow::read).collect()
    }

    /// Takes back a finished task whose parts proved stale: DONE becomes READY
    /// under a new fence, and its parts are forgotten. The job must be QUEUED
    /// or RUNNING; in COMMITTING see [`Store::repair_tasks`].
    ///
    /// Transaction `reopen_task`.
    ///
    /// # Errors
    /// [`StoreError::WrongState`] by the job's state,
    /// [`StoreError::WrongTaskState`] if the task is not DONE.
    pub async fn reopen_task(&self, job: &JobId, task: TaskOrdinal) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        let row = lock_job(&mut tx, job).await?;
        if !matches!(row.state, JobState::Queued | JobState::Running) {
            return Err(row.wrong_state());
        }
        let range = reopen(&mut tx, job, task).await?;
        sqlx::query(tx.sql(DELETE_PARTS))
            .bind(job.as_str())
            .bind(i64::from(range.file))
            .bind(i64::from(range.first))
            .bind(i64::from(range.end))
            .execute(tx.connection())
            .await?;
        self.finish_reopening(tx, job).await
    }

    /// Has parts put again that storage lost, for the finalizer of a job in
    /// COMMITTING: the tasks are READY under a new fence, and the finalizer's
    /// epoch ends, to be taken again when all are DONE. The part list stays
    /// frozen: a part that comes out with another checksum fails the job.
    ///
    /// Transaction `repair_tasks`.
    ///
    /// # Errors
    /// [`StoreError::EpochLost`] if another finalizer took over,
    /// [`StoreError::WrongState`] if the job is not COMMITTING,
    /// [`StoreError::WrongTaskState`] if one of the tasks is not DONE.
    pub async fn repair_tasks(
        &self,
        job: &JobId,
        epoch: Epoch,
        tasks: &[TaskOrdinal],
    ) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        lock_commit(&mut tx, job, epoch).await?;
        for task in tasks {
            // What remains of its parts are their frozen checksums.
            reopen(&mut tx, job, *task).await?;
        }
        end_epoch(&mut tx, job, epoch).await?;
        self.finish_reopening(tx, job).await
    }

    /// Ends a transaction after which there are tasks to do again.
    async fn finish_reopening(&self, mut tx: Tx, job: &JobId) -> Result<(), StoreError> {
        sqlx::query(tx.sql(TOUCH_JOB))
            .bind(job.as_str())
            .execute(tx.connection())
            .await?;
        tx.commit().await?;
        self.wake.tasks_ready();
        self.wake.jobs_changed();
        Ok(())
    }
}

/// Locks a job in COMMITTING for its finalizer.
async fn lock_commit(tx: &mut Tx, job: &JobId, epoch: Epoch) -> Result<(), StoreError> {
    let row = lock_job(tx, job).await?;
    row.check_epoch(epoch)?;
    if row.state != JobState::Committing {
        return Err(row.wrong_state());
    }
    Ok(())
}

/// Makes a DONE task READY under a new fence; returns the parts that it writes.
async fn reopen(tx: &mut Tx, job: &JobId, task: TaskOrdinal) -> Result<PartsOfTask, StoreError> {
    let reopened = sqlx::query(tx.sql(REOPEN))
        .bind(job.as_str())
        .bind(i64::from(task.0))
        .fetch_optional(tx.connection())
        .await?;
    match reopened {
        Some(row) => PartsOfTask::read(&row),
        None => Err(not_done(tx, job, task).await?),
    }
}

/// The error for a task that was expected to be DONE.
async fn not_done(tx: &mut Tx, job: &JobId, task: TaskOrdinal) -> Result<StoreError, StoreError> {
    let found = sqlx::query(tx.sql(TASK_STATE))
        .bind(job.as_str())
        .bind(i64::from(task.0))
        .fetch_optional(tx.connection())
        .await?;
    let (job, task) = (job.clone(), task);
    Ok(match found {
        None => StoreError::TaskNotFound { job, task },
        Some(row) => StoreError::WrongTaskState {
            job,
            task,
            state: decode::name(&row, "state")?,
            expected: TaskState::Done,
        },
    })
}

/// The parts that a task writes: `first..end` of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PartsOfTask {
    /// The output file.
    pub(super) file: u32,
    /// The first part.
    pub(super) first: u32,
    /// One past the last part.
    pub(super) end: u32,
}

impl PartsOfTask {
    /// From the columns `file_no`, `first_part` and `part_count`.
    pub(super) fn read(row: &AnyRow) -> Result<Self, StoreError> {
        let first: u32 = decode::number(row, "first_part")?;
        let count: u32 = decode::number(row, "part_count")?;
        Ok(Self {
            file: decode::number(row, "file_no")?,
            first,
            end: first.checked_add(count).ok_or(StoreError::Corrupt {
                column: "part_count",
                value: count.to_string(),
            })?,
        })
    }
}

impl TaskRow {
    pub(super) fn read(row: &AnyRow) -> Result<Self, StoreError> {
        Ok(Self {
            task: TaskOrdinal(decode::number(row, "task_no")?),
            file: FileOrdinal(decode::number(row, "file_no")?),
            first_part: PartOrdinal(decode::number(row, "first_part")?),
            part_count: decode::number(row, "part_count")?,
            bytes: decode::number(row, "bytes")?,
            state: decode::name(row, "state")?,
            not_before_ms: decode::number(row, "not_before_ms")?,
            fence: Fence(decode::number(row, "fence")?),
            attempt: Attempt(decode::number(row, "attempt")?),
            counters: read_counters(row)?,
            worker: decode::text_or_null(row, "worker_id")?.map(WorkerId),
            lease_expires_at_ms: decode::number_or_null(row, "lease_expires_at_ms")?,
            done_fence: decode::number_or_null(row, "done_fence")?.map(Fence),
            progress_bytes: decode::number(row, "progress_bytes")?,
            error: JobError::read(row)?,
            updated_at_ms: decode::number(row, "updated_at_ms")?,
        })
    }
}

/// The columns `failures`, `crashes` and `crashed_workers`.
pub(super) fn read_counters(row: &AnyRow) -> Result<TaskCounters, StoreError> {
    Ok(TaskCounters {
        failures: decode::number(row, "failures")?,
        crashes: decode::number(row, "crashes")?,
        crashed_workers: decode::number(row, "crashed_workers")?,
    })
}
