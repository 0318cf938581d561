//! Jobs whose workers and coordinators are stopped under them.

use std::fs;

use chatvec_tests::process::{Process, until};

use super::scene::{ANY_PORT, SMALL_PARTS, Scene, drain, id, tasks};

#[test]
fn a_job_is_cancelled_while_a_worker_is_at_it() {
    let scene = Scene::new();
    let service = scene.serve(ANY_PORT, &SMALL_PARTS);
    let job = id(&service.submit(&scene, "out", &[]));
    let worker = service.worker();
    service.until_under_way(&job);
    service.client(["cancel", &job]).expect_code(0);
    service.until(&job, "the end of the job", |job| {
        job["state"] == "CANCELLED"
    });
    until("the unfinished files to be removed", || {
        !scene.path("out/.chatvec").exists()
    });
    assert_eq!(
        fs::read_dir(scene.path("out")).map_or(0, Iterator::count),
        0
    );
    drain(worker);
}

#[test]
fn tasks_of_a_killed_worker_go_to_another() {
    let scene = Scene::new();
    let service = scene.serve(ANY_PORT, &[&SMALL_PARTS[..], &["--lease", "1"]].concat());
    let job = id(&service.submit(&scene, "out", &[]));
    let worker = service.worker();
    service.until_under_way(&job);
    worker.freeze();
    let then = service.get(&job);
    assert!(
        tasks(&then, "tasks_done") < tasks(&then, "tasks_total"),
        "it was killed half-way"
    );
    worker.kill();
    let _other = service.worker();
    service.client(["watch", &job]).expect_code(0);
    scene.assert_as_merged("out");
}

#[test]
fn a_job_goes_on_when_a_killed_coordinator_runs_again() {
    let scene = Scene::new();
    let service = scene.serve(ANY_PORT, &SMALL_PARTS);
    let job = id(&service.submit(&scene, "out", &[]));
    let worker = service.worker();
    service.until_under_way(&job);
    let watcher = Process::start(service.command(["watch", &job]));
    let address = service.address.clone();
    service.process.kill();
    assert!(
        !scene.path("out/chatvec.manifest.json").exists(),
        "it was killed before the end"
    );

    let service = scene.serve(&address, &SMALL_PARTS);
    watcher.wait().expect_code(0);
    assert_eq!(service.get(&job)["state"], "SUCCEEDED");
    scene.assert_as_merged("out");
    drain(worker);
    drain(service.process);
}

#[test]
fn a_worker_that_drains_gives_its_tasks_back_at_once() {
    let scene = Scene::new();
    // Nobody could wait for a lease of an hour.
    let service = scene.serve(ANY_PORT, &[&SMALL_PARTS[..], &["--lease", "3600"]].concat());
    let job = id(&service.submit(&scene, "out", &[]));
    let worker = service.worker();
    service.until_under_way(&job);
    drain(worker);
    let then = service.get(&job);
    assert_eq!(tasks(&then, "tasks_leased"), 0, "{then:#}");
    assert_eq!(
        tasks(&then, "retries"),
        0,
        "a drain is charged to nobody: {then:#}"
    );
    let _other = service.worker();
    service.client(["watch", &job]).expect_code(0);
    scene.assert_as_merged("out");
}
