//! The worker's life: acquire, execute, report, drain.

use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chatvec_core::ids::WorkerId;
use chatvec_core::problem::Problem;
use chatvec_core::task::{FailureKind, Lease, TaskFailure, TaskSpec};
use chatvec_proto::v1;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Status;
use tracing::Instrument as _;

use super::client::{WorkerClient, internal, is_passing};
use super::execute::{FinishedPart, Slot, SlotOptions};
use super::failure::Stop;
use super::gate::{LeaseGate, boottime_ms};
use super::heartbeat::beat_until;
use super::held::{Held, Running};
use crate::{identity, telemetry};

/// Longest pause before asking an unreachable coordinator again.
const ACQUIRE_PAUSE_MAX: Duration = Duration::from_secs(5);

/// How long a draining worker tries to report and to give back what it holds.
const DRAIN_MAX: Duration = Duration::from_secs(20);

/// How long a worker that stops waits for an answer that may bring tasks. Too
/// short and tasks get lost until their leases expire; too long and an idle
/// worker, whose call waits for new tasks, takes as long to stop.
const LAST_ANSWER_WAIT: Duration = Duration::from_millis(500);

/// How a worker works.
#[derive(Debug, Clone)]
pub struct WorkerOptions {
    /// Tasks at once. Too low leaves the disk idle while a task computes; too
    /// high costs memory and gains nothing beyond a few per core.
    pub slots: u32,
    /// What to do when the disk is full.
    pub exhausted: WhenExhausted,
}

/// What a worker does when it lacks a resource, such as disk space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenExhausted {
    /// Report it and go on: another worker, or a later time, may do better.
    GoOn,
    /// Stop, and say so: the user is there and can make room.
    Stop,
}

/// How a worker's life ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkerEnd {
    /// It was asked to stop and gave everything back.
    Drained,
    /// It lacked a resource, and its options say to stop then.
    Exhausted(Problem),
}

/// One worker.
#[derive(Debug)]
pub struct Worker {
    id: WorkerId,
    options: WorkerOptions,
    client: WorkerClient,
    held: Arc<Held>,
    slots: Arc<Mutex<Vec<Slot>>>,
    /// What the worker stopped for, if it did by itself.
    exhausted: Arc<Mutex<Option<Problem>>>,
}

impl Worker {
    /// A worker with a fresh id.
    pub fn new(options: WorkerOptions, client: WorkerClient) -> Self {
        Self {
            id: identity::worker_id(),
            options,
            client,
            held: Arc::default(),
            slots: Arc::default(),
            exhausted: Arc::default(),
        }
    }

    /// Works until `drain`: then it stops acquiring, stops before the next
    /// write, releases what it holds, and returns.
    ///
    /// # Errors
    /// If the coordinator refuses the worker for good.
    pub async fn run(self, drain: CancellationToken) -> anyhow::Result<WorkerEnd> {
        let worker = Arc::new(self);
        let stop = drain.child_token();
        let (lease_sender, lease) = watch::channel(None);
        let beating = CancellationToken::new();
        let beats = beat_until(
            beating.clone(),
            worker.client.clone(),
            worker.describe(),
            Arc::clone(&worker.held),
            lease,
        );
        let beats = tokio::spawn(beats);
        let tasks = TaskTracker::new();
        let acquired = worker.acquire_until(&stop, &tasks, &lease_sender).await;
        // Reports and releases need their leases: the heart beats to the last.
        worker
            .held
            .all()
            .iter()
            .for_each(|one| one.gate.set_draining());
        tasks.close();
        if tokio::time::timeout(DRAIN_MAX, tasks.wait()).await.is_err() {
            tracing::warn!("some tasks could not be given back, their leases will expire");
        }
        beating.cancel();
        beats.await?;
        acquired?;
        let exhausted = worker
            .exhausted
            .lock()
            .expect("nothing panics while it holds this")
            .take();
        Ok(exhausted.map_or(WorkerEnd::Drained, WorkerEnd::Exhausted))
    }

