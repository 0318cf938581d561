//! Submission: one job for each request, one job at a time for each output.

use std::collections::BTreeMap;

use chatvec_core::ids::{Digest, JobId, RequestId};
use chatvec_core::submission::{Labels, Priority, Tenant};

use super::error::exactly_one;
use super::job::{JobRow, job_columns, request_key};
use super::{Store, StoreError, Tx, decode, values};

/// A job to be created.
#[derive(Debug, Clone)]
pub struct NewJob {
    /// A fresh id.
    pub job_id: JobId,
    /// The client's name for this submission, unique within the tenant.
    pub request_id: RequestId,
    /// Who the job is accounted to.
    pub tenant: Tenant,
    /// How much it matters.
    pub priority: Priority,
    /// What the client says about it.
    pub labels: Labels,
    /// The recipe as canonical JSON.
    pub recipe_json: String,
    /// SHA-256 of `recipe_json`.
    pub recipe_digest: Digest,
    /// Where the checkpoint is to be published.
    pub output_url: String,
    /// The output in the one form that names it: see [`StoreError::OutputInUse`].
    pub output_key: String,
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

/// Makes the tenant's row if it is missing, and locks it: submissions of one
/// tenant follow each other, so that each sees what the one before has made.
const LOCK_TENANT: &str = "-- lock_tenant
    INSERT INTO tenant (tenant) VALUES ($1)
    ON CONFLICT (tenant) DO UPDATE SET tenant = excluded.tenant
    RETURNING open_jobs_max";

const JOB_OF_REQUEST: &str = concat!(
    "-- job_of_request
    SELECT ",
    job_columns!(),
    " FROM job WHERE request_key = $1"
);

const OPEN_JOBS: &str = "-- open_jobs
    SELECT count(*) AS jobs FROM job
    WHERE tenant = $1
      AND state IN ('PLANNING', 'QUEUED', 'RUNNING', 'COMMITTING', 'CANCELLING')";

const INSERT_JOB: &str = concat!(
    "-- insert_job
    INSERT INTO job (job_id, request_key, tenant, priority, labels, recipe, recipe_digest,
                     output_url, traceparent, created_at_ms, updated_at_ms)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, {now}, {now})
    RETURNING ",
    job_columns!()
);

const INSERT_LABELS: &str = "-- insert_labels
    INSERT INTO job_label (job_id, name, value) VALUES ";

/// Returns whoever has the output now: this job, or the one that had it before.
const CLAIM_OUTPUT: &str = "-- claim_output
    INSERT INTO output_claim (output_key, job_id) VALUES ($1, $2)
    ON CONFLICT (output_key) DO UPDATE SET output_key = excluded.output_key
    RETURNING job_id";

const RELEASE_OUTPUT: &str = "-- release_output
    DELETE FROM output_claim WHERE job_id = $1";

impl Store {
    /// Creates a job in PLANNING, or finds the one that the same request made:
    /// however often and from wherever a request is repeated, and whatever has
    /// become of its output or of the tenant's limit since, it makes one job.
    ///
    /// Transaction `create_job`.
    ///
    /// # Errors
    /// [`StoreError::RequestIdReused`] if the request id came with another
    /// recipe before, [`StoreError::TenantFull`] if the tenant has as many open
    /// jobs as it may, [`StoreError::OutputInUse`] if another job writes to the
    /// output, or has left something there that is not removed yet.
    pub async fn create_job(&self, new: &NewJob) -> Result<(JobRow, Created), StoreError> {
        let mut tx = self.begin().await?;
        let open_jobs_max = lock_tenant(&mut tx, &new.tenant).await?;
        if let Some(job) = job_of_request(&mut tx, new).await? {
            if job.recipe_digest != new.recipe_digest {
                return Err(StoreError::RequestIdReused {
                    request: new.request_id.clone(),
                });
            }
            return Ok((job, Created::Existing));
        }
        if let Some(limit) = open_jobs_max
            && open_jobs(&mut tx, &new.tenant).await? >= limit
        {
            return Err(StoreError::TenantFull {
                tenant: new.tenant.clone(),
                limit,
            });
        }
        let job = insert_job(&mut tx, new).await?;
        claim_output(&mut tx, new).await?;
        let labels: Vec<_> = new.labels.iter().collect();
        for batch in values::slices(&labels) {
            insert_labels(&mut tx, &new.job_id, batch).await?;
        }
        tx.commit().await?;
        self.wake.jobs_changed();
        Ok((job, Created::Created))
    }
}

