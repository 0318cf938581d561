use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::align::fixture::{Family, Tensor, bf16, recipe};
use crate::dtype::Dtype;
use crate::header;
use crate::task::{Operation, TaskSpec};

fn planned(tensors: &[Tensor], more: &serde_json::Value, part_size: u64) -> Plan {
    let family = Family::alike(tensors);
    let part_size = PartSize::new(part_size).unwrap();
    plan(&recipe(more), &family.inputs(), family.sources(), part_size).unwrap()
}

fn specs(plan: &Plan) -> Vec<TaskSpec> {
    plan.numbered_tasks()
        .map(|(task, _)| plan.task_spec(task, "/out".to_owned()))
        .collect()
}

#[test]
fn one_shard_is_named_model() {
    let plan = planned(&[bf16("a.weight", &[4, 4])], &json!({}), 4096);
    assert_eq!(plan.files[0].name, "model.safetensors");
    assert_eq!(plan.files.len(), 1);
    let parsed = header::parse(&plan.files[0].header[8..], plan.files[0].size).unwrap();
    assert_eq!(parsed.metadata["format"], "pt");
    assert_eq!(plan.files[0].header.len() % 8, 0);
}

#[test]
fn shards_fill_up_in_cps_order_and_a_larger_tensor_has_its_own() {
    let tensors = [
        bf16("a", &[300]),
        bf16("b", &[300]),
        bf16("c", &[2000]),
        bf16("d", &[1]),
    ];
    let plan = planned(
        &tensors,
        &json!({"output": {"url": "/out", "shard_size": 1200}}),
        4096,
    );
    let names: Vec<_> = plan.files.iter().map(|file| file.name.as_str()).collect();
    let expected = [
        "model-00001-of-00003.safetensors",
        "model-00002-of-00003.safetensors",
        "model-00003-of-00003.safetensors",
    ];
    assert_eq!(names, expected);
    let held: Vec<_> = plan.files.iter().map(|file| file.tensors.len()).collect();
    assert_eq!(held, [2, 1, 1]);
}

#[test]
fn an_index_lists_tensors_by_name() {
    let index = index_of(12, [("b", "2.safetensors"), ("a", "1.safetensors")]);
    let expected = r#"{
  "metadata": {
    "total_size": 12
  },
  "weight_map": {
    "a": "1.safetensors",
    "b": "2.safetensors"
  }
}
"#;
    assert_eq!(index, expected);
}

#[test]
fn another_output_type_converts_kept_floats_and_copies_the_rest() {
    let tensors = [
        bf16("w", &[4]),
        ("kept".to_owned(), Dtype::F32, vec![2]),
        ("ids".to_owned(), Dtype::I64, vec![1]),
    ];
    let more = json!({
        "rules": [{"match": "kept", "action": "keep_cp"}],
        "output": {"url": "/out", "dtype": "f16"},
    });
    let plan = planned(&tensors, &more, 4096);
    let spec = &specs(&plan)[0];
    let operation = |name: &str| {
        &spec
            .segments
            .iter()
            .find(|segment| segment.name == name)
            .unwrap()
            .operation
    };
    assert!(matches!(operation("kept"), Operation::Merge { terms, .. } if terms.is_empty()));
    assert!(matches!(operation("w"), Operation::Merge { terms, .. } if terms.len() == 1));
    assert!(matches!(operation("ids"), Operation::Copy { .. }));
}

#[test]
fn a_part_size_grows_until_ten_thousand_parts_hold_a_file() {
    let size = PartSize::new(4096)
        .unwrap()
        .fitting([100_000_000].into_iter());
    assert_eq!(size.bytes(), 12_288);
    assert!(100_000_000u64.div_ceil(size.bytes()) <= 10_000);
    assert_eq!(PartSize::new(5000), Err(split::BadPartSize(5000)));
    assert_eq!(PartSize::new(0), Err(split::BadPartSize(0)));
}

/// A task list is right if its segments name every byte of every file once,
/// and each byte's origin is what the alignment decided for its place.
fn check_tasks(plan: &Plan) {
    let mut next = vec![0; plan.files.len()];
    for spec in specs(plan) {
        let file = &plan.files[spec.file.0 as usize];
        let position = &mut next[spec.file.0 as usize];
        assert_eq!(spec.file_size, file.size);
        assert_eq!(spec.parts[0].offset, *position);
        let mut segments = spec.segments.iter();
        for part in &spec.parts {
            assert_eq!(part.offset % plan.part_size.bytes(), 0);
            let end = part.offset + part.len;
            while *position < end {
                let segment = segments.next().expect("a segment for each byte");
                assert_eq!(segment.offset, *position);
                assert!(
                    segment.len > 0 && segment.offset + segment.len <= end,
                    "no segment crosses a part"
                );
                check_origin(plan, &spec, segment);
                *position += segment.len;
            }
        }
        assert!(segments.next().is_none());
    }
    for (file, position) in plan.files.iter().zip(next) {
        assert_eq!(position, file.size);
    }
}

