//! The half of publishing that only rolls forward: claim, renames, manifest.
//!
//! The manifest comes first as a claim, so that no other job can publish into
//! the same folder, and last as the proof that the checkpoint is complete.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

use chatvec_core::ids::{Crc64, FileOrdinal};
use chatvec_core::manifest::{self, FILE_NAME as MANIFEST_NAME, Output, PublishState, Record};
use chatvec_core::problem::Problem;
use chatvec_core::sidefile::travels;
use chatvec_core::stats::report::FILE_NAME as REPORT_NAME;
use chatvec_core::task::FailureKind;
use crc_fast::{CrcAlgorithm, checksum};

use super::stage::{crc_of_file, sides};
use super::{Finished, failure};
use crate::coordinator::store::JobError;
use crate::storage::local::{LocalError, rename, rename_noreplace, sync_dir};

/// A checkpoint that is complete.
#[derive(Debug)]
pub(super) struct Published {
    /// Files in it, but for the manifest.
    pub(super) files: usize,
}

/// Makes the checkpoint visible. A repeat goes on where an earlier call
/// stopped, and gives the same manifest.
///
/// The inner error ends the job; the outer one is worth another try.
pub(super) fn publish(
    finished: &Finished,
    committing_at_ms: i64,
) -> Result<Result<Published, JobError>, LocalError> {
    let root = finished.output.root();
    let record = record(finished, committing_at_ms);
    if let Err(taken) = claim(finished, &record)? {
        return Ok(Err(taken));
    }
    sync_dir(root)?;
    let outputs = outputs(finished)?;
    let weights = finished
        .blueprint
        .files
        .iter()
        .map(|file| file.name.as_str());
    for name in weights.chain([REPORT_NAME]) {
        move_into_place(finished, name)?;
    }
    for side in &finished.blueprint.sides {
        move_into_place(finished, &side.path)?;
    }
    if finished.overwrite {
        remove_leftovers(finished)?;
    }
    // The folders that something was moved into, the output folder among them.
    let moved = sides(finished).map(|side| root.join(&side.path));
    let folders: BTreeSet<_> = moved
        .filter_map(|path| path.parent().map(Path::to_owned))
        .collect();
    for folder in &folders {
        sync_dir(folder)?;
    }
    if let Some(index) = &finished.blueprint.index {
        move_into_place(finished, &index.path)?;
    }
    write_manifest(finished, &manifest::complete(&record, &outputs), rename)?;
    sync_dir(root)?;
    Ok(Ok(Published {
        files: outputs.len(),
    }))
}

/// What the manifest says of the job: a pure function of the blueprint and the
/// stored time of COMMITTING.
fn record(finished: &Finished, committing_at_ms: i64) -> Record {
    let row = &finished.row;
    Record {
        chatvec_version: env!("CARGO_PKG_VERSION").to_owned(),
        job: row.job_id.clone(),
        // The id is drawn once for the job and never again.
        nonce: row.job_id.0.clone(),
        recipe: serde_json::from_str(&row.recipe_json)
            .expect("the store was asked for a valid recipe"),
        recipe_digest: row.recipe_digest.clone(),
        key: row.input_key.clone().expect("a planned job has its key"),
        committing_at_ms: u64::try_from(committing_at_ms).expect("the clock is past 1970"),
        inputs: finished.blueprint.inputs.clone(),
    }
}

/// Every file of the output with its checksum: a pure function of the frozen
/// parts and the staged files.
fn outputs(finished: &Finished) -> Result<Vec<Output>, LocalError> {
    let mut outputs = Vec::new();
    for (ordinal, file) in (0u32..).zip(&finished.blueprint.files) {
        outputs.push(Output::new(
            &file.name,
            file.size,
            crc_of_file(finished, FileOrdinal(ordinal)),
        ));
    }
    let small = [REPORT_NAME]
        .into_iter()
        .chain(sides(finished).map(|side| side.path.as_str()));
    for name in small {
        let bytes = read_staged(finished, name)?;
        let crc = Crc64(checksum(CrcAlgorithm::Crc64Nvme, &bytes));
        outputs.push(Output::new(name, bytes.len() as u64, crc));
    }
    Ok(outputs)
}

