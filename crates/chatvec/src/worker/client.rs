//! The worker's calls to its coordinator, with deadlines and retries.

use std::time::Duration;

use chatvec_core::task::{FailureKind, Lease, TaskFailure};
use chatvec_proto::v1::worker_service_client::WorkerServiceClient;
use chatvec_proto::{MESSAGE_BYTES_MAX, v1};
use tokio::time::Instant;
use tonic::{Code, Request, Status};

use crate::channel::{Connection, Coordinators};
use crate::identity;

/// First pause between two tries of a call; doubles up to [`RETRY_PAUSE_MAX`].
const RETRY_PAUSE_FIRST: Duration = Duration::from_millis(50);
/// Longest pause between two tries of a call.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(5);
/// How long the coordinator may hold an acquire call open for a task.
const ACQUIRE_WAIT: Duration = Duration::from_secs(20);
/// Deadline of a report or a release. Too low and a slow database looks dead.
const REPORT_DEADLINE: Duration = Duration::from_secs(30);

/// A worker's end of the wire. Cheap to clone; clones share a connection.
#[derive(Debug, Clone)]
pub struct WorkerClient {
    coordinators: Coordinators,
    service: WorkerServiceClient<Connection>,
    patience: Duration,
}

impl WorkerClient {
    /// Speaks to any of these coordinators. Within a runtime.
    pub fn new(coordinators: Coordinators) -> Self {
        let service = WorkerServiceClient::new(coordinators.connect())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        Self {
            coordinators,
            service,
            patience: Duration::MAX,
        }
    }

    /// The same over a connection of its own, which the runtime drives within
    /// which this is called.
    pub(super) fn reconnected(&self) -> Self {
        Self::new(self.coordinators.clone()).with_patience(self.patience)
    }

    /// The same, but for calls that are repeated no longer than this: whoever
    /// waits for the worker is told rather than kept waiting.
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// How long failing calls are repeated.
    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    /// Leases up to `max_tasks` tasks; empty when none came up in time.
    pub(super) async fn acquire(
        &self,
        worker: v1::Worker,
        max_tasks: u32,
    ) -> Result<v1::AcquireTasksResponse, Status> {
        let wait_ms =
            u32::try_from(ACQUIRE_WAIT.as_millis()).expect("twenty seconds in milliseconds");
        let mut request = Request::new(v1::AcquireTasksRequest {
            worker: Some(worker),
            max_tasks,
            wait_ms,
        });
        request.set_timeout(ACQUIRE_WAIT + REPORT_DEADLINE);
        Ok(self
            .service
            .clone()
            .acquire_tasks(request)
            .await?
            .into_inner())
    }

    /// Renews leases. Not retried: the next beat is the retry.
    pub(super) async fn heartbeat(
        &self,
        worker: v1::Worker,
        beats: Vec<v1::Beat>,
        draining: bool,
        deadline: Duration,
    ) -> Result<v1::HeartbeatResponse, Status> {
        let mut request = Request::new(v1::HeartbeatRequest {
            worker: Some(worker),
            beats,
            draining,
        });
        request.set_timeout(deadline);
        Ok(self.service.clone().heartbeat(request).await?.into_inner())
    }

    /// Reports tasks; the results are in the order of the reports. Repeated until
    /// the coordinator answers: work that is done is reported even after an
    /// outage, and counts if the fence still holds.
    pub(super) async fn report(
        &self,
        worker_id: &str,
        reports: Vec<v1::TaskReport>,
    ) -> Result<Vec<v1::ReportResult>, Status> {
        let count = reports.len();
        let message = v1::ReportTasksRequest {
            worker_id: worker_id.to_owned(),
            reports,
        };
        let response = self
            .until_answered(|mut service| {
                let request = timed(message.clone());
                async move { Ok(service.report_tasks(request).await?.into_inner()) }
            })
            .await?;
        if response.results.len() != count {
            return Err(Status::internal(format!(
                "expected {count} results of as many reports, found {}",
                response.results.len()
            )));
        }
        Ok(response.results().collect())
    }

    /// Gives a lease back unfinished, uncharged.
    pub(super) async fn release(&self, worker_id: &str, lease: &Lease) -> Result<(), Status> {
        let leases = vec![lease.clone().into()];
        let message = v1::ReleaseTasksRequest {
            worker_id: worker_id.to_owned(),
            leases,
        };
        self.until_answered(|mut service| {
            let request = timed(message.clone());
            async move { service.release_tasks(request).await.map(drop) }
        })
        .await
    }

    /// Repeats an idempotent call while the coordinator cannot be reached.
    async fn until_answered<T, F>(
        &self,
        call: impl Fn(WorkerServiceClient<Connection>) -> F,
    ) -> Result<T, Status>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let begin = Instant::now();
        let mut pause = RETRY_PAUSE_FIRST;
        loop {
            match call(self.service.clone()).await {
                Err(status) if is_passing(&status) && begin.elapsed() < self.patience => {
                    tracing::warn!(error = %status, "coordinator cannot be reached, the call is repeated");
                    tokio::time::sleep(pause.mul_f64(identity::jitter())).await;
                    pause = (pause * 2).min(RETRY_PAUSE_MAX);
                }
                answer => return answer,
            }
        }
    }
}

fn timed<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(REPORT_DEADLINE);
    request
}

/// Whether the same call may succeed later.
pub(super) fn is_passing(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled)
        // A connection that breaks under a call surfaces as UNKNOWN with a transport error.
        || (status.code() == Code::Unknown && std::error::Error::source(status).is_some())
}

/// A failure that is this program's own fault.
pub(super) fn internal(subject: &str, message: String) -> TaskFailure {
    TaskFailure {
        kind: FailureKind::Internal,
        problem: chatvec_core::problem::Problem::new(subject, message),
    }
}
