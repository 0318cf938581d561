//! Merges that stop half-way: what is kept, what is made again, and what is
//! said about it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use chatvec_tests::family::FamilySpec;
use chatvec_tests::process::{self, Outcome, Process, Signal};

use crate::scene::{Merged, STATE, Scene, text};

/// Bytes of a part: so few that there are more than a hundred.
const PART_BYTES: u64 = 64 << 10;
/// Flags of every merge here.
const CUT: [&str; 4] = ["--part-size", "64KiB", "--workers", "2"];
/// Tries to catch a merge half-way. One in many is too quick.
const TRIES: usize = 20;

/// A family, and the checkpoint that an undisturbed merge makes of it.
fn scene_and_golden(seed: u64) -> (Scene, Merged) {
    let scene = Scene::with(&FamilySpec::tiny(seed));
    let golden = scene.merged(&CUT);
    (scene, golden)
}

/// The unfinished weight file, once there is one.
fn partial(scene: &Scene) -> Option<PathBuf> {
    let jobs = fs::read_dir(scene.out().join(STATE)).ok()?;
    let files = jobs.filter_map(|job| Some(job.ok()?.path().join("model.safetensors")));
    files.into_iter().find(|file| file.is_file())
}

/// How many parts of the unfinished file hold something.
fn parts_begun(scene: &Scene) -> u64 {
    let Some(file) = partial(scene).and_then(|path| File::open(path).ok()) else {
        return 0;
    };
    let parts = file
        .metadata()
        .map_or(0, |metadata| metadata.len().div_ceil(PART_BYTES));
    let mut begin = [0; 256];
    let mut is_begun = |part: &u64| {
        let read = file.read_at(&mut begin, part * PART_BYTES).unwrap_or(0);
        begin[..read].iter().any(|byte| *byte != 0)
    };
    (0..parts).filter(|part| is_begun(part)).count() as u64
}

/// A merge that has done about a third, and runs.
fn half_way(scene: &Scene, more: &[&str]) -> Process {
    for _ in 0..TRIES {
        let mut process = scene.start(&[&CUT, more].concat());
        if process.runs_until("a third of the parts", || parts_begun(scene) >= 50) {
            return process;
        }
        process.wait().expect_code(0);
        fs::remove_dir_all(scene.out()).expect("removed");
    }
    panic!("no merge was caught half-way in {TRIES} tries");
}

/// Ends a merge half-way by a signal that it may take for its end.
fn stopped_by(scene: &Scene, signal: Signal) -> Outcome {
    for _ in 0..TRIES {
        let process = half_way(scene, &[]);
        process.signal(signal);
        let outcome = process.wait();
        if outcome.code != Some(0) {
            return outcome;
        }
        fs::remove_dir_all(scene.out()).expect("removed");
    }
    panic!("no merge was stopped half-way in {TRIES} tries");
}

/// Runs the merge again, which must go on with what is kept, to the end.
#[track_caller]
fn goes_on(scene: &Scene, golden: &Merged) {
    let outcome = scene
        .run(&[&CUT[..], &["-o", "json"]].concat())
        .expect_code(0);
    assert!(
        outcome.json()["resumed_bytes"].as_u64() > Some(0),
        "{outcome:#?}"
    );
    assert!(
        outcome.stderr.contains("going on with an unfinished merge"),
        "{outcome:#?}"
    );
    scene.take().assert_same(golden);
}

/// The same bytes anew: only the time of modification tells.
fn rewrite(path: &Path) {
    let bytes = fs::read(path).expect("read");
    fs::write(path, bytes).expect("written");
}

#[test]
fn a_part_that_was_damaged_on_disk_is_made_again() {
    let (scene, golden) = scene_and_golden(30);
    stopped_by(&scene, Signal::KILL);
    let path = partial(&scene).expect("it was stopped half-way");
    let file = File::options()
        .read(true)
        .write(true)
        .open(path)
        .expect("opened");
    let parts = file.metadata().expect("known").len() / PART_BYTES;
    // The last bit of every second part.
    for part in (0..parts).step_by(2) {
        let at = (part + 1) * PART_BYTES - 1;
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).expect("read");
        file.write_all_at(&[byte[0] ^ 1], at).expect("written");
    }
    let outcome = scene.run(&CUT).expect_code(0);
    assert!(
        outcome
            .stderr
            .contains("did not hold what was written, and will be done again"),
        "{outcome:#?}"
    );
    assert!(
        outcome.stdout.contains("resumed"),
        "the other parts are kept: {outcome:#?}"
    );
    scene.take().assert_same(&golden);
}

#[test]
fn an_unfinished_file_that_is_gone_is_made_again() {
    let (scene, golden) = scene_and_golden(31);
    stopped_by(&scene, Signal::KILL);
    fs::remove_file(partial(&scene).expect("it was stopped half-way")).expect("removed");
    scene.run(&CUT).expect_code(0);
    scene.take().assert_same(&golden);
}

