//! Success: a task's parts are recorded, and the task is DONE.

use std::collections::{BTreeMap, HashSet};

use chatvec_core::ids::{JobId, TaskOrdinal};
use chatvec_core::problem::Problem;
use chatvec_core::task::{FailureKind, Lease};

use super::cancel::fail_locked_job;
use super::decode::stored;
use super::job::lock_job;
use super::lease::lost;
use super::report::{NewPart, PartRow};
use super::task::PartsOfTask;
use super::{JobError, Store, StoreError, Tx, decode, values};
use crate::fault::{self, Mutant};

/// A worker's word that a task is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskDone {
    /// The lease under which it was done.
    pub lease: Lease,
    /// Exactly its parts, in order.
    pub parts: Vec<NewPart>,
}

/// Whether a report of success was the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    /// The task is DONE by this report.
    Recorded,
    /// The same report was recorded before; its answer must have been lost.
    AlreadyRecorded,
}

/// What becomes of one report: an error of it is none of the others'.
pub type Outcome = Result<Recorded, StoreError>;

const PARTS_OF_TASKS: &str = "-- parts_of_tasks
    WITH wanted (w_job, w_task) AS (VALUES {values})
    SELECT job_id, task_no, file_no, first_part, part_count
    FROM wanted JOIN task ON job_id = w_job AND task_no = w_task";

/// A state that is computed is in no index: the tasks are found by their keys
/// and not among all that are leased, of which an index keeps every one that
/// was, for as long as any transaction is open.
const FINISH_TASKS: &str = "-- finish_tasks
    WITH report (r_job, r_task, r_fence) AS (VALUES {values})
    UPDATE task SET state = 'DONE', done_fence = fence, done_by = worker_id, worker_id = NULL,
                    lease_expires_at_ms = NULL, progress_bytes = bytes, updated_at_ms = {now}
    FROM report
    WHERE job_id = r_job AND task_no = r_task AND fence = r_fence AND state || '' = 'LEASED'
    RETURNING job_id, task_no";

/// A part that stands there already belongs to a repair in COMMITTING: it gets
/// its new id, and keeps the rest, which the commit has frozen. Where its bytes
/// are others, no row comes back.
const RECORD_PARTS: &str = "-- record_parts
    INSERT INTO part (job_id, task_no, file_no, part_no, part_id, crc64, bytes, stats)
    VALUES {values}
    ON CONFLICT (job_id, file_no, part_no) DO UPDATE SET part_id = excluded.part_id
    WHERE part.crc64 = excluded.crc64 AND part.bytes = excluded.bytes
    RETURNING part_no";

const DONE_UNDER_FENCE: &str = "-- done_under_fence
    SELECT file_no, first_part, part_count FROM task
    WHERE job_id = $1 AND task_no = $2 AND state = 'DONE' AND done_fence = $3";

const HELD_UNDER_FENCE: &str = "-- held_under_fence
    SELECT task_no FROM task
    WHERE job_id = $1 AND task_no = $2 AND state = 'LEASED' AND fence = $3";

const PARTS_IN_RANGE: &str = "-- parts_in_range
    SELECT task_no, file_no, part_no, part_id, crc64, bytes, stats FROM part
    WHERE job_id = $1 AND file_no = $2 AND part_no >= $3 AND part_no < $4
    ORDER BY part_no";

type TaskKey = (JobId, TaskOrdinal);

