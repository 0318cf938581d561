//! Takes back expired leases, and removes what ended jobs left behind.

use super::store::{Store, StoreError};
use crate::storage::OutputFolder;

/// Most leases taken back in one round, so that a database that was away for a
/// while is not followed by a storm.
const REAP_MAX: u32 = 500;

/// One round.
pub(super) async fn tidy(store: &Store) -> Result<(), StoreError> {
    let reaped = store.reap(REAP_MAX).await?;
    if reaped.expired > 0 {
        tracing::warn!(
            task.expired = reaped.expired,
            task.given_up = reaped.given_up,
            "leases expired"
        );
    }
    for job in store.jobs_to_clean().await? {
        let Some(row) = store.job(&job).await? else {
            continue;
        };
        let removed = OutputFolder::at(&row.output_url).map(|output| {
            let outcome = output.partials(&job).remove();
            output.forget_if_empty();
            outcome
        });
        match removed {
            Ok(Ok(())) | Err(_) => store.mark_cleaned(&job).await?,
            Ok(Err(error)) => {
                tracing::warn!(job.id = %job, %error, "unfinished files could not be removed");
            }
        }
    }
    Ok(())
}
