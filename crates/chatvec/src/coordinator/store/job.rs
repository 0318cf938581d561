//! The rows of jobs: submission, reading, and the one way to change a state.

use std::fmt;

use chatvec_core::ids::{Digest, JobId, RequestId};
use chatvec_core::job::JobState;
use chatvec_core::problem::Problem;
use chatvec_core::task::FailureKind;
use sqlx::any::AnyRow;

use super::error::exactly_one;
use super::{Store, StoreError, Tx, decode};

/// Which coordinator plans or commits a job: the latest to begin. What an
/// earlier one writes is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub(super) u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Why a job or a task failed, as it is stored and shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobError {
    /// The class.
    pub kind: FailureKind,
    /// The object, what was expected and what was found, and what to do.
    pub problem: Problem,
}

/// A job to be created.
#[derive(Debug, Clone)]
pub struct NewJob {
    /// A fresh id.
    pub job_id: JobId,
    /// The client's name for this submission.
    pub request_id: RequestId,
    /// The recipe as canonical JSON.
    pub recipe_json: String,
    /// SHA-256 of `recipe_json`.
    pub recipe_digest: Digest,
    /// Where the checkpoint is to be published.
    pub output_url: String,
    /// W3C trace context of the submission.
    pub traceparent: Option<String>,
}

/// Whether a submission made a job or found one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    /// The job is new.
    Created,
    /// The same request had made it before.
    Existing,
}

/// A job as it stands. Times are milliseconds since the Unix epoch by the
/// database's clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobRow {
    /// The job.
    pub job_id: JobId,
    /// The client's name for the submission.
    pub request_id: RequestId,
    /// The recipe as canonical JSON.
    pub recipe_json: String,
    /// SHA-256 of `recipe_json`.
    pub recipe_digest: Digest,
    /// Where the checkpoint is published.
    pub output_url: String,
    /// Digest of recipe and pinned inputs, once planned.
    pub input_key: Option<Digest>,
    /// Where the job stands.
    pub state: JobState,
    /// Of the latest coordinator that began to plan or commit it.
    pub epoch: Epoch,
    /// Rises at each change of state, and when a finished task is reopened.
    pub revision: u64,
    /// Why it failed, if it did.
    pub error: Option<JobError>,
    /// W3C trace context of the submission.
    pub traceparent: Option<String>,
    /// When it was submitted.
    pub created_at_ms: i64,
    /// When the row last changed.
    pub updated_at_ms: i64,
    /// When its plan was stored.
    pub planned_at_ms: Option<i64>,
    /// When its part list was frozen.
    pub committing_at_ms: Option<i64>,
    /// When it ended.
    pub finished_at_ms: Option<i64>,
    /// When its leftovers in storage were removed.
    pub cleaned_at_ms: Option<i64>,
}

/// Where a page of jobs begins: after this job, which ended the page before.
#[derive(Debug, Clone)]
pub struct JobPage {
    /// Its time of creation.
    pub created_at_ms: i64,
    /// Its id.
    pub job_id: JobId,
}

/// Which jobs to list.
#[derive(Debug, Clone, Default)]
pub struct JobFilter {
    /// In one of these states; empty for any.
    pub states: Vec<JobState>,
    /// At most this many.
    pub limit: u32,
    /// The end of the page before, or `None` for the newest jobs.
    pub page_after: Option<JobPage>,
}

macro_rules! job_columns {
    () => {
        "job_id, request_id, recipe, recipe_digest, output_url, input_key, state, epoch, \
         revision, error_kind, error_subject, error_message, error_hint, traceparent, created_at_ms, \
         updated_at_ms, planned_at_ms, committing_at_ms, finished_at_ms, cleaned_at_ms"
    };
}

const INSERT_JOB: &str = concat!(
    "-- insert_job
    INSERT INTO job (job_id, request_id, recipe, recipe_digest, output_url, traceparent,
                     created_at_ms, updated_at_ms)
    VALUES ($1, $2, $3, $4, $5, $6, {now}, {now})
    ON CONFLICT (request_id) DO NOTHING
    RETURNING ",
    job_columns!()
);

const JOB_OF_REQUEST: &str = concat!(
    "-- job_of_request
    SELECT ",
    job_columns!(),
    " FROM job WHERE request_id = $1"
);

