//! What is shown of a checkpoint.

use std::collections::{BTreeMap, HashMap};

use chatvec_core::checkpoint::{Checkpoint, Ignored};
use chatvec_core::problem::Problem;
use serde::Serialize;

use crate::storage::Surveyed;

/// Everything that is shown of a checkpoint: the JSON output is this object.
/// Sizes are bytes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The absolute path of its folder.
    pub path: String,
    /// `model_type` of its configuration.
    pub model_type: Option<String>,
    /// `architectures` of its configuration.
    pub architectures: Vec<String>,
    /// `tie_word_embeddings` of its configuration.
    pub tie_word_embeddings: Option<bool>,
    /// The weight files, by name.
    pub files: Vec<FileLine>,
    /// What looks like weights and is not read.
    pub ignored: Vec<Ignored>,
    /// Tensors of the weight files that the index does not name.
    pub ignored_tensors: Vec<IgnoredTensorLine>,
    /// How many tensors there are.
    pub tensor_count: usize,
    /// Bytes of all tensors.
    pub tensor_bytes: u64,
    /// The element types, the one with the most bytes first.
    pub dtypes: Vec<DtypeLine>,
    /// Tensors of the same name but for numbers, type and shape, in storage
    /// order of the first of each.
    pub shapes: Vec<ShapeLine>,
    /// Every tensor in storage order, if asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tensors: Option<Vec<TensorLine>>,
    /// Why it counts as quantised, if it does: it can't be merged then.
    pub quantised: Option<Problem>,
    /// What is odd and does no harm.
    pub warnings: Vec<Problem>,
}

/// A weight file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileLine {
    /// Its name.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// How many tensors it holds.
    pub tensor_count: usize,
}

/// A tensor that is no part of the checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IgnoredTensorLine {
    /// Its name.
    pub name: String,
    /// The file that holds it.
    pub file: String,
}

/// An element type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DtypeLine {
    /// Its name.
    pub dtype: String,
    /// How many tensors have it.
    pub tensor_count: usize,
    /// Bytes of all of these.
    pub bytes: u64,
}

/// Tensors that differ only in the numbers in their names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ShapeLine {
    /// The name with `*` for every number between dots.
    pub pattern: String,
    /// Their element type.
    pub dtype: String,
    /// Their dimensions.
    pub shape: Vec<u64>,
    /// How many there are.
    pub tensor_count: usize,
}

/// A tensor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TensorLine {
    /// Its name.
    pub name: String,
    /// Its element type.
    pub dtype: String,
    /// Its dimensions.
    pub shape: Vec<u64>,
    /// The file that holds it.
    pub file: String,
    /// Offset of its first byte in the file.
    pub offset: u64,
    /// Its length.
    pub bytes: u64,
}

impl Report {
    /// The report of a checkpoint, with a list of all tensors if asked for.
    pub(super) fn new(surveyed: &Surveyed, list_tensors: bool) -> Self {
        let checkpoint = &surveyed.checkpoint;
        let files = checkpoint.files.iter().map(|file| FileLine {
            name: file.name.clone(),
            bytes: file.size,
            tensor_count: file.header.tensors.len(),
        });
        let ignored_tensors = checkpoint.ignored_tensors.iter();
        let ignored_tensors = ignored_tensors.map(|(file, name)| IgnoredTensorLine {
            name: name.clone(),
            file: file.clone(),
        });
        Self {
            path: surveyed.location.to_string(),
            model_type: checkpoint.config.model_type.clone(),
            architectures: checkpoint.config.architectures.clone(),
            tie_word_embeddings: checkpoint.config.tie_word_embeddings,
            files: files.collect(),
            ignored: checkpoint.ignored.clone(),
            ignored_tensors: ignored_tensors.collect(),
            tensor_count: checkpoint.len(),
            tensor_bytes: checkpoint.bytes(),
            dtypes: dtypes(checkpoint),
            shapes: shapes(checkpoint),
            tensors: list_tensors.then(|| tensors(checkpoint)),
            quantised: checkpoint.quantised(),
            warnings: checkpoint.warnings.clone(),
        }
    }
}

fn dtypes(checkpoint: &Checkpoint) -> Vec<DtypeLine> {
    let mut counts = BTreeMap::new();
    for tensor in checkpoint.iter() {
        let (tensor_count, bytes) = counts.entry(tensor.entry.dtype).or_insert((0, 0));
        *tensor_count += 1;
        *bytes += tensor.entry.bytes();
    }
    let mut lines: Vec<_> = counts
        .into_iter()
        .map(|(dtype, (tensor_count, bytes))| DtypeLine {
            dtype: dtype.to_string(),
            tensor_count,
            bytes,
        })
        .collect();
    lines.sort_by_key(|line| std::cmp::Reverse(line.bytes));
    lines
}

fn shapes(checkpoint: &Checkpoint) -> Vec<ShapeLine> {
    let mut lines: Vec<ShapeLine> = Vec::new();
    let mut known = HashMap::new();
    for tensor in checkpoint.iter() {
        let entry = tensor.entry;
        let pattern = pattern_of(&entry.name);
        let key = (pattern.clone(), entry.dtype.to_string(), &entry.shape);
        let line = *known.entry(key).or_insert_with(|| {
            lines.push(ShapeLine {
                pattern,
                dtype: entry.dtype.to_string(),
                shape: entry.shape.clone(),
                tensor_count: 0,
            });
            lines.len() - 1
        });
        lines[line].tensor_count += 1;
    }
    lines
}

fn pattern_of(name: &str) -> String {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let parts = name.split('.');
    let parts: Vec<_> = parts
        .map(|part| if is_number(part) { "*" } else { part })
        .collect();
    parts.join(".")
}

fn tensors(checkpoint: &Checkpoint) -> Vec<TensorLine> {
    let line = |tensor: chatvec_core::checkpoint::TensorRef<'_>| {
        let file = &checkpoint.files[tensor.file];
        TensorLine {
            name: tensor.entry.name.clone(),
            dtype: tensor.entry.dtype.to_string(),
            shape: tensor.entry.shape.clone(),
            file: file.name.clone(),
            offset: file.header.data_start + tensor.entry.begin,
            bytes: tensor.entry.bytes(),
        }
    };
    checkpoint.iter().map(line).collect()
}
