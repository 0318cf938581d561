use std::fs;

use super::*;

fn spec() -> FamilySpec {
    FamilySpec {
        layers: 1,
        hidden: 64,
        intermediate: 96,
        vocab: 300,
        shard_bytes: 60_000,
        ..FamilySpec::tiny(11)
    }
}

fn first_shard(checkpoint: &Path) -> Vec<u8> {
    let mut shards: Vec<_> = fs::read_dir(checkpoint)
        .expect("listed")
        .map(|entry| entry.expect("listed").path())
        .filter(|path| {
            path.extension()
                .is_some_and(|ending| ending == "safetensors")
        })
        .collect();
    shards.sort();
    fs::read(&shards[0]).expect("read")
}

#[test]
fn the_safetensors_library_reads_every_file() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let family = spec()
        .write(&folder.path().join("family"))
        .expect("written");
    let mut names = Vec::new();
    for entry in fs::read_dir(family.cp()).expect("listed") {
        let path = entry.expect("listed").path();
        if path
            .extension()
            .is_some_and(|ending| ending == "safetensors")
        {
            let bytes = fs::read(&path).expect("read");
            let file = safetensors::SafeTensors::deserialize(&bytes).expect("valid");
            names.extend(file.names().into_iter().map(str::to_owned));
        }
    }
    assert_eq!(names.len(), 1 + 9 + 2);
    let index = fs::read(family.cp().join("model.safetensors.index.json")).expect("an index");
    let index: serde_json::Value = serde_json::from_slice(&index).expect("JSON");
    assert!(
        names
            .iter()
            .all(|name| index["weight_map"][name].is_string())
    );
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_seed_others() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let shard = |seed: u64, name: &str| {
        let family = FamilySpec { seed, ..spec() }
            .write(&folder.path().join(name))
            .expect("written");
        first_shard(&family.chat())
    };
    let first = shard(1, "a");
    assert!(first == shard(1, "b"));
    assert!(first != shard(2, "c"));
}

#[test]
fn members_are_close_relatives_and_not_twins() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let family = spec()
        .write(&folder.path().join("family"))
        .expect("written");
    let (base, chat) = (first_shard(&family.base()), first_shard(&family.chat()));
    assert_eq!(base.len(), chat.len());
    let equal = base.iter().zip(&chat).filter(|(a, b)| a == b).count();
    assert!(equal > base.len() / 4 && equal < base.len());
}

#[test]
fn a_family_is_written_once_and_again_when_its_spec_changes() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let root = folder.path().join("family");
    let family = spec().write(&root).expect("written");
    let witness = family.cp().join("witness");
    fs::write(&witness, "").expect("a file beside the weights");
    spec().write(&root).expect("found");
    assert!(witness.exists());
    FamilySpec { seed: 99, ..spec() }
        .write(&root)
        .expect("written again");
    assert!(!witness.exists());
}
