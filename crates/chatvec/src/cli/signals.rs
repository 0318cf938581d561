//! Ctrl-C and SIGTERM: the first asks to stop, the second stops at once.

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{Exit, Failure};

/// A token that the first SIGINT or SIGTERM cancels, after `on_first`; the
/// second ends the process.
pub(super) fn interrupt(
    on_first: impl FnOnce() + Send + 'static,
) -> Result<CancellationToken, Failure> {
    let mut int = signal(SignalKind::interrupt()).context("signals cannot be received")?;
    let mut term = signal(SignalKind::terminate()).context("signals cannot be received")?;
    let token = CancellationToken::new();
    let cancelled = token.clone();
    tokio::spawn(async move {
        wait(&mut int, &mut term).await;
        on_first();
        cancelled.cancel();
        wait(&mut int, &mut term).await;
        std::process::exit(Exit::Interrupted.code().into());
    });
    Ok(token)
}

async fn wait(int: &mut tokio::signal::unix::Signal, term: &mut tokio::signal::unix::Signal) {
    tokio::select! {
        _ = int.recv() => {}
        _ = term.recv() => {}
    }
}
