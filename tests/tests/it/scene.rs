//! A made-up family in a folder of its own, and merges of it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use chatvec_tests::family::{Family, FamilySpec};
use chatvec_tests::oracle::{Expectation, Rule, Vector, verify};
use chatvec_tests::process::{self, Outcome, Process};
use safetensors::Dtype;
use serde_json::Value;
use tempfile::TempDir;

/// Says what is complete.
pub(crate) const MANIFEST: &str = "chatvec.manifest.json";
/// The statistics of a merge.
pub(crate) const STATS: &str = "chatvec.stats.json";
/// Where a merge keeps what is unfinished.
pub(crate) const STATE: &str = ".chatvec";

/// λ of every merge whose λ does not matter.
pub(crate) const LAMBDA: f64 = 0.7;

/// Some dozens of tensors, 0.5 MB a checkpoint.
pub(crate) fn small(seed: u64) -> FamilySpec {
    FamilySpec {
        layers: 2,
        hidden: 96,
        intermediate: 200,
        vocab: 600,
        shard_bytes: 300_000,
        ..FamilySpec::tiny(seed)
    }
}

/// A family and a place for what is made of it.
pub(crate) struct Scene {
    folder: TempDir,
    out: PathBuf,
    pub(crate) family: Family,
}

impl Scene {
    /// A folder with the family in it.
    pub(crate) fn with(spec: &FamilySpec) -> Self {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let family = spec.write(&folder.path().join("family")).expect("written");
        let out = folder.path().join("out");
        Self {
            folder,
            out,
            family,
        }
    }

    /// The same with its output elsewhere.
    pub(crate) fn with_out(self, out: PathBuf) -> Self {
        Self { out, ..self }
    }

    /// A place in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The output folder: one for all, because the model card names it.
    pub(crate) fn out(&self) -> PathBuf {
        self.out.clone()
    }

    /// The arguments of a merge by flags.
    pub(crate) fn args(&self, lambda: &str, more: &[&str]) -> Vec<OsString> {
        let flags: [(&str, OsString); 5] = [
            ("--cp", self.family.cp().into()),
            ("--chat", self.family.chat().into()),
            ("--base", self.family.base().into()),
            ("--lambda", lambda.into()),
            ("--out", self.out().into()),
        ];
        let flags = flags
            .into_iter()
            .flat_map(|(flag, value)| [flag.into(), value]);
        let more = more.iter().map(OsString::from);
        std::iter::once("merge".into())
            .chain(flags)
            .chain(more)
            .collect()
    }

    /// The command of a merge with the usual λ.
    pub(crate) fn command(&self, more: &[&str]) -> Command {
        process::command(self.args(&LAMBDA.to_string(), more))
    }

    /// Starts a merge with the usual λ.
    pub(crate) fn start(&self, more: &[&str]) -> Process {
        Process::start(self.command(more))
    }

    /// Runs a merge with the usual λ to its end.
    pub(crate) fn run(&self, more: &[&str]) -> Outcome {
        self.start(more).wait()
    }

    /// Merges, which succeeds, and takes the result out of the way.
    pub(crate) fn merged(&self, more: &[&str]) -> Merged {
        self.run(more).expect_code(0);
        self.take()
    }

    /// Merges by a recipe file; the output is named in it as `{out}`, an
    /// input by its folder's name in braces.
    pub(crate) fn merged_by(&self, recipe: &str) -> Merged {
        let recipe = recipe
            .replace("{out}", text(&self.out()))
            .replace("{cp}", text(&self.family.cp()))
            .replace("{chat}", text(&self.family.chat()))
            .replace("{base}", text(&self.family.base()));
        let file = self.path("recipe.yaml");
        fs::write(&file, recipe).expect("written");
        process::run(["merge", text(&file)]).expect_code(0);
        self.take()
    }

    /// The finished checkpoint, whose folder is free again afterwards.
    pub(crate) fn take(&self) -> Merged {
        let merged = Merged::read(&self.out());
        fs::remove_dir_all(self.out()).expect("removed");
        merged
    }

    /// The oracle's expectation of the output: every tensor merged.
    pub(crate) fn expectation(&self, lambda: f64) -> Expectation<'static> {
        Expectation {
            cp: self.family.cp(),
            vectors: vec![Vector {
                chat: self.family.chat(),
                base: self.family.base(),
                lambda,
            }],
            dtype: None,
            rule: &|_| Rule::Merge { scale: 1.0 },
        }
    }

    /// Demands of the oracle that the checkpoint is what it ought to be.
    #[track_caller]
    pub(crate) fn prove(&self, merged: &Merged, expected: &Expectation<'_>) {
        let folder = self.path("proof");
        merged.write(&folder);
        let report = verify(&folder, expected).expect("comparable");
        fs::remove_dir_all(&folder).expect("removed");
        assert_eq!((report.differing, &report.first), (0, &None));
        assert!(report.elements > 0);
    }
}

