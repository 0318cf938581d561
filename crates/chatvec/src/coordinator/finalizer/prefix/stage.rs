//! The half of publishing that may still fail: the small files are uploaded as
//! far as their last step.

use std::collections::BTreeSet;

use chatvec_core::ids::{JobId, PartOrdinal};
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use super::super::record::nonce;
use super::super::small::{self, SmallFile};
use super::super::{FinalizeError, Finished};
use super::small_files;
use crate::coordinator::Resources;
use crate::coordinator::store::{Epoch, JobError, NewUpload, SinglePart, UploadState};
use crate::coordinator::uploads;
use crate::fault::{self, Failpoint};
use crate::storage::OutputPrefix;
use crate::storage::object::PartBody;

/// Small files uploaded at once.
const FILES_AT_ONCE: usize = 16;

/// Uploads every small file that is not uploaded yet: what an earlier call or
/// coordinator has done stays, the bytes are the same.
///
/// The inner error ends the job: a source is not the one that was planned.
pub(in super::super) async fn stage(
    resources: &Resources,
    finished: &Finished,
    output: &OutputPrefix,
    epoch: Epoch,
) -> Result<Result<(), JobError>, FinalizeError> {
    let (store, job) = (&resources.store, &finished.row.job_id);
    let uploads = store.uploads(job).await?;
    let staged: BTreeSet<_> = uploads
        .into_iter()
        .filter(|upload| upload.state != UploadState::Aborted && upload.part.is_some())
        .map(|upload| upload.key.file)
        .collect();
    let (ordinals, paths): (Vec<_>, Vec<_>) = small_files(finished)
        .filter(|(ordinal, _)| !staged.contains(ordinal))
        .unzip();
    let small = match small::read_all(resources, finished, &paths).await? {
        Ok(small) => small,
        Err(changed) => return Ok(Err(changed)),
    };
    let intents: Vec<_> = ordinals
        .into_iter()
        .zip(&small)
        .map(|(ordinal, file)| NewUpload {
            file: ordinal,
            url: output.url().join(&file.path).to_string(),
            nonce: nonce(finished).to_owned(),
        })
        .collect();
    store.add_uploads(job, epoch, &intents).await?;
    let stagings: Vec<_> = intents
        .into_iter()
        .zip(small)
        .map(|(intent, file)| upload(resources, output, epoch, job, intent, file))
        .collect();
    stream::iter(stagings)
        .buffer_unordered(FILES_AT_ONCE)
        .try_collect::<()>()
        .await?;
    Ok(Ok(()))
}

async fn upload(
    resources: &Resources,
    output: &OutputPrefix,
    epoch: Epoch,
    job: &JobId,
    intent: NewUpload,
    file: SmallFile,
) -> Result<(), FinalizeError> {
    let (store, bucket) = (&resources.store, output.bucket());
    let (key, upload_id) = uploads::open(store, bucket, job, epoch, &intent).await?;
    let (crc64, bytes) = (file.crc64(), file.bytes.len() as u64);
    let body = PartBody {
        chunks: vec![file.bytes],
        len: bytes,
        crc64,
    };
    // The epoch guards the record of the part; the part itself is harmless.
    let part_id = bucket
        .put_part(
            &output.key(&file.path),
            &upload_id,
            PartOrdinal(0),
            body,
            || true,
        )
        .await?
        .expect("only a refusal to start has no part");
    let part = SinglePart {
        part_id,
        crc64,
        bytes,
    };
    store.record_single_part(&key, &part).await?;
    Ok(fault::hit(Failpoint::SmallFileStaged, &intent.url).await?)
}
