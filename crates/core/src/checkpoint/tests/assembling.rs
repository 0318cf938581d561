use super::*;

/// Selects and assembles `files`, with an index of these entries if there are any.
fn assembled(
    files: Vec<WeightFile>,
    index: &[(&str, &str)],
    config: Option<&str>,
) -> Result<Checkpoint, Vec<Problem>> {
    let names: Vec<_> = files.iter().map(|file| file.name.as_str()).collect();
    let index = (!index.is_empty()).then(|| index_json(index));
    let selection = select(&listing(&names), index.as_deref()).unwrap();
    assemble(selection, files, config.map(str::as_bytes))
}

fn texts(problems: &[Problem]) -> Vec<String> {
    problems.iter().map(Problem::to_string).collect()
}

#[test]
fn tensors_are_found_by_name_and_iterated_in_storage_order() {
    let files = vec![
        weight_file("1.safetensors", &["z", "b"]),
        weight_file("2.safetensors", &["a"]),
    ];
    let index = [
        ("a", "2.safetensors"),
        ("b", "1.safetensors"),
        ("z", "1.safetensors"),
    ];
    let checkpoint = assembled(files, &index, Some("{}")).unwrap();
    let order: Vec<_> = checkpoint.iter().map(|t| t.entry.name.as_str()).collect();
    assert_eq!(order, ["z", "b", "a"]);
    assert_eq!((checkpoint.len(), checkpoint.bytes()), (3, 12));
    let b = checkpoint.get("b").unwrap();
    assert_eq!((b.file, b.entry.begin), (0, 4));
    assert_eq!(checkpoint.get("a").unwrap().file, 1);
    assert_eq!(checkpoint.get("c"), None);
    assert_eq!(checkpoint.warnings, []);
}

#[test]
fn tensors_that_are_forgotten_leave_the_names_of_their_files() {
    let files = vec![weight_file("1.safetensors", &["a"])];
    let mut checkpoint = assembled(files, &[], Some("{}")).unwrap();
    checkpoint.forget_tensors();
    assert_eq!((checkpoint.len(), checkpoint.get("a")), (0, None));
    assert_eq!(checkpoint.files[0].name, "1.safetensors");
}

#[test]
fn a_tensor_in_two_files_is_an_error_that_names_both() {
    let files = vec![
        weight_file("1.safetensors", &["a", "b"]),
        weight_file("2.safetensors", &["b", "a"]),
    ];
    let problems = assembled(files, &[], None).unwrap_err();
    assert_eq!(
        texts(&problems),
        [
            "b: stands in two files: `1.safetensors` and `2.safetensors`",
            "a: stands in two files: `1.safetensors` and `2.safetensors`",
        ]
    );
}

#[test]
fn every_tensor_that_the_index_names_must_be_in_the_file_it_names() {
    let files = vec![
        weight_file("1.safetensors", &["a", "moved"]),
        weight_file("2.safetensors", &["b"]),
    ];
    let index = [
        ("a", "1.safetensors"),
        ("b", "2.safetensors"),
        ("gone", "1.safetensors"),
        ("lost", "2.safetensors"),
        ("moved", "2.safetensors"),
    ];
    let problems = assembled(files, &index, Some("[]")).unwrap_err();
    let says = "`model.safetensors.index.json` says it is in";
    assert_eq!(
        texts(&problems),
        [
            format!("moved: {says} `2.safetensors`, found in `1.safetensors`"),
            format!("gone: {says} `1.safetensors`, which does not have it"),
            format!("lost: {says} `2.safetensors`, which does not have it"),
            "config.json: expected a JSON object".to_owned(),
        ]
    );
}

#[test]
fn a_tensor_that_the_index_does_not_name_is_set_aside_with_a_warning() {
    let files = vec![
        weight_file("1.safetensors", &["a", "extra", "more"]),
        weight_file("2.safetensors", &["b", "extra"]),
    ];
    let index = [("a", "1.safetensors"), ("b", "2.safetensors")];
    let checkpoint = assembled(files, &index, Some("{}")).unwrap();
    assert_eq!(checkpoint.get("extra"), None);
    assert_eq!(checkpoint.len(), 2);
    let ignored: Vec<_> = checkpoint
        .ignored_tensors
        .iter()
        .map(|(file, tensor)| (file.as_str(), tensor.as_str()))
        .collect();
    assert_eq!(
        ignored,
        [
            ("1.safetensors", "extra"),
            ("1.safetensors", "more"),
            ("2.safetensors", "extra"),
        ]
    );
    assert_eq!(
        texts(&checkpoint.warnings),
        ["1.safetensors: the index does not name `extra` and 2 more tensors: ignored"]
    );
}

