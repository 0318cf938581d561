//! Surveying a checkpoint: everything about it but its weights.
//!
//! Reads the folder's listing, the index, `config.json` and of each weight
//! file its header, by range. A checkpoint of hundreds of files takes well
//! under a second.

mod error;

pub use error::SurveyError;

use std::fs;
use std::num::NonZero;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use chatvec_core::checkpoint::{
    CONFIG_FILE, Checkpoint, INDEX_FILE, ListedFile, WeightFile, assemble, select,
};
use chatvec_core::header::{self, HeaderError};
use chatvec_core::problem::Problem;
use chatvec_core::sidefile::is_read_folder;
use chatvec_core::task::SourceFile;

use super::Location;
use super::file::{self, FileError, open_pinned, read_pinned};

/// A checkpoint that has been read as far as its headers.
#[derive(Debug, Clone, PartialEq)]
pub struct Surveyed {
    /// Where it is.
    pub location: Location,
    /// What it holds.
    pub checkpoint: Checkpoint,
    /// The files of its folder, by name, with those of
    /// `additional_chat_templates/` and of no other folder in it.
    pub listing: Vec<ListedFile>,
    /// Its weight files, pinned as their headers were read, in the order of
    /// [`Checkpoint::files`].
    pub weight_files: Vec<SourceFile>,
}

/// Reads everything about a checkpoint but its weights.
///
/// # Errors
/// The folder or a file cannot be read, or they are no whole checkpoint. Of
/// broken files all are told at once.
pub fn survey(location: &Location) -> Result<Surveyed, SurveyError> {
    let folder = location.path();
    let mut listing = list_location(location)?;
    let read = |name: &str| {
        let listed = listing.iter().any(|file| file.name == name);
        listed
            .then(|| read_pinned(&folder.join(name)).map_err(SurveyError::File))
            .transpose()
    };
    let index = read(INDEX_FILE)?;
    let index_json = index.as_ref().map(|(json, _)| &json[..]);
    let selection = select(&listing, index_json).map_err(|error| SurveyError::Checkpoint {
        location: location.clone(),
        error,
    })?;
    let headers = read_headers(folder, &selection.weight_files)?;
    let (weight_files, files) = headers.into_iter().unzip();
    let config = read(CONFIG_FILE)?;
    let config_json = config.as_ref().map(|(json, _)| &json[..]);
    let checkpoint = assemble(selection, files, config_json).map_err(|problems| {
        let located = |problem: Problem| Problem {
            subject: format!("{location}: {}", problem.subject),
            ..problem
        };
        SurveyError::Broken {
            problems: problems.into_iter().map(located).collect(),
        }
    })?;
    listing.retain(|file| !file.name.ends_with('/') && !file.name.starts_with(SNAPSHOTS));
    Ok(Surveyed {
        location: location.clone(),
        checkpoint,
        listing,
        weight_files,
    })
}

impl Surveyed {
    /// Reads a file of the listing whole, with the pin of the state that was read.
    ///
    /// # Errors
    /// It cannot be read, is over 256 MiB, or is being written.
    pub fn read_small(&self, name: &str) -> Result<(Vec<u8>, SourceFile), Problem> {
        read_pinned(&self.location.path().join(name)).map_err(|error| error.problem())
    }

    /// Pins a file of the listing without reading it.
    ///
    /// # Errors
    /// It is no longer there, or its path is not UTF-8.
    pub fn pin(&self, name: &str) -> Result<SourceFile, Problem> {
        file::pin(&self.location.path().join(name)).map_err(|error| error.problem())
    }
}

fn list_location(location: &Location) -> Result<Vec<ListedFile>, SurveyError> {
    let folder = location.path();
    match fs::metadata(folder) {
        Ok(metadata) if metadata.is_dir() => {}
        Ok(_) => {
            return Err(SurveyError::NotAFolder {
                location: location.clone(),
            });
        }
        Err(error) => {
            return Err(match FileError::of(folder, error) {
                FileError::NotFound { .. } => SurveyError::NotFound {
                    location: location.clone(),
                },
                error => SurveyError::File(error),
            });
        }
    }
    let mut listing = Vec::new();
    list(folder, "", &mut listing).map_err(SurveyError::File)?;
    listing.sort();
    Ok(listing)
}

/// The folder of a Hub cache by which it is recognised.
const SNAPSHOTS: &str = "snapshots/";

/// Lists files and folders, through links. Pipes, sockets and devices are no
/// files of a checkpoint.
fn list(folder: &Path, prefix: &str, listing: &mut Vec<ListedFile>) -> Result<(), FileError> {
    let failed = |error| FileError::of(folder, error);
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let path = entry.path();
        let Ok(name) = entry.file_name().into_string() else {
            return Err(FileError::NotUtf8 { path });
        };
        let metadata = fs::metadata(&path).map_err(|error| FileError::of(&path, error))?;
        let mut name = format!("{prefix}{name}");
        if metadata.is_dir() {
            let is_listed = prefix.is_empty() && is_read_folder(&name);
            name.push('/');
            if is_listed || name == SNAPSHOTS {
                list(&path, &name, listing)?;
            }
            listing.push(ListedFile { name, size: 0 });
        } else if metadata.is_file() {
            let size = metadata.len();
            listing.push(ListedFile { name, size });
        }
    }
    Ok(())
}

/// Header reads wait for the disk or the network, not for the processor.
const READERS_MAX: NonZero<usize> = NonZero::new(8).expect("eight is not zero");

/// Reads the headers of all files, several at once, in their order.
fn read_headers(
    folder: &Path,
    names: &[String],
) -> Result<Vec<(SourceFile, WeightFile)>, SurveyError> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(names.len()));
    let read_until_none_is_left = || {
        while let ordinal = next.fetch_add(1, Ordering::Relaxed)
            && let Some(name) = names.get(ordinal)
        {
            let result = read_header(folder, name);
            let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
            done.push((ordinal, result));
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..READERS_MAX.get().min(names.len()) {
            scope.spawn(read_until_none_is_left);
        }
        read_until_none_is_left();
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(ordinal, _)| *ordinal);
    let mut headers = Vec::with_capacity(done.len());
    let mut problems = Vec::new();
    for (_, result) in done {
        match result {
            Ok(header) => headers.push(header),
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() {
        Ok(headers)
    } else {
        Err(SurveyError::Broken { problems })
    }
}

/// Reads 8 bytes and the JSON that they announce. The pin is older than what
/// is read, so whatever changes the file during or after it is noticed later.
fn read_header(folder: &Path, name: &str) -> Result<(SourceFile, WeightFile), Problem> {
    let path = folder.join(name);
    let broken = |error: HeaderError| {
        let problem = Problem::new(path.display().to_string(), error.to_string());
        match error.hint() {
            Some(hint) => problem.with_hint(hint),
            None => problem,
        }
    };
    let (file, source) = open_pinned(&path).map_err(|error| error.problem())?;
    let read = |offset, length: u64| {
        let mut bytes = vec![0; usize::try_from(length).expect("headers are below 100 MB")];
        match file.read_exact_at(&mut bytes, offset) {
            Ok(()) => Ok(bytes),
            Err(error) => Err(FileError::of(&path, error).problem()),
        }
    };
    let first8 = read(0, source.size.min(8))?;
    let length = header::parse_length(&first8, source.size).map_err(broken)?;
    let header = header::parse(&read(8, length)?, source.size).map_err(broken)?;
    let weight_file = WeightFile {
        name: name.to_owned(),
        size: source.size,
        header,
    };
    Ok((source, weight_file))
}

#[cfg(test)]
mod tests;
