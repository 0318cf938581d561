//! A fleet, a family in its bucket and on disk, and merges of it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use chatvec_tests::emulator::Profile;
use chatvec_tests::family::{Family, FamilySpec, Member};
use chatvec_tests::fleet::Fleet;
use chatvec_tests::process::{Process, Signal, until};
use serde_json::Value;

use crate::scene::{MANIFEST, STATS};

/// The smallest parts that S3 takes.
pub(super) const SMALL_PARTS: [&str; 2] = ["--part-size", "5MiB"];
/// The same, and nobody waits long for the dead.
pub(super) const SHORT_LEASE: [&str; 4] = ["--part-size", "5MiB", "--lease", "2"];
/// A worker that is no quicker than it must be.
pub(super) const ONE_SLOT: [&str; 4] = ["--slots", "1", "--memory", "128MiB"];

/// Files that name their job, its time, its output or its part size.
const OF_THE_JOB: [&str; 3] = [MANIFEST, STATS, "README.md"];
/// What the keys of the family begin with.
const FAMILY: &str = "family";

/// Where checkpoints lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Disk,
    Bucket,
}

/// A fleet without coordinators and workers yet.
pub(super) struct Scene {
    pub(super) fleet: Fleet,
    pub(super) family: Family,
}

fn many_tasks() -> FamilySpec {
    FamilySpec {
        layers: 4,
        hidden: 768,
        intermediate: 2048,
        heads: 12,
        kv_heads: 4,
        vocab: 12_000,
        shard_bytes: 40_000_000,
        ..FamilySpec::tiny(7)
    }
}

/// A published checkpoint: name → bytes, without those that name their job.
pub(super) type Files = BTreeMap<String, Vec<u8>>;

impl Scene {
    /// With checkpoints of 10 MB.
    pub(super) fn tiny() -> Self {
        Self::with(Fleet::start(), &FamilySpec::tiny(7))
    }

    /// With checkpoints of 87 MB in three files: a job has 19 tasks, and is met
    /// half-way.
    pub(super) fn of_many_tasks() -> Self {
        Self::with(Fleet::start(), &many_tasks())
    }

    /// With checkpoints of 10 MB in a store that does what the test wants.
    pub(super) fn on_emulator(profile: Profile) -> Self {
        Self::with(Fleet::on_emulator(profile), &FamilySpec::tiny(7))
    }

    fn with(fleet: Fleet, spec: &FamilySpec) -> Self {
        let family = spec.write(&fleet.path("family")).expect("written");
        for member in Member::ALL {
            let prefix = format!("{FAMILY}/{}", member.folder());
            let uploaded = fleet.bucket.upload(&family.member(member), &prefix);
            uploaded.expect("uploaded");
        }
        Self { fleet, family }
    }

    /// Where something of this name lies, as a recipe says it.
    pub(super) fn at(&self, place: Place, name: &str) -> String {
        match place {
            Place::Disk => self.fleet.path(name).display().to_string(),
            Place::Bucket => self.fleet.bucket.url(name),
        }
    }

    /// The flags of a merge of the family.
    pub(super) fn merge(&self, inputs: Place, out: &str) -> Vec<String> {
        let input = |member: Member| self.at(inputs, &format!("{FAMILY}/{}", member.folder()));
        let flags = [
            ("--cp", input(Member::Cp)),
            ("--chat", input(Member::Chat)),
            ("--base", input(Member::Base)),
            ("--lambda", "0.7".to_owned()),
            ("--out", out.to_owned()),
        ];
        flags
            .into_iter()
            .flat_map(|(flag, value)| [flag.to_owned(), value])
            .collect()
    }

    /// Submits a merge from bucket to bucket, and returns the job's id.
    pub(super) fn submit(&self, coordinators: &str, out: &str, more: &[&str]) -> String {
        let out = self.at(Place::Bucket, out);
        self.submit_merge(coordinators, &self.merge(Place::Bucket, &out), more)
    }

    pub(super) fn submit_merge(
        &self,
        coordinators: &str,
        merge: &[String],
        more: &[&str],
    ) -> String {
        let args: Vec<&str> = ["submit", "-o", "json"]
            .into_iter()
            .chain(more.iter().copied())
            .chain(merge.iter().map(String::as_str))
            .collect();
        let job = self.fleet.client(coordinators, &args).expect_code(0).json();
        job["job_id"].as_str().expect("a job has an id").to_owned()
    }

    /// Waits until some of a job's tasks are done and some are held by workers.
    pub(super) fn until_under_way(&self, coordinators: &str, job: &str) {
        self.fleet
            .until(coordinators, job, "the job to be under way", |job| {
                assert_eq!(job["error"], Value::Null, "{job:#}");
                assert_ne!(
                    job["state"], "SUCCEEDED",
                    "the job was too fast for this test"
                );
                job["state"] == "RUNNING"
                    && tasks(job, "tasks_leased") > 0
                    && tasks(job, "tasks_done") > 0
            });
    }

