//! The two snippets in which the databases differ.

use sqlx::AssertSqlSafe;

/// What a statement's `{now}` and `{skip_locked}` stand for.
#[derive(Debug)]
pub(super) struct Dialect {
    /// The database's clock: milliseconds since the Unix epoch as a bigint.
    pub(super) now_ms: &'static str,
    /// The suffix of a SELECT that locks the rows it finds and passes over
    /// rows that another transaction has locked.
    pub(super) skip_locked: &'static str,
}

/// SQLite has one writer, so there is nothing to skip.
pub(super) const SQLITE: Dialect = Dialect {
    now_ms: "CAST(unixepoch('subsec') * 1000 AS integer)",
    skip_locked: "",
};

/// Claims of several coordinators pass over each other's rows.
pub(super) const POSTGRES: Dialect = Dialect {
    now_ms: "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS bigint)",
    skip_locked: " FOR UPDATE SKIP LOCKED",
};

impl Dialect {
    /// The statement with its snippets filled in. All of it is the program's
    /// own text: values are bound, never spliced.
    pub(super) fn sql(&self, text: &str) -> AssertSqlSafe<String> {
        AssertSqlSafe(
            text.replace("{now}", self.now_ms)
                .replace("{skip_locked}", self.skip_locked),
        )
    }
}
