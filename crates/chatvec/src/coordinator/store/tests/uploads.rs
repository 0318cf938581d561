//! Uploads, repairs of a commit, and who may use an output.

use chatvec_core::ids::{FileOrdinal, JobId, RequestId, TaskOrdinal};
use chatvec_core::job::JobState;
use chatvec_core::problem::Problem;
use chatvec_core::submission::{Labels, Tenant, TenantChange, Weight};
use chatvec_core::task::{FailureKind, TaskFailure};

use super::fixture::*;
use crate::coordinator::store::{
    Created, Epoch, FailOutcome, JobFilter, NewJob, NewUpload, Store, StoreError, TenantRow,
    UploadKey, UploadState,
};

/// The file that every fixture task writes to.
const FILE: FileOrdinal = FileOrdinal(3);

/// An upload of the fixture's file that storage has created.
async fn opened(store: &Store, job: &JobId, epoch: Epoch, upload_id: &str) -> UploadKey {
    let upload = NewUpload {
        file: FILE,
        url: "s3://bucket/a/model.safetensors".to_owned(),
        nonce: "nonce".to_owned(),
    };
    store.add_uploads(job, epoch, &[upload]).await.unwrap();
    let key = UploadKey {
        job: job.clone(),
        file: FILE,
        epoch,
    };
    store.open_upload(&key, upload_id).await.unwrap();
    key
}

async fn a_lease_names_the_latest_open_upload_of_its_file(store: &Store) {
    let job = submitted(store, "a").await;
    let epoch = planner(store, &job).await;
    opened(store, &job, epoch, "first").await;
    store
        .finish_planning(&job, epoch, &new_plan(2))
        .await
        .unwrap();
    let acquired = store.acquire_tasks(&worker("w"), 1, LONG_MS).await.unwrap();
    assert_eq!(acquired[0].upload_id.as_deref(), Some("first"));
    let later = finalizer(store, &job).await;
    opened(store, &job, later, "second").await;
    let acquired = store.acquire_tasks(&worker("w"), 1, LONG_MS).await.unwrap();
    assert_eq!(acquired[0].upload_id.as_deref(), Some("second"));
    let superseded = store.uploads_to_abort().await.unwrap();
    assert_eq!(superseded.len(), 1);
    assert_eq!(superseded[0].upload_id.as_deref(), Some("first"));
    store.upload_aborted(&superseded[0].key).await.unwrap();
    assert!(store.uploads_to_abort().await.unwrap().is_empty());
}

async fn a_coordinator_that_was_replaced_opens_nothing(store: &Store) {
    let job = submitted(store, "a").await;
    let old = store
        .start_planning(&job, EXPIRED_MS)
        .await
        .unwrap()
        .unwrap();
    planner(store, &job).await;
    let refused = store.add_uploads(&job, old, &[]).await;
    assert!(matches!(refused, Err(StoreError::EpochLost { .. })));
    assert!(store.renew_epoch(&job, old, LONG_MS).await.is_err());
    assert!(store.start_planning(&job, LONG_MS).await.unwrap().is_none());
    assert!(store.jobs_to_plan().await.unwrap().is_empty());
}

async fn an_upload_of_an_ended_job_is_aborted_once_its_maker_is_gone(store: &Store) {
    let job = submitted(store, "a").await;
    let epoch = planner(store, &job).await;
    let key = opened(store, &job, epoch, "u").await;
    store.cancel_job(&job).await.unwrap();
    assert!(store.uploads_to_abort().await.unwrap().is_empty());
    store.release_epoch(&job, epoch).await.unwrap();
    assert_eq!(store.uploads_to_abort().await.unwrap()[0].key, key);
    store.upload_aborted(&key).await.unwrap();
    assert_eq!(
        store.uploads(&job).await.unwrap()[0].state,
        UploadState::Aborted
    );
}

async fn a_repaired_part_keeps_its_checksum_or_fails_the_job(store: &Store) {
    for same in [true, false] {
        let job = queued(store, &format!("job-{same}"), 1).await;
        finish_all(store, 1).await;
        let held = commit(store, &job).await.unwrap();
        store
            .repair_tasks(&job, held.epoch, &[TaskOrdinal(0)])
            .await
            .unwrap();
        assert_eq!(commit(store, &job).await, None);
        let lease = acquire(store, "w", 1).await.remove(0);
        let mut again = parts(lease.task);
        again[1].part_id = "another".to_owned();
        again[1].crc64.0 ^= u64::from(!same);
        let outcome = store.complete_task(&lease, &again).await;
        let state = state_of(store, &job).await;
        if same {
            outcome.unwrap();
            assert_eq!(state, JobState::Committing);
            let recorded = store.parts(&job).await.unwrap();
            assert_eq!(recorded[1].part.part_id, "another");
            assert!(commit(store, &job).await.is_some());
        } else {
            assert!(matches!(outcome, Err(StoreError::LeaseLost { .. })));
            assert_eq!(state, JobState::Failed);
        }
    }
}

async fn a_repair_whose_upload_is_gone_is_done_as_it_was(store: &Store) {
    let gone = TaskFailure {
        kind: FailureKind::UploadGone,
        problem: Problem::new("s3://b/k", "the upload is gone"),
    };
    let job = queued(store, "a", 1).await;
    finish_all(store, 1).await;
    let before = store.parts(&job).await.unwrap();
    let held = commit(store, &job).await.unwrap();
    store
        .repair_tasks(&job, held.epoch, &[TaskOrdinal(0)])
        .await
        .unwrap();
    let lease = acquire(store, "w", 1).await.remove(0);
    let outcome = store.fail_task(&lease, &gone, 0.5).await.unwrap();
    assert_eq!(outcome, FailOutcome::Kept);
    assert_eq!(store.parts(&job).await.unwrap(), before);
    assert!(commit(store, &job).await.is_some());
    assert!(matches!(
        store.fail_task(&lease, &gone, 0.5).await,
        Err(StoreError::LeaseLost { .. })
    ));
    // Before the commit nobody else may have completed it.
    let job = queued(store, "b", 1).await;
    let lease = acquire(store, "w", 1).await.remove(0);
    let outcome = store.fail_task(&lease, &gone, 0.5).await.unwrap();
    assert_eq!(outcome, FailOutcome::GaveUp);
    assert_eq!(state_of(store, &job).await, JobState::Failed);
}

