//! A database that crashes, stays away, is cut off, or cannot tidy up: rows 13,
//! 14, 21 and 33.

use std::time::{Duration, Instant};

use chatvec::fault::Failpoint;
use chatvec_proto::v1::worker_service_client::WorkerServiceClient;
use chatvec_proto::{PROTOCOL_VERSION, v1};
use chatvec_tests::cluster::{Cluster, LEASE, Row, Setup, address_of, database_through, until_hit};
use chatvec_tests::fleet::{Coordinator, addresses};
use chatvec_tests::process::until_every;
use chatvec_tests::proxy::Traffic;
use futures_util::future::join_all;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::WORK;

/// Claimers at once of row 33; the job has as many tasks.
const CLAIMERS: u64 = 8;
/// How long they go on, and what they may wait for a claim: the design's 0.1 s,
/// and the rest of a second for a machine that does other things.
const CLAIMED_FOR: Duration = Duration::from_secs(15);
const CLAIM_WITHIN: Duration = Duration::from_secs(1);

/// Slots of two workers.
const SLOTS: u64 = 4;

#[test]
fn row_13_database_crashes_under_load() {
    let mut row = Row::new(13, "the database crashes and recovers under load");
    let mut cluster = Cluster::start();
    let coordinators = [(); 2].map(|()| cluster.serve(&Setup::default()));
    let all = addresses(&coordinators);
    // Slow enough that the crash comes in the middle.
    let slow = Setup::default().at(Failpoint::PutReady, "delay=1000:*");
    let _workers = [(); 2].map(|()| cluster.worker(&all, &slow));
    let job = cluster.submit(&all, "out", &[]);
    cluster.until_done(&job, 2);
    let tasks = format!("SELECT count(*) FROM task WHERE job_id = '{job}'");
    let all_tasks = cluster.number(&tasks);
    let done = cluster.number(&format!("{tasks} AND state = 'DONE'"));
    assert!(done < all_tasks, "the crash comes in the middle");
    cluster.fleet.postgres.crash();
    cluster.fleet.postgres.start_again();
    let up = Instant::now();
    cluster.until_done(&job, done + 1);
    row.within(
        "tasks are reported again",
        Duration::from_secs(10),
        up.elapsed(),
    );
    cluster.succeeds(&all, &job, "out");
    row.at_most(
        "parts put again after so short an outage",
        0,
        cluster.put_again("out"),
    );
    row.record();
}

#[test]
fn row_14_database_away_for_longer_than_a_lease() {
    let mut row = Row::new(14, "the database is away for three leases");
    let mut cluster = Cluster::start();
    let go = cluster.path("go");
    let coordinators = [(); 2].map(|()| cluster.serve(&Setup::default()));
    let all = addresses(&coordinators);
    let mut first = cluster.worker(&all, &Setup::default().pause(Failpoint::ReportReady, &go));
    let job = cluster.submit(&all, "out", &[]);
    until_hit(&mut first, Failpoint::ReportReady);
    let _second = cluster.worker(&all, &Setup::default());
    cluster.until_done(&job, 1);
    cluster.fleet.postgres.crash();
    let went = Instant::now();
    // Finished, and nobody to tell.
    cluster.go(&go);
    assert!(first.says("the call is repeated"), "{}", first.stderr());
    until_every(Duration::from_millis(50), "three leases to pass", || {
        went.elapsed() > LEASE * 3
    });
    cluster.fleet.postgres.start_again();
    cluster.succeeds(&all, &job, "out");
    assert!(
        !first.stderr().contains("the report came after the lease"),
        "{}\n{}\n{}",
        first.stderr(),
        coordinators[0].process.stderr(),
        coordinators[1].process.stderr(),
    );
    row.holds("what was finished counts when it is reported at last");
    let failures = format!("SELECT sum(failures + crashes) FROM task WHERE job_id = '{job}'");
    row.at_most("attempts charged", 0, cluster.number(&failures));
    row.at_most(
        "tasks done again, of four slots",
        SLOTS,
        cluster.leased_again(&job),
    );
    row.record();
}

