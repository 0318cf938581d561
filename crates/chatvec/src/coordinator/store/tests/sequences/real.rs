//! The side of the store: the same operation, by the calls that coordinators make.

use std::sync::Arc;

use chatvec_core::ids::{Epoch, FileOrdinal, JobId, TaskOrdinal, WorkerId};
use chatvec_core::job::{JobOp, JobRefused};
use chatvec_core::task::{Lease, RecordedPart, StealLimits, TaskFailure, TaskOp, TaskRefused};

use super::law::Answer;
use super::op::Op;
use super::{TASKS, clock, job_error, new_plan, worker};
use crate::coordinator::store::{Beat, JobError, NewPart, Phase, Store, StoreError, WorkerInfo};

/// Whatever moves on is never stolen within a sequence; what stands still is.
const LIMITS: StealLimits = StealLimits {
    slow_after_ms: 200,
    stuck_after_ms: 600,
};

/// The store's own answer.
pub(super) async fn run(store: &Store, op: &Op) -> Answer {
    let answer = match op {
        Op::Tick(ms) => clock::advance(store, *ms).await.map(|()| Answer::Done),
        Op::OfJob(job, op) => of_job(store, job, op).await,
        Op::OfLease(lease, op) => of_lease(store, lease, op).await,
        Op::Acquire {
            worker,
            max,
            lease_ms,
        } => {
            // A process that remembers nothing looks everywhere: where the last
            // claim found tasks is a hint that the wall clock ends.
            let store = Store {
                floor: Arc::default(),
                ..store.clone()
            };
            let acquired = store.acquire_tasks(&info(worker), *max, *lease_ms).await;
            acquired.map(|all| Answer::Leases(all.into_iter().map(|one| one.lease).collect()))
        }
        Op::Beat {
            worker,
            named,
            lease_ms,
        } => beat(store, worker, named, *lease_ms).await,
        Op::ReleaseAll => store.release_all_leases().await.map(Answer::Released),
        Op::Reap(reaping) => store.reap(*reaping).await.map(Answer::Reaped),
        Op::Steal => store.steal_stragglers(&LIMITS).await.map(|stolen| {
            let stolen = stolen.into_iter();
            Answer::Stolen(stolen.map(|one| (one.job, one.task, one.worker)).collect())
        }),
        Op::Strand { job, task, to } => strand(store, job, *task, to).await,
    };
    answer.unwrap_or_else(|error| Answer::Refused(refusal(error)))
}

fn info(id: &WorkerId) -> WorkerInfo {
    worker(id.as_str())
}

async fn of_job(store: &Store, job: &JobId, op: &JobOp) -> Result<Answer, StoreError> {
    let begun = |epoch: Option<Epoch>| match epoch {
        Some(epoch) => Answer::Begun(epoch),
        None => Answer::Refused(JobRefused::EpochHeld),
    };
    let error = |kind| JobError {
        kind,
        ..job_error()
    };
    match op {
        JobOp::StartPlanning { lease_ms } => {
            return store.start_planning(job, *lease_ms).await.map(begun);
        }
        JobOp::StartFinalizing { lease_ms } => {
            return store.start_finalizing(job, *lease_ms).await.map(begun);
        }
        JobOp::FinishPlanning { epoch, .. } => {
            store.finish_planning(job, *epoch, &new_plan(TASKS)).await?;
        }
        JobOp::RenewEpoch { epoch, lease_ms } => {
            store.renew_epoch(job, *epoch, *lease_ms).await?;
        }
        JobOp::ReleaseEpoch { epoch } => store.release_epoch(job, *epoch).await?,
        JobOp::StartCommit { epoch } => {
            if store.start_commit(job, *epoch).await?.is_none() {
                return Ok(Answer::Refused(JobRefused::TasksOpen));
            }
        }
        JobOp::FinishCommit { epoch } => {
            store.finish_commit(job, *epoch).await?;
        }
        JobOp::FailCommit { epoch, kind } => {
            store.fail_commit(job, *epoch, &error(*kind)).await?;
        }
        JobOp::Fail { epoch, kind } => {
            store.fail_job(job, *epoch, &error(*kind), &[]).await?;
        }
        JobOp::Reopen { task } => store.reopen_task(job, *task).await?,
        JobOp::Repair { epoch, tasks } => store.repair_tasks(job, *epoch, tasks).await?,
        JobOp::Cancel => {
            store.cancel_job(job).await?;
        }
        JobOp::MarkCleaned => store.mark_cleaned(job).await?,
        other => unreachable!("{other:?} is a step of another call"),
    }
    Ok(Answer::Done)
}

