//! Deleting the records of ended jobs, and of workers.

use super::fixture::*;
use crate::coordinator::store::Store;

async fn old_jobs_are_deleted_the_oldest_first_and_no_more_than_asked(store: &Store) {
    let mut jobs = Vec::new();
    for name in ["a", "b", "c"] {
        let job = queued(store, name, 1).await;
        store.cancel_job(&job).await.unwrap();
        store.mark_cleaned(&job).await.unwrap();
        jobs.push(job);
    }
    queued(store, "open", 1).await;
    assert_eq!(store.delete_ended_jobs(LONG_MS, 10).await.unwrap(), 0);
    assert_eq!(store.delete_ended_jobs(0, 2).await.unwrap(), 2);
    assert!(store.job(&jobs[2]).await.unwrap().is_some());
    assert_eq!(store.delete_ended_jobs(0, 2).await.unwrap(), 1);
}

async fn workers_are_forgotten_when_they_were_not_seen_for_long(store: &Store) {
    queued(store, "a", 2).await;
    acquire(store, "w", 2).await;
    assert_eq!(store.forget_workers(LONG_MS).await.unwrap(), 0);
    assert_eq!(store.workers(LONG_MS).await.unwrap().len(), 1);
    assert_eq!(store.forget_workers(0).await.unwrap(), 1);
    assert_eq!(store.workers(LONG_MS).await.unwrap(), []);
    // One that calls again is known again.
    assert!(
        store
            .acquire_tasks(&worker("w"), 1, LONG_MS)
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(store.workers(LONG_MS).await.unwrap().len(), 1);
}

super::conformance! {
    workers_are_forgotten_when_they_were_not_seen_for_long,
    old_jobs_are_deleted_the_oldest_first_and_no_more_than_asked,
}
