//! What storage loses between a task's report and the end of the commit is put
//! again, and what it did without saying so is found out.
//!
//! The database holds each job at a known step: it refuses the write that ends
//! the step until the test has done its harm.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use chatvec_tests::emulator::{Action, Fault, Operation, Profile};
use chatvec_tests::fleet::Coordinator;
use chatvec_tests::process::{Process, Signal};
use chatvec_tests::published::{assert_same, read};

use super::scene::{ONE_SLOT, Place, SHORT_LEASE, Scene};

/// Three weight files in the output, and an index.
const SHARDS: [&str; 2] = ["--shard-size", "40MB"];
/// The same of checkpoints of 10 MB: two weight files.
const TINY_SHARDS: [&str; 2] = ["--shard-size", "6MB"];
/// What a coordinator says whose write is refused.
const STOPPED: &str = "job could not be published";
/// The write that begins a commit.
const BEGINS_COMMIT: &str = "NEW.state = 'COMMITTING'";

/// A job at a step that its coordinator tries again and again.
struct Held<'a> {
    scene: &'a Scene,
    coordinator: Coordinator,
    _worker: Process,
    shards: [&'static str; 2],
    job: String,
}

impl<'a> Held<'a> {
    /// Submits a job, and waits until an update to which this applies is refused.
    fn at(scene: &'a Scene, shards: [&'static str; 2], table: &str, refused: &str) -> Self {
        scene.fleet.refuse(table, refused);
        let mut coordinator = scene.fleet.serve(&SHORT_LEASE);
        let worker = scene.fleet.worker(&coordinator.address, &[]);
        let job = scene.submit(&coordinator.address, "out", &shards);
        assert!(coordinator.process.says(STOPPED), "it is stopped");
        Self {
            scene,
            coordinator,
            _worker: worker,
            shards,
            job,
        }
    }

    /// With every task done and every file staged, and nothing published.
    fn before_the_commit(scene: &'a Scene, shards: [&'static str; 2]) -> Self {
        let held = Self::at(scene, shards, "job", BEGINS_COMMIT);
        assert_eq!(count(scene, "task", "state <> 'DONE'"), 0);
        held
    }

    /// Lets it go on, and demands that it publishes the right bytes.
    #[track_caller]
    fn succeeds(self) {
        self.scene.fleet.allow();
        self.scene.succeeds(&self.coordinator.address, &self.job);
        let expected = self.scene.expected_with(&self.shards);
        assert_same(&self.scene.fleet.published("out"), &expected);
        self.scene.fleet.assert_nothing_else(&["out"]);
    }
}

/// How many rows of a table a condition applies to.
fn count(scene: &Scene, table: &str, condition: &str) -> usize {
    let sql = format!("SELECT count(*) FROM {table} WHERE {condition}");
    scene.fleet.postgres.query(&sql).parse().expect("a number")
}

/// Aborts the uploads of these files; how many there were.
fn lose(scene: &Scene, is_lost: impl Fn(&str) -> bool) -> usize {
    let bucket = &scene.fleet.bucket;
    let mut keys = bucket.unfinished_uploads().expect("listed");
    keys.retain(|key| is_lost(key));
    for key in &keys {
        assert_eq!(bucket.abort_uploads(key).expect("aborted"), 1, "{key}");
    }
    keys.len()
}

fn is_weight(key: &str) -> bool {
    key.ends_with(".safetensors")
}

#[test]
fn uploads_of_weight_files_that_are_lost_are_put_again_within_the_commit() {
    let scene = Scene::of_many_tasks();
    let held = Held::before_the_commit(&scene, SHARDS);
    let lost = lose(&scene, |key| is_weight(key) && !key.contains("00001-of"));
    assert_eq!(lost, 2, "one file of three stays whole");
    held.succeeds();
    // The tasks of the two ran again, and no others.
    let again = count(&scene, "task", "attempt > 1");
    assert_eq!(again, count(&scene, "task", "file_no > 0"));
    assert_eq!(
        count(&scene, "task", "attempt > 1 AND file_no > 0"),
        again,
        "the whole file's tasks are left alone"
    );
}

#[test]
fn uploads_of_small_files_that_are_lost_are_staged_again_and_no_task_runs() {
    let scene = Scene::of_many_tasks();
    let held = Held::before_the_commit(&scene, SHARDS);
    let lost = lose(&scene, |key| !is_weight(key));
    assert!(lost >= 4, "side files, statistics, card and index: {lost}");
    held.succeeds();
    assert_eq!(count(&scene, "task", "attempt > 1"), 0);
    assert_eq!(count(&scene, "upload", "state = 'ABORTED'"), lost);
}

#[test]
fn objects_whose_completion_was_never_recorded_are_known_by_what_they_bear() {
    let scene = Scene::of_many_tasks();
    let held = Held::at(&scene, SHARDS, "upload", "NEW.state = 'COMPLETED'");
    let published = scene.fleet.bucket.keys("out").expect("listed");
    assert!(published.iter().any(|key| is_weight(key)), "{published:?}");
    held.succeeds();
    assert_eq!(count(&scene, "task", "attempt > 1"), 0);
}

#[test]
fn completions_without_an_answer_are_settled_where_the_upload_is_gone_after_them() {
    let scene = Scene::on_emulator(Profile::Minio);
    let unanswered = Fault::new(Action::DropAfter).on(Operation::CompleteUpload);
    let unanswered = scene.fleet.emulator().add(unanswered.times(3));
    let held = Held::before_the_commit(&scene, TINY_SHARDS);
    held.succeeds();
    assert_eq!(unanswered.fired(), 3);
    assert_eq!(count(&scene, "task", "attempt > 1"), 0);
}

