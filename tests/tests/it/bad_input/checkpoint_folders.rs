//! Folders that are no checkpoint, not a whole one, or two in one.

use std::fs;

use serde_json::json;

use super::scene::{EMBED, NORM, Scene, Tensor, UP, model, safetensors};

const INDEX: &str = "chat/model.safetensors.index.json";

/// What is said of a merge whose `chat` holds these files and nothing else.
#[track_caller]
fn refusal_of_chat(files: &[(&str, &[u8])]) -> String {
    let scene = Scene::new();
    scene.remove("chat");
    fs::create_dir(scene.path("chat")).expect("a folder can be made");
    for (name, bytes) in files {
        scene.write(&format!("chat/{name}"), bytes);
    }
    scene.refusal()
}

/// Splits the weights of `chat` into two shards and an index.
fn sharded() -> Scene {
    let scene = Scene::new();
    scene.remove("chat/model.safetensors");
    let tensors = model(0.75);
    scene.write(
        "chat/model-00001-of-00002.safetensors",
        &safetensors(&tensors[..1]),
    );
    scene.write(
        "chat/model-00002-of-00002.safetensors",
        &safetensors(&tensors[1..]),
    );
    write_index(&scene, 208, &[(EMBED, 1), (UP, 2), (NORM, 2)]);
    scene
}

fn write_index(scene: &Scene, total_size: u64, tensors: &[(&str, u32)]) {
    let shard = |number| format!("model-{number:05}-of-00002.safetensors");
    let map: serde_json::Map<_, _> = tensors
        .iter()
        .map(|(name, of)| ((*name).to_owned(), shard(of).into()))
        .collect();
    scene.write_json(
        INDEX,
        &json!({ "metadata": { "total_size": total_size }, "weight_map": map }),
    );
}

#[test]
fn a_folder_without_weights_says_what_it_is_instead() {
    let x = &b"x"[..];
    for (files, expected) in [
        (
            &[][..],
            "the folder is empty\n  hint: check the path, or download the model first\n",
        ),
        (
            &[("config.json", &b"{}"[..])],
            "no weights: expected `model.safetensors`, or shards with `model.safetensors.index.json`\n  \
             hint: check the path, or download the model first\n",
        ),
        (
            &[("config.json", b"{}"), ("pytorch_model.bin", x)],
            "the weights are pickled (`pytorch_model.bin`), expected safetensors\n  \
             hint: convert them: load the model with transformers and call `save_pretrained(folder, safe_serialization=True)`\n",
        ),
        (
            &[("model-Q4_K_M.gguf", x)],
            "the weights are in the GGUF format (`model-Q4_K_M.gguf`), expected safetensors\n  \
             hint: give the original checkpoint: GGUF weights are a conversion of it\n",
        ),
        (
            &[
                ("adapter_config.json", b"{}"),
                ("adapter_model.safetensors", x),
            ],
            "this is an adapter (`adapter_config.json`), not a whole model\n  \
             hint: merge the adapter into its model first and give the result\n",
        ),
        (
            &[
                ("refs/main", b"abc123"),
                ("blobs/1", x),
                ("snapshots/abc123/model.safetensors", x),
            ],
            "this is the root of a Hub cache, its checkpoints are the folders in `snapshots/`\n  \
             hint: give `snapshots/abc123` in it\n",
        ),
        (
            &[("model.fp16.safetensors", x)],
            "expected `model.safetensors` or its shards, found only `model.fp16.safetensors`: the same weights in another precision\n  \
             hint: if these are the weights that are meant, copy them into a folder of their own under the usual names\n",
        ),
    ] {
        assert_eq!(
            refusal_of_chat(files),
            format!("error: --chat: chat: {expected}")
        );
    }
}

#[test]
fn an_input_that_is_not_there_is_told_with_its_flag() {
    let scene = Scene::new();
    scene.remove("chat");
    scene.remove("base");
    assert_eq!(
        scene.refusal(),
        "error: --chat: chat: no such folder\nerror: --base: base: no such folder\n"
    );
}

