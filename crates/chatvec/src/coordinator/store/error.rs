//! What a store call can fail with, and the one check of every guarded write.

use std::io;
use std::path::PathBuf;

use chatvec_core::ids::{FileOrdinal, JobId, RequestId, TaskOrdinal};
use chatvec_core::job::JobState;
use chatvec_core::submission::Tenant;
use chatvec_core::task::TaskState;

use super::Epoch;
use super::connect::SchemaError;
use super::upload::{UploadKey, UploadState};
use crate::fault::Injected;

/// Why a store call changed nothing.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database refused or could not be reached. Worth a retry.
    #[error("database: {0}")]
    Database(#[from] sqlx::Error),
    /// The database has not answered in time. What was asked may have been done.
    #[error("database: no answer in time")]
    TimedOut,
    /// The schema could not be brought up to date.
    #[error("migration: {0}")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    /// The schema is not the one of this program.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// The folder of the database file does not exist, or the path cannot be
    /// given to the database.
    #[error("job store `{}`: {source}", path.display())]
    Path {
        /// The path of the file.
        path: PathBuf,
        /// What is wrong with it.
        source: io::Error,
    },
    /// The lease has ended: it expired, was taken back, or was used up.
    #[error("lease of task {task} of job `{job}` is lost")]
    LeaseLost {
        /// The job of the task.
        job: JobId,
        /// The task.
        task: TaskOrdinal,
    },
    /// Another coordinator has taken over the planning or the commit.
    #[error("epoch {held} of job `{job}` is over, now {current}")]
    EpochLost {
        /// The job.
        job: JobId,
        /// The epoch that the caller holds.
        held: Epoch,
        /// The epoch of the job.
        current: Epoch,
    },
    /// The request id stands for another recipe already.
    #[error("request id `{request}` was used before with another recipe")]
    RequestIdReused {
        /// The id.
        request: RequestId,
    },
    /// The tenant has as many jobs that have not ended as it may.
    #[error("tenant `{tenant}` has as many open jobs as it may, {limit}")]
    TenantFull {
        /// The tenant.
        tenant: Tenant,
        /// Its limit.
        limit: u64,
    },
    /// Another job writes to the output, or has left something there that is
    /// not removed yet.
    #[error("output `{output}` is in use by job `{job}`")]
    OutputInUse {
        /// The output.
        output: String,
        /// The job that uses it.
        job: JobId,
    },
    /// The job has not ended, or has left something that is not removed yet.
    #[error("job `{job}` is {state}, and what it left in storage is not removed yet")]
    JobActive {
        /// The job.
        job: JobId,
        /// Where it stands.
        state: JobState,
    },
    /// No such job.
    #[error("job `{0}` not found")]
    JobNotFound(JobId),
    /// No such task.
    #[error("task {task} of job `{job}` not found")]
    TaskNotFound {
        /// The job.
        job: JobId,
        /// The task.
        task: TaskOrdinal,
    },
    /// The job's state does not allow it.
    #[error("job `{job}` is {state}")]
    WrongState {
        /// The job.
        job: JobId,
        /// Where it stands.
        state: JobState,
    },
    /// The task's state does not allow it.
    #[error("task {task} of job `{job}` is {state}, expected {expected}")]
    WrongTaskState {
        /// The job of the task.
        job: JobId,
        /// The task.
        task: TaskOrdinal,
        /// Where it stands.
        state: TaskState,
        /// Where it would have to stand.
        expected: TaskState,
    },
    /// The job cannot have succeeded: some of its tasks are not DONE.
    #[error("job `{job}` has {tasks} tasks that are not done")]
    TasksOpen {
        /// The job.
        job: JobId,
        /// How many they are.
        tasks: u64,
    },
    /// A part that was put again has other bytes than the frozen one.
    #[error(
        "file {file}: a part of task {task} came out with another checksum when it was made again"
    )]
    PartDiffers {
        /// The task.
        task: TaskOrdinal,
        /// The output file.
        file: FileOrdinal,
    },
    /// No such upload.
    #[error("upload of file {} of job `{}` under epoch {} not found", .0.file, .0.job, .0.epoch)]
    UploadNotFound(UploadKey),
    /// The upload's state does not allow the call.
    #[error(
        "upload of file {} of job `{}` under epoch {} is {state}, expected {expected}",
        upload.file, upload.job, upload.epoch
    )]
    WrongUploadState {
        /// The upload.
        upload: UploadKey,
        /// Where it stands.
        state: UploadState,
        /// Where it would have to stand.
        expected: UploadState,
    },
    /// A report's parts are not the parts of its task, each once and in order.
    #[error(
        "report of task {task} of job `{job}`: expected parts {first}..{end} of file {file}, found others"
    )]
    WrongParts {
        /// The job of the task.
        job: JobId,
        /// The task.
        task: TaskOrdinal,
        /// The output file of the task.
        file: u32,
        /// Its first part.
        first: u32,
        /// One past its last part.
        end: u32,
    },
    /// A number is too large for the database.
    #[error("number too large for the job store: {0}")]
    TooLarge(u64),
    /// A stored value is none that this program writes.
    #[error("column `{column}` holds an impossible value: `{value}`")]
    Corrupt {
        /// The column.
        column: &'static str,
        /// The value as text.
        value: String,
    },
    /// A guarded write met several rows where keys allow one: a bug.
    #[error("guarded write changed {0} rows, expected 1")]
    NotOne(u64),
}

