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

use super::Location;
use super::local::{LocalError, PartialFile};

/// Where everything unfinished lives, inside the output folder.
pub const STATE_DIR: &str = ".chatvec";

/// An output folder, which may not exist yet.
#[derive(Debug, Clone)]
pub struct OutputFolder {
    root: PathBuf,
}

impl OutputFolder {
    /// The folder that a recipe's `output.url` names.
    ///
    /// # Errors
    /// If the location is of a kind that is not supported.
    pub fn at(url: &str) -> Result<Self, Problem> {
        let location = Location::parse(url, Path::new("/")).map_err(|error| {
            let mut problems = error.problems();
            let problem = problems.swap_remove(0);
            Problem {
                subject: "output.url".to_owned(),
                ..problem
            }
        })?;
        let Some(folder) = location.folder() else {
            let message = format!("expected a folder, found `{location}`");
            return Err(Problem::new("output.url", message));
        };
        Ok(Self {
            root: resolved(folder),
        })
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

    /// Refuses an output folder that is an input, lies in one, or holds one:
    /// publishing would overwrite or hide what is read.
    ///
    /// # Errors
    /// Naming the input.
    pub fn check_apart_from(&self, inputs: &[PathBuf]) -> Result<(), Problem> {
        for input in inputs {
            let input = resolved(input);
            let relation = if input == self.root {
                "is"
            } else if self.root.starts_with(&input) {
                "lies inside"
            } else if input.starts_with(&self.root) {
                "lies around"
            } else {
                continue;
            };
            let message = format!(
                "`{}` {relation} the input `{}`",
                self.root.display(),
                input.display()
            );
            return Err(Problem::new("output.url", message)
                .with_hint("give a folder apart from every input"));
        }
        Ok(())
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
        let mut names: Vec<_> = entries
            .filter_map(Result::ok)
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .filter(|name| name != STATE_DIR)
            .collect();
        names.sort();
        if names.is_empty() || overwrite {
            return Ok(());
        }
        let shown = names
            .iter()
            .take(3)
            .map(|name| format!("`{name}`"))
            .collect::<Vec<_>>()
            .join(", ");
        let more = if names.len() > 3 {
            format!(" and {} more", names.len() - 3)
        } else {
            String::new()
        };
        let message = format!(
            "expected an empty folder, `{}` holds {shown}{more}",
            self.root.display()
        );
        Err(about(message).with_hint(
            "choose another folder, or set `output.overwrite: true` to replace what is there",
        ))
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
        let path = self.root.join(MANIFEST_NAME);
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
