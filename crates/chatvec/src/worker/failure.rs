//! Why a task stopped, and the one place that classifies what it ran into.

use chatvec_core::problem::Problem;
use chatvec_core::task::{FailureKind, TaskFailure};

use crate::fault::Injected;
use crate::storage::local::LocalError;
use crate::storage::object::ObjectError;

/// What to do about a source that is not what was planned.
const LEAVE_ALONE: &str = "leave the inputs alone while a job runs, and submit it again";

/// What to do about an upload that is gone under the hands of its job.
const LEAVE_UPLOADS: &str =
    "a rule of the bucket that aborts unfinished uploads must spare those of the longest job";

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
    pub(crate) fn failed(
        kind: FailureKind,
        subject: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self::Failed(TaskFailure {
            kind,
            problem: Problem::new(subject, message),
        })
    }

    /// What follows from an error that a failpoint injected.
    pub(crate) fn injected(injected: Injected) -> Self {
        let message = std::io::Error::from(injected).to_string();
        Self::failed(FailureKind::Transient, "failpoint", message)
    }

    /// What follows from an error on a source file.
    pub(crate) fn of_source(error: &LocalError) -> Self {
        let failure = error.failure();
        match error {
            LocalError::Absent { .. }
            | LocalError::Changed { .. }
            | LocalError::Truncated { .. } => {
                let problem = failure.problem.with_hint(LEAVE_ALONE);
                Self::Failed(TaskFailure {
                    kind: FailureKind::SourceChanged,
                    problem,
                })
            }
            LocalError::WrongSize { .. } | LocalError::Io { .. } => Self::Failed(failure),
        }
    }

    /// What follows from an error on a source in a remote store.
    pub(crate) fn of_remote_source(error: &ObjectError) -> Self {
        let failure = error.failure();
        match error {
            ObjectError::NotFound { .. } | ObjectError::Changed { .. } => {
                let problem = failure.problem.with_hint(LEAVE_ALONE);
                Self::Failed(TaskFailure {
                    kind: FailureKind::SourceChanged,
                    problem,
                })
            }
            _ => Self::Failed(failure),
        }
    }

    /// What follows from an error on a part of an upload.
    pub(crate) fn of_upload(error: &ObjectError) -> Self {
        match error {
            // Where the job's own coordinators ended it, the lease is over and the
            // report counts nothing, or the job is publishing.
            ObjectError::UploadGone { .. } => Self::Failed(TaskFailure {
                problem: error.problem().with_hint(LEAVE_UPLOADS),
                ..error.failure()
            }),
            _ => Self::Failed(error.failure()),
        }
    }

    /// What follows from an error on the unfinished output file.
    pub(crate) fn of_target(error: &LocalError) -> Self {
        match error {
            // Whoever holds the job now has removed it.
            LocalError::Absent { .. } => Self::LeaseLost,
            _ => Self::Failed(error.failure()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use rustix::io::Errno;

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
        assert!(failure.problem.message.starts_with("failed to write: "));
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
    fn a_missing_or_changed_object_is_a_changed_source_and_a_missing_upload_a_failure() {
        let url = "s3://bucket/x".to_owned();
        let expected = "\"1\"".to_owned();
        for error in [
            ObjectError::NotFound { url: url.clone() },
            ObjectError::Changed {
                url: url.clone(),
                expected,
            },
        ] {
            let Stop::Failed(failure) = Stop::of_remote_source(&error) else {
                panic!("a missing source is a failure");
            };
            assert_eq!(failure.kind, FailureKind::SourceChanged);
            assert_eq!(failure.problem.hint.as_deref(), Some(LEAVE_ALONE));
        }
        let gone = ObjectError::UploadGone { url };
        let Stop::Failed(failure) = Stop::of_upload(&gone) else {
            panic!("nobody else may know of it");
        };
        assert_eq!(failure.kind, FailureKind::UploadGone);
        assert_eq!(failure.problem.hint.as_deref(), Some(LEAVE_UPLOADS));
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
