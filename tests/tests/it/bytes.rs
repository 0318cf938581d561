//! The same recipe on the same inputs gives the same bytes, the right ones,
//! however the work is cut and spread.

use std::fs;
use std::path::Path;

use chatvec_tests::family::FamilySpec;
use chatvec_tests::oracle::{Rule, Vector};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, serialize};
use serde_json::Value;

use crate::scene::{LAMBDA, Merged, STATS, Scene, small, tensors_in, text};

/// Merges with every number of workers at every part size, and compares.
fn compare_cuts(scene: &Scene, part_sizes: &[&str], workers: &[&str], more: &[&str]) -> Merged {
    let merged = |part_size: &str, workers: &str| {
        let cut = ["--part-size", part_size, "--workers", workers];
        scene.merged(&[&cut, more].concat())
    };
    let golden = merged("64MiB", "1");
    for part_size in part_sizes {
        let first = merged(part_size, workers[0]);
        first.assert_same_but_for(&[STATS], &golden);
        assert_close(&first.stats(), &golden.stats(), STATS);
        for workers in &workers[1..] {
            merged(part_size, workers).assert_same(&first);
        }
    }
    golden
}

/// Demands that numbers agree to 1e-12 and all else exactly. A cosine is a
/// difference of large sums, and as exact as its bound of 1 lets it be.
fn assert_close(found: &Value, wanted: &Value, place: &str) {
    match (found, wanted) {
        (Value::Object(found), Value::Object(wanted)) => {
            assert!(found.keys().eq(wanted.keys()), "{place}");
            for (name, found) in found {
                assert_close(found, &wanted[name], &format!("{place}.{name}"));
            }
        }
        (Value::Array(found), Value::Array(wanted)) => {
            assert_eq!(found.len(), wanted.len(), "{place}");
            for (i, (found, wanted)) in found.iter().zip(wanted).enumerate() {
                assert_close(found, wanted, &format!("{place}[{i}]"));
            }
        }
        (Value::Number(a), Value::Number(b)) if a.is_f64() && b.is_f64() => {
            let [a, b] = [a, b].map(|number| number.as_f64().expect("a float"));
            let scale = if place.ends_with(".cosine") {
                1.0
            } else {
                b.abs()
            };
            assert!((a - b).abs() <= 1e-12 * scale, "{place}: {a:e} and {b:e}");
        }
        _ => assert_eq!(found, wanted, "{place}"),
    }
}

#[test]
fn any_number_of_workers_and_any_part_size_give_the_same_bytes() {
    let scene = Scene::with(&FamilySpec::tiny(7));
    let golden = compare_cuts(&scene, &["64KiB", "1MiB", "64MiB"], &["1", "2", "8"], &[]);
    assert_eq!(golden.weight_files(), ["model.safetensors"]);
    scene.prove(&golden, &scene.expectation(LAMBDA));
}

#[test]
fn the_smallest_parts_and_many_shards_give_the_same_bytes() {
    let scene = Scene::with(&small(8));
    let sharded = ["--shard-size", "100KB"];
    let golden = compare_cuts(&scene, &["4KiB", "20KiB"], &["1", "8"], &sharded);
    assert!(
        golden.weight_files().len() >= 4,
        "{:?}",
        golden.weight_files()
    );
    assert!(golden.files.contains_key("model.safetensors.index.json"));
    scene.prove(&golden, &scene.expectation(LAMBDA));
    // The shards hold what one file would.
    assert!(golden.tensors() == scene.merged(&[]).tensors());
}

#[test]
fn one_wrong_bit_is_found_by_these_tests() {
    let scene = Scene::with(&small(9));
    let golden = scene.merged(&[]);
    let mut wrong = scene.merged(&[]);
    wrong.assert_same(&golden);
    let weights = wrong.files.get_mut("model.safetensors").expect("one file");
    *weights.last_mut().expect("not empty") ^= 1;
    let caught = |check: &dyn Fn()| {
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(check))
            .expect_err("it is not the same");
    };
    caught(&|| wrong.assert_same(&golden));
    caught(&|| scene.prove(&wrong, &scene.expectation(LAMBDA)));
    let mut stats = golden.stats();
    let norm = &mut stats["totals"]["t_norm"];
    *norm = (norm.as_f64().expect("a float") * (1.0 + 1e-11)).into();
    caught(&|| assert_close(&stats, &golden.stats(), STATS));
}

