//! What is looked at beside a job's row, and the removal of its record.

use chatvec_core::ids::{JobId, TaskOrdinal};
use chatvec_core::task::TaskState;

use super::fixture::*;
use crate::coordinator::store::{Phase, Store, StoreError, TaskFilter};

async fn a_job_tells_who_did_how_much_and_how_fast(store: &Store) {
    let job = queued(store, "a", 3).await;
    let acquired = store
        .acquire_tasks(&worker("w1"), 2, LONG_MS)
        .await
        .unwrap();
    let lease = &acquired[0].lease;
    store
        .complete_task(lease, &parts(lease.task))
        .await
        .unwrap();
    let shares = store.shares(&job).await.unwrap();
    assert_eq!(shares.len(), 1);
    let share = &shares[0];
    assert_eq!(
        (share.worker.as_str(), share.hostname.as_str()),
        ("w1", "host")
    );
    assert_eq!(
        (share.tasks_done, share.bytes_done, share.tasks_leased),
        (1, 20, 1)
    );
    assert_eq!(store.pace(&job, LONG_MS).await.unwrap().bytes, 20);
    let all = store
        .progress_of(&[job.clone(), JobId("z".to_owned())])
        .await;
    let all = all.unwrap();
    assert_eq!(all.len(), 1);
    assert_eq!(all[&job], store.progress(&job).await.unwrap());
}

async fn tasks_are_listed_page_by_page_with_who_finished_them(store: &Store) {
    let job = queued(store, "a", 4).await;
    let acquired = store
        .acquire_tasks(&worker("w1"), 1, LONG_MS)
        .await
        .unwrap();
    let lease = &acquired[0].lease;
    store
        .complete_task(lease, &parts(lease.task))
        .await
        .unwrap();
    let mut filter = TaskFilter {
        limit: 3,
        ..TaskFilter::default()
    };
    let page = store.tasks_page(&job, &filter).await.unwrap();
    assert_eq!(page.len(), 3);
    let finished_by = page[0].worker.as_ref().map(|worker| worker.as_str());
    assert_eq!((page[0].state, finished_by), (TaskState::Done, Some("w1")));
    filter.after = Some(page[2].task);
    let rest = store.tasks_page(&job, &filter).await.unwrap();
    assert_eq!(
        rest.iter().map(|row| row.task).collect::<Vec<_>>(),
        [TaskOrdinal(3)]
    );
    filter.after = None;
    filter.states = vec![TaskState::Done];
    assert_eq!(store.tasks_page(&job, &filter).await.unwrap().len(), 1);
}

async fn a_worker_that_stops_is_listed_and_is_not_there(store: &Store) {
    queued(store, "a", 1).await;
    store
        .acquire_tasks(&worker("w1"), 1, LONG_MS)
        .await
        .unwrap();
    assert_eq!(store.workers_there(LONG_MS).await.unwrap(), 1);
    store
        .heartbeat(&worker("w1"), Phase::Draining, &[], LONG_MS)
        .await
        .unwrap();
    assert_eq!(store.workers_there(LONG_MS).await.unwrap(), 0);
    let workers = store.workers(LONG_MS).await.unwrap();
    assert_eq!((workers.len(), workers[0].tasks_leased), (1, 1));
    assert!(workers[0].stopped_at_ms.is_some());
}

async fn only_a_job_that_left_nothing_behind_is_deleted(store: &Store) {
    let job = queued(store, "a", 1).await;
    let refused = store.delete_job(&job).await;
    assert!(matches!(refused, Err(StoreError::JobActive { .. })));
    store.cancel_job(&job).await.unwrap();
    let refused = store.delete_job(&job).await;
    assert!(matches!(refused, Err(StoreError::JobActive { .. })));
    store.mark_cleaned(&job).await.unwrap();
    store.delete_job(&job).await.unwrap();
    assert_eq!(store.job(&job).await.unwrap(), None);
    let again = store.delete_job(&job).await;
    assert!(matches!(again, Err(StoreError::JobNotFound(_))));
}

super::conformance! {
    a_job_tells_who_did_how_much_and_how_fast,
    tasks_are_listed_page_by_page_with_who_finished_them,
    a_worker_that_stops_is_listed_and_is_not_there,
    only_a_job_that_left_nothing_behind_is_deleted,
}
