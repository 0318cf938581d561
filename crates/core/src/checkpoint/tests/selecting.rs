use super::*;

fn chosen(names: &[&str]) -> Selection {
    select(&listing(names), None).unwrap()
}

fn refused(names: &[&str], index: Option<&[u8]>) -> CheckpointError {
    select(&listing(names), index).unwrap_err()
}

fn why(selection: &Selection) -> Vec<(&str, IgnoredReason)> {
    let ignored = selection.ignored.iter();
    ignored.map(|file| (file.name.as_str(), file.why)).collect()
}

#[test]
fn a_single_file_is_taken_and_all_other_weights_are_listed_with_the_reason() {
    let selection = chosen(&[
        "model.safetensors",
        "model.fp16.safetensors",
        "model-00001-of-00002.safetensors",
        "consolidated.00.pth",
        "consolidated.safetensors",
        "consolidated.safetensors.index.json",
        "adapter_model.safetensors",
        "pytorch_model.bin",
        "pytorch_model.bin.index.json",
        "ggml-q4.gguf",
        "onnx/",
        "original/",
        "original/consolidated.00.pth",
        "onnx/model.safetensors",
        "images/",
        "config.json",
        "training_args.bin",
        "README.md",
    ]);
    assert_eq!(selection.weight_files, ["model.safetensors"]);
    assert_eq!(selection.layout, Layout::Single);
    assert_eq!(
        why(&selection),
        [
            ("adapter_model.safetensors", IgnoredReason::Adapter),
            ("consolidated.00.pth", IgnoredReason::Consolidated),
            ("consolidated.safetensors", IgnoredReason::Consolidated),
            (
                "consolidated.safetensors.index.json",
                IgnoredReason::Consolidated
            ),
            ("ggml-q4.gguf", IgnoredReason::OtherFormat),
            (
                "model-00001-of-00002.safetensors",
                IgnoredReason::BesideSingle
            ),
            ("model.fp16.safetensors", IgnoredReason::Variant),
            ("onnx/", IgnoredReason::Subfolder),
            ("onnx/model.safetensors", IgnoredReason::Subfolder),
            ("original/", IgnoredReason::Subfolder),
            ("original/consolidated.00.pth", IgnoredReason::Subfolder),
            ("pytorch_model.bin", IgnoredReason::OtherFormat),
            ("pytorch_model.bin.index.json", IgnoredReason::OtherIndex),
        ]
    );
}

#[test]
fn an_index_decides_alone() {
    let index = index_json(&[("a", "x.safetensors"), ("b", "consolidated-2.safetensors")]);
    let names = [
        "model-00001-of-00001.safetensors",
        "consolidated-2.safetensors",
        "x.safetensors",
        INDEX_FILE,
    ];
    let selection = select(&listing(&names), Some(&index)).unwrap();
    assert_eq!(
        selection.weight_files,
        ["consolidated-2.safetensors", "x.safetensors"]
    );
    assert_eq!(selection.layout, Layout::Indexed);
    assert_eq!(selection.index.as_ref().unwrap().total_size, Some(8));
    assert_eq!(
        why(&selection),
        [(
            "model-00001-of-00001.safetensors",
            IgnoredReason::NotInIndex
        )]
    );
}

#[test]
fn all_files_that_the_index_names_and_the_folder_lacks_are_listed() {
    let index = index_json(&[
        ("a", "1.safetensors"),
        ("b", "2.safetensors"),
        ("c", "3.safetensors"),
    ]);
    let error = refused(&["2.safetensors"], Some(&index));
    assert_eq!(
        error.to_string(),
        "`model.safetensors.index.json` names 2 files that are not in the folder: \
         `1.safetensors`, `3.safetensors`"
    );
    assert!(error.hint().unwrap().contains("incomplete"));
}

#[test]
fn an_index_beside_a_single_file_that_it_does_not_name_is_refused() {
    let index = index_json(&[("a", "x.safetensors")]);
    let error = refused(&["x.safetensors", SINGLE_FILE], Some(&index));
    assert!(matches!(error, CheckpointError::IndexAndSingle));
    let index = index_json(&[("a", SINGLE_FILE)]);
    assert!(select(&listing(&[SINGLE_FILE]), Some(&index)).is_ok());
}

