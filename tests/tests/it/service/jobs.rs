//! Jobs as clients see them.

use std::ffi::OsStr;
use std::fs;

use chatvec_tests::process::{Process, until};
use serde_json::Value;

use super::scene::{ANY_PORT, Scene, drain, id};

#[test]
fn two_workers_make_the_bytes_of_a_merge_and_everything_drains() {
    let scene = Scene::new();
    let service = scene.serve(ANY_PORT, &["--part-size", "1MiB"]);
    let workers = [service.worker(), service.worker()];
    let flags = scene.merge("out");
    let args = ["submit", "--wait"]
        .into_iter()
        .chain(flags.iter().map(String::as_str));
    let outcome = service.client(args).expect_code(0);
    assert!(outcome.stdout.contains("SUCCEEDED"), "{outcome:#?}");
    scene.assert_as_merged("out");
    workers.into_iter().for_each(|worker| drop(drain(worker)));
    drain(service.process);
}

#[test]
fn a_repeat_of_a_request_finds_the_first_job_and_another_recipe_is_refused() {
    let scene = Scene::new();
    let service = scene.serve(ANY_PORT, &[]);
    let first = service.submit(&scene, "out", &["--request-id", "nightly"]);
    let again = service.submit(&scene, "out", &["--request-id", "nightly"]);
    assert_eq!(id(&first), id(&again));
    assert_eq!(first["request_id"], "nightly");

    let flags = scene.merge("elsewhere");
    let args = ["submit", "--request-id", "nightly"]
        .into_iter()
        .chain(flags.iter().map(String::as_str));
    let refused = service.client(args).expect_code(2);
    assert!(
        refused.stderr.starts_with("error: --request-id: "),
        "{refused:#?}"
    );
    assert!(
        refused
            .stderr
            .contains("`nightly` was used before with another recipe"),
        "{refused:#?}"
    );

    let other = service.submit(&scene, "other", &[]);
    assert_ne!(id(&first), id(&other));
    let listed = service.client(["list", "-o", "json"]).expect_code(0).json();
    let jobs: Vec<String> = listed["jobs"]
        .as_array()
        .expect("a list")
        .iter()
        .map(id)
        .collect();
    assert_eq!(
        jobs.len(),
        2,
        "nothing came of the refused request: {listed:#}"
    );
    assert!(jobs.contains(&id(&first)) && jobs.contains(&id(&other)));
    let text = service.client(["list"]).expect_code(0).stdout;
    assert!(
        text.starts_with("JOB ") && text.contains(&id(&other)),
        "{text}"
    );
}

#[test]
fn a_bad_recipe_is_refused_with_all_its_problems_and_leaves_no_job() {
    let scene = Scene::new();
    let service = scene.serve(ANY_PORT, &[]);
    let recipe = scene.path("recipe.yaml");
    fs::write(&recipe, "cp: cp\nvectors: [{ chat: chat, base: base, lamda: 1 }]\noutput: { url: out, dtype: fp4 }\n").unwrap();
    let refused = service
        .client([OsStr::new("submit"), recipe.as_os_str()])
        .expect_code(2);
    assert!(
        refused.stderr.contains(
            "error: vectors[0].lamda: unknown field `lamda`\n  hint: did you mean `lambda`?\n"
        ),
        "{refused:#?}"
    );
    assert!(
        refused.stderr.contains("error: output.dtype: "),
        "{refused:#?}"
    );
    let listed = service.client(["list", "-o", "json"]).expect_code(0).json();
    assert_eq!(listed["jobs"], serde_json::json!([]));
}

#[test]
fn inputs_that_cannot_work_fail_the_job_with_all_their_problems() {
    let scene = Scene::new();
    let service = scene.serve(ANY_PORT, &[]);
    for input in [scene.family.chat(), scene.family.base()] {
        fs::remove_file(input.join("model-00001-of-00002.safetensors")).unwrap();
    }
    let flags = scene.merge("out");
    let args = ["submit", "--wait"]
        .into_iter()
        .chain(flags.iter().map(String::as_str));
    let failed = service.client(args).expect_code(2);
    for role in ["vectors[0].chat", "vectors[0].base"] {
        let problem = format!("{role}: ");
        assert!(failed.stdout.contains(&problem), "{failed:#?}");
    }
    assert!(
        failed.stdout.contains("hint: the checkpoint is incomplete"),
        "{failed:#?}"
    );
    assert!(!scene.path("out").exists());
}

#[test]
fn an_unknown_job_is_told() {
    let scene = Scene::new();
    let service = scene.serve(ANY_PORT, &[]);
    for command in ["get", "watch", "cancel"] {
        let refused = service.client([command, "job-of-yesterday"]).expect_code(2);
        assert!(refused.stderr.contains("job-of-yesterday"), "{refused:#?}");
        assert_eq!(refused.stdout, "");
    }
}

#[test]
fn watching_shows_a_job_to_its_end() {
    let scene = Scene::new();
    let service = scene.serve(ANY_PORT, &[]);
    let job = id(&service.submit(&scene, "out", &[]));
    let watcher = Process::start(service.command(["watch", "-o", "json", &job]));
    service.until(&job, "the job to be planned", |job| {
        job["state"] == "QUEUED"
    });
    let _worker = service.worker();
    let seen = watcher.wait().expect_code(0);
    let states: Vec<Value> = seen
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).expect("an object a line"))
        .collect();
    assert!(states.iter().all(|seen| id(seen) == job));
    let revisions: Vec<_> = states
        .iter()
        .map(|seen| seen["revision"].as_u64().expect("a number"))
        .collect();
    assert!(revisions.is_sorted(), "{revisions:?}");
    let last = states.last().expect("the end is told");
    assert_eq!(last["state"], "SUCCEEDED");
    assert_eq!(
        last["progress"]["bytes_done"],
        last["progress"]["bytes_total"]
    );
    // A job that has ended is told once.
    let ended = service.client(["watch", "-o", "json", &job]).expect_code(0);
    assert_eq!(ended.stdout.lines().count(), 1, "{ended:#?}");
}

#[test]
fn a_job_that_is_cancelled_leaves_nothing_in_the_output_folder() {
    let scene = Scene::new();
    let service = scene.serve(ANY_PORT, &[]);
    let job = id(&service.submit(&scene, "out", &[]));
    service.until(&job, "the job to be planned", |job| {
        job["state"] == "QUEUED"
    });
    assert!(
        scene.path("out/.chatvec").exists(),
        "the unfinished files are there"
    );
    service.client(["cancel", &job]).expect_code(0);
    service.until(&job, "the end of the job", |job| {
        job["state"] == "CANCELLED"
    });
    until("the unfinished files to be removed", || {
        !scene.path("out/.chatvec").exists()
    });
    let left = fs::read_dir(scene.path("out")).map_or(0, Iterator::count);
    assert_eq!(left, 0);
    // Once more does no harm, and whoever waits learns of it.
    service.client(["cancel", &job]).expect_code(0);
    service.client(["watch", &job]).expect_code(1);
}
