//! A published checkpoint, file by file.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;

/// Says what is complete.
pub(crate) const MANIFEST: &str = "chatvec.manifest.json";
/// Files that name their job, its time, its output or its part size.
pub(crate) const OF_THE_JOB: [&str; 3] = [MANIFEST, "chatvec.stats.json", "README.md"];

/// Name → bytes, without the bytes that name the job.
pub type Files = BTreeMap<String, Vec<u8>>;

/// Demands that two checkpoints are the same.
///
/// # Panics
/// If they are not.
#[track_caller]
pub fn assert_same(found: &Files, expected: &Files) {
    let names = |files: &Files| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(found), names(expected));
    for (name, bytes) in found {
        assert!(*bytes == expected[name], "`{name}` differs");
    }
}

/// The files of a finished checkpoint in a folder.
///
/// # Panics
/// If it is not finished, or holds folders.
pub fn read(folder: &Path) -> Files {
    let manifest = fs::read(folder.join(MANIFEST)).expect("it has a manifest");
    let manifest: Value = serde_json::from_slice(&manifest).expect("it is JSON");
    assert_eq!(manifest["state"], "complete", "{manifest:#}");
    let entries = fs::read_dir(folder).expect("the output is there");
    entries
        .map(|entry| {
            let path = entry.expect("listed").path();
            let name = path.file_name().expect("an entry has a name");
            let name = name.to_str().expect("plain text").to_owned();
            let bytes = match OF_THE_JOB.contains(&name.as_str()) {
                true => Vec::new(),
                false => fs::read(&path).expect("there are only files"),
            };
            (name, bytes)
        })
        .collect()
}
