//! `model.safetensors.index.json` of the output.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Plan;

#[derive(Serialize)]
struct Index<'a> {
    metadata: Metadata,
    weight_map: BTreeMap<&'a str, &'a str>,
}

#[derive(Serialize)]
struct Metadata {
    total_size: u64,
}

/// The index file's name.
pub const INDEX_NAME: &str = "model.safetensors.index.json";

/// The index of a plan with several weight files, as text that ends with a
/// newline; `None` where one file holds everything. `total_size` counts tensor
/// bytes only, as the field's other writers do.
pub fn index_json(plan: &Plan) -> Option<String> {
    if plan.files.len() < 2 {
        return None;
    }
    let mut weight_map = BTreeMap::new();
    for file in &plan.files {
        for placed in &file.tensors {
            weight_map.insert(
                plan.decisions()[placed.tensor.0 as usize].name.as_str(),
                file.name.as_str(),
            );
        }
    }
    let index = Index {
        metadata: Metadata {
            total_size: plan.tensor_bytes(),
        },
        weight_map,
    };
    let text =
        serde_json::to_string_pretty(&index).expect("maps of text and numbers always serialise");
    Some(text + "\n")
}
