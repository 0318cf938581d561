//! Database work apart from the request that asked for it.
//!
//! A client that goes away drops its request's future, and a transaction that
//! is dropped half-way can poison a pooled connection. So the work runs in a
//! task of its own, to its end, and in the request's span.

use std::time::Duration;

use tonic::Status;
use tracing::Instrument as _;

use chatvec_proto::status::Reason;

use super::store::StoreError;

/// Longest that a request waits for the job store: a connection whose other end
/// vanished never answers.
const ANSWER_MAX: Duration = Duration::from_secs(15);

/// Runs store calls to their end, whatever becomes of the request.
pub(super) async fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T, StoreError>> + Send + 'static,
) -> Result<T, Status> {
    let timed = async {
        let outcome = tokio::time::timeout(ANSWER_MAX, work).await;
        outcome.unwrap_or(Err(StoreError::TimedOut))
    };
    match tokio::spawn(timed.in_current_span()).await {
        Ok(outcome) => outcome.map_err(|error| status(&error)),
        Err(panic) => {
            tracing::error!(%panic, "a request panicked");
            Err(Reason::Internal.status("the coordinator hit a bug; its log has the details"))
        }
    }
}

/// What a client sees of a store's error. Logged here where it is the
/// coordinator's own trouble.
pub(super) fn status(error: &StoreError) -> Status {
    use chatvec_core::job::JobState;
    let message = error.to_string();
    match error {
        StoreError::RequestIdReused { request } => {
            Reason::RequestIdReused.status_of("request_id", request.as_str(), message)
        }
        StoreError::OutputInUse { job, .. } => {
            Reason::OutputInUse.status_of("job_id", job.as_str(), message)
        }
        StoreError::TenantFull { tenant, .. } => {
            Reason::TenantLimit.status_of("tenant", tenant.as_str(), message)
        }
        StoreError::JobNotFound(job) | StoreError::TaskNotFound { job, .. } => {
            Reason::JobNotFound.status_of("job_id", job.as_str(), message)
        }
        StoreError::WrongState { job, state } if *state == JobState::Committing => {
            let message = format!("{message}: the point of no return has passed");
            Reason::CommitInProgress.status_of("job_id", job.as_str(), message)
        }
        StoreError::WrongState { job, .. } => {
            Reason::JobEnded.status_of("job_id", job.as_str(), message)
        }
        StoreError::JobActive { job, .. } => {
            Reason::JobActive.status_of("job_id", job.as_str(), message)
        }
        StoreError::WrongParts { .. } => Reason::BadRequest.status(error.to_string()),
        _ if error.is_closed() => {
            Reason::Unavailable.status("the coordinator is stopping; try again")
        }
        StoreError::Database(_) | StoreError::TimedOut => {
            tracing::error!(%error, "the job store cannot be used");
            Reason::Unavailable.status(format!("the job store cannot be used: {error}"))
        }
        _ => {
            tracing::error!(%error, "a request failed");
            Reason::Internal.status("the coordinator hit a bug; its log has the details")
        }
    }
}