/// Whether a code of either database names what passes by itself. Of Postgres,
/// the classes: lost connection, serialization failure or deadlock, out of
/// resources, lock not available, operator intervention with timeouts. Of
/// SQLite, whose codes are numbers: busy, locked, full.
fn is_passing(code: &str) -> bool {
    const CLASSES: [&str; 5] = ["08", "40", "53", "55", "57"];
    match code.len() {
        5 => CLASSES.contains(&&code[..2]),
        _ => matches!(code, "5" | "6" | SQLITE_FULL),
    }
}

/// What SQLite calls a full disk.
const SQLITE_FULL: &str = "13";

impl From<Injected> for StoreError {
    fn from(injected: Injected) -> Self {
        Self::Database(sqlx::Error::Io(injected.into()))
    }
}

impl StoreError {
    /// Whether the database has no room left on its disk.
    pub fn is_full(&self) -> bool {
        use sqlx::migrate::MigrateError;
        let cause = match self {
            Self::Database(error)
            | Self::Migrate(
                MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _),
            ) => error,
            _ => return false,
        };
        let code = cause.as_database_error().and_then(|error| error.code());
        code.as_deref() == Some(SQLITE_FULL)
    }

    /// Whether the same call may succeed in a while: the database is away or
    /// starting, has no connection left, or has ended a transaction for another's
    /// sake.
    pub fn is_transient(&self) -> bool {
        let Self::Database(error) = self else {
            return matches!(self, Self::TimedOut);
        };
        match error {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => true,
            sqlx::Error::Database(error) => error.code().is_some_and(|code| is_passing(&code)),
            _ => false,
        }
    }

    /// Whether the store was closed under the call: only a coordinator that
    /// stops does so.
    pub fn is_closed(&self) -> bool {
        matches!(self, Self::Database(sqlx::Error::PoolClosed))
    }
}

/// The check behind every write that a guard protects: one row, or the guard's
/// error where it matched none.
pub(super) fn exactly_one(rows: u64, guard: impl FnOnce() -> StoreError) -> Result<(), StoreError> {
    match rows {
        1 => Ok(()),
        0 => Err(guard()),
        more => Err(StoreError::NotOne(more)),
    }
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn what_passes_by_itself_is_known_by_its_code() {
        for passing in [
            "08006", "40001", "40P01", "53300", "55P03", "57P01", "57014", "5", "13",
        ] {
            assert!(is_passing(passing), "{passing}");
        }
        for lasting in ["23505", "42P01", "22003", "28P01", "1", "19", "1555"] {
            assert!(!is_passing(lasting), "{lasting}");
        }
    }

    #[test]
    fn no_row_is_the_guards_error_and_two_rows_are_a_bug() {
        let guard = || StoreError::JobNotFound(JobId("j".to_owned()));
        assert!(exactly_one(1, guard).is_ok());
        assert!(matches!(
            exactly_one(0, guard),
            Err(StoreError::JobNotFound(_))
        ));
        assert!(matches!(exactly_one(2, guard), Err(StoreError::NotOne(2))));
    }
}
