//! The emulator as a plain client of S3 sees it.

use std::fs;

use super::*;

/// Who calls, in these tests.
fn stranger(emulator: &Emulator) -> Access {
    Access {
        key_id: "stranger".to_owned(),
        ..emulator.access(OWNER)
    }
}

#[test]
fn what_is_uploaded_comes_back_and_is_listed_in_pages() {
    let emulator = Emulator::with_pages_of(2, Profile::Aws);
    let bucket = emulator.bucket();
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    fs::create_dir(&from).unwrap();
    // One of several parts, one that needs no upload, and some for the pages.
    let large: Vec<u8> = (0..(20 << 20) + 7).map(|at| (at % 251) as u8).collect();
    fs::write(from.join("large"), &large).unwrap();
    for name in ["a b+c", "e", "f", "g"] {
        fs::write(from.join(name), name).unwrap();
    }
    bucket.upload(&from, "some/place").unwrap();
    assert_eq!(bucket.keys("some/place").unwrap().len(), 5);
    bucket.download("some/place", &to).unwrap();
    for entry in fs::read_dir(&from).unwrap() {
        let path = entry.unwrap().path();
        let again = to.join(path.file_name().unwrap());
        assert!(fs::read(&path).unwrap() == fs::read(again).unwrap());
    }
    assert!(bucket.unfinished_uploads().unwrap().is_empty());
    let stored = &emulator.objects()["some/place/large"];
    assert!(stored.bytes() == large);
    assert!(stored.etag.ends_with("-3"), "{}", stored.etag);
    let nvme = crc_fast::CrcAlgorithm::Crc64Nvme;
    assert_eq!(stored.crc64, crc_fast::checksum(nvme, &large));
}

#[test]
fn who_calls_is_recorded_and_strangers_are_refused() {
    let emulator = Emulator::start(Profile::Aws);
    let worker = Bucket::new(BUCKET, emulator.access("worker-1"));
    worker.put("object", b"abc".to_vec()).unwrap();
    let refused = Bucket::new(BUCKET, stranger(&emulator)).get("object");
    assert!(
        refused
            .unwrap_err()
            .to_string()
            .contains("InvalidAccessKeyId")
    );
    let history = emulator.history();
    let [put, get] = &history.requests[..] else {
        panic!("{history:#?}")
    };
    assert_eq!((put.operation, put.status), (Operation::Put, Some(200)));
    assert_eq!(
        (put.access_key.as_str(), put.key.as_str()),
        ("worker-1", "object")
    );
    let received = put.received.as_ref().unwrap();
    assert_eq!(
        (received.bytes, put.etag.as_ref()),
        (3, Some(&received.md5))
    );
    assert_eq!(received.md5, "900150983cd24fb0d6963f7d28e17f72");
    assert_eq!(put.effect.unwrap().ordinal, 0);
    assert!(put.arrived <= put.effect.unwrap().at && put.ended <= Some(get.arrived));
    assert_eq!((get.status, get.effect), (Some(403), None));
}

#[test]
fn a_held_put_happens_after_what_overtook_it_even_if_nobody_waits() {
    let emulator = Emulator::start(Profile::Aws);
    let hold = emulator.add(Fault::new(Action::Hold(None)).key("held").times(1));
    let access = emulator.access("late");
    let late =
        std::thread::spawn(move || Bucket::new(BUCKET, access).put("held", b"late".to_vec()));
    hold.until_fired(1);
    let bucket = emulator.bucket();
    bucket.put("held", b"early".to_vec()).unwrap();
    assert_eq!(bucket.get("held").unwrap(), b"early");
    hold.release();
    late.join().unwrap().unwrap();
    assert_eq!(bucket.get("held").unwrap(), b"late");
    let history = emulator.history();
    let effects = history.effects();
    let keys: Vec<_> = effects.iter().map(|put| put.access_key.as_str()).collect();
    assert_eq!(keys, ["owner", "late"]);
}

#[test]
fn faults_meet_whom_they_name_as_often_as_they_say() {
    let emulator = Emulator::start(Profile::Aws);
    let bucket = emulator.bucket();
    let refusal = Action::Refuse(Refusal::SlowDown);
    let second = emulator.add(
        Fault::new(refusal)
            .on(Operation::Put)
            .key_ending_in(".safetensors")
            .by(OWNER)
            .after(1)
            .times(1),
    );
    let outcomes: Vec<bool> = (0..4)
        .map(|_| bucket.put("a.safetensors", Vec::new()).is_ok())
        .collect();
    assert_eq!(outcomes, [true, false, true, true]);
    assert_eq!(second.fired(), 1);

    let share = emulator.add(Fault::new(refusal).with_probability(0.3, 7));
    let refused = (0..100).filter(|_| bucket.put("b", Vec::new()).is_err());
    assert_eq!(refused.count() as u64, share.fired());
    assert!((15..45).contains(&share.fired()), "{}", share.fired());
    share.remove();
    assert!(bucket.put("b", Vec::new()).is_ok());
}

#[test]
fn an_answer_that_is_dropped_leaves_its_effect_and_one_that_never_was_does_not() {
    let emulator = Emulator::start(Profile::Aws);
    let bucket = emulator.bucket();
    let after = emulator.add(Fault::new(Action::DropAfter).key("after"));
    let before = emulator.add(Fault::new(Action::DropBefore).key("before"));
    assert!(bucket.put("after", Vec::new()).is_err());
    assert!(bucket.put("before", Vec::new()).is_err());
    assert_eq!((after.fired(), before.fired()), (1, 1));
    assert!(emulator.objects().keys().eq(["after"]));
    let history = emulator.history();
    assert!(history.requests.iter().all(|put| put.status.is_none()));
    assert_eq!(history.effects().len(), 1);
}

#[test]
fn bodies_are_cut_and_flipped_where_the_rule_says() {
    let emulator = Emulator::start(Profile::Aws);
    let bucket = emulator.bucket();
    bucket.put("object", vec![0; 100_000]).unwrap();
    let flip = emulator.add(Fault::new(Action::FlipBody(70_000)).times(1));
    let got = bucket.get("object").unwrap();
    assert_eq!(got.iter().position(|byte| *byte == 1), Some(70_000));
    assert_eq!(flip.fired(), 1);
    let cut = emulator.add(Fault::new(Action::TruncateBody(70_000)).times(1));
    assert!(bucket.get("object").is_err());
    assert_eq!(cut.fired(), 1);
    assert!(bucket.get("object").unwrap() == vec![0; 100_000]);
}

#[test]
fn what_the_store_damages_itself_keeps_the_digests_of_what_was_sent() {
    let emulator = Emulator::start(Profile::Aws);
    let bucket = emulator.bucket();
    let damage = emulator.add(Fault::new(Action::CorruptStored(1)).on(Operation::Put));
    bucket.put("object", b"abc".to_vec()).unwrap();
    assert_eq!(damage.fired(), 1);
    assert_eq!(bucket.get("object").unwrap(), b"acc");
    let stored = &emulator.objects()["object"];
    assert_eq!(stored.etag, "900150983cd24fb0d6963f7d28e17f72");
    let nvme = crc_fast::CrcAlgorithm::Crc64Nvme;
    assert_eq!(stored.crc64, crc_fast::checksum(nvme, b"abc"));
}
