//! The rows of jobs: reading, and the one way to change a state.

use std::collections::BTreeMap;
use std::time::Duration;

use chatvec_core::ids::{Digest, JobId, RequestId};
use chatvec_core::job::JobState;
use chatvec_core::problem::Problem;
use chatvec_core::submission::{Labels, Priority, Tenant};
use chatvec_core::task::FailureKind;
use sqlx::any::AnyRow;

use super::error::exactly_one;
use super::{Epoch, Store, StoreError, Tx, decode};

/// Why a job or a task failed, as it is stored and shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobError {
    /// The class.
    pub kind: FailureKind,
    /// The object, what was expected and what was found, and what to do.
    pub problem: Problem,
}

/// A job as it stands. Times are milliseconds since the Unix epoch by the
/// database's clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobRow {
    /// The job.
    pub job_id: JobId,
    /// The client's name for the submission, unique within the tenant.
    pub request_id: RequestId,
    /// Who it is accounted to.
    pub tenant: Tenant,
    /// How much it matters.
    pub priority: Priority,
    /// What the client says about it.
    pub labels: Labels,
    /// The recipe as canonical JSON.
    pub recipe_json: String,
    /// SHA-256 of `recipe_json`.
    pub recipe_digest: Digest,
    /// Where the checkpoint is published.
    pub output_url: String,
    /// Digest of recipe and pinned inputs, once planned.
    pub input_key: Option<Digest>,
    /// Bytes of output weights, once planned.
    pub bytes: u64,
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

/// Every column that [`JobRow::read`] reads.
macro_rules! job_columns {
    () => {
        "job_id, request_key, tenant, priority, labels, recipe, recipe_digest, output_url, \
         input_key, bytes, state, epoch, revision, error_kind, error_subject, error_message, error_hint, traceparent, \
         created_at_ms, updated_at_ms, planned_at_ms, committing_at_ms, finished_at_ms, cleaned_at_ms"
    };
}
pub(super) use job_columns;

const JOB: &str = concat!(
    "-- job
    SELECT ",
    job_columns!(),
    " FROM job WHERE job_id = $1"
);

const AGE_OF_JOB: &str = "-- age_of_job
    SELECT {now} - created_at_ms AS age_ms FROM job WHERE job_id = $1";

const AGE_OF_COMMIT: &str = "-- age_of_commit
    SELECT {now} - committing_at_ms AS age_ms FROM job
    WHERE job_id = $1 AND state = 'COMMITTING'";

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

impl Store {
    /// The job, if there is one.
    pub async fn job(&self, job: &JobId) -> Result<Option<JobRow>, StoreError> {
        let row = sqlx::query(self.sql(JOB))
            .bind(job.as_str())
            .fetch_optional(self.database())
            .await?;
        row.as_ref().map(JobRow::read).transpose()
    }
}

impl Store {
    /// How long ago a job was submitted.
    ///
    /// # Errors
    /// [`StoreError::JobNotFound`].
    pub async fn age_of_job(&self, job: &JobId) -> Result<Duration, StoreError> {
        let row = sqlx::query(self.sql(AGE_OF_JOB))
            .bind(job.as_str())
            .fetch_optional(self.database())
            .await?
            .ok_or_else(|| StoreError::JobNotFound(job.clone()))?;
        Ok(Duration::from_millis(decode::number(&row, "age_ms")?))
    }

    /// How long a job has been COMMITTING; `None` in any other state.
    pub async fn age_of_commit(&self, job: &JobId) -> Result<Option<Duration>, StoreError> {
        let row = sqlx::query(self.sql(AGE_OF_COMMIT))
            .bind(job.as_str())
            .fetch_optional(self.database())
            .await?;
        let age = |row| Ok(Duration::from_millis(decode::number(row, "age_ms")?));
        row.as_ref().map(age).transpose()
    }
}

impl JobRow {
    /// From the columns of `job_columns`.
    pub(super) fn read(row: &AnyRow) -> Result<Self, StoreError> {
        Ok(Self {
            job_id: JobId(decode::text(row, "job_id")?),
            request_id: request_id(row)?,
            tenant: tenant(row)?,
            priority: priority(row)?,
            labels: labels(row)?,
            recipe_json: decode::text(row, "recipe")?,
            recipe_digest: Digest(decode::text(row, "recipe_digest")?),
            output_url: decode::text(row, "output_url")?,
            input_key: decode::text_or_null(row, "input_key")?.map(Digest),
            bytes: decode::number(row, "bytes")?,
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
        Err(self.epoch_lost(held))
    }

    /// The error of a caller whose epoch is over.
    pub(super) fn epoch_lost(&self, held: Epoch) -> StoreError {
        StoreError::EpochLost {
            job: self.job_id.clone(),
            held,
            current: self.epoch,
        }
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

/// What no two jobs have alike: the request's name within its tenant.
pub(super) fn request_key(tenant: &Tenant, request: &RequestId) -> String {
    format!("{tenant}/{request}")
}

fn request_id(row: &AnyRow) -> Result<RequestId, StoreError> {
    let key = decode::text(row, "request_key")?;
    match key.split_once('/') {
        Some((_, request)) => Ok(RequestId(request.to_owned())),
        None => Err(decode::corrupt("request_key", key)),
    }
}

/// The column `tenant`.
pub(super) fn tenant(row: &AnyRow) -> Result<Tenant, StoreError> {
    let name = decode::text(row, "tenant")?;
    Tenant::parse(&name).map_err(|_| decode::corrupt("tenant", name))
}

fn priority(row: &AnyRow) -> Result<Priority, StoreError> {
    let value: u32 = decode::number(row, "priority")?;
    Priority::new(value).map_err(|_| decode::corrupt("priority", value))
}

fn labels(row: &AnyRow) -> Result<Labels, StoreError> {
    let text = decode::text(row, "labels")?;
    let values: Option<BTreeMap<String, String>> = serde_json::from_str(&text).ok();
    values
        .and_then(|values| Labels::parse(values).ok())
        .ok_or_else(|| decode::corrupt("labels", text))
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
