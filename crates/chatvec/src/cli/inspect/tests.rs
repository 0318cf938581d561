use std::fs;
use std::path::Path;

use chatvec_core::dtype::Dtype;
use chatvec_core::header::{NewTensor, encode};
use clap::Parser;

use super::*;

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    inspect: InspectArgs,
}

fn write_weights(path: &Path, tensors: &[(&str, Dtype, &[u64])]) {
    let new: Vec<_> = tensors
        .iter()
        .map(|&(name, dtype, shape)| NewTensor { name, dtype, shape })
        .collect();
    let mut file = encode(&new).unwrap();
    for (_, dtype, shape) in tensors {
        let bits = shape.iter().product::<u64>() as usize * dtype.bitsize();
        file.resize(file.len() + bits / 8, 0);
    }
    fs::write(path, file).unwrap();
}

/// A small model with one file that is ignored and one odd thing.
fn model() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    write_weights(
        &path("model-00001-of-00002.safetensors"),
        &[
            ("norm", Dtype::F32, &[]),
            ("layers.0.up", Dtype::BF16, &[4, 2]),
            ("layers.1.up", Dtype::BF16, &[4, 2]),
        ],
    );
    write_weights(
        &path("model-00002-of-00002.safetensors"),
        &[
            ("layers.2.up", Dtype::BF16, &[4, 3]),
            ("mask\u{1b}[2J", Dtype::BOOL, &[0]),
        ],
    );
    fs::write(path("model.fp16.safetensors"), "").unwrap();
    folder
}

fn inspected(folder: &Path, flags: &[&str]) -> Result<String, InspectError> {
    let arguments = ["inspect", folder.to_str().unwrap()];
    let command = Command::try_parse_from(arguments.iter().chain(flags)).unwrap();
    let mut out = Vec::new();
    run(&command.inspect, &mut out)?;
    Ok(String::from_utf8(out).unwrap())
}

#[test]
fn the_text_shows_files_types_shapes_and_warnings() {
    let folder = model();
    let text = inspected(folder.path(), &[]).unwrap();
    let size = |name: &str| fs::metadata(folder.path().join(name)).unwrap().len();
    let wanted = format!(
        "{}
5 tensors in 2 files, 60 B (60 bytes)

files
  model-00001-of-00002.safetensors  {} B  3 tensors
  model-00002-of-00002.safetensors  {} B  2 tensors

ignored
  model.fp16.safetensors  the same weights in another precision

types
  BF16  56 B  3 tensors
  F32   4 B   1 tensor
  BOOL  0 B   1 tensor

tensors
  norm           F32   []      x 1
  layers.*.up    BF16  [4, 2]  x 2
  layers.*.up    BF16  [4, 3]  x 1
  mask\\u{{1b}}[2J  BOOL  [0]     x 1

warning: config.json: the checkpoint has none
",
        folder.path().display(),
        size("model-00001-of-00002.safetensors"),
        size("model-00002-of-00002.safetensors"),
    );
    assert_eq!(text, wanted);
}

#[test]
fn all_tensors_are_listed_with_their_place_if_asked_for() {
    let folder = model();
    let config =
        r#"{"architectures":["XForCausalLM"],"model_type":"x","tie_word_embeddings":true}"#;
    fs::write(folder.path().join("config.json"), config).unwrap();
    let text = inspected(folder.path(), &["--tensors"]).unwrap();
    assert!(text.contains("\nXForCausalLM (x)\noutput head tied to the embedding\n"));
    let start = 1 + text.find("\n  layers.1.up").unwrap();
    let line = text[start..].lines().next().unwrap();
    let words: Vec<_> = line.split_whitespace().collect();
    assert_eq!(
        words[..7],
        [
            "layers.1.up",
            "BF16",
            "[4,",
            "2]",
            "16",
            "B",
            "model-00001-of-00002.safetensors"
        ]
    );
    let file = fs::read(folder.path().join("model-00001-of-00002.safetensors")).unwrap();
    assert_eq!(words[8], (file.len() - 16).to_string());
}

#[test]
fn the_json_is_one_object_with_the_same_facts() {
    let folder = model();
    let json = inspected(folder.path(), &["-o", "json"]).unwrap();
    let report: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(report["tensor_count"], 5);
    assert_eq!(report["tensor_bytes"], 60);
    assert_eq!(
        report["ignored"],
        serde_json::json!([{"name": "model.fp16.safetensors", "why": "variant"}])
    );
    assert_eq!(report["dtypes"][0]["dtype"], "BF16");
    assert_eq!(report["shapes"][1]["pattern"], "layers.*.up");
    assert_eq!(report["shapes"][1]["shape"], serde_json::json!([4, 2]));
    assert_eq!(report["warnings"][0]["subject"], "config.json");
    assert_eq!(report.get("tensors"), None);
    assert_eq!(report["quantised"], serde_json::Value::Null);
}

#[test]
fn tensors_that_the_index_does_not_name_are_listed_apart() {
    let folder = model();
    let index = r#"{"weight_map":{"norm":"model-00001-of-00002.safetensors"}}"#;
    fs::write(folder.path().join("model.safetensors.index.json"), index).unwrap();
    let text = inspected(folder.path(), &[]).unwrap();
    assert!(
        text.contains("\n1 tensor in 1 file, 4 B (4 bytes)\n"),
        "{text}"
    );
    let file = "model-00001-of-00002.safetensors";
    let listed = format!("\nignored tensors\n  layers.0.up  {file}\n  layers.1.up  {file}\n");
    assert!(text.contains(&listed), "{text}");
    assert!(text.contains("model-00002-of-00002.safetensors  not named by the index"));
}

#[test]
fn a_quantised_checkpoint_is_shown_and_said_not_to_merge() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    write_weights(&path, &[("q", Dtype::F8_E4M3, &[4])]);
    let text = inspected(folder.path(), &[]).unwrap();
    let says = "\ncannot be merged: q: the checkpoint is quantised: the tensor's type is F8_E4M3\nhint: give";
    assert!(text.contains(says), "{text}");
}

#[test]
fn a_broken_file_is_refused_with_the_reason_and_nothing_is_printed() {
    let folder = model();
    let path = folder.path().join("model-00002-of-00002.safetensors");
    let file = fs::read(&path).unwrap();
    fs::write(&path, &file[..file.len() - 1]).unwrap();
    let problems = inspected(folder.path(), &[]).unwrap_err().problems();
    assert_eq!(problems.len(), 1);
    assert_eq!(problems[0].subject, path.display().to_string());
    assert!(problems[0].message.starts_with("truncated: "));
}

#[test]
fn a_url_that_cannot_be_read_is_refused() {
    let error = inspected(Path::new("https://host/x"), &[]).unwrap_err();
    assert_eq!(
        error.problems()[0].to_string(),
        "https://host/x: unknown kind of URL `https://`, expected a path, `s3://` or `file://`"
    );
}