    fn describe(&self) -> v1::Worker {
        v1::Worker {
            worker_id: self.id.0.clone(),
            hostname: identity::hostname(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            slots: self.options.slots,
            memory_bytes: 0,
            protocol_version: 2,
        }
    }

    async fn acquire_until(
        self: &Arc<Self>,
        stop: &CancellationToken,
        tasks: &TaskTracker,
        lease_duration: &watch::Sender<Option<Duration>>,
    ) -> anyhow::Result<()> {
        let free = Arc::new(Semaphore::new(self.options.slots as usize));
        let mut pause = Duration::from_millis(50);
        let mut answered = Instant::now();
        loop {
            let first = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                permit = Arc::clone(&free).acquire_owned() => permit.expect("the semaphore is never closed"),
            };
            let mut permits = vec![first];
            while let Ok(permit) = Arc::clone(&free).try_acquire_owned() {
                permits.push(permit);
            }
            let max_tasks = u32::try_from(permits.len()).expect("at most `slots` permits");
            let sent_at_ms = boottime_ms();
            let Some(answer) = self.acquire(max_tasks, stop).await else {
                return Ok(());
            };
            match answer {
                Ok(response) => {
                    pause = Duration::from_millis(50);
                    answered = Instant::now();
                    let duration = Duration::from_millis(u64::from(response.lease_duration_ms));
                    lease_duration
                        .send_if_modified(|known| known.replace(duration) != Some(duration));
                    for (task, permit) in response.tasks.into_iter().zip(permits) {
                        self.start(task, permit, sent_at_ms, duration, stop, tasks);
                    }
                }
                Err(error) if is_passing(&error) => {
                    tracing::warn!(%error, "coordinator cannot be reached");
                    if answered.elapsed() > self.client.patience() && self.gives_up_on(&error) {
                        return Ok(());
                    }
                    tokio::select! {
                        () = stop.cancelled() => return Ok(()),
                        () = tokio::time::sleep(pause.mul_f64(identity::jitter())) => {}
                    }
                    pause = (pause * 2).min(ACQUIRE_PAUSE_MAX);
                }
                Err(error) => {
                    return Err(
                        anyhow::Error::new(error).context("the coordinator refuses this worker")
                    );
                }
            }
        }
    }

    /// Asks for tasks; `None` when the worker stops and no answer is on its way.
    async fn acquire(
        &self,
        max_tasks: u32,
        stop: &CancellationToken,
    ) -> Option<Result<v1::AcquireTasksResponse, Status>> {
        let mut call = pin!(self.client.acquire(self.describe(), max_tasks));
        tokio::select! {
            answer = &mut call => Some(answer),
            // Tasks may be leased to this worker already. Unheard of they
            // would wait for the lease to expire, and that counts as a crash.
            () = stop.cancelled() => tokio::time::timeout(LAST_ANSWER_WAIT, call).await.ok(),
        }
    }

    fn start(
        self: &Arc<Self>,
        task: v1::LeasedTask,
        permit: OwnedSemaphorePermit,
        sent_at_ms: u64,
        lease_duration: Duration,
        stop: &CancellationToken,
        tasks: &TaskTracker,
    ) {
        let Some(lease) = task.lease.map(Lease::from) else {
            tracing::error!("the coordinator sent a task without a lease, it is dropped");
            return;
        };
        let running = self
            .held
            .begin(lease, LeaseGate::new(sent_at_ms, lease_duration));
        let span = tracing::info_span!(
            "run task",
            job.id = %running.lease.job,
            task.id = %running.lease.task,
            task.attempt = %running.lease.attempt,
        );
        let span = telemetry::continued(span, Some(&task.traceparent));
        let worker = Arc::clone(self);
        let stop = stop.clone();
        let run = async move {
            worker.run_task(&running, task.spec, &stop).await;
            worker.held.end(&running.lease);
            drop(permit);
        };
        tasks.spawn(run.instrument(span));
    }

