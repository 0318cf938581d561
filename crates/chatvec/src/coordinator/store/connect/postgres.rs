//! Postgres, shared by any number of coordinators.

use std::sync::Arc;
use std::time::Duration;

use sqlx::any::AnyPoolOptions;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AnyConnection, AnyPool, Connection, Executor};

use super::schema::{self, MIGRATIONS, Migrated};
use crate::coordinator::store::dialect::POSTGRES;
use crate::coordinator::store::wake::Wake;
use crate::coordinator::store::{Store, StoreError};

/// Connections of one coordinator. Too few and calls wait for each other; too
/// many and a few coordinators take all that the server has.
const CONNECTIONS_MAX: u32 = 16;
/// How long a call may wait for a connection, a new one included.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection that was idle this long is looked at before its next use: the
/// server may have gone meanwhile.
const IDLE_TRUSTED: Duration = Duration::from_secs(5);
/// How long a connection may take to show that it is alive. One whose other end
/// vanished without a word never does.
const PING_TIMEOUT: Duration = Duration::from_secs(3);

/// What each new connection is told. Statements are short and so are the
/// transactions that they are in: what takes longer waits for something that
/// went wrong. The server finds out within 15 s that a client is gone.
const SETTINGS: [&str; 8] = [
    "SET application_name = 'chatvec'",
    "SET statement_timeout = '10s'",
    "SET lock_timeout = '5s'",
    "SET idle_in_transaction_session_timeout = '15s'",
    // Compiling a statement takes longer than any of ours.
    "SET jit = off",
    "SET tcp_keepalives_idle = 5",
    "SET tcp_keepalives_interval = 5",
    "SET tcp_keepalives_count = 2",
];

impl Store {
    /// Opens a database that `chatvec migrate` has made ready. The schema is
    /// looked at and never changed.
    ///
    /// # Errors
    /// [`StoreError::Schema`] if its schema is not that of this program;
    /// [`StoreError::Database`] if it cannot be reached.
    pub async fn open_postgres(url: &str) -> Result<Self, StoreError> {
        let pool = connect(url, CONNECTIONS_MAX).await?;
        schema::check(schema::version_of(&pool).await?)?;
        let signals = signals(url)?;
        Ok(Self {
            pool,
            dialect: &POSTGRES,
            wake: Arc::new(Wake::across_processes(signals)),
            floor: Arc::default(),
        })
    }

    /// Applies the migrations that a Postgres database lacks, one process at a
    /// time.
    ///
    /// # Errors
    /// [`StoreError::Schema`] if a newer program has been at it;
    /// [`StoreError::Migrate`] if a migration fails: it is rolled back.
    pub async fn migrate_postgres(url: &str) -> Result<Migrated, StoreError> {
        let pool = connect(url, 1).await?;
        // The tables of a large fleet take their time.
        sqlx::query("SET statement_timeout = 0")
            .execute(&pool)
            .await?;
        let from = schema::version_of(&pool).await?;
        if let Err(error @ schema::SchemaError::Ahead { .. }) = schema::check(from) {
            return Err(error.into());
        }
        MIGRATIONS.run(&pool).await?;
        let to = schema::version_of(&pool).await?;
        pool.close().await;
        Ok(Migrated { from, to })
    }
}

async fn connect(url: &str, connections_max: u32) -> Result<AnyPool, StoreError> {
    sqlx::any::install_default_drivers();
    // A pool tries again and again, and then knows only that it took too long.
    match tokio::time::timeout(ACQUIRE_TIMEOUT, AnyConnection::connect(url)).await {
        Ok(connected) => connected?.close().await?,
        Err(_) => return Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()).into()),
    }
    let pool = AnyPoolOptions::new()
        .max_connections(connections_max)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .test_before_acquire(false)
        .before_acquire(|connection, meta| {
            Box::pin(async move {
                if meta.idle_for < IDLE_TRUSTED {
                    return Ok(true);
                }
                Ok(is_alive(connection).await.is_ok())
            })
        })
        .after_release(|connection, _| {
            // Behind the rollback of a transaction that was dropped.
            Box::pin(async move { is_alive(connection).await.map(|()| true) })
        })
        .after_connect(|connection, _| {
            Box::pin(async move {
                for setting in SETTINGS {
                    connection.execute(setting).await?;
                }
                Ok(())
            })
        })
        .connect(url)
        .await?;
    Ok(pool)
}

async fn is_alive(connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
    match tokio::time::timeout(PING_TIMEOUT, connection.ping()).await {
        Ok(answer) => answer,
        Err(_) => Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())),
    }
}

/// Connections for LISTEN and NOTIFY, which the library knows of Postgres alone.
fn signals(url: &str) -> Result<sqlx::PgPool, StoreError> {
    let options: PgConnectOptions = url.parse()?;
    Ok(PgPoolOptions::new()
        .max_connections(2)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .connect_lazy_with(options.application_name("chatvec signals")))
}
