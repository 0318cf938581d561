use proptest::prelude::*;
use safetensors::SafeTensors;

use super::*;

/// A whole file: length, JSON, and `data` zero bytes.
fn file(json: impl AsRef<[u8]>, data: usize) -> Vec<u8> {
    let json = json.as_ref();
    let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(json);
    bytes.resize(bytes.len() + data, 0);
    bytes
}

/// Reads a header as a reader of ranges does.
fn read(file: &[u8]) -> Result<Header, HeaderError> {
    let size = file.len() as u64;
    let length = parse_length(&file[..file.len().min(8)], size)?;
    parse(&file[8..8 + length as usize], size)
}

fn entry(dtype: &str, shape: &str, begin: u64, end: u64) -> String {
    format!(r#"{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{begin},{end}]}}"#)
}

/// The message for a file with `json` and `data` bytes, which the reference
/// must reject too.
fn refusal(json: impl AsRef<[u8]>, data: usize) -> String {
    let bytes = file(json, data);
    assert!(SafeTensors::read_metadata(&bytes).is_err());
    read(&bytes).unwrap_err().to_string()
}

#[test]
fn a_header_is_read_with_names_shapes_offsets_and_metadata() {
    let json = format!(
        r#"{{"b":{},"__metadata__":{{"format":"pt"}},"a":{}}}   "#,
        entry("BF16", "[2,3]", 4, 16),
        entry("F32", "[]", 0, 4),
    );
    let header = read(&file(&json, 16)).unwrap();
    assert_eq!(header.data_start, 8 + json.len() as u64);
    assert_eq!(header.metadata["format"], "pt");
    let a = TensorEntry {
        name: "a".into(),
        dtype: Dtype::F32,
        shape: vec![],
        begin: 0,
        end: 4,
    };
    let b = TensorEntry {
        name: "b".into(),
        dtype: Dtype::BF16,
        shape: vec![2, 3],
        begin: 4,
        end: 16,
    };
    assert_eq!(header.tensors, [a, b]);
    assert_eq!(header.tensors[1].bytes(), 12);
}

#[test]
fn empty_tensors_may_share_an_offset_anywhere() {
    let json = format!(
        r#"{{"z":{},"a":{},"end":{},"full":{}}}"#,
        entry("F32", "[0]", 0, 0),
        entry("F16", "[4,0]", 0, 0),
        entry("U8", "[0,18446744073709551615]", 3, 3),
        entry("U8", "[3]", 0, 3),
    );
    let bytes = file(json, 3);
    assert!(SafeTensors::read_metadata(&bytes).is_ok());
    let header = read(&bytes).unwrap();
    let names: Vec<_> = header.tensors.iter().map(|t| t.name.as_str()).collect();
    assert_eq!(names, ["a", "z", "full", "end"]);
}

#[test]
fn a_file_without_tensors_and_null_metadata_are_fine() {
    assert!(read(&file("{}", 0)).unwrap().tensors.is_empty());
    assert!(
        read(&file(r#"{"__metadata__":null}"#, 0))
            .unwrap()
            .metadata
            .is_empty()
    );
}

#[test]
fn sub_byte_types_count_in_bits() {
    let fine = format!(
        r#"{{"x":{},"y":{}}}"#,
        entry("F4", "[2]", 0, 1),
        entry("F6_E2M3", "[4]", 1, 4),
    );
    assert!(read(&file(fine, 4)).is_ok());
    let odd = format!(r#"{{"x":{}}}"#, entry("F4", "[3]", 0, 1));
    assert_eq!(
        refusal(odd, 1),
        "tensor `x`: [3] elements of type F4 are 12 bits, not whole bytes"
    );
}

#[test]
fn unknown_fields_of_a_tensor_are_passed_over() {
    let json = r#"{"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"note":{"a":[1]}}}"#;
    assert!(read(&file(json, 1)).is_ok());
}

#[test]
fn a_length_that_does_not_fit_is_refused_without_overflow() {
    let length = |bytes: &[u8], size| parse_length(bytes, size).unwrap_err();
    assert!(matches!(
        length(b"1234567", 7),
        HeaderError::TooShort { size: 7 }
    ));
    for huge in [1u64 << 63, u64::MAX, u64::MAX - 7, HEADER_MAX + 1] {
        assert!(matches!(
            length(&huge.to_le_bytes(), u64::MAX),
            HeaderError::TooLong { length } if length == huge
        ));
    }
    assert!(matches!(
        length(&93u64.to_le_bytes(), 100),
        HeaderError::HeaderTruncated {
            wanted: 101,
            size: 100
        }
    ));
    assert_eq!(parse_length(&92u64.to_le_bytes(), 100).unwrap(), 92);
    let most = parse_length(&HEADER_MAX.to_le_bytes(), HEADER_MAX + 8);
    assert_eq!(most.unwrap(), HEADER_MAX);
}

#[test]
fn a_git_lfs_pointer_is_recognised_by_its_first_bytes() {
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n";
    for given in [&pointer[..8], &pointer[..]] {
        let error = parse_length(given, pointer.len() as u64).unwrap_err();
        assert!(matches!(error, HeaderError::GitLfsPointer));
        assert!(error.hint().unwrap().contains("git lfs pull"));
    }
}

#[test]
fn what_is_no_json_object_is_refused() {
    assert_eq!(refusal("", 0), "the header must begin with `{`");
    assert_eq!(refusal("[]", 0), "the header must begin with `{`");
    assert!(refusal(b"{\"\xff\":1}", 0).starts_with("the header is not UTF-8: "));
    assert!(refusal("{", 0).starts_with("the header is not valid: EOF"));
    assert!(refusal("{}\0\0", 0).contains("trailing characters"));
    // The reference skips white space here; the format forbids it.
    assert!(matches!(
        read(&file(" {}", 0)),
        Err(HeaderError::NotAnObject)
    ));
}

#[test]
fn a_name_that_stands_twice_is_refused() {
    let x = entry("U8", "[0]", 0, 0);
    let twice = format!(r#"{{"x":{x},"\u0078":{x}}}"#);
    assert_eq!(
        read(&file(twice, 0)).unwrap_err().to_string(),
        "tensor `x` is listed twice"
    );
    let metadata = r#"{"__metadata__":{},"__metadata__":{}}"#;
    assert!(refusal(metadata, 0).contains("duplicate field `__metadata__`"));
    let key = r#"{"__metadata__":{"k":"1","k":"2"}}"#;
    assert!(
        read(&file(key, 0))
            .unwrap_err()
            .to_string()
            .contains("key `k`")
    );
    let field = r#"{"x":{"dtype":"U8","dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#;
    assert!(refusal(field, 0).contains("tensor `x`: duplicate field `dtype`"));
}

#[test]
fn a_malformed_tensor_is_named() {
    for (value, says) in [
        (
            r#"{"dtype":"U8","shape":[0]}"#,
            "missing field `data_offsets`",
        ),
        (r#"{"dtype":"U8","data_offsets":[0,0]}"#, "`shape`"),
        (r#"{"shape":[0],"data_offsets":[0,0]}"#, "`dtype`"),
        (
            r#"{"dtype":"U8","shape":[-1],"data_offsets":[0,0]}"#,
            "`-1`",
        ),
        (
            r#"{"dtype":"U8","shape":[0.0],"data_offsets":[0,0]}"#,
            "floating point",
        ),
        (
            r#"{"dtype":"U8","shape":0,"data_offsets":[0,0]}"#,
            "sequence",
        ),
        (
            r#"{"dtype":"U8","shape":[0],"data_offsets":[0]}"#,
            "length 1",
        ),
        (
            r#"{"dtype":"U8","shape":[0],"data_offsets":[0,0,0]}"#,
            "trailing",
        ),
        (r#"{"dtype":7,"shape":[0],"data_offsets":[0,0]}"#, "string"),
        ("3", "expected an object with `dtype`"),
    ] {
        let message = refusal(format!(r#"{{"lm_head":{value}}}"#), 0);
        assert!(
            message.contains("tensor `lm_head`: ") && message.contains(says),
            "{value}: {message}"
        );
    }
    let unknown = format!(r#"{{"x":{}}}"#, entry("F7", "[0]", 0, 0));
    assert_eq!(refusal(unknown, 0), "tensor `x` has the unknown type `F7`");
    let array = r#"{"x":["U8",[0],[0,0]]}"#;
    assert!(
        read(&file(array, 0))
            .unwrap_err()
            .to_string()
            .contains("tensor `x`")
    );
}

#[test]
fn shape_type_and_offsets_must_agree() {
    let one = |dtype, shape, begin, end| format!(r#"{{"x":{}}}"#, entry(dtype, shape, begin, end));
    assert_eq!(
        refusal(one("F32", "[2,3]", 0, 23), 23),
        "tensor `x`: [2, 3] elements of type F32 are 24 bytes, its offsets span 23"
    );
    assert_eq!(
        refusal(one("U8", "[4]", 4, 0), 4),
        "tensor `x` ends at 0, before it begins at 4"
    );
    for shape in [
        "[4294967296,4294967296]",
        "[9223372036854775808]",
        "[18446744073709551615,2,0]",
    ] {
        let message = refusal(one("F16", shape, 0, 0), 0);
        assert!(message.contains("more than any file can hold"), "{message}");
    }
}

#[test]
fn holes_and_overlaps_are_refused_with_both_names() {
    let two = |begin, end| {
        let (first, second) = (
            entry("U8", "[4]", 0, 4),
            entry("U8", &format!("[{}]", end - begin), begin, end),
        );
        format!(r#"{{"first":{first},"second":{second}}}"#)
    };
    assert!(read(&file(two(4, 6), 6)).is_ok());
    assert_eq!(
        refusal(two(5, 7), 7),
        "tensor `second` begins at 5, expected 4: the bytes between belong to no tensor"
    );
    assert_eq!(
        refusal(two(3, 7), 7),
        "tensor `second` begins at 3, inside tensor `first` which ends at 4"
    );
    let late = format!(r#"{{"x":{}}}"#, entry("U8", "[1]", 1, 2));
    assert!(refusal(late, 2).contains("begins at 1, expected 0"));
}

#[test]
fn the_file_must_end_where_its_tensors_end() {
    let json = format!(r#"{{"x":{}}}"#, entry("U8", "[10]", 0, 10));
    let wanted = 8 + json.len() + 10;
    assert_eq!(
        refusal(&json, 9),
        format!(
            "truncated: the header wants {wanted} bytes, the file has {}",
            wanted - 1
        )
    );
    assert!(refusal(&json, 11).contains("bytes at its end belong to no tensor"));
    let largest = u64::MAX / 8;
    let huge = format!(
        r#"{{"x":{}}}"#,
        entry("U8", &format!("[{largest}]"), 0, largest)
    );
    assert!(refusal(huge, 0).starts_with("truncated"));
}

#[test]
fn an_encoded_header_is_these_very_bytes() {
    let tensors = [
        NewTensor {
            name: "a\"b",
            dtype: Dtype::F32,
            shape: &[2],
        },
        NewTensor {
            name: "é",
            dtype: Dtype::BF16,
            shape: &[],
        },
    ];
    let bytes = encode(&tensors).unwrap();
    let json = r#"{"__metadata__":{"format":"pt"},"a\"b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"é":{"dtype":"BF16","shape":[],"data_offsets":[8,10]}}"#;
    assert_eq!(
        u64::from_le_bytes(bytes[..8].try_into().unwrap()),
        bytes.len() as u64 - 8
    );
    assert_eq!(bytes.len() % 8, 0);
    let text = std::str::from_utf8(&bytes[8..]).unwrap();
    assert_eq!(text.trim_end_matches(' '), json);
    assert!(text.len() - json.len() < 8);
}

#[test]
fn tensors_that_make_no_file_are_not_encoded() {
    let tensor = |name, dtype, shape| NewTensor { name, dtype, shape };
    let refused = |tensors: &[NewTensor<'_>]| encode(tensors).unwrap_err();
    assert!(matches!(
        refused(&[tensor("a", Dtype::BF16, &[1]), tensor("b", Dtype::F32, &[1])]),
        HeaderError::Unordered { tensor } if tensor == "b"
    ));
    assert!(matches!(
        refused(&[tensor("a", Dtype::U8, &[1]), tensor("a", Dtype::U8, &[1])]),
        HeaderError::DuplicateTensor { .. }
    ));
    assert!(matches!(
        refused(&[tensor("__metadata__", Dtype::U8, &[1])]),
        HeaderError::ReservedName
    ));
    assert!(matches!(
        refused(&[tensor("a", Dtype::F4, &[3])]),
        HeaderError::PartialByte { .. }
    ));
    let most = &[u64::MAX / 8];
    let nine = ["1", "2", "3", "4", "5", "6", "7", "8", "9"].map(|n| tensor(n, Dtype::U8, most));
    assert!(matches!(
        refused(&nine),
        HeaderError::ShapeOverflow { tensor, .. } if tensor == "9"
    ));
    let long = "x".repeat(HEADER_MAX as usize);
    assert!(matches!(
        refused(&[tensor(&long, Dtype::U8, &[1])]),
        HeaderError::TooLong { .. }
    ));
}

/// All types, largest elements first.
const DTYPES: [Dtype; 22] = [
    Dtype::F64,
    Dtype::I64,
    Dtype::U64,
    Dtype::C64,
    Dtype::F32,
    Dtype::I32,
    Dtype::U32,
    Dtype::BF16,
    Dtype::F16,
    Dtype::I16,
    Dtype::U16,
    Dtype::BOOL,
    Dtype::U8,
    Dtype::I8,
    Dtype::F8_E5M2,
    Dtype::F8_E4M3,
    Dtype::F8_E8M0,
    Dtype::F8_E4M3FNUZ,
    Dtype::F8_E5M2FNUZ,
    Dtype::F6_E2M3,
    Dtype::F6_E3M2,
    Dtype::F4,
];

prop_compose! {
    /// Tensors of a valid file, as type and shape.
    fn tensors()(mut tensors in prop::collection::vec(
        (0..DTYPES.len(), prop::collection::vec(0u64..5, 0..4)), 0..8,
    )) -> Vec<(Dtype, Vec<u64>)> {
        tensors.sort();
        tensors
            .into_iter()
            .map(|(dtype, shape)| (DTYPES[dtype], shape))
            .filter(|(dtype, shape)| matches!(tensor_bytes(*dtype, shape), Some(Ok(_))))
            .collect()
    }
}

/// The file of these tensors, all zero, under names that need escapes.
fn encoded_file(tensors: &[(Dtype, Vec<u64>)]) -> Vec<u8> {
    let names: Vec<_> = (0..tensors.len())
        .map(|n| format!("t\"\\é\n.{n}"))
        .collect();
    let new: Vec<_> = names
        .iter()
        .zip(tensors)
        .map(|(name, (dtype, shape))| NewTensor {
            name,
            dtype: *dtype,
            shape,
        })
        .collect();
    let mut file = encode(&new).unwrap();
    let data: u64 = tensors
        .iter()
        .map(|(dtype, shape)| tensor_bytes(*dtype, shape).unwrap().unwrap())
        .sum();
    file.resize(file.len() + data as usize, 0);
    file
}

/// Both readers of a file agree, and on the contents too. Ours may be the
/// stricter one.
fn agree(file: &[u8]) -> Result<(), TestCaseError> {
    let ours = read(file);
    let reference = SafeTensors::read_metadata(file);
    match (&ours, &reference) {
        (Ok(ours), Ok((length, reference))) => {
            prop_assert_eq!(ours.data_start, 8 + *length as u64);
            prop_assert_eq!(ours.tensors.len(), reference.tensors().len());
            for tensor in &ours.tensors {
                let info = reference
                    .info(&tensor.name)
                    .expect("both list the same names");
                prop_assert_eq!(tensor.dtype, info.dtype);
                let shape: Vec<_> = info.shape.iter().map(|side| *side as u64).collect();
                prop_assert_eq!(&tensor.shape, &shape);
                let (begin, end) = info.data_offsets;
                prop_assert_eq!((tensor.begin, tensor.end), (begin as u64, end as u64));
            }
        }
        (Ok(_), Err(error)) => prop_assert!(false, "the reference rejects it: {error}"),
        (Err(_), _) => {}
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_encoded_reads_back_here_and_in_the_reference(tensors in tensors()) {
        let file = encoded_file(&tensors);
        let header = read(&file).unwrap();
        agree(&file)?;
        let mut wanted: Vec<_> = tensors;
        let mut found: Vec<_> =
            header.tensors.iter().map(|t| (t.dtype, t.shape.clone())).collect();
        wanted.sort();
        found.sort();
        prop_assert_eq!(found, wanted);
        for tensor in &header.tensors {
            let at = header.data_start + tensor.begin;
            prop_assert_eq!(at % (tensor.dtype.bitsize() as u64).div_ceil(8).next_power_of_two(), 0);
        }
    }

    #[test]
    fn a_mutated_file_never_panics_and_is_never_accepted_against_the_reference(
        tensors in tensors(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..4), 1..4),
    ) {
        let mut file = encoded_file(&tensors);
        for (at, byte, kind) in edits {
            let at = at.index(file.len());
            match kind {
                0 => file[at] = byte,
                1 => drop(file.remove(at)),
                2 => file.insert(at, byte),
                // A digit for a byte keeps more of the JSON valid.
                _ => file[at] = b'0' + byte % 10,
            }
            if file.is_empty() {
                break;
            }
        }
        agree(&file)?;
    }

    #[test]
    fn tensors_with_any_offsets_are_judged_as_the_reference_judges(
        tensors in prop::collection::vec((0usize..4, 0u64..5, 0u64..9, 0u64..9), 0..4),
        data in 0usize..12,
    ) {
        let types = ["U8", "F16", "F4", "F32"];
        let entries: Vec<_> = tensors
            .iter()
            .enumerate()
            .map(|(n, (dtype, side, begin, end))| {
                format!(r#""{n}":{}"#, entry(types[*dtype], &format!("[{side}]"), *begin, *end))
            })
            .collect();
        let file = file(format!("{{{}}}", entries.join(",")), data);
        agree(&file)?;
        prop_assert_eq!(read(&file).is_ok(), SafeTensors::read_metadata(&file).is_ok());
    }
}

#[test]
fn ninety_thousand_tensors_take_no_quadratic_time() {
    let names: Vec<_> = (0..91_000)
        .map(|n| {
            format!(
                "model.layers.{}.mlp.experts.{}.up_proj.weight",
                n / 800,
                n % 800
            )
        })
        .collect();
    let tensors: Vec<_> = names
        .iter()
        .map(|name| NewTensor {
            name,
            dtype: Dtype::BF16,
            shape: &[2048, 7168],
        })
        .collect();
    let file = encode(&tensors).unwrap();
    let size = file.len() as u64 + 91_000 * 2048 * 7168 * 2;
    let header = parse(&file[8..], size).unwrap();
    assert_eq!(header.tensors.len(), 91_000);
}
