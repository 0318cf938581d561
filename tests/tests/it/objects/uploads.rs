//! Multipart uploads: parts that are put twice, completions that are in doubt.

use std::sync::atomic::{AtomicBool, Ordering};

use chatvec::storage::object::{ListedPart, ObjectError};
use chatvec_core::ids::PartOrdinal;
use chatvec_tests::emulator::{Action, Fault, Operation, Profile, Refusal, Rule};

use super::scene::{NONCE, PART_BYTES, Scene, body, bytes, crc64};

const KEY: &str = "out/model.safetensors";

/// A store with an upload in it.
struct Uploading {
    scene: Scene,
    id: String,
}

impl Uploading {
    fn begin(profile: Profile) -> Self {
        let scene = Scene::of(profile);
        let client = &scene.client;
        let id = client.run(client.bucket.create_upload(KEY, NONCE));
        let id = id.expect("created");
        Self { scene, id }
    }

    fn fault(&self, operation: Operation, action: Action, times: u64) -> Rule {
        let fault = Fault::new(action).on(operation).key(KEY);
        self.scene.emulator.add(fault.times(times))
    }

    fn put_part(&self, part: u32, bytes: &[u8]) -> Result<String, ObjectError> {
        self.scene.client.put_part(KEY, &self.id, part, bytes)
    }

    fn complete(&self, part_ids: &[String]) -> Result<String, ObjectError> {
        let client = &self.scene.client;
        let ids = part_ids.to_vec();
        client.run(client.bucket.complete_upload(KEY, &self.id, ids))
    }

    fn listed(&self) -> Vec<ListedPart> {
        let client = &self.scene.client;
        let listed = client.run(client.bucket.list_parts(KEY, &self.id));
        listed.expect("listed").expect("the store can tell")
    }

    /// What stands under the key, as the program finds it.
    fn found(&self) -> Option<chatvec::storage::object::Head> {
        let client = &self.scene.client;
        client.run(client.bucket.head(KEY)).expect("asked")
    }

    /// Demands that the object is whole, and ours.
    #[track_caller]
    fn assert_published(&self, expected: &[u8]) {
        let found = self.found().expect("an object");
        assert_eq!(found.nonce.as_deref(), Some(NONCE));
        assert_eq!(found.size, expected.len() as u64);
        assert_eq!(found.crc64, Some(crc64(expected)));
        assert!(self.scene.emulator.objects()[KEY].bytes() == expected);
        assert!(self.scene.emulator.open_uploads().is_empty());
    }
}

#[test]
fn a_part_is_put_again_after_failures_resets_and_lost_answers() {
    let uploading = Uploading::begin(Profile::Aws);
    let part = bytes(100_000);
    let faults = [
        Action::Refuse(Refusal::InternalError),
        Action::DropBefore,
        Action::DropAfter,
        Action::RefuseAfter(Refusal::InternalError),
    ];
    let faults = faults.map(|action| uploading.fault(Operation::PutPart, action, 1));
    let part_id = uploading.put_part(0, &part).expect("put");
    assert!(faults.iter().all(|fault| fault.fired() == 1));
    // The same bytes again are the same part.
    assert_eq!(uploading.listed()[0].part_id, part_id);
    uploading.complete(&[part_id]).expect("completed");
    uploading.assert_published(&part);
}

#[test]
fn a_part_whose_answer_does_not_come_is_put_again() {
    let uploading = Uploading::begin(Profile::Aws);
    let stall = uploading.fault(Operation::PutPart, Action::StallAnswer(None), 1);
    let part_id = uploading.put_part(0, b"bytes").expect("put");
    assert_eq!(stall.fired(), 1);
    uploading.complete(&[part_id]).expect("completed");
    uploading.assert_published(b"bytes");
}

#[test]
fn a_part_that_was_damaged_on_the_way_is_refused_and_put_again() {
    let uploading = Uploading::begin(Profile::Aws);
    let part = bytes(100_000);
    let damage = uploading.fault(Operation::PutPart, Action::CorruptReceived(77_777), 1);
    let part_id = uploading.put_part(0, &part).expect("put");
    assert_eq!(damage.fired(), 1);
    let statuses = uploading.scene.statuses(Operation::PutPart);
    assert_eq!(statuses, [Some(400), Some(200)]);
    uploading.complete(&[part_id]).expect("completed");
    uploading.assert_published(&part);
}

#[test]
fn no_put_starts_after_the_right_to_it_was_lost() {
    for action in [
        Action::Refuse(Refusal::SlowDown),
        Action::Refuse(Refusal::InternalError),
        Action::DropAfter,
    ] {
        let uploading = Uploading::begin(Profile::Aws);
        let fail = uploading.fault(Operation::PutPart, action, u64::MAX);
        let holds_lease = AtomicBool::new(true);
        // The lease is lost while the first try is under way.
        let may_start = || holds_lease.swap(false, Ordering::Relaxed);
        let client = &uploading.scene.client;
        let (id, part) = (&uploading.id, PartOrdinal(0));
        let put = client
            .bucket
            .put_part(KEY, id, part, body(b"bytes"), may_start);
        assert_eq!(client.run(put), Ok(None));
        assert_eq!(fail.fired(), 1);
        assert_eq!(uploading.scene.requests(Operation::PutPart).len(), 1);
    }
}

#[test]
fn a_part_for_an_upload_that_was_ended_is_not_put_again() {
    let uploading = Uploading::begin(Profile::Aws);
    let client = &uploading.scene.client;
    let abort = || client.run(client.bucket.abort_upload(KEY, &uploading.id));
    let lose = uploading.fault(Operation::AbortUpload, Action::DropAfter, 1);
    // The second try finds it gone, which is what was wanted.
    abort().expect("aborted");
    assert_eq!(lose.fired(), 1);
    abort().expect("nothing to abort is no error");
    let error = uploading.put_part(0, b"bytes").unwrap_err();
    assert!(matches!(error, ObjectError::UploadGone { .. }), "{error}");
    assert_eq!(uploading.scene.requests(Operation::PutPart).len(), 1);
}

