//! The half of publishing that may still fail: everything is made durable
//! under `OUT/.chatvec/`.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

use chatvec_core::ids::{Crc64, FileOrdinal};
use chatvec_core::problem::Problem;
use chatvec_core::stats::report::FILE_NAME as REPORT_NAME;
use chatvec_core::task::FailureKind;
use crc_fast::CrcAlgorithm;

use super::{Finished, failure, report};
use crate::coordinator::planner::{PlannedSide, SideContent};
use crate::coordinator::store::JobError;
use crate::storage::local::{LocalError, SourceReader, sync_dir};

/// Writes the side files and the statistics next to the weights, and syncs
/// everything. A repeat does the same again.
///
/// The inner error ends the job; the outer one is worth another try.
pub(super) fn stage(finished: &Finished) -> Result<Result<(), JobError>, LocalError> {
    for side in sides(finished) {
        let bytes = match contents(side)? {
            Ok(bytes) => bytes,
            Err(changed) => return Ok(Err(failure(FailureKind::SourceChanged, changed))),
        };
        write(&finished.partials.path(&side.path), &bytes)?;
    }
    let report = report::report(finished);
    write(&finished.partials.path(REPORT_NAME), &report)?;
    sync_all(finished)?;
    Ok(Ok(()))
}

/// Every side file of the job, the index included.
pub(super) fn sides(finished: &Finished) -> impl Iterator<Item = &PlannedSide> {
    finished
        .blueprint
        .sides
        .iter()
        .chain(&finished.blueprint.index)
}

fn contents(side: &PlannedSide) -> Result<Result<Vec<u8>, Problem>, LocalError> {
    let source = match &side.content {
        SideContent::Text(text) => return Ok(Ok(text.clone().into_bytes())),
        SideContent::Copy(source) => source,
    };
    let size = usize::try_from(source.size).expect("a side file fits in memory");
    let mut bytes = vec![0; size];
    let read = SourceReader::open(source).and_then(|reader| {
        reader
            .read_exact_at(&mut bytes, 0)
            .and_then(|()| reader.verify())
    });
    match read {
        Ok(()) => Ok(Ok(bytes)),
        Err(error @ LocalError::Io { .. }) => Err(error),
        Err(error) => {
            let hint = "leave the inputs alone while a job runs, and submit it again";
            Ok(Err(error.failure().problem.with_hint(hint)))
        }
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), LocalError> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(|error| LocalError::io("create", folder, error))?;
    }
    let written = File::create(path).and_then(|mut file| file.write_all(bytes));
    written.map_err(|error| LocalError::io("write", path, error))
}

/// Syncs every staged file, a few at a time: a disk's journal takes many
/// syncs for the price of one.
fn sync_all(finished: &Finished) -> Result<(), LocalError> {
    let weights = finished
        .blueprint
        .files
        .iter()
        .map(|file| file.name.as_str());
    let small = sides(finished)
        .map(|side| side.path.as_str())
        .chain([REPORT_NAME]);
    let names: Vec<_> = weights.chain(small).collect();
    let share = names.len().div_ceil(SYNC_THREADS);
    std::thread::scope(|scope| {
        let syncs: Vec<_> = names
            .chunks(share)
            .map(|names| {
                scope.spawn(move || {
                    names
                        .iter()
                        .try_for_each(|name| sync(&finished.partials.path(name)))
                })
            })
            .collect();
        syncs
            .into_iter()
            .try_for_each(|sync| sync.join().expect("a sync does not panic"))
    })?;
    sync_dir(&finished.partials.path(""))
}

/// Files synced at once.
const SYNC_THREADS: usize = 8;

fn sync(path: &Path) -> Result<(), LocalError> {
    let synced = File::open(path).and_then(|file| file.sync_all());
    synced.map_err(|error| LocalError::io("sync", path, error))
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
