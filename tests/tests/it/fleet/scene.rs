//! A fleet, a family in its bucket and on disk, and merges of it.

use std::path::Path;

use chatvec_tests::emulator::Profile;
use chatvec_tests::family::{Family, FamilySpec, Member};
use chatvec_tests::fleet::{FAMILY, Fleet, merge_flags};
use chatvec_tests::process::{Process, Signal};
use chatvec_tests::published::{Files, assert_same, read};
use serde_json::Value;

/// The smallest parts that S3 takes.
pub(super) const SMALL_PARTS: [&str; 2] = ["--part-size", "5MiB"];
/// The same, and nobody waits long for the dead.
pub(super) const SHORT_LEASE: [&str; 4] = ["--part-size", "5MiB", "--lease", "2"];
/// A worker that is no quicker than it must be.
pub(super) const ONE_SLOT: [&str; 4] = ["--slots", "1", "--memory", "128MiB"];

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
        Self {
            family: fleet.upload(spec),
            fleet,
        }
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
        merge_flags(input, out)
    }

    /// Submits a merge from bucket to bucket, and returns the job's id.
    pub(super) fn submit(&self, coordinators: &str, out: &str, more: &[&str]) -> String {
        let out = self.at(Place::Bucket, out);
        let merge = self.merge(Place::Bucket, &out);
        self.fleet.submit(coordinators, &merge, more)
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

    /// Demands that the output in the bucket is the one of `chatvec merge`, and
    /// that beside it and the family nothing is left.
    #[track_caller]
    pub(super) fn assert_as_merged(&self, out: &str) {
        assert_same(&self.fleet.published(out), &self.expected());
        self.fleet.assert_nothing_else(&[out]);
    }

    /// The same of the n-th of several outputs `out-0`, `out-1`, ….
    #[track_caller]
    pub(super) fn assert_as_merged_beside(&self, out: &str, ordinal: usize) {
        let outputs: Vec<String> = (0..=ordinal).map(|n| format!("out-{n}")).collect();
        let outputs: Vec<&str> = outputs.iter().map(String::as_str).collect();
        assert_same(&self.fleet.published(out), &self.expected());
        self.fleet.assert_nothing_else(&outputs);
    }
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