#[test]
fn a_wrong_total_size_and_an_absent_configuration_are_warnings() {
    let files = vec![typed_file(
        "1.safetensors",
        &[("a", Dtype::F32), ("b", Dtype::F32)],
    )];
    let index =
        br#"{"metadata":{"total_size":9},"weight_map":{"a":"1.safetensors","b":"1.safetensors"}}"#;
    let selection = select(&listing(&["1.safetensors"]), Some(index)).unwrap();
    let checkpoint = assemble(selection, files, None).unwrap();
    assert_eq!(
        texts(&checkpoint.warnings),
        [
            "model.safetensors.index.json: `total_size` is 9, the tensors have 8 bytes",
            "config.json: the checkpoint has none",
        ]
    );
}

#[test]
#[should_panic(expected = "the headers are those of the selected files")]
fn headers_of_other_files_are_a_bug() {
    let selection = select(&listing(&["1.safetensors"]), None).unwrap();
    let _ = assemble(selection, vec![weight_file("2.safetensors", &["a"])], None);
}

#[test]
fn a_quantised_checkpoint_is_told_by_its_types() {
    for dtype in [
        Dtype::F8_E4M3,
        Dtype::F8_E5M2,
        Dtype::F8_E8M0,
        Dtype::F8_E4M3FNUZ,
        Dtype::F8_E5M2FNUZ,
        Dtype::F4,
    ] {
        let tensors = [("a", Dtype::BF16), ("b", dtype), ("c", dtype)];
        let files = vec![typed_file("model.safetensors", &tensors)];
        let problem = assembled(files, &[], None).unwrap().quantised().unwrap();
        assert_eq!(
            problem.to_string(),
            format!(
                "b: the checkpoint is quantised: the tensor's type is {dtype} (and 1 more like it)"
            )
        );
    }
    let six_bits = [Dtype::F6_E2M3, Dtype::F6_E3M2];
    assert!(six_bits.into_iter().all(crate::dtype::is_quantised));
}

#[test]
fn a_quantised_checkpoint_is_told_by_its_names() {
    for name in [
        "l.0.q_proj.weight_scale",
        "l.0.q_proj.weight_scale_inv",
        "l.0.q_proj.qweight",
        "l.0.q_proj.qzeros",
        "l.0.q_proj.weight.absmax",
        "l.0.q_proj.weight.quant_state.bitsandbytes__nf4",
        "l.0.q_proj.weight_packed",
        "l.0.q_proj.SCB",
    ] {
        let files = vec![weight_file("model.safetensors", &["a", name])];
        let problem = assembled(files, &[], None).unwrap().quantised();
        assert_eq!(problem.unwrap().subject, name);
    }
}

#[test]
fn a_quantised_checkpoint_is_told_by_its_configuration() {
    let files = vec![weight_file("model.safetensors", &["a"])];
    let config = r#"{"quantization_config":{"quant_method":"awq"}}"#;
    let problem = assembled(files, &[], Some(config)).unwrap().quantised();
    assert_eq!(
        problem.unwrap().to_string(),
        "config.json: the checkpoint is quantised: it has a `quantization_config` (method `awq`)"
    );
}

#[test]
fn an_ordinary_checkpoint_is_not_quantised() {
    let tensors = [
        ("model.layers.0.mlp.up_proj.weight", Dtype::BF16),
        ("model.layers.0.self_attn.scale", Dtype::F32),
        ("mask", Dtype::BOOL),
        ("ids", Dtype::I64),
    ];
    let ordinary = tensors
        .into_iter()
        .filter(|(_, dtype)| dtype.bitsize() <= 32);
    let files = vec![typed_file(
        "model.safetensors",
        &ordinary.collect::<Vec<_>>(),
    )];
    let checkpoint = assembled(files, &[], Some("{}")).unwrap();
    assert_eq!(checkpoint.quantised(), None);
}
