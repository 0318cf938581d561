//! A whole merge in one process: coordinator, job store and workers, with
//! calls through an in-process channel and no port open.
//!
//! State and unfinished files live in `OUT/.chatvec/` under an exclusive lock,
//! so that a later run can go on where this one stopped.

mod state;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use chatvec_core::ids::JobId;
use chatvec_core::job::JobState;
use chatvec_core::plan::PartSize;
use chatvec_core::problem::Problem;
use chatvec_core::recipe::Recipe;
use chatvec_core::task::FailureKind;
use chatvec_proto::convert::{JobView, recipe_to_wire};
use chatvec_proto::v1;
use chatvec_proto::v1::merge_service_client::MergeServiceClient;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::Request;

use crate::channel::{self, Connection, Coordinators};
use crate::coordinator::store::{Store, StoreError};
use crate::coordinator::{Coordinator, CoordinatorOptions, Resumed, discard};
use crate::server;
use crate::storage::ObjectStorage;
use crate::telemetry;
use crate::worker::{WhenExhausted, Worker, WorkerClient, WorkerEnd, WorkerOptions};

use state::{Opened, State};

/// How long calls are repeated that fail: in one process that is the store on a
/// full or broken disk, and the user is there to mend it.
const PATIENCE: Duration = Duration::from_secs(3);

/// How to merge on this machine.
#[derive(Debug, Clone)]
pub struct EmbeddedOptions {
    /// Tasks at once.
    pub workers: u32,
    /// Memory that all tasks together may take.
    pub memory_bytes: u64,
    /// Size of a part; a job that is taken up keeps its own.
    pub part_size: PartSize,
    /// What becomes of a job that an earlier run left.
    pub earlier: EarlierRun,
    /// The folder that holds the state of merges into object storage.
    pub state_home: PathBuf,
}

/// What becomes of a job that an earlier run left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EarlierRun {
    /// Take it up where it stopped.
    Resume,
    /// Discard it and start over.
    Restart,
}

/// What a caller sees while it waits.
#[derive(Debug)]
pub enum Event<'a> {
    /// An earlier run's work was verified and is kept.
    Resumed(Resumed),
    /// The job as it stands now.
    Job(&'a JobView),
}

/// How a merge ended.
#[derive(Debug)]
pub enum MergeEnd {
    /// The checkpoint is published.
    Published(Box<JobView>),
    /// The very same merge stands in the output folder already.
    AlreadyPublished,
    /// The job failed, and nothing is left of it.
    Failed(FailureKind, Vec<Problem>),
    /// It stopped before its end because something is lacking; it can go on later.
    Stalled(Problem),
    /// It was interrupted, and can go on later.
    Interrupted,
}

/// Why a merge could not start.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// The recipe cannot work, or does not fit what an earlier run left.
    #[error("{} problems", .0.len())]
    Rejected(Vec<Problem>),
    /// Another process merges into the same place right now.
    #[error("another process (pid {pid}) is merging into `{output}`")]
    Busy {
        /// The output.
        output: String,
        /// The other process, as far as known.
        pid: String,
    },
    /// Anything else.
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

/// Merges on this machine until the job ends or `interrupt` is cancelled.
///
/// # Errors
/// [`EmbeddedError`] if the merge could not start; then nothing was changed.
pub async fn merge(
    storage: ObjectStorage,
    recipe: Recipe,
    options: EmbeddedOptions,
    interrupt: CancellationToken,
    mut watch: impl FnMut(Event<'_>),
) -> Result<MergeEnd, EmbeddedError> {
    let state = {
        let (storage, state_home) = (storage.clone(), options.state_home.clone());
        tokio::task::spawn_blocking(move || State::check(&storage, recipe, &state_home))
            .await
            .map_err(anyhow::Error::from)??
    };
    // What a run left that died after publishing is removed under the lock.
    if state.is_published().await? && !state.has_leftovers() {
        return Ok(MergeEnd::AlreadyPublished);
    }
    let full_disk = state.full_disk();
    let opened = match state.open(options.earlier).await {
        Err(EmbeddedError::Other(error)) if is_full_store(&error) => {
            return Ok(MergeEnd::Stalled(full_disk));
        }
        opened => opened?,
    };
    let (mut state, store) = match opened {
        Opened::Ready {
            state,
            store,
            resumed,
        } => {
            if let Some(resumed) = resumed {
                watch(Event::Resumed(resumed));
            }
            (state, store)
        }
        Opened::AlreadyPublished => return Ok(MergeEnd::AlreadyPublished),
    };
    let mut end = run(&mut state, store, storage, &options, interrupt, &mut watch).await;
    // The interruption came too late: publishing had begun and went on to its end.
    if matches!(end, Ok(MergeEnd::Interrupted)) && state.is_published().await? {
        end = Ok(MergeEnd::AlreadyPublished);
    }
    match &end {
        // What an interrupted job has done is kept for the next run.
        Ok(MergeEnd::Stalled(_) | MergeEnd::Interrupted) | Err(_) => {}
        Ok(_) => state.discard().await?,
    }
    end
}

fn is_full_store(error: &anyhow::Error) -> bool {
    let mut causes = error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<StoreError>());
    causes.any(StoreError::is_full)
}

