//! The job store: all SQL of the product lives below this module.
//!
//! One set of statements serves SQLite, embedded in a single process, and
//! Postgres, shared by many coordinators. A `Dialect` holds the two snippets
//! in which they differ. The text is written for READ COMMITTED with many
//! writers, so it says more than SQLite's single connection needs:
//!
//! * A transaction that moves a job first locks its row (`lock_job`) and looks
//!   at the tasks in a later statement, which then sees all that is committed.
//! * Rows are locked tasks first, then jobs in the order of their ids. Whoever
//!   holds a job and wants its tasks takes those that nobody else holds (SKIP
//!   LOCKED) and leaves the rest to the reaper's sweep, so nobody waits in a
//!   circle.
//! * Every write on behalf of a lease names the lease's fence, and every write
//!   of a planner or finalizer its epoch.
//!
//! The database's clock decides leases. No transaction spans anything but its
//! own statements.
//!
//! # Cancellation
//! Dropping a store future half-way can leave a transaction open on a pooled
//! connection until its next use (a known defect of sqlx up to 0.9). A server
//! drops a request's future when its client goes away, so request handlers run
//! store calls in a spawned task and await its handle.

mod connect;
mod decode;
mod dialect;
mod error;
mod floor;
mod in_time;
mod values;
mod wake;

mod job;
mod list;
mod submit;
mod tenant;

mod epoch;
mod plan;
mod task;
mod upload;
mod worker;

mod complete;
mod heartbeat;
mod lease;
mod report;

mod cancel;
mod commit;
mod reap;
mod retention;
mod steal;

mod overview;
mod progress;

#[cfg(feature = "fault-testing")]
mod mutant;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use sqlx::{Any, AnyConnection, AnyPool, AssertSqlSafe, Transaction};

use dialect::Dialect;
use floor::Floor;
use in_time::{InTime, in_time};
use wake::Wake;

pub use chatvec_core::ids::Epoch;

pub use commit::Commit;
pub use complete::{Outcome, Recorded, TaskDone};
pub use connect::{Migrated, SchemaError};
pub use error::StoreError;
pub use heartbeat::{Beat, BeatAnswer};
pub use job::{JobError, JobRow};
pub use lease::Acquired;
pub use list::{JobFilter, JobPage};
pub use overview::{Pace, TaskFilter, WorkerShare};
pub use plan::{NewPlan, NewTask};
pub use progress::Progress;
pub use reap::{Reaped, Reaping};
pub use report::{FailOutcome, NewPart, PartRow};
pub use steal::Stolen;
pub use submit::{Created, NewJob};
pub use task::TaskRow;
pub use tenant::TenantRow;
pub use upload::{NewUpload, SinglePart, UploadKey, UploadRow, UploadState};
pub use worker::{Phase, WorkerInfo, WorkerRow};

/// A handle on the job database. Clones share one pool of connections.
#[derive(Debug, Clone)]
pub struct Store {
    pool: AnyPool,
    dialect: &'static Dialect,
    wake: Arc<Wake>,
    floor: Arc<Floor>,
}

impl Store {
    /// A statement's text in the database's dialect.
    fn sql(&self, text: &str) -> AssertSqlSafe<String> {
        self.dialect.sql(text)
    }

    /// What runs a statement outside of a transaction.
    fn database(&self) -> InTime<&AnyPool> {
        InTime(&self.pool)
    }

    /// Begins a transaction. Dropped without `commit`, it changes nothing.
    async fn begin(&self) -> Result<Tx, StoreError> {
        Ok(Tx {
            inner: in_time(self.pool.begin()).await?,
            dialect: self.dialect,
        })
    }
}

/// An open transaction, and the dialect of its database.
struct Tx {
    inner: Transaction<'static, Any>,
    dialect: &'static Dialect,
}

impl Tx {
    fn sql(&self, text: &str) -> AssertSqlSafe<String> {
        self.dialect.sql(text)
    }

    fn connection(&mut self) -> InTime<&mut AnyConnection> {
        InTime(&mut self.inner)
    }

    async fn commit(self) -> Result<(), StoreError> {
        Ok(in_time(self.inner.commit()).await?)
    }

    /// Undoes everything now. If it is only dropped, its locks stay until the
    /// pool gets to it.
    async fn roll_back(self) -> Result<(), StoreError> {
        Ok(in_time(self.inner.rollback()).await?)
    }
}
