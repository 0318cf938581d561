use std::fs;

use safetensors::tensor::TensorView;

use super::*;

/// Writes a checkpoint of one file with the `safetensors` library.
fn write(folder: &Path, tensors: &[(&str, Dtype, Vec<u8>)]) {
    fs::create_dir_all(folder).expect("a folder");
    let views = tensors.iter().map(|(name, dtype, bytes)| {
        let elements = bytes.len() * 8 / dtype.bitsize();
        let view = TensorView::new(*dtype, vec![elements], bytes).expect("consistent");
        (*name, view)
    });
    let bytes = safetensors::serialize(views, None).expect("serialised");
    fs::write(folder.join("model.safetensors"), bytes).expect("written");
}

fn bf16(values: &[f32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| ((value.to_bits() >> 16) as u16).to_le_bytes())
        .collect()
}

struct Scene {
    folder: tempfile::TempDir,
}

impl Scene {
    /// `w` merges to `[1 + 2·(3−1), 0.5, −0.0]` with λ = 2; `ids` is copied.
    fn new(out: &[f32], ids: [i64; 2]) -> Self {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let integers = |values: [i64; 2]| values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let member = |name: &str, weights: &[f32], ids| {
            write(
                &folder.path().join(name),
                &[
                    ("w", Dtype::BF16, bf16(weights)),
                    ("ids", Dtype::I64, integers(ids)),
                ],
            );
        };
        member("cp", &[1.0, 0.5, -0.0], [7, 8]);
        member("chat", &[3.0, 2.0, 9.0], [0, 0]);
        member("base", &[1.0, 2.0, 9.0], [0, 0]);
        member("out", out, ids);
        Self { folder }
    }

    fn verify(&self, lambda: f64, rule: Rule) -> anyhow::Result<Report> {
        let path = |name: &str| self.folder.path().join(name);
        let expected = Expectation {
            cp: path("cp"),
            vectors: vec![Vector {
                chat: path("chat"),
                base: path("base"),
                lambda,
            }],
            dtype: None,
            rule: &|_| rule,
        };
        verify(&path("out"), &expected)
    }
}

const MERGE: Rule = Rule::Merge { scale: 1.0 };

#[test]
fn a_right_output_has_no_difference() {
    let scene = Scene::new(&[5.0, 0.5, -0.0], [7, 8]);
    let report = scene.verify(2.0, MERGE).expect("comparable");
    assert_eq!((report.tensors, report.copied), (2, 1));
    assert_eq!((report.elements, report.differing), (5, 0));
}

#[test]
fn one_wrong_bit_is_found_and_named() {
    let scene = Scene::new(&[5.0, 0.503_906_25, -0.0], [7, 8]);
    let report = scene.verify(2.0, MERGE).expect("comparable");
    assert_eq!(report.differing, 1);
    let first = report.first.expect("a difference");
    assert_eq!((first.tensor.as_str(), first.element), ("w", 1));
}

#[test]
fn a_lost_sign_of_zero_is_a_difference() {
    let scene = Scene::new(&[5.0, 0.5, 0.0], [7, 8]);
    assert_eq!(scene.verify(2.0, MERGE).expect("comparable").differing, 1);
}

#[test]
fn a_changed_integer_is_a_difference() {
    let scene = Scene::new(&[5.0, 0.5, -0.0], [7, 9]);
    assert_eq!(scene.verify(2.0, MERGE).expect("comparable").differing, 1);
}

#[test]
fn another_lambda_scale_or_rule_is_another_output() {
    let scene = Scene::new(&[5.0, 0.5, -0.0], [7, 8]);
    assert_eq!(scene.verify(1.0, MERGE).expect("comparable").differing, 1);
    let halved = Rule::Merge { scale: 0.5 };
    assert_eq!(scene.verify(4.0, halved).expect("comparable").differing, 0);
    let kept = scene.verify(2.0, Rule::KeepCp).expect("comparable");
    assert_eq!(kept.differing, 1);
}

#[test]
fn a_missing_and_a_superfluous_tensor_are_errors() {
    let scene = Scene::new(&[5.0, 0.5, -0.0], [7, 8]);
    let out = scene.folder.path().join("out");
    write(&out, &[("w", Dtype::BF16, bf16(&[5.0, 0.5, -0.0]))]);
    let error = scene.verify(2.0, MERGE).expect_err("`ids` is missing");
    assert!(error.to_string().contains("`ids` is in cp"));
    let both = [
        ("w", Dtype::BF16, bf16(&[5.0, 0.5, -0.0])),
        ("x", Dtype::BF16, bf16(&[1.0])),
    ];
    write(&out, &both);
    let error = scene.verify(2.0, MERGE).expect_err("`x` is superfluous");
    assert!(error.to_string().contains("`x` is in the output"));
}

#[test]
fn a_file_with_a_byte_too_many_is_an_error() {
    let scene = Scene::new(&[5.0, 0.5, -0.0], [7, 8]);
    let path = scene.folder.path().join("out/model.safetensors");
    let mut bytes = fs::read(&path).expect("read");
    bytes.push(0);
    fs::write(&path, bytes).expect("written");
    assert!(scene.verify(2.0, MERGE).is_err());
}
