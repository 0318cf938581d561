//! Defects that soaks have found, each made to come at once.

use chatvec::fault::Failpoint;
use chatvec_tests::cluster::{Cluster, Setup, until_hit};
use chatvec_tests::emulator::{Action, Fault, Operation};
use chatvec_tests::process::until;

/// The one weight file of every job here.
const FILE: &str = "model.safetensors";

/// Found by `make soak SECONDS=100 SEED=3`.
#[test]
fn an_upload_that_is_being_created_is_not_taken_for_what_a_dead_coordinator_left() {
    let cluster = Cluster::tiny();
    // Creates an upload, and nobody ever learns its id.
    let crash = Setup::default().at(Failpoint::UploadCreated, &format!("crash@{FILE}"));
    let mut first = cluster.serve(&crash);
    let job = cluster.submit(&first.address, "out", &[]);
    until_hit(&mut first.process, Failpoint::UploadCreated);
    let go = cluster.path("go");
    let pause = format!("pause={}@{FILE}", go.display());
    let mut second = cluster.serve(&Setup::default().at(Failpoint::UploadCreated, &pause));
    until_hit(&mut second.process, Failpoint::UploadCreated);
    let count = |operation| {
        let history = cluster.store().history();
        let of_file = history
            .of(operation)
            .filter(|request| request.key.contains(FILE));
        of_file.count()
    };
    // The janitor looks for the first one, and finds this one, too.
    let before = count(Operation::ListUploads);
    until("two rounds of the janitor", || {
        count(Operation::ListUploads) >= before + 2 || count(Operation::AbortUpload) > 0
    });
    assert_eq!(count(Operation::AbortUpload), 0);
    cluster.go(&go);
    let _worker = cluster.worker(&second.address, &Setup::default());
    cluster.succeeds(&second.address, &job, "out");
    let failures = format!("SELECT sum(failures) FROM task WHERE job_id = '{job}'");
    assert_eq!(cluster.number(&failures), 0);
    cluster.fleet.assert_nothing_else(&["out"]);
}

/// Found by `make soak SECONDS=1800 SEED=20261127`.
#[test]
fn a_probe_that_comes_to_the_store_after_its_coordinators_death_does_not_stay() {
    const PROBE: &str = "/create";
    let cluster = Cluster::tiny();
    let held = Fault::new(Action::Hold(None)).on(Operation::Put);
    let held = cluster.store().add(held.key_ending_in(PROBE).times(1));
    let first = cluster.serve(&Setup::default());
    let job = cluster.submit(&first.address, "out", &[]);
    held.until_fired(1);
    first.process.kill();
    let go = cluster.path("go");
    let paused = Setup::default().pause(Failpoint::CommitStarted, &go);
    let mut second = cluster.serve(&paused);
    let _worker = cluster.worker(&second.address, &Setup::default());
    until_hit(&mut second.process, Failpoint::CommitStarted);
    // Whoever took the job over has removed the probe when it planned, and now
    // it is there.
    held.release();
    until("the late write", || {
        let objects = cluster.store().objects();
        objects.keys().any(|key| key.ends_with(PROBE))
    });
    cluster.go(&go);
    cluster.succeeds(&second.address, &job, "out");
    cluster.fleet.assert_nothing_else(&["out"]);
}
