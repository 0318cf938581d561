//! The asynchronous runtime of a command.

use anyhow::Context as _;
use tokio::runtime::Builder;

use super::Failure;

/// Runs a command's future on two threads: calls and bookkeeping are light,
/// and the work itself has threads of its own.
pub(super) fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("the runtime cannot be started")?;
    let outcome = runtime.block_on(work);
    // A call that blocks for ever must not keep a finished command alive.
    runtime.shutdown_background();
    outcome
}
