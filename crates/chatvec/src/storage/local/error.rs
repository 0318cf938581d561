//! What can go wrong with a local file.

use std::io;
use std::path::{Path, PathBuf};

use chatvec_core::problem::Problem;
use chatvec_core::task::{FailureKind, TaskFailure};
use rustix::io::Errno;

/// Why a local file could not be used. The variants are those that a caller
/// treats differently.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// There is no such file.
    #[error("expected file `{}`, found nothing", path.display())]
    Absent {
        /// Where it should be.
        path: PathBuf,
    },
    /// The path leads to another file than the one that was planned, or the
    /// file was written to since.
    #[error("`{}` changed: expected {expected}, found {found}", path.display())]
    Changed {
        /// The source.
        path: PathBuf,
        /// The pin of the plan.
        expected: String,
        /// The pin now.
        found: String,
    },
    /// The file ends before the bytes that were asked for.
    #[error("`{}` is truncated: expected {expected} bytes at offset {offset}, found {found}", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Where the read began.
        offset: u64,
        /// How many bytes there should be.
        expected: u64,
        /// How many there are.
        found: u64,
    },
    /// An unfinished output file that does not have the size of the plan.
    #[error("unfinished file `{}`: expected {expected} bytes, found {found}", path.display())]
    WrongSize {
        /// The unfinished file.
        path: PathBuf,
        /// The size of the plan.
        expected: u64,
        /// The size it has.
        found: u64,
    },
    /// The system refused an operation.
    #[error("failed to {action} `{}`: {source}", path.display())]
    Io {
        /// What was being done, as a verb.
        action: &'static str,
        /// To which file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

impl LocalError {
    /// The error of an operation on `path`; a missing file is [`Self::Absent`].
    pub(crate) fn io(action: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        let source = source.into();
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound => Self::Absent { path },
            _ => Self::Io {
                action,
                path,
                source,
            },
        }
    }

    /// The file or folder.
    pub fn path(&self) -> &Path {
        match self {
            Self::Absent { path }
            | Self::Changed { path, .. }
            | Self::Truncated { path, .. }
            | Self::WrongSize { path, .. }
            | Self::Io { path, .. } => path,
        }
    }

    /// The class of the error, and what the user is told.
    pub fn failure(&self) -> TaskFailure {
        let (kind, hint) = match self {
            Self::Io { source, .. } => class_of(source),
            // Our own files, or sources that nobody has pinned yet.
            Self::Absent { .. }
            | Self::Changed { .. }
            | Self::Truncated { .. }
            | Self::WrongSize { .. } => (FailureKind::Internal, None),
        };
        let mut problem = Problem::new(self.path().display().to_string(), self.message());
        problem.hint = hint.map(str::to_owned);
        TaskFailure { kind, problem }
    }

    /// What was expected and found, without the path.
    fn message(&self) -> String {
        match self {
            Self::Absent { .. } => "expected a file, found nothing".to_owned(),
            Self::Changed {
                expected, found, ..
            } => format!("changed: expected {expected}, found {found}"),
            Self::Truncated {
                offset,
                expected,
                found,
                ..
            } => {
                format!("truncated: expected {expected} bytes at offset {offset}, found {found}")
            }
            Self::WrongSize {
                expected, found, ..
            } => format!("expected {expected} bytes, found {found}"),
            Self::Io { action, source, .. } => {
                // The path that the preposition leads to is told apart.
                let action = [" to", " for"]
                    .iter()
                    .find_map(|word| action.strip_suffix(word))
                    .unwrap_or(action);
                format!("failed to {action}: {source}")
            }
        }
    }

    /// What the system said, where the system refused an operation.
    pub fn io_kind(&self) -> Option<io::ErrorKind> {
        match self {
            Self::Io { source, .. } => Some(source.kind()),
            _ => None,
        }
    }
}

fn class_of(cause: &io::Error) -> (FailureKind, Option<&'static str>) {
    match Errno::from_io_error(cause) {
        Some(Errno::NOSPC | Errno::DQUOT) => (
            FailureKind::ResourceExhausted,
            Some("free some space on the filesystem of the output"),
        ),
        Some(Errno::MFILE | Errno::NFILE) => (
            FailureKind::ResourceExhausted,
            Some("raise the limit of open files"),
        ),
        Some(Errno::NOMEM) => (FailureKind::ResourceExhausted, None),
        Some(Errno::ACCESS | Errno::PERM | Errno::ROFS) => (FailureKind::PermissionDenied, None),
        _ => (FailureKind::Transient, None),
    }
}
