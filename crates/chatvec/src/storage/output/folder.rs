//! The folder that a job publishes into, and the place of what is unfinished.
//!
//! Until the job commits, all it has lies under `OUT/.chatvec/`: a reader of
//! the folder sees nothing of it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use chatvec_core::ids::JobId;
use chatvec_core::manifest::FILE_NAME as MANIFEST_NAME;
use chatvec_core::problem::Problem;

use super::not_empty;
use crate::storage::local::{LocalError, PartialFile};

/// Where everything unfinished lives, inside the output folder.
pub const STATE_DIR: &str = ".chatvec";

/// An output folder, which may not exist yet.
#[derive(Debug, Clone)]
pub struct OutputFolder {
    root: PathBuf,
}

impl OutputFolder {
    /// The folder at this absolute path, links resolved as far as it exists.
    pub fn at(path: &Path) -> Self {
        Self {
            root: resolved(path),
        }
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where state and unfinished files live.
    pub fn state_dir(&self) -> PathBuf {
        self.root.join(STATE_DIR)
    }

    /// The unfinished files of one job.
    pub fn partials(&self, job: &JobId) -> Partials {
        Partials {
            dir: self.state_dir().join(job.as_str()),
        }
    }

    /// How the folder and an input overlap, as a verb; `None` where they don't.
    pub(super) fn relation_to(&self, input: &Path) -> Option<&'static str> {
        let input = resolved(input);
        if input == self.root {
            Some("is")
        } else if self.root.starts_with(&input) {
            Some("lies inside")
        } else if input.starts_with(&self.root) {
            Some("lies around")
        } else {
            None
        }
    }

    /// Refuses a folder that holds something and may not be overwritten, and
    /// one that cannot be written. Our own state does not count as something.
    ///
    /// # Errors
    /// Naming the first things that are in the way.
    pub fn check_usable(&self, overwrite: bool) -> Result<(), Problem> {
        self.check_free(overwrite)?;
        self.check_creatable()
    }

    /// Refuses a folder that holds something and may not be overwritten.
    /// Changes nothing. Our own state does not count as something.
    ///
    /// # Errors
    /// Naming the first things that are in the way.
    pub fn check_free(&self, overwrite: bool) -> Result<(), Problem> {
        let about = |message: String| Problem::new("output.url", message);
        let entries = match fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => {
                let message = format!("expected a folder at `{}`: {error}", self.root.display());
                return Err(about(message));
            }
        };
        let names: Vec<_> = entries
            .filter_map(Result::ok)
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .filter(|name| name != STATE_DIR)
            .collect();
        if names.is_empty() || overwrite {
            return Ok(());
        }
        Err(not_empty(self.root.display(), "folder", names))
    }

    fn check_creatable(&self) -> Result<(), Problem> {
        fs::create_dir_all(self.state_dir()).map_err(|error| {
            Problem::new(
                "output.url",
                format!("cannot write to `{}`: {error}", self.root.display()),
            )
            .with_hint("check the path and its permissions")
        })
    }

    /// Removes our state folder if nothing is left in it.
    pub fn forget_if_empty(&self) {
        // Not empty: another job, or this machine's own state, is there.
        let _in_use = fs::remove_dir(self.state_dir());
    }

    /// The manifest that stands in the folder, if one does.
    ///
    /// # Errors
    /// If it is there and cannot be read.
    pub fn manifest(&self) -> Result<Option<Vec<u8>>, LocalError> {
        self.read(MANIFEST_NAME)
    }

    /// A file of the folder, whole; `None` if it is not there.
    ///
    /// # Errors
    /// If it is there and cannot be read.
    pub fn read(&self, path: &str) -> Result<Option<Vec<u8>>, LocalError> {
        let path = self.root.join(path);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                Ok(None)
            }
            Err(error) => Err(LocalError::io("read", &path, error)),
        }
    }
}

/// The unfinished files of one job, under `OUT/.chatvec/JOB/`.
#[derive(Debug, Clone)]
pub struct Partials {
    dir: PathBuf,
}

impl Partials {
    /// Where the unfinished file of this name is.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Creates an unfinished weight file with all its space; a repeat keeps
    /// what was written.
    ///
    /// # Errors
    /// [`LocalError::Io`], with `StorageFull` where the disk has no room.
    pub fn create(&self, name: &str, size: u64) -> Result<PartialFile, LocalError> {
        fs::create_dir_all(&self.dir)
            .map_err(|error| LocalError::io("create", &self.dir, error))?;
        PartialFile::create(&self.path(name), size)
    }

    /// Removes everything that is unfinished.
    ///
    /// # Errors
    /// [`LocalError::Io`]; a folder that is gone already is no error.
    pub fn remove(&self) -> Result<(), LocalError> {
        match fs::remove_dir_all(&self.dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(LocalError::io("remove", &self.dir, error))
            }
            _ => Ok(()),
        }
    }
}

/// The path without symbolic links, as far as it exists.
fn resolved(path: &Path) -> PathBuf {
    for ancestor in path.ancestors() {
        if let Ok(real) = ancestor.canonicalize() {
            let rest = path
                .strip_prefix(ancestor)
                .expect("an ancestor is a prefix");
            // Joining nothing would add a slash to the end.
            return if rest.as_os_str().is_empty() {
                real
            } else {
                real.join(rest)
            };
        }
    }
    path.to_owned()
}
