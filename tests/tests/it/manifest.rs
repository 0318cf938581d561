//! The manifest tells the truth about every file that it lists.

use std::fs;

use serde_json::Value;

use crate::scene::{MANIFEST, STATE, Scene, small};

/// CRC-64/NVME bit by bit, as its definition has it: polynomial
/// 0xad93d23594c93659, reflected, all ones in and out.
fn crc64_nvme(bytes: &[u8]) -> u64 {
    const REFLECTED: u64 = 0xad93_d235_94c9_3659_u64.reverse_bits();
    let mut crc = u64::MAX;
    for byte in bytes {
        crc ^= u64::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (REFLECTED & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

#[test]
fn the_checksum_of_the_test_is_the_catalogued_one() {
    assert_eq!(crc64_nvme(b"123456789"), 0xae8b_1486_0a79_9888);
}

#[test]
fn every_file_is_listed_with_its_size_and_checksum_however_it_was_cut() {
    let scene = Scene::with(&small(11));
    for cut in [
        &["--part-size", "4096", "--workers", "3"][..],
        &["--part-size", "64KiB", "--shard-size", "200000"],
        &[],
    ] {
        scene.run(cut).expect_code(0);
        let out = scene.out();
        let manifest: Value =
            serde_json::from_slice(&fs::read(out.join(MANIFEST)).unwrap()).unwrap();
        assert_eq!(manifest["state"], "complete");
        let mut listed: Vec<String> = Vec::new();
        for output in manifest["outputs"].as_array().unwrap() {
            let path = output["path"].as_str().unwrap();
            let bytes = fs::read(out.join(path)).unwrap();
            assert_eq!(output["size"], bytes.len(), "{path}");
            assert_eq!(
                output["crc64nvme"],
                format!("{:016x}", crc64_nvme(&bytes)),
                "{path}"
            );
            listed.push(path.to_owned());
        }
        listed.push(MANIFEST.to_owned());
        listed.sort();
        let mut found: Vec<String> = fs::read_dir(&out)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        found.sort();
        assert_eq!(listed, found, "nothing else stands there, {STATE} neither");
        fs::remove_dir_all(out).unwrap();
    }
}
