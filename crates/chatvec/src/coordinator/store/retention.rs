//! Deleting the records of jobs that have ended. What they published stays.

use super::{Store, StoreError};

const DELETE_ENDED_JOBS: &str = "-- delete_ended_jobs
    WITH c AS MATERIALIZED (
        SELECT job_id AS c_job FROM job
        WHERE finished_at_ms IS NOT NULL AND finished_at_ms <= {now} - $1
          AND (state = 'SUCCEEDED'
               OR (state IN ('FAILED', 'CANCELLED') AND cleaned_at_ms IS NOT NULL))
          AND NOT EXISTS (SELECT 1 FROM upload WHERE upload.job_id = job.job_id
                          AND upload.state IN ('INTENT', 'OPEN'))
        ORDER BY finished_at_ms, job_id LIMIT $2{skip_locked}
    )
    DELETE FROM job WHERE job_id IN (SELECT c_job FROM c)";

impl Store {
    /// Deletes the records of at most `limit` jobs that ended longer ago than
    /// `older_than_ms`, the oldest first, as [`Store::delete_job`] does; returns
    /// how many. Jobs that may not be deleted yet are passed over.
    pub async fn delete_ended_jobs(
        &self,
        older_than_ms: i64,
        limit: u32,
    ) -> Result<u64, StoreError> {
        let done = sqlx::query(self.sql(DELETE_ENDED_JOBS))
            .bind(older_than_ms)
            .bind(i64::from(limit))
            .execute(self.database())
            .await?;
        if done.rows_affected() > 0 {
            self.wake.jobs_changed();
        }
        Ok(done.rows_affected())
    }
}
