//! Planning: who plans a job, and the plan with its tasks.

use chatvec_core::ids::{Digest, FileOrdinal, JobId, PartOrdinal, TaskOrdinal};
use chatvec_core::job::JobState;

use super::decode::stored;
use super::job::{lock_job, raise_epoch, set_job_state};
use super::{Epoch, JobRow, Store, StoreError, Tx, decode, values};

/// A task of a new plan.
#[derive(Debug, Clone)]
pub struct NewTask {
    /// Its position in the job.
    pub task: TaskOrdinal,
    /// The output file.
    pub file: FileOrdinal,
    /// Its first part.
    pub first_part: PartOrdinal,
    /// How many parts, at least 1.
    pub part_count: u32,
    /// Bytes of output that it writes.
    pub bytes: u64,
    /// What a worker needs to run it, encoded.
    pub spec: Vec<u8>,
}

const JOBS_TO_PLAN: &str = "-- jobs_to_plan
    SELECT job_id FROM job WHERE state = 'PLANNING' ORDER BY created_at_ms, job_id";

const PLAN: &str = "-- plan
    SELECT plan FROM job_plan WHERE job_id = $1";

const INSERT_PLAN: &str = "-- insert_plan
    INSERT INTO job_plan (job_id, plan) VALUES ($1, $2)";

const SET_INPUT_KEY: &str = "-- set_input_key
    UPDATE job SET input_key = $2 WHERE job_id = $1";

const INSERT_TASKS: &str = "-- insert_tasks
    INSERT INTO task (job_id, sched_key, updated_at_ms,
                      task_no, file_no, first_part, part_count, bytes)
    VALUES ";

const INSERT_TASK_SPECS: &str = "-- insert_task_specs
    INSERT INTO task_spec (job_id, task_no, spec)
    VALUES ";

impl Store {
    /// The jobs that wait for a planner, oldest first.
    pub async fn jobs_to_plan(&self) -> Result<Vec<JobId>, StoreError> {
        let rows = sqlx::query(self.sql(JOBS_TO_PLAN))
            .fetch_all(&self.pool)
            .await?;
        rows.iter()
            .map(|row| Ok(JobId(decode::text(row, "job_id")?)))
            .collect()
    }

    /// The encoded plan, once the job is planned.
    pub async fn plan(&self, job: &JobId) -> Result<Option<Vec<u8>>, StoreError> {
        let row = sqlx::query(self.sql(PLAN))
            .bind(job.as_str())
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref()
            .map(|row| decode::bytes(row, "plan"))
            .transpose()
    }

    /// Makes the caller the planner of a job in PLANNING; an earlier planner's
    /// plan will be refused.
    ///
    /// Transaction `start_planning`.
    ///
    /// # Errors
    /// [`StoreError::WrongState`] in any other state.
    pub async fn start_planning(&self, job: &JobId) -> Result<Epoch, StoreError> {
        let mut tx = self.begin().await?;
        let row = lock_job(&mut tx, job).await?;
        if row.state != JobState::Planning {
            return Err(row.wrong_state());
        }
        let epoch = raise_epoch(&mut tx, job).await?;
        tx.commit().await?;
        Ok(epoch)
    }

    /// Stores the plan and its tasks: PLANNING becomes QUEUED, all or nothing.
    /// Older jobs' tasks are leased first.
    ///
    /// Transaction `finish_planning`.
    ///
    /// # Errors
    /// [`StoreError::EpochLost`] if another planner has begun,
    /// [`StoreError::WrongState`] if the job was cancelled meanwhile.
    pub async fn finish_planning(
        &self,
        job: &JobId,
        epoch: Epoch,
        input_key: &Digest,
        plan: Vec<u8>,
        tasks: &[NewTask],
    ) -> Result<JobRow, StoreError> {
        let mut tx = self.begin().await?;
        let row = lock_job(&mut tx, job).await?;
        row.check_epoch(epoch)?;
        let row = set_job_state(&mut tx, &row, JobState::Queued, None).await?;
        sqlx::query(tx.sql(SET_INPUT_KEY))
            .bind(job.as_str())
            .bind(input_key.as_str())
            .execute(tx.connection())
            .await?;
        sqlx::query(tx.sql(INSERT_PLAN))
            .bind(job.as_str())
            .bind(plan)
            .execute(tx.connection())
            .await?;
        for batch in values::slices(tasks) {
            insert_tasks(&mut tx, &row, batch).await?;
            insert_task_specs(&mut tx, job, batch).await?;
        }
        tx.commit().await?;
        self.wake.tasks_ready();
        self.wake.jobs_changed();
        Ok(JobRow {
            input_key: Some(input_key.clone()),
            ..row
        })
    }
}

/// Inserts a batch of READY tasks of a job that was just queued.
async fn insert_tasks(tx: &mut Tx, job: &JobRow, batch: &[NewTask]) -> Result<(), StoreError> {
    let rows = values::rows(batch.len(), "$1, $2, $3, ", 4, 5);
    let mut query = sqlx::query(tx.sql(&format!("{INSERT_TASKS}{rows}")))
        .bind(job.job_id.as_str())
        .bind(job.created_at_ms)
        .bind(job.updated_at_ms);
    for task in batch {
        query = query
            .bind(i64::from(task.task.0))
            .bind(i64::from(task.file.0))
            .bind(i64::from(task.first_part.0))
            .bind(i64::from(task.part_count))
            .bind(stored(task.bytes)?);
    }
    query.execute(tx.connection()).await?;
    Ok(())
}

/// Inserts the descriptions of a batch of tasks.
async fn insert_task_specs(tx: &mut Tx, job: &JobId, batch: &[NewTask]) -> Result<(), StoreError> {
    let rows = values::rows(batch.len(), "$1, ", 2, 2);
    let mut query = sqlx::query(tx.sql(&format!("{INSERT_TASK_SPECS}{rows}"))).bind(job.as_str());
    for task in batch {
        query = query
            .bind(i64::from(task.task.0))
            .bind(task.spec.as_slice());
    }
    query.execute(tx.connection()).await?;
    Ok(())
}