/// A small file that is staged, or moved into place by an earlier call.
fn read_staged(finished: &Finished, name: &str) -> Result<Vec<u8>, LocalError> {
    let staged = finished.partials.path(name);
    match fs::read(&staged) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let placed = finished.output.root().join(name);
            fs::read(&placed).map_err(|error| LocalError::io("read", &placed, error))
        }
        outcome => outcome.map_err(|error| LocalError::io("read", &staged, error)),
    }
}

/// Puts the manifest into the folder as a claim, unless it is there already.
fn claim(finished: &Finished, record: &Record) -> Result<Result<(), JobError>, LocalError> {
    let standing = finished
        .output
        .manifest()?
        .map(|bytes| manifest::parse(&bytes));
    if let Some(Ok(standing)) = &standing
        && standing.job == finished.row.job_id
    {
        return Ok(Ok(()));
    }
    let claim = manifest::claim(record);
    // A complete checkpoint may be overwritten; one that is being published may not.
    let is_claimed =
        matches!(&standing, Some(Ok(standing)) if standing.state == PublishState::Publishing);
    let placed = match finished.overwrite && !is_claimed {
        true => write_manifest(finished, &claim, rename),
        false => write_manifest(finished, &claim, rename_noreplace),
    };
    match placed {
        Err(error) if error.io_kind() == Some(io::ErrorKind::AlreadyExists) => {
            let path = finished.output.root().join(MANIFEST_NAME);
            let message = "another job has published, or is publishing, into this folder";
            let problem = Problem::new(path.display().to_string(), message)
                .with_hint("submit the job with another output; if the other job is dead, remove this file first");
            Ok(Err(failure(FailureKind::BadInput, problem)))
        }
        outcome => outcome.map(Ok),
    }
}

fn write_manifest(
    finished: &Finished,
    manifest: &[u8],
    place: fn(&Path, &Path) -> Result<(), LocalError>,
) -> Result<(), LocalError> {
    let staged = finished.partials.path(MANIFEST_NAME);
    let written = File::create(&staged).and_then(|mut file| {
        file.write_all(manifest)?;
        file.sync_all()
    });
    written.map_err(|error| LocalError::io("write", &staged, error))?;
    place(&staged, &finished.output.root().join(MANIFEST_NAME))
}

/// Renames a staged file into the output folder; one that an earlier call has
/// moved stays.
fn move_into_place(finished: &Finished, name: &str) -> Result<(), LocalError> {
    let from = finished.partials.path(name);
    let to = finished.output.root().join(name);
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).map_err(|error| LocalError::io("create", folder, error))?;
    }
    match rename(&from, &to) {
        Err(LocalError::Absent { .. }) if to.exists() => Ok(()),
        outcome => outcome,
    }
}

/// Removes what an earlier checkpoint leaves that a loader would prefer to the
/// new one, or take for a part of it: weights, indexes, adapters, and side
/// files that the new one does not have.
fn remove_leftovers(finished: &Finished) -> Result<(), LocalError> {
    let root = finished.output.root();
    let entries = fs::read_dir(root).map_err(|error| LocalError::io("list", root, error))?;
    for entry in entries {
        let path = entry
            .map_err(|error| LocalError::io("list", root, error))?
            .path();
        if is_leftover(finished, &path) {
            fs::remove_file(&path).map_err(|error| LocalError::io("remove", &path, error))?;
        }
    }
    Ok(())
}

fn is_leftover(finished: &Finished, path: &Path) -> bool {
    const LOADED: [&str; 6] = [
        ".safetensors",
        ".bin",
        ".pt",
        ".pth",
        ".gguf",
        ".index.json",
    ];
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
        return false;
    };
    let is_new = finished
        .blueprint
        .files
        .iter()
        .any(|file| file.name == name)
        || sides(finished).any(|side| side.path == name);
    let is_loaded = LOADED.iter().any(|suffix| name.ends_with(suffix))
        || name.starts_with("adapter_")
        || travels(name);
    path.is_file() && is_loaded && !is_new
}
