//! A merge that is killed at any moment, however often, ends with the same
//! bytes when it is run again, and never shows half a checkpoint meanwhile.

use std::fs;
use std::time::Duration;

use chatvec_tests::family::FamilySpec;
use serde_json::Value;

use crate::scene::{MANIFEST, Merged, STATE, Scene};
use chatvec_tests::random::Random;

/// So small that there are more than a hundred tasks.
const CUT: [&str; 6] = ["--part-size", "64KiB", "--workers", "4", "-o", "json"];
/// Rounds that are always run.
const ROUNDS: usize = 16;
/// Rounds after which it is no bad luck that nothing was hit.
const ROUNDS_MAX: usize = 80;

#[test]
fn any_kill_is_survived_with_the_same_bytes() {
    let mut random = Random::seeded();
    let scene = Scene::with(&FamilySpec::tiny(21));
    let golden_run = scene.run(&CUT).expect_code(0);
    let golden = scene.take();

    let mut seen = Seen::default();
    for round in 0..ROUNDS_MAX {
        if round >= ROUNDS && seen.is_enough() {
            break;
        }
        // Some rounds have two or three kills in a row.
        let kills = [1, 1, 2, 3][round % 4];
        for _ in 0..kills {
            let delay = golden_run.took.mul_f64(1.05 * random.unit());
            let what = kill_after(&scene, delay, &golden, &mut seen);
            println!("killed after {delay:?}: {what}");
        }
        let last = scene.run(&CUT).expect_code(0);
        let summary = last.json();
        println!(
            "round {round}: {} bytes were kept",
            summary["resumed_bytes"]
        );
        seen.note_end(&summary);
        // Reading demands that nothing unfinished is left.
        scene.take().assert_same(&golden);
    }
    println!("{seen:?}");
    assert!(seen.is_enough(), "{seen:?}");
}

/// What the rounds met.
#[derive(Debug, Default)]
struct Seen {
    /// Kills that came before the end.
    hits: usize,
    /// Of these, with the checkpoint not complete yet.
    unfinished: usize,
    /// Runs that went on with work of a killed one.
    resumed: usize,
}

impl Seen {
    /// Whether the test could have failed.
    fn is_enough(&self) -> bool {
        self.hits > 0 && self.unfinished > 0 && self.resumed > 0
    }

    fn note_end(&mut self, summary: &Value) {
        self.resumed += usize::from(summary["resumed_bytes"].as_u64() > Some(0));
    }
}

/// Starts the merge, kills it after a time, and looks at what it left; in
/// words.
fn kill_after(scene: &Scene, delay: Duration, golden: &Merged, seen: &mut Seen) -> &'static str {
    let mut process = scene.start(&CUT);
    process.ends_within(delay);
    let outcome = process.kill();
    let complete = assert_nothing_half(scene, golden);
    if outcome.code.is_some() {
        outcome.expect_code(0);
        return "it had ended";
    }
    seen.hits += 1;
    if complete {
        return "complete already";
    }
    seen.unfinished += 1;
    "unfinished"
}

/// Demands that whatever stands in the output folder is whole and right, and
/// that nothing stands there before the job claims it. Whether the manifest
/// calls it complete.
fn assert_nothing_half(scene: &Scene, golden: &Merged) -> bool {
    let Ok(entries) = fs::read_dir(scene.out()) else {
        return false;
    };
    let mut visible: Vec<_> = entries
        .map(|entry| {
            entry
                .expect("listed")
                .file_name()
                .into_string()
                .expect("plain text")
        })
        .filter(|name| name != STATE)
        .collect();
    visible.sort();
    if visible.is_empty() {
        return false;
    }
    let manifest = fs::read(scene.out().join(MANIFEST)).expect("a claim comes before all files");
    let manifest: Value = serde_json::from_slice(&manifest).expect("a manifest is whole");
    visible.retain(|name| name != MANIFEST);
    for name in &visible {
        let found = fs::read(scene.out().join(name)).expect("read");
        assert!(
            found == golden.files[name],
            "`{name}` is not what it ought to be"
        );
    }
    match manifest["state"].as_str() {
        Some("complete") => {
            assert!(
                visible.iter().eq(golden.files.keys()),
                "complete with {visible:?}"
            );
            true
        }
        Some("publishing") => false,
        other => panic!("the manifest's state is {other:?}"),
    }
}
