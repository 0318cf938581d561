//! Success and failure as workers report them, and the guard of the fence.

use chatvec_core::ids::PartOrdinal;
use chatvec_core::job::JobState;
use chatvec_core::task::{FailureKind, TaskState};

use super::fixture::*;
use crate::coordinator::store::{FailOutcome, NewPart, Recorded, Store, StoreError};

fn is_lost<T>(result: &Result<T, StoreError>) -> bool {
    matches!(result, Err(StoreError::LeaseLost { .. }))
}

async fn a_report_records_the_parts_as_they_were_given(store: &Store) {
    let job = queued(store, "a", 2).await;
    let leases = acquire(store, "w", 2).await;
    // The later task first: parts are listed by position all the same.
    for lease in leases.iter().rev() {
        let recorded = store.complete_task(lease, &parts(lease.task)).await;
        assert_eq!(recorded.unwrap(), Recorded::Recorded);
    }
    let task = task_of(store, &job, 1).await;
    assert_eq!(task.state, TaskState::Done);
    assert_eq!(task.done_fence, Some(leases[1].fence));
    assert_eq!((task.worker, task.lease_expires_at_ms), (None, None));
    let rows = store.parts(&job).await.unwrap();
    let found: Vec<NewPart> = rows.iter().map(|row| row.part.clone()).collect();
    let expected: Vec<NewPart> = leases.iter().flat_map(|lease| parts(lease.task)).collect();
    assert_eq!(found, expected);
    assert_eq!(rows[3].task, leases[1].task);
}

async fn a_repeated_report_is_answered_and_recorded_once(store: &Store) {
    let job = queued(store, "a", 1).await;
    let lease = acquire(store, "w", 1).await.remove(0);
    store
        .complete_task(&lease, &parts(lease.task))
        .await
        .unwrap();
    let again = store.complete_task(&lease, &parts(lease.task)).await;
    assert_eq!(again.unwrap(), Recorded::AlreadyRecorded);
    assert_eq!(store.parts(&job).await.unwrap().len(), 2);
    let mut other = parts(lease.task);
    other[1].crc64.0 ^= 1;
    assert!(is_lost(&store.complete_task(&lease, &other).await));
    assert!(is_lost(&store.complete_task(&lease, &other[..1]).await));
}

async fn a_report_with_other_parts_than_the_tasks_is_refused(store: &Store) {
    let job = queued(store, "a", 2).await;
    let lease = acquire(store, "w", 1).await.remove(0);
    let right = parts(lease.task);
    let mut wrong: Vec<Vec<NewPart>> = vec![
        Vec::new(),
        right[..1].to_vec(),
        vec![right[1].clone(), right[0].clone()],
        vec![right[0].clone(), right[0].clone()],
        [right.clone(), right[1..].to_vec()].concat(),
        right.clone(),
        right.clone(),
    ];
    wrong[5][0].file.0 = 0;
    wrong[6][1].part = PartOrdinal(2);
    for report in wrong {
        let refused = store.complete_task(&lease, &report).await;
        assert!(matches!(
            refused,
            Err(StoreError::WrongParts {
                file: 3,
                first: 0,
                end: 2,
                ..
            })
        ));
    }
    assert!(store.parts(&job).await.unwrap().is_empty());
    assert_eq!(task_of(store, &job, 0).await.state, TaskState::Leased);
    store.complete_task(&lease, &right).await.unwrap();
}

async fn a_zombie_of_the_worker_that_leased_again_is_fenced_off(store: &Store) {
    let job = queued(store, "a", 1).await;
    let old = acquire_for(store, "w", 1, EXPIRED_MS).await.remove(0);
    store.reap(Reaping::Expired).await.unwrap();
    let new = acquire(store, "w", 1).await.remove(0);
    assert!(new.fence > old.fence);
    let before = task_of(store, &job, 0).await;
    let transient = failure(FailureKind::Transient);
    assert!(is_lost(&store.complete_task(&old, &parts(old.task)).await));
    assert!(is_lost(&store.fail_task(&old, &transient, 0.0).await));
    assert!(is_lost(&store.release_task(&old).await));
    assert_eq!(task_of(store, &job, 0).await, before);
    assert!(store.parts(&job).await.unwrap().is_empty());
    store.complete_task(&new, &parts(new.task)).await.unwrap();
    assert!(is_lost(&store.complete_task(&old, &parts(old.task)).await));
    assert_eq!(task_of(store, &job, 0).await.done_fence, Some(new.fence));
}

async fn an_expired_lease_counts_until_it_is_taken_back(store: &Store) {
    let job = queued(store, "a", 2).await;
    let leases = acquire_for(store, "w", 2, EXPIRED_MS).await;
    store
        .complete_task(&leases[0], &parts(leases[0].task))
        .await
        .unwrap();
    store.reap(Reaping::Expired).await.unwrap();
    assert!(is_lost(
        &store
            .complete_task(&leases[1], &parts(leases[1].task))
            .await
    ));
    use TaskState::{Done, Ready};
    assert_eq!(task_states(store, &job).await, [Done, Ready]);
}

