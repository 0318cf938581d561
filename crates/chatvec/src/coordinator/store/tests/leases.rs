//! The claim, the heartbeat, and giving leases back.

use chatvec_core::ids::{Fence, WorkerId};
use chatvec_core::job::JobState;
use chatvec_core::task::{FailureKind, Lease, TaskState};

use super::fixture::*;
use crate::coordinator::store::{Beat, BeatAnswer, Phase, Store, StoreError};

fn beat(lease: &Lease, progress_bytes: u64) -> Beat {
    Beat {
        lease: lease.clone(),
        progress_bytes,
    }
}

async fn beat_once(store: &Store, by: &str, lease: &Lease) -> BeatAnswer {
    store
        .heartbeat(&worker(by), Phase::Working, &[beat(lease, 1)], LONG_MS)
        .await
        .unwrap()[0]
}

async fn the_first_lease_makes_the_job_running(store: &Store) {
    let job = queued(store, "a", 3).await;
    let acquired = store.acquire_tasks(&worker("w"), 2, LONG_MS).await.unwrap();
    assert_eq!(acquired.len(), 2);
    for (number, acquired) in acquired.iter().enumerate() {
        let number = number as u32;
        assert_eq!(acquired.lease.job, job);
        assert_eq!(acquired.lease.task.0, number);
        assert_eq!((acquired.lease.fence.0, acquired.lease.attempt.0), (1, 1));
        assert_eq!(acquired.spec, spec(number));
        assert_eq!(acquired.traceparent, new_job("a").traceparent);
    }
    assert_eq!(state_of(store, &job).await, JobState::Running);
    let task = task_of(store, &job, 0).await;
    assert_eq!(task.state, TaskState::Leased);
    assert_eq!(task.worker, Some(WorkerId("w".to_owned())));
    let expires = task.lease_expires_at_ms.unwrap();
    assert_eq!(expires - task.updated_at_ms, LONG_MS);
}

async fn tasks_are_leased_by_job_and_in_order(store: &Store) {
    let first = queued(store, "a", 2).await;
    let second = queued(store, "b", 2).await;
    let order: Vec<_> = acquire(store, "w", 4)
        .await
        .into_iter()
        .map(|lease| (lease.job, lease.task.0))
        .collect();
    let expected = [(&first, 0), (&first, 1), (&second, 0), (&second, 1)];
    assert_eq!(order, expected.map(|(job, task)| (job.clone(), task)));
}

async fn only_planned_and_wanted_jobs_give_leases(store: &Store) {
    submitted(store, "planning").await;
    let cancelling = queued(store, "cancelling", 2).await;
    acquire(store, "w", 1).await;
    let state = store.cancel_job(&cancelling).await.unwrap().state;
    assert_eq!(state, JobState::Cancelling);
    let failed = queued(store, "failed", 1).await;
    fail_job(store, &failed).await.unwrap();
    acquire(store, "w", 0).await;
    assert!(
        store
            .acquire_tasks(&worker("w"), 9, LONG_MS)
            .await
            .unwrap()
            .is_empty()
    );
}

async fn a_task_in_back_off_is_not_leased(store: &Store) {
    let job = queued(store, "a", 1).await;
    let lease = acquire(store, "w", 1).await.remove(0);
    let transient = failure(FailureKind::Transient);
    store.fail_task(&lease, &transient, 1.0).await.unwrap();
    let task = task_of(store, &job, 0).await;
    assert_eq!(task.not_before_ms - task.updated_at_ms, 1_000);
    assert!(
        store
            .acquire_tasks(&worker("w"), 1, LONG_MS)
            .await
            .unwrap()
            .is_empty()
    );
}

