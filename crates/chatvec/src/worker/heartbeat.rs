//! Keeps the leases alive, and obeys what comes back.

use std::sync::Arc;
use std::time::Duration;

use chatvec_proto::v1;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::client::WorkerClient;
use super::gate::boottime_ms;
use super::held::{Held, Running};

/// Beats every sixth of the lease, so that two lost beats do not fence the
/// worker at two thirds of it.
const BEATS_PER_LEASE: u32 = 6;
/// A beat that has no answer after a tenth of the lease is given up: the next
/// one must not wait for it.
const BEAT_DEADLINES_PER_LEASE: u32 = 10;
/// The lease that is assumed until the coordinator has named one.
const LEASE_ASSUMED: Duration = Duration::from_secs(30);

/// Beats until `stop`; one call for all leases of the worker.
pub(super) async fn beat_until(
    stop: CancellationToken,
    client: WorkerClient,
    worker: v1::Worker,
    held: Arc<Held>,
    mut lease: tokio::sync::watch::Receiver<Option<Duration>>,
) {
    let mut last = Instant::now();
    loop {
        let duration = lease.borrow_and_update().unwrap_or(LEASE_ASSUMED);
        // Counted from the last beat's start: a slow answer delays nothing.
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep_until(last + duration / BEATS_PER_LEASE) => {}
            // The first answer names the lease's length: start over with it.
            Ok(()) = lease.changed() => continue,
        }
        last = Instant::now();
        let running = held.all();
        if !running.is_empty() {
            beat(
                &client,
                &worker,
                &running,
                duration / BEAT_DEADLINES_PER_LEASE,
            )
            .await;
        }
    }
}

async fn beat(
    client: &WorkerClient,
    worker: &v1::Worker,
    running: &[Arc<Running>],
    deadline: Duration,
) {
    let beats = running
        .iter()
        .map(|one| v1::Beat {
            lease: Some(one.lease.clone().into()),
            progress_bytes: one.progress_bytes(),
        })
        .collect();
    // The lease counts from before the call: the answer may take its time.
    let sent_at_ms = boottime_ms();
    match client.heartbeat(worker.clone(), beats, deadline).await {
        Ok(response) => {
            for (one, directive) in running.iter().zip(&response.directives) {
                obey(one, *directive, sent_at_ms, response.lease_duration_ms);
            }
        }
        Err(error) => {
            tracing::warn!(%error, "heartbeat failed, leases run on until two thirds of their time");
        }
    }
}

fn obey(one: &Running, directive: i32, sent_at_ms: u64, lease_duration_ms: u32) {
    match v1::BeatDirective::try_from(directive) {
        Ok(v1::BeatDirective::Continue) => one.gate.extend(
            sent_at_ms,
            Duration::from_millis(u64::from(lease_duration_ms)),
        ),
        Ok(v1::BeatDirective::Cancel) => one.gate.set_cancelled(),
        Ok(v1::BeatDirective::Lost | v1::BeatDirective::Unspecified) | Err(_) => {
            one.gate.set_lost();
        }
    }
}
