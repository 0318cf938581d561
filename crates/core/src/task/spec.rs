//! The self-contained description of a task: all that a worker needs to know.

use serde::{Deserialize, Serialize};

use crate::dtype::FloatFormat;
use crate::ids::{FileOrdinal, PartOrdinal, TensorOrdinal};

/// One source object, pinned: the worker reads this very object or fails.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceFile {
    /// Where it is: an absolute path, or the URL of an object.
    pub url: String,
    /// Its size in bytes when it was planned.
    pub size: u64,
    /// What identified it when it was planned: an ETag, or inode, size and
    /// modification time. Compared for equality only.
    pub pin: String,
}

/// A run of bytes of a source object: the slice of one tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// Position in [`TaskSpec::sources`].
    pub source: u32,
    /// Where the slice begins in the object, in bytes. Any alignment.
    pub offset: u64,
    /// How its elements are encoded.
    pub format: FloatFormat,
}

/// One chat vector's share in a slice: `lambda × (chat − base)`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Term {
    /// Position of the vector in the recipe, for the statistics.
    pub vector: u32,
    /// λ × `lambda_scale`, never zero.
    pub lambda: f64,
    /// θ_chat.
    pub chat: Piece,
    /// θ_base.
    pub base: Piece,
}

/// How the bytes of a segment come about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Operation {
    /// These very bytes: the header of the file.
    Literal(Vec<u8>),
    /// The bytes of a source object, never decoded.
    Copy {
        /// Position in [`TaskSpec::sources`].
        source: u32,
        /// Where they begin in the object.
        offset: u64,
    },
    /// `cp + Σ terms`, rounded once to `format`. Without terms: cp alone, rounded.
    Merge {
        /// θ_cp.
        cp: Piece,
        /// In the order of the recipe.
        terms: Vec<Term>,
        /// Of the output.
        format: FloatFormat,
    },
}

/// A run of output bytes with one origin: the header, or (part of) one tensor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Segment {
    /// The output tensor it belongs to; `None` for the header.
    pub tensor: Option<TensorOrdinal>,
    /// The tensor's name, for messages; empty for the header.
    pub name: String,
    /// Where it begins in the output file, in bytes.
    pub offset: u64,
    /// Its length in bytes, never zero.
    pub len: u64,
    /// Where the bytes come from. Offsets in it are those of the segment's first byte.
    pub operation: Operation,
}

/// One part: a range of bytes of the output file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartRange {
    /// Its position in the file.
    pub part: PartOrdinal,
    /// Where it begins in the output file.
    pub offset: u64,
    /// Its length in bytes.
    pub len: u64,
}

/// A contiguous run of parts of one output file, leased as one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskSpec {
    /// The output file.
    pub file: FileOrdinal,
    /// Where its unfinished bytes are written: an absolute path, or the URL of an object.
    pub target: String,
    /// The whole file's size in bytes.
    pub file_size: u64,
    /// The parts, ascending and contiguous.
    pub parts: Vec<PartRange>,
    /// The objects that the pieces name.
    pub sources: Vec<SourceFile>,
    /// In output order, without gap or overlap over the parts' bytes; no
    /// segment crosses a part's boundary.
    pub segments: Vec<Segment>,
    /// Whether NaN or infinity in an input, or overflow in the output, is an error.
    pub nonfinite_is_error: bool,
}

impl TaskSpec {
    /// Bytes of output that the task writes.
    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.len).sum()
    }
}
