//! The reaper: takes back leases that expired, cancels what a job that is not
//! wanted left behind, and ends jobs that only waited for their leases. Every
//! pass can be repeated, and any number of coordinators may run it.

use std::collections::BTreeMap;

use chatvec_core::ids::{Fence, JobId, TaskOrdinal, WorkerId};
use chatvec_core::problem::Problem;
use chatvec_core::task::{FailureKind, TaskCounters, TaskState, Verdict, judge, reap_max};
use sqlx::any::AnyRow;

use super::cancel::{fail_locked_job, settle_locked_job};
use super::decode::stored;
use super::error::exactly_one;
use super::job::lock_job;
use super::lease::job_state;
use super::task::read_counters;
use super::{JobError, Store, StoreError, Tx, decode};
use crate::fault::{self, Failpoint, Mutant};

/// What one pass did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reaped {
    /// Leases that had expired and were taken back.
    pub expired: u64,
    /// Tasks among them that were given up as poison.
    pub given_up: u64,
    /// Tasks of jobs that are not wanted any more, cancelled by the sweep.
    pub swept: u64,
}

/// Whether a pass takes expired leases back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reaping {
    /// It does.
    Expired,
    /// It leaves them to their workers: the database was out of reach, and with
    /// it the heartbeats. Once it has answered the caller for the time of a lease,
    /// whoever is alive has renewed its leases.
    Grace,
}

/// Most expired leases of one pass that the log names; it tells the number of
/// all.
const TOLD_MAX: usize = 20;

/// Most unwanted tasks that one pass cancels.
const SWEEP_MAX: i64 = 500;

const PING: &str = "-- ping
    SELECT 1 AS answer";

const LEASES: &str = "-- leases
    SELECT count(*) AS tasks FROM task WHERE state = 'LEASED'";

const EXPIRED: &str = "-- expired
    SELECT job_id, task_no, fence, worker_id, failures, crashes, crashed_workers,
           first_crash_worker
    FROM task
    WHERE state = 'LEASED' AND lease_expires_at_ms <= {now}
    ORDER BY lease_expires_at_ms, job_id, task_no
    LIMIT $1{skip_locked}";

const TAKE_BACK: &str = "-- take_back
    UPDATE task SET state = $4, fence = fence + 1, crashes = $5, crashed_workers = $6,
                    first_crash_worker = $7, not_before_ms = {now} + $8,
                    error_kind = coalesce($9, error_kind),
                    error_subject = coalesce($10, error_subject),
                    error_message = coalesce($11, error_message),
                    error_hint = CASE WHEN $9 IS NULL THEN error_hint ELSE $12 END,
                    worker_id = NULL, lease_expires_at_ms = NULL, progress_bytes = 0,
                    updated_at_ms = {now}
    WHERE job_id = $1 AND task_no = $2
      AND fence = $3 AND state = 'LEASED' AND lease_expires_at_ms <= {now}";

/// What [`TAKE_BACK`] looks at again, and a planted defect does not.
const STILL_EXPIRED: &str = "fence = $3 AND state = 'LEASED' AND lease_expires_at_ms <= {now}";
const REAPER: Mutant = Mutant::ReaperWithoutRecheck;

/// A claim that raced with the end of its job can leave a task behind. Jobs
/// that were cleaned have none: see `jobs_to_clean`. Where no job is unwanted,
/// no task is looked at.
const SWEEP: &str = "-- sweep
    WITH c AS MATERIALIZED (
        SELECT job_id AS c_job, task_no AS c_task FROM task
        WHERE state <> 'DONE'
          AND EXISTS (SELECT 1 FROM job
                      WHERE state IN ('CANCELLING', 'FAILED', 'CANCELLED')
                        AND cleaned_at_ms IS NULL)
          AND ((state = 'READY' AND job_id IN (SELECT job_id FROM job
                                               WHERE state = 'CANCELLING'))
            OR (state IN ('READY', 'LEASED')
                AND job_id IN (SELECT job_id FROM job
                               WHERE state IN ('FAILED', 'CANCELLED')
                                 AND cleaned_at_ms IS NULL)))
        LIMIT $1{skip_locked}
    )
    UPDATE task SET state = 'CANCELLED', fence = fence + 1, worker_id = NULL,
                    lease_expires_at_ms = NULL, updated_at_ms = {now}
    FROM c WHERE job_id = c_job AND task_no = c_task AND state IN ('READY', 'LEASED')";

