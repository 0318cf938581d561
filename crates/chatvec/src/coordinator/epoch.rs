//! Work on one job under its epoch: the right to plan or to publish it, which
//! any other coordinator takes over once it is no longer renewed.

use std::time::Duration;

use chatvec_core::ids::JobId;

use super::store::{Epoch, Store, StoreError};

/// Renewals in the length of a lease, so that two lost ones do no harm.
const RENEWALS_PER_LEASE: u32 = 4;

/// How a piece of work under an epoch ended.
#[derive(Debug)]
pub(super) enum Held<T> {
    /// It came to its end; whether the epoch still stands, its next write tells.
    Done(T),
    /// Another coordinator has the job. What was under way is dropped; whatever
    /// of it goes on unseen is refused by the epoch.
    Lost,
}

/// Runs `work`, and renews the epoch meanwhile.
pub(super) async fn hold<T>(
    store: &Store,
    job: &JobId,
    epoch: Epoch,
    lease_ms: i64,
    work: impl Future<Output = T>,
) -> Held<T> {
    tokio::select! {
        done = work => Held::Done(done),
        () = renew_until_lost(store, job, epoch, lease_ms) => Held::Lost,
    }
}

async fn renew_until_lost(store: &Store, job: &JobId, epoch: Epoch, lease_ms: i64) {
    let period = Duration::from_millis(lease_ms.unsigned_abs()) / RENEWALS_PER_LEASE;
    loop {
        tokio::time::sleep(period).await;
        let (store, renewed) = (store.clone(), job.clone());
        // Apart from this future, which may be dropped at any time.
        let renewal =
            tokio::spawn(async move { store.renew_epoch(&renewed, epoch, lease_ms).await });
        match renewal.await {
            Ok(Ok(())) => {}
            Ok(Err(StoreError::EpochLost { .. } | StoreError::WrongState { .. })) => return,
            Ok(Err(error)) => {
                tracing::warn!(job.id = %job, %error, "an epoch could not be renewed");
            }
            Err(panic) => {
                tracing::error!(job.id = %job, %panic, "the renewal of an epoch panicked");
            }
        }
    }
}
