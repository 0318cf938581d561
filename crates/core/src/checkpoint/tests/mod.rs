mod assembling;
mod configs;
mod selecting;

use std::collections::BTreeMap;

use super::*;
use crate::dtype::Dtype;

/// A listing of files of 10 bytes.
fn listing(names: &[&str]) -> Vec<ListedFile> {
    let file = |name: &&str| ListedFile {
        name: (*name).to_owned(),
        size: 10,
    };
    names.iter().map(file).collect()
}

/// A file of byte-sized tensors of length 4.
fn weight_file(name: &str, tensors: &[&str]) -> WeightFile {
    let typed: Vec<_> = tensors.iter().map(|tensor| (*tensor, Dtype::U8)).collect();
    typed_file(name, &typed)
}

/// A file of tensors of 4 bytes.
fn typed_file(name: &str, tensors: &[(&str, Dtype)]) -> WeightFile {
    let entry = |(ordinal, (tensor, dtype)): (usize, &(&str, Dtype))| TensorEntry {
        name: (*tensor).to_owned(),
        dtype: *dtype,
        shape: vec![32 / dtype.bitsize() as u64],
        begin: ordinal as u64 * 4,
        end: ordinal as u64 * 4 + 4,
    };
    let header = Header {
        data_start: 100,
        tensors: tensors.iter().enumerate().map(entry).collect(),
        metadata: BTreeMap::new(),
    };
    WeightFile {
        name: name.to_owned(),
        size: 100 + tensors.len() as u64 * 4,
        header,
    }
}

fn index_json(entries: &[(&str, &str)]) -> Vec<u8> {
    let map: BTreeMap<_, _> = entries.iter().copied().collect();
    serde_json::json!({ "metadata": { "total_size": 4 * map.len() }, "weight_map": map })
        .to_string()
        .into_bytes()
}
