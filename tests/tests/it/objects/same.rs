//! The emulator against a real store: the same calls give the same answers.

use std::fmt::Debug;

use bytes::Bytes;
use chatvec::storage::object::{ObjectError, ObjectInfo, ObjectUrl, Put, probe};
use chatvec_core::ids::PartOrdinal;
use chatvec_tests::component::{Access, BUCKET, Identity, SeaweedFs};
use chatvec_tests::emulator::{Emulator, Profile};
use chatvec_tests::process::{self, Process};

use super::scene::{Client, NONCE, PART_BYTES, body, bytes};

/// Where the real store does otherwise than S3, and what comes of it there.
const KNOWN_DIFFERENCES: [(&str, &str); 2] = [
    // It tells the checksum of a part to who puts it, and to nobody later.
    ("checksums of parts listed", "[None, None, None]"),
    // It keeps every part that it was given, and takes the one that is named.
    ("a part that was replaced", "done"),
];

/// What was asked, and what came of it.
type Transcript = Vec<(&'static str, String)>;

#[test]
fn the_emulator_answers_as_a_real_store_does() {
    let (real, emulator) = (SeaweedFs::start(), Emulator::start(Profile::Aws));
    let found = transcript(&real.access(Identity::Owner));
    let expected = transcript(&emulator.access("chatvec"));
    let answers = found.iter().zip(&expected);
    let differences: Vec<_> = answers
        .filter(|(real, emulated)| real != emulated)
        .map(|((what, real), _)| (*what, real.as_str()))
        .collect();
    assert_eq!(differences, KNOWN_DIFFERENCES);
    assert_eq!(found.len(), expected.len());
}

#[test]
fn the_probe_finds_either_store_fit() {
    let (real, emulator) = (SeaweedFs::start(), Emulator::start(Profile::Aws));
    let weak = |access: &Access| {
        let client = Client::of(access);
        let url = ObjectUrl::parse(&format!("s3://{BUCKET}/probed")).expect("a URL");
        let findings = client.run(probe(&client.bucket, &url)).expect("probed");
        let weak = findings.iter().filter(|finding| finding.weakness.is_some());
        weak.map(|finding| finding.promise.name())
            .collect::<Vec<_>>()
    };
    assert_eq!(weak(&real.access(Identity::Owner)), [""; 0]);
    assert_eq!(weak(&emulator.access("chatvec")), [""; 0]);
    assert!(
        emulator.objects().is_empty(),
        "the probe removes what it wrote"
    );
    assert!(emulator.open_uploads().is_empty());
}

#[test]
fn the_doctor_finds_every_profile_fit() {
    for profile in [Profile::Aws, Profile::Minio, Profile::R2, Profile::Kms] {
        let emulator = Emulator::start(profile);
        let mut command = process::command(["doctor", "--storage"]);
        command
            .arg(format!("s3://{BUCKET}/probed"))
            .envs(emulator.access("doctor").environment());
        let told = Process::start(command).wait().expect_code(0).stdout;
        assert!(told.contains("kept") && !told.contains("BROKEN"), "{told}");
    }
}

/// One after the other, everything that chatvec asks of a store.
fn transcript(access: &Access) -> Transcript {
    let client = Client::of(access);
    let mut steps = Transcript::new();
    objects(&client, &mut steps);
    uploads(&client, &mut steps);
    refused_uploads(&client, &mut steps);
    strangers(access, &mut steps);
    steps
}

fn objects(client: &Client, steps: &mut Transcript) {
    let bucket = &client.bucket;
    let mut step = |what, came: String| steps.push((what, came));
    let put_new = |key: &str| client.run(bucket.put_new(key, Bytes::from(bytes(1_000)), NONCE));
    let over = |etag: &str| {
        let bytes = Bytes::from_static(b"replaced");
        told(client.run(bucket.put_over("a/one", bytes, NONCE, etag)))
    };
    step("head of nothing", told(client.run(bucket.head("a/one"))));
    step(
        "read of nothing",
        told(client.run(bucket.read_whole("a/one", 10))),
    );
    step("list of nothing", told(client.run(bucket.list("a"))));
    step(
        "replace nothing",
        over("\"d41d8cd98f00b204e9800998ecf8427e\""),
    );
    let put = put_new("a/one").expect("put");
    let Put::Done { etag } = &put else {
        panic!("nothing stood there")
    };
    step("put", told(Ok(&put)));
    step("put where something stands", told(put_new("a/one")));
    step("head", told(client.run(bucket.head("a/one"))));
    let range = |range| {
        told(
            client
                .run(bucket.read_range("a/one", etag, range))
                .map(|chunks| chunks.concat()),
        )
    };
    step("range", range(10..20));
    step("range up to the end", range(990..1_000));
    step("range beyond the end", range(2_000..2_010));
    step(
        "whole",
        told(
            client
                .run(bucket.read_whole("a/one", 1_000))
                .map(|read| read.1),
        ),
    );
    step(
        "replace another",
        over("\"d41d8cd98f00b204e9800998ecf8427e\""),
    );
    step("replace", over(etag));
    step("range of the replaced one", range(10..20));
    for key in ["a/two", "a/b/three", "a/b c+d/four%25", "ab"] {
        put_new(key).expect("put");
    }
    // Nobody relies on the order, and the real store sorts folder by folder.
    let sorted = |mut objects: Vec<ObjectInfo>| {
        objects.sort_by(|a, b| a.key.cmp(&b.key));
        objects
    };
    step("list", told(client.run(bucket.list("a")).map(sorted)));
    step("list folder", told(client.run(bucket.list_folder("a"))));
    step("list all", told(client.run(bucket.list("")).map(sorted)));
    step("delete", told(client.run(bucket.delete("a/one"))));
    step("delete again", told(client.run(bucket.delete("a/one"))));
    step("list after", told(client.run(bucket.list_folder("a"))));
}

fn uploads(client: &Client, steps: &mut Transcript) {
    const KEY: &str = "u/object";
    let bucket = &client.bucket;
    let mut step = |what, came: String| steps.push((what, came));
    let id = client.create_upload(KEY);
    // What ids look like is the store's affair.
    let known = |listed: Result<Option<Vec<String>>, ObjectError>| {
        told(listed.map(|ids| ids.map(|ids| ids.iter().filter(|found| **found == id).count())))
    };
    step("upload listed", known(client.run(bucket.list_uploads(KEY))));
    let first = vec![1; PART_BYTES];
    let parts = [&first[..], &first[..], b"rest"];
    let ids: Vec<String> = (0..)
        .zip(parts)
        .map(|(part, bytes)| client.put_part(KEY, &id, part, bytes).expect("put"))
        .collect();
    step("part", ids[2].clone());
    let listed = client.run(bucket.list_parts(KEY, &id)).expect("listed");
    let listed = listed.expect("the store can tell");
    let sizes: Vec<_> = listed.iter().map(|part| (part.part, part.size)).collect();
    step("parts listed", format!("{sizes:?}"));
    let checksums: Vec<_> = listed.iter().map(|part| part.crc64).collect();
    step("checksums of parts listed", format!("{checksums:?}"));
    step(
        "nothing before completion",
        told(client.run(bucket.head(KEY))),
    );
    step(
        "completed",
        told(client.run(bucket.complete_upload(KEY, &id, ids.clone()))),
    );
    step(
        "completed again",
        told(client.run(bucket.complete_upload(KEY, &id, ids))),
    );
    step("uploaded", told(client.run(bucket.head(KEY))));
    step("uploads after", known(client.run(bucket.list_uploads(KEY))));
    let etag = client
        .run(bucket.head(KEY))
        .expect("asked")
        .expect("there")
        .etag;
    let end = PART_BYTES as u64;
    let read = bucket.read_range(KEY, &etag, 2 * end - 3..2 * end + 4);
    step(
        "range over parts",
        told(client.run(read).map(|chunks| chunks.concat())),
    );
}

fn refused_uploads(client: &Client, steps: &mut Transcript) {
    const KEY: &str = "u/refused";
    let bucket = &client.bucket;
    let mut step = |what, came: String| steps.push((what, came));
    let id = client.create_upload(KEY);
    let part = |part, bytes: &[u8]| client.put_part(KEY, &id, part, bytes).expect("put");
    let (small, last) = (part(0, b"small"), part(1, b"last"));
    let complete = |ids: Vec<String>| kind(client.run(bucket.complete_upload(KEY, &id, ids)));
    step("a part too small", complete(vec![small.clone(), last]));
    step(
        "a part of another id",
        complete(vec![small.replace('0', "1")]),
    );
    step("a part that was replaced", {
        let other = client.create_upload("u/replaced");
        let put = |bytes: &[u8]| {
            client
                .put_part("u/replaced", &other, 0, bytes)
                .expect("put")
        };
        let replaced = put(b"first");
        put(b"other");
        let ids = vec![replaced];
        kind(client.run(bucket.complete_upload("u/replaced", &other, ids)))
    });
    let mut wrong = body(b"small");
    wrong.crc64.0 ^= 1;
    // The library computes what it sends; what is compared is the answer.
    let put = client.run(bucket.put_part(KEY, &id, PartOrdinal(0), wrong, || true));
    step("a part with another checksum", kind(put));
    step("aborted", kind(client.run(bucket.abort_upload(KEY, &id))));
    step(
        "aborted again",
        kind(client.run(bucket.abort_upload(KEY, &id))),
    );
    step(
        "part after abort",
        kind(client.put_part(KEY, &id, 0, b"late")),
    );
    step(
        "list after abort",
        kind(client.run(bucket.list_parts(KEY, &id))),
    );
    step("complete after abort", complete(vec![small]));
    step("nothing came of it", told(client.run(bucket.head(KEY))));
}

fn strangers(access: &Access, steps: &mut Transcript) {
    let stranger = Client::of(&Access {
        key_id: "stranger".to_owned(),
        ..access.clone()
    });
    let bucket = &stranger.bucket;
    steps.push(("head by a stranger", kind(stranger.run(bucket.head("ab")))));
    steps.push(("list by a stranger", kind(stranger.run(bucket.list("")))));
    let put = bucket.put_new("new", Bytes::new(), NONCE);
    steps.push(("put by a stranger", kind(stranger.run(put))));
}

/// An outcome as text.
fn told<T: Debug>(outcome: Result<T, ObjectError>) -> String {
    match outcome {
        Ok(value) => format!("{value:?}"),
        Err(_) => kind(outcome),
    }
}

/// Whether it went well, or which way it failed; the words are the store's.
fn kind<T: Debug>(outcome: Result<T, ObjectError>) -> String {
    match outcome {
        Ok(_) => "done".to_owned(),
        Err(error) => {
            let text = format!("{error:?}");
            let variant = text.split([' ', '{']).next().unwrap_or_default();
            variant.to_owned()
        }
    }
}
