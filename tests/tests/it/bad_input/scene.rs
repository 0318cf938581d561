//! Three small checkpoints in a folder of their own, one damage at a time, and
//! what `chatvec merge` makes of it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use chatvec_tests::process::{self, Outcome};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A tensor to be written.
#[derive(Debug, Clone)]
pub(super) struct Tensor {
    pub(super) name: &'static str,
    pub(super) dtype: &'static str,
    pub(super) shape: Vec<u64>,
    pub(super) bytes: Vec<u8>,
}

impl Tensor {
    /// A tensor of type F32 whose elements are all `value`.
    pub(super) fn f32(name: &'static str, shape: &[u64], value: f32) -> Self {
        let elements = shape.iter().product::<u64>() as usize;
        let bytes = value.to_le_bytes().repeat(elements);
        Self {
            name,
            dtype: "F32",
            shape: shape.to_vec(),
            bytes,
        }
    }

    /// A tensor of any type, of these very bytes.
    pub(super) fn of(name: &'static str, dtype: &'static str, shape: &[u64], bytes: &[u8]) -> Self {
        Self {
            name,
            dtype,
            shape: shape.to_vec(),
            bytes: bytes.to_vec(),
        }
    }

    /// The tensor with one element of four bytes replaced.
    pub(super) fn with(mut self, element: usize, value: f32) -> Self {
        self.bytes[element * 4..][..4].copy_from_slice(&value.to_le_bytes());
        self
    }
}

pub(super) const EMBED: &str = "model.embed_tokens.weight";
pub(super) const UP: &str = "model.layers.0.mlp.up_proj.weight";
pub(super) const NORM: &str = "model.norm.weight";

/// The tensors of a whole small model; each role has values of its own.
pub(super) fn model(value: f32) -> Vec<Tensor> {
    vec![
        Tensor::f32(EMBED, &[8, 4], value),
        Tensor::f32(UP, &[4, 4], 2.0 * value),
        Tensor::f32(NORM, &[4], 3.0 * value),
    ]
}

/// A safetensors file: length, header, data.
pub(super) fn safetensors(tensors: &[Tensor]) -> Vec<u8> {
    let mut json = String::from("{");
    let mut data = Vec::new();
    for tensor in tensors {
        let begin = data.len();
        data.extend_from_slice(&tensor.bytes);
        let comma = if json.len() == 1 { "" } else { "," };
        let Tensor {
            name, dtype, shape, ..
        } = tensor;
        write!(
            json,
            r#"{comma}"{name}":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{begin},{}]}}"#,
            data.len()
        )
        .expect("a string takes everything");
    }
    json.push('}');
    with_header(json.as_bytes(), &data)
}

/// A file with this very header, whatever it says.
pub(super) fn with_header(header: &[u8], data: &[u8]) -> Vec<u8> {
    let length = (header.len() as u64).to_le_bytes();
    [&length, header, data].concat()
}

/// The checkpoints `cp`, `chat` and `base`; the output goes to `out`, which
/// does not exist.
pub(super) struct Scene {
    dir: TempDir,
}

impl Scene {
    /// Three whole checkpoints of one small model.
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder can be made");
        let scene = Self { dir };
        for (role, value) in [("cp", 1.0), ("chat", 0.75), ("base", 0.5)] {
            scene.write(
                &format!("{role}/model.safetensors"),
                &safetensors(&model(value)),
            );
            scene.write_json(
                &format!("{role}/config.json"),
                &json!({ "model_type": "llama" }),
            );
        }
        scene
    }

    /// A path below the scene's folder.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file, and the folders above it.
    pub(super) fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.path(name);
        let folder = path.parent().expect("below the scene's folder");
        fs::create_dir_all(folder).expect("a folder can be made");
        fs::write(path, bytes).expect("a file can be written");
    }

    pub(super) fn write_json(&self, name: &str, value: &Value) {
        self.write(name, value.to_string().as_bytes());
    }

    pub(super) fn remove(&self, name: &str) {
        let path = self.path(name);
        let removed = if path.is_dir() {
            fs::remove_dir_all(&path)
        } else {
            fs::remove_file(&path)
        };
        removed.expect("what a scene has can be removed");
    }

    /// Runs a merge by flags into `out`, with these arguments more.
    pub(super) fn merge(&self, more: &[&str]) -> Outcome {
        self.merge_into("out", more)
    }

    /// Runs a merge by flags into a folder, with these arguments more.
    pub(super) fn merge_into(&self, out: &str, more: &[&str]) -> Outcome {
        let path = |name| self.path(name).display().to_string();
        let [cp, chat, base, out] = ["cp", "chat", "base", out].map(path);
        let flags = [
            "merge", "--cp", &cp, "--chat", &chat, "--base", &base, "--lambda", "1.0", "--out",
            &out,
        ];
        process::run(flags.iter().chain(more))
    }

    /// Runs a merge of a recipe file with these contents, in the scene's
    /// folder.
    pub(super) fn merge_recipe(&self, recipe: &str) -> Outcome {
        self.write("recipe.yaml", recipe.as_bytes());
        process::run(["merge", &self.path("recipe.yaml").display().to_string()])
    }

    /// What a merge by flags says that must be refused.
    #[track_caller]
    pub(super) fn refusal(&self) -> String {
        let before = contents(&self.path("out"));
        let outcome = self.merge(&[]);
        self.refused(&outcome, &before)
    }

    /// What a merge of a recipe file says that must be refused.
    #[track_caller]
    pub(super) fn recipe_refusal(&self, recipe: &str) -> String {
        let before = contents(&self.path("out"));
        let outcome = self.merge_recipe(recipe);
        self.refused(&outcome, &before)
    }

    /// What was said by a merge that was refused as bad input, after which the
    /// output folder is as it was. The scene's folder is left out of the text.
    #[track_caller]
    pub(super) fn refused(&self, outcome: &Outcome, before: &Contents) -> String {
        assert_eq!(outcome.code, Some(2), "{}", outcome.stderr);
        assert_eq!(outcome.stdout, "");
        assert_eq!(
            contents(&self.path("out")),
            *before,
            "the output folder is as before"
        );
        self.said(outcome)
    }

    /// What a merge said that succeeded.
    #[track_caller]
    pub(super) fn accepted(&self, outcome: &Outcome) -> String {
        assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
        self.said(outcome)
    }

    /// What went to stderr, without the scene's folder in it.
    pub(super) fn said(&self, outcome: &Outcome) -> String {
        outcome
            .stderr
            .replace(&format!("{}/", self.dir.path().display()), "")
    }
}

/// Everything in a folder by its path in it: a file's bytes, or `None` for a
/// folder. `None` if it does not exist.
pub(super) type Contents = Option<BTreeMap<PathBuf, Option<Vec<u8>>>>;

/// Reads a folder through and through.
pub(super) fn contents(folder: &Path) -> Contents {
    folder.exists().then(|| {
        let mut found = BTreeMap::new();
        collect(folder, folder, &mut found);
        found
    })
}

fn collect(root: &Path, folder: &Path, found: &mut BTreeMap<PathBuf, Option<Vec<u8>>>) {
    let Ok(entries) = fs::read_dir(folder) else {
        found.insert(
            PathBuf::new(),
            Some(fs::read(folder).expect("a file can be read")),
        );
        return;
    };
    for entry in entries {
        let path = entry.expect("a folder can be read").path();
        let name = path.strip_prefix(root).expect("below the root").to_owned();
        if path.is_dir() {
            collect(root, &path, found);
            found.insert(name, None);
        } else {
            found.insert(name, Some(fs::read(&path).expect("a file can be read")));
        }
    }
}
