//! What the checker and the walk have found, one test each.

use chatvec::fault::Failpoint;
use chatvec_tests::cluster::{Cluster, Setup, until_hit};
use chatvec_tests::emulator::Operation;
use chatvec_tests::fleet::submission;
use chatvec_tests::process::until_every;

use super::LOOK_EVERY;

/// Row 3 failed one time in many: an upload was aborted between its making and
/// the record of its id, as that of a planner that had died.
#[test]
fn an_upload_whose_id_is_not_recorded_yet_is_not_taken_for_a_dead_planners() {
    let cluster = Cluster::tiny();
    let go = cluster.path("go");
    let dies = Setup::default().at(Failpoint::UploadsIntended, "crash");
    let mut first = cluster.serve(&dies);
    let request = ["--request-id", "again"];
    let merge = cluster.merge("out");
    let args = submission(&merge, &request);
    let _first_try = cluster.fleet.client(&first.address, &args);
    until_hit(&mut first.process, Failpoint::UploadsIntended);
    let mut second = cluster.serve(&Setup::default().pause(Failpoint::UploadCreated, &go));
    until_hit(&mut second.process, Failpoint::UploadCreated);
    let asked = || {
        let history = cluster.store().history();
        history.of(Operation::ListUploads).count()
    };
    let before = asked();
    // The janitor looks for the one that the first may have made.
    until_every(LOOK_EVERY, "two rounds of the janitor", || {
        asked() >= before + 2
    });
    cluster.go(&go);
    let _worker = cluster.worker(&second.address, &Setup::default());
    let job = cluster.submit(&second.address, "out", &request);
    cluster.succeeds(&second.address, &job, "out");
    cluster.fleet.assert_nothing_else(&["out"]);
}
