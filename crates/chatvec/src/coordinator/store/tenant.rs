//! Tenants: whom jobs are accounted to, their shares and limits, and where
//! their tasks stand in the order of leasing.

use chatvec_core::submission::{Tenant, TenantChange, Weight};
use chatvec_core::task::{Share, sched_keys};
use sqlx::any::AnyRow;

use super::error::exactly_one;
use super::job::{self, JobRow};
use super::{Store, StoreError, Tx, decode};

/// What a tenant may use, and uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantRow {
    /// Its name.
    pub tenant: Tenant,
    /// Its share of the workers, relative to the other tenants'.
    pub weight: u32,
    /// Most tasks of it that are leased at once.
    pub leased_tasks_max: Option<u32>,
    /// Most jobs of it that have not ended.
    pub open_jobs_max: Option<u32>,
    /// Its tasks that are leased.
    pub leased_tasks: u64,
    /// Its jobs that have not ended.
    pub open_jobs: u64,
}

/// Null changes nothing, and a limit of 0 is none.
const UPDATE_TENANT: &str = "-- update_tenant
    INSERT INTO tenant (tenant, weight, leased_tasks_max, open_jobs_max)
    VALUES ($1, coalesce($2, 1), nullif($3, 0), nullif($4, 0))
    ON CONFLICT (tenant) DO UPDATE SET
        weight = coalesce($2, tenant.weight),
        leased_tasks_max = nullif(coalesce($3, tenant.leased_tasks_max), 0),
        open_jobs_max = nullif(coalesce($4, tenant.open_jobs_max), 0)";

const TENANTS: &str = "-- tenants
    WITH open_jobs AS (
        SELECT tenant AS o_tenant, count(*) AS o_jobs FROM job
        WHERE state IN ('PLANNING', 'QUEUED', 'RUNNING', 'COMMITTING', 'CANCELLING')
        GROUP BY tenant
    ), leased AS (
        SELECT job.tenant AS l_tenant, count(*) AS l_tasks
        FROM task JOIN job ON job.job_id = task.job_id
        WHERE task.state = 'LEASED' GROUP BY job.tenant
    )
    SELECT tenant, weight, leased_tasks_max, open_jobs_max,
           coalesce(o_jobs, 0) AS open_jobs, coalesce(l_tasks, 0) AS leased_tasks
    FROM tenant LEFT JOIN open_jobs ON o_tenant = tenant LEFT JOIN leased ON l_tenant = tenant
    WHERE tenant = coalesce($1, tenant)
    ORDER BY tenant";

const TENANT_WEIGHT: &str = "-- tenant_weight
    SELECT weight FROM tenant WHERE tenant = $1";

/// Makes the flow's row if it is missing, and locks it: plans of one flow
/// follow each other.
const LOCK_FLOW: &str = "-- lock_flow
    INSERT INTO flow (tenant, priority) VALUES ($1, $2)
    ON CONFLICT (tenant, priority) DO UPDATE SET tenant = excluded.tenant
    RETURNING next_key";

/// Tasks that were leased before may have been left far behind: a flow that
/// began there would overtake all others.
const LEAST_WAITING_KEY: &str = "-- least_waiting_key
    SELECT sched_key FROM task WHERE state = 'READY' AND attempt = 0
    ORDER BY sched_key, job_id, task_no LIMIT 1";

const LAST_KEY: &str = "-- last_key
    SELECT max(next_key) AS sched_key FROM flow";

const ADVANCE_FLOW: &str = "-- advance_flow
    UPDATE flow SET next_key = $3 WHERE tenant = $1 AND priority = $2";

impl Store {
    /// Changes a tenant's share and limits, and makes the tenant if there is
    /// none; returns it as it is then. Tasks that wait keep their places.
    pub async fn update_tenant(&self, change: &TenantChange) -> Result<TenantRow, StoreError> {
        let weight = change.weight.map(Weight::number);
        sqlx::query(self.sql(UPDATE_TENANT))
            .bind(change.tenant.as_str())
            .bind(weight.map(i64::from))
            .bind(change.leased_tasks_max.map(i64::from))
            .bind(change.open_jobs_max.map(i64::from))
            .execute(self.database())
            .await?;
        self.wake.tasks_ready();
        let mut rows = self.read_tenants(Some(&change.tenant)).await?;
        exactly_one(rows.len() as u64, || StoreError::NotOne(0))?;
        Ok(rows.remove(0))
    }

    /// Every tenant, by name.
    pub async fn tenants(&self) -> Result<Vec<TenantRow>, StoreError> {
        self.read_tenants(None).await
    }

    /// One tenant, or all.
    async fn read_tenants(&self, one: Option<&Tenant>) -> Result<Vec<TenantRow>, StoreError> {
        let rows = sqlx::query(self.sql(TENANTS))
            .bind(one.map(Tenant::as_str))
            .fetch_all(self.database())
            .await?;
        rows.iter().map(TenantRow::read).collect()
    }
}

impl TenantRow {
    fn read(row: &AnyRow) -> Result<Self, StoreError> {
        Ok(Self {
            tenant: job::tenant(row)?,
            weight: decode::number(row, "weight")?,
            leased_tasks_max: decode::number_or_null(row, "leased_tasks_max")?,
            open_jobs_max: decode::number_or_null(row, "open_jobs_max")?,
            leased_tasks: decode::number(row, "leased_tasks")?,
            open_jobs: decode::number(row, "open_jobs")?,
        })
    }
}

/// The places of a job's tasks in the order of leasing, and the flow moved on
/// behind them.
pub(super) async fn take_places(
    tx: &mut Tx,
    job: &JobRow,
    task_bytes: impl Iterator<Item = u64>,
) -> Result<Vec<i64>, StoreError> {
    let weight = sqlx::query(tx.sql(TENANT_WEIGHT))
        .bind(job.tenant.as_str())
        .fetch_one(tx.connection())
        .await?;
    let share = Share {
        tenant_weight: decode::number(&weight, "weight")?,
        priority: job.priority,
    };
    let flow = sqlx::query(tx.sql(LOCK_FLOW))
        .bind(job.tenant.as_str())
        .bind(i64::from(job.priority.number()))
        .fetch_one(tx.connection())
        .await?;
    let next_key = decode::number(&flow, "next_key")?;
    let virtual_time = virtual_time(tx).await?;
    let (keys, next_key) = sched_keys(share, virtual_time, next_key, task_bytes);
    sqlx::query(tx.sql(ADVANCE_FLOW))
        .bind(job.tenant.as_str())
        .bind(i64::from(job.priority.number()))
        .bind(next_key)
        .execute(tx.connection())
        .await?;
    Ok(keys)
}

/// Where the flows stand: the least key that waits for its first lease; where
/// none waits, behind all that was ever given out.
async fn virtual_time(tx: &mut Tx) -> Result<i64, StoreError> {
    let waiting = sqlx::query(tx.sql(LEAST_WAITING_KEY))
        .fetch_optional(tx.connection())
        .await?;
    let row = match waiting {
        Some(row) => row,
        None => {
            sqlx::query(tx.sql(LAST_KEY))
                .fetch_one(tx.connection())
                .await?
        }
    };
    Ok(decode::number_or_null(&row, "sched_key")?.unwrap_or(0))
}
