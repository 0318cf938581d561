//! The small files of a checkpoint: statistics, side files and index, whole in
//! memory between their sources and their place.

use bytes::Bytes;
use chatvec_core::ids::Crc64;
use chatvec_core::problem::Problem;
use chatvec_core::stats::report::FILE_NAME as REPORT_NAME;
use chatvec_core::task::{FailureKind, SourceFile};
use crc_fast::{CrcAlgorithm, checksum};

use super::{FinalizeError, Finished, failure, report};
use crate::coordinator::Resources;
use crate::coordinator::planner::{Blueprint, SideContent};
use crate::coordinator::store::JobError;
use crate::storage::{ReadError, read_source};

/// A small file and its bytes.
#[derive(Debug, Clone)]
pub(super) struct SmallFile {
    /// Its path in the output.
    pub(super) path: String,
    pub(super) bytes: Bytes,
}

impl SmallFile {
    pub(super) fn crc64(&self) -> Crc64 {
        Crc64(checksum(CrcAlgorithm::Crc64Nvme, &self.bytes))
    }
}

/// The paths of the small files in the order of publishing: `config.json` and,
/// where there is one, the index come last. Also the order of their uploads'
/// ordinals, after those of the weight files.
pub(super) fn paths(blueprint: &Blueprint) -> Vec<&str> {
    let sides = blueprint.sides.iter().chain(&blueprint.index);
    std::iter::once(REPORT_NAME)
        .chain(sides.map(|side| side.path.as_str()))
        .collect()
}

/// Reads or makes the small files of these paths, in their order.
///
/// The inner error ends the job: a source is not the one that was planned.
pub(super) async fn read_all(
    resources: &Resources,
    finished: &Finished,
    paths: &[&str],
) -> Result<Result<Vec<SmallFile>, JobError>, FinalizeError> {
    let blueprint = &finished.blueprint;
    let mut files = Vec::with_capacity(paths.len());
    for path in paths {
        let mut sides = blueprint.sides.iter().chain(&blueprint.index);
        let bytes = match sides
            .find(|side| side.path == *path)
            .map(|side| &side.content)
        {
            None => Bytes::from(report::report(finished)),
            Some(SideContent::Text(text)) => Bytes::from(text.clone()),
            Some(SideContent::Index) => Bytes::from(blueprint.index_text()),
            Some(SideContent::Copy(source)) => match read(resources, source).await? {
                Ok(bytes) => bytes,
                Err(changed) => return Ok(Err(failure(FailureKind::SourceChanged, changed))),
            },
        };
        files.push(SmallFile {
            path: (*path).to_owned(),
            bytes,
        });
    }
    Ok(Ok(files))
}

async fn read(
    resources: &Resources,
    source: &SourceFile,
) -> Result<Result<Bytes, Problem>, FinalizeError> {
    match read_source(&resources.storage, source).await {
        Ok(bytes) => Ok(Ok(bytes)),
        Err(error) if error.is_changed() => {
            let hint = "leave the inputs alone while a job runs, and submit it again";
            Ok(Err(error.failure().problem.with_hint(hint)))
        }
        Err(ReadError::Local(error)) => Err(error.into()),
        Err(ReadError::Object(error)) => Err(error.into()),
    }
}
