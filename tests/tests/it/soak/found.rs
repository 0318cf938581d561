//! Defects that soaks have found, each made to come at once.

use chatvec::fault::Failpoint;
use chatvec_tests::cluster::{Cluster, Setup, until_hit};
use chatvec_tests::emulator::Operation;
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
