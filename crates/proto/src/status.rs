//! The errors that clients see: a restricted set of codes, each with one
//! `google.rpc.ErrorInfo` that names the reason.

use std::collections::HashMap;

use chatvec_core::problem::Problem;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// The `domain` of every `ErrorInfo`.
pub const DOMAIN: &str = "chatvec";

/// Why a call was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The request breaks the contract or the recipe is wrong.
    BadRequest,
    /// The `request_id` names a job with another recipe.
    RequestIdReused,
    /// No such job.
    JobNotFound,
    /// The job is past the point of no return.
    CommitInProgress,
    /// The job has ended.
    JobEnded,
    /// The coordinator is stopping or its store cannot be reached; try again.
    Unavailable,
    /// A bug.
    Internal,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 7] = [
        Self::BadRequest,
        Self::RequestIdReused,
        Self::JobNotFound,
        Self::CommitInProgress,
        Self::JobEnded,
        Self::Unavailable,
        Self::Internal,
    ];

    /// The `reason` of the `ErrorInfo`.
    pub fn name(self) -> &'static str {
        match self {
            Self::BadRequest => "BAD_REQUEST",
            Self::RequestIdReused => "REQUEST_ID_REUSED",
            Self::JobNotFound => "JOB_NOT_FOUND",
            Self::CommitInProgress => "COMMIT_IN_PROGRESS",
            Self::JobEnded => "JOB_ENDED",
            Self::Unavailable => "UNAVAILABLE",
            Self::Internal => "INTERNAL",
        }
    }

    /// The gRPC code that goes with it.
    pub fn code(self) -> Code {
        match self {
            Self::BadRequest => Code::InvalidArgument,
            Self::RequestIdReused => Code::AlreadyExists,
            Self::JobNotFound => Code::NotFound,
            Self::CommitInProgress | Self::JobEnded => Code::FailedPrecondition,
            Self::Unavailable => Code::Unavailable,
            Self::Internal => Code::Internal,
        }
    }

    /// A status with this reason.
    pub fn status(self, message: impl Into<String>) -> Status {
        let mut details = ErrorDetails::new();
        details.set_error_info(self.name(), DOMAIN, HashMap::new());
        Status::with_error_details(self.code(), message, details)
    }

    /// The reason of a status that this product made.
    pub fn of(status: &Status) -> Option<Self> {
        let details = status.get_error_details();
        let info = details.error_info()?;
        Self::ALL
            .into_iter()
            .find(|reason| info.domain == DOMAIN && reason.name() == info.reason)
    }
}

/// Stands between message and hint in a field violation.
const HINT: &str = "\nhint: ";

/// INVALID_ARGUMENT with every problem as a field violation.
pub fn bad_recipe(problems: &[Problem]) -> Status {
    let mut details = ErrorDetails::new();
    details.set_error_info(Reason::BadRequest.name(), DOMAIN, HashMap::new());
    for problem in problems {
        let hint = problem
            .hint
            .as_ref()
            .map(|hint| format!("{HINT}{hint}"))
            .unwrap_or_default();
        details.add_bad_request_violation(&problem.subject, format!("{}{hint}", problem.message));
    }
    let message = match problems {
        [one] => format!("bad recipe: {one}"),
        _ => format!("bad recipe: {} problems", problems.len()),
    };
    Status::with_error_details(Code::InvalidArgument, message, details)
}

/// The problems that [`bad_recipe`] put into a status; empty for any other.
pub fn problems_of(status: &Status) -> Vec<Problem> {
    let details = status.get_error_details();
    let Some(request) = details.bad_request() else {
        return Vec::new();
    };
    let problem = |field: &str, description: &str| match description.split_once(HINT) {
        Some((message, hint)) => Problem::new(field, message).with_hint(hint),
        None => Problem::new(field, description),
    };
    request
        .field_violations
        .iter()
        .map(|violation| problem(&violation.field, &violation.description))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_survive_the_wire_with_their_hints() {
        let problems = [
            Problem::new("vectors[0].lambda", "expected a number, found `x`"),
            Problem::new("cp", "no such folder").with_hint("give the folder"),
        ];
        assert_eq!(problems_of(&bad_recipe(&problems)), problems);
    }

    #[test]
    fn every_reason_reads_back_from_its_status() {
        for reason in Reason::ALL {
            let status = reason.status("text");
            assert_eq!(Reason::of(&status), Some(reason));
            assert_eq!(status.code(), reason.code());
        }
    }
}
