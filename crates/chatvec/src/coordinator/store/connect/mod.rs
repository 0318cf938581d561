//! Opening the job store: a file of this process, or a shared Postgres.

mod postgres;
mod schema;
mod sqlite;

pub use schema::{Migrated, SchemaError};

use super::Store;

impl Store {
    /// Waits for running calls and closes the database. Every clone of this
    /// store fails afterwards.
    pub async fn close(&self) {
        self.wake.close();
        self.pool.close().await;
    }
}
