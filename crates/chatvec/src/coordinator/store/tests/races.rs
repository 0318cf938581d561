//! Many callers at once.

use std::collections::HashSet;

use chatvec_core::ids::JobId;
use chatvec_core::job::JobState;
use chatvec_core::task::TaskState;
use tokio::task::JoinSet;

use super::fixture::*;
use crate::coordinator::store::{Created, Store, StoreError};

async fn a_hundred_submissions_at_once_make_one_job(store: &Store) {
    let mut calls = JoinSet::new();
    for call in 0..100 {
        let store = store.clone();
        let mut new = new_job("a");
        new.job_id = JobId(format!("job-{call}"));
        calls.spawn(async move { store.create_job(&new).await.unwrap() });
    }
    let answers = calls.join_all().await;
    let ids: HashSet<_> = answers.iter().map(|(row, _)| &row.job_id).collect();
    assert_eq!(ids.len(), 1);
    let created = answers.iter().filter(|(_, made)| *made == Created::Created);
    assert_eq!(created.count(), 1);
}

async fn claimers_at_once_never_share_a_task(store: &Store) {
    let job = queued(store, "a", 200).await;
    queued(store, "b", 200).await;
    let mut claimers = JoinSet::new();
    for claimer in 0..8 {
        let store = store.clone();
        claimers.spawn(async move {
            let me = worker(&format!("w{claimer}"));
            let mut mine = Vec::new();
            // A claim may come back short while others hold rows locked, so
            // the queue is empty only when all are done or leased.
            while store.progress(&JobId("a".to_owned())).await.unwrap().ready
                + store.progress(&JobId("b".to_owned())).await.unwrap().ready
                > 0
            {
                for acquired in store.acquire_tasks(&me, 7, LONG_MS).await.unwrap() {
                    let lease = acquired.lease;
                    store
                        .complete_task(&lease, &parts(lease.task))
                        .await
                        .unwrap();
                    mine.push((lease.job, lease.task));
                }
            }
            mine
        });
    }
    let leased: Vec<_> = claimers.join_all().await.into_iter().flatten().collect();
    assert_eq!(leased.len(), 400);
    assert_eq!(leased.iter().collect::<HashSet<_>>().len(), 400);
    assert!(
        store.tasks(&job).await.unwrap().iter().all(|task| {
            task.state == TaskState::Done && (task.fence.0, task.attempt.0) == (1, 1)
        })
    );
}

async fn cancel_and_the_last_report_have_one_outcome(store: &Store) {
    for round in 0..20 {
        let job = queued(store, &format!("job-{round}"), 1).await;
        let lease = acquire(store, "w", 1).await.remove(0);
        let (reporting, cancelling) = (store.clone(), store.clone());
        let reported = {
            let job = job.clone();
            tokio::spawn(async move {
                reporting
                    .complete_task(&lease, &parts(lease.task))
                    .await
                    .unwrap();
                let started = reporting.start_finalizing(&job, LONG_MS).await;
                let epoch = started.ok().flatten()?;
                reporting.start_commit(&job, epoch).await.ok().flatten()
            })
        };
        let cancelled = {
            let job = job.clone();
            tokio::spawn(async move { cancelling.cancel_job(&job).await })
        };
        let commit = reported.await.unwrap();
        let cancelled = cancelled.await.unwrap();
        store.reap(Reaping::Expired).await.unwrap();
        let state = state_of(store, &job).await;
        match commit {
            Some(commit) => {
                assert!(cancelled.is_err());
                assert_eq!(state, JobState::Committing);
                store.finish_commit(&job, commit.epoch).await.unwrap();
            }
            None => {
                assert!(cancelled.is_ok());
                assert_eq!(state, JobState::Cancelled);
            }
        }
    }
}

async fn reapers_and_a_late_report_at_once_have_one_outcome(store: &Store) {
    let job = queued(store, "a", 30).await;
    let leases = acquire_for(store, "w", 30, EXPIRED_MS).await;
    let mut reapers = JoinSet::new();
    for _ in 0..3 {
        let store = store.clone();
        reapers.spawn(async move { store.reap(Reaping::Expired).await.unwrap().expired });
    }
    let mut reports = JoinSet::new();
    for lease in leases {
        let store = store.clone();
        reports.spawn(async move {
            store
                .complete_task(&lease, &parts(lease.task))
                .await
                .is_ok()
        });
    }
    let reports = reports.join_all().await;
    let mut taken: u64 = reapers.join_all().await.into_iter().sum();
    while let more @ 1.. = store.reap(Reaping::Expired).await.unwrap().expired {
        taken += more;
    }
    let done = reports.into_iter().filter(|done| *done).count();
    let progress = store.progress(&job).await.unwrap();
    assert_eq!((progress.done, progress.ready), (done as u64, taken));
    assert_eq!(progress.done + progress.ready, 30);
    assert_eq!(store.parts(&job).await.unwrap().len(), 2 * done);
}

async fn everything_at_once_ends_without_a_deadlock(store: &Store) {
    let mut calls = JoinSet::new();
    for name in ["a", "b", "c", "d"] {
        let job = queued(store, name, 40).await;
        let store = store.clone();
        calls.spawn(async move {
            while store.progress(&job).await.unwrap().ready > 20 {
                tokio::task::yield_now().await;
            }
            let ended = match job.as_str() {
                "a" | "b" => store.cancel_job(&job).await,
                _ => fail_job(&store, &job).await,
            };
            // The crashes may have failed the job before.
            assert!(
                matches!(ended, Ok(_) | Err(StoreError::WrongState { .. })),
                "{ended:?}"
            );
        });
    }
    for name in ["v", "w", "x"] {
        let store = store.clone();
        calls.spawn(async move {
            loop {
                let acquired = store
                    .acquire_tasks(&worker(name), 5, EXPIRED_MS)
                    .await
                    .unwrap();
                let reaped = store.reap(Reaping::Expired).await.unwrap();
                if acquired.is_empty() && reaped.expired + reaped.swept == 0 {
                    break;
                }
                for acquired in acquired {
                    // Whoever reaped it meanwhile is right.
                    let released = store.release_task(&acquired.lease).await;
                    assert!(
                        matches!(released, Ok(()) | Err(StoreError::LeaseLost { .. })),
                        "{released:?}"
                    );
                }
            }
        });
    }
    calls.join_all().await;
    while store.reap(Reaping::Expired).await.unwrap() != Default::default() {}
    for name in ["a", "b", "c", "d"] {
        let job = JobId(name.to_owned());
        assert!(state_of(store, &job).await.is_terminal(), "{name}");
        let progress = store.progress(&job).await.unwrap();
        assert_eq!(progress.ready + progress.leased, 0, "{name}");
    }
}

super::conformance! {
    a_hundred_submissions_at_once_make_one_job,
    claimers_at_once_never_share_a_task,
    cancel_and_the_last_report_have_one_outcome,
    reapers_and_a_late_report_at_once_have_one_outcome,
    everything_at_once_ends_without_a_deadlock,
}
