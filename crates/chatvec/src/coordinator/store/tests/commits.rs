//! The point of no return, its takeover, and reopened tasks.

use std::slice;

use chatvec_core::ids::TaskOrdinal;
use chatvec_core::job::JobState;
use chatvec_core::task::TaskState;

use super::fixture::*;
use crate::coordinator::store::{Beat, Phase, Progress, Store, StoreError};

async fn a_job_is_committed_when_every_task_is_done_and_not_before(store: &Store) {
    let job = queued(store, "a", 2).await;
    assert_eq!(commit(store, &job).await, None);
    let leases = acquire(store, "w", 2).await;
    store
        .complete_task(&leases[0], &parts(leases[0].task))
        .await
        .unwrap();
    assert_eq!(commit(store, &job).await, None);
    assert!(store.jobs_to_commit().await.unwrap().is_empty());
    store
        .complete_task(&leases[1], &parts(leases[1].task))
        .await
        .unwrap();
    assert_eq!(store.jobs_to_commit().await.unwrap(), slice::from_ref(&job));
    let commit = commit(store, &job).await.unwrap();
    let row = job_of(store, &job).await;
    assert_eq!(row.state, JobState::Committing);
    assert_eq!(row.epoch, commit.epoch);
    assert_eq!(row.committing_at_ms, Some(commit.committing_at_ms));
    let ended = store.finish_commit(&job, commit.epoch).await.unwrap();
    assert_eq!(ended.state, JobState::Succeeded);
    assert!(ended.finished_at_ms.is_some());
    assert_eq!(ended, job_of(store, &job).await);
    assert!(store.jobs_to_commit().await.unwrap().is_empty());
    assert!(store.jobs_to_clean().await.unwrap().is_empty());
}

async fn a_finalizer_that_was_replaced_can_end_nothing(store: &Store) {
    let job = queued(store, "a", 1).await;
    finish_all(store, 1).await;
    let old = commit(store, &job).await.unwrap();
    assert_eq!(store.jobs_to_commit().await.unwrap(), slice::from_ref(&job));
    let new = commit(store, &job).await.unwrap();
    assert!(new.epoch > old.epoch);
    assert_eq!(new.committing_at_ms, old.committing_at_ms);
    let late = store.finish_commit(&job, old.epoch).await;
    assert!(matches!(late, Err(StoreError::EpochLost { .. })));
    let late = store.fail_commit(&job, old.epoch, &job_error()).await;
    assert!(matches!(late, Err(StoreError::EpochLost { .. })));
    assert_eq!(state_of(store, &job).await, JobState::Committing);
    store.finish_commit(&job, new.epoch).await.unwrap();
    let again = store.finish_commit(&job, new.epoch).await;
    assert!(matches!(again, Err(StoreError::WrongState { .. })));
}

async fn a_job_in_commit_can_neither_be_cancelled_nor_failed_by_others(store: &Store) {
    let job = queued(store, "a", 1).await;
    finish_all(store, 1).await;
    let commit = commit(store, &job).await.unwrap();
    let refused = store.cancel_job(&job).await;
    assert!(matches!(
        refused,
        Err(StoreError::WrongState {
            state: JobState::Committing,
            ..
        })
    ));
    assert!(fail_job(store, &job).await.is_err());
    assert!(store.reopen_task(&job, TaskOrdinal(0)).await.is_err());
    let failed = store
        .fail_commit(&job, commit.epoch, &job_error())
        .await
        .unwrap();
    assert_eq!(
        (failed.state, failed.error),
        (JobState::Failed, Some(job_error()))
    );
    assert_eq!(store.jobs_to_clean().await.unwrap(), [job]);
}

async fn a_commit_does_not_succeed_while_a_part_is_made_again(store: &Store) {
    let job = queued(store, "a", 1).await;
    finish_all(store, 1).await;
    let begun = commit(store, &job).await.unwrap();
    store
        .repair_tasks(&job, begun.epoch, &[TaskOrdinal(0)])
        .await
        .unwrap();
    // The same finalizer, as if it had gone on: its epoch is still the latest.
    let early = store.finish_commit(&job, begun.epoch).await;
    assert!(matches!(early, Err(StoreError::TasksOpen { tasks: 1, .. })));
    assert_eq!(state_of(store, &job).await, JobState::Committing);
    finish_all(store, 1).await;
    let again = commit(store, &job).await.unwrap();
    store.finish_commit(&job, again.epoch).await.unwrap();
}

