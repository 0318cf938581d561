//! What can go wrong with a local file.

use std::io;
use std::path::{Path, PathBuf};

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
    pub(super) fn io(action: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
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

    /// What the system said, where the system refused an operation.
    pub fn io_kind(&self) -> Option<io::ErrorKind> {
        match self {
            Self::Io { source, .. } => Some(source.kind()),
            _ => None,
        }
    }
}
