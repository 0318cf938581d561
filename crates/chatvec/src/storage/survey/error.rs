//! Why a location cannot be surveyed.

use chatvec_core::checkpoint::CheckpointError;
use chatvec_core::problem::Problem;
use chatvec_core::task::{FailureKind, TaskFailure};

use crate::storage::Location;
use crate::storage::file::FileError;
use crate::storage::object::ObjectError;

/// Why a location is no checkpoint that can be read.
#[derive(Debug, thiserror::Error)]
pub enum SurveyError {
    /// Nothing is there.
    #[error("{location}: {}", nothing_at(.location))]
    NotFound {
        /// Where.
        location: Location,
    },
    /// A file is there.
    #[error("{location}: expected the folder of a checkpoint, found a file")]
    NotAFolder {
        /// Where.
        location: Location,
    },
    /// The folder or a file in it cannot be read.
    #[error("{}: {_0}", _0.path().display())]
    File(FileError),
    /// Object storage cannot be read.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// The folder holds no checkpoint, or not a whole one.
    #[error("{location}: {error}")]
    Checkpoint {
        /// The folder.
        location: Location,
        /// Why.
        error: CheckpointError,
    },
    /// Its files are broken or contradict each other.
    #[error("{}", first_of(.problems))]
    Broken {
        /// The class: that of the problem that may pass by itself, if there is one.
        kind: FailureKind,
        /// All that was found, at least one.
        problems: Vec<Problem>,
    },
}

impl SurveyError {
    /// The class of the error: [`FailureKind::Transient`] may pass by itself.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Object(error) => failure_of(error).kind,
            Self::Broken { kind, .. } => *kind,
            Self::NotFound { .. }
            | Self::NotAFolder { .. }
            | Self::File(_)
            | Self::Checkpoint { .. } => FailureKind::BadInput,
        }
    }

    /// Everything that is wrong with several files, at least one.
    pub(super) fn of_files(failures: Vec<TaskFailure>) -> Self {
        let has = |kind| failures.iter().any(|failure| failure.kind == kind);
        let kinds = [FailureKind::Transient, FailureKind::PermissionDenied];
        let kind = kinds.into_iter().find(|kind| has(*kind));
        Self::Broken {
            kind: kind.unwrap_or(FailureKind::BadInput),
            problems: failures.into_iter().map(|one| one.problem).collect(),
        }
    }

    /// All that is wrong, each with the path and advice.
    pub fn problems(&self) -> Vec<Problem> {
        match self {
            Self::NotFound { location } => {
                let problem = Problem::new(location.to_string(), nothing_at(location));
                if let Location::Objects(_) = location {
                    return vec![problem.with_hint(
                        "check the URL, and that AWS_ENDPOINT_URL names the store that holds it",
                    )];
                }
                if !location.resembles_hub_name() {
                    return vec![problem];
                }
                let name = location.text();
                vec![problem.with_hint(format!(
                    "`{name}` looks like the name of a model on the Hub: download it first \
                     (`hf download {name} --local-dir FOLDER`) and give the folder"
                ))]
            }
            Self::NotAFolder { location } => {
                let message = "expected the folder of a checkpoint, found a file";
                let problem = Problem::new(location.to_string(), message);
                vec![problem.with_hint("give the folder that holds the checkpoint")]
            }
            Self::File(error) => vec![error.problem()],
            Self::Object(error) => vec![error.problem()],
            Self::Checkpoint { location, error } => {
                let problem = Problem::new(location.to_string(), error.to_string());
                vec![match error.hint() {
                    Some(hint) => problem.with_hint(hint),
                    None => problem,
                }]
            }
            Self::Broken { problems, .. } => problems.clone(),
        }
    }
}

/// What an object that cannot be read is to a survey: no job has begun, so
/// nothing has changed since.
pub(super) fn failure_of(error: &ObjectError) -> TaskFailure {
    let failure = error.failure();
    match failure.kind {
        FailureKind::Transient | FailureKind::PermissionDenied => failure,
        FailureKind::Preempted => TaskFailure {
            kind: FailureKind::Transient,
            ..failure
        },
        _ => TaskFailure {
            kind: FailureKind::BadInput,
            ..failure
        },
    }
}

fn nothing_at(location: &Location) -> &'static str {
    match location {
        Location::Folder { .. } => "no such folder",
        Location::Objects(_) => "nothing is there",
    }
}

fn first_of(problems: &[Problem]) -> String {
    match problems {
        [] => String::new(),
        [only] => only.to_string(),
        [first, rest @ ..] => format!("{first} (and {} more)", rest.len()),
    }
}
