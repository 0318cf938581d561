//! The workers' service: leases out, reports in.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use chatvec_core::ids::{Crc64, FileOrdinal, PartOrdinal, WorkerId};
use chatvec_core::task::{Lease, TaskFailure};
use chatvec_proto::convert::{decode_spec, encode_sums};
use chatvec_proto::status::Reason;
use chatvec_proto::v1::worker_service_server::WorkerService;
use chatvec_proto::{PROTOCOL_VERSION, v1};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::CoordinatorOptions;
use super::detached::Turns;
use super::store::{
    Acquired, Beat, BeatAnswer, FailOutcome, NewPart, Phase, Store, StoreError, TaskDone,
    WorkerInfo,
};
use crate::fault::{self, Failpoint};
use crate::identity;

/// Between two looks at the job table while a worker waits, at most. Wake-ups
/// come at once; this is for tasks whose back-off ends, and for wake-ups that
/// were lost.
const POLL_PERIOD: Duration = Duration::from_secs(5);
/// Workers that look at the job table at once after a wake-up.
const LOOKS_MAX: usize = 4;
/// Longest that an acquire call is held open, as a share of the lease. A worker
/// counts its lease from before the call, so waiting uses the lease up.
const WAITS_PER_LEASE: u32 = 6;

/// The service's state.
#[derive(Debug, Clone)]
pub(super) struct WorkerApi {
    pub(super) store: Store,
    pub(super) claims: Turns,
    pub(super) turns: Turns,
    pub(super) options: CoordinatorOptions,
    /// Cancelled when the coordinator stops: waiting calls return empty.
    pub(super) stopping: CancellationToken,
    pub(super) woken: Woken,
}

/// The workers that wait and that one wake-up wakes all at once. They look for
/// tasks a few at a time, and when one finds none the others need not look.
#[derive(Debug, Clone)]
pub(super) struct Woken {
    turns: Arc<Semaphore>,
    /// The last wake-up of which nothing is left.
    used_up: Arc<AtomicU64>,
}

impl Default for Woken {
    fn default() -> Self {
        Self {
            turns: Arc::new(Semaphore::new(LOOKS_MAX)),
            used_up: Arc::default(),
        }
    }
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
        let mut wake = *ready.borrow_and_update();
        let mut tasks = self.look(&worker, request.max_tasks, wake).await?;
        while tasks.is_empty() && Instant::now() < deadline && !self.stopping.is_cancelled() {
            // Workers that began together do not look together for ever.
            let poll = Instant::now() + POLL_PERIOD.mul_f64(0.75 + identity::jitter() / 4.0);
            tokio::select! {
                _ = ready.changed() => {
                    wake = *ready.borrow_and_update();
                    tasks = self.look_after_wake(&worker, request.max_tasks, wake).await?;
                }
                () = tokio::time::sleep_until(poll) => {
                    tasks = self.look(&worker, request.max_tasks, wake).await?;
                }
                () = tokio::time::sleep_until(deadline) => {}
                () = self.stopping.cancelled() => {}
            }
        }
        Ok(Response::new(v1::AcquireTasksResponse {
            tasks,
            lease_duration_ms: self.options.lease_duration_ms,
        }))
    }

    async fn heartbeat(
        &self,
        request: Request<v1::HeartbeatRequest>,
    ) -> Result<Response<v1::HeartbeatResponse>, Status> {
        let request = request.into_inner();
        let worker = worker_info(request.worker)?;
        let phase = match request.draining {
            true => Phase::Draining,
            false => Phase::Working,
        };
        let mut beats = Vec::with_capacity(request.beats.len());
        for beat in request.beats {
            beats.push(Beat {
                lease: lease(beat.lease)?,
                progress_bytes: beat.progress_bytes,
            });
        }
        let store = self.store.clone();
        let lease_ms = i64::from(self.options.lease_duration_ms);
        let beat = async move { store.heartbeat(&worker, phase, &beats, lease_ms).await };
        let answers = self.turns.detached(beat).await?;
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
        let request = request.into_inner();
        let worker = request.worker_id.clone();
        let reports = Reports::try_from(request)?;
        let store = self.store.clone();
        let record = async move {
            #[cfg(feature = "fault-testing")]
            let reports = reports.with_fences_forgotten(&store, &worker).await?;
            let results = reports.record(&store).await?;
            fault::hit(Failpoint::ReportCommitted, &worker).await?;
            Ok::<_, StoreError>(results)
        };
        let results = self.turns.detached(record).await?;
        let results = results.into_iter().map(Into::into).collect();
        Ok(Response::new(v1::ReportTasksResponse { results }))
    }

    async fn release_tasks(
        &self,
        request: Request<v1::ReleaseTasksRequest>,
    ) -> Result<Response<v1::ReleaseTasksResponse>, Status> {
        let leases = request.into_inner().leases.into_iter();
        let leases: Vec<Lease> = leases.map(Lease::from).collect();
        let store = self.store.clone();
        let release = async move { give_back(&store, &leases).await };
        self.turns.detached(release).await?;
        Ok(Response::new(v1::ReleaseTasksResponse {}))
    }
}

impl WorkerApi {
    /// Looks for tasks after a wake-up that woke other workers too.
    async fn look_after_wake(
        &self,
        worker: &WorkerInfo,
        max_tasks: u32,
        wake: u64,
    ) -> Result<Vec<v1::LeasedTask>, Status> {
        let _turn = self.woken.turns.acquire().await;
        if self.woken.used_up.load(Ordering::Relaxed) >= wake {
            return Ok(Vec::new());
        }
        self.look(worker, max_tasks, wake).await
    }

