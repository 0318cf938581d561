//! The coordinator: plans jobs, gives out tasks, publishes checkpoints.
//!
//! It keeps no state of its own: the job store holds everything, and the loops
//! below look there again after every wake-up and every period.

mod detached;
mod dry_run;
mod epoch;
mod feed;
mod finalizer;
mod janitor;
mod merge_api;
pub mod planner;
mod reaper;
mod resume;
pub mod store;
mod uploads;
mod view;
mod weaknesses;
mod worker_api;

use std::sync::Arc;
use std::time::Duration;

use chatvec_core::plan::PartSize;
use chatvec_core::problem::Problem;
use chatvec_proto::v1::merge_service_server::MergeServiceServer;
use chatvec_proto::v1::worker_service_server::WorkerServiceServer;
use chatvec_proto::{CLIENT_MESSAGE_BYTES_MAX, DESCRIPTORS, MESSAGE_BYTES_MAX};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;

use crate::identity;
use crate::storage::ObjectStorage;
use detached::Turns;
use store::{Store, StoreError};
use weaknesses::Weaknesses;

pub use janitor::discard;
pub use resume::{Resumed, resume};

/// Between two looks at the job table without a wake-up, at most.
const POLL_PERIOD_MAX: Duration = Duration::from_secs(5);
/// A round follows a wake-up after this time: many tasks may end at once, and
/// one look serves them all.
const GATHER_TIME: Duration = Duration::from_millis(10);
/// The reaper and the janitor rest after a round for this many times as long as
/// it took: where leased tasks are hard to find, as while a foreign transaction
/// keeps all that ever were, looking for them leaves the database to others.
const RESTS_OF_SWEEPS: u32 = 10;
/// Looks this often in the length of a lease: at leases that have expired, and
/// at jobs whose planner or finalizer is gone.
const LOOKS_PER_LEASE: u32 = 6;

/// Turns of claims at the job store. Each passes over the tasks that the others
/// are about to take: more of them at once find no task sooner, and cost more.
const TURNS_OF_CLAIMS: usize = 3;
/// Turns of workers that report or renew their leases. All turns together leave
/// some of the store's connections to the loops.
const TURNS_OF_WORKERS: usize = 5;
/// Turns of clients.
const TURNS_OF_CLIENTS: usize = 4;
/// Turns of looks at jobs that are watched.
const TURNS_OF_WATCHED: usize = 2;

/// How a coordinator works.
#[derive(Debug, Clone, Copy)]
pub struct CoordinatorOptions {
    /// How long a lease lasts without a heartbeat. Too short and a busy worker
    /// loses its tasks; too long and a dead worker's tasks wait.
    pub lease_duration_ms: u32,
    /// Size of a part. Too small and bookkeeping costs; too large and a lost
    /// worker costs much.
    pub part_size: PartSize,
    /// How long an object store may be out of reach before a job that is being
    /// planned fails. Too short and a passing outage fails jobs; too long and a
    /// wrong address is told late.
    pub storage_patience: Duration,
    /// How long a bucket may refuse a job in COMMITTING, whose tasks are all done,
    /// before the job fails. Too short and a role or bucket that is set up anew
    /// costs all that work; too long and nobody hears that it will not end.
    pub commit_patience: Duration,
    /// How long the records of ended jobs are kept; `None` for ever.
    pub retention: Option<Duration>,
}

impl CoordinatorOptions {
    /// How long a lease lasts without a heartbeat.
    pub fn lease(&self) -> Duration {
        Duration::from_millis(u64::from(self.lease_duration_ms))
    }

    /// The same, as the job store counts.
    fn lease_ms(&self) -> i64 {
        i64::from(self.lease_duration_ms)
    }
}

impl Default for CoordinatorOptions {
    fn default() -> Self {
        Self {
            lease_duration_ms: 30_000,
            part_size: PartSize::DEFAULT,
            storage_patience: Duration::from_secs(600),
            commit_patience: Duration::from_hours(24),
            retention: None,
        }
    }
}

/// What the loops of a coordinator work with.
#[derive(Debug, Clone)]
struct Resources {
    store: Store,
    storage: ObjectStorage,
    options: CoordinatorOptions,
    weaknesses: Weaknesses,
}

/// A running coordinator.
#[derive(Debug)]
pub struct Coordinator {
    resources: Resources,
    stopping: CancellationToken,
    loops: TaskTracker,
    trouble: watch::Sender<Option<Problem>>,
    ready: watch::Sender<bool>,
}

impl Coordinator {
    /// Starts the planner, the finalizer, the reaper and the janitor.
    pub fn start(store: Store, storage: ObjectStorage, options: CoordinatorOptions) -> Self {
        let coordinator = Self {
            resources: Resources {
                store,
                storage,
                options,
                weaknesses: Weaknesses::default(),
            },
            stopping: CancellationToken::new(),
            loops: TaskTracker::new(),
            trouble: watch::Sender::new(None),
            ready: watch::Sender::new(true),
        };
        coordinator.spawn_planner();
        coordinator.spawn_finalizer();
        coordinator.spawn_reaper();
        coordinator.spawn_janitor();
        coordinator
    }