/// Locks the tenant until the transaction ends; returns its limit of open jobs.
async fn lock_tenant(tx: &mut Tx, tenant: &Tenant) -> Result<Option<u64>, StoreError> {
    let row = sqlx::query(tx.sql(LOCK_TENANT))
        .bind(tenant.as_str())
        .fetch_one(tx.connection())
        .await?;
    decode::number_or_null(&row, "open_jobs_max")
}

async fn job_of_request(tx: &mut Tx, new: &NewJob) -> Result<Option<JobRow>, StoreError> {
    let row = sqlx::query(tx.sql(JOB_OF_REQUEST))
        .bind(request_key(&new.tenant, &new.request_id))
        .fetch_optional(tx.connection())
        .await?;
    row.as_ref().map(JobRow::read).transpose()
}

/// How many jobs of the tenant have not ended.
async fn open_jobs(tx: &mut Tx, tenant: &Tenant) -> Result<u64, StoreError> {
    let row = sqlx::query(tx.sql(OPEN_JOBS))
        .bind(tenant.as_str())
        .fetch_one(tx.connection())
        .await?;
    decode::number(&row, "jobs")
}

async fn insert_job(tx: &mut Tx, new: &NewJob) -> Result<JobRow, StoreError> {
    let labels = serde_json::to_string(&new.labels.iter().collect::<BTreeMap<_, _>>())
        .expect("a map of texts is a JSON object");
    let row = sqlx::query(tx.sql(INSERT_JOB))
        .bind(new.job_id.as_str())
        .bind(request_key(&new.tenant, &new.request_id))
        .bind(new.tenant.as_str())
        .bind(i64::from(new.priority.number()))
        .bind(labels)
        .bind(new.recipe_json.as_str())
        .bind(new.recipe_digest.as_str())
        .bind(new.output_url.as_str())
        .bind(new.traceparent.clone())
        .fetch_all(tx.connection())
        .await?;
    exactly_one(row.len() as u64, || {
        StoreError::JobNotFound(new.job_id.clone())
    })?;
    JobRow::read(&row[0])
}

async fn claim_output(tx: &mut Tx, new: &NewJob) -> Result<(), StoreError> {
    let row = sqlx::query(tx.sql(CLAIM_OUTPUT))
        .bind(new.output_key.as_str())
        .bind(new.job_id.as_str())
        .fetch_one(tx.connection())
        .await?;
    let holder = JobId(decode::text(&row, "job_id")?);
    if holder == new.job_id {
        return Ok(());
    }
    Err(StoreError::OutputInUse {
        output: new.output_key.clone(),
        job: holder,
    })
}

async fn insert_labels(tx: &mut Tx, job: &JobId, batch: &[(&str, &str)]) -> Result<(), StoreError> {
    let rows = values::rows(batch.len(), "$1, ", 2, 2);
    let mut query = sqlx::query(tx.sql(&format!("{INSERT_LABELS}{rows}"))).bind(job.as_str());
    for (name, value) in batch {
        query = query.bind(*name).bind(*value);
    }
    query.execute(tx.connection()).await?;
    Ok(())
}

/// Lets other jobs write to the job's output.
pub(super) async fn release_output(tx: &mut Tx, job: &JobId) -> Result<(), StoreError> {
    sqlx::query(tx.sql(RELEASE_OUTPUT))
        .bind(job.as_str())
        .execute(tx.connection())
        .await?;
    Ok(())
}
