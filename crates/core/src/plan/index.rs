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
/// newline; `None` where one file holds everything.
pub fn index_json(plan: &Plan) -> Option<String> {
    if plan.files.len() < 2 {
        return None;
    }
    let placed = plan.files.iter().flat_map(|file| {
        let names = file.tensors.iter().map(|placed| {
            let decision = &plan.decisions()[placed.tensor.0 as usize];
            decision.name.as_str()
        });
        names.map(|name| (name, file.name.as_str()))
    });
    Some(index_of(plan.tensor_bytes(), placed))
}

/// The index of these tensors, each with the name of its file. `total_size`
/// counts tensor bytes only, as the field's other writers do.
pub fn index_of<'a>(
    total_size: u64,
    placed: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> String {
    let index = Index {
        metadata: Metadata { total_size },
        weight_map: placed.into_iter().collect(),
    };
    let text =
        serde_json::to_string_pretty(&index).expect("maps of text and numbers always serialise");
    text + "\n"
}
