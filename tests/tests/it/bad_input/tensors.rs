//! Tensors that do not fit together.

use serde_json::json;

use super::scene::{EMBED, NORM, Scene, Tensor, UP, contents, model, safetensors};

const KEEP: &str = "  hint: `missing: keep_cp` keeps cp's tensor where another input lacks it; a rule can keep just this one\n";

/// Writes the weights of one role.
fn write(scene: &Scene, role: &str, tensors: &[Tensor]) {
    scene.write(&format!("{role}/model.safetensors"), &safetensors(tensors));
}

/// A recipe of the scene with these lines more.
fn recipe(more: &str) -> String {
    format!(
        "cp: cp\nvectors: [{{ chat: chat, base: base, lambda: 1.0 }}]\noutput: {{ url: out }}\n{more}"
    )
}

#[test]
fn a_tensor_that_chat_or_base_lacks_is_named_with_the_policy() {
    let scene = Scene::new();
    write(&scene, "chat", &model(0.75)[..2]);
    assert_eq!(
        scene.refusal(),
        format!("error: {NORM}: cp has this tensor, `vectors[0].chat` does not\n{KEEP}")
    );

    write(&scene, "base", &model(0.5)[1..]);
    let expected = format!(
        "error: {EMBED}: cp has this tensor, `vectors[0].base` does not\n{KEEP}\
         error: {NORM}: cp has this tensor, `vectors[0].chat` does not\n{KEEP}"
    );
    assert_eq!(scene.refusal(), expected, "all are told at once");
    scene.accepted(&scene.merge_recipe(&recipe("missing: keep_cp\n")));
}

#[test]
fn a_tensor_that_only_chat_has_is_a_warning() {
    let scene = Scene::new();
    let mut tensors = model(0.75);
    tensors.push(Tensor::f32("extra.weight", &[2], 1.0));
    write(&scene, "chat", &tensors);
    let said = scene.accepted(&scene.merge(&[]));
    assert_eq!(
        said,
        "warning: vectors[0].chat: cp has no tensor `extra.weight`: ignored\n"
    );
}

#[test]
fn a_larger_vocabulary_is_refused_with_the_rule_that_keeps_it() {
    let scene = Scene::new();
    let mut tensors = model(1.0);
    tensors[0] = Tensor::f32(EMBED, &[12, 4], 1.0);
    write(&scene, "cp", &tensors);
    let hint = "  hint: the vocabularies differ; keep cp's rows: `rules: [{ kind: [embed, lm_head], action: keep_cp }]`\n";
    let expected = format!(
        "error: {EMBED}: the shape in cp is [12, 4], in `vectors[0].chat` [8, 4]\n{hint}\
         error: {EMBED}: the shape in cp is [12, 4], in `vectors[0].base` [8, 4]\n{hint}"
    );
    assert_eq!(scene.refusal(), expected);
    scene.accepted(&scene.merge_recipe(&recipe(
        "rules: [{ kind: [embed, lm_head], action: keep_cp }]\n",
    )));
}

#[test]
fn another_shape_is_refused_even_if_it_has_as_many_elements() {
    let scene = Scene::new();
    let mut tensors = model(0.5);
    tensors[1] = Tensor::f32(UP, &[2, 8], 1.0);
    write(&scene, "base", &tensors);
    let expected = format!(
        "error: {UP}: the shape in cp is [4, 4], in `vectors[0].base` [2, 8]\n  \
         hint: the inputs must be models of one family and size; keep cp's tensor with a rule `action: keep_cp`\n"
    );
    assert_eq!(scene.refusal(), expected);
}

#[test]
fn numbers_of_another_nature_are_refused() {
    let scene = Scene::new();
    let mut tensors = model(0.75);
    tensors[2] = Tensor::of(NORM, "I32", &[4], &[0; 16]);
    write(&scene, "chat", &tensors);
    let expected = format!(
        "error: {NORM}: cp stores F32 numbers, `vectors[0].chat` stores I32, which cannot be merged\n  \
         hint: keep cp's tensor: `rules: [{{ match: \"{NORM}\", action: keep_cp }}]`\n"
    );
    assert_eq!(scene.refusal(), expected);
    let rule = format!("rules: [{{ match: \"{NORM}\", action: keep_cp }}]\n");
    scene.accepted(&scene.merge_recipe(&recipe(&rule)));
}

#[test]
fn an_integer_tensor_of_cp_is_copied_whatever_the_others_have() {
    let scene = Scene::new();
    let mut tensors = model(1.0);
    tensors[2] = Tensor::of(NORM, "I32", &[4], &[7; 16]);
    write(&scene, "cp", &tensors);
    scene.accepted(&scene.merge(&[]));
    let merged = std::fs::read(scene.path("out/model.safetensors")).unwrap();
    assert!(merged.ends_with(&[7; 16]));
}

const ORIGINAL: &str =
    "  hint: give the checkpoint in its original precision: F64, F32, BF16 or F16\n";

#[test]
fn quantised_weights_are_refused_by_type() {
    let scene = Scene::new();
    let mut tensors = model(0.75);
    tensors[0] = Tensor::of(EMBED, "F8_E4M3", &[8, 4], &[0; 32]);
    tensors[1] = Tensor::of(UP, "F8_E5M2", &[4, 4], &[0; 16]);
    write(&scene, "chat", &tensors);
    let expected = format!(
        "error: vectors[0].chat: {EMBED}: the checkpoint is quantised: the tensor's type is F8_E4M3 (and 1 more like it)\n{ORIGINAL}"
    );
    assert_eq!(
        scene.refusal(),
        expected.replace("vectors[0].chat", "--chat")
    );
}

#[test]
fn quantised_weights_are_refused_by_name() {
    for name in [
        "layers.0.weight_scale_inv",
        "layers.0.qweight",
        "layers.0.weight.absmax",
    ] {
        let scene = Scene::new();
        let mut tensors = model(1.0);
        tensors.push(Tensor::of(name, "I32", &[1], &[0; 4]));
        write(&scene, "cp", &tensors);
        let expected = format!(
            "error: --cp: {name}: the checkpoint is quantised: the tensor holds codes or scales\n{ORIGINAL}"
        );
        assert_eq!(scene.refusal(), expected);
    }
}

#[test]
fn quantised_weights_are_refused_by_the_config() {
    let scene = Scene::new();
    scene.write_json(
        "base/config.json",
        &json!({ "quantization_config": { "quant_method": "bitsandbytes" } }),
    );
    let expected = format!(
        "error: --base: config.json: the checkpoint is quantised: it has a `quantization_config` (method `bitsandbytes`)\n{ORIGINAL}"
    );
    assert_eq!(scene.refusal(), expected);
}

#[test]
fn a_recipe_that_merges_nothing_is_refused() {
    let scene = Scene::new();
    let before = contents(&scene.path("out"));
    let outcome = scene.merge_recipe(&recipe("rules: [{ match: \"*\", action: keep_cp }]\n"));
    let said = scene.refused(&outcome, &before);
    assert!(
        said.starts_with(
            "error: recipe: nothing would be merged: every tensor of cp is kept\n  hint: "
        ),
        "{said}"
    );
}
