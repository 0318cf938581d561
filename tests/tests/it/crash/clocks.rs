//! Clocks that are wrong: rows 23 and 24.

use std::time::{Duration, Instant};

use chatvec::fault::Failpoint;
use chatvec_tests::checker::Invariant;
use chatvec_tests::cluster::{Cluster, LEASE, Row, Setup};
use chatvec_tests::emulator::Operation;
use chatvec_tests::fleet::addresses;
use chatvec_tests::process::until_every;

/// What ends with 75: the user may mend it and try again.
const TRY_AGAIN: i32 = 75;
const FORBIDDEN: u16 = 403;

#[test]
fn row_23_clocks_of_workers_and_coordinators_are_wrong() {
    let mut row = Row::new(
        23,
        "the clock of a worker, or of a coordinator, is an hour off",
    );
    let cluster = Cluster::tiny();
    let mut charged = 0;
    for (ordinal, offsets) in [["+1h", "-1h"], ["-1h", "+1h"]].into_iter().enumerate() {
        let [of_coordinator, of_worker] = offsets.map(|offset| Setup::default().clock(offset));
        let coordinator = cluster.serve(&of_coordinator);
        // Each task takes several heartbeats.
        let slow = of_worker.at(Failpoint::TaskBegun, "delay=3000:*");
        let _worker = cluster.worker(&coordinator.address, &slow);
        let out = cluster.path(&format!("out-{ordinal}"));
        let merge = cluster.merge_on_disk(&out);
        let job = cluster.fleet.submit(&coordinator.address, &merge, &[]);
        cluster.watch(&coordinator.address, &job).expect_code(0);
        cluster.assert_golden_on_disk(&out);
        let failures = format!("SELECT sum(failures + crashes) FROM task WHERE job_id = '{job}'");
        charged += cluster.number(&failures) + cluster.leased_again(&job);
    }
    row.at_most("leases lost or charged", 0, charged);

    let right = cluster.serve(&Setup::default());
    let address = &right.address;
    let job = cluster.submit(address, "out", &[]);
    let wrong = cluster.worker(address, &cluster.named("wrong").clock("+1h"));
    let stopped = wrong.wait().expect_code(TRY_AGAIN);
    assert!(
        stopped.stderr.contains("this machine's clock is wrong")
            && stopped.stderr.contains("set the clock"),
        "{}",
        stopped.stderr
    );
    let history = cluster.store().history();
    let mut requests = history.requests.iter();
    assert!(
        requests.any(|one| one.access_key == "wrong" && one.status == Some(FORBIDDEN)),
        "the fault came"
    );
    row.holds("a worker whose signatures are refused says so and stops");
    let _worker = cluster.worker(address, &Setup::default());
    cluster.succeeds(address, &job, "out");
    let failures = format!("SELECT sum(failures + crashes) FROM task WHERE job_id = '{job}'");
    row.at_most(
        "attempts charged to the job it worked for",
        0,
        cluster.number(&failures),
    );
    row.record();
}

#[test]
fn row_24_clock_of_the_database_jumps() {
    let mut row = Row::new(24, "the clock of the database jumps by an hour");
    let cluster = Cluster::with_clock();
    for invariant in [Invariant::SelfFence, Invariant::ReportsStay] {
        cluster.unchecked(invariant, "the database's times jump, the store's do not");
    }
    let coordinators = [(); 2].map(|()| cluster.serve(&Setup::default()));
    let begin = Instant::now();
    let all = addresses(&coordinators);
    let slow = Setup::default().at(Failpoint::PutReady, "delay=500:*");
    let workers = [(); 3].map(|()| cluster.worker(&all, &slow));
    let job = cluster.submit(&all, "out", &[]);
    until_every(Duration::from_millis(50), "the first grace to end", || {
        begin.elapsed() > LEASE
    });
    let again = cluster.submit(&all, "again", &[]);
    cluster.until_done(&again, 1);
    let held =
        format!("SELECT count(*) > 0 FROM task WHERE job_id = '{again}' AND state = 'LEASED'");
    cluster.until_true("some leases to be given", &held);
    let now = "SELECT CAST(extract(epoch FROM clock_timestamp()) AS bigint)";
    let before = cluster.number(now);
    cluster.fleet.postgres.shift_clock("+1h");
    assert!(cluster.number(now) >= before + 3600, "the fault came");
    for (job, out) in [(&job, "out"), (&again, "again")] {
        cluster.succeeds(&all, job, out);
    }
    row.holds("every lease ends at once, and the jobs succeed");
    // Three workers with two slots each; what was done stays so.
    row.at_most(
        "parts put again, of six slots",
        6,
        cluster.put_again("again"),
    );
    let crashes = format!("SELECT max(crashes) FROM task WHERE job_id = '{again}'");
    row.at_most("crashes charged to one task", 1, cluster.number(&crashes));
    let history = cluster.store().history();
    assert!(history.of(Operation::PutPart).count() > 0);
    drop(workers);
    // Backwards: leases seem to last an hour longer, and nobody has to wait.
    cluster.fleet.postgres.shift_clock("+0");
    let _workers = [(); 2].map(|()| cluster.worker(&all, &Setup::default()));
    let back = cluster.submit(&all, "back", &[]);
    cluster.succeeds(&all, &back, "back");
    row.holds("a clock that is set back does not stop a new job");
    row.record();
}