async fn of_lease(store: &Store, lease: &Lease, op: &TaskOp) -> Result<Answer, StoreError> {
    match op {
        TaskOp::Report { parts, .. } => {
            let parts: Vec<_> = parts.iter().map(new_part).collect();
            store
                .complete_task(lease, &parts)
                .await
                .map(Answer::Recorded)
        }
        TaskOp::Fail { kind, jitter, .. } => {
            let failure = TaskFailure {
                kind: *kind,
                problem: job_error().problem,
            };
            let failed = store.fail_task(lease, &failure, *jitter).await;
            failed.map(Answer::Failed)
        }
        TaskOp::Release { .. } => store.release_task(lease).await.map(|()| Answer::Done),
        other => unreachable!("no worker asks for {other:?}"),
    }
}

/// A part as a worker reports it. Its file and statistics follow from its place.
fn new_part(part: &RecordedPart) -> NewPart {
    NewPart {
        file: FileOrdinal(3),
        part: part.part,
        part_id: part.part_id.clone(),
        crc64: part.crc64,
        bytes: part.bytes,
        stats: vec![part.part.0 as u8, 0, 0xfe],
    }
}

async fn beat(
    store: &Store,
    worker: &WorkerId,
    named: &[(Lease, u64)],
    lease_ms: i64,
) -> Result<Answer, StoreError> {
    let beats: Vec<_> = named
        .iter()
        .map(|(lease, progress_bytes)| Beat {
            lease: lease.clone(),
            progress_bytes: *progress_bytes,
        })
        .collect();
    let (by, phase) = (info(worker), Phase::Working);
    let answers = store.heartbeat(&by, phase, &beats, lease_ms).await;
    answers.map(Answer::Beats)
}

/// See [`Op::Strand`].
async fn strand(
    store: &Store,
    job: &JobId,
    task: TaskOrdinal,
    to: &WorkerId,
) -> Result<Answer, StoreError> {
    let stranded = "-- strand
        UPDATE task SET (state, worker_id, lease_expires_at_ms) = (
            SELECT CASE WHEN job.state = 'CANCELLING' THEN 'READY' ELSE 'LEASED' END,
                   CASE WHEN job.state = 'CANCELLING' THEN NULL ELSE $3 END,
                   CASE WHEN job.state = 'CANCELLING' THEN NULL ELSE {now} + 300 END
            FROM job WHERE job.job_id = $1)
        WHERE job_id = $1 AND task_no = $2";
    sqlx::query(store.sql(stranded))
        .bind(job.as_str())
        .bind(i64::from(task.0))
        .bind(to.as_str())
        .execute(&store.pool)
        .await?;
    Ok(Answer::Done)
}

/// The law's name of what the store says.
fn refusal(error: StoreError) -> JobRefused {
    match error {
        StoreError::WrongState { .. } => JobRefused::WrongState,
        StoreError::EpochLost { .. } => JobRefused::EpochLost,
        StoreError::TasksOpen { .. } => JobRefused::TasksOpen,
        StoreError::LeaseLost { .. } => JobRefused::Task(TaskRefused::LeaseLost),
        StoreError::WrongParts { .. } => JobRefused::Task(TaskRefused::WrongParts),
        StoreError::WrongTaskState { .. } => JobRefused::Task(TaskRefused::NotDone),
        StoreError::TaskNotFound { .. } => JobRefused::NoSuchTask,
        other => panic!("the store fails: {other}"),
    }
}