#[test]
fn a_lambda_of_zero_gives_the_tensors_of_cp_byte_for_byte() {
    let scene = Scene::with(&small(10));
    for lambda in ["0", "-0.0"] {
        chatvec_tests::process::run(scene.args(lambda, &[])).expect_code(0);
        assert!(
            scene.take().tensors() == tensors_in(&scene.family.cp()),
            "lambda {lambda}"
        );
    }
}

#[test]
fn a_chat_that_equals_its_base_gives_the_tensors_of_cp_and_a_warning() {
    let scene = Scene::with(&small(11));
    let (chat, base) = (scene.family.chat(), scene.family.base());
    fs::remove_dir_all(&chat).expect("removed");
    copy_folder(&base, &chat);
    let outcome = scene.run(&["-o", "json"]).expect_code(0);
    assert!(scene.take().tensors() == tensors_in(&scene.family.cp()));
    let summary = outcome.json();
    let warnings = summary["warnings"].as_array().expect("a list");
    assert!(!warnings.is_empty(), "{summary}");
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir(to).expect("made");
    for entry in fs::read_dir(from).expect("listed") {
        let entry = entry.expect("listed");
        fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
    }
}

#[test]
fn other_output_types_are_rounded_once() {
    let scene = Scene::with(&small(12));
    for (name, dtype) in [
        ("f16", Dtype::F16),
        ("f32", Dtype::F32),
        ("bf16", Dtype::BF16),
    ] {
        let merged = scene.merged(&["--dtype", name, "--part-size", "64KiB"]);
        let mut expected = scene.expectation(LAMBDA);
        expected.dtype = Some(dtype);
        scene.prove(&merged, &expected);
        assert!(
            merged.tensors().values().all(|(found, ..)| *found == dtype),
            "{name}"
        );
    }
}

#[test]
fn every_input_type_is_merged_exactly() {
    for (seed, dtype) in (40..).zip([Dtype::F16, Dtype::F32, Dtype::F64]) {
        let scene = Scene::with(&FamilySpec {
            dtype,
            ..small(seed)
        });
        scene.prove(
            &scene.merged(&["--part-size", "20KiB"]),
            &scene.expectation(LAMBDA),
        );
    }
}

#[test]
fn rules_keep_tensors_of_cp_or_scale_lambda() {
    let scene = Scene::with(&small(13));
    let merged = scene.merged_by(
        r#"
cp: "{cp}"
vectors: [{ chat: "{chat}", base: "{base}", lambda: 0.9 }]
rules:
  - { kind: [embed, lm_head], action: keep_cp }
  - { match: "model.layers.0.mlp.*", lambda_scale: 0.3 }
  - { match: "model.layers.*.mlp.up_proj.weight", lambda_scale: -2 }
  - { kind: norm, lambda_scale: 0 }
output: { url: "{out}" }
"#,
    );
    let mut expected = scene.expectation(0.9);
    expected.rule = &|name| match name {
        "model.embed_tokens.weight" | "lm_head.weight" => Rule::KeepCp,
        _ if name.contains("layers.0.mlp.") => Rule::Merge { scale: 0.3 },
        _ if name.contains("mlp.up_proj") => Rule::Merge { scale: -2.0 },
        _ if name.contains("norm") => Rule::Merge { scale: 0.0 },
        _ => Rule::Merge { scale: 1.0 },
    };
    scene.prove(&merged, &expected);
    let cp = tensors_in(&scene.family.cp());
    for kept in [
        "model.embed_tokens.weight",
        "lm_head.weight",
        "model.norm.weight",
    ] {
        assert!(merged.tensors()[kept] == cp[kept], "{kept}");
    }
}

