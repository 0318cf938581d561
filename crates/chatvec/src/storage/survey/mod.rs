//! Surveying a checkpoint: everything about it but its weights.
//!
//! Reads the listing, the index, `config.json` and of each weight file its
//! header, by range. A checkpoint of hundreds of files takes well under a
//! second on a disk, and a few seconds in object storage.

mod error;
mod folder;
mod objects;

pub use error::SurveyError;

use std::path::{Path, PathBuf};

use chatvec_core::checkpoint::{
    CONFIG_FILE, Checkpoint, INDEX_FILE, ListedFile, Selection, WeightFile, assemble, select,
};
use chatvec_core::header::HeaderError;
use chatvec_core::problem::Problem;
use chatvec_core::task::{FailureKind, SourceFile, TaskFailure};
use futures_util::future::join_all;

use self::objects::Objects;
use super::Location;
use super::file::{self, read_pinned};
use super::object::{ObjectStorage, ObjectUrl};

/// A checkpoint that has been read as far as its headers.
#[derive(Debug, Clone)]
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
    files: Files,
}

/// How the files of the listing are reached.
#[derive(Debug, Clone)]
enum Files {
    In(PathBuf),
    Objects(Objects),
}

/// Reads everything about a checkpoint but its weights. Waits for object
/// storage on this thread, which must not be one of a runtime.
///
/// # Errors
/// The folder or a file cannot be read, or they are no whole checkpoint. Of
/// broken files all are told at once.
pub fn survey(storage: &ObjectStorage, location: &Location) -> Result<Surveyed, SurveyError> {
    match location {
        Location::Folder { path, .. } => survey_folder(location, path),
        Location::Objects(url) => storage.block_on(survey_objects(storage, location, url)),
    }
}

/// Surveys several checkpoints side by side, each as [`survey`] does, and gives
/// them in their order.
///
/// Those in object storage share this thread: what a thread has freed, the
/// allocator keeps for that thread, and headers of a hundred thousand tensors
/// are to make room for the plan that the caller makes of them.
///
/// # Panics
/// If one of them does.
pub fn survey_all(
    storage: &ObjectStorage,
    locations: &[Location],
) -> Vec<Result<Surveyed, SurveyError>> {
    std::thread::scope(|scope| {
        let (mut begun, mut remote) = (Vec::new(), Vec::new());
        for location in locations {
            begun.push(match location {
                Location::Folder { path, .. } => {
                    Some(scope.spawn(move || survey_folder(location, path)))
                }
                Location::Objects(url) => {
                    remote.push(survey_objects(storage, location, url));
                    None
                }
            });
        }
        let remote = match remote.is_empty() {
            true => Vec::new(),
            false => storage.block_on(join_all(remote)),
        };
        let mut remote = remote.into_iter();
        let surveyed = begun.into_iter().map(|folder| match folder {
            Some(survey) => survey.join().expect("a survey does not panic"),
            None => remote.next().expect("there is one for each"),
        });
        surveyed.collect()
    })
}

fn survey_folder(location: &Location, folder: &Path) -> Result<Surveyed, SurveyError> {
    let listing = folder::list_folder(location, folder)?;
    let read = |name: &str| {
        let listed = listing.iter().any(|file| file.name == name);
        listed
            .then(|| read_pinned(&folder.join(name)).map_err(SurveyError::File))
            .transpose()
    };
    let selection = {
        // It has as many lines as there are tensors, and is not kept.
        let index = read(INDEX_FILE)?;
        let index = index.as_ref().map(|(json, _)| &json[..]);
        selected(location, &listing, index)?
    };
    let headers = folder::read_headers(folder, &selection.weight_files)?;
    let config = read(CONFIG_FILE)?;
    let config = config.as_ref().map(|(json, _)| &json[..]);
    let files = Files::In(folder.to_owned());
    assembled(location, listing, selection, headers, config, files)
}