    /// Looks for tasks, but for a coordinator that stops: nobody would renew
    /// the leases.
    async fn look(
        &self,
        worker: &WorkerInfo,
        max_tasks: u32,
        wake: u64,
    ) -> Result<Vec<v1::LeasedTask>, Status> {
        if self.stopping.is_cancelled() {
            return Ok(Vec::new());
        }
        let tasks = self.acquire(worker.clone(), max_tasks).await?;
        if tasks.is_empty() {
            self.woken.used_up.fetch_max(wake, Ordering::Relaxed);
        }
        Ok(tasks)
    }

    async fn acquire(
        &self,
        worker: WorkerInfo,
        max_tasks: u32,
    ) -> Result<Vec<v1::LeasedTask>, Status> {
        let store = self.store.clone();
        let lease_ms = i64::from(self.options.lease_duration_ms);
        let (answer, answered) = oneshot::channel();
        let acquire = async move {
            let acquired = store.acquire_tasks(&worker, max_tasks, lease_ms).await?;
            match answer.send(acquired) {
                Ok(()) => Ok(()),
                // The worker has gone meanwhile: nobody would renew the leases.
                Err(unheard) => {
                    let leases: Vec<_> = unheard.into_iter().map(|task| task.lease).collect();
                    give_back(&store, &leases).await
                }
            }
        };
        self.claims.detached(acquire).await?;
        let acquired = answered.await.expect("work that succeeds has answered");
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

/// Releases leases, uncharged.
async fn give_back(store: &Store, leases: &[Lease]) -> Result<(), StoreError> {
    for lease in leases {
        match store.release_task(lease).await {
            // Somebody else has it, or nobody: either way it is given back.
            Ok(()) | Err(StoreError::LeaseLost { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// What a worker says of its leases, each with its place in the request.
#[derive(Default)]
struct Reports {
    done: Vec<(usize, TaskDone)>,
    failed: Vec<(usize, Lease, TaskFailure)>,
}

impl TryFrom<v1::ReportTasksRequest> for Reports {
    type Error = Status;

    fn try_from(request: v1::ReportTasksRequest) -> Result<Self, Status> {
        let mut reports = Self::default();
        for (place, report) in request.reports.into_iter().enumerate() {
            let lease = lease(report.lease)?;
            match report.outcome {
                Some(v1::task_report::Outcome::Done(done)) => {
                    let file = FileOrdinal(done.file);
                    let parts = done.parts.into_iter().map(|part| new_part(file, part));
                    let parts = parts.collect();
                    reports.done.push((place, TaskDone { lease, parts }));
                }
                Some(v1::task_report::Outcome::Failed(failed)) => {
                    let failure = TaskFailure::try_from(failed).map_err(bad_request)?;
                    reports.failed.push((place, lease, failure));
                }
                None => return Err(Reason::BadRequest.status("field `outcome` is missing")),
            }
        }
        Ok(reports)
    }
}

impl Reports {
    /// As a planted defect asks.
    #[cfg(feature = "fault-testing")]
    async fn with_fences_forgotten(
        mut self,
        store: &Store,
        worker: &str,
    ) -> Result<Self, StoreError> {
        let done = self.done.iter_mut().map(|(_, done)| &mut done.lease);
        let failed = self.failed.iter_mut().map(|(_, lease, _)| lease);
        for lease in done.chain(failed) {
            store.forget_fence(lease, worker).await?;
        }
        Ok(self)
    }

    /// Records what is done in one transaction, then each failure in its own,
    /// since a failure may end its job. What is recorded when one fails counts:
    /// the worker repeats them all.
    async fn record(self, store: &Store) -> Result<Vec<v1::ReportResult>, StoreError> {
        let count = self.done.len() + self.failed.len();
        let mut results = vec![v1::ReportResult::Unspecified; count];
        let (places, done): (Vec<_>, Vec<_>) = self.done.into_iter().unzip();
        let outcomes = store.complete_tasks(&done).await?;
        for ((place, report), outcome) in places.into_iter().zip(&done).zip(outcomes) {
            results[place] = result(&report.lease, outcome.map(drop))?;
        }
        for (place, lease, failure) in self.failed {
            let outcome = store.fail_task(&lease, &failure, identity::jitter()).await;
            let outcome = outcome.map(|next| log_failure(&lease, &failure, next));
            results[place] = result(&lease, outcome)?;
        }
        Ok(results)
    }
}

/// What a worker is told of its report.
fn result(lease: &Lease, outcome: Result<(), StoreError>) -> Result<v1::ReportResult, StoreError> {
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

fn log_failure(lease: &Lease, failure: &TaskFailure, next: FailOutcome) {
    let message = match next {
        FailOutcome::Retried { .. } => "task failed, it will be tried again",
        FailOutcome::Kept => "nothing to repair, the task is done as it was",
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
        Some(worker) if worker.protocol_version != PROTOCOL_VERSION => {
            let message = format!(
                "worker `{}` of chatvec {} speaks protocol version {}, expected {PROTOCOL_VERSION}: \
                 run the same version of chatvec everywhere",
                worker.worker_id, worker.version, worker.protocol_version
            );
            Err(Reason::ProtocolVersion.status_of("worker_id", &worker.worker_id, message))
        }
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
