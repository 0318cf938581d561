//! Why a task stopped, and the one place that classifies what it ran into.

use std::io;

use chatvec_core::task::{FailureKind, TaskFailure};
use rustix::io::Errno;

use crate::storage::local::LocalError;

/// Why a task ended without its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// Something went wrong: report it.
    Failed(TaskFailure),
    /// The lease is over, or what it was for is gone: report nothing.
    LeaseLost,
    /// The job was cancelled.
    Cancelled,
    /// The worker stops: give the task back.
    Drained,
}

impl Stop {
    /// A failure without advice.
    pub(crate) fn failed(kind: FailureKind, message: impl Into<String>) -> Self {
        Self::Failed(TaskFailure {
            kind,
            message: message.into(),
            hint: None,
        })
    }

    /// What follows from an error on a source file.
    pub(crate) fn of_source(error: &LocalError) -> Self {
        match error {
            LocalError::Absent { .. }
            | LocalError::Changed { .. }
            | LocalError::Truncated { .. } => Self::Failed(TaskFailure {
                kind: FailureKind::SourceChanged,
                message: error.to_string(),
                hint: Some("leave the inputs alone while a job runs, and submit it again".into()),
            }),
            LocalError::WrongSize { .. } => Self::failed(FailureKind::Internal, error.to_string()),
            LocalError::Io { source, .. } => Self::of_io(source, error),
        }
    }

    /// What follows from an error on the unfinished output file.
    pub(crate) fn of_target(error: &LocalError) -> Self {
        match error {
            // Whoever holds the job now has removed it.
            LocalError::Absent { .. } => Self::LeaseLost,
            LocalError::Changed { .. }
            | LocalError::Truncated { .. }
            | LocalError::WrongSize { .. } => {
                Self::failed(FailureKind::Internal, error.to_string())
            }
            LocalError::Io { source, .. } => Self::of_io(source, error),
        }
    }

    fn of_io(cause: &io::Error, error: &LocalError) -> Self {
        let (kind, hint) = match Errno::from_io_error(cause) {
            Some(Errno::NOSPC | Errno::DQUOT) => (
                FailureKind::ResourceExhausted,
                Some("free some space on the filesystem of the output"),
            ),
            Some(Errno::MFILE | Errno::NFILE) => (
                FailureKind::ResourceExhausted,
                Some("raise the limit of open files"),
            ),
            Some(Errno::NOMEM) => (FailureKind::ResourceExhausted, None),
            Some(Errno::ACCESS | Errno::PERM | Errno::ROFS) => {
                (FailureKind::PermissionDenied, None)
            }
            _ => (FailureKind::Transient, None),
        };
        Self::Failed(TaskFailure {
            kind,
            message: error.to_string(),
            hint: hint.map(str::to_owned),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn kind_of(errno: Errno) -> FailureKind {
        let error = LocalError::Io {
            action: "write to",
            path: PathBuf::from("/out"),
            source: errno.into(),
        };
        let Stop::Failed(failure) = Stop::of_target(&error) else {
            panic!("an error of the system is a failure");
        };
        assert!(failure.message.starts_with("failed to write to `/out`: "));
        failure.kind
    }

    #[test]
    fn errors_of_the_system_have_their_class() {
        assert_eq!(kind_of(Errno::NOSPC), FailureKind::ResourceExhausted);
        assert_eq!(kind_of(Errno::MFILE), FailureKind::ResourceExhausted);
        assert_eq!(kind_of(Errno::ACCESS), FailureKind::PermissionDenied);
        assert_eq!(kind_of(Errno::PERM), FailureKind::PermissionDenied);
        assert_eq!(kind_of(Errno::ROFS), FailureKind::PermissionDenied);
        assert_eq!(kind_of(Errno::IO), FailureKind::Transient);
    }

    #[test]
    fn a_missing_file_is_a_changed_source_but_a_lost_target() {
        let error = LocalError::Absent {
            path: PathBuf::from("/x"),
        };
        assert_eq!(Stop::of_target(&error), Stop::LeaseLost);
        let Stop::Failed(failure) = Stop::of_source(&error) else {
            panic!("a missing source is a failure");
        };
        assert_eq!(failure.kind, FailureKind::SourceChanged);
    }
}