/// Found by a sequence on Postgres: the report that was refused still held the
/// row's lock when the end of the job passed over it.
async fn a_repair_that_gives_other_bytes_leaves_no_task_held(store: &Store) {
    // A race: several chances to lose it.
    for number in 0..20 {
        let job = queued(store, &format!("job-{number}"), 1).await;
        finish_all(store, 1).await;
        let begun = commit(store, &job).await.unwrap();
        store
            .repair_tasks(&job, begun.epoch, &[TaskOrdinal(0)])
            .await
            .unwrap();
        let lease = acquire(store, "w", 1).await.remove(0);
        let mut others = parts(lease.task);
        others[1].crc64.0 ^= 1;
        let refused = store.complete_task(&lease, &others).await;
        assert!(matches!(refused, Err(StoreError::LeaseLost { .. })));
        assert_eq!(state_of(store, &job).await, JobState::Failed);
        assert_eq!(task_states(store, &job).await, [TaskState::Cancelled]);
    }
}

async fn a_job_without_tasks_is_committed_at_once(store: &Store) {
    let job = queued(store, "a", 0).await;
    assert_eq!(store.jobs_to_commit().await.unwrap(), slice::from_ref(&job));
    assert!(commit(store, &job).await.is_some());
}

async fn jobs_that_are_not_running_are_not_committed(store: &Store) {
    let planning = submitted(store, "a").await;
    assert!(store.jobs_to_commit().await.unwrap().is_empty());
    assert!(matches!(
        store.start_finalizing(&planning, LONG_MS).await,
        Err(StoreError::WrongState { .. })
    ));
    let cancelled = queued(store, "b", 0).await;
    store.cancel_job(&cancelled).await.unwrap();
    assert!(matches!(
        store.start_finalizing(&cancelled, LONG_MS).await,
        Err(StoreError::WrongState { .. })
    ));
}

async fn a_reopened_task_is_done_again_under_a_new_fence(store: &Store) {
    let job = queued(store, "a", 2).await;
    let leases = acquire(store, "w", 2).await;
    for lease in &leases {
        store
            .complete_task(lease, &parts(lease.task))
            .await
            .unwrap();
    }
    let stale = &leases[1];
    store.reopen_task(&job, stale.task).await.unwrap();
    let task = task_of(store, &job, 1).await;
    assert_eq!((task.state, task.done_fence), (TaskState::Ready, None));
    assert!(task.fence > stale.fence);
    let left = store.parts(&job).await.unwrap();
    assert!(left.iter().all(|row| row.task == leases[0].task) && left.len() == 2);
    assert_eq!(commit(store, &job).await, None);
    let late = store.complete_task(stale, &parts(stale.task)).await;
    assert!(matches!(late, Err(StoreError::LeaseLost { .. })));
    let again = store.reopen_task(&job, stale.task).await;
    assert!(matches!(
        again,
        Err(StoreError::WrongTaskState {
            state: TaskState::Ready,
            ..
        })
    ));
    let missing = store.reopen_task(&job, TaskOrdinal(2)).await;
    assert!(matches!(missing, Err(StoreError::TaskNotFound { .. })));
    finish_all(store, 1).await;
    assert!(commit(store, &job).await.is_some());
    assert_eq!(store.parts(&job).await.unwrap().len(), 4);
}

async fn progress_is_the_sum_of_the_tasks(store: &Store) {
    let job = queued(store, "a", 4).await;
    let leases = acquire(store, "w", 3).await;
    store
        .complete_task(&leases[0], &parts(leases[0].task))
        .await
        .unwrap();
    let beats = [(1, 5), (2, 999)].map(|(lease, progress_bytes)| Beat {
        lease: leases[lease].clone(),
        progress_bytes,
    });
    let by = worker("w");
    store
        .heartbeat(&by, Phase::Working, &beats, LONG_MS)
        .await
        .unwrap();
    let expected = Progress {
        ready: 1,
        leased: 2,
        done: 1,
        bytes_total: 80,
        bytes_done: 20,
        // No task counts for more than its bytes.
        bytes_leased_progress: 25,
        ..Progress::default()
    };
    assert_eq!(store.progress(&job).await.unwrap(), expected);
}

super::conformance! {
    a_job_is_committed_when_every_task_is_done_and_not_before,
    a_finalizer_that_was_replaced_can_end_nothing,
    a_job_in_commit_can_neither_be_cancelled_nor_failed_by_others,
    a_commit_does_not_succeed_while_a_part_is_made_again,
    a_repair_that_gives_other_bytes_leaves_no_task_held,
    a_job_without_tasks_is_committed_at_once,
    jobs_that_are_not_running_are_not_committed,
    a_reopened_task_is_done_again_under_a_new_fence,
    progress_is_the_sum_of_the_tasks,
}