#[test]
fn a_signal_to_stop_keeps_what_is_done_and_says_how_to_go_on() {
    let (scene, golden) = scene_and_golden(32);
    for signal in [Signal::INT, Signal::TERM] {
        let outcome = stopped_by(&scene, signal).expect_code(130);
        assert!(
            outcome
                .stderr
                .contains("the same command goes on from there"),
            "{outcome:#?}"
        );
        assert_eq!(outcome.stdout, "");
        goes_on(&scene, &golden);
    }
}

#[test]
fn an_input_that_changed_between_two_runs_is_named_with_the_way_out() {
    let (scene, golden) = scene_and_golden(33);
    stopped_by(&scene, Signal::KILL);
    let name = "model-00002-of-00002.safetensors";
    rewrite(&scene.family.chat().join(name));
    for _ in 0..2 {
        let outcome = scene.run(&CUT).expect_code(2);
        assert!(
            outcome
                .stderr
                .contains(text(&scene.family.chat().join(name))),
            "{outcome:#?}"
        );
        assert!(outcome.stderr.contains("`--restart`"), "{outcome:#?}");
        assert!(!outcome.stderr.contains("model-00001"), "{outcome:#?}");
    }
    let outcome = scene
        .run(&[&CUT[..], &["--restart"]].concat())
        .expect_code(0);
    assert!(!outcome.stdout.contains("resumed"), "{outcome:#?}");
    scene.take().assert_same(&golden);
}

#[test]
fn an_input_that_changed_before_the_plan_stood_is_no_hindrance() {
    let scene = Scene::with(&FamilySpec::tiny(34));
    let mut started_over = 0;
    for _ in 0..TRIES {
        // The unfinished file appears while the job is being planned.
        let mut process = scene.start(&CUT);
        assert!(process.runs_until("the unfinished file", || partial(&scene).is_some()));
        process.kill();
        rewrite(&scene.family.chat().join("model-00001-of-00002.safetensors"));
        let outcome = scene.run(&CUT);
        match outcome.code {
            Some(2) => assert!(
                outcome.stderr.contains("changed since the merge began"),
                "{outcome:#?}"
            ),
            _ => {
                outcome.expect_code(0);
                Merged::read(&scene.out());
                started_over += 1;
            }
        }
        fs::remove_dir_all(scene.out()).expect("removed");
    }
    assert!(started_over > 0, "no kill came before the plan stood");
}

#[test]
fn another_recipe_does_not_touch_an_unfinished_merge() {
    let (scene, golden) = scene_and_golden(35);
    stopped_by(&scene, Signal::KILL);
    let outcome = process::run(scene.args("0.8", &CUT)).expect_code(2);
    assert!(
        outcome
            .stderr
            .contains("unfinished merge of another recipe"),
        "{outcome:#?}"
    );
    assert!(outcome.stderr.contains("`--restart`"), "{outcome:#?}");
    goes_on(&scene, &golden);
}

#[test]
fn a_second_process_is_told_which_one_is_at_work() {
    let (scene, golden) = scene_and_golden(36);
    let first = half_way(&scene, &[]);
    first.freeze();
    for more in [&[][..], &["--restart"]] {
        let second = scene.run(&[&CUT, more].concat()).expect_code(75);
        assert!(
            second.stderr.contains(&format!("pid {}", first.id())),
            "{second:#?}"
        );
    }
    first.signal(Signal::CONT);
    first.wait().expect_code(0);
    scene.take().assert_same(&golden);
}

#[test]
fn a_finished_merge_that_is_run_again_does_nothing() {
    let scene = Scene::with(&FamilySpec::tiny(37));
    scene.run(&CUT).expect_code(0);
    let times = || -> BTreeMap<_, _> {
        let entries = fs::read_dir(scene.out())
            .expect("listed")
            .map(|entry| entry.expect("listed"));
        let entries = entries.map(|entry| (entry.file_name(), entry.metadata().expect("known")));
        entries
            .map(|(name, found)| (name, (found.ino(), found.mtime(), found.mtime_nsec())))
            .collect()
    };
    let before = times();
    for more in [&[][..], &["--restart"]] {
        let outcome = scene.run(&[&CUT, more].concat()).expect_code(0);
        assert!(outcome.stdout.contains("already published"), "{outcome:#?}");
        assert_eq!(times(), before);
    }
}

