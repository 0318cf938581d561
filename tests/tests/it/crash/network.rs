//! Paths that are cut: rows 19, 20 and 22.

use std::time::{Duration, Instant};

use chatvec::fault::Failpoint;
use chatvec_tests::cluster::{Cluster, LEASE, Row, Setup, scaled, until_hit};
use chatvec_tests::emulator::Operation;
use chatvec_tests::process::until_every;
use chatvec_tests::proxy::Traffic;

use super::{WORK, takeover};

/// From when on a task that does not move is taken from its worker.
const STUCK: Duration = Duration::from_secs(60);

#[test]
fn row_19_worker_cut_off_from_its_coordinator() {
    let mut row = Row::new(
        19,
        "the path between a worker and its coordinators goes silent",
    );
    let cluster = Cluster::start();
    let go = cluster.path("go");
    let coordinator = cluster.serve(&Setup::default());
    let address = &coordinator.address;
    let proxy = cluster.coordinator_proxy(&coordinator);
    let through = format!("http://{}", proxy.address());
    let setup = cluster.named("cut-off").pause(Failpoint::PutReady, &go);
    let mut cut_off = cluster.worker(&through, &setup);
    let job = cluster.submit(address, "out", &[]);
    until_hit(&mut cut_off, Failpoint::PutReady);
    proxy.set_traffic(Traffic::Held);
    let silent = Instant::now();
    // By now it must have fenced itself, well before its lease ends.
    let fenced = LEASE * 2 / 3;
    until_every(
        Duration::from_millis(10),
        "the worker to fence itself",
        || silent.elapsed() > fenced,
    );
    let before = cluster.store().history().requests.len();
    cluster.go(&go);
    let _other = cluster.worker(address, &cluster.named("other"));
    cluster.succeeds(address, &job, "out");
    row.within(
        "the job succeeds by another worker",
        takeover(),
        silent.elapsed(),
    );
    let history = cluster.store().history();
    let late = history
        .of(Operation::PutPart)
        .filter(|put| put.access_key == "cut-off" && put.ordinal >= before as u64);
    row.at_most(
        "puts begun later than two thirds of a lease",
        0,
        late.count() as u64,
    );
    assert!(proxy.counts().held > 0, "the fault came");

    proxy.set_traffic(Traffic::Flows);
    let healed = Instant::now();
    let job = cluster.submit(address, "again", &[]);
    let cut_off = history.requests.len() as u64;
    until_every(
        Duration::from_millis(50),
        "the worker to work again",
        || {
            let history = cluster.store().history();
            history
                .of(Operation::PutPart)
                .any(|put| put.access_key == "cut-off" && put.ordinal >= cut_off)
        },
    );
    row.within(
        "it works again when the path is back",
        scaled(Duration::from_secs(50)) + WORK,
        healed.elapsed(),
    );
    cluster.succeeds(address, &job, "again");
    row.record();
}

#[test]
fn row_20_worker_cut_off_from_the_store() {
    let mut row = Row::new(20, "the path between a worker and the store goes silent");
    let cluster = Cluster::start();
    let coordinator = cluster.serve(&Setup::default());
    let address = &coordinator.address;
    let proxy = cluster.store_proxy();
    let slow = Setup::default().at(Failpoint::PutReady, "delay=200:*");
    let _cut_off = cluster.worker(address, &slow.store_through(&proxy));
    let job = cluster.submit(address, "out", &[]);
    cluster.until_done(&job, 1);
    proxy.set_traffic(Traffic::Held);
    let silent = Instant::now();
    let _other = cluster.worker(address, &Setup::default());
    cluster.succeeds(address, &job, "out");
    assert!(proxy.counts().held > 0, "the fault came");
    let bound = scaled(STUCK + Duration::from_secs(5)) + WORK;
    row.within("others do what it held", bound, silent.elapsed());
    let crashes = format!("SELECT sum(failures + crashes) FROM task WHERE job_id = '{job}'");
    row.at_most("attempts charged", 0, cluster.number(&crashes));
    row.record();
}

#[test]
fn row_22_heartbeats_pass_and_reports_do_not() {
    let mut row = Row::new(22, "a worker's heartbeats pass, and its report does not");
    let cluster = Cluster::start();
    let go = cluster.path("go");
    let coordinator = cluster.serve(&Setup::default());
    let address = &coordinator.address;
    let setup = Setup::default().pause(Failpoint::ReportReady, &go);
    let mut silent = cluster.worker(address, &setup.with_slots(1));
    let job = cluster.submit(address, "out", &[]);
    until_hit(&mut silent, Failpoint::ReportReady);
    let since = Instant::now();
    let _other = cluster.worker(address, &Setup::default());
    cluster.succeeds(address, &job, "out");
    let bound = scaled(STUCK + Duration::from_secs(5)) + WORK;
    row.within("the task is taken from it", bound, since.elapsed());
    let stolen = format!("SELECT count(*) FROM task WHERE job_id = '{job}' AND steals = 1");
    row.at_most("tasks taken", 1, cluster.number(&stolen));
    assert_eq!(cluster.number(&stolen), 1, "the fault came");
    cluster.go(&go);
    let refused = silent.says("the report came after the lease, it does not count");
    assert!(refused, "{}", silent.stderr());
    row.holds("its report is refused in the end");
    row.record();
}
