//! The errors that clients see: a restricted set of codes, each with one
//! `google.rpc.ErrorInfo` that names the reason.

use std::collections::HashMap;
use std::time::Duration;

use chatvec_core::problem::Problem;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// The `domain` of every `ErrorInfo`.
pub const DOMAIN: &str = "chatvec";

/// Bytes of field violations in one status, at most. Details travel in the
/// headers of an answer, and clients refuse headers of more than 8 KiB.
const VIOLATIONS_BYTES_MAX: usize = 3 << 10;
/// Bytes of a message or a subject, at most.
const TEXT_BYTES_MAX: usize = 512;

/// Why a call was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The request breaks the contract or the recipe is wrong.
    BadRequest,
    /// The `request_id` names a job with another recipe.
    RequestIdReused,
    /// Another job writes to the output, or has left something there.
    OutputInUse,
    /// The tenant has as many jobs as it may.
    TenantLimit,
    /// No such job.
    JobNotFound,
    /// The job is past the point of no return.
    CommitInProgress,
    /// The job has ended.
    JobEnded,
    /// The job has not ended, or what it left in storage is not removed yet.
    JobActive,
    /// The worker is of another version than the coordinator.
    ProtocolVersion,
    /// The call took longer than it may.
    DeadlineExceeded,
    /// The coordinator is stopping or busy, or its store cannot be reached; try
    /// again.
    Unavailable,
    /// A bug.
    Internal,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 12] = [
        Self::BadRequest,
        Self::RequestIdReused,
        Self::OutputInUse,
        Self::TenantLimit,
        Self::JobNotFound,
        Self::CommitInProgress,
        Self::JobEnded,
        Self::JobActive,
        Self::ProtocolVersion,
        Self::DeadlineExceeded,
        Self::Unavailable,
        Self::Internal,
    ];

    /// The `reason` of the `ErrorInfo`.
    pub fn name(self) -> &'static str {
        match self {
            Self::BadRequest => "BAD_REQUEST",
            Self::RequestIdReused => "REQUEST_ID_REUSED",
            Self::OutputInUse => "OUTPUT_IN_USE",
            Self::TenantLimit => "TENANT_LIMIT",
            Self::JobNotFound => "JOB_NOT_FOUND",
            Self::CommitInProgress => "COMMIT_IN_PROGRESS",
            Self::JobEnded => "JOB_ENDED",
            Self::JobActive => "JOB_ACTIVE",
            Self::ProtocolVersion => "PROTOCOL_VERSION",
            Self::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Self::Unavailable => "UNAVAILABLE",
            Self::Internal => "INTERNAL",
        }
    }

    /// The gRPC code that goes with it.
    pub fn code(self) -> Code {
        match self {
            Self::BadRequest => Code::InvalidArgument,
            Self::RequestIdReused => Code::AlreadyExists,
            Self::TenantLimit => Code::ResourceExhausted,
            Self::JobNotFound => Code::NotFound,
            Self::OutputInUse
            | Self::CommitInProgress
            | Self::JobEnded
            | Self::JobActive
            | Self::ProtocolVersion => Code::FailedPrecondition,
            Self::DeadlineExceeded => Code::DeadlineExceeded,
            Self::Unavailable => Code::Unavailable,
            Self::Internal => Code::Internal,
        }
    }

    /// How long a client waits before it tries again; `None` where a repeat of
    /// the same call is of no use.
    pub fn retry_after(self) -> Option<Duration> {
        match self {
            Self::Unavailable => Some(Duration::from_secs(1)),
            Self::TenantLimit => Some(Duration::from_secs(10)),
            _ => None,
        }
    }

    /// A status with this reason.
    pub fn status(self, message: impl Into<String>) -> Status {
        let details = self.details(HashMap::new());
        Status::with_error_details(self.code(), short(&message.into()), details)
    }

    /// A status with this reason that an object is the cause of. `metadata`
    /// names the object in the `ErrorInfo`, such as `job_id`.
    pub fn status_of(
        self,
        metadata: &'static str,
        object: &str,
        message: impl Into<String>,
    ) -> Status {
        let message = short(&message.into());
        let object = short(object);
        let mut details = self.details([(metadata.to_owned(), object.clone())].into());
        if self.code() == Code::FailedPrecondition {
            details.add_precondition_failure_violation(self.name(), object, &message);
        }
        Status::with_error_details(self.code(), message, details)
    }

    fn details(self, metadata: HashMap<String, String>) -> ErrorDetails {
        let mut details = ErrorDetails::new();
        details.set_error_info(self.name(), DOMAIN, metadata);
        if let Some(pause) = self.retry_after() {
            details.set_retry_info(Some(pause));
        }
        details
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

/// INVALID_ARGUMENT with the problems as field violations: all of them, or as
/// many as an answer has room for, and then how many more there are.
pub fn bad_request(problems: &[Problem]) -> Status {
    let count = [("problems".to_owned(), problems.len().to_string())];
    let mut details = Reason::BadRequest.details(count.into());
    let mut bytes = 0;
    for (told, problem) in problems.iter().enumerate() {
        let hint = problem
            .hint
            .as_ref()
            .map(|hint| format!("{HINT}{}", short(hint)))
            .unwrap_or_default();
        let field = short(&problem.subject);
        let description = format!("{}{hint}", short(&problem.message));
        bytes += field.len() + description.len();
        if bytes > VIOLATIONS_BYTES_MAX {
            details.add_bad_request_violation(
                "",
                format!("{} more problems are not listed", problems.len() - told),
            );
            break;
        }
        details.add_bad_request_violation(field, description);
    }
    let message = match problems {
        [one] => format!("bad request: {}", short(&one.to_string())),
        _ => format!("bad request: {} problems", problems.len()),
    };
    Status::with_error_details(Code::InvalidArgument, message, details)
}

/// A text, or its beginning where it is too long to travel in a header.
fn short(text: &str) -> String {
    if text.len() <= TEXT_BYTES_MAX {
        return text.to_owned();
    }
    format!("{}…", &text[..text.floor_char_boundary(TEXT_BYTES_MAX)])
}

/// The problems that [`bad_request`] put into a status; empty for any other.
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
        assert_eq!(problems_of(&bad_request(&problems)), problems);
    }

    #[test]
    fn every_reason_reads_back_from_its_status() {
        for reason in Reason::ALL {
            let status = reason.status("text");
            assert_eq!(Reason::of(&status), Some(reason));
            assert_eq!(status.code(), reason.code());
            let about = reason.status_of("job_id", "j1", "text");
            assert_eq!(Reason::of(&about), Some(reason));
            let details = about.get_error_details();
            assert_eq!(details.error_info().unwrap().metadata["job_id"], "j1");
        }
    }

    #[test]
    fn who_may_try_again_is_told_when_and_a_precondition_names_its_object() {
        let busy = Reason::Unavailable.status("busy").get_error_details();
        let pause = busy.retry_info().and_then(|info| info.retry_delay);
        assert_eq!(pause, Some(Duration::from_secs(1)));
        let ended = Reason::JobEnded.status_of("job_id", "j1", "job `j1` is FAILED");
        let details = ended.get_error_details();
        assert!(details.retry_info().is_none());
        let violation = &details.precondition_failure().unwrap().violations[0];
        assert_eq!(
            (violation.r#type.as_str(), violation.subject.as_str()),
            ("JOB_ENDED", "j1")
        );
    }

    #[test]
    fn an_answer_fits_the_headers_of_any_client() {
        let long = "ü".repeat(100_000);
        let problems = vec![Problem::new(&long, &long).with_hint(&long); 10_000];
        let status = bad_request(&problems);
        assert!(
            status.details().len() < 6 << 10,
            "{}",
            status.details().len()
        );
        let told = problems_of(&status);
        assert_eq!(
            told.last().unwrap().message,
            format!("{} more problems are not listed", 10_001 - told.len())
        );
        assert!(bad_request(&problems[..1]).message().len() < 2 << 10);
        let one = Reason::JobNotFound.status_of("job_id", &long, &long);
        assert!(one.details().len() + one.message().len() < 6 << 10);
    }
}