#[test]
fn an_input_that_changes_during_the_merge_fails_it_and_leaves_nothing() {
    type Change = fn(&Path);
    let changes: [(&str, Change); 3] = [
        ("rewritten", rewrite),
        ("longer", |path| {
            let mut bytes = fs::read(path).expect("read");
            bytes.push(0);
            fs::write(path, bytes).expect("written");
        }),
        ("removed", |path| fs::remove_file(path).expect("removed")),
    ];
    for (what, change) in changes {
        let scene = Scene::with(&FamilySpec::tiny(38));
        let process = half_way(&scene, &[]);
        process.freeze();
        change(&scene.family.chat().join("model-00001-of-00002.safetensors"));
        change(&scene.family.chat().join("model-00002-of-00002.safetensors"));
        process.signal(Signal::CONT);
        let outcome = process.wait().expect_code(1);
        assert!(
            outcome.stderr.contains(text(&scene.family.chat())),
            "{what}: {outcome:#?}"
        );
        assert!(!scene.out().exists(), "{what}");
    }
}

#[test]
fn what_a_run_left_that_died_after_publishing_is_removed_by_the_next() {
    let (scene, golden) = scene_and_golden(50);
    let process = half_way(&scene, &[]);
    process.freeze();
    let copy = scene.path("state");
    copy_tree(&scene.out().join(STATE), &copy);
    process.signal(Signal::CONT);
    process.wait().expect_code(0);
    copy_tree(&copy, &scene.out().join(STATE));
    let outcome = scene.run(&CUT).expect_code(0);
    assert!(outcome.stdout.contains("already published"), "{outcome:#?}");
    scene.take().assert_same(&golden);
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir(to).expect("made");
    for entry in fs::read_dir(from).expect("listed") {
        let from = entry.expect("listed").path();
        let to = to.join(from.file_name().expect("a name"));
        match from.is_dir() {
            true => copy_tree(&from, &to),
            false => drop(fs::copy(from, to).expect("copied")),
        }
    }
}

#[test]
fn an_unfinished_merge_over_a_finished_one_leaves_it_alone_and_is_kept() {
    let (scene, golden) = scene_and_golden(51);
    scene.run(&CUT).expect_code(0);
    // A checkpoint of another λ is to replace it, and stops half-way.
    let other = [&CUT[..], &["--overwrite"]].concat();
    let mut process = Process::start(process::command(scene.args("0.8", &other)));
    assert!(process.runs_until("some parts", || parts_begun(&scene) >= 50));
    process.kill();
    let outcome = scene.run(&CUT).expect_code(0);
    assert!(outcome.stdout.contains("already published"), "{outcome:#?}");
    for (name, bytes) in &golden.files {
        assert!(
            fs::read(scene.out().join(name)).expect("read") == *bytes,
            "{name}"
        );
    }
    let outcome = process::run(scene.args("0.8", &other)).expect_code(0);
    assert!(outcome.stdout.contains("resumed"), "{outcome:#?}");
    scene.prove(&scene.take(), &scene.expectation(0.8));
}

/// Runs this test again where a small filesystem is mounted on a folder that
/// only it sees. `None` in the outer run, when the inner one has passed.
fn inside_a_small_disk(test: &str) -> Option<PathBuf> {
    const FOLDER: &str = "CHATVEC_TEST_SMALL_DISK";
    if let Some(folder) = std::env::var_os(FOLDER) {
        return Some(folder.into());
    }
    let folder = tempfile::tempdir().expect("a folder for the test");
    let script = "mount -t tmpfs -o size=1m none \"$1\" && exec \"$2\" --exact \"$3\"";
    let mut command = Command::new("unshare");
    command.args([
        "--user",
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
        script,
        "sh",
    ]);
    command
        .arg(folder.path())
        .arg(std::env::current_exe().expect("known"));
    command
        .arg(format!("resume::{test}"))
        .env(FOLDER, folder.path());
    let outcome = Process::start(command).wait().expect_code(0);
    assert!(outcome.stdout.contains("1 passed"), "{outcome:#?}");
    None
}

#[test]
fn a_full_disk_keeps_what_is_done_until_there_is_room() {
    let test = "a_full_disk_keeps_what_is_done_until_there_is_room";
    let Some(disk) = inside_a_small_disk(test) else {
        return;
    };
    let resize = |size: &str| {
        let mut command = Command::new("mount");
        command
            .args(["-o", &format!("remount,size={size}"), "none"])
            .arg(&disk);
        Process::start(command).wait().expect_code(0);
    };
    let scene = Scene::with(&FamilySpec::tiny(52)).with_out(disk.join("out"));
    resize("64m");
    let golden = scene.merged(&CUT);
    // The weights do not fit, or they fit and the rest does not.
    // At the last size the job store itself runs out of room.
    for size in ["64k", "1m", "9m", "10m", "12000k"] {
        resize(size);
        for _ in 0..2 {
            let outcome = scene.run(&CUT).expect_code(75);
            let is_told = ["No space left on device", "disk is full"]
                .iter()
                .any(|cause| outcome.stderr.contains(cause));
            assert!(is_told, "{outcome:#?}");
            let goes_on = outcome
                .stderr
                .contains("the same command goes on from there");
            assert!(goes_on, "{outcome:#?}");
        }
        resize("64m");
        scene.run(&CUT).expect_code(0);
        scene.take().assert_same(&golden);
    }
}
