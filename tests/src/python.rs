//! The Python environment of the tests: numpy and safetensors at pinned
//! versions, in `.venv` at the root of the repository.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The root of the repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the package lies in the repository")
        .to_owned()
}

/// A script of `tests/python`.
pub fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("python")
        .join(name)
}

/// The interpreter of the tests' environment, made or brought up to date first.
/// Several processes may ask at once: one makes it, the others wait.
///
/// # Panics
/// If the environment cannot be made. A test that needs Python must not pass
/// without it.
pub fn env() -> PathBuf {
    let root = repository();
    let output = Command::new(root.join("tests/scripts/venv.sh"))
        .arg(root.join(".venv"))
        .arg(root.join("tests/python/requirements.txt"))
        .output()
        .expect("`tests/scripts/venv.sh` can be run");
    assert!(
        output.status.success(),
        "cannot make the tests' Python environment:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    root.join(".venv/bin/python")
}

/// Runs a script of `tests/python` and returns what it printed.
///
/// # Panics
/// With the script's own words, if it fails.
pub fn run(name: &str, arguments: &[&str]) -> String {
    let output = Command::new(env())
        .arg(script(name))
        .args(arguments)
        .output()
        .expect("the interpreter of the environment can be run");
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "`{name}` failed:\n{printed}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    printed
}