#[test]
fn a_name_of_the_hub_that_is_no_folder_gets_the_command_that_downloads_it() {
    let scene = Scene::new();
    let said = scene.recipe_refusal(
        "cp: cp\nvectors: [{ chat: meta-llama/Llama-3-8B-Instruct, base: base, lambda: 1 }]\noutput: { url: out }\n",
    );
    let expected = "error: vectors[0].chat: meta-llama/Llama-3-8B-Instruct: no such folder\n  \
                    hint: `meta-llama/Llama-3-8B-Instruct` looks like the name of a model on the Hub: download it first \
                    (`hf download meta-llama/Llama-3-8B-Instruct --local-dir FOLDER`) and give the folder\n";
    assert_eq!(said, expected);
}

#[test]
fn a_file_in_the_place_of_a_checkpoint_is_told() {
    let scene = Scene::new();
    scene.remove("base");
    scene.write("base", b"x");
    let expected = "error: --base: base: expected the folder of a checkpoint, found a file\n  hint: give the folder that holds the checkpoint\n";
    assert_eq!(scene.refusal(), expected);
}

#[test]
fn a_store_without_credentials_and_an_unknown_scheme_are_told() {
    let scene = Scene::new();
    let said = scene.recipe_refusal(
        "cp: s3://bucket/cp\nvectors: [{ chat: chat, base: ftp://host/base, lambda: 1 }]\noutput: { url: out }\n",
    );
    let unknown = "error: vectors[0].base: ftp://host/base: unknown kind of URL `ftp://`, expected a path, `s3://` or `file://`\n";
    assert!(said.starts_with(unknown), "{said}");
    assert!(said.contains("error: cp: s3://bucket/cp"), "{said}");
    assert!(said.contains(": no credentials: "), "{said}");
    assert!(
        said.ends_with("hint: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run where a role gives credentials\n"),
        "{said}"
    );
}

#[test]
fn a_broken_link_in_a_checkpoint_is_named_with_its_target() {
    let scene = Scene::new();
    scene.remove("cp/model.safetensors");
    std::os::unix::fs::symlink("../blobs/gone", scene.path("cp/model.safetensors")).unwrap();
    let expected = "error: --cp: cp/model.safetensors: broken link: `../blobs/gone` is not there\n  \
                    hint: the download is incomplete or the link's target was removed: download the file again\n";
    assert_eq!(scene.refusal(), expected);
}

#[test]
fn an_index_with_its_shards_is_a_whole_checkpoint() {
    let scene = sharded();
    assert_eq!(scene.accepted(&scene.merge(&[])), "");
}

#[test]
fn an_index_that_names_an_absent_file_is_refused() {
    let scene = sharded();
    scene.remove("chat/model-00002-of-00002.safetensors");
    let expected = "error: --chat: chat: `model.safetensors.index.json` names a file that is not in the folder: \
                    `model-00002-of-00002.safetensors`\n  \
                    hint: the checkpoint is incomplete: download or copy the missing files\n";
    assert_eq!(scene.refusal(), expected);
}

#[test]
fn an_index_that_names_an_absent_tensor_is_refused() {
    let scene = sharded();
    write_index(&scene, 208, &[(EMBED, 1), (UP, 2), (NORM, 2), ("ghost", 2)]);
    let expected = "error: --chat: chat: ghost: `model.safetensors.index.json` says it is in \
                    `model-00002-of-00002.safetensors`, which does not have it\n  \
                    hint: the index and the files are of different checkpoints: download both again\n";
    assert_eq!(scene.refusal(), expected);
}

#[test]
fn an_index_that_names_the_wrong_file_is_refused() {
    let scene = sharded();
    write_index(&scene, 208, &[(EMBED, 1), (UP, 1), (NORM, 2)]);
    let expected = format!(
        "error: --chat: chat: {UP}: `model.safetensors.index.json` says it is in \
         `model-00001-of-00002.safetensors`, found in `model-00002-of-00002.safetensors`\n  \
         hint: the index and the files are of different checkpoints: download both again\n"
    );
    assert_eq!(scene.refusal(), expected);
}

