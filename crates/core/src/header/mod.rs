//! The header of a safetensors file: what it holds and where.
//!
//! A file is the length of its JSON as 8 little-endian bytes, the JSON, and
//! the bytes of the tensors without gap or overlap to the end of the file
//! (format: <https://github.com/huggingface/safetensors#format>). Nothing here
//! needs more of a file than its first bytes and its size.

mod encode;
mod error;
mod parse;

pub use encode::{NewTensor, encode};
pub use error::HeaderError;
pub use parse::{parse, parse_length};

use std::collections::BTreeMap;

use crate::dtype::Dtype;

/// The longest header that a reader accepts, in bytes of JSON; every
/// implementation of the format has the same limit.
pub const HEADER_MAX: u64 = 100_000_000;

/// Bytes of the length that precedes the JSON.
const LENGTH_BYTES: u64 = 8;

/// The key of the JSON that is not a tensor.
const METADATA_KEY: &str = "__metadata__";

/// A header that has been checked against the size of its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Where the data section begins in the file: 8 + the length of the JSON.
    pub data_start: u64,
    /// By offset; tensors without bytes come before the one that begins where
    /// they lie, by name. Contiguous from 0 to the end of the file, with
    /// distinct names.
    pub tensors: Vec<TensorEntry>,
    /// The free text of `__metadata__`.
    pub metadata: BTreeMap<String, String>,
}

/// One tensor of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorEntry {
    /// Its name, unique in the file.
    pub name: String,
    /// Its element type.
    pub dtype: Dtype,
    /// Its dimensions; empty for a scalar.
    pub shape: Vec<u64>,
    /// Offset of its first byte in the data section. Any alignment.
    pub begin: u64,
    /// Offset behind its last byte in the data section.
    pub end: u64,
}

impl TensorEntry {
    /// Its length in bytes.
    pub fn bytes(&self) -> u64 {
        self.end - self.begin
    }
}

/// The bytes of a tensor, or `None` where its elements or its bits are more
/// than a `u64` counts. `Some(Err(bits))` is a size that is no whole byte.
///
/// The order of the products is that of the reference implementation, so that
/// both find the same shapes too large.
fn tensor_bytes(dtype: Dtype, shape: &[u64]) -> Option<Result<u64, u64>> {
    let elements = shape
        .iter()
        .try_fold(1u64, |product, side| product.checked_mul(*side))?;
    let bits = elements.checked_mul(dtype.bitsize() as u64)?;
    Some(if bits.is_multiple_of(8) {
        Ok(bits / 8)
    } else {
        Err(bits)
    })
}

#[cfg(test)]
mod tests;
