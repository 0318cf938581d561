//! `chatvec worker`: works for a coordinator.

use std::num::NonZero;

use chatvec_core::problem::Problem;
use tonic::{Code, Status};

use super::remote::Address;
use super::runtime::block_on;
use super::{Exit, Failure, signals, size, text};
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
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    let slots = slots(args.slots, args.memory, memory_of_slots, cores)
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
        _ => error.into(),
    }
}

/// As many slots as asked for, or as are useful, within the memory. Two a core
/// keep disk and cores busy; eight keep a network busy, too.
fn slots(
    asked: Option<u32>,
    memory: u64,
    needed: impl Fn(u32) -> u64,
    cores: usize,
) -> Result<u32, Problem> {
    let useful = u32::try_from(cores.saturating_mul(2)).unwrap_or(u32::MAX);
    let slots = asked.unwrap_or_else(|| {
        let counts = (1..=useful.max(8)).rev();
        counts
            .into_iter()
            .find(|&slots| needed(slots) <= memory)
            .unwrap_or(1)
    });
    if needed(slots) <= memory {
        return Ok(slots);
    }
    let message = format!(
        "expected at least {} for {}, found {}",
        text::binary_size(needed(slots)),
        text::counted(slots.into(), "slot"),
        text::binary_size(memory)
    );
    Err(Problem::new("--memory", message).with_hint("give more, or fewer `--slots`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needed(slots: u32) -> u64 {
        50 + 100 * u64::from(slots)
    }

    #[test]
    fn slots_stay_within_the_memory() {
        assert_eq!(slots(None, 1000, needed, 2), Ok(8));
        assert_eq!(slots(None, 10_000, needed, 6), Ok(12));
        assert_eq!(slots(None, 299, needed, 2), Ok(2));
        assert_eq!(slots(Some(10), 1050, needed, 2), Ok(10));
    }

    #[test]
    fn a_budget_that_is_too_small_is_refused_with_what_is_needed() {
        let problem = slots(None, 149, needed, 2).unwrap_err();
        assert_eq!(
            problem.message,
            "expected at least 150 B for 1 slot, found 149 B"
        );
        assert!(
            slots(Some(3), 349, needed, 2)
                .unwrap_err()
                .message
                .contains("350 B for 3 slots")
        );
    }
}