#[test]
fn a_broken_index_is_refused_with_the_reason() {
    let says = |json: &str| refused(&["x.safetensors"], Some(json.as_bytes())).to_string();
    for (json, reason) in [
        ("", "EOF"),
        ("{", "EOF"),
        ("[1]", "invalid"),
        ("{}", "missing field `weight_map`"),
        (r#"{"weight_map":{}}"#, "`weight_map` is empty"),
        (r#"{"weight_map":[]}"#, "an object of file names"),
        (r#"{"weight_map":{"a":7}}"#, "tensor `a`: invalid type"),
        (r#"{"weight_map":{"a":null}}"#, "tensor `a`: invalid type"),
        (
            r#"{"weight_map":{"a":"x.safetensors","a":"x.safetensors"}}"#,
            "tensor `a` stands twice",
        ),
        (
            r#"{"weight_map":{"a":"x.safetensors"},"weight_map":{}}"#,
            "duplicate field",
        ),
        (
            "version https://git-lfs.github.com/spec/v1\n",
            "Git-LFS pointer",
        ),
    ] {
        let message = says(json);
        assert!(message.starts_with("`model.safetensors.index.json`: "));
        assert!(message.contains(reason), "{json}: {message}");
    }
    let message = refused(&[], Some(b"{\"weight_map\":{\"\xff\":\"x\"}}")).to_string();
    assert!(message.contains("invalid unicode"), "{message}");
}

#[test]
fn an_index_cannot_name_a_file_outside_the_folder() {
    for file in [
        "../x.safetensors",
        "/etc/x.safetensors",
        "sub/x.safetensors",
        "..\\x.safetensors",
        "x\0.safetensors",
        "..",
        "",
        "x.bin",
    ] {
        let error = refused(&["x.safetensors"], Some(&index_json(&[("a", file)])));
        assert!(
            matches!(
                error,
                CheckpointError::Index(IndexError::UnexpectedFile { .. })
            ),
            "{file}"
        );
    }
}

#[test]
fn a_total_size_is_read_as_any_whole_number() {
    let total = |size: &str| {
        let json = format!(
            r#"{{"metadata":{{"total_size":{size}}},"weight_map":{{"a":"a.safetensors"}}}}"#
        );
        Index::parse(json.as_bytes()).unwrap().total_size
    };
    assert_eq!(total("18446744073709551615"), Some(u64::MAX));
    assert_eq!(total("1.5e3"), Some(1500));
    for odd in ["1.5", "-1", "\"12\"", "null", "1e300"] {
        assert_eq!(total(odd), None, "{odd}");
    }
}

#[test]
fn a_whole_set_of_shards_needs_no_index() {
    let selection = chosen(&[
        "model-00001-of-000002.safetensors",
        "model-00002-of-000002.safetensors",
        "extra.safetensors",
    ]);
    assert_eq!(selection.layout, Layout::Shards);
    assert_eq!(selection.weight_files.len(), 2);
    assert_eq!(
        why(&selection),
        [("extra.safetensors", IgnoredReason::BesideShards)]
    );
}

#[test]
fn missing_shards_are_named() {
    let error = refused(
        &[
            "model-00002-of-00004.safetensors",
            "model-00003-of-00004.safetensors",
        ],
        None,
    );
    assert_eq!(
        error.to_string(),
        "2 of 4 shards are not in the folder: \
         `model-00001-of-00004.safetensors`, `model-00004-of-00004.safetensors`"
    );
}

#[test]
fn shards_of_two_sets_are_refused() {
    for other in [
        "model-00001-of-00003.safetensors",
        "model-1-of-00001.safetensors",
    ] {
        let error = refused(&["model-00001-of-00001.safetensors", other], None);
        assert!(
            matches!(error, CheckpointError::MixedShards { .. }),
            "{other}"
        );
    }
}

#[test]
fn names_that_only_resemble_shards_are_plain_files() {
    let names = [
        "model-00000-of-00001.safetensors",
        "model-00002-of-00001.safetensors",
        "model-1-of-4294967295.safetensors",
        "model-+1-of-1.safetensors",
        "model-a-of-b.safetensors",
        "model.part-1.safetensors",
    ];
    let selection = chosen(&names);
    assert_eq!(selection.layout, Layout::Unnamed);
    assert_eq!(selection.weight_files.len(), names.len());
}

#[test]
fn other_files_count_only_if_they_are_no_second_copy_of_the_weights() {
    let selection = chosen(&[
        "language.safetensors",
        "vision.safetensors",
        "consolidated.safetensors",
        "language.bf16.safetensors",
        "language.fp16-00001-of-00002.safetensors",
        "adapter_model.safetensors",
        "original/model.safetensors",
    ]);
    assert_eq!(selection.layout, Layout::Unnamed);
    assert_eq!(
        selection.weight_files,
        ["language.safetensors", "vision.safetensors"]
    );
    assert_eq!(selection.ignored.len(), 5);
}

#[test]
fn a_folder_without_weights_is_refused_with_what_it_is_instead() {
    for (names, says, hint) in [
        (&[][..], "the folder is empty", "download"),
        (&["README.md"], "no weights", "check the path"),
        (&["pytorch_model-00001-of-00002.bin"], "pickled", "convert"),
        (&["consolidated.00.pth"], "pickled", "convert"),
        (&["x.ckpt"], "pickled", "convert"),
        (&["model-q4_k.gguf"], "GGUF", "original checkpoint"),
        (
            &["adapter_config.json", "adapter_model.safetensors"],
            "an adapter (`adapter_config.json`)",
            "merge the adapter",
        ),
        (&["adapter_model.bin"], "an adapter", "merge the adapter"),
        (
            &["refs/", "blobs/", "snapshots/", "snapshots/4d7a/"],
            "the root of a Hub cache",
            "give `snapshots/4d7a` in it",
        ),
        (
            &["refs/", "snapshots/", "snapshots/1/", "snapshots/2/"],
            "the root of a Hub cache",
            "`snapshots/<sha>`",
        ),
        (
            &["model.fp16.safetensors"],
            "found only `model.fp16.safetensors`: the same weights in another precision",
            "a folder of their own",
        ),
        (
            &["original/x.safetensors"],
            "not in the folder itself",
            "a folder of their own",
        ),
    ] {
        let error = refused(names, None);
        assert!(error.to_string().contains(says), "{names:?}: {error}");
        assert!(error.hint().unwrap().contains(hint), "{names:?}");
    }
}
