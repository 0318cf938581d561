//! Lists of jobs, page by page.

use chatvec_core::ids::JobId;
use chatvec_core::job::JobState;
use chatvec_core::submission::{Labels, Tenant};

use super::job::{JobRow, job_columns};
use super::{Store, StoreError};

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
    /// With every one of these labels.
    pub labels: Labels,
    /// Of this tenant; `None` for any.
    pub tenant: Option<Tenant>,
    /// At most this many.
    pub limit: u32,
    /// The end of the page before, or `None` for the newest jobs.
    pub page_after: Option<JobPage>,
}

/// `{labels}` is the condition of each label that is asked for: see [`with_label`].
const JOBS: &str = concat!(
    "-- jobs
    SELECT ",
    job_columns!(),
    " FROM job
    WHERE state IN ($1, $2, $3, $4, $5, $6, $7, $8)
      AND (created_at_ms, job_id) < ($9, $10)
      AND tenant = coalesce($12, tenant){labels}
    ORDER BY created_at_ms DESC, job_id DESC
    LIMIT $11"
);

/// The first argument of a label: its name, then its value.
const FIRST_LABEL: usize = 13;

impl Store {
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
        let labels: String = (0..filter.labels.len()).map(with_label).collect();
        let mut query = sqlx::query(self.sql(&JOBS.replace("{labels}", &labels)));
        for position in 0..JobState::ALL.len() {
            query = query.bind(wanted[position.min(wanted.len() - 1)].name());
        }
        query = query
            .bind(created_at_ms)
            .bind(job_id)
            .bind(i64::from(filter.limit))
            .bind(filter.tenant.as_ref().map(|tenant| tenant.as_str()));
        for (name, value) in filter.labels.iter() {
            query = query.bind(name).bind(value);
        }
        let rows = query.fetch_all(self.database()).await?;
        rows.iter().map(JobRow::read).collect()
    }
}

/// The condition of the label at this position of the filter.
fn with_label(position: usize) -> String {
    let name = FIRST_LABEL + 2 * position;
    format!(
        " AND EXISTS (SELECT 1 FROM job_label WHERE job_label.job_id = job.job_id \
         AND job_label.name = ${name} AND job_label.value = ${})",
        name + 1
    )
}