const JOB: &str = concat!(
    "-- job
    SELECT ",
    job_columns!(),
    " FROM job WHERE job_id = $1"
);

const JOBS: &str = concat!(
    "-- jobs
    SELECT ",
    job_columns!(),
    " FROM job
    WHERE state IN ($1, $2, $3, $4, $5, $6, $7, $8)
      AND (created_at_ms, job_id) < ($9, $10)
    ORDER BY created_at_ms DESC, job_id DESC
    LIMIT $11"
);

/// Writes nothing new: the portable way to lock a row until the transaction ends.
const LOCK_JOB: &str = concat!(
    "-- lock_job
    UPDATE job SET revision = revision WHERE job_id = $1
    RETURNING ",
    job_columns!()
);

const SET_JOB_STATE: &str = concat!(
    "-- set_job_state
    UPDATE job SET
        state = $3, revision = revision + 1, updated_at_ms = {now},
        error_kind = $4, error_subject = $5, error_message = $6, error_hint = $7,
        planned_at_ms = CASE WHEN $3 = 'QUEUED' THEN {now} ELSE planned_at_ms END,
        committing_at_ms = CASE WHEN $3 = 'COMMITTING' THEN {now} ELSE committing_at_ms END,
        finished_at_ms = CASE WHEN $3 IN ('SUCCEEDED', 'FAILED', 'CANCELLED')
                              THEN {now} ELSE finished_at_ms END
    WHERE job_id = $1 AND state = $2
    RETURNING ",
    job_columns!()
);

const RAISE_EPOCH: &str = "-- raise_epoch
    UPDATE job SET epoch = epoch + 1, updated_at_ms = {now} WHERE job_id = $1
    RETURNING epoch";

impl Store {
    /// Creates a job in PLANNING, or finds the one that the same request made.
    /// However often and from wherever a request is repeated, it makes one job.
    ///
    /// # Errors
    /// [`StoreError::RequestIdReused`] if the request id came with another
    /// recipe before.
    pub async fn create_job(&self, new: &NewJob) -> Result<(JobRow, Created), StoreError> {
        let inserted = sqlx::query(self.sql(INSERT_JOB))
            .bind(new.job_id.as_str())
            .bind(new.request_id.as_str())
            .bind(new.recipe_json.as_str())
            .bind(new.recipe_digest.as_str())
            .bind(new.output_url.as_str())
            .bind(new.traceparent.clone())
            .fetch_all(&self.pool)
            .await?;
        if let Some(row) = inserted.first() {
            self.wake.jobs_changed();
            return Ok((JobRow::read(row)?, Created::Created));
        }
        let row = sqlx::query(self.sql(JOB_OF_REQUEST))
            .bind(new.request_id.as_str())
            .fetch_one(&self.pool)
            .await?;
        let job = JobRow::read(&row)?;
        if job.recipe_digest != new.recipe_digest {
            return Err(StoreError::RequestIdReused {
                request: new.request_id.clone(),
            });
        }
        Ok((job, Created::Existing))
    }

    /// The job, if there is one.
    pub async fn job(&self, job: &JobId) -> Result<Option<JobRow>, StoreError> {
        let row = sqlx::query(self.sql(JOB))
            .bind(job.as_str())
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map(JobRow::read).transpose()
    }

    /// A page of jobs, newest first.
    pub async fn jobs(&self, filter: &JobFilter) -> Result<Vec<JobRow>, StoreError> {
        let wanted = if filter.states.is_empty() {
            &JobState::ALL[..]
        } else {
            &filter.states
        };
        let (created_at_ms, job_id) = match &filter.page_after {
            Some(page) => (page.created_at_ms, page.job_id.as_str()),
            None => (i64::MAX, ""),
        };
        let mut query = sqlx::query(self.sql(JOBS));
        for position in 0..JobState::ALL.len() {
            query = query.bind(wanted[position.min(wanted.len() - 1)].name());
        }
        let rows = query
            .bind(created_at_ms)
            .bind(job_id)
            .bind(i64::from(filter.limit))
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(JobRow::read).collect()
    }
}

