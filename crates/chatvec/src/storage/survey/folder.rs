//! Reading a checkpoint in a folder of the local filesystem.

use std::fs;
use std::num::NonZero;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use chatvec_core::checkpoint::{ListedFile, WeightFile};
use chatvec_core::header;
use chatvec_core::sidefile::is_read_folder;
use chatvec_core::task::{SourceFile, TaskFailure};

use super::{SNAPSHOTS, SurveyError, all_or_problems, bad_input, broken_header};
use crate::storage::Location;
use crate::storage::file::{FileError, open_pinned};

/// What the folder holds, by name.
pub(super) fn list_folder(
    location: &Location,
    folder: &Path,
) -> Result<Vec<ListedFile>, SurveyError> {
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
pub(super) fn read_headers(
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
    all_or_problems(done.into_iter().map(|(_, result)| result))
}

/// Reads 8 bytes and the JSON that they announce. The pin is older than what
/// is read, so whatever changes the file during or after it is noticed later.
fn read_header(folder: &Path, name: &str) -> Result<(SourceFile, WeightFile), TaskFailure> {
    let path = folder.join(name);
    let broken = |error| broken_header(path.display().to_string(), &error);
    let (file, source) = open_pinned(&path).map_err(|error| bad_input(error.problem()))?;
    let read = |offset, length: u64| {
        let mut bytes = vec![0; usize::try_from(length).expect("headers are below 100 MB")];
        match file.read_exact_at(&mut bytes, offset) {
            Ok(()) => Ok(bytes),
            Err(error) => Err(bad_input(FileError::of(&path, error).problem())),
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