#[test]
fn a_late_part_of_the_same_bytes_under_another_id_is_adopted() {
    let scene = Scene::on_emulator(Profile::Kms);
    let held = Held::before_the_commit(&scene, TINY_SHARDS);
    let emulator = scene.fleet.emulator();
    let uploads = emulator.open_uploads();
    let upload = uploads.iter().find(|upload| is_weight(&upload.key));
    let upload = upload.expect("a weight file is unfinished");
    let bytes = upload.parts[&1].chunks.concat();
    let late = scene.fleet.bucket.put_part(&upload.key, 0, bytes);
    late.expect("put");
    held.succeeds();
    assert!(emulator.history().of(Operation::ListParts).count() > 0);
    assert_eq!(count(&scene, "task", "attempt > 1"), 0);
}

#[test]
fn a_late_part_of_other_bytes_is_put_again_and_never_published() {
    let scene = Scene::on_emulator(Profile::Aws);
    let held = Held::before_the_commit(&scene, TINY_SHARDS);
    let uploads = scene.fleet.emulator().open_uploads();
    let upload = uploads.iter().find(|upload| is_weight(&upload.key));
    let upload = upload.expect("a weight file is unfinished");
    let mut bytes = upload.parts[&1].chunks.concat();
    bytes[0] ^= 1;
    let late = scene.fleet.bucket.put_part(&upload.key, 0, bytes);
    late.expect("put");
    held.succeeds();
    assert_eq!(count(&scene, "task", "attempt > 1"), 1);
}

/// As by a coordinator that was held up in its completion of the same upload.
#[test]
fn an_upload_that_is_completed_under_its_repair_is_found_complete() {
    let scene = Scene::on_emulator(Profile::Minio);
    let Held {
        mut coordinator,
        _worker: worker,
        job,
        ..
    } = Held::before_the_commit(&scene, TINY_SHARDS);
    worker.kill();
    let uploads = scene.fleet.emulator().open_uploads();
    let upload = uploads.iter().find(|upload| is_weight(&upload.key));
    let upload = upload.expect("a weight file is unfinished");
    let right: Vec<_> = upload
        .parts
        .values()
        .map(|part| part.chunks.concat())
        .collect();
    let mut wrong = right[0].clone();
    wrong[0] ^= 1;
    let bucket = &scene.fleet.bucket;
    bucket.put_part(&upload.key, 0, wrong).expect("put");
    scene.fleet.allow();
    assert!(coordinator.process.says("their tasks run again"));
    bucket.complete(&upload.key, right).expect("completed");
    let _worker = scene.fleet.worker(&coordinator.address, &[]);
    scene.succeeds(&coordinator.address, &job);
    assert_same(
        &scene.fleet.published("out"),
        &scene.expected_with(&TINY_SHARDS),
    );
    scene.fleet.assert_nothing_else(&["out"]);
    assert_eq!(count(&scene, "task", "error_kind = 'UPLOAD_GONE'"), 1);
    assert_eq!(count(&scene, "task", "failures > 0"), 0);
}

#[test]
fn an_upload_that_is_gone_before_its_tasks_are_done_fails_the_job_and_says_why() {
    let scene = Scene::of_many_tasks();
    let coordinator = scene.fleet.serve(&SHORT_LEASE);
    let worker = scene.fleet.worker(&coordinator.address, &ONE_SLOT);
    let job = scene.submit(&coordinator.address, "out", &[]);
    scene.until_under_way(&coordinator.address, &job);
    worker.freeze();
    assert_eq!(lose(&scene, is_weight), 1);
    worker.signal(Signal::CONT);
    let job = scene.fails(&coordinator.address, &job);
    assert_eq!(job["error"]["kind"], "UPLOAD_GONE", "{job:#}");
    let job = job.to_string();
    assert!(job.contains("the upload is gone"), "{job}");
    scene.fleet.assert_nothing_else(&[]);
}

#[test]
fn parts_that_a_power_cut_took_after_their_report_are_made_again_before_the_commit() {
    let scene = Scene::tiny();
    scene.fleet.refuse("job", BEGINS_COMMIT);
    let mut coordinator = scene.fleet.serve(&SHORT_LEASE);
    let _worker = scene.fleet.worker(&coordinator.address, &[]);
    let out = scene.at(Place::Disk, "out");
    let merge = scene.merge(Place::Disk, &out);
    let job = scene.fleet.submit(&coordinator.address, &merge, &[]);
    assert!(coordinator.process.says(STOPPED), "it is stopped");
    let unfinished = Path::new(&out).join(".chatvec").join(&job);
    let weights = File::options()
        .write(true)
        .open(unfinished.join("model.safetensors"));
    let weights = weights.expect("it is unfinished");
    weights
        .write_all_at(&[0xff; 4096], 6 << 20)
        .expect("written");
    // As if the machine had started anew since the job was planned.
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("read");
    scene.fleet.postgres.query(&format!(
        "UPDATE job_plan SET plan = convert_to(
             replace(convert_from(plan, 'UTF8'), '{}', 'another boot'), 'UTF8')",
        boot.trim()
    ));
    scene.fleet.allow();
    scene.succeeds(&coordinator.address, &job);
    assert_same(&read(Path::new(&out)), &scene.expected());
    assert_eq!(count(&scene, "task", "attempt > 1"), 1);
}