async fn an_output_serves_one_job_until_it_is_published_or_cleaned(store: &Store) {
    let first = submitted(store, "a").await;
    let rival = NewJob {
        output_key: new_job("a").output_key,
        ..new_job("b")
    };
    let refused = store.create_job(&rival).await;
    assert!(matches!(refused, Err(StoreError::OutputInUse { job, .. }) if job == first));
    assert_eq!(store.job(&rival.job_id).await.unwrap(), None);
    assert_eq!(
        store.create_job(&new_job("a")).await.unwrap().1,
        Created::Existing
    );
    store.cancel_job(&first).await.unwrap();
    assert!(store.create_job(&rival).await.is_err());
    store.mark_cleaned(&first).await.unwrap();
    store.create_job(&rival).await.unwrap();
}

async fn a_tenant_keeps_its_limits(store: &Store) {
    let tenant = Tenant::parse("small").unwrap();
    let change = TenantChange {
        tenant: tenant.clone(),
        weight: None,
        leased_tasks_max: Some(2),
        open_jobs_max: Some(1),
    };
    store.update_tenant(&change).await.unwrap();
    let of_tenant = |name: &str| NewJob {
        tenant: tenant.clone(),
        ..new_job(name)
    };
    let job = store.create_job(&of_tenant("a")).await.unwrap().0.job_id;
    let full = store.create_job(&of_tenant("b")).await;
    assert!(matches!(full, Err(StoreError::TenantFull { limit: 1, .. })));
    // Another tenant may use the same request id.
    let mut other = new_job("c");
    other.request_id = RequestId("request/a".to_owned());
    store.create_job(&other).await.unwrap();
    plan(store, &job, 5).await;
    plan(store, &other.job_id, 5).await;
    let leases = acquire(store, "w", 7).await;
    let of_small = leases.iter().filter(|lease| lease.job == job).count();
    assert_eq!(of_small, 2);
    let none = store.acquire_tasks(&worker("w"), 1, LONG_MS).await.unwrap();
    assert!(none.is_empty());
    let row = TenantRow {
        tenant,
        weight: 1,
        leased_tasks_max: Some(2),
        open_jobs_max: Some(1),
        leased_tasks: 2,
        open_jobs: 1,
    };
    assert!(store.tenants().await.unwrap().contains(&row));
}

async fn what_a_change_of_a_tenant_does_not_name_stays(store: &Store) {
    let tenant = Tenant::parse("team").unwrap();
    let nothing = TenantChange {
        tenant: tenant.clone(),
        weight: None,
        leased_tasks_max: None,
        open_jobs_max: None,
    };
    let made = store.update_tenant(&nothing).await.unwrap();
    let row = TenantRow {
        tenant,
        weight: 1,
        leased_tasks_max: None,
        open_jobs_max: None,
        leased_tasks: 0,
        open_jobs: 0,
    };
    assert_eq!(made, row);
    let limited = TenantChange {
        weight: Some(Weight::MAX),
        open_jobs_max: Some(3),
        ..nothing.clone()
    };
    store.update_tenant(&limited).await.unwrap();
    let changed = store.update_tenant(&nothing).await.unwrap();
    assert_eq!(
        (changed.weight, changed.open_jobs_max),
        (1_000_000, Some(3))
    );
    let freed = TenantChange {
        open_jobs_max: Some(0),
        ..nothing
    };
    let changed = store.update_tenant(&freed).await.unwrap();
    assert_eq!((changed.weight, changed.open_jobs_max), (1_000_000, None));
    assert_eq!(store.tenants().await.unwrap()[1], changed);
}

async fn jobs_are_found_by_all_of_their_labels(store: &Store) {
    let labels = |given: &[(&str, &str)]| {
        let given = given
            .iter()
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
        Labels::parse(given).unwrap()
    };
    for (name, given) in [
        ("a", &[("team", "x"), ("run", "1")][..]),
        ("b", &[("team", "x")][..]),
    ] {
        let new = NewJob {
            labels: labels(given),
            ..new_job(name)
        };
        let (row, _) = store.create_job(&new).await.unwrap();
        assert_eq!(row.labels, new.labels);
    }
    for (wanted, found) in [
        (&[("team", "x")][..], 2),
        (&[("team", "x"), ("run", "1")][..], 1),
        (&[("team", "y")][..], 0),
    ] {
        let filter = JobFilter {
            labels: labels(wanted),
            tenant: Some(Tenant::default()),
            limit: 10,
            ..JobFilter::default()
        };
        assert_eq!(store.jobs(&filter).await.unwrap().len(), found);
    }
}

super::conformance! {
    a_lease_names_the_latest_open_upload_of_its_file,
    a_coordinator_that_was_replaced_opens_nothing,
    an_upload_of_an_ended_job_is_aborted_once_its_maker_is_gone,
    a_repaired_part_keeps_its_checksum_or_fails_the_job,
    a_repair_whose_upload_is_gone_is_done_as_it_was,
    an_output_serves_one_job_until_it_is_published_or_cleaned,
    a_tenant_keeps_its_limits,
    what_a_change_of_a_tenant_does_not_name_stays,
    jobs_are_found_by_all_of_their_labels,
}
