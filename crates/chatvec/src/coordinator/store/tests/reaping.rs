//! Expired leases, poison, cancelling, and what a race may leave behind.

use std::slice;

use chatvec_core::job::JobState;
use chatvec_core::task::{FailureKind, TaskState};

use super::fixture::*;
use crate::coordinator::store::{Reaped, Store};

/// One worker after the other takes the only task and is never heard of again.
async fn crash(store: &Store, workers: &[&str]) {
    for by in workers {
        acquire_for(store, by, 1, EXPIRED_MS).await;
        assert_eq!(store.reap(Reaping::Expired).await.unwrap().expired, 1);
    }
}

async fn an_expired_lease_is_taken_back_and_counted(store: &Store) {
    let job = queued(store, "a", 2).await;
    let held = acquire(store, "w", 1).await.remove(0);
    let gone = acquire_for(store, "w", 1, EXPIRED_MS).await.remove(0);
    let reaped = store.reap(Reaping::Expired).await.unwrap();
    let expected = Reaped {
        expired: 1,
        ..Reaped::default()
    };
    assert_eq!(reaped, expected);
    let task = task_of(store, &job, gone.task.0).await;
    assert_eq!((task.state, task.worker), (TaskState::Ready, None));
    assert!(task.fence > gone.fence);
    assert_eq!((task.counters.crashes, task.counters.failures), (1, 0));
    let task = task_of(store, &job, held.task.0).await;
    assert_eq!((task.state, task.fence), (TaskState::Leased, held.fence));
    assert_eq!(
        store.reap(Reaping::Expired).await.unwrap(),
        Reaped::default()
    );
}

async fn a_pass_takes_a_bounded_number_and_none_in_the_grace(store: &Store) {
    queued(store, "a", 20).await;
    acquire_for(store, "w", 20, EXPIRED_MS).await;
    let grace = store.reap(Reaping::Grace).await.unwrap();
    assert_eq!(grace, Reaped::default());
    let mut passes = Vec::new();
    for _ in 0..3 {
        passes.push(store.reap(Reaping::Expired).await.unwrap().expired);
    }
    assert_eq!(passes, [16, 4, 0]);
}

async fn three_crashes_on_two_workers_fail_the_job(store: &Store) {
    let job = queued(store, "a", 1).await;
    crash(store, &["v", "w"]).await;
    assert_eq!(state_of(store, &job).await, JobState::Running);
    crash(store, &["w"]).await;
    let row = job_of(store, &job).await;
    let error = row.error.unwrap();
    assert_eq!(row.state, JobState::Failed);
    assert_eq!(error.kind, FailureKind::SuspectedPoison);
    assert_eq!(
        error.problem.to_string(),
        "task 0: lost its worker 3 times, the last time `w`"
    );
    let task = task_of(store, &job, 0).await;
    assert_eq!(task.state, TaskState::Failed);
    assert_eq!(task.counters.crashed_workers, 2);
    assert_eq!(task.error, Some(error));
}

async fn five_crashes_on_one_worker_fail_the_job_and_four_do_not(store: &Store) {
    let job = queued(store, "a", 1).await;
    crash(store, &["w"; 4]).await;
    assert_eq!(state_of(store, &job).await, JobState::Running);
    crash(store, &["w"]).await;
    assert_eq!(state_of(store, &job).await, JobState::Failed);
    let counters = task_of(store, &job, 0).await.counters;
    assert_eq!((counters.crashes, counters.crashed_workers), (5, 1));
}

