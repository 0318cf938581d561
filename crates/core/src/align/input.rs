//! The checkpoints of a job by role, and where their tensors lie.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::checkpoint::{Checkpoint, TensorRef};
use crate::dtype::Dtype;
use crate::task::SourceFile;

/// What a checkpoint is in a recipe. Displayed as its path in the recipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Role {
    /// The model that is added to.
    Cp,
    /// θ_chat of the vector at this position.
    Chat(usize),
    /// θ_base of the vector at this position.
    Base(usize),
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cp => write!(f, "cp"),
            Self::Chat(vector) => write!(f, "vectors[{vector}].chat"),
            Self::Base(vector) => write!(f, "vectors[{vector}].base"),
        }
    }
}

/// One checkpoint as a job's input.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// Its tensors.
    pub checkpoint: &'a Checkpoint,
    /// Its weight files with their pins, in the order of [`Checkpoint::files`].
    pub files: &'a [SourceFile],
    /// Position of `files[0]` among the source files of the whole job.
    pub first_source: usize,
}

/// The chat and base of one vector.
#[derive(Debug, Clone, Copy)]
pub struct VectorInputs<'a> {
    /// θ_chat.
    pub chat: Input<'a>,
    /// θ_base.
    pub base: Input<'a>,
}

/// All checkpoints of a job.
#[derive(Debug, Clone)]
pub struct Inputs<'a> {
    /// θ_cp.
    pub cp: Input<'a>,
    /// In the order of the recipe.
    pub vectors: Vec<VectorInputs<'a>>,
}

impl<'a> Inputs<'a> {
    /// Every input with its role: cp, then chat and base of each vector.
    pub fn all(&self) -> impl Iterator<Item = (Role, Input<'a>)> {
        let vectors = self.vectors.iter().enumerate();
        let pairs = vectors
            .flat_map(|(i, vector)| [(Role::Chat(i), vector.chat), (Role::Base(i), vector.base)]);
        std::iter::once((Role::Cp, self.cp)).chain(pairs)
    }
}

/// Where the bytes of a stored tensor lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TensorAt {
    /// Position of the file among the source files of the whole job.
    pub source: usize,
    /// Offset of its first byte in the file.
    pub offset: u64,
    /// Its length in bytes.
    pub len: u64,
    /// Its element type.
    pub dtype: Dtype,
}

impl Input<'_> {
    pub(super) fn locate(&self, tensor: &TensorRef<'_>) -> TensorAt {
        let header = &self.checkpoint.files[tensor.file].header;
        TensorAt {
            source: self.first_source + tensor.file,
            offset: header.data_start + tensor.entry.begin,
            len: tensor.entry.end - tensor.entry.begin,
            dtype: tensor.entry.dtype,
        }
    }
}
