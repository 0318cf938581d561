//! Planning: who plans a job, and the plan with its tasks.

use chatvec_core::ids::{Digest, FileOrdinal, JobId, PartOrdinal, TaskOrdinal};
use chatvec_core::job::JobState;
use chatvec_core::problem::Problem;

use super::cancel::{insert_problems, read_problem};
use super::decode::stored;
use super::job::{lock_job, set_job_state};
use super::tenant::take_places;
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

/// What planning brings about.
#[derive(Debug, Clone)]
pub struct NewPlan {
    /// Digest of the recipe and the pinned inputs.
    pub input_key: Digest,
    /// What publishing will need, encoded.
    pub plan: Vec<u8>,
    /// Its tasks, in order.
    pub tasks: Vec<NewTask>,
    /// What the user should know and nothing stops for.
    pub warnings: Vec<Problem>,
}

const JOBS_TO_PLAN: &str = "-- jobs_to_plan
    SELECT job_id FROM job WHERE state = 'PLANNING' AND epoch_expires_at_ms <= {now}
    ORDER BY created_at_ms, job_id";

const PLAN: &str = "-- plan
    SELECT plan FROM job_plan WHERE job_id = $1";

const INSERT_PLAN: &str = "-- insert_plan
    INSERT INTO job_plan (job_id, plan) VALUES ($1, $2)";

const SET_PLANNED: &str = "-- set_planned
    UPDATE job SET input_key = $2, bytes = $3, epoch_expires_at_ms = 0 WHERE job_id = $1";

const INSERT_WARNINGS: &str = "-- insert_warnings
    INSERT INTO job_warning (job_id, warning_no, subject, message, hint) VALUES ";

const WARNINGS: &str = "-- warnings
    SELECT subject, message, hint FROM job_warning WHERE job_id = $1 ORDER BY warning_no";

const INSERT_TASKS: &str = "-- insert_tasks
    INSERT INTO task (job_id, updated_at_ms,
                      sched_key, task_no, file_no, first_part, part_count, bytes)
    VALUES ";

const INSERT_TASK_SPECS: &str = "-- insert_task_specs
    INSERT INTO task_spec (job_id, task_no, spec)
    VALUES ";

impl Store {
    /// The jobs that wait for a planner, oldest first.
    pub async fn jobs_to_plan(&self) -> Result<Vec<JobId>, StoreError> {
        let rows = sqlx::query(self.sql(JOBS_TO_PLAN))
            .fetch_all(self.database())
            .await?;
        rows.iter()
            .map(|row| Ok(JobId(decode::text(row, "job_id")?)))
            .collect()
    }

    /// The encoded plan, once the job is planned.
    pub async fn plan(&self, job: &JobId) -> Result<Option<Vec<u8>>, StoreError> {
        let row = sqlx::query(self.sql(PLAN))
            .bind(job.as_str())
            .fetch_optional(self.database())
            .await?;
        row.as_ref()
            .map(|row| decode::bytes(row, "plan"))
            .transpose()
    }

    /// Stores the plan and its tasks: PLANNING becomes QUEUED, all or nothing,
    /// and the epoch's lease ends. Tasks are leased by the fair order of
    /// [`chatvec_core::task::sched_keys`].
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
        plan: &NewPlan,
    ) -> Result<JobRow, StoreError> {
        let mut tx = self.begin().await?;
        let row = lock_job(&mut tx, job).await?;
        row.check_epoch(epoch)?;
        let row = set_job_state(&mut tx, &row, JobState::Queued, None).await?;
        let bytes = plan.tasks.iter().map(|task| task.bytes).sum();
        sqlx::query(tx.sql(SET_PLANNED))
            .bind(job.as_str())
            .bind(plan.input_key.as_str())
            .bind(stored(bytes)?)
            .execute(tx.connection())
            .await?;
        sqlx::query(tx.sql(INSERT_PLAN))
            .bind(job.as_str())
            .bind(plan.plan.as_slice())
            .execute(tx.connection())
            .await?;
        insert_problems(&mut tx, INSERT_WARNINGS, job, &plan.warnings).await?;
        let places = take_places(&mut tx, &row, plan.tasks.iter().map(|task| task.bytes)).await?;
        let placed: Vec<_> = places.into_iter().zip(&plan.tasks).collect();
        for batch in values::slices(&placed) {
            insert_tasks(&mut tx, &row, batch).await?;
            insert_task_specs(&mut tx, job, batch).await?;
        }
        tx.commit().await?;
        self.wake.tasks_ready();
        self.wake.jobs_changed();
        Ok(JobRow {
            input_key: Some(plan.input_key.clone()),
            bytes,
            ..row
        })
    }

    /// What the user should know of a planned job and nothing stops for.
    pub async fn warnings(&self, job: &JobId) -> Result<Vec<Problem>, StoreError> {
        let rows = sqlx::query(self.sql(WARNINGS))
            .bind(job.as_str())
            .fetch_all(self.database())
            .await?;
        rows.iter().map(read_problem).collect()
    }
}

/// Inserts a batch of READY tasks of a job that was just queued.
async fn insert_tasks(
    tx: &mut Tx,
    job: &JobRow,
    batch: &[(i64, &NewTask)],
) -> Result<(), StoreError> {
    let rows = values::rows(batch.len(), "$1, $2, ", 3, 6);
    let mut query = sqlx::query(tx.sql(&format!("{INSERT_TASKS}{rows}")))
        .bind(job.job_id.as_str())
        .bind(job.updated_at_ms);
    for (place, task) in batch {
        query = query
            .bind(*place)
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
async fn insert_task_specs(
    tx: &mut Tx,
    job: &JobId,
    batch: &[(i64, &NewTask)],
) -> Result<(), StoreError> {
    let rows = values::rows(batch.len(), "$1, ", 2, 2);
    let mut query = sqlx::query(tx.sql(&format!("{INSERT_TASK_SPECS}{rows}"))).bind(job.as_str());
    for (_, task) in batch {
        query = query
            .bind(i64::from(task.task.0))
            .bind(task.spec.as_slice());
    }
    query.execute(tx.connection()).await?;
    Ok(())
}