/// Where claims begin is a hint, and nobody told of this task.
async fn a_claim_that_finds_too_little_looks_everywhere(store: &Store) {
    queued(store, "a", 3).await;
    let first = acquire(store, "w", 1).await.remove(0);
    sqlx::query("UPDATE task SET state = 'READY', worker_id = NULL, lease_expires_at_ms = NULL WHERE state = 'LEASED'")
        .execute(&store.pool)
        .await
        .unwrap();
    let found = acquire(store, "w", 3).await;
    let tasks: Vec<u32> = found.iter().map(|lease| lease.task.0).collect();
    assert_eq!(first.task.0, 0);
    assert!(tasks.contains(&0) && tasks.len() == 3, "{tasks:?}");
}

/// Two workers take every task down with them.
async fn suspected(store: &Store, name: &str, tasks: u32) {
    queued(store, name, tasks).await;
    for by in ["dead", "dead as well"] {
        // A worker that dies takes down all that it holds; a suspect it gets alone.
        acquire_for(store, by, tasks, EXPIRED_MS).await;
        let reaped = store.reap(Reaping::Expired).await.unwrap();
        assert_eq!(reaped.expired, u64::from(tasks));
    }
}

async fn how_many(store: &Store, by: &str, max: u32) -> usize {
    let acquired = store.acquire_tasks(&worker(by), max, LONG_MS).await;
    acquired.unwrap().len()
}

async fn a_suspected_task_is_leased_alone(store: &Store) {
    suspected(store, "suspected", 2).await;
    queued(store, "other", 3).await;
    // One suspect, and nothing beside it.
    let alone = store.acquire_tasks(&worker("v"), 9, LONG_MS).await.unwrap();
    assert_eq!(alone[0].lease.job.as_str(), "suspected");
    assert_eq!(alone.len(), 1);
    assert_eq!(how_many(store, "v", 9).await, 0);
    // The other suspect.
    assert_eq!(how_many(store, "w", 9).await, 1);
    // No suspect waits any more: those who hold none get the rest.
    assert_eq!(how_many(store, "w", 9).await, 0);
    assert_eq!(how_many(store, "x", 2).await, 2);
    assert_eq!(how_many(store, "x", 9).await, 1);
    store
        .complete_task(&alone[0].lease, &parts(alone[0].lease.task))
        .await
        .unwrap();
    queued(store, "more", 1).await;
    assert_eq!(how_many(store, "v", 9).await, 1);
}

async fn a_suspected_task_that_waits_keeps_busy_workers_waiting(store: &Store) {
    queued(store, "other", 3).await;
    let busy = acquire(store, "busy", 1).await.remove(0);
    suspected_beside(store, "suspected").await;
    assert_eq!(how_many(store, "busy", 9).await, 0);
    store.complete_task(&busy, &parts(busy.task)).await.unwrap();
    let alone = acquire(store, "busy", 1).await.remove(0);
    assert_eq!(alone.job.as_str(), "suspected");
    // It waits no more.
    assert_eq!(how_many(store, "idle", 9).await, 2);
}

async fn a_suspected_task_that_may_not_be_leased_keeps_nobody_waiting(store: &Store) {
    suspected(store, "suspected", 1).await;
    queued(store, "other", 3).await;
    let lease = acquire(store, "w", 1).await.remove(0);
    let transient = failure(FailureKind::Transient);
    store.fail_task(&lease, &transient, 1.0).await.unwrap();
    assert_eq!(how_many(store, "w", 2).await, 2);
    assert_eq!(how_many(store, "w", 2).await, 1);
}

/// As [`suspected`], where other tasks wait as well.
async fn suspected_beside(store: &Store, name: &str) {
    let job = queued(store, name, 1).await;
    sqlx::query(
        "UPDATE task SET crashes = 2, crashed_workers = 2, first_crash_worker = 'dead'
         WHERE job_id = $1",
    )
    .bind(job.as_str())
    .execute(&store.pool)
    .await
    .unwrap();
}

