//! The worker's life: acquire, execute, report, drain.

use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chatvec_core::ids::WorkerId;
use chatvec_core::problem::Problem;
use chatvec_core::task::Lease;
use chatvec_proto::v1;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Status;
use tracing::Instrument as _;

use super::capacity::{Capacity, Grant};
use super::client::{WorkerClient, is_passing};
use super::execute::{ChunkPool, Slot, SlotOptions, memory_expected};
use super::gate::{LeaseGate, boottime_ms};
use super::heartbeat::{Heart, Heartbeat};
use super::held::Held;
use super::report::Reporter;
use crate::storage::object::ObjectStorage;
use crate::{identity, telemetry};

/// Longest pause before asking an unreachable coordinator again.
const ACQUIRE_PAUSE_MAX: Duration = Duration::from_secs(5);

/// How long a draining worker goes on with the parts under way. With
/// [`DRAIN_REPORT_MAX`] it stays below the 30 s after which Kubernetes kills.
const DRAIN_PART_MAX: Duration = Duration::from_secs(15);

/// How long it then tries to report and to give back what it holds.
const DRAIN_REPORT_MAX: Duration = Duration::from_secs(10);

/// How long a worker that stops waits for an answer that may bring tasks. Too
/// short and tasks get lost until their leases expire; too long and an idle
/// worker, whose call waits for new tasks, takes as long to stop.
const LAST_ANSWER_WAIT: Duration = Duration::from_millis(500);

/// How a worker works.
#[derive(Debug, Clone)]
pub struct WorkerOptions {
    /// Tasks at once, at most. Too low leaves disk and network idle while a
    /// task computes; too high gains nothing beyond a few per core.
    pub slots: u32,
    /// Memory that all tasks together may take. Too low and fewer tasks than
    /// slots run, or none that is written to a remote store.
    pub memory_bytes: u64,
    /// What to do when the disk is full.
    pub exhausted: WhenExhausted,
}

/// What a worker's buffers take, whatever its tasks are: those of its slots, and
/// what is kept of the parts it has put.
pub fn memory_of_slots(slots: u32) -> u64 {
    ChunkPool::BYTES_MAX + u64::from(slots) * SlotOptions::default().memory_bytes() as u64
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
    /// It lacked a resource, and its options say to stop then; or its machine is
    /// not fit for any task.
    Exhausted(Problem),
}

/// One worker.
#[derive(Debug)]
pub struct Worker {
    pub(super) id: WorkerId,
    pub(super) options: WorkerOptions,
    pub(super) client: WorkerClient,
    pub(super) held: Arc<Held>,
    pub(super) capacity: Capacity,
    pub(super) storage: ObjectStorage,
    pub(super) pool: ChunkPool,
    pub(super) slots: Arc<Mutex<Vec<Slot>>>,
    /// What the worker stopped for, if it did by itself.
    exhausted: Arc<Mutex<Option<Problem>>>,
}

/// What all tasks of a worker that runs have in common.
#[derive(Debug, Clone)]
pub(super) struct Work {
    pub(super) reporter: Reporter,
    /// Cancelled when the worker is to stop.
    pub(super) stop: CancellationToken,
    tasks: TaskTracker,
    lease_duration: watch::Sender<Option<Duration>>,
}

impl Worker {
    /// A worker with a fresh id.
    pub fn new(options: WorkerOptions, client: WorkerClient, storage: ObjectStorage) -> Self {
        let tasks_bytes = options
            .memory_bytes
            .saturating_sub(memory_of_slots(options.slots));
        Self {
            id: identity::worker_id(),
            capacity: Capacity::new(options.slots, tasks_bytes, memory_expected()),
            options,
            client,
            held: Arc::default(),
            storage,
            pool: ChunkPool::default(),
            slots: Arc::default(),
            exhausted: Arc::default(),
        }
    }

    /// Its name for this life.
    pub fn id(&self) -> &WorkerId {
        &self.id
    }

    /// Works until `drain`: then it stops acquiring, finishes the parts under
    /// way if that takes no longer than `DRAIN_PART_MAX`, releases the tasks
    /// that have further parts, and returns. Finished parts of a released task
    /// are lost: whoever takes the task writes them again, and tasks are small.
    ///
    /// # Errors
    /// If the coordinator refuses the worker for good.
    pub async fn run(self, drain: CancellationToken) -> anyhow::Result<WorkerEnd> {
        let worker = Arc::new(self);
        let (lease_duration, lease) = watch::channel(None);
        let work = Work {
            reporter: Reporter::start(worker.client.clone(), worker.id.clone()),
            stop: drain.child_token(),
            tasks: TaskTracker::new(),
            lease_duration,
        };
        let heart = Heart::start(Heartbeat {
            client: worker.client.clone(),
            worker: worker.describe(),
            held: Arc::clone(&worker.held),
            lease,
            draining: work.stop.clone(),
        })?;
        let acquired = worker.acquire_until_stopped(&work).await;
        // Also where the coordinator refuses.
        work.stop.cancel();
        // Reports and releases need their leases: the heart beats to the last.
        worker.finish(&work.tasks).await;
        heart.stop().await?;
        acquired?;
        let exhausted = worker
            .exhausted
            .lock()
            .expect("nothing panics while it holds this")
            .take();
        Ok(exhausted.map_or(WorkerEnd::Drained, WorkerEnd::Exhausted))
    }

