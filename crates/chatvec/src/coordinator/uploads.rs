//! Creating the uploads whose intents the job store has.

use chatvec_core::ids::JobId;
use tracing::Instrument as _;

use super::store::{Epoch, NewUpload, Store, StoreError, UploadKey};
use crate::fault::{self, Failpoint, Injected};
use crate::storage::object::{Bucket, ObjectError, ObjectUrl};

/// Why an upload was not opened.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    /// The job store cannot be used, or the job is another coordinator's.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The object store refused.
    #[error(transparent)]
    Object(#[from] ObjectError),
}

impl From<Injected> for OpenError {
    fn from(injected: Injected) -> Self {
        Self::Store(injected.into())
    }
}

/// Creates an upload and records its id; returns both. Dropping this on the way
/// stops nothing: an upload that is created is recorded or aborted, whatever
/// becomes of the coordinator's turn.
pub(super) async fn open(
    store: &Store,
    bucket: &Bucket,
    job: &JobId,
    epoch: Epoch,
    upload: &NewUpload,
) -> Result<(UploadKey, String), OpenError> {
    let (store, bucket) = (store.clone(), bucket.clone());
    let (job, upload) = (job.clone(), upload.clone());
    let opening = async move { create(&store, &bucket, &job, epoch, &upload).await };
    tokio::spawn(opening.in_current_span())
        .await
        .expect("it does not panic, and the runtime outlives it")
}

async fn create(
    store: &Store,
    bucket: &Bucket,
    job: &JobId,
    epoch: Epoch,
    upload: &NewUpload,
) -> Result<(UploadKey, String), OpenError> {
    let url = ObjectUrl::parse(&upload.url).map_err(ObjectError::from)?;
    let upload_id = bucket.create_upload(url.key(), &upload.nonce).await?;
    fault::hit(Failpoint::UploadCreated, &upload.url).await?;
    let key = UploadKey {
        job: job.clone(),
        file: upload.file,
        epoch,
    };
    if let Err(error) = store.open_upload(&key, &upload_id).await {
        // The job ended, or went to another coordinator, meanwhile: nobody else
        // knows of this upload. If this fails too, the intent still tells of it.
        let _unknown = bucket.abort_upload(url.key(), &upload_id).await;
        return Err(error.into());
    }
    fault::hit(Failpoint::UploadRecorded, &upload.url).await?;
    Ok((key, upload_id))
}