impl JobRow {
    fn read(row: &AnyRow) -> Result<Self, StoreError> {
        Ok(Self {
            job_id: JobId(decode::text(row, "job_id")?),
            request_id: RequestId(decode::text(row, "request_id")?),
            recipe_json: decode::text(row, "recipe")?,
            recipe_digest: Digest(decode::text(row, "recipe_digest")?),
            output_url: decode::text(row, "output_url")?,
            input_key: decode::text_or_null(row, "input_key")?.map(Digest),
            state: decode::name(row, "state")?,
            epoch: Epoch(decode::number(row, "epoch")?),
            revision: decode::number(row, "revision")?,
            error: JobError::read(row)?,
            traceparent: decode::text_or_null(row, "traceparent")?,
            created_at_ms: decode::number(row, "created_at_ms")?,
            updated_at_ms: decode::number(row, "updated_at_ms")?,
            planned_at_ms: decode::number_or_null(row, "planned_at_ms")?,
            committing_at_ms: decode::number_or_null(row, "committing_at_ms")?,
            finished_at_ms: decode::number_or_null(row, "finished_at_ms")?,
            cleaned_at_ms: decode::number_or_null(row, "cleaned_at_ms")?,
        })
    }

    /// Nothing if the caller's epoch is the current one.
    pub(super) fn check_epoch(&self, held: Epoch) -> Result<(), StoreError> {
        if self.epoch == held {
            return Ok(());
        }
        Err(StoreError::EpochLost {
            job: self.job_id.clone(),
            held,
            current: self.epoch,
        })
    }

    /// The error of a call that this job's state does not allow.
    pub(super) fn wrong_state(&self) -> StoreError {
        StoreError::WrongState {
            job: self.job_id.clone(),
            state: self.state,
        }
    }
}

impl JobError {
    /// The error columns of a job or of a task.
    pub(super) fn read(row: &AnyRow) -> Result<Option<Self>, StoreError> {
        if decode::text_or_null(row, "error_kind")?.is_none() {
            return Ok(None);
        }
        let problem = Problem {
            subject: decode::text(row, "error_subject")?,
            message: decode::text(row, "error_message")?,
            hint: decode::text_or_null(row, "error_hint")?,
        };
        Ok(Some(Self {
            kind: decode::name(row, "error_kind")?,
            problem,
        }))
    }
}

/// Locks the job's row until the transaction ends, and reads it.
pub(super) async fn lock_job(tx: &mut Tx, job: &JobId) -> Result<JobRow, StoreError> {
    let rows = sqlx::query(tx.sql(LOCK_JOB))
        .bind(job.as_str())
        .fetch_all(tx.connection())
        .await?;
    exactly_one(rows.len() as u64, || StoreError::JobNotFound(job.clone()))?;
    JobRow::read(&rows[0])
}

/// Moves a locked job to its next state, and sets the time that belongs to it.
/// `error` is given if and only if the next state is FAILED.
///
/// # Errors
/// [`StoreError::WrongState`] if that state may not follow the job's.
pub(super) async fn set_job_state(
    tx: &mut Tx,
    job: &JobRow,
    next: JobState,
    error: Option<&JobError>,
) -> Result<JobRow, StoreError> {
    if !job.state.may_become(next) {
        return Err(job.wrong_state());
    }
    let rows = sqlx::query(tx.sql(SET_JOB_STATE))
        .bind(job.job_id.as_str())
        .bind(job.state.name())
        .bind(next.name())
        .bind(error.map(|error| error.kind.name()))
        .bind(error.map(|error| error.problem.subject.clone()))
        .bind(error.map(|error| error.problem.message.clone()))
        .bind(error.and_then(|error| error.problem.hint.clone()))
        .fetch_all(tx.connection())
        .await?;
    exactly_one(rows.len() as u64, || job.wrong_state())?;
    JobRow::read(&rows[0])
}

/// Begins a new epoch of a locked job: every earlier holder's writes are
/// refused from now on.
pub(super) async fn raise_epoch(tx: &mut Tx, job: &JobId) -> Result<Epoch, StoreError> {
    let rows = sqlx::query(tx.sql(RAISE_EPOCH))
        .bind(job.as_str())
        .fetch_all(tx.connection())
        .await?;
    exactly_one(rows.len() as u64, || StoreError::JobNotFound(job.clone()))?;
    Ok(Epoch(decode::number(&rows[0], "epoch")?))
}