    async fn run_task(
        &self,
        running: &Arc<Running>,
        spec: Option<v1::TaskSpec>,
        stop: &CancellationToken,
    ) {
        let outcome = match spec.map(TaskSpec::try_from) {
            Some(Ok(spec)) => self.execute(Arc::clone(running), spec).await,
            Some(Err(error)) => Err(Stop::Failed(internal("task", error.to_string()))),
            None => Err(Stop::Failed(internal(
                "task",
                "the task has no spec".to_owned(),
            ))),
        };
        let lease = &running.lease;
        let told = match outcome {
            Ok(done) => self
                .client
                .report_done(&self.id.0, lease, done)
                .await
                .map(Some),
            Err(Stop::Failed(failure)) => {
                let stops = self.stops_for(&failure);
                let told = self
                    .client
                    .report_failed(&self.id.0, lease, failure)
                    .await
                    .map(Some);
                if stops {
                    stop.cancel();
                }
                told
            }
            Err(Stop::LeaseLost) => Ok(None),
            Err(Stop::Cancelled | Stop::Drained) => {
                self.client.release(&self.id.0, lease).await.map(|()| None)
            }
        };
        match told {
            Ok(Some(v1::ReportResult::LeaseLost) | None) => {
                tracing::debug!("the lease had gone or was given back");
            }
            Ok(Some(_)) => tracing::debug!("task reported"),
            Err(error) if self.gives_up_on(&error) => stop.cancel(),
            Err(error) => {
                tracing::error!(%error, "the coordinator refused the report, the lease will expire");
            }
        }
    }

    /// Whether a call that failed for longer than the client's patience ends
    /// the worker; then it is noted why.
    fn gives_up_on(&self, error: &Status) -> bool {
        let gives_up = self.options.exhausted == WhenExhausted::Stop && is_passing(error);
        if gives_up {
            self.note_exhausted(Problem::new("coordinator", error.message()));
        }
        gives_up
    }

    fn note_exhausted(&self, problem: Problem) {
        let mut exhausted = self
            .exhausted
            .lock()
            .expect("nothing panics while it holds this");
        exhausted.get_or_insert(problem);
    }

    /// Runs the task on a thread of its own: reads, arithmetic and writes block.
    async fn execute(&self, running: Arc<Running>, spec: TaskSpec) -> Result<v1::TaskDone, Stop> {
        let slots = Arc::clone(&self.slots);
        let work = move || {
            let take = || {
                slots
                    .lock()
                    .expect("nothing panics while it holds this")
                    .pop()
            };
            let mut slot = take().unwrap_or_else(|| Slot::new(SlotOptions::default()));
            let outcome = slot.execute(&spec, &running.gate, &running.progress);
            slots
                .lock()
                .expect("nothing panics while it holds this")
                .push(slot);
            let parts = outcome?.into_iter().map(finished_part).collect();
            Ok(v1::TaskDone {
                file: spec.file.0,
                parts,
            })
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(outcome) => outcome,
            Err(panic) => Err(Stop::Failed(internal(
                "task",
                format!("the task panicked: {panic}"),
            ))),
        }
    }

    fn stops_for(&self, failure: &TaskFailure) -> bool {
        let stops = failure.kind == FailureKind::ResourceExhausted
            && self.options.exhausted == WhenExhausted::Stop;
        if stops {
            self.note_exhausted(failure.problem.clone());
        }
        stops
    }
}

fn finished_part(part: FinishedPart) -> v1::FinishedPart {
    v1::FinishedPart {
        part: part.part.0,
        // On a filesystem a part is named by its place.
        part_id: String::new(),
        crc64: part.crc.0,
        length: part.len,
        statistics: Some(v1::PartStatistics {
            tensors: part.sums.into_iter().map(Into::into).collect(),
        }),
    }
}