#[test]
fn an_upload_is_created_once_unless_the_store_says_that_it_did_nothing() {
    let scene = Scene::of(Profile::Aws);
    let client = &scene.client;
    let create = || client.run(client.bucket.create_upload(KEY, NONCE));
    let on = |action| Fault::new(action).on(Operation::CreateUpload).times(1);
    let refuse = scene.emulator.add(on(Action::Refuse(Refusal::SlowDown)));
    let id = create().expect("created");
    assert_eq!(refuse.fired(), 1);
    assert_eq!(scene.requests(Operation::CreateUpload).len(), 2);

    let lose = scene.emulator.add(on(Action::DropAfter));
    let error = create().unwrap_err();
    assert!(matches!(error, ObjectError::Transient { .. }), "{error}");
    assert_eq!(lose.fired(), 1);
    assert_eq!(scene.requests(Operation::CreateUpload).len(), 3);
    // The one that nobody was told of can be found.
    let listed = client.run(client.bucket.list_uploads(KEY));
    let listed = listed.expect("listed").expect("the store can tell");
    assert_eq!(listed.len(), 2);
    assert_eq!(listed[0], id);
}

#[test]
fn an_error_below_the_status_200_is_an_error() {
    let uploading = Uploading::begin(Profile::Aws);
    let part_id = uploading.put_part(0, b"bytes").expect("put");
    let parts = [part_id];
    let fail = uploading.fault(
        Operation::CompleteUpload,
        Action::RefuseInOk(Refusal::InternalError),
        1,
    );
    let error = uploading.complete(&parts).unwrap_err();
    assert!(matches!(error, ObjectError::Transient { .. }), "{error}");
    assert!(error.to_string().contains("InternalError"), "{error}");
    assert_eq!(fail.fired(), 1);
    assert_eq!(uploading.found(), None);
    // What says that nothing was done is simply sent again.
    let busy = uploading.fault(
        Operation::CompleteUpload,
        Action::RefuseInOk(Refusal::SlowDown),
        2,
    );
    uploading.complete(&parts).expect("completed");
    assert_eq!(busy.fired(), 2);
    uploading.assert_published(b"bytes");
}

#[test]
fn a_completion_whose_answer_is_lost_is_not_repeated_and_can_be_found() {
    for (profile, again) in [(Profile::Aws, true), (Profile::Minio, false)] {
        let uploading = Uploading::begin(profile);
        let parts = [uploading.put_part(0, b"bytes").expect("put")];
        let lose = uploading.fault(Operation::CompleteUpload, Action::DropAfter, 1);
        let error = uploading.complete(&parts).unwrap_err();
        assert!(matches!(error, ObjectError::Transient { .. }), "{error}");
        assert_eq!(lose.fired(), 1);
        assert_eq!(uploading.scene.requests(Operation::CompleteUpload).len(), 1);
        uploading.assert_published(b"bytes");
        match uploading.complete(&parts) {
            Ok(etag) if again => assert_eq!(etag, uploading.found().expect("there").etag),
            Err(ObjectError::UploadGone { .. }) if !again => {}
            other => panic!("{profile:?}: {other:?}"),
        }
        uploading.assert_published(b"bytes");
    }
}

#[test]
fn a_part_that_was_put_twice_under_random_etags_is_adopted_by_its_checksum() {
    let uploading = Uploading::begin(Profile::Kms);
    let part = bytes(100_000);
    let stale = uploading.put_part(0, &part).expect("put");
    let current = uploading.put_part(0, &part).expect("put");
    assert_ne!(stale, current);
    let error = uploading.complete(&[stale]).unwrap_err();
    assert!(matches!(error, ObjectError::InvalidPart { .. }), "{error}");
    let listed = uploading.listed();
    let [only] = &listed[..] else {
        panic!("{listed:?}")
    };
    assert_eq!((only.part, only.size), (PartOrdinal(0), 100_000));
    assert_eq!((only.crc64, &only.part_id), (Some(crc64(&part)), &current));
    uploading.complete(&[current]).expect("completed");
    uploading.assert_published(&part);
}

#[test]
fn a_lost_answer_under_random_etags_leaves_the_newest_part_to_be_named() {
    let uploading = Uploading::begin(Profile::Kms);
    let lose = uploading.fault(Operation::PutPart, Action::DropAfter, 1);
    let part_id = uploading.put_part(0, b"bytes").expect("put");
    assert_eq!(lose.fired(), 1);
    uploading.complete(&[part_id]).expect("completed");
    uploading.assert_published(b"bytes");
}

#[test]
fn parts_that_a_store_cannot_join_are_refused_with_its_words() {
    let refused = |profile, sizes: [usize; 3]| {
        let uploading = Uploading::begin(profile);
        let put = |(part, size)| uploading.put_part(part, &bytes(size)).expect("put");
        let ids: Vec<String> = (0..).zip(sizes).map(put).collect();
        uploading.complete(&ids).expect_err("refused").to_string()
    };
    let unequal = refused(Profile::R2, [PART_BYTES, PART_BYTES + 1, 7]);
    assert!(
        unequal.contains("All non-trailing parts must have the same length"),
        "{unequal}"
    );
    let small = refused(Profile::Aws, [PART_BYTES, 7, 7]);
    assert!(small.contains("EntityTooSmall"), "{small}");
}
