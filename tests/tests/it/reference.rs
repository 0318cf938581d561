//! What Python's safetensors wrote, merged by chatvec, is what numpy computes.

use std::process::Command;

use chatvec_tests::{process, python};

use crate::scene::text;

#[test]
fn every_element_of_a_family_written_by_python_is_as_numpy_has_it() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    python::run("write_family.py", &[text(folder.path()), "6"]);
    let [cp, chat, base, out] = ["cp", "chat", "base", "out"].map(|name| folder.path().join(name));
    for (part_size, lambda) in [
        ("4KiB", "0.7"),
        ("64MiB", "1.0"),
        ("8KiB", "-0.3"),
        ("64MiB", "0"),
    ] {
        let flags = [
            "merge",
            "--cp",
            text(&cp),
            "--chat",
            text(&chat),
            "--base",
            text(&base),
        ];
        let more = [
            "--out",
            text(&out),
            "--lambda",
            lambda,
            "--part-size",
            part_size,
            "--overwrite",
        ];
        process::run(flags.into_iter().chain(more)).expect_code(0);
        let arguments = [
            "compare",
            text(&cp),
            text(&out),
            text(&chat),
            text(&base),
            lambda,
        ];
        let printed = python::run("reference.py", &arguments);
        assert!(
            printed.ends_with("18 tensors: 0 elements differ\n"),
            "lambda {lambda}: {printed}"
        );
    }
    // The comparison can fail: with another λ, most elements are others.
    let compared = Command::new(python::env())
        .arg(python::script("reference.py"))
        .args([
            "compare",
            text(&cp),
            text(&out),
            text(&chat),
            text(&base),
            "0.5",
        ])
        .output()
        .expect("run");
    assert_eq!(compared.status.code(), Some(1));
}

#[test]
fn two_vectors_of_mixed_types_are_as_numpy_has_them() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let [first, second] = ["first", "second"].map(|name| folder.path().join(name));
    python::run("write_family.py", &[text(&first), "7"]);
    python::run("write_family.py", &[text(&second), "8"]);
    let [cp, chat, base] = ["cp", "chat", "base"].map(|name| first.join(name));
    let [chat2, base2] = ["chat", "base"].map(|name| second.join(name));
    let out = folder.path().join("out");
    let recipe = format!(
        r#"
cp: first/cp
vectors:
  - {{ chat: first/chat, base: first/base, lambda: 0.7 }}
  - {{ chat: second/chat, base: second/base, lambda: 0.1 }}
output: {{ url: "{}" }}
"#,
        text(&out)
    );
    let file = folder.path().join("recipe.yaml");
    std::fs::write(&file, recipe).expect("written");
    process::run(["merge", text(&file), "--part-size", "12KiB"]).expect_code(0);
    let arguments = [
        "compare",
        text(&cp),
        text(&out),
        text(&chat),
        text(&base),
        "0.7",
        text(&chat2),
        text(&base2),
        "0.1",
    ];
    let printed = python::run("reference.py", &arguments);
    assert!(
        printed.ends_with("18 tensors: 0 elements differ\n"),
        "{printed}"
    );
}
