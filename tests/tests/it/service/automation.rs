//! The Python example, run as a user would, against a coordinator and a worker.

use std::path::{Path, PathBuf};
use std::process::Command;

use chatvec_tests::process::{Outcome, Process};
use chatvec_tests::python;
use serde_json::Value;

use super::scene::{ANY_PORT, Scene, Service};

/// The folder of the example.
fn example() -> PathBuf {
    python::repository().join("docs/examples/python")
}

/// The folder of the stubs, generated as the example says.
fn stubs(scene: &Scene) -> PathBuf {
    let folder = scene.path("stubs");
    let mut command = Command::new(example().join("generate.sh"));
    command.arg(&folder).env("PYTHON", python::env());
    Process::start(command).wait().expect_code(0);
    folder
}

/// Runs `merge.py` with the flags of a merge and these.
fn merge(scene: &Scene, service: &Service, stubs: &Path, out: &str, more: &[&str]) -> Outcome {
    let mut command = Command::new(python::env());
    command
        .arg(example().join("merge.py"))
        .args(["--coordinator", &service.address])
        .args(scene.merge(out))
        .args(more)
        .env("PYTHONPATH", stubs)
        .env("PYTHONDONTWRITEBYTECODE", "1");
    Process::start(command).wait()
}

#[test]
fn the_python_example_submits_watches_and_repeats_without_harm() {
    let scene = Scene::new();
    let service = scene.serve(ANY_PORT, &[]);
    let _worker = service.worker();
    let stubs = stubs(&scene);
    let more = ["--request-id", "nightly", "--label", "model=m1"];
    let first = merge(&scene, &service, &stubs, "out", &more).expect_code(0);
    let last = first.stdout.lines().last().expect("the end is told");
    assert!(last.contains(" SUCCEEDED 100%"), "{first:#?}");
    scene.assert_as_merged("out");

    let again = merge(&scene, &service, &stubs, "out", &more).expect_code(0);
    assert_eq!(again.stdout.lines().collect::<Vec<_>>(), [last]);
    let listed = service.client(["list", "--label", "model=m1", "-o", "json"]);
    let listed: Value = listed.expect_code(0).json();
    assert_eq!(
        listed["jobs"].as_array().map(Vec::len),
        Some(1),
        "{listed:#}"
    );
}

#[test]
fn the_python_example_tells_a_refusal_by_its_reason_and_its_fields() {
    let scene = Scene::new();
    let service = scene.serve(ANY_PORT, &[]);
    let stubs = stubs(&scene);
    let more = ["--lambda", "nan", "--label", "Model=m1"];
    let refused = merge(&scene, &service, &stubs, "out", &more).expect_code(2);
    assert!(
        refused.stderr.starts_with("refused: BAD_REQUEST: "),
        "{refused:#?}"
    );
    for field in ["  vectors[0].lambda: ", "  labels[Model]: "] {
        assert!(refused.stderr.contains(field), "{refused:#?}");
    }
    // The first job waits for a worker; its output is taken.
    service.submit(&scene, "out", &["--request-id", "nightly"]);
    let other = ["--request-id", "nightly", "--lambda", "2"];
    let reused = merge(&scene, &service, &stubs, "out", &other).expect_code(2);
    assert!(reused.stderr.contains("REQUEST_ID_REUSED"), "{reused:#?}");
    let taken = merge(&scene, &service, &stubs, "out", &[]).expect_code(2);
    assert!(taken.stderr.contains("OUTPUT_IN_USE"), "{taken:#?}");
}

#[test]
fn the_errors_table_of_the_documentation_is_complete() {
    let page = std::fs::read_to_string(python::repository().join("docs/automation.md"));
    let page = page.expect("the page is there");
    for reason in chatvec_proto::status::Reason::ALL {
        let row = format!("| `{}` |", reason.name());
        assert!(page.contains(&row), "{row}");
    }
}
