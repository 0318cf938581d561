use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use chatvec_core::checkpoint::Layout;
use chatvec_core::dtype::Dtype;
use chatvec_core::header::{NewTensor, encode};
use tempfile::TempDir;

use super::*;
use crate::storage::object::ObjectStorageOptions;
use crate::storage::pin::pin_of;

/// A folder to fill with files.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> &Self {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), bytes).unwrap();
        self
    }

    fn weights(&self, name: &str, tensors: &[&str]) -> &Self {
        self.write(name, weights(tensors))
    }

    fn survey(&self) -> Result<Surveyed, SurveyError> {
        survey_at(self.0.path().to_str().unwrap())
    }

    /// The only problem, as path below the folder, message and hint.
    fn problem(&self) -> (String, String, String) {
        let problems = self.survey().unwrap_err().problems();
        assert_eq!(problems.len(), 1, "{problems:?}");
        let problem = problems.into_iter().next().unwrap();
        let root = self.0.path().to_str().unwrap();
        let below = problem.subject.strip_prefix(root).unwrap();
        let below = below.trim_start_matches('/').to_owned();
        (below, problem.message, problem.hint.unwrap_or_default())
    }
}

fn survey_at(text: &str) -> Result<Surveyed, SurveyError> {
    let storage = ObjectStorage::new(ObjectStorageOptions::from_variables([]));
    survey(
        &storage,
        &Location::parse(text, Path::new("/nonexistent")).unwrap(),
    )
}

/// A file of F32 tensors of 2 elements.
fn weights(tensors: &[&str]) -> Vec<u8> {
    let new: Vec<_> = tensors
        .iter()
        .map(|name| NewTensor {
            name,
            dtype: Dtype::F32,
            shape: &[2],
        })
        .collect();
    let mut file = encode(&new).unwrap();
    file.resize(file.len() + 8 * tensors.len(), 0);
    file
}

