//! Workers that are killed, drained, and strange.

use std::time::Duration;

use chatvec_tests::fleet::addresses;
use chatvec_tests::process::Process;

use super::scene::{ONE_SLOT, SHORT_LEASE, SMALL_PARTS, Scene, drain, tasks};
use chatvec_tests::random::Random;

/// Workers of which each is killed once.
const WORKERS: usize = 3;
/// A worker is killed before this time is over.
const KILLED_WITHIN: Duration = Duration::from_millis(1500);
/// Jobs after which it is no bad luck that no kill hit a task.
const JOBS_MAX: usize = 10;

#[test]
fn workers_that_are_all_killed_once_cost_time_and_no_byte() {
    let mut random = Random::seeded();
    let scene = Scene::of_many_tasks();
    let coordinators = [(); 2].map(|()| scene.fleet.serve(&SHORT_LEASE));
    let all = addresses(&coordinators);
    for ordinal in 0..JOBS_MAX {
        let out = format!("out-{ordinal}");
        let start = || scene.fleet.worker(&all, &ONE_SLOT);
        let first: [Process; WORKERS] = std::array::from_fn(|_| start());
        let job = scene.submit(&all, &out, &[]);
        let _second = first.map(|mut worker| {
            let delay = KILLED_WITHIN.mul_f64(random.unit());
            assert!(!worker.ends_within(delay), "it ended by itself");
            worker.kill();
            start()
        });
        scene.succeeds(&all, &job);
        scene.assert_as_merged_beside(&out, ordinal);
        let ended = scene.fleet.get(&all, &job);
        if tasks(&ended, "retries") > 0 {
            println!("{} tasks were done again", tasks(&ended, "retries"));
            return;
        }
    }
    panic!("no kill hit a task in {JOBS_MAX} jobs");
}

#[test]
fn a_worker_that_drains_under_way_gives_back_what_it_has_not_begun_and_is_charged_nothing() {
    let scene = Scene::of_many_tasks();
    // Nobody could wait for a lease of an hour.
    let coordinator = scene
        .fleet
        .serve(&[&SMALL_PARTS[..], &["--lease", "3600"]].concat());
    let address = &coordinator.address;
    let job = scene.submit(address, "out", &[]);
    let worker = scene.fleet.worker(address, &ONE_SLOT);
    scene.until_under_way(address, &job);
    drain(worker);
    let then = scene.fleet.get(address, &job);
    assert_eq!(tasks(&then, "tasks_leased"), 0, "{then:#}");
    assert_ne!(then["state"], "SUCCEEDED", "it drained half-way");
    let _other = scene.fleet.worker(address, &[]);
    scene.succeeds(address, &job);
    let ended = scene.fleet.get(address, &job);
    assert_eq!(tasks(&ended, "retries"), 0, "{ended:#}");
    scene.assert_as_merged("out");
}
