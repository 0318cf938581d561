//! Calls that take longer than their client waits.

use std::time::Duration;

use chatvec_tests::process::until;
use tonic::{Code, Request};

use super::scene::{Api, acquire};

#[test]
fn a_worker_whose_deadline_has_passed_gets_no_task_afterwards() {
    let api = Api::start(&["--lease", "3600"]);
    let mut late = Request::new(acquire("late", 1000, 60_000));
    late.set_timeout(Duration::from_millis(200));
    let late = api
        .runtime
        .block_on(async { api.worker_client().acquire_tasks(late).await });
    assert_eq!(late.unwrap_err().code(), Code::DeadlineExceeded);
    // It would have taken whatever comes.
    let job = api.queued("out");
    let timely = api.runtime.block_on(async {
        api.worker_client()
            .acquire_tasks(acquire("timely", 1000, 5000))
            .await
    });
    let tasks = timely.expect("an answer").into_inner().tasks.len() as u64;
    let job = api.service.get(&job);
    assert_eq!(job["progress"]["tasks_leased"], tasks, "{job:#}");
    assert_eq!(job["progress"]["tasks_total"], tasks, "{job:#}");
}

#[test]
fn a_call_that_waits_for_a_lock_ends_for_its_client_and_then_for_the_database() {
    let api = Api::start(&[]);
    let job = api.queued("out");
    let mut lock = api.postgres.session(&format!(
        "BEGIN; SELECT 1 FROM job WHERE job_id = '{job}' FOR UPDATE; SELECT pg_sleep(60)"
    ));
    until("the job to be locked", || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
        api.postgres.query(sql) == "1"
    });
    let mut request = Request::new(chatvec_proto::v1::CancelJobRequest { job_id: job });
    request.set_timeout(Duration::from_millis(300));
    let late = api
        .runtime
        .block_on(async { api.client().cancel_job(request).await });
    assert_eq!(late.unwrap_err().code(), Code::DeadlineExceeded);
    assert!(!lock.ends_within(Duration::ZERO), "the lock was held");
    // The lock's timeout ends the statement, and its transaction is rolled back.
    until("the statement to be given up", || {
        api.sessions("wait_event_type = 'Lock'") == 0
    });
    until("no transaction to be open", || {
        api.sessions("state LIKE 'idle in transaction%'") == 0
    });
    assert!(!lock.ends_within(Duration::ZERO), "the lock was held");
}
