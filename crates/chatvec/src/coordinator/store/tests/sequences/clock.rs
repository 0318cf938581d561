//! Time as the tests want it: the database's clock is a row of a table.

use crate::coordinator::store::dialect::{Dialect, POSTGRES, SQLITE};
use crate::coordinator::store::{Store, StoreError};

/// When every sequence begins.
pub(super) const START_MS: i64 = 1_000_000;

const SQLITE_UNDER_TEST: Dialect = Dialect {
    now_ms: "(SELECT now_ms FROM test_clock)",
    ..SQLITE
};

const POSTGRES_UNDER_TEST: Dialect = Dialect {
    now_ms: "(SELECT now_ms FROM test_clock)",
    ..POSTGRES
};

/// The store with every statement as it is, but for the time.
pub(super) async fn under_test(store: &Store) -> Store {
    for statement in [
        "CREATE TABLE test_clock (now_ms bigint NOT NULL)",
        "INSERT INTO test_clock VALUES (0)",
    ] {
        sqlx::query(statement).execute(&store.pool).await.unwrap();
    }
    let locks_rows = !store.dialect.skip_locked.is_empty();
    Store {
        dialect: if locks_rows {
            &POSTGRES_UNDER_TEST
        } else {
            &SQLITE_UNDER_TEST
        },
        ..store.clone()
    }
}

/// The beginning of time, with nothing left of an earlier sequence but the places
/// in the order of scheduling, which are never given out twice.
pub(super) async fn begin(store: &Store) {
    let set = format!("UPDATE test_clock SET now_ms = {START_MS}");
    for statement in ["DELETE FROM job", "DELETE FROM worker", &set] {
        let statement = sqlx::AssertSqlSafe(statement.to_owned());
        sqlx::query(statement).execute(&store.pool).await.unwrap();
    }
}

/// Lets time pass.
pub(super) async fn advance(store: &Store, ms: i64) -> Result<(), StoreError> {
    let pass = sqlx::query("UPDATE test_clock SET now_ms = now_ms + $1").bind(ms);
    pass.execute(&store.pool).await?;
    Ok(())
}
