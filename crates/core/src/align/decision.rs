//! What is decided for a tensor, and why.

use std::fmt;

use super::{Role, TensorAt};
use crate::dtype::{Dtype, FloatFormat};
use crate::problem::Problem;

/// Every decision of a job.
#[derive(Debug, Clone)]
pub struct Alignment {
    /// One for each tensor of cp, in cp's storage order.
    pub decisions: Vec<Decision>,
    /// Tensors that only another input has.
    pub ignored: Vec<IgnoredTensor>,
    /// What the user should know and nothing stops for.
    pub warnings: Vec<Problem>,
    /// Embedding and head, tied in cp, come out different: `tie_word_embeddings`
    /// must become false.
    pub untie: bool,
}

/// The decision on one tensor of cp.
#[derive(Debug, Clone)]
pub struct Decision {
    /// Its name.
    pub name: String,
    /// Its type in cp.
    pub dtype: Dtype,
    /// Its shape.
    pub shape: Vec<u64>,
    /// Where cp stores it.
    pub cp: TensorAt,
    /// Its type in the output.
    pub output: Dtype,
    /// What happens to it.
    pub outcome: Outcome,
}

/// What happens to a tensor.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// cp's own values, converted where the output has another type.
    Keep(Keep),
    /// cp plus the chat vectors.
    Merge(Merge),
}

/// Why a tensor stays as it is in cp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Not a floating-point type.
    NotFloat,
    /// A buffer that the model computes for itself.
    Buffer,
    /// The rule at this position says so.
    Rule(usize),
    /// Every λ × `lambda_scale` is zero.
    LambdaZero,
    /// `missing: keep_cp`, and this vector lacks it.
    Missing(usize),
}

/// How a tensor is merged.
#[derive(Debug, Clone)]
pub struct Merge {
    /// The rule that scaled it, if one did.
    pub rule: Option<usize>,
    /// The format of cp's tensor.
    pub format: FloatFormat,
    /// One for each vector that takes part, in the order of the recipe; not empty.
    pub terms: Vec<VectorTerm>,
}

/// One vector's share: `lambda × (chat − base)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct VectorTerm {
    /// Position of the vector in the recipe.
    pub vector: usize,
    /// λ × `lambda_scale`, not zero.
    pub lambda: f64,
    /// θ_chat.
    pub chat: TensorAt,
    /// θ_base.
    pub base: TensorAt,
}

/// A tensor that cp lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IgnoredTensor {
    /// Whose it is.
    pub role: Role,
    /// Its name.
    pub name: String,
    /// Its type.
    pub dtype: Dtype,
}

impl Decision {
    /// Whether a chat vector is added to it.
    pub fn is_merged(&self) -> bool {
        matches!(self.outcome, Outcome::Merge(_))
    }

    /// Number of elements.
    pub fn elements(&self) -> u64 {
        self.shape.iter().product()
    }

    /// Length in the output, in bytes.
    pub fn output_bytes(&self) -> u64 {
        // The header's check made sure that this is whole bytes and no overflow
        // in cp's type; no other output type is wider than 8 bytes.
        match FloatFormat::of(self.output) {
            Some(format) => self.elements() * format.bytes() as u64,
            None => self.cp.len,
        }
    }

    /// Bytes of all inputs that are read for it.
    pub fn input_bytes(&self) -> u64 {
        match &self.outcome {
            Outcome::Keep(_) => self.cp.len,
            Outcome::Merge(merge) => {
                self.cp.len
                    + merge
                        .terms
                        .iter()
                        .map(|term| term.chat.len + term.base.len)
                        .sum::<u64>()
            }
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keep(Keep::NotFloat) => write!(f, "copied: not a floating-point type"),
            Self::Keep(Keep::Buffer) => write!(f, "copied: a buffer that the model computes"),
            Self::Keep(Keep::Rule(rule)) => write!(f, "kept: rules[{rule}]"),
            Self::Keep(Keep::LambdaZero) => write!(f, "kept: lambda is zero"),
            Self::Keep(Keep::Missing(vector)) => write!(f, "kept: vectors[{vector}] lacks it"),
            Self::Merge(merge) => {
                write!(f, "merged")?;
                for term in &merge.terms {
                    write!(f, " + {}·τ{}", term.lambda, term.vector)?;
                }
                match merge.rule {
                    Some(rule) => write!(f, ": rules[{rule}]"),
                    None => Ok(()),
                }
            }
        }
    }
}
