//! Workers that die, stand still, or whose word is lost: rows 2 and 6 to 10.

use std::time::{Duration, Instant};

use chatvec::fault::Failpoint;
use chatvec_tests::cluster::{Cluster, Row, Setup, scaled, until_hit};
use chatvec_tests::process::{Process, Signal, until};
use chatvec_tests::proxy::{Direction, Traffic};

use super::store::late_put;
use super::{WORK, takeover};

/// As a process ends that a failpoint crashed.
const CRASHED: i32 = 137;
/// Slots of each worker.
const SLOTS: u64 = 2;

#[test]
fn row_02_claim_committed_and_its_reply_lost() {
    let mut row = Row::new(2, "a claim is committed and the worker never hears of it");
    let cluster = Cluster::start();
    let go = cluster.path("go");
    let mut coordinator = cluster.serve(&Setup::default().pause(Failpoint::ClaimCommitted, &go));
    let proxy = cluster.coordinator_proxy(&coordinator);
    let job = cluster.submit(&coordinator.address, "out", &[]);
    // A claim that finds nothing would be hit, too.
    cluster.until_true("the plan", "SELECT count(*) > 0 FROM task");
    let through = format!("http://{}", proxy.address());
    let _worker = cluster.worker(&through, &Setup::default());
    until_hit(&mut coordinator.process, Failpoint::ClaimCommitted);
    let leased = format!(
        "SELECT string_agg(task_no::text, ',') FROM task WHERE job_id = '{job}' AND state = 'LEASED'"
    );
    let unheard_of = cluster.fleet.postgres.query(&leased);
    proxy.set_traffic_of(Direction::ToClient, Traffic::Swallowed);
    cluster.go(&go);
    until("the reply to be lost", || proxy.counts().swallowed > 0);
    proxy.reset_all();
    proxy.set_traffic(Traffic::Flows);
    let lost = Instant::now();
    let free = format!(
        "SELECT count(*) = 0 FROM task WHERE job_id = '{job}' AND fence = 1 AND state = 'LEASED'
         AND task_no IN ({unheard_of})"
    );
    cluster.until_true("the lost leases to be free", &free);
    row.within(
        "the tasks are free again",
        scaled(Duration::from_secs(35)) + WORK,
        lost.elapsed(),
    );
    cluster.succeeds(&coordinator.address, &job, "out");
    let crashes = format!("SELECT sum(crashes) FROM task WHERE job_id = '{job}'");
    row.at_most("crashes charged", 0, cluster.number(&crashes));
    row.record();
}

/// A worker that crashes at this failpoint under way, and another that takes
/// over.
fn worker_crashes_at(row: &mut Row, point: Failpoint) {
    let cluster = Cluster::start();
    let coordinator = cluster.serve(&Setup::default());
    let address = &coordinator.address;
    let mut first = cluster.worker(address, &Setup::default().at(point, "crash:3"));
    let job = cluster.submit(address, "out", &[]);
    until_hit(&mut first, point);
    first.wait().expect_code(CRASHED);
    let died = Instant::now();
    let _second = cluster.worker(address, &Setup::default());
    cluster.succeeds(address, &job, "out");
    row.within(
        "the job succeeds by another worker",
        takeover(),
        died.elapsed(),
    );
    row.at_most(
        "tasks done again, of two slots",
        SLOTS,
        cluster.leased_again(&job),
    );
    cluster.fleet.assert_nothing_else(&["out"]);
}

#[test]
fn row_06_worker_killed_before_put() {
    let mut row = Row::new(6, "a worker is killed before it puts a part");
    worker_crashes_at(&mut row, Failpoint::PutReady);
    row.record();
}

#[test]
fn row_07_worker_killed_after_put_before_report() {
    let mut row = Row::new(7, "a worker is killed after a put, before its report");
    worker_crashes_at(&mut row, Failpoint::PutDone);
    row.record();
}

