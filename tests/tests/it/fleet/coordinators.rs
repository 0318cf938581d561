//! Coordinators that are killed while they plan, while workers work, and while
//! they publish: another takes over.

use std::time::Duration;

use chatvec_tests::fleet::Coordinator;
use chatvec_tests::process::{Process, until};

use super::scene::{ONE_SLOT, SHORT_LEASE, Scene};
use chatvec_tests::random::Random;

/// Jobs after which it is no bad luck that no kill hit the state that was meant.
const TRIES: usize = 20;
/// A coordinator is killed while it plans before this time is over.
const PLANS_WITHIN: Duration = Duration::from_millis(200);

/// The state of a job as the database has it: no coordinator may be there to ask.
fn state(scene: &Scene, job: &str) -> String {
    let sql = format!("SELECT state FROM job WHERE job_id = '{job}'");
    scene.fleet.postgres.query(&sql)
}

/// Starts jobs whose first coordinator is killed by `kill`, until it hit a job in
/// this state. All of them must succeed under another coordinator.
#[expect(clippy::print_stdout, reason = "what was hit differs from run to run")]
fn survives(expected: &str, mut kill: impl FnMut(&Scene, Coordinator, &str, &str)) {
    let scene = Scene::of_many_tasks();
    for ordinal in 0..TRIES {
        let out = format!("out-{ordinal}");
        let first = scene.fleet.serve(&SHORT_LEASE);
        let worker = scene.fleet.worker(&first.address, &ONE_SLOT);
        let job = scene.submit(&first.address, &out, &[]);
        kill(&scene, first, &job, &out);
        let hit = state(&scene, &job);
        println!("killed in {hit}");
        let second = scene.fleet.serve(&SHORT_LEASE);
        let _worker = (worker, scene.fleet.worker(&second.address, &ONE_SLOT));
        scene.succeeds(&second.address, &job);
        scene.assert_as_merged_beside(&out, ordinal);
        if hit == expected {
            return;
        }
    }
    panic!("no coordinator was killed in {expected} in {TRIES} tries");
}

#[test]
fn a_coordinator_that_is_killed_while_it_plans_is_replaced() {
    let mut random = Random::seeded();
    survives("PLANNING", |_, coordinator, _, _| {
        kill_after(coordinator.process, PLANS_WITHIN.mul_f64(random.unit()));
    });
}

#[test]
fn a_coordinator_that_is_killed_while_workers_work_is_replaced() {
    survives("RUNNING", |scene, coordinator, job, _| {
        scene.until_under_way(&coordinator.address, job);
        coordinator.process.kill();
    });
}

#[test]
fn a_coordinator_that_is_killed_while_it_publishes_is_replaced() {
    survives("COMMITTING", |scene, coordinator, _, out| {
        let manifest = format!("{out}/chatvec.manifest.json");
        until("the claim of the output", || {
            scene.fleet.bucket.get(&manifest).is_ok()
        });
        coordinator.process.kill();
    });
}

fn kill_after(mut process: Process, delay: Duration) {
    assert!(!process.ends_within(delay), "it ended by itself");
    process.kill();
}
