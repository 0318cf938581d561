//! What a planted defect needs to know, and nobody else does.

use chatvec_core::ids::Fence;
use chatvec_core::task::Lease;

use super::{Store, StoreError, decode};
use crate::fault::{self, Mutant};

const FENCE_HELD_BY: &str = "-- fence_held_by
    SELECT fence FROM task
    WHERE job_id = $1 AND task_no = $2 AND state = 'LEASED' AND worker_id = $3";

impl Store {
    /// [`Mutant::GuardByWorkerOnly`]: gives the lease the fence under which the
    /// worker holds the task now, if it does.
    pub async fn forget_fence(&self, lease: &mut Lease, worker: &str) -> Result<(), StoreError> {
        if fault::is_planted(Mutant::GuardByWorkerOnly) {
            let row = sqlx::query(self.sql(FENCE_HELD_BY))
                .bind(lease.job.as_str())
                .bind(i64::from(lease.task.0))
                .bind(worker)
                .fetch_optional(&self.pool)
                .await?;
            if let Some(row) = row {
                lease.fence = Fence(decode::number(&row, "fence")?);
            }
        }
        Ok(())
    }
}
