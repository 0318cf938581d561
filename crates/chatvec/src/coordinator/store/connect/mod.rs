//! Opening the job store: a file of this process, or a shared Postgres.

mod postgres;
mod schema;
mod sqlite;

pub use schema::{Migrated, SchemaError};

use futures_util::FutureExt as _;

use super::Store;
use super::in_time::in_time;

impl Store {
    /// Waits for running calls and closes the database. Every clone of this
    /// store fails afterwards. A database that does not answer is not waited for.
    pub async fn close(&self) {
        self.wake.close();
        let closed = self.pool.close();
        if in_time(closed.map(Ok)).await.is_err() {
            tracing::warn!("the database does not answer, its connections are dropped");
        }
    }
}
