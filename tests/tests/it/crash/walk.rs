//! The failpoints that no row of the matrix crashes at, walked on one store.
//! `make test-faults` walks all of them, on every store, with every blow.

use chatvec::fault::Failpoint;
use chatvec_tests::cluster::walk::{Blow, walk};
use chatvec_tests::emulator::Profile;

/// Those of leases and reports, and of cleaning up; the rest are steps of rows 3
/// and 4.
const WALKED: [Failpoint; 10] = [
    Failpoint::ClaimUncommitted,
    Failpoint::ClaimCommitted,
    Failpoint::TaskBegun,
    Failpoint::PutReady,
    Failpoint::PutDone,
    Failpoint::ReportReady,
    Failpoint::ReportCommitted,
    Failpoint::ReportAnswered,
    Failpoint::ReapRead,
    Failpoint::LeftoversRemoved,
];

#[test]
fn a_job_survives_a_crash_at_every_failpoint_of_leases_and_reports() {
    let walked = walk(Profile::Aws, Blow::Crash, &WALKED);
    let failed = walked.failures();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn every_failpoint_is_crashed_at_by_a_row_or_by_the_walk() {
    let rows = include_str!("coordinators.rs");
    for point in Failpoint::ALL {
        let is_step = rows.contains(&format!("({}, ", point.name()));
        let is_covered = is_step || WALKED.contains(point);
        assert!(is_covered, "{} is not", point.name());
    }
}