impl Store {
    /// Records finished tasks with their parts: LEASED becomes DONE, and the
    /// lease is used up. A lease that has expired but was not taken back yet
    /// still counts. The same report again is answered, not recorded twice.
    /// Outcomes come in the order of the reports, each apart; only where the
    /// database fails, all do.
    ///
    /// In COMMITTING a repaired part gets its new id. If it has come out with
    /// another checksum than the frozen one, the job fails: its bytes are not
    /// reproducible, and what is published in part cannot be completed.
    ///
    /// Whether a job is complete is for a later statement to find out: see
    /// [`Store::start_commit`].
    ///
    /// Transaction `complete_tasks`.
    ///
    /// # Errors
    /// Of a single report, [`StoreError::LeaseLost`] changes nothing, and
    /// [`StoreError::WrongParts`] neither: the task stays LEASED.
    pub async fn complete_tasks(&self, reports: &[TaskDone]) -> Result<Vec<Outcome>, StoreError> {
        let distinct: HashSet<_> = reports.iter().map(key_of).collect();
        if distinct.len() == reports.len() {
            match self.complete_together(reports).await {
                Err(StoreError::PartDiffers { .. }) => {}
                outcome => return outcome,
            }
        }
        let mut outcomes = Vec::with_capacity(reports.len());
        for report in reports {
            match self.complete_together(std::slice::from_ref(report)).await {
                Ok(mut single) => outcomes.append(&mut single),
                Err(error @ StoreError::PartDiffers { .. }) => {
                    self.fail_repair(&report.lease.job, &error).await?;
                    outcomes.push(Err(lost(&report.lease)));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(outcomes)
    }

    /// As [`Store::complete_tasks`], of one report.
    ///
    /// # Errors
    /// Those of the report and those of the database.
    pub async fn complete_task(&self, lease: &Lease, parts: &[NewPart]) -> Outcome {
        let report = TaskDone {
            lease: lease.clone(),
            parts: parts.to_vec(),
        };
        let mut outcomes = self.complete_tasks(&[report]).await?;
        outcomes.remove(0)
    }

    /// One transaction for reports of different tasks.
    async fn complete_together(&self, reports: &[TaskDone]) -> Result<Vec<Outcome>, StoreError> {
        // One order for every caller, so that two seldom wait for each other.
        let mut sorted: Vec<&TaskDone> = reports.iter().collect();
        sorted.sort_by_key(|report| key_of(report));
        let mut tx = self.begin().await?;
        let ranges = parts_of_tasks(&mut tx, &sorted).await?;
        let right: Vec<&TaskDone> = sorted
            .into_iter()
            .filter(|report| has_its_parts(&ranges, report).is_ok())
            .collect();
        let finished = finish_tasks(&mut tx, &right).await?;
        let new: Vec<_> = right
            .iter()
            .filter(|report| finished.contains(&key_of(report)))
            .flat_map(|report| report.parts.iter().map(|part| (&report.lease, part)))
            .collect();
        for batch in values::slices(&new) {
            if let Err(error) = record_parts(&mut tx, batch).await {
                // What ends the job next passes over rows that are locked.
                tx.roll_back().await?;
                return Err(error);
            }
        }
        let mut outcomes = Vec::with_capacity(reports.len());
        for report in reports {
            let outcome = match has_its_parts(&ranges, report) {
                Ok(()) if finished.contains(&key_of(report)) => Ok(Recorded::Recorded),
                _ if is_recorded(&mut tx, &report.lease, &report.parts).await? => {
                    Ok(Recorded::AlreadyRecorded)
                }
                Ok(()) => Err(lost(&report.lease)),
                Err(wrong) if holds(&mut tx, &report.lease).await? => Err(wrong),
                Err(_) => Err(lost(&report.lease)),
            };
            outcomes.push(outcome);
        }
        tx.commit().await?;
        if !finished.is_empty() {
            self.wake.jobs_changed();
        }
        Ok(outcomes)
    }

    /// Ends a commit that cannot be completed.
    async fn fail_repair(&self, job: &JobId, error: &StoreError) -> Result<(), StoreError> {
        let problem = Problem::new(format!("job {job}"), error.to_string())
            .with_hint("look for a source that changed without its pin, or for a bad machine");
        let error = JobError {
            kind: FailureKind::Internal,
            problem,
        };
        let mut tx = self.begin().await?;
        let row = lock_job(&mut tx, job).await?;
        fail_locked_job(&mut tx, &row, &error).await?;
        tx.commit().await?;
        self.wake.jobs_changed();
        Ok(())
    }
}

fn key_of(report: &TaskDone) -> TaskKey {
    (report.lease.job.clone(), report.lease.task)
}

/// Nothing if the parts are those of the task, each once and in order.
fn has_its_parts(
    ranges: &BTreeMap<TaskKey, PartsOfTask>,
    report: &TaskDone,
) -> Result<(), StoreError> {
    let (lease, parts) = (&report.lease, &report.parts);
    let Some(range) = ranges.get(&key_of(report)) else {
        return Err(lost(lease));
    };
    let found = parts.iter().map(|part| (part.file.0, part.part.0));
    if found.eq((range.first..range.end).map(|part| (range.file, part))) {
        return Ok(());
    }
    Err(StoreError::WrongParts {
        job: lease.job.clone(),
        task: lease.task,
        file: range.file,
        first: range.first,
        end: range.end,
    })
}

/// The parts that each task has to write; they never change.
async fn parts_of_tasks(
    tx: &mut Tx,
    reports: &[&TaskDone],
) -> Result<BTreeMap<TaskKey, PartsOfTask>, StoreError> {
    let mut ranges = BTreeMap::new();
    for batch in values::slices(reports) {
        let list = values::rows(batch.len(), "", 1, 2);
        let mut query = sqlx::query(tx.sql(&PARTS_OF_TASKS.replace("{values}", &list)));
        for report in batch {
            let lease = &report.lease;
            query = query.bind(lease.job.as_str()).bind(i64::from(lease.task.0));
        }
        for row in query.fetch_all(tx.connection()).await? {
            let job = JobId(decode::text(&row, "job_id")?);
            let task = TaskOrdinal(decode::number(&row, "task_no")?);
            ranges.insert((job, task), PartsOfTask::read(&row)?);
        }
    }
    Ok(ranges)
}

/// Makes the tasks DONE whose leases are good; returns which those were.
async fn finish_tasks(tx: &mut Tx, reports: &[&TaskDone]) -> Result<HashSet<TaskKey>, StoreError> {
    let mut finished = HashSet::new();
    for batch in values::slices(reports) {
        let list = values::rows(batch.len(), "", 1, 3);
        let statement = FINISH_TASKS.replace("{values}", &list);
        let guard = ("fence = r_fence", "fence >= r_fence");
        let statement = fault::unguarded(Mutant::NoFenceGuard, &statement, guard.0, guard.1);
        let mut query = sqlx::query(tx.sql(&statement));
        for report in batch {
            let lease = &report.lease;
            query = query
                .bind(lease.job.as_str())
                .bind(i64::from(lease.task.0))
                .bind(stored(lease.fence.0)?);
        }
        for row in query.fetch_all(tx.connection()).await? {
            let job = JobId(decode::text(&row, "job_id")?);
            finished.insert((job, TaskOrdinal(decode::number(&row, "task_no")?)));
        }
    }
    Ok(finished)
}

/// Records a batch of parts.
async fn record_parts(tx: &mut Tx, batch: &[(&Lease, &NewPart)]) -> Result<(), StoreError> {
    let list = values::rows(batch.len(), "", 1, 8);
    let mut query = sqlx::query(tx.sql(&RECORD_PARTS.replace("{values}", &list)));
    for (lease, part) in batch {
        query = query
            .bind(lease.job.as_str())
            .bind(i64::from(lease.task.0))
            .bind(i64::from(part.file.0))
            .bind(i64::from(part.part.0))
            .bind(part.part_id.as_str())
            .bind(part.crc64.0.cast_signed())
            .bind(stored(part.bytes)?)
            .bind(part.stats.as_slice());
    }
    let recorded = query.fetch_all(tx.connection()).await?;
    if recorded.len() == batch.len() {
        return Ok(());
    }
    let (lease, part) = batch[0];
    Err(StoreError::PartDiffers {
        task: lease.task,
        file: part.file,
    })
}

/// Whether the lease is good, by its fence.
async fn holds(tx: &mut Tx, lease: &Lease) -> Result<bool, StoreError> {
    let row = sqlx::query(tx.sql(HELD_UNDER_FENCE))
        .bind(lease.job.as_str())
        .bind(i64::from(lease.task.0))
        .bind(stored(lease.fence.0)?)
        .fetch_optional(tx.connection())
        .await?;
    Ok(row.is_some())
}

/// Whether this very report, fence and parts, was recorded before.
async fn is_recorded(tx: &mut Tx, lease: &Lease, parts: &[NewPart]) -> Result<bool, StoreError> {
    let Some(done) = sqlx::query(tx.sql(DONE_UNDER_FENCE))
        .bind(lease.job.as_str())
        .bind(i64::from(lease.task.0))
        .bind(stored(lease.fence.0)?)
        .fetch_optional(tx.connection())
        .await?
    else {
        return Ok(false);
    };
    let range = PartsOfTask::read(&done)?;
    let rows = sqlx::query(tx.sql(PARTS_IN_RANGE))
        .bind(lease.job.as_str())
        .bind(i64::from(range.file))
        .bind(i64::from(range.first))
        .bind(i64::from(range.end))
        .fetch_all(tx.connection())
        .await?;
    let recorded = rows
        .iter()
        .map(PartRow::read)
        .collect::<Result<Vec<_>, _>>()?;
    Ok(recorded.iter().map(|row| &row.part).eq(parts))
}
