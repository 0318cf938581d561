//! Submission, lists, planning, and jobs that end early.

use std::slice;

use chatvec_core::ids::{Digest, JobId};
use chatvec_core::job::JobState;
use chatvec_core::problem::Problem;
use chatvec_core::task::TaskState;

use super::fixture::*;
use crate::coordinator::store::{Created, JobFilter, JobPage, NewPlan, Store, StoreError};

async fn a_new_job_is_planning_and_reads_back(store: &Store) {
    let new = new_job("a");
    let (row, created) = store.create_job(&new).await.unwrap();
    assert_eq!(created, Created::Created);
    assert_eq!(row.state, JobState::Planning);
    assert_eq!(row.recipe_json, new.recipe_json);
    assert_eq!(row.output_url, new.output_url);
    assert_eq!(row.traceparent, new.traceparent);
    assert_eq!((row.input_key.as_ref(), row.error.as_ref()), (None, None));
    assert_eq!(row.finished_at_ms, None);
    assert!(
        row.created_at_ms > 1_600_000_000_000,
        "milliseconds since 1970"
    );
    assert_eq!(store.job(&new.job_id).await.unwrap(), Some(row));
    assert_eq!(store.jobs_to_plan().await.unwrap(), [new.job_id]);
}

async fn a_repeated_request_finds_the_first_job(store: &Store) {
    let (first, _) = store.create_job(&new_job("a")).await.unwrap();
    let mut again = new_job("a");
    again.job_id = JobId("b".to_owned());
    let (found, created) = store.create_job(&again).await.unwrap();
    assert_eq!(created, Created::Existing);
    assert_eq!(found, first);
    assert_eq!(store.job(&again.job_id).await.unwrap(), None);
}

async fn a_request_id_with_another_recipe_is_refused(store: &Store) {
    submitted(store, "a").await;
    let mut other = new_job("a");
    other.job_id = JobId("b".to_owned());
    other.recipe_digest = Digest("another".to_owned());
    let refused = store.create_job(&other).await;
    assert!(matches!(refused, Err(StoreError::RequestIdReused { .. })));
}

async fn jobs_are_listed_newest_first_and_page_by_page(store: &Store) {
    for name in ["a", "b", "c", "d", "e"] {
        submitted(store, name).await;
    }
    store.cancel_job(&JobId("c".to_owned())).await.unwrap();
    let mut filter = JobFilter {
        states: vec![JobState::Planning, JobState::Queued],
        limit: 3,
        ..JobFilter::default()
    };
    let mut seen = Vec::new();
    loop {
        let page = store.jobs(&filter).await.unwrap();
        let Some(last) = page.last() else { break };
        filter.page_after = Some(JobPage {
            created_at_ms: last.created_at_ms,
            job_id: last.job_id.clone(),
        });
        seen.extend(
            page.into_iter()
                .map(|job| (job.created_at_ms, job.job_id.0)),
        );
    }
    let names: Vec<&str> = seen.iter().map(|(_, name)| name.as_str()).collect();
    assert_eq!(names, ["e", "d", "b", "a"]);
    assert!(seen.is_sorted_by(|a, b| a > b));
    let any = JobFilter {
        limit: 10,
        ..JobFilter::default()
    };
    assert_eq!(store.jobs(&any).await.unwrap().len(), 5);
}

async fn a_plan_makes_the_job_queued_with_waiting_tasks(store: &Store) {
    let job = queued(store, "a", 300).await;
    let row = job_of(store, &job).await;
    assert_eq!(row.state, JobState::Queued);
    assert_eq!(row.input_key, Some(new_plan(0).input_key));
    assert!(row.planned_at_ms.is_some());
    assert_eq!(store.plan(&job).await.unwrap(), Some(b"plan".to_vec()));
    assert!(store.jobs_to_plan().await.unwrap().is_empty());
    let tasks = store.tasks(&job).await.unwrap();
    assert_eq!(tasks.len(), 300);
    for (number, task) in tasks.iter().enumerate() {
        let new = new_task(number as u32);
        assert_eq!(task.task, new.task);
        assert_eq!((task.file, task.first_part), (new.file, new.first_part));
        assert_eq!((task.part_count, task.bytes), (2, 20));
        assert_eq!(task.state, TaskState::Ready);
        assert_eq!((task.fence.0, task.attempt.0), (0, 0));
    }
}