async fn survey_objects(
    storage: &ObjectStorage,
    location: &Location,
    url: &ObjectUrl,
) -> Result<Surveyed, SurveyError> {
    let (listing, objects) = objects::list(storage, location, url).await?;
    let selection = {
        // It has as many lines as there are tensors, and is not kept.
        let index = objects.read(INDEX_FILE).await?;
        selected(location, &listing, index.as_deref())?
    };
    let headers = objects.read_headers(&selection.weight_files).await?;
    let config = objects.read(CONFIG_FILE).await?;
    let config = config.as_deref();
    let files = Files::Objects(objects);
    assembled(location, listing, selection, headers, config, files)
}

fn selected(
    location: &Location,
    listing: &[ListedFile],
    index: Option<&[u8]>,
) -> Result<Selection, SurveyError> {
    select(listing, index).map_err(|error| SurveyError::Checkpoint {
        location: location.clone(),
        error,
    })
}

fn assembled(
    location: &Location,
    mut listing: Vec<ListedFile>,
    selection: Selection,
    headers: Vec<(SourceFile, WeightFile)>,
    config: Option<&[u8]>,
    files: Files,
) -> Result<Surveyed, SurveyError> {
    let (weight_files, parsed) = headers.into_iter().unzip();
    let checkpoint = assemble(selection, parsed, config).map_err(|problems| {
        let located = |problem: Problem| Problem {
            subject: format!("{location}: {}", problem.subject),
            ..problem
        };
        SurveyError::of_files(problems.into_iter().map(located).map(bad_input).collect())
    })?;
    listing.retain(|file| !file.name.ends_with('/') && !file.name.starts_with(SNAPSHOTS));
    Ok(Surveyed {
        location: location.clone(),
        checkpoint,
        listing,
        weight_files,
        files,
    })
}

impl Surveyed {
    /// Reads a file of the listing whole, with the pin of the state that was
    /// read. Waits for object storage on this thread, as [`survey`] does.
    ///
    /// # Errors
    /// It cannot be read, is over 256 MiB, or is being written.
    pub fn read_small(&self, name: &str) -> Result<(Vec<u8>, SourceFile), SurveyError> {
        match &self.files {
            Files::In(folder) => read_pinned(&folder.join(name)).map_err(SurveyError::File),
            Files::Objects(objects) => Ok(objects.read_small(name)?),
        }
    }

    /// Pins a file of the listing without reading it.
    ///
    /// # Errors
    /// It is no longer there, or its path is not UTF-8.
    pub fn pin(&self, name: &str) -> Result<SourceFile, SurveyError> {
        match &self.files {
            Files::In(folder) => file::pin(&folder.join(name)).map_err(SurveyError::File),
            Files::Objects(objects) => Ok(objects.pin(name)?),
        }
    }
}

/// The folder of a Hub cache by which it is recognised.
const SNAPSHOTS: &str = "snapshots/";

/// The headers, or everything that is wrong with any of them.
fn all_or_problems<T>(
    results: impl IntoIterator<Item = Result<T, TaskFailure>>,
) -> Result<Vec<T>, SurveyError> {
    let mut headers = Vec::new();
    let mut failures = Vec::new();
    for result in results {
        match result {
            Ok(header) => headers.push(header),
            Err(failure) => failures.push(failure),
        }
    }
    if failures.is_empty() {
        Ok(headers)
    } else {
        Err(SurveyError::of_files(failures))
    }
}

fn broken_header(subject: String, error: &HeaderError) -> TaskFailure {
    let problem = Problem::new(subject, error.to_string());
    bad_input(match error.hint() {
        Some(hint) => problem.with_hint(hint),
        None => problem,
    })
}

/// A file that is not what it should be.
fn bad_input(problem: Problem) -> TaskFailure {
    TaskFailure {
        kind: FailureKind::BadInput,
        problem,
    }
}

#[cfg(test)]
mod tests;
