//! Where tensors lie in the files of a checkpoint.
//!
//! Format: <https://github.com/huggingface/safetensors#format>. A file is eight
//! bytes with the length of its header, the header in JSON, and the tensors
//! without gaps.

use std::fmt::Write as _;

use safetensors::Dtype;
use serde_json::json;

use super::tensors::Named;

/// The file's length field.
const LENGTH_BYTES: usize = 8;

/// A tensor with its place.
#[derive(Debug, Clone)]
pub(super) struct Placed {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
    /// From the end of the header.
    begin: u64,
    end: u64,
}

impl Placed {
    pub(super) fn elements(&self) -> u64 {
        self.shape.iter().map(|extent| *extent as u64).product()
    }
}

/// One file.
pub(super) struct Shard {
    pub(super) name: String,
    /// The length field and the JSON, padded to whole words.
    pub(super) header: Vec<u8>,
    pub(super) tensors: Vec<Placed>,
}

impl Shard {
    /// Bytes of the file.
    pub(super) fn size(&self) -> u64 {
        self.header.len() as u64 + self.data_bytes()
    }

    fn data_bytes(&self) -> u64 {
        self.tensors.last().map_or(0, |tensor| tensor.end)
    }
}

/// The files of one checkpoint.
pub(super) struct Layout {
    shards: Vec<Shard>,
}

impl Layout {
    /// Puts the tensors into files in their order; a tensor that would take a
    /// file beyond `shard_bytes` begins the next one.
    pub(super) fn new(tensors: Vec<Named>, dtype: Dtype, shard_bytes: u64) -> Self {
        let mut groups: Vec<Vec<Placed>> = vec![Vec::new()];
        for Named { name, shape } in tensors {
            let elements: u64 = shape.iter().map(|extent| *extent as u64).product();
            let bytes = elements * dtype.bitsize() as u64 / 8;
            let group = groups.last().expect("there is always a group");
            let begin = group.last().map_or(0, |tensor| tensor.end);
            let is_full = !group.is_empty() && begin + bytes > shard_bytes;
            if is_full {
                groups.push(Vec::new());
            }
            let begin = if is_full { 0 } else { begin };
            let placed = Placed {
                name,
                shape,
                begin,
                end: begin + bytes,
            };
            groups
                .last_mut()
                .expect("there is always a group")
                .push(placed);
        }
        let total = groups.len();
        let shards = groups
            .into_iter()
            .enumerate()
            .map(|(ordinal, tensors)| Shard {
                name: if total == 1 {
                    "model.safetensors".to_owned()
                } else {
                    format!("model-{:05}-of-{total:05}.safetensors", ordinal + 1)
                },
                header: header(&tensors, dtype),
                tensors,
            })
            .collect();
        Self { shards }
    }

    pub(super) fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// The index file, where there is more than one shard.
    pub(super) fn index(&self) -> Option<String> {
        if self.shards.len() == 1 {
            return None;
        }
        let weight_map: serde_json::Map<_, _> = self
            .shards
            .iter()
            .flat_map(|shard| {
                shard
                    .tensors
                    .iter()
                    .map(|tensor| (tensor.name.clone(), shard.name.clone().into()))
            })
            .collect();
        let total: u64 = self.shards.iter().map(Shard::data_bytes).sum();
        let index = json!({ "metadata": { "total_size": total }, "weight_map": weight_map });
        Some(format!("{index:#}\n"))
    }
}

fn header(tensors: &[Placed], dtype: Dtype) -> Vec<u8> {
    let mut json = String::from(r#"{"__metadata__":{"format":"pt"}"#);
    for tensor in tensors {
        write!(
            json,
            r#","{}":{{"dtype":"{dtype}","shape":{:?},"data_offsets":[{},{}]}}"#,
            tensor.name, tensor.shape, tensor.begin, tensor.end
        )
        .expect("a string takes everything");
    }
    json.push('}');
    let padded = json.len().next_multiple_of(8);
    let mut bytes = Vec::with_capacity(LENGTH_BYTES + padded);
    bytes.extend_from_slice(&(padded as u64).to_le_bytes());
    bytes.extend_from_slice(json.as_bytes());
    bytes.resize(LENGTH_BYTES + padded, b' ');
    bytes
}
