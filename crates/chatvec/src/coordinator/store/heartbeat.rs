//! The heartbeat: one call of a worker for all that it holds.

use std::collections::{BTreeSet, HashSet};

use chatvec_core::task::{Lease, MISSED_MAX, TakenAway, settled_ms};

use super::decode::stored;
use super::lease::{LeaseKey, job_state, read_key, take_away};
use super::worker::see_worker;
use super::{Phase, Store, StoreError, Tx, WorkerInfo, decode, values};

/// A worker's word that it still runs a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beat {
    /// The lease that it holds.
    pub lease: Lease,
    /// Bytes of output written so far.
    pub progress_bytes: u64,
}

/// What a heartbeat brings back for one lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BeatAnswer {
    /// The lease was extended.
    Extended,
    /// The lease is over: drop the work.
    Lost,
    /// The lease was extended, but the job is not wanted any more: stop, and
    /// release the task.
    Cancel,
}

/// A lease that has expired is extended too: as long as the fence holds, nobody
/// else has had the task since. Beats may overtake each other, so progress is
/// the most that was ever said.
const EXTEND: &str = "-- extend
    WITH beat (b_job, b_task, b_fence, b_progress) AS (VALUES {values})
    UPDATE task SET lease_expires_at_ms = {now} + $1, missed_beats = 0,
                    progressed_at_ms = CASE WHEN b_progress > progress_bytes
                                       THEN {now} ELSE progressed_at_ms END,
                    progress_bytes = CASE WHEN b_progress > progress_bytes
                                     THEN b_progress ELSE progress_bytes END,
                    updated_at_ms = {now}
    FROM beat
    WHERE job_id = b_job AND task_no = b_task AND fence = b_fence
      AND state = 'LEASED' AND worker_id = $2
    RETURNING job_id, task_no, fence";

/// Leases that are older than the beat can have been under way.
const SETTLED_LEASES: &str = "-- settled_leases
    SELECT job_id, task_no, fence, missed_beats FROM task
    WHERE worker_id = $1 AND state = 'LEASED' AND leased_at_ms <= {now} - $2
    ORDER BY job_id, task_no";

const MISS: &str = "-- miss
    UPDATE task SET missed_beats = missed_beats + 1
    WHERE job_id = $1 AND task_no = $2 AND fence = $3 AND state = 'LEASED'";

impl Store {
    /// Extends the worker's leases to `lease_ms` from now, stores their
    /// progress, and notes that the worker was seen. A lease that the worker
    /// does not hold by its fence is not extended. Answers come in the order
    /// of the beats.
    ///
    /// A lease of this worker that two heartbeats in a row left out is taken
    /// back, uncharged: the answer that gave it was lost on the way.
    ///
    /// Transaction `heartbeat`.
    pub async fn heartbeat(
        &self,
        worker: &WorkerInfo,
        phase: Phase,
        beats: &[Beat],
        lease_ms: i64,
    ) -> Result<Vec<BeatAnswer>, StoreError> {
        let mut sorted: Vec<&Beat> = beats.iter().collect();
        // One order for every caller, so that two never wait for each other;
        // and each lease once, so that a doubled beat updates no row twice.
        sorted.sort_by_key(|beat| key_of(&beat.lease));
        sorted.dedup_by_key(|beat| key_of(&beat.lease));
        let mut tx = self.begin().await?;
        see_worker(&mut tx, worker, phase).await?;
        let mut held = HashSet::new();
        for batch in values::slices(&sorted) {
            held.extend(extend(&mut tx, worker, batch, lease_ms).await?);
        }
        let forgotten = miss_unnamed(&mut tx, worker, &held, lease_ms).await?;
        let mut unwanted = HashSet::new();
        for job in held.iter().map(|(job, ..)| job).collect::<BTreeSet<_>>() {
            let state = job_state(&mut tx, job).await?;
            if state.is_unwanted() {
                unwanted.insert(job.clone());
            }
        }
        tx.commit().await?;
        if forgotten > 0 {
            self.wake.tasks_ready();
        }
        let answer = |beat: &Beat| {
            if !held.contains(&key_of(&beat.lease)) {
                BeatAnswer::Lost
            } else if unwanted.contains(&beat.lease.job) {
                BeatAnswer::Cancel
            } else {
                BeatAnswer::Extended
            }
        };
        Ok(beats.iter().map(answer).collect())
    }
}

fn key_of(lease: &Lease) -> LeaseKey {
    (lease.job.clone(), lease.task, lease.fence)
}

/// Extends the leases of a batch; returns those that were still held.
async fn extend(
    tx: &mut Tx,
    worker: &WorkerInfo,
    batch: &[&Beat],
    lease_ms: i64,
) -> Result<Vec<LeaseKey>, StoreError> {
    let list = values::rows(batch.len(), "", 3, 4);
    let mut query = sqlx::query(tx.sql(&EXTEND.replace("{values}", &list)))
        .bind(lease_ms)
        .bind(worker.worker_id.as_str());
    for beat in batch {
        query = query
            .bind(beat.lease.job.as_str())
            .bind(i64::from(beat.lease.task.0))
            .bind(stored(beat.lease.fence.0)?)
            .bind(stored(beat.progress_bytes)?);
    }
    let rows = query.fetch_all(tx.connection()).await?;
    rows.iter().map(read_key).collect()
}

/// Counts the heartbeat against the worker's leases that it did not name;
/// takes back those that were left out before, and returns how many.
async fn miss_unnamed(
    tx: &mut Tx,
    worker: &WorkerInfo,
    named: &HashSet<LeaseKey>,
    lease_ms: i64,
) -> Result<u32, StoreError> {
    let rows = sqlx::query(tx.sql(SETTLED_LEASES))
        .bind(worker.worker_id.as_str())
        .bind(settled_ms(lease_ms))
        .fetch_all(tx.connection())
        .await?;
    let mut forgotten = 0;
    for row in &rows {
        let lease = read_key(row)?;
        if named.contains(&lease) {
            continue;
        }
        let missed: u32 = decode::number(row, "missed_beats")?;
        if missed + 1 < MISSED_MAX {
            miss(tx, &lease).await?;
        } else if take_away(tx, &lease, TakenAway::Forgotten).await? {
            forgotten += 1;
        }
    }
    Ok(forgotten)
}

/// The heartbeat left this lease out.
async fn miss(tx: &mut Tx, lease: &LeaseKey) -> Result<(), StoreError> {
    let (job, task, fence) = lease;
    sqlx::query(tx.sql(MISS))
        .bind(job.as_str())
        .bind(i64::from(task.0))
        .bind(stored(fence.0)?)
        .execute(tx.connection())
        .await?;
    Ok(())
}
