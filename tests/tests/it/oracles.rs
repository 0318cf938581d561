//! The oracle in Rust and the reference in Python know nothing of each other:
//! what one writes, the other must find right.

use std::fs;
use std::path::{Path, PathBuf};

use chatvec_tests::family::FamilySpec;
use chatvec_tests::oracle::{Expectation, Report, Rule, Vector, verify};
use chatvec_tests::python;
use safetensors::Dtype;

fn text(path: &Path) -> &str {
    path.to_str().expect("paths of tests are plain text")
}

/// Merges `root/{cp,chat,base}` with the reference into `root/out`.
fn reference_merge(root: &Path, lambda: &str) -> PathBuf {
    let out = root.join("out");
    let [cp, chat, base] = ["cp", "chat", "base"].map(|member| root.join(member));
    let arguments = [
        "write",
        text(&cp),
        text(&out),
        text(&chat),
        text(&base),
        lambda,
    ];
    python::run("reference.py", &arguments);
    out
}

fn oracle(root: &Path, lambda: f64) -> Report {
    let expected = Expectation {
        cp: root.join("cp"),
        vectors: vec![Vector {
            chat: root.join("chat"),
            base: root.join("base"),
            lambda,
        }],
        dtype: None,
        rule: &|_| Rule::Merge { scale: 1.0 },
    };
    verify(&root.join("out"), &expected).expect("comparable")
}

#[test]
fn both_agree_on_a_family_of_mixed_types_and_odd_tensors() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    python::run("write_family.py", &[text(folder.path()), "3"]);
    for lambda in ["0", "0.7", "1.0", "-0.3"] {
        reference_merge(folder.path(), lambda);
        let report = oracle(folder.path(), lambda.parse().expect("a number"));
        assert_eq!(report.first, None, "lambda {lambda}");
        assert_eq!((report.tensors, report.copied), (18, 5));
    }
}

#[test]
fn both_agree_on_seeded_families_of_every_type() {
    for dtype in [Dtype::BF16, Dtype::F16, Dtype::F32, Dtype::F64] {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let root = folder.path().join("family");
        FamilySpec {
            layers: 1,
            hidden: 64,
            intermediate: 96,
            vocab: 300,
            dtype,
            ..FamilySpec::tiny(5)
        }
        .write(&root)
        .expect("written");
        reference_merge(&root, "0.5");
        assert_eq!(oracle(&root, 0.5).first, None, "{dtype}");
    }
}

#[test]
fn both_see_the_same_single_wrong_bit() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let root = folder.path();
    python::run("write_family.py", &[text(root), "4"]);
    let out = reference_merge(root, "1.0");
    let weights = out.join("model.safetensors");
    let mut bytes = fs::read(&weights).expect("read");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&weights, bytes).expect("written");

    assert_eq!(oracle(root, 1.0).differing, 1);
    let [cp, chat, base] = ["cp", "chat", "base"].map(|member| root.join(member));
    let compared = std::process::Command::new(python::env())
        .arg(python::script("reference.py"))
        .args([
            "compare",
            text(&cp),
            text(&out),
            text(&chat),
            text(&base),
            "1.0",
        ])
        .output()
        .expect("run");
    assert_eq!(compared.status.code(), Some(1));
    let printed = String::from_utf8_lossy(&compared.stdout);
    assert!(printed.ends_with(": 1 elements differ\n"), "{printed}");
}
