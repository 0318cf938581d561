//! Every column that the protocol knows, as the database has it.

use chatvec_core::ids::{Attempt, Crc64, Epoch, Fence, JobId, PartOrdinal, WorkerId};
use chatvec_core::job::Job;
use chatvec_core::task::{DoneBy, Holder, RecordedPart, Task, TaskState};
use sqlx::any::AnyRow;

use super::Jobs;
use crate::coordinator::store::task::read_counters;
use crate::coordinator::store::{Store, StoreError, decode};

/// The rows of every job in the store.
pub(super) async fn read(store: &Store) -> Jobs {
    read_jobs(store).await.expect("rows are readable")
}

/// The first job or task in which the two differ.
pub(super) fn difference(found: &Jobs, expected: &Jobs) -> Option<String> {
    for (name, expected) in expected {
        let found = &found[name];
        for (number, (found, expected)) in found.tasks.iter().zip(&expected.tasks).enumerate() {
            if found != expected {
                return Some(format!(
                    "task {number} of {name}, store: {found:#?}\n  law: {expected:#?}"
                ));
            }
        }
        if found != expected {
            let brief = |job: &Job| Job {
                tasks: Vec::new(),
                ..job.clone()
            };
            return Some(format!(
                "{name} with {} and {} tasks, store: {:#?}\n  law: {:#?}",
                found.tasks.len(),
                expected.tasks.len(),
                brief(found),
                brief(expected)
            ));
        }
    }
    None
}

async fn read_jobs(store: &Store) -> Result<Jobs, StoreError> {
    let all = |text| sqlx::query(text).fetch_all(&store.pool);
    let mut jobs = Jobs::new();
    for row in all("SELECT * FROM job").await? {
        jobs.insert(name_of(&row)?, read_job(&row)?);
    }
    for row in all("SELECT * FROM task ORDER BY job_id, task_no").await? {
        let job = jobs.get_mut(&name_of(&row)?).expect("a task has a job");
        job.tasks.push(read_task(&row)?);
    }
    for row in all("SELECT * FROM part ORDER BY job_id, task_no, part_no").await? {
        let job = jobs.get_mut(&name_of(&row)?).expect("a part has a job");
        let task: u32 = decode::number(&row, "task_no")?;
        job.tasks[task as usize].parts.push(read_part(&row)?);
    }
    Ok(jobs)
}

fn name_of(row: &AnyRow) -> Result<JobId, StoreError> {
    decode::text(row, "job_id").map(JobId)
}

fn read_job(row: &AnyRow) -> Result<Job, StoreError> {
    Ok(Job {
        state: decode::name(row, "state")?,
        epoch: Epoch(decode::number(row, "epoch")?),
        epoch_expires_at_ms: decode::number(row, "epoch_expires_at_ms")?,
        revision: decode::number(row, "revision")?,
        error: error_kind(row)?,
        tasks: Vec::new(),
        updated_at_ms: decode::number(row, "updated_at_ms")?,
        planned_at_ms: decode::number_or_null(row, "planned_at_ms")?,
        committing_at_ms: decode::number_or_null(row, "committing_at_ms")?,
        finished_at_ms: decode::number_or_null(row, "finished_at_ms")?,
        cleaned_at_ms: decode::number_or_null(row, "cleaned_at_ms")?,
    })
}

fn read_task(row: &AnyRow) -> Result<Task, StoreError> {
    let state: TaskState = decode::name(row, "state")?;
    let worker = |column| Ok::<_, StoreError>(decode::text_or_null(row, column)?.map(WorkerId));
    let holder = match (
        worker("worker_id")?,
        decode::number_or_null(row, "lease_expires_at_ms")?,
    ) {
        (Some(worker), Some(expires_at_ms)) => Some(Holder {
            worker,
            expires_at_ms,
        }),
        _ => None,
    };
    let done = match (
        decode::number_or_null(row, "done_fence")?.map(Fence),
        worker("done_by")?,
    ) {
        (Some(fence), Some(worker)) => Some(DoneBy { fence, worker }),
        _ => None,
    };
    Ok(Task {
        first_part: PartOrdinal(decode::number(row, "first_part")?),
        part_count: decode::number(row, "part_count")?,
        bytes: decode::number(row, "bytes")?,
        state,
        not_before_ms: decode::number(row, "not_before_ms")?,
        fence: Fence(decode::number(row, "fence")?),
        attempt: Attempt(decode::number(row, "attempt")?),
        counters: read_counters(row)?,
        first_crash_worker: worker("first_crash_worker")?,
        holder,
        leased_at_ms: decode::number_or_null(row, "leased_at_ms")?,
        progressed_at_ms: decode::number_or_null(row, "progressed_at_ms")?,
        missed_beats: decode::number(row, "missed_beats")?,
        progress_bytes: decode::number(row, "progress_bytes")?,
        steals: decode::number(row, "steals")?,
        stolen_from: worker("stolen_from")?,
        done,
        error: error_kind(row)?,
        parts: Vec::new(),
        updated_at_ms: decode::number(row, "updated_at_ms")?,
    })
}

fn read_part(row: &AnyRow) -> Result<RecordedPart, StoreError> {
    let crc64: i64 = decode::number(row, "crc64")?;
    Ok(RecordedPart {
        part: PartOrdinal(decode::number(row, "part_no")?),
        part_id: decode::text(row, "part_id")?,
        crc64: Crc64(crc64.cast_unsigned()),
        bytes: decode::number(row, "bytes")?,
    })
}

fn error_kind<T: std::str::FromStr>(row: &AnyRow) -> Result<Option<T>, StoreError> {
    match decode::text_or_null(row, "error_kind")? {
        None => Ok(None),
        Some(_) => decode::name(row, "error_kind").map(Some),
    }
}