const JOBS_CANCELLING: &str = "-- jobs_cancelling
    SELECT job_id FROM job WHERE state = 'CANCELLING' ORDER BY job_id";

impl Store {
    /// Asks the database for nothing but an answer.
    pub async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query(self.sql(PING))
            .fetch_one(self.database())
            .await?;
        Ok(())
    }

    /// One pass over expired leases, at most [`reap_max`] of them, and unwanted
    /// tasks.
    ///
    /// An expired lease counts as a crash of its worker; by
    /// [`chatvec_core::task::judge`] the task is READY again under a new
    /// fence, or it is given up and fails its job. In a job that is not wanted
    /// any more the task is cancelled, uncharged.
    ///
    /// Transactions `reap_expired`, `sweep` (one statement) and, for each job
    /// in CANCELLING, `settle`.
    pub async fn reap(&self, reaping: Reaping) -> Result<Reaped, StoreError> {
        let (expired, given_up) = match reaping {
            Reaping::Expired => self.reap_expired().await?,
            Reaping::Grace => (0, 0),
        };
        let swept = sqlx::query(self.sql(SWEEP))
            .bind(SWEEP_MAX)
            .execute(self.database())
            .await?
            .rows_affected();
        let settled = self.settle().await?;
        if expired > 0 {
            self.wake.tasks_ready();
        }
        if given_up + swept + settled > 0 {
            self.wake.jobs_changed();
        }
        Ok(Reaped {
            expired,
            given_up,
            swept,
        })
    }

    /// Takes back expired leases; returns how many, and how many of them were
    /// given up.
    async fn reap_expired(&self) -> Result<(u64, u64), StoreError> {
        let mut tx = self.begin().await?;
        let cap = reap_max(leases(&mut tx).await?);
        let expired = expired(&mut tx, cap).await?;
        if !expired.is_empty() {
            fault::hit(Failpoint::ReapRead, "").await?;
        }
        let mut given_up = 0;
        let mut failed_jobs = BTreeMap::new();
        for task in &expired {
            let end = end_of(&mut tx, task).await?;
            take_back(&mut tx, task, &end).await?;
            if let End::GivenUp(error) = end {
                given_up += 1;
                failed_jobs.entry(task.job.clone()).or_insert(error);
            }
        }
        for (job, error) in &failed_jobs {
            let row = lock_job(&mut tx, job).await?;
            fail_locked_job(&mut tx, &row, error).await?;
        }
        tx.commit().await?;
        for task in expired.iter().take(TOLD_MAX) {
            tracing::warn!(
                job.id = %task.job,
                task.id = %task.task,
                worker.id = %task.worker,
                "lease expired"
            );
        }
        Ok((expired.len() as u64, given_up))
    }

    /// Ends the jobs in CANCELLING that nothing holds up any more.
    async fn settle(&self) -> Result<u64, StoreError> {
        let rows = sqlx::query(self.sql(JOBS_CANCELLING))
            .fetch_all(self.database())
            .await?;
        let mut settled = 0;
        for row in &rows {
            let job = JobId(decode::text(row, "job_id")?);
            let mut tx = self.begin().await?;
            let row = lock_job(&mut tx, &job).await?;
            let before = row.state;
            let after = settle_locked_job(&mut tx, row).await?.state;
            tx.commit().await?;
            settled += u64::from(before != after);
        }
        Ok(settled)
    }
}

/// A task whose lease has expired, its row locked.
struct Expired {
    job: JobId,
    task: TaskOrdinal,
    fence: Fence,
    worker: WorkerId,
    counters: TaskCounters,
    first_crash_worker: Option<WorkerId>,
}

/// What becomes of it.
enum End {
    /// READY again after so many milliseconds.
    Retried(u64),
    /// FAILED, and its job with this error.
    GivenUp(JobError),
    /// CANCELLED with its job; no crash is counted.
    Cancelled,
}