    /// Waits for the success of a job.
    #[track_caller]
    pub(super) fn succeeds(&self, coordinators: &str, job: &str) {
        let watched = self.fleet.client(coordinators, &["watch", job]);
        watched.expect_code(0);
    }

    /// Waits for a job's failure, and returns the job.
    #[track_caller]
    pub(super) fn fails(&self, coordinators: &str, job: &str) -> Value {
        let watched = self.fleet.client(coordinators, &["watch", job]);
        assert_ne!(watched.code, Some(0), "{watched:#?}");
        let job = self.fleet.get(coordinators, job);
        assert_eq!(job["state"], "FAILED", "{job:#}");
        job
    }

    /// What `chatvec merge` publishes on disk for the family.
    pub(super) fn expected(&self) -> Files {
        self.expected_with(&[])
    }

    /// The same with more flags.
    pub(super) fn expected_with(&self, more: &[&str]) -> Files {
        let out = self.at(Place::Disk, "expected");
        let more = more.iter().map(|flag| (*flag).to_owned());
        let flags = self.merge(Place::Disk, &out).into_iter().chain(more);
        let args = std::iter::once("merge".to_owned()).chain(flags);
        Process::start(self.fleet.command(args))
            .wait()
            .expect_code(0);
        read(Path::new(&out))
    }

    /// What stands in the bucket below a prefix.
    pub(super) fn published(&self, prefix: &str) -> Files {
        let folder = self.fleet.path(&format!("downloaded-{prefix}"));
        let _before = fs::remove_dir_all(&folder);
        self.fleet
            .bucket
            .download(prefix, &folder)
            .expect("only files lie below the prefix");
        read(&folder)
    }

    /// Demands that the output in the bucket is the one of `chatvec merge`, and
    /// that beside it and the family nothing is left.
    #[track_caller]
    pub(super) fn assert_as_merged(&self, out: &str) {
        assert_same(&self.published(out), &self.expected());
        self.assert_nothing_else(&[out]);
    }

    /// The same of the n-th of several outputs `out-0`, `out-1`, ….
    #[track_caller]
    pub(super) fn assert_as_merged_beside(&self, out: &str, ordinal: usize) {
        let outputs: Vec<String> = (0..=ordinal).map(|n| format!("out-{n}")).collect();
        let outputs: Vec<&str> = outputs.iter().map(String::as_str).collect();
        assert_same(&self.published(out), &self.expected());
        self.assert_nothing_else(&outputs);
    }

    /// Waits until nothing unfinished is in the bucket, and demands that nothing
    /// lies there but the family and what is below these prefixes.
    #[track_caller]
    pub(super) fn assert_nothing_else(&self, prefixes: &[&str]) {
        let bucket = &self.fleet.bucket;
        until("the unfinished uploads to end", || {
            bucket.unfinished_uploads().expect("listed").is_empty()
        });
        let known = |key: &String| {
            let mut known = std::iter::once(&FAMILY).chain(prefixes);
            known.any(|prefix| key.starts_with(&format!("{prefix}/")))
        };
        let mut keys = bucket.keys("").expect("listed");
        keys.retain(|key| !known(key));
        assert_eq!(keys, Vec::<String>::new(), "left in the bucket");
    }
}

/// Demands that two checkpoints are the same.
#[track_caller]
pub(super) fn assert_same(found: &Files, expected: &Files) {
    let names = |files: &Files| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(found), names(expected));
    for (name, bytes) in found {
        assert!(*bytes == expected[name], "`{name}` differs");
    }
}

/// The files of a finished checkpoint in a folder.
pub(super) fn read(folder: &Path) -> Files {
    let entries = fs::read_dir(folder).expect("the output is there");
    let paths = entries.map(|entry| entry.expect("listed").path());
    let files: Files = paths
        .map(|path: PathBuf| {
            let name = path.file_name().expect("an entry has a name");
            let name = name.to_str().expect("plain text").to_owned();
            let bytes = fs::read(&path).expect("there are only files");
            match OF_THE_JOB.contains(&name.as_str()) {
                true => (name, Vec::new()),
                false => (name, bytes),
            }
        })
        .collect();
    let manifest = fs::read(folder.join(MANIFEST)).expect("it has a manifest");
    let manifest: Value = serde_json::from_slice(&manifest).expect("JSON");
    assert_eq!(manifest["state"], "complete");
    files
}

pub(super) fn tasks(job: &Value, counter: &str) -> u64 {
    job["progress"][counter]
        .as_u64()
        .expect("a number of tasks")
}

/// Asks a process to stop, and checks that it does so cleanly.
#[track_caller]
pub(super) fn drain(process: Process) {
    process.signal(Signal::TERM);
    process.wait().expect_code(0);
}
