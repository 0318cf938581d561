//! `chatvec worker`: works for a coordinator.

use std::num::NonZero;

use chatvec_core::problem::Problem;
use tonic::{Code, Status};

use super::remote::Address;
use super::runtime::block_on;
use super::{Exit, Failure, signals, size, slots};
use crate::storage::object::{ObjectStorage, ObjectStorageOptions};
use crate::telemetry::{self, LogFormat, Role};
use crate::worker::{
    WhenExhausted, Worker, WorkerClient, WorkerEnd, WorkerOptions, memory_of_slots,
};

/// Run a worker: it takes tasks from a coordinator and merges.
///
/// SIGTERM or Ctrl-C stops it: it finishes the parts under way if that is quick,
/// and gives the rest of its tasks back. A second one stops it at once.
#[derive(Debug, Clone, clap::Args)]
pub struct WorkerArgs {
    #[command(flatten)]
    address: Address,
    /// Tasks at once; by default eight, or twice the number of processor cores if that is more,
    /// as far as the memory allows.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    slots: Option<u32>,
    /// The most memory that all tasks together may take. One between remote stores
    /// takes some 50 MiB and its part.
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = size::bytes)]
    memory: u64,
    /// Log text for people, or one JSON object a line.
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    log_format: LogFormat,
}

pub(super) fn run(args: &WorkerArgs) -> Result<Exit, Failure> {
    let _telemetry = telemetry::init(Role::Worker, args.log_format);
    let slots = slots::fitting(
        "--slots",
        args.slots,
        useful_slots(),
        args.memory,
        memory_of_slots,
    )
    .map_err(|problem| Failure::bad_input(vec![problem]))?;
    block_on(work(args, slots))
}

async fn work(args: &WorkerArgs, slots: u32) -> Result<Exit, Failure> {
    let drain = signals::interrupt(|| {
        tracing::info!("draining: parts under way are finished, the rest is given back");
    })?;
    let client = WorkerClient::new(args.address.coordinators()?);
    let storage = ObjectStorage::new(ObjectStorageOptions::from_environment());
    let worker = Worker::new(
        WorkerOptions {
            slots,
            memory_bytes: args.memory,
            exhausted: WhenExhausted::GoOn,
        },
        client,
        storage,
    );
    tracing::info!(coordinator.address = %args.address, worker.id = %worker.id(),
        worker.slots = slots, "worker starts");
    match worker
        .run(drain)
        .await
        .map_err(|error| refused(args, error))?
    {
        WorkerEnd::Drained => {
            tracing::info!("worker drained");
            Ok(Exit::Success)
        }
        WorkerEnd::Exhausted(problem) => Err(Failure::try_again(problem)),
    }
}

/// A coordinator that takes no worker of this version is a problem of the
/// installation, and no restart helps.
fn refused(args: &WorkerArgs, error: anyhow::Error) -> Failure {
    match error.downcast_ref::<Status>() {
        Some(status) if status.code() == Code::FailedPrecondition => Failure::Problems {
            exit: Exit::Failed,
            problems: vec![
                Problem::new(args.address.to_string(), status.message())
                    .with_hint("run worker and coordinator of the same version"),
            ],
        },
        Some(status) if status.code() == Code::Unimplemented => Failure::Problems {
            exit: Exit::Failed,
            problems: vec![
                Problem::new(
                    args.address.to_string(),
                    "expected a coordinator, found another service",
                )
                .with_hint("give the address of `chatvec serve` by --coordinator"),
            ],
        },
        _ => error.into(),
    }
}

/// Two tasks a core keep disk and cores busy; eight keep a network busy, too.
fn useful_slots() -> u32 {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    u32::try_from(cores.saturating_mul(2))
        .unwrap_or(u32::MAX)
        .max(8)
}
