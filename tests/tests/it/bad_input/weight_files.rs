//! Weight files that are broken, or no safetensors at all.

use serde_json::json;

use super::scene::{EMBED, Scene, Tensor, UP, contents, model, safetensors, with_header};

/// What is said of a merge whose `chat` has this weight file.
#[track_caller]
fn refusal_of(file: &[u8]) -> String {
    let scene = Scene::new();
    scene.write("chat/model.safetensors", file);
    scene.refusal()
}

/// What is said of a `chat` with this header over 16 bytes of data, without
/// what stands before it in every such message.
#[track_caller]
fn refusal_of_header(header: &[u8]) -> String {
    let said = refusal_of(&with_header(header, &[0; 16]));
    let said = said.strip_prefix("error: --chat: chat/model.safetensors: ");
    said.expect("the file is named first").to_owned()
}

const DAMAGED: &str = "\n  hint: the file is damaged or not safetensors, whatever its name says\n";
const INCOMPLETE: &str = "\n  hint: the file is incomplete: download or copy it again\n";

#[test]
fn a_truncated_file_is_told_with_both_sizes() {
    let whole = safetensors(&model(1.0));
    let (size, header) = (whole.len(), whole.len() - 208);
    let said = refusal_of(&whole[..size - 1]);
    let expected = format!(
        "error: --chat: chat/model.safetensors: truncated: the header wants {size} bytes, the file has {}{INCOMPLETE}",
        size - 1
    );
    assert_eq!(said, expected);

    let said = refusal_of(&whole[..header - 1]);
    let expected = format!(
        "error: --chat: chat/model.safetensors: truncated: the header alone ends at byte {header}, the file has {} bytes{INCOMPLETE}",
        header - 1
    );
    assert_eq!(said, expected);

    for short in [0, 1, 7] {
        let said = refusal_of(&whole[..short]);
        let expected = format!(
            "error: --chat: chat/model.safetensors: a safetensors file has at least 8 bytes, this one has {short}{INCOMPLETE}"
        );
        assert_eq!(said, expected);
    }
}

#[test]
fn a_file_that_goes_on_behind_its_tensors_is_refused() {
    let mut file = safetensors(&model(1.0));
    let size = file.len();
    file.push(0);
    let said = refusal_of(&file);
    let expected = format!(
        "error: --chat: chat/model.safetensors: the header wants {size} bytes, the file has {}: \
         bytes at its end belong to no tensor\n",
        size + 1
    );
    assert_eq!(said, expected);
}

#[test]
fn a_length_of_the_header_beyond_reason_is_refused_and_not_allocated() {
    for length in [1 << 63, u64::MAX, 100_000_001] {
        let mut file = safetensors(&model(1.0));
        file[..8].copy_from_slice(&u64::to_le_bytes(length));
        let expected = format!(
            "error: --chat: chat/model.safetensors: the header's length may be 100000000 bytes at most, \
             the file says {length}{DAMAGED}"
        );
        assert_eq!(refusal_of(&file), expected);
    }
}

#[test]
fn tensors_must_cover_the_data_without_hole_or_overlap() {
    let entry = |begin: u64, end: u64| json!({ "dtype": "U8", "shape": [end - begin], "data_offsets": [begin, end] });
    for (a, b, expected) in [
        (
            (0, 8),
            (4, 16),
            "tensor `b` begins at 4, inside tensor `a` which ends at 8\n",
        ),
        (
            (0, 4),
            (8, 16),
            "tensor `b` begins at 8, expected 4: the bytes between belong to no tensor\n",
        ),
        (
            (4, 8),
            (8, 16),
            "tensor `a` begins at 4, expected 0: the bytes between belong to no tensor\n",
        ),
    ] {
        let header = json!({ "a": entry(a.0, a.1), "b": entry(b.0, b.1) }).to_string();
        assert_eq!(refusal_of_header(header.as_bytes()), expected);
    }
}

#[test]
fn offsets_must_span_what_shape_and_type_say() {
    for (entry, expected) in [
        (
            json!({ "dtype": "F32", "shape": [5], "data_offsets": [0, 16] }),
            "tensor `a`: [5] elements of type F32 are 20 bytes, its offsets span 16\n",
        ),
        (
            json!({ "dtype": "BF16", "shape": [2, 2], "data_offsets": [0, 16] }),
            "tensor `a`: [2, 2] elements of type BF16 are 8 bytes, its offsets span 16\n",
        ),
        (
            json!({ "dtype": "F32", "shape": [4], "data_offsets": [16, 0] }),
            "tensor `a` ends at 0, before it begins at 16\n",
        ),
        (
            json!({ "dtype": "F64", "shape": [u64::MAX, 2], "data_offsets": [0, 16] }),
            "tensor `a`: [18446744073709551615, 2] elements of type F64 are more than any file can hold\n",
        ),
        (
            json!({ "dtype": "F31", "shape": [4], "data_offsets": [0, 16] }),
            "tensor `a` has the unknown type `F31`\n",
        ),
    ] {
        let header = json!({ "a": entry }).to_string();
        assert_eq!(refusal_of_header(header.as_bytes()), expected);
    }
}