#[test]
fn row_08_worker_killed_after_report_ack_unseen() {
    let mut row = Row::new(8, "a worker is killed after its report, before the answer");
    let cluster = Cluster::start();
    let go = cluster.path("go");
    let mut coordinator = cluster.serve(&Setup::default().pause(Failpoint::ReportCommitted, &go));
    let address = coordinator.address.clone();
    let first = cluster.worker(&address, &Setup::default());
    let job = cluster.submit(&address, "out", &[]);
    until_hit(&mut coordinator.process, Failpoint::ReportCommitted);
    first.kill();
    let done = |what: &str| {
        let sql = format!(
            "SELECT {what} FROM task WHERE job_id = '{job}' AND state = 'DONE' AND done_fence = 1"
        );
        cluster.fleet.postgres.query(&sql)
    };
    let tasks = done("string_agg(task_no::text, ',' ORDER BY task_no)");
    assert!(!tasks.is_empty(), "the report is recorded");
    cluster.go(&go);
    let _second = cluster.worker(&address, &Setup::default());
    cluster.succeeds(&address, &job, "out");
    let again = format!(
        "SELECT coalesce(sum(attempt - 1), 0) FROM task WHERE job_id = '{job}' AND task_no IN ({tasks})"
    );
    row.at_most("reported tasks done again", 0, cluster.number(&again));
    row.record();
}

#[test]
fn row_09_report_ack_lost_and_repeated() {
    let mut row = Row::new(
        9,
        "the answer to a report is lost, and the report is repeated",
    );
    let cluster = Cluster::start();
    let go = cluster.path("go");
    let mut coordinator = cluster.serve(&Setup::default().pause(Failpoint::ReportCommitted, &go));
    let proxy = cluster.coordinator_proxy(&coordinator);
    let job = cluster.submit(&coordinator.address, "out", &[]);
    let through = format!("http://{}", proxy.address());
    let mut worker = cluster.worker(&through, &Setup::default());
    until_hit(&mut coordinator.process, Failpoint::ReportCommitted);
    proxy.set_traffic_of(Direction::ToClient, Traffic::Swallowed);
    cluster.go(&go);
    until("the answer to be lost", || proxy.counts().swallowed > 0);
    proxy.reset_all();
    proxy.set_traffic(Traffic::Flows);
    let lost = Instant::now();
    assert!(worker.says("the call is repeated"), "{}", worker.stderr());
    cluster.until_done(&job, 3);
    row.within("the worker goes on", WORK, lost.elapsed());
    cluster.succeeds(&coordinator.address, &job, "out");
    row.at_most("tasks done again", 0, cluster.leased_again(&job));
    row.record();
}

/// Lets a worker stand still at a failpoint for longer than its lease, while
/// another does the job.
fn zombie_at(cluster: &Cluster, point: Failpoint, out: &str) -> Process {
    let go = cluster.path(&format!("go-{out}"));
    let coordinator = cluster.serve(&Setup::default());
    let address = &coordinator.address;
    let mut zombie = cluster.worker(address, &Setup::default().pause(point, &go));
    let job = cluster.submit(address, out, &[]);
    until_hit(&mut zombie, point);
    zombie.freeze();
    let _other = cluster.worker(address, &Setup::default());
    let again = format!(
        "SELECT count(*) > 0 FROM task WHERE job_id = '{job}' AND state = 'LEASED' AND fence > 1
         OR job_id = '{job}' AND done_fence > 1"
    );
    cluster.until_true("another to hold what the zombie held", &again);
    cluster.go(&go);
    zombie.signal(Signal::CONT);
    cluster.succeeds(address, &job, out);
    zombie
}

#[test]
fn row_10_zombie_resumes_after_its_lease() {
    let mut row = Row::new(
        10,
        "a worker stands still for longer than its lease, and goes on",
    );
    let cluster = Cluster::start();
    let mut before = zombie_at(&cluster, Failpoint::PutReady, "before-put");
    assert!(
        before.says("lease lost, the task is dropped"),
        "{}",
        before.stderr()
    );
    row.holds("the task that it had begun is dropped, and another worker's bytes stand");
    let mut after = zombie_at(&cluster, Failpoint::ReportReady, "after-put");
    assert!(
        after.says("the report came after the lease, it does not count"),
        "{}",
        after.stderr()
    );
    row.holds("what it had put before changes no byte, and its report is refused");
    let late = late_put(&cluster, "held-put");
    row.holds("a put that the store held back puts the same bytes again, and the job succeeds");
    late.signal(Signal::CONT);
    cluster
        .fleet
        .assert_nothing_else(&["before-put", "after-put", "held-put"]);
    row.record();
}
