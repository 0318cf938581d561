//! From the last finished task to the end of the commit.

use chatvec_core::ids::JobId;
use chatvec_core::job::JobState;

use super::cancel::cancel_open;
use super::epoch::end_epoch;
use super::job::{lock_job, set_job_state};
use super::submit::release_output;
use super::{Epoch, JobError, JobRow, Store, StoreError, Tx, decode};

/// The right to publish a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Commit {
    /// What the finalizer's writes must name.
    pub epoch: Epoch,
    /// When the part list was frozen, by the database's clock: the same for
    /// every finalizer of the job, so that all write the same bytes.
    pub committing_at_ms: i64,
}

/// The first lease makes a job RUNNING: of a long queue, a job that has tasks is
/// not looked at.
const JOBS_TO_COMMIT: &str = "-- jobs_to_commit
    SELECT job_id FROM job
    WHERE state IN ('QUEUED', 'RUNNING', 'COMMITTING') AND epoch_expires_at_ms <= {now}
      AND (state <> 'QUEUED' OR bytes = 0)
      AND NOT EXISTS (SELECT 1 FROM task
                      WHERE task.job_id = job.job_id AND task.state <> 'DONE')
    ORDER BY created_at_ms, job_id";

const UNDONE_TASKS: &str = "-- undone_tasks
    SELECT count(*) AS tasks FROM task WHERE job_id = $1 AND state <> 'DONE'";

impl Store {
    /// The jobs to be published whose finalizer is gone or has not come yet:
    /// every task is done, the repairs of a commit that was begun among them.
    pub async fn jobs_to_commit(&self) -> Result<Vec<JobId>, StoreError> {
        let rows = sqlx::query(self.sql(JOBS_TO_COMMIT))
            .fetch_all(self.database())
            .await?;
        rows.iter()
            .map(|row| Ok(JobId(decode::text(row, "job_id")?)))
            .collect()
    }

    /// With every task DONE the job becomes COMMITTING, the point of no return,
    /// and its part list is frozen; a job in COMMITTING goes on. `None` if some
    /// task is not DONE.
    ///
    /// Transaction `start_commit`.
    ///
    /// # Errors
    /// [`StoreError::EpochLost`] if another finalizer took over,
    /// [`StoreError::WrongState`] in CANCELLING and at the end.
    pub async fn start_commit(
        &self,
        job: &JobId,
        epoch: Epoch,
    ) -> Result<Option<Commit>, StoreError> {
        let mut tx = self.begin().await?;
        let row = lock_job(&mut tx, job).await?;
        row.check_epoch(epoch)?;
        if !row.state.gives_leases() {
            return Err(row.wrong_state());
        }
        if undone_tasks(&mut tx, job).await? > 0 {
            return Ok(None);
        }
        let row = match row.state {
            JobState::Committing => row,
            _ => freeze(&mut tx, row).await?,
        };
        let committing_at_ms = row.committing_at_ms.ok_or(StoreError::Corrupt {
            column: "committing_at_ms",
            value: "null".to_owned(),
        })?;
        tx.commit().await?;
        self.wake.jobs_changed();
        Ok(Some(Commit {
            epoch,
            committing_at_ms,
        }))
    }

    /// COMMITTING becomes SUCCEEDED: the final manifest is written. The output
    /// is free for other jobs.
    ///
    /// Transaction `finish_commit`.
    ///
    /// # Errors
    /// [`StoreError::EpochLost`] if another finalizer took over,
    /// [`StoreError::WrongState`] if the job is not COMMITTING,
    /// [`StoreError::TasksOpen`] while parts of it are made again.
    pub async fn finish_commit(&self, job: &JobId, epoch: Epoch) -> Result<JobRow, StoreError> {
        self.end_commit(job, epoch, JobState::Succeeded, None).await
    }

    /// COMMITTING becomes FAILED, on proven and permanent damage only.
    ///
    /// Transaction `fail_commit`.
    ///
    /// # Errors
    /// [`StoreError::EpochLost`] and [`StoreError::WrongState`] as of
    /// [`Store::finish_commit`].
    pub async fn fail_commit(
        &self,
        job: &JobId,
        epoch: Epoch,
        error: &JobError,
    ) -> Result<JobRow, StoreError> {
        self.end_commit(job, epoch, JobState::Failed, Some(error))
            .await
    }

    async fn end_commit(
        &self,
        job: &JobId,
        epoch: Epoch,
        end: JobState,
        error: Option<&JobError>,
    ) -> Result<JobRow, StoreError> {
        let mut tx = self.begin().await?;
        let row = lock_job(&mut tx, job).await?;
        row.check_epoch(epoch)?;
        if row.state != JobState::Committing {
            return Err(row.wrong_state());
        }
        if end == JobState::Succeeded
            && let tasks @ 1.. = undone_tasks(&mut tx, job).await?
        {
            let job = job.clone();
            return Err(StoreError::TasksOpen { job, tasks });
        }
        let ended = set_job_state(&mut tx, &row, end, error).await?;
        end_epoch(&mut tx, job, epoch).await?;
        match end {
            JobState::Succeeded => release_output(&mut tx, job).await?,
            _ => cancel_open(&mut tx, job).await?,
        }
        tx.commit().await?;
        self.wake.jobs_changed();
        Ok(ended)
    }
}

/// RUNNING becomes COMMITTING. A job without a task was never leased from, so
/// it is still QUEUED and passes through RUNNING.
async fn freeze(tx: &mut Tx, row: JobRow) -> Result<JobRow, StoreError> {
    let running = match row.state {
        JobState::Queued => set_job_state(tx, &row, JobState::Running, None).await?,
        _ => row,
    };
    set_job_state(tx, &running, JobState::Committing, None).await
}

async fn undone_tasks(tx: &mut Tx, job: &JobId) -> Result<u64, StoreError> {
    let row = sqlx::query(tx.sql(UNDONE_TASKS))
        .bind(job.as_str())
        .fetch_one(tx.connection())
        .await?;
    decode::number(&row, "tasks")
}