    /// Waits for the tasks under way, with less and less patience.
    async fn finish(&self, tasks: &TaskTracker) {
        tasks.close();
        for one in self.held.all() {
            one.gate.set_draining();
        }
        if tokio::time::timeout(DRAIN_PART_MAX, tasks.wait())
            .await
            .is_ok()
        {
            return;
        }
        tracing::info!("parts under way take too long, their tasks are given back");
        for one in self.held.all() {
            one.gate.set_given_up();
        }
        if tokio::time::timeout(DRAIN_REPORT_MAX, tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!("some tasks could not be given back, their leases will expire");
        }
    }

    fn describe(&self) -> v1::Worker {
        v1::Worker {
            worker_id: self.id.0.clone(),
            hostname: identity::hostname(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            slots: self.options.slots,
            memory_bytes: self.options.memory_bytes,
            protocol_version: chatvec_proto::PROTOCOL_VERSION,
        }
    }

    async fn acquire_until_stopped(self: &Arc<Self>, work: &Work) -> anyhow::Result<()> {
        let mut pause = Duration::from_millis(50);
        let mut answered = Instant::now();
        loop {
            let first = tokio::select! {
                biased;
                () = work.stop.cancelled() => return Ok(()),
                grant = self.capacity.grant() => grant,
            };
            let mut grants = vec![first];
            grants.extend(std::iter::from_fn(|| self.capacity.try_grant()));
            let max_tasks = u32::try_from(grants.len()).expect("at most `slots` grants");
            let sent_at_ms = boottime_ms();
            let Some(answer) = self.acquire(max_tasks, &work.stop).await else {
                return Ok(());
            };
            match answer {
                Ok(response) => {
                    pause = Duration::from_millis(50);
                    answered = Instant::now();
                    self.start_all(response, grants, sent_at_ms, work);
                }
                Err(error) if is_passing(&error) => {
                    tracing::warn!(%error, "coordinator cannot be reached");
                    if answered.elapsed() > self.client.patience() && self.gives_up_on(&error) {
                        return Ok(());
                    }
                    // Grants are for nobody meanwhile.
                    drop(grants);
                    tokio::select! {
                        () = work.stop.cancelled() => return Ok(()),
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

    fn start_all(
        self: &Arc<Self>,
        response: v1::AcquireTasksResponse,
        mut grants: Vec<Grant>,
        sent_at_ms: u64,
        work: &Work,
    ) {
        let duration = Duration::from_millis(u64::from(response.lease_duration_ms));
        work.lease_duration
            .send_if_modified(|known| known.replace(duration) != Some(duration));
        // What is left over must not be in the way of tasks that need more.
        grants.truncate(response.tasks.len());
        for (mut task, grant) in response.tasks.into_iter().zip(grants) {
            let Some(lease) = task.lease.take().map(Lease::from) else {
                tracing::error!("the coordinator sent a task without a lease, it is dropped");
                continue;
            };
            let running = self.held.begin(lease, LeaseGate::new(sent_at_ms, duration));
            let span = tracing::info_span!(
                "run task",
                job.id = %running.lease.job,
                task.id = %running.lease.task,
                task.attempt = %running.lease.attempt,
            );
            let span = telemetry::continued(span, Some(&task.traceparent));
            let worker = Arc::clone(self);
            let of_task = work.clone();
            let run = async move {
                worker.run_task(&running, task, grant, &of_task).await;
                worker.held.end(&running.lease);
            };
            work.tasks.spawn(run.instrument(span));
        }
    }

    /// Whether a call that failed for longer than the client's patience ends
    /// the worker; then it is noted why.
    pub(super) fn gives_up_on(&self, error: &Status) -> bool {
        let gives_up = self.options.exhausted == WhenExhausted::Stop && is_passing(error);
        if gives_up {
            self.note_exhausted(Problem::new("coordinator", error.message()));
        }
        gives_up
    }

    /// The worker stops for this, unless it stops for something else already.
    pub(super) fn note_exhausted(&self, problem: Problem) {
        let mut exhausted = self
            .exhausted
            .lock()
            .expect("nothing panics while it holds this");
        exhausted.get_or_insert(problem);
    }
}
