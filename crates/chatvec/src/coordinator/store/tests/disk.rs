//! What only the embedded database has: a file, its settings, its path; and
//! the schema's words against the code's.

use std::path::Path;

use chatvec_core::job::JobState;
use chatvec_core::task::TaskState;
use sqlx::Row;

use super::fixture::*;
use crate::coordinator::store::{NewPlan, Store, StoreError, UploadState};

const SCHEMA: &str = concat!(
    include_str!("../../../../../../migrations/0001_job_store.sql"),
    include_str!("../../../../../../migrations/0002_fleet.sql")
);

#[tokio::test]
async fn a_store_reads_back_what_the_process_before_it_wrote() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jobs.db");
    let store = Store::open_sqlite(&path).await.unwrap();
    let job = queued(&store, "a", 2).await;
    let lease = acquire(&store, "w", 2).await.remove(0);
    store
        .complete_task(&lease, &parts(lease.task))
        .await
        .unwrap();
    let before = (
        store.job(&job).await.unwrap(),
        store.tasks(&job).await.unwrap(),
        store.parts(&job).await.unwrap(),
    );
    store.close().await;
    assert!(store.job(&job).await.is_err());

    let store = Store::open_sqlite(&path).await.unwrap();
    let after = (
        store.job(&job).await.unwrap(),
        store.tasks(&job).await.unwrap(),
        store.parts(&job).await.unwrap(),
    );
    assert_eq!(after, before);
    assert_eq!(store.release_all_leases().await.unwrap(), 1);
    finish_all(&store, 1).await;
    assert!(commit(&store, &job).await.is_some());
    store.close().await;
}

#[tokio::test]
async fn what_is_committed_after_a_full_disk_survives_a_crash() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jobs.db");
    let store = Store::open_sqlite(&path).await.unwrap();
    let job = submitted(&store, "a").await;
    // The database may not grow any more, as on a full disk.
    let limit = |pages| sqlx::query(pages).fetch_one(&store.pool);
    limit("PRAGMA max_page_count = 1").await.unwrap();
    let epoch = planner(&store, &job).await;
    let plan = NewPlan {
        plan: vec![7; 1 << 20],
        ..new_plan(1)
    };
    let full = store.finish_planning(&job, epoch, &plan).await.unwrap_err();
    assert!(full.is_full(), "{full}");
    // There is room again, and the same call goes through.
    limit("PRAGMA max_page_count = 1000000").await.unwrap();
    store.finish_planning(&job, epoch, &plan).await.unwrap();
    // What a crash right now would leave: the files as they are.
    let after = folder.path().join("after");
    std::fs::create_dir(&after).unwrap();
    for name in ["jobs.db", "jobs.db-wal"] {
        std::fs::copy(folder.path().join(name), after.join(name)).unwrap();
    }
    let reopened = Store::open_sqlite(&after.join("jobs.db")).await.unwrap();
    assert_eq!(state_of(&reopened, &job).await, JobState::Queued);
    reopened.close().await;
    store.close().await;
}

#[tokio::test]
async fn the_settings_that_speed_and_safety_rest_on_are_in_force() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open_sqlite(&folder.path().join("jobs.db"))
        .await
        .unwrap();
    for (pragma, expected) in [
        ("PRAGMA journal_mode", "wal"),
        ("PRAGMA locking_mode", "exclusive"),
    ] {
        let row = sqlx::query(pragma).fetch_one(&store.pool).await.unwrap();
        assert_eq!(row.get::<String, _>(0), expected, "{pragma}");
    }
    for (pragma, expected) in [("PRAGMA synchronous", 1), ("PRAGMA foreign_keys", 1)] {
        let row = sqlx::query(pragma).fetch_one(&store.pool).await.unwrap();
        assert_eq!(row.get::<i64, _>(0), expected, "{pragma}");
    }
    // No shared memory beside the file: it would not work over a network.
    queued(&store, "a", 1).await;
    assert!(!folder.path().join("jobs.db-shm").exists());
    store.close().await;
}

#[tokio::test]
async fn the_file_is_where_the_path_says_whatever_its_letters() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a b?c#d%41é.db");
    let store = Store::open_sqlite(&path).await.unwrap();
    store.close().await;
    assert!(path.exists());
}

#[tokio::test]
async fn a_folder_that_does_not_exist_is_an_error() {
    let refused = Store::open_sqlite(Path::new("/nowhere/at/all/jobs.db")).await;
    assert!(matches!(refused, Err(StoreError::Path { .. })));
}

#[tokio::test]
async fn a_state_that_the_program_does_not_know_is_corrupt() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open_sqlite(&folder.path().join("jobs.db"))
        .await
        .unwrap();
    let job = queued(&store, "a", 1).await;
    for damage in [
        "PRAGMA ignore_check_constraints = ON",
        "UPDATE task SET bytes = -1",
        "UPDATE job SET state = 'ASLEEP'",
    ] {
        sqlx::query(damage).execute(&store.pool).await.unwrap();
    }
    let found = store.tasks(&job).await;
    assert!(matches!(
        found,
        Err(StoreError::Corrupt {
            column: "bytes",
            ..
        })
    ));
    let found = store.job(&job).await;
    assert!(matches!(
        found,
        Err(StoreError::Corrupt {
            column: "state",
            ..
        })
    ));
    store.close().await;
}

/// The names in the CHECK list of `state` in the given table.
fn checked_states(table: &str) -> Vec<String> {
    let start = format!("CREATE TABLE {table} (");
    let (_, body) = SCHEMA
        .split_once(&start)
        .expect("the table is in the schema");
    let (_, list) = body
        .split_once("CHECK (state IN (")
        .expect("its states are checked");
    let (list, _) = list.split_once("))").expect("the list ends");
    list.split(',')
        .map(|name| name.trim().trim_matches('\'').to_owned())
        .collect()
}

#[test]
fn the_schema_lists_the_states_of_the_code() {
    assert_eq!(checked_states("job"), JobState::ALL.map(JobState::name));
    assert_eq!(checked_states("task"), TaskState::ALL.map(TaskState::name));
    assert_eq!(
        checked_states("upload"),
        UploadState::ALL.map(UploadState::name)
    );
}

#[test]
fn every_column_of_the_schema_has_a_comment() {
    let mut previous = "";
    let mut columns = 0;
    for line in SCHEMA.lines() {
        let added = line.split_once("ADD COLUMN ").map(|(_, column)| column);
        let column = added.or_else(|| line.strip_prefix("    "));
        let kind = column.and_then(|column| column.split_whitespace().nth(1));
        if kind.is_some_and(|kind| ["text", "bigint", "bytea"].contains(&kind)) {
            columns += 1;
            assert!(previous.trim_start().starts_with("--"), "{line}");
        }
        previous = line;
    }
    assert!(columns > 70);
}
