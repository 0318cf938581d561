//! NaN, infinity and overflow: found while the weights are read.

use std::fs;

use super::scene::{EMBED, NORM, Scene, Tensor, UP, contents, model, safetensors};

const ALLOW: &str = "  hint: `nonfinite: allow` passes NaN and infinity on\n";

fn recipe(more: &str) -> String {
    format!(
        "cp: cp\nvectors: [{{ chat: chat, base: base, lambda: 1.0 }}]\noutput: {{ url: out }}\n{more}"
    )
}

/// A scene in which one role has one element of `UP` replaced.
fn with_value(role: &str, value: f32, element: usize) -> Scene {
    let scene = Scene::new();
    let mut tensors = model(0.5);
    tensors[1] = tensors[1].clone().with(element, value);
    scene.write(&format!("{role}/model.safetensors"), &safetensors(&tensors));
    scene
}

/// Where `UP` begins in the files of a scene.
fn offset_of_up() -> usize {
    safetensors(&model(1.0)).len() - 16 - 64
}

#[test]
fn a_value_that_is_not_finite_is_told_with_its_role_file_and_place() {
    for (role, place) in [
        ("cp", "cp"),
        ("chat", "vectors[0].chat"),
        ("base", "vectors[0].base"),
    ] {
        for (value, name) in [
            (f32::NAN, "NaN"),
            (f32::INFINITY, "inf"),
            (f32::NEG_INFINITY, "-inf"),
        ] {
            let said = with_value(role, value, 5).refusal();
            let expected = format!(
                "error: {UP}: expected finite values, found {name} in `{place}`, \
                 `{role}/model.safetensors` at byte {} (element 5 of the slice at output byte ",
                offset_of_up() + 5 * 4
            );
            assert!(said.starts_with(&expected), "{said}");
            assert!(said.ends_with(&format!(")\n{ALLOW}")), "{said}");
        }
    }
}

#[test]
fn the_place_is_that_of_the_file_whatever_the_parts() {
    let scene = Scene::new();
    let (elements, bad) = (5000, 4321);
    for (role, value) in [("cp", 1.0), ("chat", 0.75), ("base", 0.5)] {
        let mut tensors = vec![
            Tensor::f32(NORM, &[4], value),
            Tensor::f32(EMBED, &[elements as u64], value),
        ];
        if role == "chat" {
            tensors[1] = tensors[1].clone().with(bad, f32::NAN);
        }
        scene.write(&format!("{role}/model.safetensors"), &safetensors(&tensors));
    }
    let size = fs::metadata(scene.path("chat/model.safetensors"))
        .unwrap()
        .len() as usize;
    let said = scene.refused(&scene.merge(&["--part-size", "4096"]), &None);
    let place = format!(
        "error: {EMBED}: expected finite values, found NaN in `vectors[0].chat`, \
         `chat/model.safetensors` at byte {} (",
        size - (elements - bad) * 4
    );
    assert!(said.starts_with(&place), "{said}");
}

#[test]
fn nonfinite_allow_passes_the_value_on_and_changes_no_other() {
    let scene = with_value("chat", f32::NAN, 5);
    scene.accepted(&scene.merge_recipe(&recipe("nonfinite: allow\n")));
    let merged = fs::read(scene.path("out/model.safetensors")).unwrap();
    let element = |i: usize| {
        let at = merged.len() - 16 - 64 + 4 * i;
        f32::from_le_bytes(merged[at..at + 4].try_into().unwrap())
    };
    assert!(element(5).is_nan());
    assert!((0..16).filter(|i| *i != 5).all(|i| element(i).is_finite()));
}

#[test]
fn a_value_that_is_not_finite_does_no_harm_where_cp_is_kept() {
    let scene = with_value("cp", f32::NAN, 5);
    let rule = format!("rules: [{{ match: \"{UP}\", action: keep_cp }}]\n");
    scene.accepted(&scene.merge_recipe(&recipe(&rule)));
    let (cp, merged) = (
        scene.path("cp/model.safetensors"),
        scene.path("out/model.safetensors"),
    );
    let up = |file: Vec<u8>| file[file.len() - 80..file.len() - 16].to_vec();
    assert_eq!(up(fs::read(cp).unwrap()), up(fs::read(merged).unwrap()));

    let scene = with_value("chat", f32::NAN, 5);
    scene.accepted(&scene.merge_recipe(&recipe(&rule)));
}

#[test]
fn a_sum_beyond_the_outputs_type_is_told_and_leaves_nothing() {
    // chat − base is 0.5; f16 rounds 65,519.5 down to its largest number, and
    // 65,520 up to infinity.
    let scene = with_value("cp", 65_519.0, 3);
    scene.accepted(&scene.merge(&["--dtype", "f16"]));

    let scene = with_value("cp", 65_519.5, 3);
    let said = scene.refused(&scene.merge(&["--dtype", "f16"]), &None);
    let expected =
        format!("error: {UP}: expected a result within the range of F16, found inf at element 3 ");
    assert!(said.starts_with(&expected), "{said}");
    assert!(said.ends_with(ALLOW), "{said}");

    scene.accepted(
        &scene.merge_recipe(
            &recipe("nonfinite: allow\n").replace("url: out", "url: out, dtype: f16"),
        ),
    );
}

#[test]
fn what_stood_in_the_output_stays_when_the_weights_prove_bad() {
    let scene = with_value("base", f32::NAN, 0);
    scene.write("out/model.safetensors", b"an older checkpoint");
    scene.write("out/config.json", b"{}");
    let before = contents(&scene.path("out"));
    let outcome = scene.merge(&["--overwrite"]);
    assert!(scene.refused(&outcome, &before).contains("found NaN"));
}

#[test]
fn an_empty_output_folder_is_left_empty() {
    let scene = with_value("base", f32::NAN, 0);
    fs::create_dir(scene.path("out")).unwrap();
    assert!(scene.refusal().contains("found NaN"));
    assert_eq!(contents(&scene.path("out")), Some(Default::default()));
}