async fn run(
    state: &mut State,
    store: Store,
    storage: ObjectStorage,
    options: &EmbeddedOptions,
    interrupt: CancellationToken,
    watch: &mut impl FnMut(Event<'_>),
) -> Result<MergeEnd, EmbeddedError> {
    let coordinator_options = CoordinatorOptions {
        part_size: options.part_size,
        ..CoordinatorOptions::default()
    };
    let coordinator = Arc::new(Coordinator::start(
        store.clone(),
        storage.clone(),
        coordinator_options,
    ));
    let (coordinators, incoming) = channel::in_process();
    let stop = CancellationToken::new();
    let server = tokio::spawn({
        let (coordinator, stop) = (Arc::clone(&coordinator), stop.clone());
        async move { server::serve_in_process(&coordinator, incoming, stop).await }
    });
    let drain = CancellationToken::new();
    let workers = start_worker(options, &coordinators, storage.clone(), &drain);
    let end = follow(
        state,
        &coordinator,
        coordinators.connect(),
        workers,
        interrupt,
        &drain,
        watch,
    )
    .await;
    // Before the store that names them is gone.
    if let (Ok(MergeEnd::Failed(..)), Some(job)) = (&end, state.job()) {
        discard(&store, &storage, job)
            .await
            .context("what the job left cannot be removed")?;
    }
    stop.cancel();
    server.await.map_err(anyhow::Error::from)??;
    if let Some(coordinator) = Arc::into_inner(coordinator) {
        coordinator.stop().await;
    }
    end
}

fn start_worker(
    options: &EmbeddedOptions,
    coordinators: &Coordinators,
    storage: ObjectStorage,
    drain: &CancellationToken,
) -> JoinSet<anyhow::Result<WorkerEnd>> {
    let options = WorkerOptions {
        slots: options.workers,
        memory_bytes: options.memory_bytes,
        exhausted: WhenExhausted::Stop,
    };
    let client = WorkerClient::new(coordinators.clone()).with_patience(PATIENCE);
    let worker = Worker::new(options, client, storage);
    let mut workers = JoinSet::new();
    workers.spawn(worker.run(drain.clone()));
    workers
}

/// Submits the job and waits for its end, or for what stops it before.
async fn follow(
    state: &mut State,
    coordinator: &Coordinator,
    connection: Connection,
    mut workers: JoinSet<anyhow::Result<WorkerEnd>>,
    interrupt: CancellationToken,
    drain: &CancellationToken,
    watch: &mut impl FnMut(Event<'_>),
) -> Result<MergeEnd, EmbeddedError> {
    let mut trouble = coordinator.trouble();
    let mut client = MergeServiceClient::new(connection);
    let mut request = Request::new(v1::CreateJobRequest {
        request_id: state.request_id().0,
        recipe: Some(recipe_to_wire(state.recipe())),
        ..v1::CreateJobRequest::default()
    });
    telemetry::inject(request.metadata_mut());
    let created = client
        .create_job(request)
        .await
        .map_err(anyhow::Error::from)?
        .into_inner();
    let job_id = created.job.map(|job| job.job_id).unwrap_or_default();
    state.note_job(JobId(job_id.clone()));
    let request = v1::WatchJobRequest {
        job_id,
        after_revision: 0,
    };
    let mut changes = client
        .watch_job(request)
        .await
        .map_err(anyhow::Error::from)?
        .into_inner();
    let end = loop {
        tokio::select! {
            change = changes.message() => {
                let Some(change) = change.map_err(anyhow::Error::from)? else { break MergeEnd::Interrupted };
                let view = JobView::try_from(change.job.unwrap_or_default()).map_err(anyhow::Error::from)?;
                watch(Event::Job(&view));
                if let Some(end) = end_of(view) {
                    break end;
                }
            }
            Some(ended) = workers.join_next() => match ended.map_err(anyhow::Error::from)?? {
                WorkerEnd::Exhausted(problem) => break MergeEnd::Stalled(problem),
                WorkerEnd::Drained => {}
            },
            Ok(()) = trouble.changed() => {
                if let Some(problem) = trouble.borrow_and_update().clone() {
                    break MergeEnd::Stalled(problem);
                }
            }
            () = interrupt.cancelled() => break MergeEnd::Interrupted,
        }
    };
    // Waiting calls of idle workers return at once, those of busy ones still count.
    coordinator.stopping().cancel();
    drain.cancel();
    while let Some(ended) = workers.join_next().await {
        ended.map_err(anyhow::Error::from)??;
    }
    Ok(end)
}

fn end_of(view: JobView) -> Option<MergeEnd> {
    match view.state {
        JobState::Succeeded => Some(MergeEnd::Published(Box::new(view))),
        JobState::Failed | JobState::Cancelled => {
            let (kind, problems) = view.error.unwrap_or_else(|| {
                (
                    FailureKind::Preempted,
                    vec![Problem::new("job", "the job was cancelled")],
                )
            });
            Some(match kind {
                // Planning met a full disk: the user can make room and run again.
                FailureKind::ResourceExhausted => MergeEnd::Stalled(problems[0].clone()),
                _ => MergeEnd::Failed(kind, problems),
            })
        }
        _ => None,
    }
}
