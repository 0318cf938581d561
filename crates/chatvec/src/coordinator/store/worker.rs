//! The workers that have been seen. Only for people and for the condition
//! "nobody works": no decision on a task reads this table.

use chatvec_core::ids::WorkerId;

use super::decode::stored;
use super::{Store, StoreError, Tx, decode};

/// What a worker says of itself when it asks for work.
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

/// A worker as last seen.
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
    /// When it said that it stops.
    pub stopped_at_ms: Option<i64>,
}

const SEE_WORKER: &str = "-- see_worker
    INSERT INTO worker (worker_id, hostname, version, slots, memory_bytes, first_seen_ms,
                        last_seen_ms)
    VALUES ($1, $2, $3, $4, $5, {now}, {now})
    ON CONFLICT (worker_id) DO UPDATE SET
        hostname = excluded.hostname, version = excluded.version, slots = excluded.slots,
        memory_bytes = excluded.memory_bytes, last_seen_ms = excluded.last_seen_ms";

const SEE_WORKER_AGAIN: &str = "-- see_worker_again
    UPDATE worker SET last_seen_ms = {now} WHERE worker_id = $1";

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

const STOP_WORKER: &str = "-- stop_worker
    UPDATE worker SET stopped_at_ms = coalesce(stopped_at_ms, {now}) WHERE worker_id = $1";

impl Store {
    /// The workers that were seen within this time, the latest first.
    pub async fn workers(&self, seen_within_ms: i64) -> Result<Vec<WorkerRow>, StoreError> {
        let rows = sqlx::query(self.sql(WORKERS))
            .bind(seen_within_ms)
            .fetch_all(&self.pool)
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

    /// Notes that the worker stops; repeating it keeps the first time.
    pub async fn stop_worker(&self, worker: &WorkerId) -> Result<(), StoreError> {
        sqlx::query(self.sql(STOP_WORKER))
            .bind(worker.as_str())
            .execute(&self.pool)
            .await?;
        Ok(())
    }
}

/// Notes that the worker asks for work.
pub(super) async fn see_worker(tx: &mut Tx, worker: &WorkerInfo) -> Result<(), StoreError> {
    sqlx::query(tx.sql(SEE_WORKER))
        .bind(worker.worker_id.as_str())
        .bind(worker.hostname.as_str())
        .bind(worker.version.as_str())
        .bind(i64::from(worker.slots))
        .bind(stored(worker.memory_bytes)?)
        .execute(tx.connection())
        .await?;
    Ok(())
}

/// Notes a heartbeat of a worker that has asked for work before.
pub(super) async fn see_worker_again(tx: &mut Tx, worker: &WorkerId) -> Result<(), StoreError> {
    sqlx::query(tx.sql(SEE_WORKER_AGAIN))
        .bind(worker.as_str())
        .execute(tx.connection())
        .await?;
    Ok(())
}
