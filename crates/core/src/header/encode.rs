//! Writing the header of a new file.

use std::collections::HashSet;
use std::fmt::Write as _;

use super::{HEADER_MAX, HeaderError, LENGTH_BYTES, METADATA_KEY};
use crate::dtype::Dtype;

/// A tensor of a file that is to be written.
#[derive(Debug, Clone, Copy)]
pub struct NewTensor<'a> {
    /// Its name, unique in the file.
    pub name: &'a str,
    /// Its element type.
    pub dtype: Dtype,
    /// Its dimensions; empty for a scalar.
    pub shape: &'a [u64],
}

/// The first bytes of a file that holds these tensors in this order: the
/// length, the JSON with `"format": "pt"` in its metadata (without it, loaders
/// refuse the file), and spaces up to a multiple of 8. The data section begins
/// right behind, and every element in it is aligned to its size.
///
/// # Errors
/// The tensors are not by element size, largest first; a name stands twice or
/// is reserved; a tensor is no whole number of bytes or too large; or the
/// header would be over [`HEADER_MAX`].
pub fn encode(tensors: &[NewTensor<'_>]) -> Result<Vec<u8>, HeaderError> {
    let mut json = format!(r#"{{"{METADATA_KEY}":{{"format":"pt"}}"#);
    let mut names = HashSet::with_capacity(tensors.len());
    let mut bits_before = usize::MAX;
    let mut begin = 0u64;
    for tensor in tensors {
        let name = || tensor.name.to_owned();
        if tensor.name == METADATA_KEY {
            return Err(HeaderError::ReservedName);
        }
        if !names.insert(tensor.name) {
            return Err(HeaderError::DuplicateTensor { tensor: name() });
        }
        if tensor.dtype.bitsize() > bits_before {
            return Err(HeaderError::Unordered { tensor: name() });
        }
        bits_before = tensor.dtype.bitsize();
        let end = end_of(tensor, begin)?;
        write_entry(&mut json, tensor, begin, end);
        begin = end;
    }
    json.push('}');
    while !json.len().is_multiple_of(LENGTH_BYTES as usize) {
        json.push(' ');
    }
    let length = json.len() as u64;
    if length > HEADER_MAX {
        return Err(HeaderError::TooLong { length });
    }
    let mut bytes = Vec::with_capacity(LENGTH_BYTES as usize + json.len());
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(json.as_bytes());
    Ok(bytes)
}

fn end_of(tensor: &NewTensor<'_>, begin: u64) -> Result<u64, HeaderError> {
    let &NewTensor { name, dtype, shape } = tensor;
    let overflow = || HeaderError::ShapeOverflow {
        tensor: name.to_owned(),
        dtype,
        shape: shape.to_vec(),
    };
    match super::tensor_bytes(dtype, shape).ok_or_else(overflow)? {
        Ok(bytes) => begin.checked_add(bytes).ok_or_else(overflow),
        Err(bits) => Err(HeaderError::PartialByte {
            tensor: name.to_owned(),
            dtype,
            shape: shape.to_vec(),
            bits,
        }),
    }
}

fn write_entry(json: &mut String, tensor: &NewTensor<'_>, begin: u64, end: u64) {
    let name = serde_json::to_string(tensor.name).expect("text is always valid JSON");
    let shape = serde_json::to_string(tensor.shape).expect("numbers are always valid JSON");
    let dtype = tensor.dtype;
    write!(
        json,
        r#",{name}:{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{begin},{end}]}}"#
    )
    .expect("writing to a string cannot fail");
}
