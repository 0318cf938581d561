//! The workers' service: leases out, reports in.

use std::time::Duration;

use chatvec_core::ids::{Crc64, FileOrdinal, PartOrdinal, WorkerId};
use chatvec_core::task::{Lease, TaskFailure};
use chatvec_proto::convert::{decode_spec, encode_sums};
use chatvec_proto::status::Reason;
use chatvec_proto::v1;
use chatvec_proto::v1::worker_service_server::WorkerService;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::CoordinatorOptions;
use super::detached::detached;
use super::store::{
    Acquired, Beat, BeatAnswer, FailOutcome, NewPart, Store, StoreError, WorkerInfo,
};
use crate::identity;

/// Between two looks at the job table while a worker waits. Wake-ups inside
/// this process come at once; this is for tasks whose back-off ends.
const POLL_PERIOD: Duration = Duration::from_secs(1);
/// Longest that an acquire call is held open, as a share of the lease. A worker
/// counts its lease from before the call, so waiting uses the lease up.
const WAITS_PER_LEASE: u32 = 6;

/// The service's state.
#[derive(Debug, Clone)]
pub(super) struct WorkerApi {
    pub(super) store: Store,
    pub(super) options: CoordinatorOptions,
    /// Cancelled when the coordinator stops: waiting calls return empty.
    pub(super) stopping: CancellationToken,
}

#[tonic::async_trait]
impl WorkerService for WorkerApi {
    async fn acquire_tasks(
        &self,
        request: Request<v1::AcquireTasksRequest>,
    ) -> Result<Response<v1::AcquireTasksResponse>, Status> {
        let request = request.into_inner();
        let worker = worker_info(request.worker)?;
        let wait_ms = request
            .wait_ms
            .min(self.options.lease_duration_ms / WAITS_PER_LEASE);
        let deadline = Instant::now() + Duration::from_millis(u64::from(wait_ms));
        let mut ready = self.store.tasks_ready();
        loop {
            ready.borrow_and_update();
            let tasks = match self.stopping.is_cancelled() {
                // Nobody would renew the leases.
                true => Vec::new(),
                false => self.acquire(worker.clone(), request.max_tasks).await?,
            };
            let now = Instant::now();
            if !tasks.is_empty() || now >= deadline || self.stopping.is_cancelled() {
                let lease_duration_ms = self.options.lease_duration_ms;
                return Ok(Response::new(v1::AcquireTasksResponse {
                    tasks,
                    lease_duration_ms,
                }));
            }
            tokio::select! {
                _ = ready.changed() => {}
                () = tokio::time::sleep_until(deadline.min(now + POLL_PERIOD)) => {}
                () = self.stopping.cancelled() => {}
            }
        }
    }

    async fn heartbeat(
        &self,
        request: Request<v1::HeartbeatRequest>,
    ) -> Result<Response<v1::HeartbeatResponse>, Status> {
        let request = request.into_inner();
        let worker = worker_info(request.worker)?.worker_id;
        let mut beats = Vec::with_capacity(request.beats.len());
        for beat in request.beats {
            beats.push(Beat {
                lease: lease(beat.lease)?,
                progress_bytes: beat.progress_bytes,
            });
        }
        let store = self.store.clone();
        let lease_ms = i64::from(self.options.lease_duration_ms);
        let answers =
            detached(async move { store.heartbeat(&worker, &beats, lease_ms).await }).await?;
        let directive = |answer| match answer {
            BeatAnswer::Extended => v1::BeatDirective::Continue.into(),
            BeatAnswer::Lost => v1::BeatDirective::Lost.into(),
            BeatAnswer::Cancel => v1::BeatDirective::Cancel.into(),
        };
        Ok(Response::new(v1::HeartbeatResponse {
            directives: answers.into_iter().map(directive).collect(),
            lease_duration_ms: self.options.lease_duration_ms,
        }))
    }

    async fn report_tasks(
        &self,
        request: Request<v1::ReportTasksRequest>,
    ) -> Result<Response<v1::ReportTasksResponse>, Status> {
        let mut results = Vec::new();
        for report in request.into_inner().reports {
            let store = self.store.clone();
            let report = Report::try_from(report)?;
            let recorded = detached(async move { report.record(&store).await }).await?;
            results.push(recorded.into());
        }
        Ok(Response::new(v1::ReportTasksResponse { results }))
    }

    async fn release_tasks(
        &self,
        request: Request<v1::ReleaseTasksRequest>,
    ) -> Result<Response<v1::ReleaseTasksResponse>, Status> {
        for given_back in request.into_inner().leases {
            let store = self.store.clone();
            let release = async move {
                match store.release_task(&given_back.into()).await {
                    // Somebody else has it, or nobody: either way it is given back.
                    Err(StoreError::LeaseLost { .. }) => Ok(()),
                    outcome => outcome,
                }
            };
            detached(release).await?;
        }
        Ok(Response::new(v1::ReleaseTasksResponse {}))
    }
}

