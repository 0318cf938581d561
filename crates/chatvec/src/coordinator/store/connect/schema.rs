//! The schema: the migrations of this program, and what a database has of them.

use sqlx::AnyPool;
use sqlx::migrate::Migrator;

use crate::coordinator::store::{StoreError, decode};

/// Every migration, compiled into the program.
pub(super) static MIGRATIONS: Migrator = sqlx::migrate!("../../migrations");

/// Where the library notes which migrations were applied.
const HAS_MIGRATIONS: &str = "-- has_migrations
    SELECT count(*) AS tables FROM information_schema.tables
    WHERE table_schema = current_schema() AND table_name = '_sqlx_migrations'";

const SCHEMA_VERSION: &str = "-- schema_version
    SELECT coalesce(max(version), 0) AS version FROM _sqlx_migrations WHERE success";

/// Why a database cannot be used as it is. Versions are numbers of migrations;
/// 0 is an empty database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// Migrations of this program are missing.
    #[error("expected schema version {expected}, found {found}")]
    Behind {
        /// The newest that was applied.
        found: i64,
        /// The newest of this program.
        expected: i64,
    },
    /// A newer program has been at it.
    #[error("expected schema version {expected}, found the newer version {found}")]
    Ahead {
        /// The newest that was applied.
        found: i64,
        /// The newest of this program.
        expected: i64,
    },
}

impl SchemaError {
    /// What the user can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Behind { .. } => "run `chatvec migrate` with this program first",
            Self::Ahead { .. } => "run a program that is at least as new as the one that migrated",
        }
    }
}

/// What a migration did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Migrated {
    /// The version before.
    pub from: i64,
    /// The version now.
    pub to: i64,
}

/// The newest migration of this program.
fn newest() -> i64 {
    let versions = MIGRATIONS.iter().map(|migration| migration.version);
    versions.max().expect("there is a first migration")
}

/// The newest migration of a Postgres database; 0 if there is none.
pub(super) async fn version_of(pool: &AnyPool) -> Result<i64, StoreError> {
    let row = sqlx::query(HAS_MIGRATIONS).fetch_one(pool).await?;
    let tables: u64 = decode::number(&row, "tables")?;
    if tables == 0 {
        return Ok(0);
    }
    let row = sqlx::query(SCHEMA_VERSION).fetch_one(pool).await?;
    decode::number(&row, "version")
}

/// Nothing if a database of this version is one of this program's.
pub(super) fn check(found: i64) -> Result<(), SchemaError> {
    let expected = newest();
    match found.cmp(&expected) {
        std::cmp::Ordering::Less => Err(SchemaError::Behind { found, expected }),
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Greater => Err(SchemaError::Ahead { found, expected }),
    }
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn a_schema_is_refused_on_either_side_with_both_versions() {
        let expected = newest();
        assert_eq!(check(expected), Ok(()));
        let behind = check(0).unwrap_err();
        assert_eq!(
            behind.to_string(),
            format!("expected schema version {expected}, found 0")
        );
        assert!(behind.hint().contains("chatvec migrate"));
        let ahead = check(expected + 1).unwrap_err();
        assert!(
            ahead
                .to_string()
                .ends_with(&format!("newer version {}", expected + 1))
        );
    }
}