#[test]
fn row_21_coordinator_cut_off_from_the_database() {
    let mut row = Row::new(
        21,
        "one coordinator's connections to the database go silent",
    );
    let cluster = Cluster::start();
    let proxy = cluster.database_proxy();
    let through = Setup::default().database(&database_through(&proxy));
    let cut = cluster.serve(&through);
    let other = cluster.serve(&Setup::default());
    let both = addresses([&cut, &other]);
    let slow = Setup::default().at(Failpoint::PutReady, "delay=300:*");
    let _workers = [(); 3].map(|()| cluster.worker(&both, &slow));
    let job = cluster.submit(&both, "out", &[]);
    cluster.until_done(&job, 1);
    assert_eq!(health(&cut), ServingStatus::Serving);
    proxy.set_traffic(Traffic::Held);
    let silent = Instant::now();
    let bound = Duration::from_secs(15) + WORK;
    until_every(Duration::from_millis(100), "the readiness to end", || {
        health(&cut) == ServingStatus::NotServing
    });
    row.within(
        "the coordinator says that it is not ready",
        bound,
        silent.elapsed(),
    );
    assert!(proxy.counts().held > 0, "the fault came");
    let asked = Instant::now();
    cluster.get(&both, &job);
    row.within("a client of both is answered", bound, asked.elapsed());
    cluster.succeeds(&both, &job, "out");
    row.holds("the job succeeds by the other coordinator");
    proxy.set_traffic(Traffic::Flows);
    proxy.reset_all();
    until_every(
        Duration::from_millis(100),
        "the readiness to return",
        || health(&cut) == ServingStatus::Serving,
    );
    row.record();
}

#[test]
fn row_33_old_transaction_held_open() {
    let mut row = Row::new(
        33,
        "a session holds an old transaction open while tasks are claimed and given back",
    );
    let cluster = Cluster::start();
    let coordinator = cluster.serve(&Setup::default());
    let job = cluster.submit(&coordinator.address, "out", &[]);
    let waiting = format!("SELECT count(*) >= {CLAIMERS} FROM task WHERE job_id = '{job}'");
    cluster.until_true("tasks to be planned", &waiting);
    // What was replaced since then cannot be removed as long as it stands.
    let held = cluster.fleet.postgres.session(
        "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM task; SELECT pg_sleep(600)",
    );
    let is_held = "SELECT count(*) = 1 FROM pg_stat_activity
                   WHERE backend_xmin IS NOT NULL AND query LIKE '%pg_sleep(600)%'
                     AND pid <> pg_backend_pid()";
    cluster.until_true("a transaction to be held", is_held);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime can be made");
    let endpoint = Endpoint::from_shared(coordinator.address.clone());
    let times = runtime.block_on(async {
        let channel = endpoint.expect("an address").connect().await;
        let client = WorkerServiceClient::new(channel.expect("it listens"));
        let claimers = (0..CLAIMERS).map(|ordinal| claim_again_and_again(client.clone(), ordinal));
        join_all(claimers).await
    });
    let mut times = times.concat();
    times.sort_unstable();
    assert!(times.len() > 1_000, "{} claims", times.len());
    cluster.until_true("the transaction to be held still", is_held);
    row.within(
        "a claim, of 99 in 100",
        CLAIM_WITHIN,
        times[times.len() * 99 / 100],
    );
    let dead = "SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 'task'";
    assert!(cluster.number(dead) > 100, "the fault came");
    let _worker = cluster.worker(&coordinator.address, &Setup::default());
    cluster.succeeds(&coordinator.address, &job, "out");
    row.holds("the job succeeds meanwhile");
    held.kill();
    row.record();
}

/// Claims a task and gives it back, 200 times a second together with the others,
/// and measures the claims.
async fn claim_again_and_again(
    mut client: WorkerServiceClient<Channel>,
    ordinal: u64,
) -> Vec<Duration> {
    let worker = v1::Worker {
        worker_id: format!("claimer-{ordinal}"),
        slots: 1,
        protocol_version: PROTOCOL_VERSION,
        ..v1::Worker::default()
    };
    let mut ticks = tokio::time::interval(Duration::from_millis(1000 * CLAIMERS / 200));
    let mut times = Vec::new();
    let begin = Instant::now();
    while begin.elapsed() < CLAIMED_FOR {
        ticks.tick().await;
        let request = v1::AcquireTasksRequest {
            worker: Some(worker.clone()),
            max_tasks: 1,
            wait_ms: 0,
        };
        let asked = Instant::now();
        let acquired = client.acquire_tasks(request).await.expect("answered");
        times.push(asked.elapsed());
        let leases = acquired.into_inner().tasks.into_iter();
        let release = v1::ReleaseTasksRequest {
            worker_id: worker.worker_id.clone(),
            leases: leases.filter_map(|task| task.lease).collect(),
        };
        client.release_tasks(release).await.expect("answered");
    }
    times
}

/// What a coordinator says of itself.
fn health(coordinator: &Coordinator) -> ServingStatus {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build().expect("a runtime can be made");
    let endpoint = Endpoint::from_shared(format!("http://{}", address_of(coordinator)));
    runtime.block_on(async {
        let channel = endpoint.expect("an address").connect().await;
        let mut client = HealthClient::new(channel.expect("it listens"));
        let check = HealthCheckRequest {
            service: String::new(),
        };
        let answer = client.check(check).await.expect("it answers");
        answer.into_inner().status()
    })
}
