//! Outputs where a checkpoint stands already.

use std::fs;

use chatvec_tests::family::Member;
use chatvec_tests::process::until;
use chatvec_tests::published::assert_same;

use super::scene::{ONE_SLOT, SMALL_PARTS, Scene};

/// A file of the old checkpoint that the new one does not have.
const STALE: &str = "out/model-00009-of-00009.safetensors";

#[test]
fn an_earlier_checkpoint_is_refused_and_with_overwrite_it_stands_until_it_is_replaced_whole() {
    let scene = Scene::of_many_tasks();
    let bucket = &scene.fleet.bucket;
    bucket
        .upload(&scene.family.member(Member::Base), "out")
        .expect("uploaded");
    bucket.put(STALE, b"stale".to_vec()).expect("put");
    let coordinator = scene.fleet.serve(&SMALL_PARTS);
    let address = &coordinator.address;

    let refused = scene.submit(address, "out", &[]);
    let refused = scene.fails(address, &refused).to_string();
    assert!(
        refused.contains("s3://models/out") && refused.contains("overwrite"),
        "{refused}"
    );

    // Until what it may have left is removed, the output belongs to it.
    until("the output to be free", || {
        let sql = "SELECT count(*) FROM output_claim";
        scene.fleet.postgres.query(sql) == "0"
    });
    let worker = scene.fleet.worker(address, &ONE_SLOT);
    let job = scene.submit(address, "out", &["--overwrite"]);
    scene.until_under_way(address, &job);
    worker.freeze();
    let base = scene.family.member(Member::Base);
    for entry in fs::read_dir(base).expect("listed") {
        let path = entry.expect("listed").path();
        let name = path.file_name().expect("a name").to_str().expect("text");
        let found = bucket.get(&format!("out/{name}")).expect("it stands");
        assert!(fs::read(&path).expect("read") == found, "`{name}` differs");
    }
    assert_eq!(bucket.get(STALE).expect("it stands"), b"stale");
    worker.signal(chatvec_tests::process::Signal::CONT);
    scene.succeeds(address, &job);
    let (found, mut expected) = (scene.fleet.published("out"), scene.expected());
    // What no loader mistakes for a part of the new checkpoint stays.
    for name in found.keys() {
        assert!(
            !name.ends_with(".safetensors") || expected.contains_key(name),
            "`{name}` is stale"
        );
    }
    expected.retain(|name, _| found.contains_key(name));
    let found = found
        .into_iter()
        .filter(|(name, _)| expected.contains_key(name))
        .collect();
    assert_same(&found, &expected);
    scene.fleet.assert_nothing_else(&["out"]);
}
