//! Which coordinator plans or publishes a job: one at a time, for as long as
//! it renews its lease, and the next one under a higher epoch. What an earlier
//! one writes afterwards is refused.

use chatvec_core::ids::{Epoch, JobId};
use chatvec_core::job::JobState;

use super::decode::stored;
use super::error::exactly_one;
use super::{Store, StoreError, Tx, decode};

const START_EPOCH: &str = "-- start_epoch
    UPDATE job SET epoch = epoch + 1, epoch_expires_at_ms = {now} + $2, updated_at_ms = {now}
    WHERE job_id = $1 AND state IN ($3, $4, $5) AND epoch_expires_at_ms <= {now}
    RETURNING epoch";

const RENEW_EPOCH: &str = "-- renew_epoch
    UPDATE job SET epoch_expires_at_ms = {now} + $3 WHERE job_id = $1 AND epoch = $2";

const RELEASE_EPOCH: &str = "-- release_epoch
    UPDATE job SET epoch_expires_at_ms = 0 WHERE job_id = $1 AND epoch = $2";

const RELEASE_ALL_EPOCHS: &str = "-- release_all_epochs
    UPDATE job SET epoch_expires_at_ms = 0 WHERE epoch_expires_at_ms > 0";

impl Store {
    /// Makes the caller the planner of a job in PLANNING until `lease_ms` from
    /// now; an earlier planner's plan will be refused. `None` if another
    /// planner's lease has not expired.
    ///
    /// # Errors
    /// [`StoreError::WrongState`] in any other state.
    pub async fn start_planning(
        &self,
        job: &JobId,
        lease_ms: i64,
    ) -> Result<Option<Epoch>, StoreError> {
        self.start_epoch(job, lease_ms, [JobState::Planning; 3])
            .await
    }

    /// Makes the caller the finalizer of a job until `lease_ms` from now: it
    /// may stage, and commit by [`Store::start_commit`]. `None` if another
    /// finalizer's lease has not expired.
    ///
    /// # Errors
    /// [`StoreError::WrongState`] unless the job is QUEUED, RUNNING or COMMITTING.
    pub async fn start_finalizing(
        &self,
        job: &JobId,
        lease_ms: i64,
    ) -> Result<Option<Epoch>, StoreError> {
        use JobState::{Committing, Queued, Running};
        self.start_epoch(job, lease_ms, [Queued, Running, Committing])
            .await
    }

    async fn start_epoch(
        &self,
        job: &JobId,
        lease_ms: i64,
        states: [JobState; 3],
    ) -> Result<Option<Epoch>, StoreError> {
        let mut query = sqlx::query(self.sql(START_EPOCH))
            .bind(job.as_str())
            .bind(lease_ms);
        for state in states {
            query = query.bind(state.name());
        }
        let rows = query.fetch_all(self.database()).await?;
        if let [row] = &rows[..] {
            return Ok(Some(Epoch(decode::number(row, "epoch")?)));
        }
        match self.job(job).await? {
            Some(row) if states.contains(&row.state) => Ok(None),
            Some(row) => Err(row.wrong_state()),
            None => Err(StoreError::JobNotFound(job.clone())),
        }
    }

    /// Keeps the job for the planner or finalizer of this epoch, until
    /// `lease_ms` from now. A lease that has expired is renewed too, as long as
    /// nobody took over.
    ///
    /// # Errors
    /// [`StoreError::EpochLost`] if somebody did.
    pub async fn renew_epoch(
        &self,
        job: &JobId,
        epoch: Epoch,
        lease_ms: i64,
    ) -> Result<(), StoreError> {
        let done = sqlx::query(self.sql(RENEW_EPOCH))
            .bind(job.as_str())
            .bind(stored(epoch.0)?)
            .bind(lease_ms)
            .execute(self.database())
            .await?;
        let found = match done.rows_affected() {
            0 => self.job(job).await?,
            _ => None,
        };
        exactly_one(done.rows_affected(), || match found {
            Some(row) => row.epoch_lost(epoch),
            None => StoreError::JobNotFound(job.clone()),
        })
    }

    /// Lets another coordinator begin at once. Whoever has done so already
    /// keeps the job.
    pub async fn release_epoch(&self, job: &JobId, epoch: Epoch) -> Result<(), StoreError> {
        sqlx::query(self.sql(RELEASE_EPOCH))
            .bind(job.as_str())
            .bind(stored(epoch.0)?)
            .execute(self.database())
            .await?;
        self.wake.jobs_changed();
        Ok(())
    }

    /// Ends the lease of every planner and finalizer. The caller has proved
    /// that every process that could hold one is dead.
    pub(super) async fn release_all_epochs(&self) -> Result<(), StoreError> {
        sqlx::query(self.sql(RELEASE_ALL_EPOCHS))
            .execute(self.database())
            .await?;
        Ok(())
    }
}

/// Ends the turn of this epoch together with what it has written.
pub(super) async fn end_epoch(tx: &mut Tx, job: &JobId, epoch: Epoch) -> Result<(), StoreError> {
    sqlx::query(tx.sql(RELEASE_EPOCH))
        .bind(job.as_str())
        .bind(stored(epoch.0)?)
        .execute(tx.connection())
        .await?;
    Ok(())
}
