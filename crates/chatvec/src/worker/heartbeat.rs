//! Keeps the leases alive, and obeys what comes back.
//!
//! The heart beats on a thread of its own with a runtime and a connection of
//! its own: neither busy compute threads nor transfers may delay it, or a
//! worker that is merely busy loses its leases.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use chatvec_core::task::BEATS_PER_LEASE;
use chatvec_proto::v1;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::client::WorkerClient;
use super::gate::boottime_ms;
use super::held::{Held, Running};

/// A beat that has no answer after a tenth of the lease is given up: the next
/// one must not wait for it.
const BEAT_DEADLINES_PER_LEASE: u32 = 10;
/// The lease that is assumed until the coordinator has named one.
const LEASE_ASSUMED: Duration = Duration::from_secs(30);

/// What the heart beats for.
pub(super) struct Heartbeat {
    pub(super) client: WorkerClient,
    pub(super) worker: v1::Worker,
    pub(super) held: Arc<Held>,
    /// How long leases last, once that is known.
    pub(super) lease: watch::Receiver<Option<Duration>>,
    /// Cancelled when the worker acquires nothing more.
    pub(super) draining: CancellationToken,
}

/// A heart that beats.
pub(super) struct Heart {
    stop: CancellationToken,
    stopped: oneshot::Receiver<()>,
}

impl Heart {
    /// Starts the thread.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub(super) fn start(heartbeat: Heartbeat) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("the heartbeat's runtime cannot start")?;
        let stop = CancellationToken::new();
        let stopping = stop.clone();
        let (done, stopped) = oneshot::channel();
        thread::Builder::new()
            .name("heartbeat".to_owned())
            .spawn(move || {
                runtime.block_on(heartbeat.until(stopping));
                // Nobody waits any more if the worker has failed.
                let _ = done.send(());
            })
            .context("the heartbeat's thread cannot start")?;
        Ok(Self { stop, stopped })
    }

    /// Stops it. Leases still held run out.
    ///
    /// # Errors
    /// If it died before.
    pub(super) async fn stop(self) -> anyhow::Result<()> {
        self.stop.cancel();
        self.stopped.await.context("the heartbeat's thread died")
    }
}

impl Heartbeat {
    /// Beats until `stop`: one call for all leases of the worker, and also for
    /// none. So the coordinator sees that an idle worker lives, and a lease that
    /// never reached the worker is missed in its beats.
    async fn until(mut self, stop: CancellationToken) {
        let client = self.client.reconnected();
        let mut last = Instant::now();
        loop {
            let duration = self.lease.borrow_and_update().unwrap_or(LEASE_ASSUMED);
            // Counted from the last beat's start: a slow answer delays nothing.
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep_until(last + duration / BEATS_PER_LEASE) => {}
                // The first answer names the lease's length: start over with it.
                Ok(()) = self.lease.changed() => continue,
            }
            last = Instant::now();
            self.beat(&client, duration / BEAT_DEADLINES_PER_LEASE)
                .await;
        }
    }

    async fn beat(&self, client: &WorkerClient, deadline: Duration) {
        let running = self.held.all();
        let beats = running
            .iter()
            .map(|one| v1::Beat {
                lease: Some(one.lease.clone().into()),
                progress_bytes: one.progress_bytes(),
            })
            .collect();
        let draining = self.draining.is_cancelled();
        // The lease counts from before the call: the answer may take its time.
        let sent_at_ms = boottime_ms();
        match client
            .heartbeat(self.worker.clone(), beats, draining, deadline)
            .await
        {
            Ok(response) => {
                for (one, directive) in running.iter().zip(response.directives()) {
                    obey(one, directive, sent_at_ms, response.lease_duration_ms);
                }
            }
            Err(error) if running.is_empty() => {
                tracing::debug!(%error, "heartbeat failed, no lease depends on it");
            }
            Err(error) => {
                tracing::warn!(%error, "heartbeat failed, leases run on until two thirds of their time");
            }
        }
    }
}

fn obey(one: &Running, directive: v1::BeatDirective, sent_at_ms: u64, lease_duration_ms: u32) {
    match directive {
        v1::BeatDirective::Continue => one.gate.extend(
            sent_at_ms,
            Duration::from_millis(u64::from(lease_duration_ms)),
        ),
        v1::BeatDirective::Cancel => one.gate.set_cancelled(),
        v1::BeatDirective::Lost | v1::BeatDirective::Unspecified => one.gate.set_lost(),
    }
}
