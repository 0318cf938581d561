//! What can be wrong with a header.

use crate::dtype::Dtype;

/// Why the bytes are not the header of a whole safetensors file, or why no
/// header can be written for some tensors.
#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    /// The file is a text of three lines that stands for the real one.
    #[error("this is a Git-LFS pointer, not the file itself")]
    GitLfsPointer,
    /// Not even the length is there.
    #[error("a safetensors file has at least 8 bytes, this one has {size}")]
    TooShort {
        /// Bytes of the file.
        size: u64,
    },
    /// The length is more than any reader accepts; often the file is of
    /// another format.
    #[error(
        "the header's length may be {} bytes at most, the file says {length}",
        super::HEADER_MAX
    )]
    TooLong {
        /// Bytes of JSON.
        length: u64,
    },
    /// The file ends inside its header.
    #[error("truncated: the header alone ends at byte {wanted}, the file has {size} bytes")]
    HeaderTruncated {
        /// 8 + the length of the JSON.
        wanted: u64,
        /// Bytes of the file.
        size: u64,
    },
    /// The header is not text.
    #[error("the header is not UTF-8: {0}")]
    NotUtf8(std::str::Utf8Error),
    /// The header does not begin with `{`.
    #[error("the header must begin with `{{`")]
    NotAnObject,
    /// The header is not JSON of the expected form. The message names the
    /// tensor where it is known.
    #[error("the header is not valid: {0}")]
    Json(serde_json::Error),
    /// A name stands twice in one file.
    #[error("tensor `{tensor}` is listed twice")]
    DuplicateTensor {
        /// Its name.
        tensor: String,
    },
    /// The key of the metadata cannot name a tensor.
    #[error("`__metadata__` cannot be the name of a tensor")]
    ReservedName,
    /// An element type that the format does not have.
    #[error("tensor `{tensor}` has the unknown type `{dtype}`")]
    UnknownDtype {
        /// Its name.
        tensor: String,
        /// What stands there.
        dtype: String,
    },
    /// The end lies before the begin.
    #[error("tensor `{tensor}` ends at {end}, before it begins at {begin}")]
    ReversedOffsets {
        /// Its name.
        tensor: String,
        /// Offset of its first byte in the data section.
        begin: u64,
        /// Offset behind its last byte.
        end: u64,
    },
    /// Bytes that belong to no tensor.
    #[error(
        "tensor `{tensor}` begins at {begin}, expected {expected}: the bytes between belong to no tensor"
    )]
    Hole {
        /// The tensor behind the hole.
        tensor: String,
        /// Where it begins.
        begin: u64,
        /// Where the tensor before it ends.
        expected: u64,
    },
    /// Bytes that belong to two tensors.
    #[error(
        "tensor `{tensor}` begins at {begin}, inside tensor `{other}` which ends at {other_end}"
    )]
    Overlap {
        /// The later tensor.
        tensor: String,
        /// Where it begins.
        begin: u64,
        /// The tensor before it.
        other: String,
        /// Where that one ends.
        other_end: u64,
    },
    /// More elements or bits than 64 bits count.
    #[error(
        "tensor `{tensor}`: {shape:?} elements of type {dtype} are more than any file can hold"
    )]
    ShapeOverflow {
        /// Its name.
        tensor: String,
        /// Its element type.
        dtype: Dtype,
        /// Its dimensions.
        shape: Vec<u64>,
    },
    /// Elements smaller than a byte that do not fill their last byte.
    #[error(
        "tensor `{tensor}`: {shape:?} elements of type {dtype} are {bits} bits, not whole bytes"
    )]
    PartialByte {
        /// Its name.
        tensor: String,
        /// Its element type.
        dtype: Dtype,
        /// Its dimensions.
        shape: Vec<u64>,
        /// All bits of it.
        bits: u64,
    },
    /// Shape and type say another size than the offsets.
    #[error(
        "tensor `{tensor}`: {shape:?} elements of type {dtype} are {expected} bytes, its offsets span {found}"
    )]
    SizeMismatch {
        /// Its name.
        tensor: String,
        /// Its element type.
        dtype: Dtype,
        /// Its dimensions.
        shape: Vec<u64>,
        /// Bytes by shape and type.
        expected: u64,
        /// Bytes by the offsets.
        found: u64,
    },
    /// The file ends before its tensors do.
    #[error("truncated: the header wants {wanted} bytes, the file has {size}")]
    Truncated {
        /// Bytes that the whole file must have.
        wanted: u64,
        /// Bytes of the file.
        size: u64,
    },
    /// The file goes on behind its last tensor.
    #[error(
        "the header wants {wanted} bytes, the file has {size}: bytes at its end belong to no tensor"
    )]
    TrailingBytes {
        /// Bytes that the whole file must have.
        wanted: u64,
        /// Bytes of the file.
        size: u64,
    },
    /// The tensors of a new file are not by element size.
    #[error(
        "tensor `{tensor}` has larger elements than the one before it: a new file has the largest elements first"
    )]
    Unordered {
        /// The first tensor that breaks the order.
        tensor: String,
    },
}

impl HeaderError {
    /// What the user can do about a file with this error.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::GitLfsPointer => Some("fetch the real file with `git lfs pull`"),
            Self::TooShort { .. } | Self::HeaderTruncated { .. } | Self::Truncated { .. } => {
                Some("the file is incomplete: download or copy it again")
            }
            Self::TooLong { .. } | Self::NotAnObject | Self::NotUtf8(_) => {
                Some("the file is damaged or not safetensors, whatever its name says")
            }
            _ => None,
        }
    }
}
