//! Whole jobs on stores that differ where S3 leaves it open, on a day on which
//! each does everything once that it should not.

use chatvec_tests::emulator::{Action, Emulator, Fault, Operation, Profile, Refusal, Rule};
use chatvec_tests::fleet::ACCESS_KEY;

use super::scene::{SMALL_PARTS, Scene};

/// Of which the storm is drawn.
const SEED: u64 = 7;

/// Faults that the fleet alone meets, each in the middle of things.
fn bad_day(emulator: &Emulator) -> Vec<Rule> {
    let by_fleet = |action| Fault::new(action).by(ACCESS_KEY);
    let once = |operation, action| by_fleet(action).on(operation).after(1).times(1);
    let error = Refusal::InternalError;
    let faults = [
        once(Operation::Get, Action::TruncateBody(1_000)),
        once(Operation::Get, Action::DropBefore),
        once(Operation::PutPart, Action::DropAfter),
        once(Operation::PutPart, Action::CorruptReceived(1_000)),
        once(Operation::PutPart, Action::Refuse(error)),
        once(Operation::CompleteUpload, Action::DropAfter),
        once(Operation::CompleteUpload, Action::RefuseInOk(error)),
        // The claim, which is the manifest in its first form, among them.
        once(Operation::Put, Action::DropAfter).key_ending_in("chatvec.manifest.json"),
        by_fleet(Action::Refuse(Refusal::SlowDown)).with_probability(0.1, SEED),
    ];
    faults.map(|fault| emulator.add(fault)).into()
}

#[track_caller]
fn assert_survives_a_bad_day(profile: Profile) {
    let scene = Scene::on_emulator(profile);
    let rules = bad_day(scene.fleet.emulator());
    let coordinator = scene.fleet.serve(&SMALL_PARTS);
    let _worker = scene.fleet.worker(&coordinator.address, &[]);
    let job = scene.submit(&coordinator.address, "out", &[]);
    scene.succeeds(&coordinator.address, &job);
    scene.assert_as_merged("out");
    for rule in rules {
        // It names its seed.
        assert!(rule.fired() > 0, "{rule:?}");
    }
}

#[test]
fn a_job_survives_a_bad_day_of_s3() {
    assert_survives_a_bad_day(Profile::Aws);
}

#[test]
fn a_job_survives_a_bad_day_of_a_store_that_forgets_completed_uploads() {
    assert_survives_a_bad_day(Profile::Minio);
}

#[test]
fn a_job_survives_a_bad_day_of_a_store_that_wants_parts_of_one_size() {
    assert_survives_a_bad_day(Profile::R2);
}

#[test]
fn a_job_survives_a_bad_day_of_a_store_with_random_etags() {
    assert_survives_a_bad_day(Profile::Kms);
}