#[test]
fn two_vectors_are_added_in_their_order() {
    let scene = Scene::with(&small(14));
    let second = small(15).write(&scene.path("second")).expect("written");
    let recipe = format!(
        r#"
cp: "{{cp}}"
vectors:
  - {{ chat: "{{chat}}", base: "{{base}}", lambda: 0.6 }}
  - {{ chat: "{}", base: "{}", lambda: -0.25 }}
output: {{ url: "{{out}}" }}
"#,
        text(&second.chat()),
        text(&second.base())
    );
    let mut expected = scene.expectation(0.6);
    expected.vectors.push(Vector {
        chat: second.chat(),
        base: second.base(),
        lambda: -0.25,
    });
    scene.prove(&scene.merged_by(&recipe), &expected);
}

#[test]
fn tied_heads_stay_tied() {
    let scene = Scene::with(&FamilySpec {
        tied: true,
        ..small(16)
    });
    let merged = scene.merged(&[]);
    assert!(!merged.tensors().contains_key("lm_head.weight"));
    scene.prove(&merged, &scene.expectation(LAMBDA));
}

#[test]
fn where_chat_and_base_are_tied_their_embedding_stands_for_the_head() {
    let scene = Scene::with(&small(17));
    let tied = FamilySpec {
        tied: true,
        ..small(17)
    };
    let tied = tied.write(&scene.path("tied")).expect("written");
    for (from, to) in [
        (tied.chat(), scene.family.chat()),
        (tied.base(), scene.family.base()),
    ] {
        fs::remove_dir_all(&to).expect("removed");
        copy_folder(&from, &to);
    }
    let merged = scene.merged(&[]);
    // The oracle gets both as they would be with the head stored.
    let mut expected = scene.expectation(LAMBDA);
    let vector = &mut expected.vectors[0];
    for folder in [&mut vector.chat, &mut vector.base] {
        let untied = scene
            .path("untied")
            .join(folder.file_name().expect("a name"));
        fs::create_dir_all(&untied).expect("made");
        let mut tensors = tensors_in(folder);
        let embedding = tensors["model.embed_tokens.weight"].clone();
        assert!(
            tensors
                .insert("lm_head.weight".to_owned(), embedding)
                .is_none()
        );
        let views = tensors.iter().map(|(name, (dtype, shape, data))| {
            (
                name,
                TensorView::new(*dtype, shape.clone(), data).expect("a whole tensor"),
            )
        });
        let file = serialize(views, None).expect("well-formed");
        fs::write(untied.join("model.safetensors"), file).expect("written");
        *folder = untied;
    }
    scene.prove(&merged, &expected);
}

#[test]
fn other_sharding_of_the_inputs_changes_no_byte() {
    let scene = Scene::with(&small(18));
    let golden = scene.merged(&[]);
    for shard_bytes in [60_000, u64::MAX] {
        // In place: the model card names the inputs.
        FamilySpec {
            shard_bytes,
            ..small(18)
        }
        .write(&scene.family.root)
        .expect("written");
        scene.merged(&[]).assert_same(&golden);
    }
}

#[test]
fn the_json_output_says_what_was_done() {
    let scene = Scene::with(&small(19));
    let outcome = scene
        .run(&["-o", "json", "--shard-size", "100KB"])
        .expect_code(0);
    assert_eq!(outcome.stderr, "");
    let summary = outcome.json();
    assert_eq!(summary["outcome"], "published");
    assert_eq!(summary["output"], text(&scene.out()));
    assert_eq!(summary["resumed_bytes"], 0);
    let merged = scene.take();
    let weight_files = merged.weight_files();
    assert_eq!(summary["weight_files"], weight_files.len());
    let weight_bytes: usize = weight_files
        .iter()
        .map(|name| merged.files[*name].len())
        .sum();
    assert_eq!(summary["weight_bytes"], weight_bytes);
    let mut files: Vec<_> = summary["files"]
        .as_array()
        .expect("a list")
        .iter()
        .collect();
    files.sort_by_key(|name| name.as_str());
    assert!(files.into_iter().eq(merged.files.keys()));
    assert_eq!(summary["tensors_merged"], merged.tensors().len());
    assert_eq!(summary["tensors_copied"], 0);
}

#[test]
fn the_text_output_goes_to_stdout_alone() {
    let scene = Scene::with(&small(20));
    let outcome = scene.run(&[]).expect_code(0);
    assert_eq!(outcome.stderr, "");
    assert!(outcome.stdout.starts_with("published "), "{outcome:#?}");
}