async fn a_transient_failure_is_retried_and_charged(store: &Store) {
    let job = queued(store, "a", 1).await;
    let lease = acquire(store, "w", 1).await.remove(0);
    let transient = failure(FailureKind::Transient);
    let outcome = store.fail_task(&lease, &transient, 0.5).await.unwrap();
    let task = task_of(store, &job, 0).await;
    let not_before_ms = task.not_before_ms;
    assert_eq!(outcome, FailOutcome::Retried { not_before_ms });
    assert_eq!(not_before_ms - task.updated_at_ms, 500);
    assert_eq!((task.state, task.counters.failures), (TaskState::Ready, 1));
    let error = task.error.unwrap();
    assert_eq!(
        (error.kind, &error.problem),
        (FailureKind::Transient, &transient.problem)
    );
    assert!(is_lost(&store.fail_task(&lease, &transient, 0.5).await));
    assert_eq!(task_of(store, &job, 0).await.counters.failures, 1);
}

async fn the_fifth_charged_failure_fails_the_job_with_its_error(store: &Store) {
    let job = queued(store, "a", 2).await;
    let internal = failure(FailureKind::Internal);
    for round in 1..=5 {
        let leases = acquire(store, "w", 2).await;
        let outcome = store.fail_task(&leases[0], &internal, 0.0).await.unwrap();
        assert_eq!(outcome == FailOutcome::GaveUp, round == 5, "round {round}");
        if round < 5 {
            store.release_task(&leases[1]).await.unwrap();
        } else {
            assert!(is_lost(&store.release_task(&leases[1]).await));
        }
    }
    let row = job_of(store, &job).await;
    let error = row.error.unwrap();
    assert_eq!(
        (row.state, error.kind),
        (JobState::Failed, FailureKind::Internal)
    );
    assert_eq!(error.problem, internal.problem);
    use TaskState::{Cancelled, Failed};
    assert_eq!(task_states(store, &job).await, [Failed, Cancelled]);
}

async fn a_permanent_failure_fails_the_job_at_once(store: &Store) {
    let job = queued(store, "a", 2).await;
    let leases = acquire(store, "w", 2).await;
    let changed = failure(FailureKind::SourceChanged);
    let outcome = store.fail_task(&leases[1], &changed, 0.0).await.unwrap();
    assert_eq!(outcome, FailOutcome::GaveUp);
    assert_eq!(
        job_of(store, &job).await.error.unwrap().kind,
        FailureKind::SourceChanged
    );
    assert!(is_lost(&store.fail_task(&leases[0], &changed, 0.0).await));
    assert_eq!(store.jobs_to_clean().await.unwrap(), [job]);
}

async fn uncharged_failures_spend_nothing(store: &Store) {
    let job = queued(store, "a", 1).await;
    for _ in 0..30 {
        for kind in [FailureKind::Preempted, FailureKind::ResourceExhausted] {
            let lease = acquire(store, "w", 1).await.remove(0);
            let outcome = store.fail_task(&lease, &failure(kind), 0.0).await.unwrap();
            assert!(matches!(outcome, FailOutcome::Retried { .. }));
        }
    }
    let task = task_of(store, &job, 0).await;
    assert_eq!((task.counters.failures, task.attempt.0), (0, 60));
}

async fn a_job_that_burns_its_retries_slowly_fails(store: &Store) {
    let job = queued(store, "a", 7).await;
    let transient = failure(FailureKind::Transient);
    // Three failures a task are allowed to each, and twenty to the job.
    for spent in 1..=21 {
        let lease = acquire(store, "w", 1).await.remove(0);
        if lease.attempt.0 == 3 {
            // Keeps the next claims from this task.
            store.fail_task(&lease, &transient, 1.0).await.unwrap();
        } else {
            store.fail_task(&lease, &transient, 0.0).await.unwrap();
        }
        let failed = state_of(store, &job).await == JobState::Failed;
        assert_eq!(failed, spent == 21, "after {spent} failures");
    }
    let error = job_of(store, &job).await.error.unwrap();
    assert_eq!(
        error.problem.message,
        "more than 20 failed attempts in 7 tasks, the last: on fire"
    );
    assert_eq!(store.progress(&job).await.unwrap().failed, 1);
}

async fn a_failure_in_a_cancelling_job_cancels_the_task(store: &Store) {
    let job = queued(store, "a", 1).await;
    let lease = acquire(store, "w", 1).await.remove(0);
    store.cancel_job(&job).await.unwrap();
    let permanent = failure(FailureKind::BadInput);
    let outcome = store.fail_task(&lease, &permanent, 0.0).await.unwrap();
    assert_eq!(outcome, FailOutcome::Cancelled);
    assert_eq!(state_of(store, &job).await, JobState::Cancelling);
    store.reap(Reaping::Expired).await.unwrap();
    assert_eq!(state_of(store, &job).await, JobState::Cancelled);
}

super::conformance! {
    a_report_records_the_parts_as_they_were_given,
    a_repeated_report_is_answered_and_recorded_once,
    a_report_with_other_parts_than_the_tasks_is_refused,
    a_zombie_of_the_worker_that_leased_again_is_fenced_off,
    an_expired_lease_counts_until_it_is_taken_back,
    a_transient_failure_is_retried_and_charged,
    the_fifth_charged_failure_fails_the_job_with_its_error,
    a_permanent_failure_fails_the_job_at_once,
    uncharged_failures_spend_nothing,
    a_job_that_burns_its_retries_slowly_fails,
    a_failure_in_a_cancelling_job_cancels_the_task,
}
