//! Tasks that are taken from slow and stuck workers.

use chatvec_core::ids::WorkerId;
use chatvec_core::task::{Steal, StealLimits, TaskState};

use super::fixture::*;
use crate::coordinator::store::Store;

const LIMITS: StealLimits = StealLimits {
    slow_after_ms: 20_000,
    stuck_after_ms: 60_000,
};

/// As if every lease had been given so long ago.
async fn age_leases(store: &Store, column: &str, ms: i64) {
    let text = format!("UPDATE task SET {column} = {column} - {ms} WHERE state = 'LEASED'");
    sqlx::query(sqlx::AssertSqlSafe(text))
        .execute(&store.pool)
        .await
        .unwrap();
}

async fn a_stuck_task_goes_to_another_worker_uncharged(store: &Store) {
    let job = queued(store, "a", 1).await;
    let lease = acquire(store, "stuck", 1).await.remove(0);
    assert!(store.steal_stragglers(&LIMITS).await.unwrap().is_empty());
    age_leases(store, "leased_at_ms", 61_000).await;
    assert!(store.steal_stragglers(&LIMITS).await.unwrap().is_empty());
    age_leases(store, "progressed_at_ms", 61_000).await;
    let stolen = store.steal_stragglers(&LIMITS).await.unwrap();
    assert_eq!(stolen.len(), 1);
    assert_eq!(stolen[0].reason, Steal::Stuck);
    assert_eq!(stolen[0].worker, WorkerId("stuck".to_owned()));
    let task = task_of(store, &job, 0).await;
    assert_eq!(task.state, TaskState::Ready);
    assert_eq!(task.counters, Default::default());
    assert!(task.fence > lease.fence);
    // Another worker that is alive has it before the one that was too slow.
    acquire(store, "other", 0).await;
    let again = store.acquire_tasks(&worker("stuck"), 1, LONG_MS).await;
    assert!(again.unwrap().is_empty());
    acquire(store, "other", 1).await;
}

async fn alone_a_worker_gets_its_stuck_task_again(store: &Store) {
    queued(store, "a", 1).await;
    acquire(store, "w", 1).await;
    age_leases(store, "leased_at_ms", 61_000).await;
    age_leases(store, "progressed_at_ms", 61_000).await;
    assert_eq!(store.steal_stragglers(&LIMITS).await.unwrap().len(), 1);
    acquire(store, "w", 1).await;
}

async fn the_last_task_of_a_job_is_stolen_once_for_slowness(store: &Store) {
    queued(store, "a", 10).await;
    let leases = acquire(store, "w", 10).await;
    for lease in &leases[..9] {
        store
            .complete_task(lease, &parts(lease.task))
            .await
            .unwrap();
    }
    age_leases(store, "leased_at_ms", 21_000).await;
    // Nobody else could do better.
    assert!(store.steal_stragglers(&LIMITS).await.unwrap().is_empty());
    acquire(store, "other", 0).await;
    let stolen = store.steal_stragglers(&LIMITS).await.unwrap();
    assert_eq!(stolen.len(), 1);
    assert_eq!(
        (stolen[0].task, stolen[0].reason),
        (leases[9].task, Steal::Slow)
    );
    acquire(store, "other", 1).await;
    age_leases(store, "leased_at_ms", 21_000).await;
    assert!(store.steal_stragglers(&LIMITS).await.unwrap().is_empty());
}

super::conformance! {
    a_stuck_task_goes_to_another_worker_uncharged,
    alone_a_worker_gets_its_stuck_task_again,
    the_last_task_of_a_job_is_stolen_once_for_slowness,
}
