//! Takes back expired leases, moves tasks away from stragglers, and removes what
//! ended jobs left behind.

mod leftovers;

pub use leftovers::discard;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use chatvec_core::task::StealLimits;
use tokio::time::Instant;

use super::Resources;
use super::store::{Reaping, StoreError};

/// Most records of ended jobs deleted in one round.
const DELETE_MAX: u32 = 100;
/// How long a worker is known that was not seen. Every start of a worker makes a
/// row; people look for one that vanished a few days later, not a year.
const WORKERS_KEPT: Duration = Duration::from_hours(7 * 24);

/// Since when rounds have succeeded, one after the other.
#[derive(Debug, Default)]
pub(super) struct Contact {
    since: Mutex<Option<Instant>>,
}

impl Contact {
    /// Whether the database was away within the last `lease`: workers could not
    /// renew their leases then, and get the time to do so now.
    fn is_fresh(&self, lease: Duration) -> bool {
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        since.get_or_insert_with(Instant::now).elapsed() < lease
    }

    fn lost(&self) {
        *self.since.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// One round.
pub(super) async fn tidy(resources: &Resources, contact: &Contact) -> Result<(), StoreError> {
    let outcome = round(resources, contact).await;
    if outcome.is_err() {
        contact.lost();
    }
    outcome
}

async fn round(resources: &Resources, contact: &Contact) -> Result<(), StoreError> {
    let (store, options) = (&resources.store, &resources.options);
    let reaping = match contact.is_fresh(options.lease()) {
        true => Reaping::Grace,
        false => Reaping::Expired,
    };
    let reaped = store.reap(reaping).await?;
    if reaped.expired > 0 {
        tracing::warn!(
            task.expired = reaped.expired,
            task.given_up = reaped.given_up,
            "leases expired"
        );
    }
    if reaping == Reaping::Expired {
        let limits = StealLimits::of_lease(u64::from(options.lease_duration_ms));
        for stolen in store.steal_stragglers(&limits).await? {
            tracing::warn!(
                job.id = %stolen.job,
                task.id = %stolen.task,
                worker.id = %stolen.worker,
                reason = stolen.reason.name(),
                "task taken from its worker"
            );
        }
    }
    leftovers::clean(resources).await?;
    let forgotten = store.forget_workers(in_ms(WORKERS_KEPT)).await?;
    if forgotten > 0 {
        tracing::info!(
            worker.count = forgotten,
            "workers forgotten that were not seen for a week"
        );
    }
    if let Some(retention) = options.retention {
        let deleted = store
            .delete_ended_jobs(in_ms(retention), DELETE_MAX)
            .await?;
        if deleted > 0 {
            tracing::info!(job.count = deleted, "records of ended jobs deleted");
        }
    }
    Ok(())
}

/// As the job store counts; what is longer than it can count is for ever.
fn in_ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
