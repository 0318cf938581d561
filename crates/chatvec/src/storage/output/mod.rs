//! Where a job publishes: a folder of a filesystem, or a prefix of a bucket.

mod folder;
mod prefix;

use std::fs;
use std::path::Path;

use chatvec_core::problem::Problem;

pub use folder::{OutputFolder, Partials, STATE_DIR};
pub use prefix::{OutputPrefix, PART_BYTES_MIN, Standing};

use super::local::LocalError;
use super::object::ObjectError;
use super::{Location, ObjectStorage};

/// The place that a recipe's `output.url` names.
#[derive(Debug, Clone)]
pub enum Output {
    /// A folder of the filesystem that coordinator and workers share.
    Folder(OutputFolder),
    /// Objects below a prefix.
    Prefix(OutputPrefix),
}

impl Output {
    /// The output of this URL. Nothing is looked up.
    ///
    /// # Errors
    /// If the location is of a kind that is not supported, or its store is not
    /// set up.
    pub fn at(storage: &ObjectStorage, url: &str) -> Result<Self, Problem> {
        let location = Location::parse(url, Path::new("/")).map_err(|error| Problem {
            subject: "output.url".to_owned(),
            ..error.problems().swap_remove(0)
        })?;
        match location {
            Location::Folder { path, .. } => Ok(Self::Folder(OutputFolder::at(&path))),
            Location::Objects(url) => Ok(Self::Prefix(OutputPrefix::at(storage, url)?)),
        }
    }

    /// Refuses a place where something stands that may not be overwritten.
    /// Changes nothing. Blocks: not for a thread of a runtime.
    ///
    /// # Errors
    /// Naming the first things that are in the way, or why nobody can look.
    pub fn check_free(&self, storage: &ObjectStorage, overwrite: bool) -> Result<(), Problem> {
        match self {
            Self::Folder(folder) => folder.check_free(overwrite),
            Self::Prefix(prefix) => match storage.block_on(prefix.check_free(overwrite)) {
                Ok(free) => free.map(drop),
                Err(error) => Err(error.problem()),
            },
        }
    }

    /// A small file of what stands there, such as the manifest; `None` if it
    /// does not.
    ///
    /// # Errors
    /// If it is there and cannot be read.
    pub async fn read(&self, path: &str) -> Result<Option<Vec<u8>>, OutputError> {
        match self {
            Self::Folder(folder) => Ok(folder.read(path)?),
            Self::Prefix(prefix) => Ok(prefix.read(path).await?.map(|(bytes, _)| bytes.into())),
        }
    }

    /// The sizes of these files of it; `None` for one that is not there.
    ///
    /// # Errors
    /// If they cannot be asked for.
    pub async fn sizes(
        &self,
        paths: impl Iterator<Item = &str>,
    ) -> Result<Vec<Option<u64>>, OutputError> {
        match self {
            Self::Folder(folder) => {
                let size = |path| fs::metadata(folder.root().join(path)).ok();
                Ok(paths.map(|path| Some(size(path)?.len())).collect())
            }
            Self::Prefix(prefix) => {
                let found = prefix.sizes().await?;
                Ok(paths.map(|path| found.get(path).copied()).collect())
            }
        }
    }

    /// Refuses an output that is an input, lies in one, or holds one:
    /// publishing would overwrite or hide what is read.
    ///
    /// # Errors
    /// Naming the input.
    pub fn check_apart_from(&self, inputs: &[&Location]) -> Result<(), Problem> {
        for input in inputs {
            let relation = match (self, input) {
                (Self::Folder(output), Location::Folder { path, .. }) => output.relation_to(path),
                (Self::Prefix(output), Location::Objects(input)) => output.relation_to(input),
                _ => None,
            };
            if let Some(relation) = relation {
                let message = format!("`{self}` {relation} the input `{input}`");
                let kind = match self {
                    Self::Folder(_) => "folder",
                    Self::Prefix(_) => "prefix",
                };
                return Err(Problem::new("output.url", message)
                    .with_hint(format!("give a {kind} apart from every input")));
            }
        }
        Ok(())
    }
}

/// Why an output cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The filesystem refused.
    #[error(transparent)]
    Local(#[from] LocalError),
    /// The object store refused.
    #[error(transparent)]
    Object(#[from] ObjectError),
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Folder(folder) => folder.root().display().fmt(f),
            Self::Prefix(prefix) => prefix.url().fmt(f),
        }
    }
}

/// The first things that stand where a checkpoint is to be published, as a
/// problem of the recipe.
fn not_empty(place: impl std::fmt::Display, kind: &str, mut names: Vec<String>) -> Problem {
    const SHOWN: usize = 3;
    names.sort();
    let shown = names
        .iter()
        .take(SHOWN)
        .map(|name| format!("`{name}`"))
        .collect::<Vec<_>>()
        .join(", ");
    let more = match names.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let message = format!("expected an empty {kind}, `{place}` holds {shown}{more}");
    Problem::new("output.url", message).with_hint(format!(
        "choose another {kind}, or set `output.overwrite: true` to replace what is there"
    ))
}