/// A path as text.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("paths of tests are plain text")
}

/// A finished checkpoint in memory.
pub(crate) struct Merged {
    /// Every file but the manifest.
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    /// The manifest.
    pub(crate) manifest: Value,
}

impl Merged {
    /// Reads a folder that must hold one finished checkpoint and nothing else:
    /// a complete manifest, and the files that it names with their sizes.
    #[track_caller]
    pub(crate) fn read(folder: &Path) -> Self {
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(folder).expect("listed") {
            let path = entry.expect("listed").path();
            let name = path
                .file_name()
                .expect("a name")
                .to_str()
                .expect("plain text");
            assert!(path.is_file(), "`{name}` was left behind");
            files.insert(name.to_owned(), fs::read(&path).expect("read"));
        }
        let manifest = files.remove(MANIFEST).expect("it has a manifest");
        let manifest: Value = serde_json::from_slice(&manifest).expect("JSON");
        assert_eq!(manifest["state"], "complete");
        let recorded: BTreeMap<_, _> = outputs(&manifest)
            .map(|file| {
                (
                    file["path"].as_str().expect("text"),
                    file["size"].as_u64().expect("a size"),
                )
            })
            .collect();
        let found = files
            .iter()
            .map(|(name, bytes)| (name.as_str(), bytes.len() as u64));
        assert_eq!(recorded, found.collect());
        Self { files, manifest }
    }

    fn write(&self, folder: &Path) {
        fs::create_dir(folder).expect("made");
        for (name, bytes) in &self.files {
            fs::write(folder.join(name), bytes).expect("written");
        }
    }

    /// The names of the weight files.
    pub(crate) fn weight_files(&self) -> Vec<&str> {
        let names = self.files.keys().map(String::as_str);
        names
            .filter(|name| name.ends_with(".safetensors"))
            .collect()
    }

    /// name → (type, shape, bytes) of every tensor.
    pub(crate) fn tensors(&self) -> Tensors {
        let files = self
            .weight_files()
            .into_iter()
            .map(|name| self.files[name].as_slice());
        tensors(files)
    }

    /// The statistics.
    pub(crate) fn stats(&self) -> Value {
        serde_json::from_slice(&self.files[STATS]).expect("JSON")
    }

    /// Demands that both are the same byte for byte. Of the manifests, what
    /// they say of the output counts.
    #[track_caller]
    pub(crate) fn assert_same(&self, other: &Self) {
        self.assert_same_but_for(&[], other);
    }

    /// As [`assert_same`](Self::assert_same), without looking into some files.
    #[track_caller]
    pub(crate) fn assert_same_but_for(&self, exempt: &[&str], other: &Self) {
        let names = |merged: &Self| merged.files.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(self), names(other));
        for (name, bytes) in &self.files {
            if exempt.contains(&name.as_str()) {
                continue;
            }
            let theirs = &other.files[name];
            assert_eq!(bytes.len(), theirs.len(), "length of `{name}`");
            // The bytes themselves would fill screens.
            let differing = bytes.iter().zip(theirs).filter(|(a, b)| a != b).count();
            assert_eq!(differing, 0, "bytes of `{name}` that differ");
        }
        let compared = |merged: &Self| -> Vec<Value> {
            let outputs = outputs(&merged.manifest);
            outputs
                .filter(|file| !exempt.iter().any(|name| file["path"] == *name))
                .cloned()
                .collect()
        };
        assert_eq!(compared(self), compared(other));
    }
}

fn outputs(manifest: &Value) -> impl Iterator<Item = &Value> {
    manifest["outputs"].as_array().expect("a list").iter()
}

/// name → (type, shape, bytes).
pub(crate) type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

/// Every tensor of some weight files.
pub(crate) fn tensors<'a>(files: impl IntoIterator<Item = &'a [u8]>) -> Tensors {
    let mut tensors = Tensors::new();
    for file in files {
        let file = safetensors::SafeTensors::deserialize(file).expect("a safetensors file");
        for (name, tensor) in file.tensors() {
            let (shape, data) = (tensor.shape().to_vec(), tensor.data().to_vec());
            let before = tensors.insert(name.clone(), (tensor.dtype(), shape, data));
            assert!(before.is_none(), "`{name}` is there twice");
        }
    }
    tensors
}

/// Every tensor of the checkpoint in a folder.
pub(crate) fn tensors_in(folder: &Path) -> Tensors {
    let paths = fs::read_dir(folder)
        .expect("listed")
        .map(|entry| entry.expect("listed").path());
    let weights = paths.filter(|path| path.extension().is_some_and(|kind| kind == "safetensors"));
    let files: Vec<_> = weights.map(|path| fs::read(path).expect("read")).collect();
    tensors(files.iter().map(Vec::as_slice))
}
