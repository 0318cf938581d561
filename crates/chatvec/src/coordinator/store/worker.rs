//! The workers that have been seen: for people, for the condition "nobody
//! works", and to know whether a task can be had by somebody else.

use chatvec_core::ids::WorkerId;

use super::decode::stored;
use super::{Store, StoreError, Tx, decode};

/// What a worker says of itself when it calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerInfo {
    /// Its id, fresh at every start.
    pub worker_id: WorkerId,
    /// Its machine.
    pub hostname: String,
    /// Its program's version.
    pub version: String,
    /// Tasks it runs at once.
    pub slots: u32,
    /// Bytes of memory that its tasks use at most; 0 if it did not say.
    pub memory_bytes: u64,
}

/// Whether a worker goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It takes tasks.
    Working,
    /// It ends what it has begun, takes nothing more, and stops.
    Draining,
}

/// A worker as last seen. Times are by the database's clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerRow {
    /// What it said of itself last.
    pub info: WorkerInfo,
    /// Tasks that it holds.
    pub tasks_leased: u64,
    /// When it first asked for work, by the database's clock.
    pub first_seen_ms: i64,
    /// When it last asked for work or sent a heartbeat.
    pub last_seen_ms: i64,
    /// When it first said that it stops.
    pub stopped_at_ms: Option<i64>,
}

/// A worker that has said that it stops does not begin again.
const SEE_WORKER: &str = "-- see_worker
    INSERT INTO worker (worker_id, hostname, version, slots, memory_bytes, first_seen_ms,
                        last_seen_ms, stopped_at_ms)
    VALUES ($1, $2, $3, $4, $5, {now}, {now}, CASE WHEN $6 > 0 THEN {now} END)
    ON CONFLICT (worker_id) DO UPDATE SET
        hostname = excluded.hostname, version = excluded.version, slots = excluded.slots,
        memory_bytes = excluded.memory_bytes, last_seen_ms = excluded.last_seen_ms,
        stopped_at_ms = coalesce(worker.stopped_at_ms, excluded.stopped_at_ms)";

const WORKERS: &str = "-- workers
    WITH held AS (
        SELECT worker_id AS h_worker, count(*) AS h_tasks
        FROM task WHERE state = 'LEASED' GROUP BY worker_id
    )
    SELECT worker_id, hostname, version, slots, memory_bytes, first_seen_ms, last_seen_ms,
           stopped_at_ms, coalesce(h_tasks, 0) AS tasks
    FROM worker LEFT JOIN held ON h_worker = worker_id
    WHERE last_seen_ms >= {now} - $1
    ORDER BY last_seen_ms DESC, worker_id";

const FORGET_WORKERS: &str = "-- forget_workers
    DELETE FROM worker WHERE last_seen_ms <= {now} - $1";

impl Store {
    /// Removes the rows of workers that were not seen for this time; returns how
    /// many. What they did is told by their ids from then on.
    pub async fn forget_workers(&self, unseen_for_ms: i64) -> Result<u64, StoreError> {
        let done = sqlx::query(self.sql(FORGET_WORKERS))
            .bind(unseen_for_ms)
            .execute(self.database())
            .await?;
        Ok(done.rows_affected())
    }

    /// The workers that were seen within this time, the latest first.
    pub async fn workers(&self, seen_within_ms: i64) -> Result<Vec<WorkerRow>, StoreError> {
        let rows = sqlx::query(self.sql(WORKERS))
            .bind(seen_within_ms)
            .fetch_all(self.database())
            .await?;
        rows.iter()
            .map(|row| {
                Ok(WorkerRow {
                    info: WorkerInfo {
                        worker_id: WorkerId(decode::text(row, "worker_id")?),
                        hostname: decode::text(row, "hostname")?,
                        version: decode::text(row, "version")?,
                        slots: decode::number(row, "slots")?,
                        memory_bytes: decode::number(row, "memory_bytes")?,
                    },
                    tasks_leased: decode::number(row, "tasks")?,
                    first_seen_ms: decode::number(row, "first_seen_ms")?,
                    last_seen_ms: decode::number(row, "last_seen_ms")?,
                    stopped_at_ms: decode::number_or_null(row, "stopped_at_ms")?,
                })
            })
            .collect()
    }
}

/// Notes that the worker has called.
pub(super) async fn see_worker(
    tx: &mut Tx,
    worker: &WorkerInfo,
    phase: Phase,
) -> Result<(), StoreError> {
    sqlx::query(tx.sql(SEE_WORKER))
        .bind(worker.worker_id.as_str())
        .bind(worker.hostname.as_str())
        .bind(worker.version.as_str())
        .bind(i64::from(worker.slots))
        .bind(stored(worker.memory_bytes)?)
        .bind(i64::from(phase == Phase::Draining))
        .execute(tx.connection())
        .await?;
    Ok(())
}