    /// What keeps the coordinator from going on just now, such as a full disk;
    /// `None` when nothing does.
    pub fn trouble(&self) -> watch::Receiver<Option<Problem>> {
        self.trouble.subscribe()
    }

    /// Whether the job store answered when it was asked last.
    pub fn ready(&self) -> watch::Receiver<bool> {
        self.ready.subscribe()
    }

    /// Both services, health and reflection.
    pub fn routes(&self) -> Routes {
        let Resources {
            store,
            storage,
            options,
            ..
        } = &self.resources;
        let turns_of_watched = Turns::new(TURNS_OF_WATCHED).patient();
        let stopping = self.stopping.clone();
        let merge = MergeServiceServer::new(merge_api::MergeApi {
            store: store.clone(),
            turns: Turns::new(TURNS_OF_CLIENTS),
            watched: feed::Watched::new(store.clone(), turns_of_watched, stopping.clone()),
            dry_runs: dry_run::DryRuns::new(storage.clone(), options.part_size),
        })
        .max_decoding_message_size(CLIENT_MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let worker = WorkerServiceServer::new(worker_api::WorkerApi {
            store: store.clone(),
            claims: Turns::new(TURNS_OF_CLAIMS),
            turns: Turns::new(TURNS_OF_WORKERS),
            options: *options,
            stopping,
            woken: worker_api::Woken::default(),
        })
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let mut routes = Routes::builder();
        routes.add_service(merge).add_service(worker);
        routes.routes()
    }

    /// Stops the loops after what they are doing, and lets waiting calls return.
    pub async fn stop(self) {
        self.stopping.cancel();
        self.loops.close();
        self.loops.wait().await;
        self.resources.store.close().await;
    }

    /// Cancelled when the coordinator begins to stop.
    pub fn stopping(&self) -> CancellationToken {
        self.stopping.clone()
    }

    /// How often the planner and the finalizer look for what a dead coordinator
    /// held, and for wake-ups that were lost.
    fn poll_period(&self) -> Duration {
        self.look_period().min(POLL_PERIOD_MAX)
    }

    /// How often the reaper looks for leases that have expired.
    fn look_period(&self) -> Duration {
        self.resources.options.lease() / LOOKS_PER_LEASE
    }

    fn spawn_planner(&self) {
        let resources = self.resources.clone();
        self.spawn_loop("planner", self.poll_period(), 0, move || {
            let resources = resources.clone();
            async move { planner::plan_waiting_jobs(&resources).await }
        });
    }

    fn spawn_finalizer(&self) {
        let (resources, trouble) = (self.resources.clone(), self.trouble.clone());
        self.spawn_loop("finalizer", self.poll_period(), 0, move || {
            let (resources, trouble) = (resources.clone(), trouble.clone());
            async move {
                let found = finalizer::publish_finished_jobs(&resources).await?;
                trouble.send_if_modified(|known| {
                    let is_news = *known != found;
                    *known = found;
                    is_news
                });
                Ok(())
            }
        });
    }

    fn spawn_reaper(&self) {
        let resources = self.resources.clone();
        let contact = Arc::new(reaper::Contact::default());
        self.spawn_loop("reaper", self.look_period(), RESTS_OF_SWEEPS, move || {
            let (resources, contact) = (resources.clone(), Arc::clone(&contact));
            async move { reaper::take_back(&resources, &contact).await }
        });
    }

    fn spawn_janitor(&self) {
        let resources = self.resources.clone();
        self.spawn_loop("janitor", self.look_period(), RESTS_OF_SWEEPS, move || {
            let resources = resources.clone();
            async move { janitor::tidy(&resources).await }
        });
    }

    /// Repeats `round` after every change of a job and at least once a period.
    /// After a change it waits for `rests` times the length of its last round.
    fn spawn_loop<F>(
        &self,
        name: &'static str,
        period: Duration,
        rests: u32,
        round: impl Fn() -> F + Send + 'static,
    ) where
        F: Future<Output = Result<(), StoreError>> + Send,
    {
        let (stopping, trouble) = (self.stopping.clone(), self.trouble.clone());
        let ready = self.ready.clone();
        let mut changed = self.resources.store.jobs_changed();
        self.loops.spawn(async move {
            while !stopping.is_cancelled() {
                changed.borrow_and_update();
                let begin = Instant::now();
                let outcome = round().await;
                let rest = GATHER_TIME.max((begin.elapsed() * rests).min(period));
                ready.send_if_modified(|known| {
                    let before = std::mem::replace(known, outcome.is_ok());
                    before != *known
                });
                if let Err(error) = outcome {
                    tracing::error!(coordinator.loop = name, %error, "a round failed, the next one tries again");
                    trouble.send_replace(Some(Problem::new("job store", error.to_string())));
                }
                // Several coordinators need not look at the same moment.
                let period = period.mul_f64(0.75 + identity::jitter() / 4.0);
                let woken = async {
                    let _any_change = changed.changed().await;
                    tokio::time::sleep(rest).await;
                };
                tokio::select! {
                    () = woken => {}
                    () = tokio::time::sleep(period) => {}
                    () = stopping.cancelled() => {}
                }
            }
        });
    }
}

/// The descriptors of all services, for reflection.
pub fn descriptors() -> &'static [u8] {
    DESCRIPTORS
}