async fn poison_leaves_other_jobs_alone_and_ends_the_leases_of_its_own(store: &Store) {
    let poisoned = queued(store, "a", 2).await;
    let other = queued(store, "b", 1).await;
    let fine = acquire(store, "v", 1).await.remove(0);
    for _ in 0..4 {
        acquire_for(store, "w", 1, EXPIRED_MS).await;
        store.reap(Reaping::Expired).await.unwrap();
    }
    acquire_for(store, "w", 1, EXPIRED_MS).await;
    let reaped = store.reap(Reaping::Expired).await.unwrap();
    let expected = Reaped {
        expired: 1,
        given_up: 1,
        swept: 0,
    };
    assert_eq!(reaped, expected);
    assert!(store.release_task(&fine).await.is_err());
    use TaskState::{Cancelled, Failed};
    assert_eq!(task_states(store, &poisoned).await, [Cancelled, Failed]);
    assert_eq!(state_of(store, &other).await, JobState::Queued);
    acquire(store, "w", 1).await;
}

async fn a_cancelling_job_ends_when_its_last_lease_does(store: &Store) {
    let job = queued(store, "a", 3).await;
    let held = acquire(store, "w", 1).await.remove(0);
    acquire_for(store, "w", 1, EXPIRED_MS).await;
    let cancelling = store.cancel_job(&job).await.unwrap();
    assert_eq!(cancelling.state, JobState::Cancelling);
    use TaskState::{Cancelled, Done, Leased};
    assert_eq!(task_states(store, &job).await, [Leased, Leased, Cancelled]);
    assert_eq!(store.cancel_job(&job).await.unwrap(), cancelling);
    store.reap(Reaping::Expired).await.unwrap();
    assert_eq!(
        task_states(store, &job).await,
        [Leased, Cancelled, Cancelled]
    );
    assert_eq!(task_of(store, &job, 1).await.counters, Default::default());
    assert_eq!(state_of(store, &job).await, JobState::Cancelling);
    assert!(store.jobs_to_clean().await.unwrap().is_empty());
    store.complete_task(&held, &parts(held.task)).await.unwrap();
    store.reap(Reaping::Expired).await.unwrap();
    assert_eq!(task_states(store, &job).await, [Done, Cancelled, Cancelled]);
    let cancelled = job_of(store, &job).await;
    assert_eq!(cancelled.state, JobState::Cancelled);
    assert_eq!(store.jobs_to_clean().await.unwrap(), slice::from_ref(&job));
    assert_eq!(store.cancel_job(&job).await.unwrap(), cancelled);
}

async fn the_sweep_cancels_what_a_race_left_behind(store: &Store) {
    let cancelling = queued(store, "a", 2).await;
    acquire(store, "w", 1).await;
    store.cancel_job(&cancelling).await.unwrap();
    let failed = queued(store, "b", 2).await;
    fail_job(store, &failed).await.unwrap();
    // A claim and a release that began before the jobs' ends were committed.
    for stranded in [
        "UPDATE task SET state = 'READY' WHERE state = 'CANCELLED'",
        "UPDATE task SET state = 'LEASED', worker_id = 'w', lease_expires_at_ms = 9000000000000
         WHERE job_id = 'b' AND task_no = 1",
    ] {
        sqlx::query(stranded).execute(&store.pool).await.unwrap();
    }
    assert!(store.jobs_to_clean().await.unwrap().is_empty());
    assert_eq!(store.reap(Reaping::Expired).await.unwrap().swept, 3);
    use TaskState::{Cancelled, Leased};
    assert_eq!(task_states(store, &cancelling).await, [Leased, Cancelled]);
    assert_eq!(task_states(store, &failed).await, [Cancelled, Cancelled]);
    assert_eq!(store.jobs_to_clean().await.unwrap(), [failed]);
}

super::conformance! {
    an_expired_lease_is_taken_back_and_counted,
    a_pass_takes_a_bounded_number_and_none_in_the_grace,
    three_crashes_on_two_workers_fail_the_job,
    five_crashes_on_one_worker_fail_the_job_and_four_do_not,
    poison_leaves_other_jobs_alone_and_ends_the_leases_of_its_own,
    a_cancelling_job_ends_when_its_last_lease_does,
    the_sweep_cancels_what_a_race_left_behind,
}