fn check_origin(plan: &Plan, spec: &TaskSpec, segment: &crate::task::Segment) {
    let Some(tensor) = segment.tensor else {
        let header = &plan.files[spec.file.0 as usize].header;
        let range = segment.offset as usize..(segment.offset + segment.len) as usize;
        assert_eq!(
            segment.operation,
            Operation::Literal(header[range].to_vec())
        );
        return;
    };
    let decision = &plan.decisions()[tensor.0 as usize];
    let placed = plan.files[spec.file.0 as usize]
        .tensors
        .iter()
        .find(|placed| placed.tensor == tensor)
        .unwrap();
    let skipped = segment.offset - placed.begin;
    let source = |source: u32| &spec.sources[source as usize];
    match &segment.operation {
        Operation::Copy {
            source: from,
            offset,
        } => {
            assert_eq!(*offset, decision.cp.offset + skipped);
            assert_eq!(source(*from), &plan.sources[decision.cp.source]);
        }
        Operation::Merge { cp, terms, format } => {
            let element = skipped / format.bytes() as u64;
            assert_eq!(skipped % format.bytes() as u64, 0, "no element is cut");
            assert_eq!(
                cp.offset,
                decision.cp.offset + element * cp.format.bytes() as u64
            );
            assert_eq!(source(cp.source), &plan.sources[decision.cp.source]);
            for term in terms {
                assert_eq!(source(term.chat.source).pin, "pin-1");
                assert_eq!(source(term.base.source).pin, "pin-2");
            }
        }
        Operation::Literal(_) => panic!("a tensor is no literal"),
    }
}

fn any_tensor() -> impl Strategy<Value = (Dtype, Vec<u64>)> {
    let dtype = prop::sample::select(vec![
        Dtype::BF16,
        Dtype::F32,
        Dtype::F64,
        Dtype::F16,
        Dtype::I64,
        Dtype::U8,
    ]);
    let shape = prop_oneof![
        Just(vec![]),
        Just(vec![0]),
        prop::collection::vec(1u64..40, 1..3),
        Just(vec![3000]),
    ];
    (dtype, shape)
}

proptest! {
    #[test]
    fn every_byte_of_every_file_has_one_origin(
        tensors in prop::collection::vec(any_tensor(), 1..20),
        shard_size in 1000u64..20_000,
        part_size in 1u64..5,
        dtype in prop::sample::select(vec!["same", "bf16", "f32"]),
    ) {
        let mut tensors: Vec<Tensor> =
            tensors.into_iter().enumerate().map(|(i, (dtype, shape))| (format!("t{i}"), dtype, shape)).collect();
        tensors.push(bf16("merged", &[7]));
        let more = json!({
            "rules": [{"match": "t1*", "action": "keep_cp"}],
            "output": {"url": "/out", "dtype": dtype, "shard_size": shard_size},
        });
        let plan = planned(&tensors, &more, part_size * 4096);
        check_tasks(&plan);
        for file in &plan.files {
            let parsed = header::parse(&file.header[8..], file.size).unwrap();
            prop_assert_eq!(parsed.tensors.len(), file.tensors.len());
            for placed in &file.tensors {
                let width = plan.decisions()[placed.tensor.0 as usize].output.bitsize() as u64 / 8;
                prop_assert_eq!(placed.begin % width, 0, "aligned");
            }
        }
        let placed: usize = plan.files.iter().map(|file| file.tensors.len()).sum();
        prop_assert_eq!(placed, tensors.len());
    }

    #[test]
    fn the_layout_does_not_depend_on_the_part_size(part_size in 1u64..50) {
        let tensors: Vec<Tensor> = (0..30).map(|i| bf16(&format!("t{i}"), &[100 + i])).collect();
        let plan = planned(&tensors, &json!({}), part_size * 4096);
        let reference = planned(&tensors, &json!({}), 64 << 20);
        prop_assert_eq!(plan.files, reference.files);
    }
}
