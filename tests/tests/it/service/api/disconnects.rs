//! Clients and workers that vanish in the middle of a call.

use std::time::Duration;

use chatvec_proto::v1;
use chatvec_tests::process::until;
use tokio::time::timeout;

use super::scene::{Api, acquire, worker};
use crate::service::scene::id;
use chatvec_tests::random::Random;

/// Calls that are cut off, whatever share of all that is: how long a call takes
/// is the machine's affair.
const CUTS: usize = 100;
/// A call is cut off before this time is over; some are answered before.
const CUT_WITHIN: Duration = Duration::from_millis(20);
/// Sessions of one coordinator on its database, at most: see `docs/fleet.md`.
const SESSIONS_MAX: u32 = 18;

/// Makes the n-th call over a connection of its own.
async fn call(api: &Api, n: usize) {
    let mut client = api.client();
    let mut worker_client = api.worker_client();
    // What is answered in time is an answer like any other.
    match n % 5 {
        0 => drop(client.create_job(api.merge(&format!("cut-{n}"))).await),
        1 => drop(
            worker_client
                .acquire_tasks(acquire(&format!("w{n}"), 1, 1000))
                .await,
        ),
        2 => drop(client.list_jobs(v1::ListJobsRequest::default()).await),
        3 => {
            let beat = v1::HeartbeatRequest {
                worker: Some(worker(&format!("w{n}"))),
                ..v1::HeartbeatRequest::default()
            };
            drop(worker_client.heartbeat(beat).await);
        }
        _ => drop(client.list_workers(v1::ListWorkersRequest::default()).await),
    }
}

#[test]
fn clients_that_vanish_in_the_middle_of_calls_leave_nothing_behind() {
    let mut random = Random::seeded();
    let api = Api::start(&["--part-size", "256KiB", "--lease", "2"]);
    api.queued("out");
    api.runtime.block_on(async {
        let (mut calls, mut cuts) = (0, 0);
        while cuts < CUTS {
            let time = CUT_WITHIN.mul_f64(random.unit());
            cuts += usize::from(timeout(time, call(&api, calls)).await.is_err());
            calls += 1;
        }
    });
    api.until_database_rests();
    let sessions = api.sessions("true");
    assert!(sessions <= SESSIONS_MAX, "{sessions} sessions");

    let _worker = api.service.worker();
    let last = id(&api
        .service
        .submit(&api.scene, "last", &["--priority", "99"]));
    api.service.client(["watch", &last]).expect_code(0);
    api.scene.assert_as_merged("last");
    api.until_database_rests();
}

#[test]
fn tasks_that_were_leased_for_a_worker_that_has_gone_are_given_back_at_once() {
    // Nobody could wait for a lease of an hour.
    let api = Api::start(&["--lease", "3600"]);
    api.queued("out");
    // The claim stops half-way, where it wants to see the worker's row.
    let lock = api
        .postgres
        .session("BEGIN; LOCK TABLE worker; SELECT pg_sleep(60)");
    until("the table to be locked", || {
        let sql = "SELECT count(*) FROM pg_locks
                   WHERE relation = 'worker'::regclass AND mode = 'AccessExclusiveLock'";
        api.postgres.query(sql) == "1"
    });
    let _runtime = api.runtime.enter();
    let gone = api.runtime.spawn({
        let mut client = api.worker_client();
        async move { client.acquire_tasks(acquire("gone", 100, 0)).await }
    });
    until("the claim to wait", || {
        api.sessions("wait_event_type = 'Lock' AND query LIKE '-- see_worker%'") == 1
    });
    gone.abort();
    assert!(api.runtime.block_on(gone).unwrap_err().is_cancelled());
    // Had it not been heard that the worker is gone, its answer would be sent.
    api.runtime.block_on(async {
        let list = v1::ListJobsRequest::default();
        api.client().list_jobs(list).await.expect("listed");
    });
    api.postgres.query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)%'
         AND pid <> pg_backend_pid()",
    );
    drop(lock);
    until("the tasks to be leased and given back", || {
        let sql = "SELECT bool_or(attempt > 0) AND bool_and(state = 'READY') FROM task";
        api.postgres.query(sql) == "t"
    });
    let answer = api.runtime.block_on(async {
        let next = acquire("next", 100, 5000);
        api.worker_client().acquire_tasks(next).await
    });
    assert!(!answer.expect("an answer").into_inner().tasks.is_empty());
}
