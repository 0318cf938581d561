//! Which tensor goes to which output file, and where in it.

use crate::align::Decision;
use crate::header::{self, HeaderError, NewTensor};
use crate::ids::TensorOrdinal;

/// One weight file of the output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputFile {
    /// Its name in the output folder.
    pub name: String,
    /// The 8-byte length and the JSON header, padded to 8 bytes.
    pub header: Vec<u8>,
    /// Its tensors by offset, without gap or overlap from the header to the end.
    pub tensors: Vec<PlacedTensor>,
    /// Its size in bytes.
    pub size: u64,
}

/// A tensor's place in its output file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlacedTensor {
    /// Position among the decisions of the plan.
    pub tensor: TensorOrdinal,
    /// Offset of its first byte in the file.
    pub begin: u64,
    /// Offset behind its last byte.
    pub end: u64,
}

/// Fills files with tensors in cp's order, each up to `shard_size` bytes of
/// tensors; a larger tensor has a file of its own. Inside a file the tensors
/// stand by element size, largest first, so that every element is aligned and
/// no part boundary cuts one.
pub(super) fn lay_out(
    decisions: &[Decision],
    shard_size: u64,
) -> Result<Vec<OutputFile>, HeaderError> {
    let shards = fill(decisions, shard_size);
    let count = shards.len();
    let named = shards.into_iter().enumerate();
    named
        .map(|(ordinal, shard)| place(decisions, shard, file_name(ordinal, count)))
        .collect()
}

fn file_name(ordinal: usize, count: usize) -> String {
    match count {
        1 => "model.safetensors".to_owned(),
        _ => format!("model-{:05}-of-{count:05}.safetensors", ordinal + 1),
    }
}

fn fill(decisions: &[Decision], shard_size: u64) -> Vec<Vec<usize>> {
    let mut shards = vec![Vec::new()];
    let mut filled = 0;
    for (ordinal, decision) in decisions.iter().enumerate() {
        let bytes = decision.output_bytes();
        let current = shards.last().expect("starts with one shard and only grows");
        if !current.is_empty() && filled + bytes > shard_size {
            shards.push(Vec::new());
            filled = 0;
        }
        shards
            .last_mut()
            .expect("starts with one shard and only grows")
            .push(ordinal);
        filled += bytes;
    }
    shards
}

fn place(
    decisions: &[Decision],
    mut shard: Vec<usize>,
    name: String,
) -> Result<OutputFile, HeaderError> {
    // A stable sort: tensors of one element size keep cp's order.
    shard.sort_by_key(|ordinal| std::cmp::Reverse(decisions[*ordinal].output.bitsize()));
    let tensors: Vec<_> = shard
        .iter()
        .map(|ordinal| &decisions[*ordinal])
        .map(|decision| NewTensor {
            name: &decision.name,
            dtype: decision.output,
            shape: &decision.shape,
        })
        .collect();
    let header = header::encode(&tensors)?;
    let mut end = header.len() as u64;
    let mut placed = Vec::with_capacity(shard.len());
    for ordinal in shard {
        let begin = end;
        end += decisions[ordinal].output_bytes();
        let tensor = TensorOrdinal(
            u32::try_from(ordinal).expect("a header of 100 MB holds fewer than 2^32 tensors"),
        );
        placed.push(PlacedTensor { tensor, begin, end });
    }
    Ok(OutputFile {
        name,
        header,
        tensors: placed,
        size: end,
    })
}
