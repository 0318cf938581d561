//! Removes what ended jobs left behind, and records that nobody asks for any more.

mod leftovers;

pub use leftovers::discard;

use std::time::Duration;

use super::Resources;
use super::store::StoreError;

/// Most records of ended jobs deleted in one round.
const DELETE_MAX: u32 = 100;
/// How long a worker is known that was not seen. Every start of a worker makes a
/// row; people look for one that vanished a few days later, not a year.
const WORKERS_KEPT: Duration = Duration::from_hours(7 * 24);

/// One round. It waits for object stores, which can take long: what must go on
/// meanwhile has loops of its own.
pub(super) async fn tidy(resources: &Resources) -> Result<(), StoreError> {
    let (store, options) = (&resources.store, &resources.options);
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