async fn a_heartbeat_extends_what_is_held_and_only_that(store: &Store) {
    let job = queued(store, "a", 4).await;
    let mine = acquire_for(store, "me", 2, 1_000_000).await;
    let gone = acquire_for(store, "me", 1, EXPIRED_MS).await.remove(0);
    let theirs = acquire(store, "you", 1).await.remove(0);
    let old = Lease {
        fence: Fence(mine[1].fence.0 + 1),
        ..mine[1].clone()
    };
    let before = task_of(store, &job, 0).await.lease_expires_at_ms;
    let beats = [
        beat(&theirs, 1),
        beat(&mine[0], 7),
        beat(&gone, 2),
        beat(&old, 3),
        beat(&mine[0], 7),
    ];
    let me = worker("me");
    let answers = store
        .heartbeat(&me, Phase::Working, &beats, LONG_MS)
        .await
        .unwrap();
    use BeatAnswer::{Extended, Lost};
    assert_eq!(answers, [Lost, Extended, Extended, Lost, Extended]);
    let task = task_of(store, &job, 0).await;
    assert!(task.lease_expires_at_ms > before);
    assert_eq!(task.progress_bytes, 7);
    for other in [1, 3] {
        assert_eq!(task_of(store, &job, other).await.progress_bytes, 0);
    }
    assert!(
        store
            .heartbeat(&me, Phase::Working, &[], LONG_MS)
            .await
            .unwrap()
            .is_empty()
    );
}

async fn a_long_heartbeat_answers_every_lease(store: &Store) {
    queued(store, "a", 339).await;
    let leases = acquire(store, "w", 339).await;
    let beats: Vec<Beat> = leases.iter().map(|lease| beat(lease, 5)).collect();
    let answers = store
        .heartbeat(&worker("w"), Phase::Working, &beats, LONG_MS)
        .await
        .unwrap();
    assert_eq!(answers, vec![BeatAnswer::Extended; 339]);
}

async fn a_heartbeat_says_when_the_job_is_cancelled(store: &Store) {
    let job = queued(store, "a", 1).await;
    let lease = acquire(store, "w", 1).await.remove(0);
    assert_eq!(beat_once(store, "w", &lease).await, BeatAnswer::Extended);
    store.cancel_job(&job).await.unwrap();
    assert_eq!(beat_once(store, "w", &lease).await, BeatAnswer::Cancel);
    store.release_task(&lease).await.unwrap();
    assert_eq!(task_states(store, &job).await, [TaskState::Cancelled]);
    assert_eq!(beat_once(store, "w", &lease).await, BeatAnswer::Lost);
    store.reap(Reaping::Expired).await.unwrap();
    assert_eq!(state_of(store, &job).await, JobState::Cancelled);
}

async fn a_lease_that_two_heartbeats_leave_out_is_released_uncharged(store: &Store) {
    let job = queued(store, "a", 2).await;
    let leases = acquire(store, "w", 2).await;
    let named = [beat(&leases[0], 1)];
    let me = worker("w");
    let beat_twice = async || {
        for _ in 0..2 {
            store
                .heartbeat(&me, Phase::Working, &named, LONG_MS)
                .await
                .unwrap();
        }
    };
    // A lease may be given while a heartbeat is under way.
    beat_twice().await;
    use TaskState::{Leased, Ready};
    assert_eq!(task_states(store, &job).await, [Leased, Leased]);
    sqlx::query("UPDATE task SET leased_at_ms = leased_at_ms - 3600000")
        .execute(&store.pool)
        .await
        .unwrap();
    beat_twice().await;
    assert_eq!(task_states(store, &job).await, [Leased, Ready]);
    let task = task_of(store, &job, 1).await;
    assert!(task.fence > leases[1].fence);
    assert_eq!(task.counters, Default::default());
}

