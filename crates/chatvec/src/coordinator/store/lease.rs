//! Leases: the claim, and giving a lease back or taking it away.

use std::collections::{BTreeSet, HashMap};

use chatvec_core::ids::{Attempt, Fence, FileOrdinal, JobId, TaskOrdinal, WorkerId};
use chatvec_core::job::JobState;
use chatvec_core::task::{Lease, TakenAway};
use sqlx::any::AnyRow;

use super::decode::stored;
use super::error::exactly_one;
use super::floor::Search;
use super::worker::see_worker;
use super::{Phase, Store, StoreError, Tx, WorkerInfo, decode, values};
use crate::fault::{self, Failpoint};

/// A task that a worker was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acquired {
    /// The right to run it.
    pub lease: Lease,
    /// What to do, encoded.
    pub spec: Vec<u8>,
    /// The multipart upload that the parts go to: the latest of the output file
    /// that is open, or `None` where the target is a file.
    pub upload_id: Option<String>,
    /// W3C trace context of the job's submission.
    pub traceparent: Option<String>,
}

/// A task that was just leased, with the position of its output file and its
/// place in the order of scheduling.
struct Claimed {
    lease: Lease,
    file: FileOrdinal,
    sched_key: i64,
}

/// What tells leases apart.
pub(super) type LeaseKey = (JobId, TaskOrdinal, Fence);

/// A worker counts as there if it was seen this recently.
pub(super) const WORKER_SEEN_MS: i64 = 60_000;

/// Whether worker $1 may be given a task, of those that {which} chooses. $2 is
/// [`WORKER_SEEN_MS`]. In COMMITTING what is READY are repairs.
///
/// The job is counted and not joined: a planner with old statistics took the
/// join first and sorted all tasks of the job for each claim, where the index
/// has the first ones in order.
macro_rules! claimable {
    () => {
        "state = 'READY' AND {which} AND not_before_ms <= {now}
          AND (SELECT count(*) FROM job
               WHERE job.job_id = task.job_id
                 AND job.state IN ('QUEUED', 'RUNNING', 'COMMITTING')
                 AND job.tenant NOT IN (
                     SELECT tenant FROM tenant
                     WHERE leased_tasks_max IS NOT NULL
                       AND leased_tasks_max <= (
                           SELECT count(*) FROM task AS held JOIN job AS own
                               ON own.job_id = held.job_id
                           WHERE held.state = 'LEASED' AND own.tenant = tenant.tenant))) > 0
          AND (stolen_from IS NULL OR stolen_from <> $1
               OR NOT EXISTS (SELECT 1 FROM worker
                              WHERE worker.worker_id <> $1 AND stopped_at_ms IS NULL
                                AND last_seen_ms > {now} - $2))"
    };
}

/// MATERIALIZED keeps a planner from choosing rows anew beyond the LIMIT. The
/// state that is computed is in no index: the chosen tasks are updated by their
/// keys, and not looked for among all that are READY.
pub(super) const CLAIM: &str = concat!(
    "-- claim
    WITH c AS MATERIALIZED (
        SELECT job_id AS c_job, task_no AS c_task FROM task
        WHERE sched_key >= $3 AND ",
    claimable!(),
    "
        ORDER BY sched_key, job_id, task_no
        LIMIT $4{skip_locked}
    )
    UPDATE task SET state = 'LEASED', fence = fence + 1, attempt = attempt + 1,
                    worker_id = $1, lease_expires_at_ms = {now} + $5, leased_at_ms = {now},
                    progressed_at_ms = {now}, missed_beats = 0,
                    progress_bytes = 0, updated_at_ms = {now}
    FROM c WHERE job_id = c_job AND task_no = c_task AND state || '' = 'READY'
    RETURNING job_id, task_no, file_no, fence, attempt, sched_key"
);

/// What {which} stands for: see [`TaskCounters::is_suspect`]. The index of
/// suspects has the number too.
///
/// [`TaskCounters::is_suspect`]: chatvec_core::task::TaskCounters::is_suspect
pub(super) const SUSPECTS: &str = "crashes >= 2";
pub(super) const OTHERS: &str = "crashes < 2";