#[test]
fn a_header_that_is_no_json_says_where() {
    for (header, expected) in [
        (&b"{\"a\": "[..], "the header is not valid: tensor `a`: EOF while parsing a value at line 1 column 6\n".to_owned()),
        (b"[]", format!("the header must begin with `{{`{DAMAGED}")),
        (
            b"{\"a\":{\"dtype\":\"F32\",\"shape\":[4]}}",
            "the header is not valid: tensor `a`: missing field `data_offsets` at line 1 column 32\n".to_owned(),
        ),
        (
            b"{\"a\":{\"dtype\":\"F32\",\"shape\":[-4],\"data_offsets\":[0,16]}}",
            "the header is not valid: tensor `a`: invalid value: integer `-4`, expected u64 at line 1 column 31\n".to_owned(),
        ),
        (
            b"{\"a\xff\":{}}",
            format!("the header is not UTF-8: invalid utf-8 sequence of 1 bytes from index 3{DAMAGED}"),
        ),
    ] {
        assert_eq!(refusal_of_header(header), expected);
    }
}

#[test]
fn a_name_of_a_tensor_stands_once_in_a_file() {
    let entry = r#"{"dtype":"F32","shape":[4],"data_offsets":[0,16]}"#;
    let header = format!(r#"{{"a":{entry},"a":{entry}}}"#);
    assert_eq!(
        refusal_of_header(header.as_bytes()),
        "tensor `a` is listed twice\n"
    );
}

#[test]
fn names_of_strangers_cannot_write_to_the_terminal() {
    let entry = r#"{"dtype":"F32","shape":[4],"data_offsets":[4,20]}"#;
    let said = refusal_of_header(format!("{{\"a\\u001b[2J\":{entry}}}").as_bytes());
    assert!(
        said.starts_with(r"tensor `a\u{1b}[2J` begins at 4"),
        "{said}"
    );
}

#[test]
fn a_pointer_of_git_lfs_is_told_from_the_file() {
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 4\n";
    let expected = "error: --chat: chat/model.safetensors: this is a Git-LFS pointer, not the file itself\n  \
                    hint: fetch the real file with `git lfs pull`\n";
    assert_eq!(refusal_of(pointer), expected);

    let scene = Scene::new();
    scene.write("base/model.safetensors.index.json", pointer);
    let expected = "error: --base: base: `model.safetensors.index.json`: this is a Git-LFS pointer, not the file itself\n  \
                    hint: fetch the real files with `git lfs pull`\n";
    assert_eq!(scene.refusal(), expected);
}

#[test]
fn broken_files_of_all_inputs_are_told_at_once() {
    let scene = Scene::new();
    scene.write("cp/model.safetensors", b"");
    scene.write("chat/model.safetensors", b"[]");
    scene.write("base/model.safetensors", &with_header(b"[]", b""));
    let said = scene.refusal();
    for (flag, role) in [("--cp", "cp"), ("--chat", "chat"), ("--base", "base")] {
        assert!(
            said.contains(&format!("error: {flag}: {role}/model.safetensors: ")),
            "{said}"
        );
    }
}

#[test]
fn what_cannot_work_is_refused_without_reading_a_tebibyte_of_weights() {
    let scene = Scene::new();
    let sparse = |role: &str, side: u64| {
        let header = json!({ UP: { "dtype": "F32", "shape": [side, side], "data_offsets": [0, side * side * 4] } });
        let file = with_header(header.to_string().as_bytes(), b"");
        let size = file.len() as u64 + side * side * 4;
        let path = scene.path(&format!("{role}/model.safetensors"));
        std::fs::write(&path, file).unwrap();
        std::fs::File::options()
            .write(true)
            .open(path)
            .unwrap()
            .set_len(size)
            .unwrap();
    };
    // A hole in a file costs no space, but reading it takes minutes.
    let before = contents(&scene.path("out"));
    sparse("cp", 1 << 19);
    sparse("chat", 1 << 19);
    sparse("base", (1 << 19) - 8);
    let said = scene.refused(&scene.merge(&[]), &before);
    assert!(
        said.contains("the shape in cp is [524288, 524288], in `vectors[0].base` [524280, 524280]"),
        "{said}"
    );
}

#[test]
fn an_empty_tensor_and_a_scalar_are_no_errors() {
    let scene = Scene::new();
    for (role, value) in [("cp", 1.0), ("chat", 0.75), ("base", 0.5)] {
        let tensors = [
            Tensor::f32(EMBED, &[0, 4], value),
            Tensor::f32(UP, &[], value),
            Tensor::of("flag", "BOOL", &[1], &[1]),
        ];
        scene.write(&format!("{role}/model.safetensors"), &safetensors(&tensors));
    }
    scene.accepted(&scene.merge(&[]));
}
