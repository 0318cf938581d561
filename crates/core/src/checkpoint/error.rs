//! Why a folder is not a checkpoint that can be read.

use super::{INDEX_FILE, IndexError, SINGLE_FILE};

/// Why the weight files of a folder cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// Nothing is in the folder.
    #[error("the folder is empty")]
    EmptyFolder,
    /// The root of a model in the Hub's cache, one level above its files.
    #[error("this is the root of a Hub cache, its checkpoints are the folders in `snapshots/`")]
    HubCacheRoot {
        /// The names of the folders in `snapshots/`.
        snapshots: Vec<String>,
    },
    /// Only an adapter: a difference to a model, in a form of its own.
    #[error("this is an adapter (`{file}`), not a whole model")]
    Adapter {
        /// The file that shows it.
        file: String,
    },
    /// Only weights in the GGUF format.
    #[error("the weights are in the GGUF format (`{file}`), expected safetensors")]
    Gguf {
        /// The first such file.
        file: String,
    },
    /// Only pickled weights.
    #[error("the weights are pickled (`{file}`), expected safetensors")]
    Pickle {
        /// The first such file.
        file: String,
    },
    /// Only variants (`model.fp16.safetensors`) or other weights that are not
    /// the checkpoint itself.
    #[error("expected `{SINGLE_FILE}` or its shards, found only `{file}`: {reason}")]
    OnlyIgnored {
        /// The first such file.
        file: String,
        /// Why it does not count.
        reason: super::IgnoredReason,
    },
    /// Files, but no weights in any form.
    #[error("no weights: expected `{SINGLE_FILE}`, or shards with `{INDEX_FILE}`")]
    NoWeights,
    /// The index is broken.
    #[error("`{INDEX_FILE}`: {0}")]
    Index(IndexError),
    /// The index names files that are not there.
    #[error("`{INDEX_FILE}` names {} that {} not in the folder: {}", files(.names.len()), is_are(.names.len()), backticked(.names))]
    MissingFiles {
        /// All of them.
        names: Vec<String>,
    },
    /// An index and a single file that it does not name: two checkpoints.
    #[error(
        "both `{SINGLE_FILE}` and `{INDEX_FILE}` are there, and the index does not name the file"
    )]
    IndexAndSingle,
    /// Shards without an index, some of them absent.
    #[error("{} of {count} shards {} not in the folder: {}", .names.len(), is_are(.names.len()), backticked(.names))]
    MissingShards {
        /// How many there must be.
        count: u32,
        /// Those that are absent.
        names: Vec<String>,
    },
    /// Shards of two sets, without an index that tells which is meant.
    #[error("the shards `{first}` and `{second}` belong to different sets")]
    MixedShards {
        /// A shard of one set.
        first: String,
        /// A shard of another.
        second: String,
    },
}

impl CheckpointError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::EmptyFolder | Self::NoWeights => "check the path, or download the model first",
            Self::HubCacheRoot { snapshots } => match &snapshots[..] {
                [only] => return Some(format!("give `snapshots/{only}` in it")),
                _ => "give one of the folders `snapshots/<sha>` in it",
            },
            Self::Adapter { .. } => "merge the adapter into its model first and give the result",
            Self::Gguf { .. } => {
                "give the original checkpoint: GGUF weights are a conversion of it"
            }
            Self::Pickle { .. } => {
                "convert them: load the model with transformers and call `save_pretrained(folder, safe_serialization=True)`"
            }
            Self::OnlyIgnored { .. } => {
                "if these are the weights that are meant, copy them into a folder of their own under the usual names"
            }
            Self::Index(IndexError::GitLfsPointer) => "fetch the real files with `git lfs pull`",
            Self::Index(_) => return None,
            Self::MissingFiles { .. } | Self::MissingShards { .. } => {
                "the checkpoint is incomplete: download or copy the missing files"
            }
            Self::IndexAndSingle | Self::MixedShards { .. } => {
                "two checkpoints are mixed in one folder: remove the one that is not meant"
            }
        };
        Some(hint.to_owned())
    }
}

fn files(count: usize) -> String {
    match count {
        1 => "a file".to_owned(),
        _ => format!("{count} files"),
    }
}

fn is_are(count: usize) -> &'static str {
    if count == 1 { "is" } else { "are" }
}

fn backticked(names: &[String]) -> String {
    let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    names.join(", ")
}