#[test]
fn a_sharded_checkpoint_is_read_with_the_pins_of_its_files() {
    let folder = Folder::new();
    let shards: Vec<_> = (1..=20)
        .map(|n| format!("model-{n:05}-of-00020.safetensors"))
        .collect();
    let mut map = serde_json::Map::new();
    for shard in &shards {
        folder.weights(shard, &[shard]);
        map.insert(shard.clone(), shard.clone().into());
    }
    let index = serde_json::json!({"metadata": {"total_size": 160}, "weight_map": map});
    folder
        .write(INDEX_FILE, index.to_string())
        .write(CONFIG_FILE, r#"{"model_type":"llama"}"#)
        .write("additional_chat_templates/tool.jinja", "x")
        .write("original/consolidated.00.pth", "x");
    let surveyed = folder.survey().unwrap();
    let checkpoint = &surveyed.checkpoint;
    assert_eq!(checkpoint.warnings, []);
    assert_eq!(checkpoint.config.model_type.as_deref(), Some("llama"));
    let names: Vec<_> = checkpoint.files.iter().map(|file| &file.name).collect();
    assert_eq!(names, shards.iter().collect::<Vec<_>>());
    for (file, source) in checkpoint.files.iter().zip(&surveyed.weight_files) {
        let path = fs::canonicalize(folder.path(&file.name)).unwrap();
        assert_eq!(Path::new(&source.url), path);
        assert_eq!(source.size, file.size);
        assert_eq!(source.pin, pin_of(&fs::metadata(path).unwrap()));
        assert_eq!(file.header.tensors[0].name, file.name);
    }
    let listed = |name: &str| surveyed.listing.iter().any(|file| file.name == name);
    assert!(listed("additional_chat_templates/tool.jinja") && listed(INDEX_FILE));
    assert!(!listed("original/") && !listed("original/consolidated.00.pth"));
    let (config, source) = surveyed.read_small(CONFIG_FILE).unwrap();
    assert_eq!(config, br#"{"model_type":"llama"}"#);
    assert_eq!(surveyed.pin(CONFIG_FILE).unwrap(), source);
    assert_eq!(checkpoint.ignored[0].name, "original/");
}

#[test]
fn a_hub_cache_is_read_through_its_links() {
    let cache = Folder::new();
    cache
        .write("refs/main", "4d7a")
        .write("blobs/b10b", weights(&["a"]))
        .write("blobs/c0nf", r#"{"model_type":"qwen2"}"#)
        .write("snapshots/4d7a/.keep", "");
    for (link, target) in [
        ("snapshots/4d7a/model.safetensors", "../../blobs/b10b"),
        ("snapshots/4d7a/config.json", "../../blobs/c0nf"),
    ] {
        symlink(target, cache.path(link)).unwrap();
    }
    let surveyed = survey_at(cache.path("snapshots/4d7a").to_str().unwrap()).unwrap();
    assert_eq!(surveyed.checkpoint.files[0].name, "model.safetensors");
    assert_eq!(
        surveyed.checkpoint.config.model_type.as_deref(),
        Some("qwen2")
    );
    let blob = fs::canonicalize(cache.path("blobs/b10b")).unwrap();
    assert_eq!(Path::new(&surveyed.weight_files[0].url), blob);

    let (subject, message, hint) = cache.problem();
    assert_eq!(subject, "");
    assert!(message.contains("Hub cache"), "{message}");
    assert_eq!(hint, "give `snapshots/4d7a` in it");
}

#[test]
fn a_broken_link_is_named() {
    let folder = Folder::new();
    folder.weights("model-00001-of-00002.safetensors", &["a"]);
    let link = "model-00002-of-00002.safetensors";
    symlink("../../blobs/gone", folder.path(link)).unwrap();
    let (subject, message, hint) = folder.problem();
    assert_eq!(subject, link);
    assert_eq!(message, "broken link: `../../blobs/gone` is not there");
    assert!(hint.contains("download"), "{hint}");
}

#[test]
fn a_link_to_itself_is_an_error_and_no_hang() {
    let folder = Folder::new();
    symlink("model.safetensors", folder.path("model.safetensors")).unwrap();
    assert_eq!(folder.problem().0, "model.safetensors");
}

#[test]
fn all_broken_shards_are_named_at_once() {
    let folder = Folder::new();
    let whole = weights(&["a"]);
    let shard = |n: u32| format!("model-{n:05}-of-00005.safetensors");
    folder
        .write(&shard(1), &whole[..whole.len() - 3])
        .weights(&shard(2), &["b"])
        .write(&shard(3), (1u64 << 63).to_le_bytes())
        .write(&shard(4), b"\x04\0\0\0\0\0\0\0{\"\xff\"")
        .write(&shard(5), "version https://git-lfs.github.com/spec/v1\noid");
    let problems = folder.survey().unwrap_err().problems();
    let found: Vec<_> = problems
        .iter()
        .map(|problem| {
            let name = Path::new(&problem.subject).file_name().unwrap();
            assert!(problem.hint.is_some(), "{problem}");
            (name.to_str().unwrap(), problem.message.as_str())
        })
        .collect();
    let wanted = format!(
        "truncated: the header wants {} bytes, the file has {}",
        whole.len(),
        whole.len() - 3
    );
    let names = [1, 3, 4, 5].map(shard);
    assert_eq!(found.len(), 4, "{found:?}");
    for ((name, message), (wanted_name, wanted)) in found.into_iter().zip(names.iter().zip([
        wanted.as_str(),
        "the header's length may be 100000000 bytes at most, the file says 9223372036854775808",
        "the header is not UTF-8: ",
        "this is a Git-LFS pointer, not the file itself",
    ])) {
        assert_eq!(name, wanted_name);
        assert!(message.starts_with(wanted), "{message}");
    }
}

#[test]
fn files_shorter_than_their_header_are_truncated() {
    for (length, says) in [
        (0, "at least 8 bytes, this one has 0"),
        (7, "at least 8 bytes, this one has 7"),
        (8, "truncated: the header alone ends at byte"),
        (20, "truncated: the header alone ends at byte"),
    ] {
        let folder = Folder::new();
        folder.write("model.safetensors", &weights(&["a"])[..length]);
        let (subject, message, _) = folder.problem();
        assert_eq!(subject, "model.safetensors");
        assert!(message.contains(says), "{length}: {message}");
    }
}

#[test]
fn contradictions_between_files_name_the_checkpoint_and_the_tensor() {
    let folder = Folder::new();
    folder
        .weights("x.safetensors", &["a", "b"])
        .weights("y.safetensors", &["b"]);
    let (subject, message, _) = folder.problem();
    assert_eq!(subject, ": b");
    assert_eq!(
        message,
        "stands in two files: `x.safetensors` and `y.safetensors`"
    );
}

#[test]
fn a_folder_that_is_none_is_refused_with_what_to_give_instead() {
    let folder = Folder::new();
    let (_, message, hint) = folder.problem();
    assert_eq!(message, "the folder is empty");
    assert!(hint.contains("download"));

    folder.write("model.gguf", "GGUF");
    assert!(folder.problem().1.contains("GGUF"));
    let file = survey_at(folder.path("model.gguf").to_str().unwrap()).unwrap_err();
    assert!(matches!(file, SurveyError::NotAFolder { .. }));

    let hub = survey_at("meta-llama/Llama-3.1-8B").unwrap_err().problems();
    assert_eq!(hub[0].message, "no such folder");
    let hint = hub[0].hint.as_ref().unwrap();
    assert!(
        hint.contains("hf download meta-llama/Llama-3.1-8B"),
        "{hint}"
    );
    let path = survey_at("/nonexistent/x").unwrap_err().problems();
    assert_eq!(path[0].hint, None);
}

#[test]
fn a_broken_index_or_configuration_is_refused() {
    let folder = Folder::new();
    folder.weights("model.safetensors", &["a"]);
    folder.write(CONFIG_FILE, "{");
    assert_eq!(folder.problem().0, ": config.json");
    folder.write(CONFIG_FILE, "{}").write(INDEX_FILE, "{");
    assert!(
        folder
            .problem()
            .1
            .starts_with("`model.safetensors.index.json`: ")
    );
    folder.write(INDEX_FILE, r#"{"weight_map":{"a":"../model.safetensors"}}"#);
    assert!(folder.problem().1.contains("in the same folder"));
}

#[test]
fn a_name_that_is_not_utf_8_is_an_error() {
    let folder = Folder::new();
    let name = std::ffi::OsStr::from_bytes(b"model\xff.safetensors");
    File::create(folder.0.path().join(name)).unwrap();
    assert_eq!(folder.problem().1, "the name is not UTF-8");
}

#[test]
fn a_socket_is_no_weight_file_and_is_never_opened() {
    let folder = Folder::new();
    let _socket = std::os::unix::net::UnixListener::bind(folder.path("model.safetensors")).unwrap();
    folder.write("config.json", "{}");
    assert!(folder.problem().1.starts_with("no weights"));
}

#[test]
fn weights_that_are_no_part_of_the_checkpoint_are_not_opened() {
    let folder = Folder::new();
    folder
        .weights("model.safetensors", &["a"])
        .write("consolidated.safetensors", "broken")
        .write("model.fp16.safetensors", "broken");
    let surveyed = folder.survey().unwrap();
    assert_eq!(surveyed.weight_files.len(), 1);
    assert_eq!(surveyed.checkpoint.ignored.len(), 2);
    let names = surveyed.listing.iter().map(|file| file.name.clone());
    let layout = select(&surveyed.listing, None).unwrap().layout;
    assert_eq!((names.count(), layout), (3, Layout::Single));
}
