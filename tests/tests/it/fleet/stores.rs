//! Stores that do not keep what S3 promises, or answer badly for a while.

use chatvec_tests::emulator::{Action, Emulator, Fault, Operation, Profile, Refusal};
use chatvec_tests::process::until;
use serde_json::Value;

use super::scene::{SHORT_LEASE, SMALL_PARTS, Scene};

/// Where a store is tried out, below an output.
const PROBE: &str = "/.chatvec-probe/";

/// How often somebody wrote to try the store out.
fn probes(emulator: &Emulator) -> usize {
    let history = emulator.history();
    let puts = history.of(Operation::Put);
    puts.filter(|put| put.key.contains(PROBE)).count()
}

fn warnings(scene: &Scene, coordinator: &str, job: &str) -> String {
    match &scene.fleet.get(coordinator, job)["warnings"] {
        Value::Array(warnings) => warnings.iter().map(|one| format!("{one}\n")).collect(),
        none => panic!("expected a list of warnings, found {none}"),
    }
}

#[test]
fn a_store_that_ignores_conditions_is_warned_of_in_each_job_and_tried_out_once() {
    let scene = Scene::on_emulator(Profile::Aws);
    let emulator = scene.fleet.emulator();
    let ignored = emulator.add(Fault::new(Action::IgnoreCondition));
    let mut coordinator = scene.fleet.serve(&SMALL_PARTS);
    let address = coordinator.address.clone();
    let _worker = scene.fleet.worker(&address, &[]);
    let mut probes_before = 0;
    for out in ["out-0", "out-1"] {
        let job = scene.submit(&address, out, &[]);
        scene.succeeds(&address, &job);
        let warned = warnings(&scene, &address, &job);
        for words in ["s3://models", "overwrites despite If-None-Match", "doctor"] {
            assert!(warned.contains(words), "`{words}` is not in:\n{warned}");
        }
        match out {
            "out-0" => probes_before = probes(emulator),
            _ => assert_eq!(probes(emulator), probes_before),
        }
    }
    assert!(ignored.fired() > 0 && probes_before > 0);
    assert!(coordinator.process.says("overwrites despite If-None-Match"));
    scene.fleet.assert_nothing_else(&["out-0", "out-1"]);
}

#[test]
fn a_store_that_keeps_its_promises_is_not_warned_of() {
    let scene = Scene::on_emulator(Profile::Aws);
    let coordinator = scene.fleet.serve(&SMALL_PARTS);
    let _worker = scene.fleet.worker(&coordinator.address, &[]);
    let job = scene.submit(&coordinator.address, "out", &[]);
    scene.succeeds(&coordinator.address, &job);
    assert_eq!(warnings(&scene, &coordinator.address, &job), "");
    assert!(probes(scene.fleet.emulator()) > 0, "it was tried out");
    scene.assert_as_merged("out");
}

#[test]
fn a_coordinator_that_dies_while_it_tries_a_store_out_leaves_nothing_of_that() {
    let scene = Scene::on_emulator(Profile::Aws);
    let emulator = scene.fleet.emulator();
    let stalled = Fault::new(Action::StallAnswer(None)).on(Operation::Put);
    let stalled = emulator.add(stalled.key_ending_in("/create").times(1));
    let first = scene.fleet.serve(&SHORT_LEASE);
    let job = scene.submit(&first.address, "out", &[]);
    stalled.until_fired(1);
    until("the object of the trial", || {
        emulator.objects().keys().any(|key| key.contains(PROBE))
    });
    first.process.kill();
    let second = scene.fleet.serve(&SHORT_LEASE);
    let _worker = scene.fleet.worker(&second.address, &[]);
    scene.succeeds(&second.address, &job);
    scene.assert_as_merged("out");
}

#[test]
fn a_header_that_cannot_be_read_just_now_is_read_later_and_fails_no_job() {
    let scene = Scene::on_emulator(Profile::Aws);
    // As often as a request is tried.
    const TRIES: u64 = 5;
    let broken = Fault::new(Action::Refuse(Refusal::InternalError)).on(Operation::Get);
    let broken = broken.key("family/cp/model-00001-of-00002.safetensors");
    let broken = scene.fleet.emulator().add(broken.times(TRIES));
    let mut coordinator = scene.fleet.serve(&SHORT_LEASE);
    let _worker = scene.fleet.worker(&coordinator.address, &[]);
    let job = scene.submit(&coordinator.address, "out", &[]);
    scene.succeeds(&coordinator.address, &job);
    assert_eq!(broken.fired(), TRIES);
    assert!(coordinator.process.says("it will be tried again"));
    scene.assert_as_merged("out");
}

#[test]
fn a_bucket_that_refuses_a_commit_for_too_long_fails_the_job_and_nothing_of_it_stays() {
    let scene = Scene::on_emulator(Profile::Aws);
    let emulator = scene.fleet.emulator();
    let denied = || Fault::new(Action::Refuse(Refusal::AccessDenied));
    // The last but one of all files; weights are objects by then.
    let complete = denied().on(Operation::CompleteUpload);
    let complete = emulator.add(complete.key("out/config.json"));
    let remove = emulator.add(denied().on(Operation::Delete).key_ending_in(".safetensors"));
    let flags = [&SHORT_LEASE[..], &["--commit-patience", "2"]].concat();
    let coordinator = scene.fleet.serve(&flags);
    let _worker = scene.fleet.worker(&coordinator.address, &[]);
    let job = scene.submit(&coordinator.address, "out", &[]);
    complete.until_fired(1);
    let committing = scene.fleet.get(&coordinator.address, &job);
    assert_eq!(committing["state"], "COMMITTING", "{committing:#}");
    let failed = scene.fails(&coordinator.address, &job);
    assert!(complete.fired() > 1, "it was tried again before");
    let said = failed.to_string();
    for words in [
        "PERMISSION_DENIED",
        "s3://models/out/config.json",
        "mend the bucket",
    ] {
        assert!(said.contains(words), "`{words}` is not in {failed:#}");
    }
    // What is there in part stays until it can be removed, and is no checkpoint.
    remove.until_fired(1);
    assert!(emulator.objects().contains_key("out/model.safetensors"));
    remove.remove();
    until("what was published in part to be removed", || {
        !emulator.objects().keys().any(|key| key.starts_with("out/"))
    });
    scene.fleet.assert_nothing_else(&[]);
}