impl WorkerApi {
    async fn acquire(
        &self,
        worker: WorkerInfo,
        max_tasks: u32,
    ) -> Result<Vec<v1::LeasedTask>, Status> {
        let store = self.store.clone();
        let lease_ms = i64::from(self.options.lease_duration_ms);
        let acquired =
            detached(async move { store.acquire_tasks(&worker, max_tasks, lease_ms).await })
                .await?;
        let leased = |task: Acquired| {
            let spec = decode_spec(&task.spec).map_err(|error| {
                tracing::error!(%error, job.id = %task.lease.job, task.id = %task.lease.task, "stored task is broken");
                Reason::Internal.status("a stored task is broken; the coordinator's log has the details")
            })?;
            let traceparent = task.traceparent.unwrap_or_default();
            Ok(v1::LeasedTask {
                lease: Some(task.lease.into()),
                spec: Some(spec),
                traceparent,
                upload_id: task.upload_id.unwrap_or_default(),
            })
        };
        acquired.into_iter().map(leased).collect()
    }
}

/// What a worker says of one lease.
enum Report {
    Done(Lease, Vec<NewPart>),
    Failed(Lease, TaskFailure),
}

impl TryFrom<v1::TaskReport> for Report {
    type Error = Status;

    fn try_from(report: v1::TaskReport) -> Result<Self, Status> {
        let lease = lease(report.lease)?;
        match report.outcome {
            Some(v1::task_report::Outcome::Done(done)) => {
                let file = FileOrdinal(done.file);
                Ok(Self::Done(
                    lease,
                    done.parts
                        .into_iter()
                        .map(|part| new_part(file, part))
                        .collect(),
                ))
            }
            Some(v1::task_report::Outcome::Failed(failed)) => {
                let failure = TaskFailure::try_from(failed).map_err(bad_request)?;
                Ok(Self::Failed(lease, failure))
            }
            None => Err(Reason::BadRequest.status("field `outcome` is missing")),
        }
    }
}

impl Report {
    async fn record(self, store: &Store) -> Result<v1::ReportResult, StoreError> {
        let (lease, outcome) = match self {
            Self::Done(lease, parts) => {
                let outcome = store.complete_task(&lease, &parts).await.map(drop);
                (lease, outcome)
            }
            Self::Failed(lease, failure) => {
                let jitter = identity::jitter();
                let outcome = store.fail_task(&lease, &failure, jitter).await;
                let outcome = outcome.map(|next| log_failure(&lease, &failure, next));
                (lease, outcome)
            }
        };
        match outcome {
            Ok(()) => Ok(v1::ReportResult::Recorded),
            Err(StoreError::LeaseLost { .. }) => {
                tracing::info!(job.id = %lease.job, task.id = %lease.task, task.attempt = %lease.attempt,
                    "a report came after its lease, it does not count");
                Ok(v1::ReportResult::LeaseLost)
            }
            Err(error) => Err(error),
        }
    }
}

fn log_failure(lease: &Lease, failure: &TaskFailure, next: FailOutcome) {
    let message = match next {
        FailOutcome::Retried { .. } => "task failed, it will be tried again",
        FailOutcome::GaveUp => "task failed, and its job with it",
        FailOutcome::Cancelled => "task failed, its job is not wanted any more",
    };
    tracing::info!(job.id = %lease.job, task.id = %lease.task, task.attempt = %lease.attempt,
        task.failure = failure.kind.name(), task.problem = %failure.problem, "{message}");
}

fn new_part(file: FileOrdinal, part: v1::FinishedPart) -> NewPart {
    NewPart {
        file,
        part: PartOrdinal(part.part),
        part_id: part.part_id,
        crc64: Crc64(part.crc64),
        bytes: part.length,
        stats: encode_sums(&part.statistics.unwrap_or_default()),
    }
}

fn worker_info(worker: Option<v1::Worker>) -> Result<WorkerInfo, Status> {
    match worker {
        Some(worker) if !worker.worker_id.is_empty() => Ok(WorkerInfo {
            worker_id: WorkerId(worker.worker_id),
            hostname: worker.hostname,
            version: worker.version,
            slots: worker.slots,
            memory_bytes: worker.memory_bytes,
        }),
        _ => Err(Reason::BadRequest.status("field `worker.worker_id` is missing")),
    }
}

fn lease(lease: Option<v1::Lease>) -> Result<Lease, Status> {
    lease
        .map(Lease::from)
        .ok_or_else(|| Reason::BadRequest.status("field `lease` is missing"))
}

fn bad_request(error: impl std::fmt::Display) -> Status {
    Reason::BadRequest.status(error.to_string())
}