/// Suspects that are not done with: all, and those that worker $1 holds.
const SUSPECTS_OPEN: &str = "-- suspects_open
    SELECT count(*) AS suspects, count(CASE WHEN worker_id = $1 THEN 1 END) AS held
    FROM task WHERE crashes >= 2 AND state IN ('READY', 'LEASED')";

/// Whether a task waits that worker $1 could be given; and how many it holds.
const WAITING_AND_HELD: &str = concat!(
    "-- waiting_and_held
    SELECT (SELECT count(*) FROM (SELECT 1 FROM task WHERE ",
    claimable!(),
    " LIMIT 1) AS claimable) AS waiting,
           (SELECT count(*) FROM task WHERE state = 'LEASED' AND worker_id = $1) AS held"
);

/// Also of tasks that may not be leased yet, and of those that another claim is
/// about to take.
const LEAST_READY: &str = "-- least_ready
    SELECT sched_key FROM task WHERE state = 'READY' AND sched_key >= $1
    ORDER BY sched_key, job_id, task_no LIMIT 1";

/// Null where no tenant has a limit that it has not reached. Where none has a
/// limit, no task is looked at.
const LEAST_ROOM: &str = "-- least_room
    WITH held AS (
        SELECT job.tenant AS h_tenant, count(*) AS tasks
        FROM task JOIN job ON job.job_id = task.job_id
        WHERE task.state = 'LEASED'
          AND EXISTS (SELECT 1 FROM tenant WHERE leased_tasks_max IS NOT NULL)
          AND job.tenant IN (SELECT tenant FROM tenant WHERE leased_tasks_max IS NOT NULL)
        GROUP BY job.tenant
    )
    SELECT min(leased_tasks_max - coalesce(tasks, 0)) AS room
    FROM tenant LEFT JOIN held ON h_tenant = tenant
    WHERE leased_tasks_max > coalesce(tasks, 0)";

const START_RUNNING: &str = "-- start_running
    UPDATE job SET state = 'RUNNING', revision = revision + 1, updated_at_ms = {now}
    WHERE job_id = $1 AND state = 'QUEUED'";

/// Each by its key alone: as a join, a database whose statistics are older than
/// the plan reads every task of the job to find a few.
const TASK_DETAILS: &str = "-- task_details
    WITH wanted (w_job, w_task, w_file) AS (VALUES {values})
    SELECT w_job AS job_id, w_task AS task_no,
           (SELECT spec FROM task_spec WHERE job_id = w_job AND task_no = w_task) AS spec,
           (SELECT traceparent FROM job WHERE job_id = w_job) AS traceparent,
           (SELECT upload_id FROM upload
            WHERE job_id = w_job AND file_no = w_file AND state = 'OPEN'
            ORDER BY epoch DESC LIMIT 1) AS upload_id
    FROM wanted";

const JOB_STATE: &str = "-- job_state
    SELECT state FROM job WHERE job_id = $1";

/// What a task without a holder becomes: it waits again, unless its job is not
/// wanted.
macro_rules! ready_or_cancelled {
    () => {
        "CASE WHEN EXISTS (SELECT 1 FROM job WHERE job.job_id = task.job_id AND job.state IN
             ('CANCELLING', 'SUCCEEDED', 'FAILED', 'CANCELLED'))
         THEN 'CANCELLED' ELSE 'READY' END"
    };
}

/// Ends a lease, uncharged.
macro_rules! end_uncharged {
    () => {
        concat!(
            "worker_id = NULL, lease_expires_at_ms = NULL, progress_bytes = 0, not_before_ms = 0,
             updated_at_ms = {now}, state = ",
            ready_or_cancelled!()
        )
    };
}

const RELEASE: &str = concat!(
    "-- release
    UPDATE task SET ",
    end_uncharged!(),
    " WHERE job_id = $1 AND task_no = $2 AND fence = $3 AND state = 'LEASED'"
);

/// Under a new fence: the worker may not know that it holds the lease, or may
/// not know that it lost it.
const TAKE_AWAY: &str = concat!(
    "-- take_away
    UPDATE task SET fence = fence + 1, steals = steals + $4,
                    stolen_from = CASE WHEN $4 > 0 THEN worker_id ELSE stolen_from END, ",
    end_uncharged!(),
    " WHERE job_id = $1 AND task_no = $2 AND fence = $3 AND state = 'LEASED'"
);

const RELEASE_ALL: &str = concat!(
    "-- release_all
    UPDATE task SET fence = fence + 1, ",
    end_uncharged!(),
    " WHERE state = 'LEASED'"
);

impl Store {
    /// Leases up to `max` tasks to the worker, for `lease_ms` from now, and
    /// notes that the worker was seen. Tasks come in the fair order of
    /// [`chatvec_core::task::sched_keys`]. A task is given to one caller only,
    /// whatever runs at the same time. A job's first lease makes it RUNNING.
    ///
    /// A task that is suspected of taking down its workers is leased alone, to
    /// a worker that holds nothing; while one waits, the others get nothing until
    /// one of them has finished what it holds.
    ///
    /// A tenant gets no more leases than its limit; callers at the same
    /// moment, which don't see each other's leases, may exceed it by theirs. A
    /// worker that a task was stolen from does not get it while others are there.
    ///
    /// Transaction `acquire_tasks`.
    pub async fn acquire_tasks(
        &self,
        worker: &WorkerInfo,
        max: u32,
        lease_ms: i64,
    ) -> Result<Vec<Acquired>, StoreError> {
        let mut tx = self.begin().await?;
        see_worker(&mut tx, worker, Phase::Working).await?;
        let mut search = self.floor.search(*self.tasks_ready().borrow());
        let suspect = claim_suspect(&mut tx, &worker.worker_id, lease_ms).await?;
        let has_kept_others_waiting = matches!(suspect, Suspect::Leased(_));
        let claims = match suspect {
            Suspect::None => {
                claim_others(&mut tx, &worker.worker_id, max, lease_ms, &mut search).await?
            }
            Suspect::Leased(claimed) => vec![claimed],
            Suspect::InTheWay => Vec::new(),
        };
        let least_key = least_ready(&mut tx, &search).await?;
        let mut started = 0;
        let jobs: BTreeSet<_> = claims.iter().map(|claimed| &claimed.lease.job).collect();
        for job in jobs {
            started += start_running(&mut tx, job).await?;
        }
        let acquired = with_details(&mut tx, claims).await?;
        fault::hit(Failpoint::ClaimUncommitted, &worker.worker_id).await?;
        tx.commit().await?;
        if let Some(key) = least_key {
            self.floor.found(&search, key);
        }
        if started > 0 {
            self.wake.jobs_changed();
        }
        if has_kept_others_waiting {
            self.wake.tasks_ready();
        }
        fault::hit(Failpoint::ClaimCommitted, &worker.worker_id).await?;
        Ok(acquired)
    }

    /// Gives a lease back, uncharged: the task is READY at once, or CANCELLED
    /// if its job is cancelling or has ended.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`].
    pub async fn release_task(&self, lease: &Lease) -> Result<(), StoreError> {
        let done = sqlx::query(self.sql(RELEASE))
            .bind(lease.job.as_str())
            .bind(i64::from(lease.task.0))
            .bind(stored(lease.fence.0)?)
            .execute(self.database())
            .await?;
        exactly_one(done.rows_affected(), || lost(lease))?;
        self.wake.tasks_ready();
        Ok(())
    }

    /// Takes back every lease, uncharged, and returns how many there were. The
    /// caller has proved that every process that could hold one is dead.
    pub async fn release_all_leases(&self) -> Result<u64, StoreError> {
        let done = sqlx::query(self.sql(RELEASE_ALL))
            .execute(self.database())
            .await?;
        self.wake.tasks_ready();
        Ok(done.rows_affected())
    }
}

/// Takes a lease from a worker that is alive, uncharged; `false` if the lease
/// has ended otherwise.
pub(super) async fn take_away(
    tx: &mut Tx,
    lease: &LeaseKey,
    why: TakenAway,
) -> Result<bool, StoreError> {
    let (job, task, fence) = lease;
    let done = sqlx::query(tx.sql(TAKE_AWAY))
        .bind(job.as_str())
        .bind(i64::from(task.0))
        .bind(stored(fence.0)?)
        .bind(i64::from(why == TakenAway::Stolen))
        .execute(tx.connection())
        .await?;
    Ok(done.rows_affected() > 0)
}

/// The lease of a row with the columns `job_id`, `task_no` and `fence`.
pub(super) fn read_key(row: &AnyRow) -> Result<LeaseKey, StoreError> {
    Ok((
        JobId(decode::text(row, "job_id")?),
        TaskOrdinal(decode::number(row, "task_no")?),
        Fence(decode::number(row, "fence")?),
    ))
}

/// The error of a report whose lease is over.
pub(super) fn lost(lease: &Lease) -> StoreError {
    StoreError::LeaseLost {
        job: lease.job.clone(),
        task: lease.task,
    }
}

/// Where the job stands.
pub(super) async fn job_state(tx: &mut Tx, job: &JobId) -> Result<JobState, StoreError> {
    let row = sqlx::query(tx.sql(JOB_STATE))
        .bind(job.as_str())
        .fetch_optional(tx.connection())
        .await?
        .ok_or_else(|| StoreError::JobNotFound(job.clone()))?;
    decode::name(&row, "state")
}

/// What suspected tasks mean for a worker that asks for tasks.
enum Suspect {
    /// There is none for it: it may have others.
    None,
    /// It gets this one alone.
    Leased(Claimed),
    /// It holds one, or is to finish what it holds and get one then.
    InTheWay,
}

/// Leases a suspect, if one waits and the worker holds nothing.
async fn claim_suspect(
    tx: &mut Tx,
    worker: &WorkerId,
    lease_ms: i64,
) -> Result<Suspect, StoreError> {
    let row = sqlx::query(tx.sql(SUSPECTS_OPEN))
        .bind(worker.as_str())
        .fetch_one(tx.connection())
        .await?;
    let count = |row: &AnyRow, name| decode::number::<u64>(row, name);
    if count(&row, "suspects")? == 0 {
        return Ok(Suspect::None);
    }
    if count(&row, "held")? > 0 {
        return Ok(Suspect::InTheWay);
    }
    let row = sqlx::query(tx.sql(&WAITING_AND_HELD.replace("{which}", SUSPECTS)))
        .bind(worker.as_str())
        .bind(WORKER_SEEN_MS)
        .fetch_one(tx.connection())
        .await?;
    if count(&row, "waiting")? == 0 {
        return Ok(Suspect::None);
    }
    if count(&row, "held")? > 0 {
        return Ok(Suspect::InTheWay);
    }
    let claimed = claim(tx, SUSPECTS, worker, 1, lease_ms, i64::MIN).await?;
    // Another worker may just have got the last one.
    Ok(claimed
        .into_iter()
        .next()
        .map_or(Suspect::None, Suspect::Leased))
}

/// Leases up to `max` tasks that are not suspected.
async fn claim_others(
    tx: &mut Tx,
    worker: &WorkerId,
    max: u32,
    lease_ms: i64,
    search: &mut Search,
) -> Result<Vec<Claimed>, StoreError> {
    let mut claims: Vec<Claimed> = Vec::new();
    while let wanted @ 1.. = max - claims.len() as u32 {
        // No further than the first tenant's limit: then look again.
        let room = least_room(tx).await?;
        let ask = room.unwrap_or(wanted).min(wanted);
        let claimed = claim(tx, OTHERS, worker, ask, lease_ms, search.from).await?;
        let is_short = claimed.len() < ask as usize;
        claims.extend(claimed);
        if is_short && search.is_wide() {
            break;
        }
        if is_short {
            search.widen();
        }
    }
    Ok(claims)
}

/// The claim itself, among suspects or others; leases in the order of scheduling.
async fn claim(
    tx: &mut Tx,
    which: &str,
    worker: &WorkerId,
    max: u32,
    lease_ms: i64,
    from: i64,
) -> Result<Vec<Claimed>, StoreError> {
    let rows = sqlx::query(tx.sql(&CLAIM.replace("{which}", which)))
        .bind(worker.as_str())
        .bind(WORKER_SEEN_MS)
        .bind(from)
        .bind(i64::from(max))
        .bind(lease_ms)
        .fetch_all(tx.connection())
        .await?;
    let mut claimed = rows
        .iter()
        .map(|row| {
            let lease = Lease {
                job: JobId(decode::text(row, "job_id")?),
                task: TaskOrdinal(decode::number(row, "task_no")?),
                fence: Fence(decode::number(row, "fence")?),
                attempt: Attempt(decode::number(row, "attempt")?),
            };
            Ok(Claimed {
                lease,
                file: FileOrdinal(decode::number(row, "file_no")?),
                sched_key: decode::number(row, "sched_key")?,
            })
        })
        .collect::<Result<Vec<_>, StoreError>>()?;
    let place = |one: &Claimed| (one.sched_key, one.lease.job.clone(), one.lease.task);
    claimed.sort_by_cached_key(place);
    Ok(claimed)
}

/// QUEUED becomes RUNNING; returns how many jobs that were: 0 or 1.
async fn start_running(tx: &mut Tx, job: &JobId) -> Result<u64, StoreError> {
    let done = sqlx::query(tx.sql(START_RUNNING))
        .bind(job.as_str())
        .execute(tx.connection())
        .await?;
    Ok(done.rows_affected())
}

/// The leases with all that their worker needs to know.
async fn with_details(tx: &mut Tx, claims: Vec<Claimed>) -> Result<Vec<Acquired>, StoreError> {
    let mut details = HashMap::with_capacity(claims.len());
    for batch in values::slices(&claims) {
        let list = values::rows(batch.len(), "", 1, 3);
        let mut query = sqlx::query(tx.sql(&TASK_DETAILS.replace("{values}", &list)));
        for Claimed { lease, file, .. } in batch {
            query = query
                .bind(lease.job.as_str())
                .bind(i64::from(lease.task.0))
                .bind(i64::from(file.0));
        }
        for row in query.fetch_all(tx.connection()).await? {
            let job = JobId(decode::text(&row, "job_id")?);
            let task = TaskOrdinal(decode::number(&row, "task_no")?);
            details.insert((job, task), row);
        }
    }
    let acquired = |Claimed { lease, .. }: Claimed| {
        let (job, task) = (lease.job.clone(), lease.task);
        let row = details
            .get(&(job.clone(), task))
            .ok_or(StoreError::TaskNotFound { job, task })?;
        Ok(Acquired {
            lease,
            spec: decode::bytes(row, "spec")?,
            upload_id: decode::text_or_null(row, "upload_id")?,
            traceparent: decode::text_or_null(row, "traceparent")?,
        })
    };
    claims.into_iter().map(acquired).collect()
}

/// The least key of a task that is READY still, from where the claim looked.
async fn least_ready(tx: &mut Tx, search: &Search) -> Result<Option<i64>, StoreError> {
    let row = sqlx::query(tx.sql(LEAST_READY))
        .bind(search.from)
        .fetch_optional(tx.connection())
        .await?;
    row.map(|row| decode::number(&row, "sched_key")).transpose()
}

/// How many more leases the tenant that is closest to its limit may have;
/// `None` if there is none with a limit that it has not reached.
async fn least_room(tx: &mut Tx) -> Result<Option<u32>, StoreError> {
    let row = sqlx::query(tx.sql(LEAST_ROOM))
        .fetch_one(tx.connection())
        .await?;
    decode::number_or_null(&row, "room")
}