impl Expired {
    fn read(row: &AnyRow) -> Result<Self, StoreError> {
        Ok(Self {
            job: JobId(decode::text(row, "job_id")?),
            task: TaskOrdinal(decode::number(row, "task_no")?),
            fence: Fence(decode::number(row, "fence")?),
            worker: WorkerId(decode::text(row, "worker_id")?),
            counters: read_counters(row)?,
            first_crash_worker: decode::text_or_null(row, "first_crash_worker")?.map(WorkerId),
        })
    }

    /// The counters with the crash of the worker that holds the lease.
    /// Distinct workers are told apart up to two, all that a verdict asks.
    fn crashed(&self) -> TaskCounters {
        let another = match &self.first_crash_worker {
            None => 1,
            Some(first) if *first != self.worker => 2,
            Some(_) => 0,
        };
        TaskCounters {
            crashes: self.counters.crashes + 1,
            crashed_workers: self.counters.crashed_workers.max(another),
            ..self.counters
        }
    }

    /// The error of a task that takes its workers down.
    fn poison(&self) -> JobError {
        JobError {
            kind: FailureKind::SuspectedPoison,
            problem: Problem::new(
                format!("task {}", self.task),
                format!(
                    "lost its worker {} times, the last time `{}`",
                    self.counters.crashes + 1,
                    self.worker
                ),
            )
            .with_hint(
                "look for the end of these workers in their logs: memory is the usual cause",
            ),
        }
    }
}

/// How many leases are given.
async fn leases(tx: &mut Tx) -> Result<u64, StoreError> {
    let row = sqlx::query(tx.sql(LEASES))
        .fetch_one(tx.connection())
        .await?;
    decode::number(&row, "tasks")
}

async fn expired(tx: &mut Tx, cap: u64) -> Result<Vec<Expired>, StoreError> {
    let statement = fault::unguarded(REAPER, EXPIRED, "{skip_locked}", "");
    let rows = sqlx::query(tx.sql(&statement))
        .bind(stored(cap)?)
        .fetch_all(tx.connection())
        .await?;
    rows.iter().map(Expired::read).collect()
}

async fn end_of(tx: &mut Tx, task: &Expired) -> Result<End, StoreError> {
    let state = job_state(tx, &task.job).await?;
    if state.is_unwanted() {
        return Ok(End::Cancelled);
    }
    // Nothing is drawn at random here: a crash is retried without delay.
    Ok(match judge(None, task.crashed(), 0.0) {
        Verdict::RetryAfterMs(delay_ms) => End::Retried(delay_ms),
        Verdict::GiveUp => End::GivenUp(task.poison()),
    })
}

async fn take_back(tx: &mut Tx, task: &Expired, end: &End) -> Result<(), StoreError> {
    let (state, delay_ms, error) = match end {
        End::Retried(delay_ms) => (TaskState::Ready, *delay_ms, None),
        End::GivenUp(error) => (TaskState::Failed, 0, Some(error)),
        End::Cancelled => (TaskState::Cancelled, 0, None),
    };
    let (counters, first) = match end {
        End::Cancelled => (task.counters, task.first_crash_worker.as_ref()),
        _ => (
            task.crashed(),
            task.first_crash_worker.as_ref().or(Some(&task.worker)),
        ),
    };
    let statement = fault::unguarded(REAPER, TAKE_BACK, STILL_EXPIRED, "fence >= $3");
    let done = sqlx::query(tx.sql(&statement))
        .bind(task.job.as_str())
        .bind(i64::from(task.task.0))
        .bind(stored(task.fence.0)?)
        .bind(state.name())
        .bind(i64::from(counters.crashes))
        .bind(i64::from(counters.crashed_workers))
        .bind(first.map(|worker| worker.0.clone()))
        .bind(stored(delay_ms)?)
        .bind(error.map(|error| error.kind.name()))
        .bind(error.map(|error| error.problem.subject.clone()))
        .bind(error.map(|error| error.problem.message.clone()))
        .bind(error.and_then(|error| error.problem.hint.clone()))
        .execute(tx.connection())
        .await?;
    exactly_one(done.rows_affected(), || StoreError::LeaseLost {
        job: task.job.clone(),
        task: task.task,
    })
}
