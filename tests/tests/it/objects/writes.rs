//! Conditional writes whose answers are lost, late, or no.

use bytes::Bytes;
use chatvec::storage::object::{ObjectError, Put};
use chatvec_tests::emulator::{Action, Condition, Fault, Operation, Profile, Refusal, Rule};

use super::scene::{NONCE, Scene};

const KEY: &str = "out/chatvec.manifest.json";
const OURS: &[u8] = b"ours";
const THEIRS: &[u8] = b"theirs";

fn put_new(scene: &Scene) -> Result<Put, ObjectError> {
    let client = &scene.client;
    let put = client.bucket.put_new(KEY, Bytes::from_static(OURS), NONCE);
    client.run(put)
}

fn fault(scene: &Scene, action: Action, times: u64) -> Rule {
    let fault = Fault::new(action).on(Operation::Put).by("chatvec");
    scene.emulator.add(fault.times(times))
}

#[track_caller]
fn assert_ours(scene: &Scene, put: &Put) {
    let stored = &scene.emulator.objects()[KEY];
    assert_eq!(stored.bytes(), OURS);
    assert_eq!(stored.metadata["chatvec-nonce"], NONCE);
    let etag = format!("\"{}\"", stored.etag);
    assert_eq!(*put, Put::Done { etag });
}

#[test]
fn a_write_that_failed_or_met_another_is_sent_again_under_its_condition() {
    for refusal in [Refusal::InternalError, Refusal::Conflict, Refusal::SlowDown] {
        let scene = Scene::of(Profile::Aws);
        let refuse = fault(&scene, Action::Refuse(refusal), 2);
        let put = put_new(&scene).expect("written");
        assert_ours(&scene, &put);
        assert_eq!(refuse.fired(), 2);
        for put in scene.requests(Operation::Put) {
            assert_eq!(put.condition, Some(Condition::Absent));
        }
    }
}

#[test]
fn a_write_whose_answer_is_lost_is_found_to_be_ours() {
    let lost = [
        Action::DropAfter,
        Action::StallAnswer(None),
        Action::RefuseAfter(Refusal::InternalError),
    ];
    for action in lost {
        let scene = Scene::of(Profile::Aws);
        let lose = fault(&scene, action, 1);
        let put = put_new(&scene).expect("written");
        assert_ours(&scene, &put);
        assert_eq!(lose.fired(), 1);
        let statuses = scene.statuses(Operation::Put);
        assert_eq!(statuses.last(), Some(&Some(412)), "{action:?}");
        assert_eq!(scene.emulator.history().effects().len(), 1);
    }
}

#[test]
fn a_write_that_comes_too_late_leaves_what_stands_there() {
    let scene = Scene::of(Profile::Aws);
    let fail = fault(&scene, Action::Refuse(Refusal::InternalError), 1);
    scene.put(KEY, THEIRS);
    assert_eq!(put_new(&scene), Ok(Put::Taken));
    assert_eq!(fail.fired(), 1);
    assert_eq!(scene.emulator.objects()[KEY].bytes(), THEIRS);
}

#[test]
fn a_replacement_whose_answer_is_lost_is_found_to_be_ours_and_replaces_once() {
    let scene = Scene::of(Profile::Aws);
    let etag = scene.put(KEY, THEIRS);
    let lose = fault(&scene, Action::DropAfter, 1);
    let client = &scene.client;
    let over = || {
        let bytes = Bytes::from_static(OURS);
        client.run(client.bucket.put_over(KEY, bytes, NONCE, &etag))
    };
    let put = over().expect("written");
    assert_ours(&scene, &put);
    assert_eq!(lose.fired(), 1);
    scene.put(KEY, THEIRS);
    scene.put(KEY, b"later");
    assert_eq!(over(), Ok(Put::Taken));
    assert_eq!(scene.emulator.objects()[KEY].bytes(), b"later");
}

#[test]
fn a_body_that_was_damaged_on_the_way_is_refused_and_sent_again() {
    let scene = Scene::of(Profile::Aws);
    let damage = fault(&scene, Action::CorruptReceived(2), 1);
    let put = put_new(&scene).expect("written");
    assert_ours(&scene, &put);
    assert_eq!(damage.fired(), 1);
    assert_eq!(
        scene.statuses(Operation::Put),
        [Some(400), Some(200)],
        "the checksum gave it away"
    );
}

#[test]
fn who_may_not_write_is_told_so_at_once() {
    let scene = Scene::of(Profile::Aws);
    let deny = fault(&scene, Action::Refuse(Refusal::AccessDenied), u64::MAX);
    let error = put_new(&scene).unwrap_err();
    assert!(matches!(error, ObjectError::Denied { .. }), "{error}");
    assert_eq!(deny.fired(), 1);
}
