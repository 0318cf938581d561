//! What can go wrong with object storage.

use chatvec_core::problem::Problem;
use chatvec_core::task::{FailureKind, TaskFailure};
use object_store::client::{HttpError, HttpErrorKind};

use super::answer::{Answer, RANGE_IGNORED};
use super::bucket::Target;
use super::credentials::NoCredentials;
use super::url::ObjectUrlError;

/// Why object storage did not do what was asked. The variants are those that a
/// caller treats differently; each names the URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ObjectError {
    /// There is no such object.
    #[error("expected object `{url}`, found nothing")]
    NotFound {
        /// The object.
        url: String,
    },
    /// There is no such bucket.
    #[error("expected the bucket of `{url}`, found none")]
    NoBucket {
        /// The object.
        url: String,
    },
    /// The object is not the one of the ETag that was asked for.
    #[error("`{url}` changed: expected {expected}, found another object")]
    Changed {
        /// The object.
        url: String,
        /// The ETag that was asked for.
        expected: String,
    },
    /// A conditional write met another.
    #[error("`{url}`: another write was under way: {says}")]
    Conflict {
        /// The object.
        url: String,
        /// The store's words.
        says: String,
    },
    /// The store knows who asks, or does not, and says no.
    #[error("`{url}`: the store refused: {says}")]
    Denied {
        /// The object.
        url: String,
        /// The store's words.
        says: String,
    },
    /// There are no credentials to ask with.
    #[error("`{url}`: no credentials: {says}")]
    NoCredentials {
        /// The object.
        url: String,
        /// What was looked for in vain.
        says: String,
    },
    /// This machine's clock is not the store's.
    #[error("`{url}`: this machine's clock is wrong: {says}")]
    ClockSkew {
        /// The object.
        url: String,
        /// The store's words.
        says: String,
    },
    /// The upload was aborted or completed, or never existed.
    #[error("`{url}`: the upload is gone")]
    UploadGone {
        /// The object.
        url: String,
    },
    /// A part is not the one that was recorded, or is missing.
    #[error("`{url}`: a part of the upload is not the recorded one: {says}")]
    InvalidPart {
        /// The object.
        url: String,
        /// The store's words.
        says: String,
    },
    /// The store had no room for the request, for minutes.
    #[error("`{url}`: the store is overloaded: {says}")]
    Throttled {
        /// The object.
        url: String,
        /// The store's words.
        says: String,
    },
    /// Nobody answers.
    #[error("`{url}`: no answer from `{endpoint}`: {says}")]
    Unreachable {
        /// The object.
        url: String,
        /// Who should answer.
        endpoint: String,
        /// What the system says.
        says: String,
    },
    /// Something that may pass by itself.
    #[error("`{url}`: {says}")]
    Transient {
        /// The object.
        url: String,
        /// What happened.
        says: String,
    },
    /// The object is longer than any of its kind.
    #[error("`{url}`: expected at most {max} bytes, found {size}")]
    TooLarge {
        /// The object.
        url: String,
        /// The most that is read.
        max: u64,
        /// Its size.
        size: u64,
    },
    /// The store breaks the protocol in a way that cannot be worked around.
    #[error("`{url}`: the store is not fit for this: {says}")]
    Defect {
        /// The object.
        url: String,
        /// What it does.
        says: String,
    },
    /// The store, or this build, cannot do this at all.
    #[error("`{url}`: not supported: {says}")]
    Unsupported {
        /// The object.
        url: String,
        /// What is missing.
        says: String,
    },
    /// The settings make no client, or the client of another place.
    #[error("`{url}`: {says}")]
    Config {
        /// The object.
        url: String,
        /// What is wrong.
        says: String,
        /// What to set, where that is known.
        hint: Option<String>,
    },
    /// The store refused the request itself.
    #[error("`{url}`: the store refused: {says}")]
    Refused {
        /// The object.
        url: String,
        /// The store's words.
        says: String,
    },
}

impl From<ObjectUrlError> for ObjectError {
    /// A URL that names no object.
    fn from(error: ObjectUrlError) -> Self {
        Self::Config {
            url: String::new(),
            says: error.to_string(),
            hint: None,
        }
    }
}

/// Whether a request may be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// It never will be answered otherwise.
    Never,
    /// With other credentials.
    WithFreshCredentials,
    /// After a while. It may have been carried out.
    AfterFailure,
    /// After a while, with fewer at once. It was not carried out.
    AfterThrottling,
}