async fn a_worker_that_drains_is_not_there_for_new_tasks(store: &Store) {
    let me = worker("w");
    assert_eq!(store.workers_there(LONG_MS).await.unwrap(), 0);
    store.acquire_tasks(&me, 1, LONG_MS).await.unwrap();
    assert_eq!(store.workers_there(LONG_MS).await.unwrap(), 1);
    store
        .heartbeat(&me, Phase::Draining, &[], LONG_MS)
        .await
        .unwrap();
    assert_eq!(store.workers_there(LONG_MS).await.unwrap(), 0);
    let workers = store.workers(LONG_MS).await.unwrap();
    assert!(workers[0].stopped_at_ms.is_some());
}

async fn a_released_task_waits_again_uncharged(store: &Store) {
    let job = queued(store, "a", 1).await;
    let lease = acquire(store, "w", 1).await.remove(0);
    store.release_task(&lease).await.unwrap();
    let task = task_of(store, &job, 0).await;
    assert_eq!(task.state, TaskState::Ready);
    assert_eq!((task.counters, task.attempt.0), (Default::default(), 1));
    let again = store.release_task(&lease).await;
    assert!(matches!(again, Err(StoreError::LeaseLost { .. })));
    let next = acquire(store, "w", 1).await.remove(0);
    assert_eq!((next.fence.0, next.attempt.0), (2, 2));
    let late = store.release_task(&lease).await;
    assert!(matches!(late, Err(StoreError::LeaseLost { .. })));
}

async fn leases_of_dead_processes_are_released_uncharged(store: &Store) {
    let job = queued(store, "a", 3).await;
    let unwanted = queued(store, "b", 1).await;
    let leases = acquire(store, "w", 4).await;
    store
        .complete_task(&leases[0], &parts(leases[0].task))
        .await
        .unwrap();
    store.cancel_job(&unwanted).await.unwrap();
    assert_eq!(store.release_all_leases().await.unwrap(), 3);
    use TaskState::{Cancelled, Done, Ready};
    assert_eq!(task_states(store, &job).await, [Done, Ready, Ready]);
    assert_eq!(task_states(store, &unwanted).await, [Cancelled]);
    let task = task_of(store, &job, 1).await;
    assert_eq!(task.counters, Default::default());
    assert!(task.fence > leases[1].fence);
    let late = store
        .complete_task(&leases[1], &parts(leases[1].task))
        .await;
    assert!(matches!(late, Err(StoreError::LeaseLost { .. })));
    assert_eq!(store.release_all_leases().await.unwrap(), 0);
}

async fn workers_are_remembered_with_what_they_last_said(store: &Store) {
    let mut info = worker("w");
    store.acquire_tasks(&info, 1, LONG_MS).await.unwrap();
    info.slots = 9;
    store.acquire_tasks(&info, 1, LONG_MS).await.unwrap();
    store
        .heartbeat(&info, Phase::Working, &[], LONG_MS)
        .await
        .unwrap();
    let workers = store.workers(LONG_MS).await.unwrap();
    assert_eq!(workers.len(), 1);
    assert_eq!(workers[0].info, info);
    assert!(workers[0].last_seen_ms >= workers[0].first_seen_ms);
}

super::conformance! {
    the_first_lease_makes_the_job_running,
    tasks_are_leased_by_job_and_in_order,
    only_planned_and_wanted_jobs_give_leases,
    a_task_in_back_off_is_not_leased,
    a_claim_that_finds_too_little_looks_everywhere,
    a_suspected_task_is_leased_alone,
    a_suspected_task_that_waits_keeps_busy_workers_waiting,
    a_suspected_task_that_may_not_be_leased_keeps_nobody_waiting,
    a_heartbeat_extends_what_is_held_and_only_that,
    a_long_heartbeat_answers_every_lease,
    a_heartbeat_says_when_the_job_is_cancelled,
    a_released_task_waits_again_uncharged,
    a_lease_that_two_heartbeats_leave_out_is_released_uncharged,
    leases_of_dead_processes_are_released_uncharged,
    workers_are_remembered_with_what_they_last_said,
    a_worker_that_drains_is_not_there_for_new_tasks,
}
