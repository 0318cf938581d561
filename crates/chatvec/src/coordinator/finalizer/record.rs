//! What the manifest says of a job, and which files of an earlier checkpoint
//! must go: the same for folders and prefixes.

use chatvec_core::ids::{Crc64, FileOrdinal};
use chatvec_core::manifest::{Output, Record};
use chatvec_core::sidefile::travels;
use crc_fast::CrcAlgorithm;

use super::{Finished, small};

/// What the manifest says of the job: a pure function of the blueprint and the
/// stored time of COMMITTING.
pub(super) fn record(finished: &Finished, committing_at_ms: i64) -> Record {
    let row = &finished.row;
    Record {
        chatvec_version: env!("CARGO_PKG_VERSION").to_owned(),
        job: row.job_id.clone(),
        nonce: nonce(finished).to_owned(),
        recipe: serde_json::from_str(&row.recipe_json)
            .expect("the store was asked for a valid recipe"),
        recipe_digest: row.recipe_digest.clone(),
        key: row.input_key.clone().expect("a planned job has its key"),
        committing_at_ms: u64::try_from(committing_at_ms).expect("the clock is past 1970"),
        inputs: finished.blueprint.inputs.clone(),
    }
}

/// By which the job knows its own files again: its id is drawn once and never
/// again.
pub(super) fn nonce(finished: &Finished) -> &str {
    finished.row.job_id.as_str()
}

/// The weight files as the manifest lists them: a pure function of the frozen
/// parts.
pub(super) fn weights(finished: &Finished) -> Vec<Output> {
    (0u32..)
        .zip(&finished.blueprint.files)
        .map(|(ordinal, file)| {
            Output::new(
                &file.name,
                file.size,
                crc_of_file(finished, FileOrdinal(ordinal)),
            )
        })
        .collect()
}

/// The CRC-64/NVME of a whole weight file, from those of its parts.
pub(super) fn crc_of_file(finished: &Finished, file: FileOrdinal) -> Crc64 {
    let parts = finished.parts.iter().filter(|row| row.part.file == file);
    let joined = parts.fold(0, |crc, row| {
        crc_fast::checksum_combine(
            CrcAlgorithm::Crc64Nvme,
            crc,
            row.part.crc64.0,
            row.part.bytes,
        )
    });
    Crc64(joined)
}

/// Whether a file of this name, directly in the output, is what an earlier
/// checkpoint leaves that a loader would prefer to the new one, or take for a
/// part of it: weights, indexes, adapters, and side files that the new one does
/// not have.
pub(super) fn is_leftover(finished: &Finished, name: &str) -> bool {
    const LOADED: [&str; 6] = [
        ".safetensors",
        ".bin",
        ".pt",
        ".pth",
        ".gguf",
        ".index.json",
    ];
    let blueprint = &finished.blueprint;
    let is_new = blueprint.files.iter().any(|file| file.name == name)
        || small::paths(blueprint).contains(&name);
    let is_loaded = LOADED.iter().any(|suffix| name.ends_with(suffix))
        || name.starts_with("adapter_")
        || travels(name);
    is_loaded && !is_new
}
