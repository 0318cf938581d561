//! Database work apart from the request that asked for it.
//!
//! A client that goes away drops its request's future, and a transaction that
//! is dropped half-way can poison a pooled connection. So the work runs in a
//! task of its own, to its end, and in the request's span.
//!
//! Before that, a request waits for its turn, and while it waits it leaves
//! nothing behind: whatever number of clients call, and however many of them go
//! away, the work at the job store is bounded.

use std::sync::Arc;
use std::time::Duration;

use chatvec_core::job::JobState;
use chatvec_proto::status::Reason;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tonic::Status;
use tracing::Instrument as _;

use super::store::StoreError;

/// Longest that a request waits for the job store: a connection whose other end
/// vanished never answers.
const ANSWER_MAX: Duration = Duration::from_secs(15);

/// How long a request waits for its turn before it is told to come again. Too
/// short and a burst of calls is refused; too long and nobody waits any more for
/// the answers that are worked on.
const PATIENCE: Duration = Duration::from_secs(5);

/// The turns of one kind of callers at the job store. Kinds have turns of their
/// own, so that none keeps another from working.
#[derive(Debug, Clone)]
pub(super) struct Turns {
    places: Arc<Semaphore>,
    patience: Duration,
}

impl Turns {
    /// For so many requests at once.
    pub(super) fn new(places: usize) -> Self {
        Self {
            places: Arc::new(Semaphore::new(places)),
            patience: PATIENCE,
        }
    }

    /// The same, but for callers who wait as long as it takes.
    #[must_use]
    pub(super) fn patient(self) -> Self {
        Self {
            patience: Duration::MAX,
            ..self
        }
    }

    /// Waits for a turn, then runs store calls to their end, whatever becomes of
    /// the request.
    pub(super) async fn detached<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, Status> {
        let turn = timeout(self.patience, Arc::clone(&self.places).acquire_owned()).await;
        let Ok(turn) = turn else {
            return Err(Reason::Unavailable.status("the coordinator is busy; try again"));
        };
        let timed = async move {
            let _turn = turn;
            let outcome = timeout(ANSWER_MAX, work).await;
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
}

/// What a client sees of a store's error. Logged here where it is the
/// coordinator's own trouble.
fn status(error: &StoreError) -> Status {
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
        StoreError::WrongParts { .. } => Reason::BadRequest.status(message),
        _ if error.is_closed() => {
            Reason::Unavailable.status("the coordinator is stopping; try again")
        }
        _ if error.is_transient() => {
            tracing::error!(%error, "the job store cannot be used");
            Reason::Unavailable.status(format!("the job store cannot be used: {message}"))
        }
        _ => {
            tracing::error!(%error, "a request failed");
            Reason::Internal.status("the coordinator hit a bug; its log has the details")
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::pin::pin;

    use tokio::sync::oneshot;

    use super::*;

    fn reason_of(error: &StoreError) -> Option<Reason> {
        Reason::of(&status(error))
    }

    #[test]
    fn what_passes_by_itself_is_unavailable_and_the_rest_of_the_database_is_a_bug() {
        let away = sqlx::Error::Io(io::ErrorKind::ConnectionRefused.into());
        for passing in [
            StoreError::Database(away),
            StoreError::Database(sqlx::Error::PoolTimedOut),
            StoreError::Database(sqlx::Error::PoolClosed),
            StoreError::TimedOut,
        ] {
            assert_eq!(reason_of(&passing), Some(Reason::Unavailable));
        }
        for bug in [
            StoreError::Database(sqlx::Error::RowNotFound),
            StoreError::Database(sqlx::Error::ColumnNotFound("state".to_owned())),
            StoreError::NotOne(2),
        ] {
            assert_eq!(reason_of(&bug), Some(Reason::Internal));
        }
    }

    #[tokio::test]
    async fn work_goes_on_without_its_request_and_holds_its_turn() {
        let turns = Turns::new(1);
        let (begun, begins) = oneshot::channel();
        let (go_on, goes_on) = oneshot::channel();
        let (ended, ends) = oneshot::channel();
        let request = turns.detached(async move {
            let _ = begun.send(());
            let _ = goes_on.await;
            let _ = ended.send(());
            Ok(())
        });
        tokio::select! {
            _ = request => panic!("it waits"),
            _ = begins => {}
        }
        // The request is dropped; another one waits for the turn.
        assert_eq!(turns.places.available_permits(), 0);
        go_on.send(()).unwrap();
        ends.await.unwrap();
        turns.detached(async { Ok(()) }).await.unwrap();
    }

    #[tokio::test]
    async fn a_request_that_leaves_before_its_turn_leaves_no_work() {
        let turns = Turns::new(1);
        let held = Arc::clone(&turns.places).acquire_owned().await.unwrap();
        let (begun, begins) = oneshot::channel::<()>();
        let request = turns.detached(async move {
            let _ = begun.send(());
            Ok(())
        });
        assert!(timeout(Duration::ZERO, request).await.is_err());
        drop(held);
        begins.await.unwrap_err();
    }

    #[tokio::test]
    async fn whoever_waits_too_long_for_a_turn_is_told_to_come_again() {
        let turns = Turns {
            patience: Duration::ZERO,
            ..Turns::new(0)
        };
        let refused = turns.detached(async { Ok(()) }).await.unwrap_err();
        assert_eq!(Reason::of(&refused), Some(Reason::Unavailable));
        let patient = turns.clone().patient();
        let mut waiting = pin!(patient.detached(async { Ok(()) }));
        assert!(timeout(Duration::ZERO, &mut waiting).await.is_err());
        turns.places.add_permits(1);
        waiting.await.unwrap();
    }
}
