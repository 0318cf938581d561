//! A checkpoint as stored: which files of a folder hold its weights, and where
//! each tensor is.
//!
//! [`select()`] decides from the folder's listing and its index which files to
//! read; [`assemble()`] puts their headers together. Between the two the caller
//! reads the headers.

mod assemble;
mod config;
mod error;
mod index;
mod quantised;
mod select;

pub use assemble::assemble;
pub use config::{Config, ConfigError};
pub use error::CheckpointError;
pub use index::{Index, IndexError};
pub use select::{Ignored, IgnoredReason, Layout, ListedFile, Selection, select};

use crate::header::{Header, TensorEntry};
use crate::problem::Problem;

/// The index of a checkpoint of several files.
pub const INDEX_FILE: &str = "model.safetensors.index.json";
/// The weights of a checkpoint of one file.
pub const SINGLE_FILE: &str = "model.safetensors";
/// The configuration of the model.
pub const CONFIG_FILE: &str = "config.json";

/// One weight file and what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WeightFile {
    /// Its name in the folder.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its header.
    pub header: Header,
}

/// A whole checkpoint: every tensor is in exactly one of its files.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// Its weight files, by name.
    pub files: Vec<WeightFile>,
    /// The files of the folder that look like weights and are not read.
    pub ignored: Vec<Ignored>,
    /// Tensors of the weight files that the index does not name, as file and
    /// tensor, in storage order. They are no part of the checkpoint.
    pub ignored_tensors: Vec<(String, String)>,
    /// What is odd and does no harm.
    pub warnings: Vec<Problem>,
    /// What `config.json` says.
    pub config: Config,
    /// Sorted by the names of the tensors, which the headers have.
    by_name: Vec<Place>,
    in_order: Vec<Place>,
}

/// Where a tensor is listed: its file among the files, its entry among those
/// of the file's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    file: u32,
    entry: u32,
}

impl Place {
    fn new(file: usize, entry: usize) -> Self {
        let position = |at| u32::try_from(at).expect("a header of 100 MB has fewer than 2^32");
        Self {
            file: position(file),
            entry: position(entry),
        }
    }

    fn entry(self, files: &[WeightFile]) -> &TensorEntry {
        &files[self.file as usize].header.tensors[self.entry as usize]
    }
}

/// A tensor of a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TensorRef<'a> {
    /// Position of its file among [`Checkpoint::files`].
    pub file: usize,
    /// Its entry in the file's header.
    pub entry: &'a TensorEntry,
}

impl Checkpoint {
    /// The tensor of this name.
    pub fn get(&self, name: &str) -> Option<TensorRef<'_>> {
        let name_at = |place: &Place| self.at(*place).entry.name.as_str();
        let found = self
            .by_name
            .binary_search_by(|place| name_at(place).cmp(name));
        found.ok().map(|ordinal| self.at(self.by_name[ordinal]))
    }

    /// Lets go of every tensor, once all is decided: a checkpoint of a hundred
    /// thousand of them takes tens of megabytes.
    pub fn forget_tensors(&mut self) {
        self.by_name = Vec::new();
        self.in_order = Vec::new();
        for file in &mut self.files {
            file.header.tensors = Vec::new();
        }
    }

    /// All tensors in storage order: by file name, then by offset.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = TensorRef<'_>> {
        self.in_order.iter().map(|place| self.at(*place))
    }

    /// How many tensors there are.
    pub fn len(&self) -> usize {
        self.in_order.len()
    }

    /// Whether there is no tensor at all.
    pub fn is_empty(&self) -> bool {
        self.in_order.is_empty()
    }

    /// Bytes of all tensors.
    pub fn bytes(&self) -> u64 {
        self.iter().map(|tensor| tensor.entry.bytes()).sum()
    }

    /// Why the checkpoint counts as quantised, if it does: its codes mean
    /// nothing without their scales, so that they must not be added. The
    /// subject is the first tensor that shows it, else `config.json`.
    pub fn quantised(&self) -> Option<Problem> {
        quantised::find(self)
    }

    fn at(&self, place: Place) -> TensorRef<'_> {
        TensorRef {
            file: place.file as usize,
            entry: place.entry(&self.files),
        }
    }
}

#[cfg(test)]
mod tests;
