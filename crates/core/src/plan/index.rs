//! `model.safetensors.index.json` of the output.

use std::collections::BTreeMap;

use serde::Serialize;

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

/// The index of tensors in several weight files, each with the name of its file,
/// as text that ends with a newline. `total_size` counts tensor bytes only, as the
/// field's other writers do.
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