#[test]
fn an_index_with_a_path_out_of_the_folder_is_refused() {
    let scene = sharded();
    scene.write_json(
        INDEX,
        &json!({ "weight_map": { EMBED: "../cp/model.safetensors" } }),
    );
    let expected = format!(
        "error: --chat: chat: `model.safetensors.index.json`: tensor `{EMBED}` is in `../cp/model.safetensors`, \
         expected the name of a `.safetensors` file in the same folder\n"
    );
    assert_eq!(scene.refusal(), expected);
}

#[test]
fn an_index_that_is_no_json_says_where() {
    let scene = sharded();
    scene.write(INDEX, b"{ \"weight_map\": [] }");
    let expected = "error: --chat: chat: `model.safetensors.index.json`: not a valid index: invalid type: sequence, \
                    expected an object of file names by tensor at line 1 column 16\n";
    assert_eq!(scene.refusal(), expected);
}

#[test]
fn an_index_beside_a_whole_file_that_it_does_not_name_is_refused() {
    let scene = sharded();
    scene.write("chat/model.safetensors", &safetensors(&model(0.75)));
    let expected = "error: --chat: chat: both `model.safetensors` and `model.safetensors.index.json` are there, \
                    and the index does not name the file\n  \
                    hint: two checkpoints are mixed in one folder: remove the one that is not meant\n";
    assert_eq!(scene.refusal(), expected);
}

#[test]
fn an_incomplete_set_of_shards_without_an_index_is_refused() {
    let scene = sharded();
    scene.remove(INDEX);
    assert_eq!(
        scene.accepted(&scene.merge(&[])),
        "",
        "the names of a whole set suffice"
    );

    let scene = sharded();
    scene.remove(INDEX);
    scene.remove("chat/model-00001-of-00002.safetensors");
    let expected = "error: --chat: chat: 1 of 2 shards is not in the folder: `model-00001-of-00002.safetensors`\n  \
                    hint: the checkpoint is incomplete: download or copy the missing files\n";
    assert_eq!(scene.refusal(), expected);
}

#[test]
fn shards_of_two_sets_are_refused() {
    let scene = sharded();
    scene.remove(INDEX);
    scene.write(
        "chat/model-00001-of-00003.safetensors",
        &safetensors(&model(0.75)),
    );
    let expected = "error: --chat: chat: the shards `model-00001-of-00002.safetensors` and \
                    `model-00001-of-00003.safetensors` belong to different sets\n  \
                    hint: two checkpoints are mixed in one folder: remove the one that is not meant\n";
    assert_eq!(scene.refusal(), expected);
}

#[test]
fn a_tensor_in_two_files_is_refused() {
    let scene = sharded();
    scene.remove(INDEX);
    scene.write(
        "chat/model-00001-of-00002.safetensors",
        &safetensors(&[Tensor::f32(NORM, &[4], 9.0)]),
    );
    let said = scene.refusal();
    let expected = format!(
        "error: --chat: chat: {NORM}: stands in two files: `model-00001-of-00002.safetensors` and \
         `model-00002-of-00002.safetensors`\n  \
         hint: two checkpoints may be mixed in one folder: keep the files of one of them\n"
    );
    assert_eq!(said, expected);
}

#[test]
fn a_wrong_total_size_is_a_warning_and_the_merge_works() {
    let scene = sharded();
    write_index(&scene, 207, &[(EMBED, 1), (UP, 2), (NORM, 2)]);
    let said = scene.accepted(&scene.merge(&[]));
    let expected = "warning: vectors[0].chat: model.safetensors.index.json: `total_size` is 207, the tensors have 208 bytes\n";
    assert_eq!(said, expected);
    assert!(scene.path("out/model.safetensors").exists());
}
