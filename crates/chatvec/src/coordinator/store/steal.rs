//! Stealing: a task is taken from a live worker that is far slower than the
//! others, or that does not get on at all. The worker hears of it with its next
//! heartbeat, and the fence refuses its report.

use std::collections::BTreeMap;

use chatvec_core::ids::{JobId, TaskOrdinal, WorkerId};
use chatvec_core::task::{
    HeldTask, Others, Pace, STEALS_MAX, Steal, StealLimits, TakenAway, steal,
};
use sqlx::any::AnyRow;

use super::decode::stored;
use super::lease::{LeaseKey, WORKER_SEEN_MS, read_key, take_away};
use super::{Store, StoreError, decode};

/// A task that was stolen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stolen {
    /// Its job.
    pub job: JobId,
    /// The task.
    pub task: TaskOrdinal,
    /// Who held it.
    pub worker: WorkerId,
    /// Why.
    pub reason: Steal,
}

/// Most tasks that one pass steals: if the database's clock jumps, every task
/// seems to stand still.
const STEALS_PER_PASS: usize = 16;

/// Tasks that may be stolen if they are slow or stuck: with a live heartbeat,
/// and held for a while. `others` is whether a worker is alive that does not
/// hold the task.
const HELD_TASKS: &str = "-- held_tasks
    SELECT job_id, task_no, fence, worker_id, bytes, progress_bytes, steals,
           {now} - leased_at_ms AS held_ms,
           CASE WHEN progressed_at_ms < {now} THEN {now} - progressed_at_ms ELSE 0 END
               AS still_ms,
           CASE WHEN EXISTS (SELECT 1 FROM worker
                             WHERE worker.worker_id <> task.worker_id
                               AND worker.last_seen_ms > {now} - $3
                               AND worker.stopped_at_ms IS NULL)
           THEN 1 ELSE 0 END AS others
    FROM task
    WHERE state = 'LEASED' AND lease_expires_at_ms > {now} AND steals < $1
      AND leased_at_ms < {now} - $2
    ORDER BY job_id, task_no";

const PACE_OF_TASKS: &str = "-- pace_of_tasks
    SELECT count(*) AS tasks,
           CAST(coalesce(sum(CASE WHEN state = 'DONE' THEN 1 ELSE 0 END), 0) AS bigint) AS done
    FROM task WHERE job_id = $1";

/// A task that is DONE has changed last when it was reported.
const MEDIAN_MS: &str = "-- median_ms
    SELECT CASE WHEN updated_at_ms > leased_at_ms
           THEN updated_at_ms - leased_at_ms ELSE 0 END AS median
    FROM task
    WHERE job_id = $1 AND state = 'DONE' AND leased_at_ms IS NOT NULL
    ORDER BY median LIMIT 1 OFFSET $2";

const MEDIAN_RATE: &str = "-- median_rate
    SELECT bytes * 1000 / (CASE WHEN updated_at_ms > leased_at_ms
                           THEN updated_at_ms - leased_at_ms ELSE 1 END) AS median
    FROM task
    WHERE job_id = $1 AND state = 'DONE' AND leased_at_ms IS NOT NULL
    ORDER BY median LIMIT 1 OFFSET $2";

impl Store {
    /// One pass over the tasks that are held: by [`steal`] those that are slow
    /// or stuck are READY at once under a new fence, uncharged. A claim gives
    /// them to another worker than before as long as there is one.
    ///
    /// Not for the time after an outage of the database: what workers have done
    /// meanwhile is not known yet.
    ///
    /// Transaction `take_from_straggler` for each.
    pub async fn steal_stragglers(&self, limits: &StealLimits) -> Result<Vec<Stolen>, StoreError> {
        let mut paces = BTreeMap::new();
        let mut stolen = Vec::new();
        for held in self.held_tasks(limits).await? {
            let job = &held.key.0;
            let pace = match paces.get(job) {
                Some(pace) => *pace,
                None => {
                    let pace = self.pace_of_tasks(job).await?;
                    paces.insert(job.clone(), pace);
                    pace
                }
            };
            if let Some(reason) = steal(&pace, &held.task, limits)
                && self.take_from_straggler(&held.key).await?
            {
                stolen.push(held.stolen(reason));
            }
            if stolen.len() == STEALS_PER_PASS {
                break;
            }
        }
        if !stolen.is_empty() {
            self.wake.tasks_ready();
        }
        Ok(stolen)
    }

    async fn held_tasks(&self, limits: &StealLimits) -> Result<Vec<Held>, StoreError> {
        let soonest_ms = limits.slow_after_ms.min(limits.stuck_after_ms);
        let rows = sqlx::query(self.sql(HELD_TASKS))
            .bind(stored(STEALS_MAX)?)
            .bind(stored(soonest_ms)?)
            .bind(WORKER_SEEN_MS)
            .fetch_all(self.database())
            .await?;
        rows.iter().map(Held::read).collect()
    }

    /// `false` if the lease has ended meanwhile.
    async fn take_from_straggler(&self, lease: &LeaseKey) -> Result<bool, StoreError> {
        let mut tx = self.begin().await?;
        let taken = take_away(&mut tx, lease, TakenAway::Stolen).await?;
        tx.commit().await?;
        Ok(taken)
    }

    /// How fast the job's tasks have been.
    async fn pace_of_tasks(&self, job: &JobId) -> Result<Pace, StoreError> {
        let row = sqlx::query(self.sql(PACE_OF_TASKS))
            .bind(job.as_str())
            .fetch_one(self.database())
            .await?;
        let done = decode::number(&row, "done")?;
        Ok(Pace {
            tasks: decode::number(&row, "tasks")?,
            done,
            median_ms: self.median(MEDIAN_MS, job, done).await?,
            median_rate: self.median(MEDIAN_RATE, job, done).await?,
        })
    }

    /// What a statement that sorts the tasks DONE says of the middle one; 0 if
    /// there is none.
    async fn median(&self, statement: &str, job: &JobId, done: u64) -> Result<u64, StoreError> {
        let row = sqlx::query(self.sql(statement))
            .bind(job.as_str())
            .bind(stored(done / 2)?)
            .fetch_optional(self.database())
            .await?;
        row.map_or(Ok(0), |row| decode::number(&row, "median"))
    }
}

/// A task that might be stolen.
struct Held {
    key: LeaseKey,
    worker: WorkerId,
    task: HeldTask,
}

impl Held {
    fn read(row: &AnyRow) -> Result<Self, StoreError> {
        let others: i64 = decode::number(row, "others")?;
        Ok(Self {
            key: read_key(row)?,
            worker: WorkerId(decode::text(row, "worker_id")?),
            task: HeldTask {
                bytes: decode::number(row, "bytes")?,
                progress_bytes: decode::number(row, "progress_bytes")?,
                held_ms: decode::number(row, "held_ms")?,
                still_ms: decode::number(row, "still_ms")?,
                steals: decode::number(row, "steals")?,
                others: if others > 0 {
                    Others::Alive
                } else {
                    Others::None
                },
            },
        })
    }

    fn stolen(self, reason: Steal) -> Stolen {
        let (job, task, _) = self.key;
        Stolen {
            job,
            task,
            worker: self.worker,
            reason,
        }
    }
}