impl ObjectError {
    /// Classifies what the library reports of a request for `target`.
    pub(super) fn of(target: &Target, error: &object_store::Error) -> Self {
        let url = target.url.clone();
        if let Some(answer) = behind::<Answer>(error) {
            return Self::of_answer(url, answer);
        }
        if let Some(missing) = behind::<NoCredentials>(error) {
            let says = missing.to_string();
            return Self::NoCredentials { url, says };
        }
        match error {
            object_store::Error::NotSupported { .. }
            | object_store::Error::NotImplemented { .. } => {
                let says = error.to_string();
                Self::Unsupported { url, says }
            }
            object_store::Error::InvalidPath { .. } => {
                let (says, hint) = (error.to_string(), None);
                Self::Config { url, says, hint }
            }
            _ => Self::of_http(target, error),
        }
    }

    /// Classifies what a socket reports of a request for `target`.
    pub(super) fn of_http(target: &Target, error: &(dyn std::error::Error + 'static)) -> Self {
        let url = target.url.clone();
        if let Some(answer) = behind::<Answer>(error) {
            return Self::of_answer(url, answer);
        }
        let says = innermost(error);
        match behind::<HttpError>(error).map(HttpError::kind) {
            Some(HttpErrorKind::Connect) => Self::Unreachable {
                url,
                endpoint: target.endpoint.to_string(),
                says,
            },
            _ => Self::Transient { url, says },
        }
    }

    fn of_answer(url: String, answer: &Answer) -> Self {
        let says = if answer.code.is_empty() {
            format!("{} {}", answer.status, answer.message)
        } else {
            format!("{}: {}", answer.code, answer.message)
        };
        let says = says.trim_end_matches([' ', ':']).to_owned();
        match (answer.status, answer.code.as_str()) {
            (_, RANGE_IGNORED) => Self::Defect {
                url,
                says: format!("it ignores ranges: {}", answer.message),
            },
            (_, "NoSuchUpload") => Self::UploadGone { url },
            (_, "NoSuchBucket" | "ContainerNotFound") => Self::NoBucket { url },
            (_, "InvalidPart" | "InvalidPartOrder") => Self::InvalidPart { url, says },
            (_, "RequestTimeTooSkewed") => Self::ClockSkew { url, says },
            (
                _,
                "PermanentRedirect"
                | "TemporaryRedirect"
                | "AuthorizationHeaderMalformed"
                | "IllegalLocationConstraintException",
            )
            | (300..=303 | 305..=399, _) => {
                let hint = answer.region.as_ref();
                let hint = hint.map(|region| format!("set AWS_REGION={region}"));
                Self::Config { url, says, hint }
            }
            (404, _) => Self::NotFound { url },
            (304 | 412, _) => Self::Changed {
                url,
                expected: String::new(),
            },
            (409, _) => Self::Conflict { url, says },
            (401 | 403, _) | (_, "ExpiredToken" | "InvalidToken" | "InvalidAccessKeyId") => {
                Self::Denied { url, says }
            }
            (429 | 503, _) | (_, "SlowDown" | "Throttling" | "TooManyRequests") => {
                Self::Throttled { url, says }
            }
            (405 | 501, _) => Self::Unsupported { url, says },
            // The last ones are of a body that was damaged on the way.
            (408 | 500..=599, _)
            | (
                _,
                "InternalError"
                | "RequestTimeout"
                | "IncompleteBody"
                | "BadDigest"
                | "XAmzContentSHA256Mismatch"
                | "XAmzContentChecksumMismatch",
            ) => Self::Transient { url, says },
            _ => Self::Refused { url, says },
        }
    }

    /// Whether the request that met this error may be sent again.
    pub(super) fn again(&self) -> Again {
        match self {
            Self::Throttled { .. } => Again::AfterThrottling,
            Self::Transient { .. } | Self::Unreachable { .. } => Again::AfterFailure,
            Self::Denied { .. } => Again::WithFreshCredentials,
            _ => Again::Never,
        }
    }

    /// The object, or the folder or bucket where there is no object.
    pub fn url(&self) -> &str {
        match self {
            Self::NotFound { url }
            | Self::NoBucket { url }
            | Self::Changed { url, .. }
            | Self::Conflict { url, .. }
            | Self::Denied { url, .. }
            | Self::NoCredentials { url, .. }
            | Self::ClockSkew { url, .. }
            | Self::UploadGone { url }
            | Self::InvalidPart { url, .. }
            | Self::Throttled { url, .. }
            | Self::Unreachable { url, .. }
            | Self::Transient { url, .. }
            | Self::TooLarge { url, .. }
            | Self::Defect { url, .. }
            | Self::Unsupported { url, .. }
            | Self::Config { url, .. }
            | Self::Refused { url, .. } => url,
        }
    }

    /// The class of the error, and what the user is told.
    pub fn failure(&self) -> TaskFailure {
        let kind = match self {
            Self::NotFound { .. } | Self::Changed { .. } => FailureKind::SourceChanged,
            Self::Denied { .. } | Self::NoCredentials { .. } => FailureKind::PermissionDenied,
            // Another machine may do it.
            Self::ClockSkew { .. } => FailureKind::Preempted,
            // Whoever ended the upload took the lease away before.
            Self::UploadGone { .. } => FailureKind::UploadGone,
            Self::Conflict { .. }
            | Self::Throttled { .. }
            | Self::Unreachable { .. }
            | Self::Transient { .. } => FailureKind::Transient,
            Self::InvalidPart { .. } => FailureKind::Internal,
            Self::NoBucket { .. }
            | Self::TooLarge { .. }
            | Self::Defect { .. }
            | Self::Unsupported { .. }
            | Self::Config { .. }
            | Self::Refused { .. } => FailureKind::BadInput,
        };
        let problem = self.problem();
        TaskFailure { kind, problem }
    }

    /// What the user is told: the URL, what was expected and found, and what
    /// to do about it.
    pub fn problem(&self) -> Problem {
        let mut problem = Problem::new(self.url(), self.message());
        problem.hint = self.hint();
        problem
    }

    /// What was expected and found, without the URL.
    fn message(&self) -> String {
        match self {
            Self::NotFound { .. } => "expected an object, found nothing".to_owned(),
            Self::NoBucket { .. } => "no such bucket".to_owned(),
            Self::Changed { expected, .. } if expected.is_empty() => {
                "changed since it was planned".to_owned()
            }
            Self::Changed { expected, .. } => {
                format!("changed: expected {expected}, found another object")
            }
            Self::Conflict { says, .. } => format!("another write was under way: {says}"),
            Self::Denied { says, .. } | Self::Refused { says, .. } => {
                format!("the store refused: {says}")
            }
            Self::NoCredentials { says, .. } => format!("no credentials: {says}"),
            Self::ClockSkew { says, .. } => format!("this machine's clock is wrong: {says}"),
            Self::UploadGone { .. } => "the upload is gone".to_owned(),
            Self::InvalidPart { says, .. } => {
                format!("a part of the upload is not the recorded one: {says}")
            }
            Self::Throttled { says, .. } => format!("the store is overloaded: {says}"),
            Self::Unreachable { endpoint, says, .. } => {
                format!("no answer from `{endpoint}`: {says}")
            }
            Self::TooLarge { max, size, .. } => {
                format!("expected at most {max} bytes, found {size}")
            }
            Self::Defect { says, .. } => format!("the store is not fit for this: {says}"),
            Self::Unsupported { says, .. } => format!("not supported: {says}"),
            Self::Transient { says, .. } | Self::Config { says, .. } => says.clone(),
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Config { hint, .. } => return hint.clone(),
            Self::NotFound { .. } | Self::NoBucket { .. } => {
                "check the URL, and that AWS_ENDPOINT_URL names the store that holds it"
            }
            Self::Denied { .. } => {
                "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and what they may do in this bucket"
            }
            Self::NoCredentials { .. } => {
                "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run where a role gives credentials"
            }
            Self::ClockSkew { .. } => "set the clock",
            Self::Unreachable { .. } => "check AWS_ENDPOINT_URL, and that the store runs",
            Self::Defect { .. } => "`chatvec doctor --storage URL` shows what the store can do",
            _ => return None,
        };
        Some(hint.to_owned())
    }
}

/// The first cause of the type.
fn behind<'a, T: std::error::Error + 'static>(
    mut error: &'a (dyn std::error::Error + 'static),
) -> Option<&'a T> {
    loop {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        error = error.source()?;
    }
}

/// The words of the first cause: what lies around it repeats it.
fn innermost(mut error: &(dyn std::error::Error + 'static)) -> String {
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