async fn a_plan_of_an_earlier_epoch_is_refused(store: &Store) {
    let job = submitted(store, "a").await;
    let old = store
        .start_planning(&job, EXPIRED_MS)
        .await
        .unwrap()
        .unwrap();
    let new = planner(store, &job).await;
    assert!(new > old);
    let refused = store.finish_planning(&job, old, &new_plan(1)).await;
    assert!(matches!(refused, Err(StoreError::EpochLost { .. })));
    assert_eq!(state_of(store, &job).await, JobState::Planning);
    assert!(store.tasks(&job).await.unwrap().is_empty());
    assert_eq!(store.plan(&job).await.unwrap(), None);
    let accepted = store.finish_planning(&job, new, &new_plan(1)).await;
    assert_eq!(accepted.unwrap(), job_of(store, &job).await);
}

async fn a_plan_that_cannot_be_stored_leaves_nothing(store: &Store) {
    let job = submitted(store, "a").await;
    let epoch = planner(store, &job).await;
    let twice = NewPlan {
        tasks: vec![new_task(0), new_task(0)],
        ..new_plan(0)
    };
    let refused = store.finish_planning(&job, epoch, &twice).await;
    assert!(matches!(refused, Err(StoreError::Database(_))));
    assert_eq!(state_of(store, &job).await, JobState::Planning);
    assert_eq!(store.plan(&job).await.unwrap(), None);
    assert!(store.tasks(&job).await.unwrap().is_empty());
}

async fn a_job_cancelled_in_planning_takes_no_plan(store: &Store) {
    let job = submitted(store, "a").await;
    let epoch = planner(store, &job).await;
    let cancelled = store.cancel_job(&job).await.unwrap();
    assert_eq!(cancelled.state, JobState::Cancelled);
    assert!(cancelled.finished_at_ms.is_some());
    let refused = store.finish_planning(&job, epoch, &new_plan(1)).await;
    assert!(matches!(
        refused,
        Err(StoreError::WrongState {
            state: JobState::Cancelled,
            ..
        })
    ));
    let refused = store.start_planning(&job, LONG_MS).await;
    assert!(matches!(refused, Err(StoreError::WrongState { .. })));
}

async fn a_failed_job_cancels_its_tasks_and_its_leases(store: &Store) {
    let job = queued(store, "a", 3).await;
    let leases = acquire(store, "w", 2).await;
    store
        .complete_task(&leases[0], &parts(leases[0].task))
        .await
        .unwrap();
    let failed = fail_job(store, &job).await.unwrap();
    assert_eq!(failed.state, JobState::Failed);
    assert_eq!(failed.error, Some(job_error()));
    use TaskState::{Cancelled, Done};
    assert_eq!(task_states(store, &job).await, [Done, Cancelled, Cancelled]);
    let late = store
        .complete_task(&leases[1], &parts(leases[1].task))
        .await;
    assert!(matches!(late, Err(StoreError::LeaseLost { .. })));
    let again = fail_job(store, &job).await;
    assert!(matches!(again, Err(StoreError::WrongState { .. })));
    let cancelled = store.cancel_job(&job).await;
    assert!(matches!(cancelled, Err(StoreError::WrongState { .. })));
}

