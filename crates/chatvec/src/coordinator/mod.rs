//! The coordinator: plans jobs, gives out tasks, publishes checkpoints.
//!
//! It keeps no state of its own: the job store holds everything, and the loops
//! below look there again after every wake-up and every period.

mod detached;
mod finalizer;
mod janitor;
mod merge_api;
pub mod planner;
mod resume;
pub mod store;
mod view;
mod worker_api;

use std::time::Duration;

use chatvec_core::plan::PartSize;
use chatvec_core::problem::Problem;
use chatvec_proto::v1::merge_service_server::MergeServiceServer;
use chatvec_proto::v1::worker_service_server::WorkerServiceServer;
use chatvec_proto::{DESCRIPTORS, MESSAGE_BYTES_MAX};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;

use store::{Store, StoreError};

use crate::storage::object::ObjectStorage;

pub use resume::{Resumed, resume, verify_after_reboot};

/// Between two looks at the job table without a wake-up.
const POLL_PERIOD: Duration = Duration::from_secs(1);
/// Looks at expired leases this often in the length of a lease.
const REAPS_PER_LEASE: u32 = 6;

/// How a coordinator works.
#[derive(Debug, Clone, Copy)]
pub struct CoordinatorOptions {
    /// How long a lease lasts without a heartbeat. Too short and a busy worker
    /// loses its tasks; too long and a dead worker's tasks wait.
    pub lease_duration_ms: u32,
    /// Size of a part. Too small and bookkeeping costs; too large and a lost
    /// worker costs much.
    pub part_size: PartSize,
}

impl Default for CoordinatorOptions {
    fn default() -> Self {
        Self {
            lease_duration_ms: 30_000,
            part_size: PartSize::DEFAULT,
        }
    }
}

/// A running coordinator.
#[derive(Debug)]
pub struct Coordinator {
    store: Store,
    storage: ObjectStorage,
    options: CoordinatorOptions,
    stopping: CancellationToken,
    loops: TaskTracker,
    trouble: watch::Sender<Option<Problem>>,
}

impl Coordinator {
    /// Starts the planner, the finalizer and the janitor.
    pub fn start(store: Store, storage: ObjectStorage, options: CoordinatorOptions) -> Self {
        let coordinator = Self {
            store,
            storage,
            options,
            stopping: CancellationToken::new(),
            loops: TaskTracker::new(),
            trouble: watch::Sender::new(None),
        };
        coordinator.spawn_planner();
        coordinator.spawn_finalizer();
        coordinator.spawn_janitor();
        coordinator
    }

    /// What keeps the coordinator from going on just now, such as a full disk;
    /// `None` when nothing does.
    pub fn trouble(&self) -> watch::Receiver<Option<Problem>> {
        self.trouble.subscribe()
    }

    /// Both services, health and reflection.
    pub fn routes(&self) -> Routes {
        let merge = MergeServiceServer::new(merge_api::MergeApi {
            store: self.store.clone(),
            stopping: self.stopping.clone(),
        })
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let worker = WorkerServiceServer::new(worker_api::WorkerApi {
            store: self.store.clone(),
            options: self.options,
            stopping: self.stopping.clone(),
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
        self.store.close().await;
    }

    /// Cancelled when the coordinator begins to stop.
    pub fn stopping(&self) -> CancellationToken {
        self.stopping.clone()
    }

    fn spawn_planner(&self) {
        let (store, storage) = (self.store.clone(), self.storage.clone());
        let part_size = self.options.part_size;
        self.spawn_loop("planner", POLL_PERIOD, move || {
            let (store, storage) = (store.clone(), storage.clone());
            async move { planner::plan_waiting_jobs(&store, &storage, part_size).await }
        });
    }

    fn spawn_finalizer(&self) {
        let (store, trouble) = (self.store.clone(), self.trouble.clone());
        self.spawn_loop("finalizer", POLL_PERIOD, move || {
            let (store, trouble) = (store.clone(), trouble.clone());
            async move {
                let found = finalizer::publish_finished_jobs(&store).await?;
                trouble.send_if_modified(|known| {
                    let is_news = *known != found;
                    *known = found;
                    is_news
                });
                Ok(())
            }
        });
    }

    fn spawn_janitor(&self) {
        let store = self.store.clone();
        let lease = Duration::from_millis(u64::from(self.options.lease_duration_ms));
        self.spawn_loop("janitor", lease / REAPS_PER_LEASE, move || {
            let store = store.clone();
            async move { janitor::tidy(&store).await }
        });
    }

    /// Repeats `round` after every change of a job and at least once a period.
    fn spawn_loop<F>(
        &self,
        name: &'static str,
        period: Duration,
        round: impl Fn() -> F + Send + 'static,
    ) where
        F: Future<Output = Result<(), StoreError>> + Send,
    {
        let (stopping, trouble) = (self.stopping.clone(), self.trouble.clone());
        let mut changed = self.store.jobs_changed();
        self.loops.spawn(async move {
            while !stopping.is_cancelled() {
                changed.borrow_and_update();
                if let Err(error) = round().await {
                    tracing::error!(coordinator.loop = name, %error, "a round failed, the next one tries again");
                    trouble.send_replace(Some(Problem::new("job store", error.to_string())));
                }
                tokio::select! {
                    _ = changed.changed() => {}
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
