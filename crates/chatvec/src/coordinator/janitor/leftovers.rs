//! What jobs leave in storage: unfinished files, uploads that nobody completes,
//! and objects of a commit that failed. Only what is provably a job's own goes:
//! named by a row of the job store, and, where it is an object, bearing the
//! job's nonce. No prefix is ever swept.

use std::collections::BTreeMap;

use chatvec_core::ids::JobId;
use chatvec_core::manifest::{self, FILE_NAME as MANIFEST_NAME};

use crate::coordinator::Resources;
use crate::coordinator::store::{Store, StoreError, UploadRow, UploadState};
use crate::coordinator::weaknesses;
use crate::fault::{self, Failpoint};
use crate::storage::local::LocalError;
use crate::storage::object::{ObjectError, ObjectUrl};
use crate::storage::{ObjectStorage, Output, OutputPrefix};

/// Why leftovers are still there.
#[derive(Debug, thiserror::Error)]
pub enum LeftoverError {
    /// The job store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The filesystem refused.
    #[error(transparent)]
    Local(#[from] LocalError),
    /// The object store refused.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// The output is of a kind that this process cannot use.
    #[error("{0}")]
    Place(chatvec_core::problem::Problem),
}

/// Aborts uploads that were superseded, and cleans up after jobs that ended
/// without output. What cannot be removed now is tried again by a later round.
pub(super) async fn clean(resources: &Resources) -> Result<(), StoreError> {
    let Resources { store, storage, .. } = resources;
    for upload in store.uploads_to_abort().await? {
        match abort(store, storage, &upload).await {
            Ok(()) => {}
            Err(LeftoverError::Store(error)) => return Err(error),
            Err(error) => {
                tracing::warn!(job.id = %upload.key.job, upload.url = %upload.url, %error, "an upload could not be aborted");
            }
        }
    }
    for job in store.jobs_to_clean().await? {
        match discard(store, storage, &job).await {
            Ok(()) => {
                fault::hit(Failpoint::LeftoversRemoved, &job).await?;
                store.mark_cleaned(&job).await?;
            }
            Err(LeftoverError::Store(error)) => return Err(error),
            Err(error) => {
                tracing::warn!(job.id = %job, %error, "leftovers of a job could not be removed");
            }
        }
    }
    Ok(())
}

/// Removes everything that a job has in storage: nobody may work on it any more.
/// A repeat goes on where an earlier call stopped.
///
/// # Errors
/// What could not be removed is still there.
pub async fn discard(
    store: &Store,
    storage: &ObjectStorage,
    job: &JobId,
) -> Result<(), LeftoverError> {
    let Some(row) = store.job(job).await? else {
        return Ok(());
    };
    match Output::at(storage, &row.output_url).map_err(LeftoverError::Place)? {
        Output::Folder(folder) => {
            let job = job.clone();
            let removed = tokio::task::spawn_blocking(move || {
                let removed = folder.partials(&job).remove();
                folder.forget_if_empty();
                removed
            });
            Ok(removed
                .await
                .expect("the removal of a folder does not panic")?)
        }
        Output::Prefix(prefix) => {
            let uploads = store.uploads(job).await?;
            let unfinished = |upload: &&UploadRow| {
                matches!(upload.state, UploadState::Intent | UploadState::Open)
            };
            for upload in uploads.iter().filter(unfinished) {
                abort(store, storage, upload).await?;
            }
            weaknesses::forget(&prefix, job).await?;
            if row.committing_at_ms.is_some() {
                remove_objects(&prefix, job, &uploads).await?;
            }
            Ok(())
        }
    }
}

/// Aborts an upload. One whose id was never learnt is looked for by its key: the
/// output is this job's alone as long as its leftovers are there.
async fn abort(
    store: &Store,
    storage: &ObjectStorage,
    upload: &UploadRow,
) -> Result<(), LeftoverError> {
    let url = ObjectUrl::parse(&upload.url).map_err(ObjectError::from)?;
    let bucket = storage.bucket(&url)?;
    let ids = match &upload.upload_id {
        Some(id) => vec![id.clone()],
        None => {
            let listed = bucket.list_uploads(url.key()).await?.unwrap_or_default();
            match unknown(store, upload, listed).await? {
                Some(ids) => ids,
                // A later round tells them apart.
                None => return Ok(()),
            }
        }
    };
    for id in ids {
        bucket.abort_upload(url.key(), &id).await?;
        // A part that was on its way can outlive the first abort.
        bucket.abort_upload(url.key(), &id).await?;
    }
    Ok(store.upload_aborted(&upload.key).await?)
}

/// Those uploads of its key that no row names; `None` while one of them may be
/// the upload that a coordinator has just created for the same file: its id is
/// recorded in a moment, or its epoch is lost and another intent comes.
async fn unknown(
    store: &Store,
    upload: &UploadRow,
    listed: Vec<String>,
) -> Result<Option<Vec<String>>, StoreError> {
    // Read after the list: whatever is in that has an intent by now.
    let known = store.uploads(&upload.key.job).await?;
    let of_file = known.iter().filter(|row| row.key.file == upload.key.file);
    let latest = of_file.max_by_key(|row| row.key.epoch);
    let is_being_created = latest
        .is_some_and(|row| row.state == UploadState::Intent && row.key.epoch > upload.key.epoch);
    if is_being_created {
        let job = store.job(&upload.key.job).await?;
        if job.is_some_and(|job| !job.state.is_terminal()) {
            return Ok(None);
        }
    }
    let is_known = |id: &String| known.iter().any(|row| row.upload_id.as_ref() == Some(id));
    Ok(Some(
        listed.into_iter().filter(|id| !is_known(id)).collect(),
    ))
}

/// Removes the objects and the claim of a commit that did not come to its end.
/// An object whose completion was never recorded is known by its nonce as well.
async fn remove_objects(
    prefix: &OutputPrefix,
    job: &JobId,
    uploads: &[UploadRow],
) -> Result<(), ObjectError> {
    let bucket = prefix.bucket();
    let files: BTreeMap<&str, &str> = uploads
        .iter()
        .map(|upload| (upload.url.as_str(), upload.nonce.as_str()))
        .collect();
    for (url, nonce) in files {
        let url = ObjectUrl::parse(url)?;
        let head = bucket.head(url.key()).await?;
        if head.is_some_and(|head| head.nonce.as_deref() == Some(nonce)) {
            bucket.delete(url.key()).await?;
        }
    }
    if let Some((bytes, _)) = prefix.manifest().await?
        && manifest::parse(&bytes).is_ok_and(|claim| claim.job == *job)
    {
        bucket.delete(&prefix.key(MANIFEST_NAME)).await?;
    }
    Ok(())
}
