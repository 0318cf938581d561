//! Jobs from bucket to bucket, from disk, to disk, and in one process.

use std::path::Path;

use chatvec_tests::fleet::addresses;
use chatvec_tests::process::Process;
use chatvec_tests::published::{assert_same, read};

use super::scene::{ONE_SLOT, Place, SMALL_PARTS, Scene, drain};

#[test]
fn a_job_between_buckets_makes_the_bytes_of_a_local_merge() {
    let scene = Scene::of_many_tasks();
    let coordinators = [(); 2].map(|()| scene.fleet.serve(&SMALL_PARTS));
    let all = addresses(&coordinators);
    let workers = [(); 2].map(|()| scene.fleet.worker(&all, &[]));
    let job = scene.submit(&all, "out", &[]);
    scene.succeeds(&all, &job);
    scene.assert_as_merged("out");
    workers.into_iter().for_each(drain);
    for coordinator in coordinators {
        drain(coordinator.process);
    }
}

#[test]
fn inputs_in_a_bucket_and_an_output_on_disk_go_together() {
    let scene = Scene::tiny();
    let coordinator = scene.fleet.serve(&SMALL_PARTS);
    let _worker = scene.fleet.worker(&coordinator.address, &[]);
    let out = scene.at(Place::Disk, "out");
    let merge = scene.merge(Place::Bucket, &out);
    let job = scene.fleet.submit(&coordinator.address, &merge, &[]);
    scene.succeeds(&coordinator.address, &job);
    chatvec_tests::process::until("the state folder to be removed", || {
        !Path::new(&out).join(".chatvec").exists()
    });
    assert_same(&read(Path::new(&out)), &scene.expected());
    scene.fleet.assert_nothing_else(&[]);
}

#[test]
fn inputs_on_disk_and_an_output_in_a_bucket_go_together() {
    let scene = Scene::tiny();
    let coordinator = scene.fleet.serve(&SMALL_PARTS);
    let _worker = scene.fleet.worker(&coordinator.address, &[]);
    let merge = scene.merge(Place::Disk, &scene.at(Place::Bucket, "out"));
    let job = scene.fleet.submit(&coordinator.address, &merge, &[]);
    scene.succeeds(&coordinator.address, &job);
    scene.assert_as_merged("out");
}

#[test]
fn a_merge_in_one_process_reads_and_writes_buckets() {
    let scene = Scene::tiny();
    let merge = scene.merge(Place::Bucket, &scene.at(Place::Bucket, "out"));
    let args = std::iter::once("merge".to_owned()).chain(merge);
    let mut command = scene.fleet.command(args);
    command.env("XDG_STATE_HOME", scene.fleet.path("state"));
    Process::start(command).wait().expect_code(0);
    scene.assert_as_merged("out");
}

#[test]
fn a_job_that_is_cancelled_under_way_leaves_nothing() {
    let scene = Scene::of_many_tasks();
    let coordinator = scene.fleet.serve(&SMALL_PARTS);
    let worker = scene.fleet.worker(&coordinator.address, &ONE_SLOT);
    let job = scene.submit(&coordinator.address, "out", &[]);
    scene.until_under_way(&coordinator.address, &job);
    let uploads = scene.fleet.bucket.unfinished_uploads().expect("listed");
    assert!(!uploads.is_empty(), "there is something to leave behind");
    let client = |args: &[&str]| scene.fleet.client(&coordinator.address, args);
    client(&["cancel", &job]).expect_code(0);
    client(&["watch", &job]).expect_code(1);
    let ended = scene.fleet.get(&coordinator.address, &job);
    assert_eq!(ended["state"], "CANCELLED", "{ended:#}");
    scene.fleet.assert_nothing_else(&[]);
    drain(worker);
}
