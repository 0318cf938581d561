//! `chatvec worker`: works for a coordinator.

use std::num::NonZero;

use chatvec_core::problem::Problem;

use super::remote::Address;
use super::runtime::block_on;
use super::{Exit, Failure, signals, size, text};
use crate::telemetry::{self, LogFormat, Role};
use crate::worker::execute::SlotOptions;
use crate::worker::{WhenExhausted, Worker, WorkerClient, WorkerEnd, WorkerOptions};

/// Run a worker: it takes tasks from a coordinator and merges.
///
/// SIGTERM or Ctrl-C gives its tasks back and stops it.
#[derive(Debug, Clone, clap::Args)]
pub struct WorkerArgs {
    #[command(flatten)]
    address: Address,
    /// Tasks at once; by default twice the number of processor cores, as far as the memory allows.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    slots: Option<u32>,
    /// The most memory that the buffers of all tasks may take.
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = size::bytes)]
    memory: u64,
    /// Log text for people, or one JSON object a line.
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    log_format: LogFormat,
}

pub(super) fn run(args: &WorkerArgs) -> Result<Exit, Failure> {
    let _telemetry = telemetry::init(Role::Worker, args.log_format);
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    let slot_bytes = SlotOptions::default().memory_bytes() as u64;
    let slots = slots(args.slots, args.memory, slot_bytes, cores)
        .map_err(|problem| Failure::bad_input(vec![problem]))?;
    block_on(work(args, slots))
}

async fn work(args: &WorkerArgs, slots: u32) -> Result<Exit, Failure> {
    let drain = signals::interrupt(|| tracing::info!("draining: tasks under way are given back"))?;
    let client = WorkerClient::new(args.address.channel()?);
    let worker = Worker::new(
        WorkerOptions {
            slots,
            exhausted: WhenExhausted::GoOn,
        },
        client,
    );
    tracing::info!(coordinator.address = %args.address, worker.slots = slots, "worker starts");
    match worker.run(drain).await? {
        WorkerEnd::Drained => {
            tracing::info!("worker drained");
            Ok(Exit::Success)
        }
        WorkerEnd::Exhausted(problem) => Err(Failure::try_again(problem)),
    }
}

/// As many slots as asked for, or as are useful, within the memory.
fn slots(asked: Option<u32>, memory: u64, slot_bytes: u64, cores: usize) -> Result<u32, Problem> {
    let fitting = u32::try_from(memory / slot_bytes).unwrap_or(u32::MAX);
    let useful = u32::try_from(cores.saturating_mul(2)).unwrap_or(u32::MAX);
    let slots = asked.unwrap_or_else(|| useful.min(fitting).max(1));
    if slots <= fitting {
        return Ok(slots);
    }
    let needed = u64::from(slots) * slot_bytes;
    let message = format!(
        "expected at least {} for {}, found {}",
        text::binary_size(needed),
        text::counted(slots.into(), "slot"),
        text::binary_size(memory)
    );
    Err(Problem::new("--memory", message)
        .with_hint(format!("each slot takes {}", text::binary_size(slot_bytes))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_stay_within_the_memory() {
        assert_eq!(slots(None, 1000, 100, 2), Ok(4));
        assert_eq!(slots(None, 250, 100, 2), Ok(2));
        assert_eq!(slots(Some(10), 1000, 100, 2), Ok(10));
    }

    #[test]
    fn a_budget_that_is_too_small_is_refused_with_what_is_needed() {
        let problem = slots(None, 99, 100, 2).unwrap_err();
        assert_eq!(
            problem.message,
            "expected at least 100 B for 1 slot, found 99 B"
        );
        assert!(
            slots(Some(3), 299, 100, 2)
                .unwrap_err()
                .message
                .contains("300 B for 3 slots")
        );
    }
}