async fn every_problem_of_a_failed_job_reads_back_in_order(store: &Store) {
    let job = submitted(store, "a").await;
    // More than one batch of rows, with and without a hint.
    let more: Vec<Problem> = (0..300)
        .map(|i| match i % 2 {
            0 => Problem::new(format!("tensor {i}"), "is missing"),
            _ => Problem::new(format!("tensor {i}"), "is missing").with_hint("mend it"),
        })
        .collect();
    let epoch = planner(store, &job).await;
    let failed = store.fail_job(&job, epoch, &job_error(), &more).await;
    assert!(failed.is_ok());
    assert_eq!(job_of(store, &job).await.error, Some(job_error()));
    assert_eq!(store.more_problems(&job).await.unwrap(), more);
}

async fn every_change_of_state_raises_the_revision(store: &Store) {
    let job = submitted(store, "a").await;
    let mut changes = store.jobs_changed();
    let before = job_of(store, &job).await.revision;
    let after = fail_job(store, &job).await.unwrap().revision;
    assert_eq!(after, before + 1);
    assert!(changes.has_changed().unwrap());
    changes.borrow_and_update();
    assert!(fail_job(store, &job).await.is_err());
    assert_eq!(job_of(store, &job).await.revision, after);
    assert!(!changes.has_changed().unwrap());
}

async fn only_failed_and_cancelled_jobs_are_cleaned(store: &Store) {
    let failed = submitted(store, "failed").await;
    let running = queued(store, "running", 1).await;
    fail_job(store, &failed).await.unwrap();
    assert_eq!(
        store.jobs_to_clean().await.unwrap(),
        slice::from_ref(&failed)
    );
    store.mark_cleaned(&failed).await.unwrap();
    let first = job_of(store, &failed).await.cleaned_at_ms;
    assert!(first.is_some());
    store.mark_cleaned(&failed).await.unwrap();
    assert_eq!(job_of(store, &failed).await.cleaned_at_ms, first);
    assert!(store.jobs_to_clean().await.unwrap().is_empty());
    let refused = store.mark_cleaned(&running).await;
    assert!(matches!(refused, Err(StoreError::WrongState { .. })));
}

async fn a_job_that_does_not_exist_is_named(store: &Store) {
    let job = JobId("ghost".to_owned());
    let missing = |result: Result<(), StoreError>| {
        assert!(matches!(result, Err(StoreError::JobNotFound(found)) if found == job));
    };
    missing(store.start_planning(&job, LONG_MS).await.map(drop));
    missing(store.cancel_job(&job).await.map(drop));
    missing(store.start_finalizing(&job, LONG_MS).await.map(drop));
    missing(store.mark_cleaned(&job).await);
    assert_eq!(store.job(&job).await.unwrap(), None);
    assert_eq!(store.plan(&job).await.unwrap(), None);
    assert_eq!(store.progress(&job).await.unwrap(), Default::default());
}

/// Right after it was planned: the database has gathered no statistics yet, and a
/// statement that looks at all tasks for each task would be ended by its timeout.
async fn a_large_job_is_cancelled_before_the_database_knows_its_tasks(store: &Store) {
    let job = queued(store, "a", 20_000).await;
    store.cancel_job(&job).await.unwrap();
    assert_eq!(state_of(store, &job).await, JobState::Cancelled);
}

super::conformance! {
    a_new_job_is_planning_and_reads_back,
    a_repeated_request_finds_the_first_job,
    a_request_id_with_another_recipe_is_refused,
    jobs_are_listed_newest_first_and_page_by_page,
    a_plan_makes_the_job_queued_with_waiting_tasks,
    a_plan_of_an_earlier_epoch_is_refused,
    a_plan_that_cannot_be_stored_leaves_nothing,
    a_job_cancelled_in_planning_takes_no_plan,
    a_failed_job_cancels_its_tasks_and_its_leases,
    every_problem_of_a_failed_job_reads_back_in_order,
    every_change_of_state_raises_the_revision,
    only_failed_and_cancelled_jobs_are_cleaned,
    a_job_that_does_not_exist_is_named,
    a_large_job_is_cancelled_before_the_database_knows_its_tasks,
}
