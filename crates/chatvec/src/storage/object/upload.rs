//! Multipart uploads: one process creates one, others fill it, one completes
//! it, and until then nothing is to be seen.

use std::sync::Arc;

use bytes::Bytes;
use chatvec_core::ids::{Crc64, PartOrdinal};
use object_store::multipart::PartId;
use object_store::{PutMultipartOptions, PutPayload};

use super::call::{Call, Repeat};
use super::conditional::attributes;
use super::s3;
use super::{Bucket, ObjectError};

/// The bytes of a part.
#[derive(Debug, Clone)]
pub struct PartBody {
    /// The bytes, in pieces, which are not copied.
    pub chunks: Vec<Bytes>,
    /// Their length together.
    pub len: u64,
    /// Their checksum, which the store's must equal.
    pub crc64: Crc64,
}

/// A part as the store has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedPart {
    /// Its position.
    pub part: PartOrdinal,
    /// What completing the upload names it by.
    pub part_id: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its checksum, where the store keeps one.
    pub crc64: Option<Crc64>,
}

impl Bucket {
    /// Creates an upload whose object will carry the nonce, and returns its
    /// id. Tried once: a lost answer would leave an upload that nobody knows.
    ///
    /// # Errors
    /// The bucket cannot be written, or the store not be asked.
    pub async fn create_upload(&self, key: &str, nonce: &str) -> Result<String, ObjectError> {
        let target = self.target(key)?;
        let call = Call {
            action: "create upload",
            target: &target,
            repeat: Repeat::WhenRefused,
            time_max: self.shared.patience.for_body(0),
        };
        let created = self.shared.call(call, || {
            let (uploads, target) = (Arc::clone(&self.shared.uploads), Arc::clone(&target));
            let options = PutMultipartOptions {
                attributes: attributes(nonce),
                ..PutMultipartOptions::default()
            };
            async move {
                let created = uploads.create_multipart_opts(&target.path, options).await;
                created.map_err(|error| ObjectError::of(&target, &error))
            }
        });
        created.await
    }

    /// Puts a part, and returns what completing the upload names it by. Asks
    /// `may_start` right before each try; `None` where the answer was no.
    ///
    /// # Errors
    /// [`ObjectError::UploadGone`] where the upload was ended.
    pub async fn put_part(
        &self,
        key: &str,
        upload_id: &str,
        part: PartOrdinal,
        body: PartBody,
        may_start: impl Fn() -> bool + Send,
    ) -> Result<Option<String>, ObjectError> {
        let target = self.target(key)?;
        let call = Call {
            action: "put part",
            target: &target,
            repeat: Repeat::Freely,
            time_max: self.shared.patience.for_body(body.len),
        };
        let payload: PutPayload = body.chunks.into_iter().collect();
        assert_eq!(
            payload.content_length() as u64,
            body.len,
            "length of a part"
        );
        let put = self.shared.call_while(call, may_start, || {
            let (uploads, target) = (Arc::clone(&self.shared.uploads), Arc::clone(&target));
            let (id, payload) = (upload_id.to_owned(), payload.clone());
            async move {
                let put = uploads.put_part(&target.path, &id, part.0 as usize, payload);
                let put = put
                    .await
                    .map_err(|error| ObjectError::of(&target, &error))?;
                let found = s3::crc64_of(&put.content_id);
                if found.is_some_and(|found| found != body.crc64) {
                    let (expected, found) = (body.crc64.to_hex(), found.map(Crc64::to_hex));
                    return Err(ObjectError::Transient {
                        url: target.url.clone(),
                        says: format!("expected checksum {expected}, the store has {found:?}"),
                    });
                }
                Ok(put.content_id)
            }
        });
        put.await
    }

    /// Completes an upload of at least one part, and returns the object's
    /// ETag. Tried once, as a second try may find the upload gone because of
    /// the first: of an unclear end, the caller asks [`Bucket::head`].
    ///
    /// # Errors
    /// [`ObjectError::InvalidPart`], [`ObjectError::UploadGone`],
    /// [`ObjectError::Conflict`], and all that leave it unclear.
    pub async fn complete_upload(
        &self,
        key: &str,
        upload_id: &str,
        part_ids: Vec<String>,
    ) -> Result<String, ObjectError> {
        assert!(!part_ids.is_empty(), "the library would put an empty part");
        let target = self.target(key)?;
        let call = Call {
            action: "complete upload",
            target: &target,
            repeat: Repeat::WhenRefused,
            time_max: self.shared.patience.completion,
        };
        let completed = self.shared.call(call, || {
            let (uploads, target) = (Arc::clone(&self.shared.uploads), Arc::clone(&target));
            let ids = part_ids.iter().cloned();
            let ids = ids.map(|content_id| PartId { content_id }).collect();
            let id = upload_id.to_owned();
            async move {
                let completed = uploads.complete_multipart(&target.path, &id, ids).await;
                match completed {
                    Ok(put) => Ok(put.e_tag.unwrap_or_default()),
                    Err(error) => Err(ObjectError::of(&target, &error)),
                }
            }
        });
        completed.await
    }

    /// Ends an upload without an object; one that is gone already is no error.
    /// A part that is under way may still arrive, so repeat it until nothing
    /// is left.
    ///
    /// # Errors
    /// The store cannot be asked, or refuses.
    pub async fn abort_upload(&self, key: &str, upload_id: &str) -> Result<(), ObjectError> {
        let target = self.target(key)?;
        let call = Call {
            action: "abort upload",
            target: &target,
            repeat: Repeat::Freely,
            time_max: self.shared.patience.for_body(0),
        };
        let aborted = self.shared.call(call, || {
            let (uploads, target) = (Arc::clone(&self.shared.uploads), Arc::clone(&target));
            let id = upload_id.to_owned();
            async move {
                let aborted = uploads.abort_multipart(&target.path, &id).await;
                aborted.map_err(|error| ObjectError::of(&target, &error))
            }
        });
        match aborted.await {
            Err(ObjectError::UploadGone { .. } | ObjectError::NotFound { .. }) => Ok(()),
            outcome => outcome,
        }
    }

    /// The parts that an upload has, by position; `None` where the store
    /// cannot tell.
    ///
    /// # Errors
    /// [`ObjectError::UploadGone`] where the upload was ended.
    pub async fn list_parts(
        &self,
        key: &str,
        upload_id: &str,
    ) -> Result<Option<Vec<ListedPart>>, ObjectError> {
        if self.shared.s3.is_none() {
            return Ok(None);
        }
        let target = self.target(key)?;
        let call = Call {
            action: "list parts",
            target: &target,
            repeat: Repeat::Freely,
            time_max: self.shared.patience.for_body(0),
        };
        let listed = self.shared.call(call, || {
            let (shared, target) = (Arc::clone(&self.shared), Arc::clone(&target));
            let id = upload_id.to_owned();
            async move {
                let s3 = shared.s3.as_ref().expect("checked above");
                s3.list_parts(&target, &id).await
            }
        });
        or_none_where_unsupported(listed.await)
    }

    /// The ids of the unfinished uploads of exactly this key; `None` where the
    /// store cannot tell.
    ///
    /// # Errors
    /// The store cannot be asked, or refuses.
    pub async fn list_uploads(&self, key: &str) -> Result<Option<Vec<String>>, ObjectError> {
        if self.shared.s3.is_none() {
            return Ok(None);
        }
        let target = self.target(key)?;
        let call = Call {
            action: "list uploads",
            target: &target,
            repeat: Repeat::Freely,
            time_max: self.shared.patience.for_body(0),
        };
        let listed = self.shared.call(call, || {
            let (shared, target) = (Arc::clone(&self.shared), Arc::clone(&target));
            async move {
                let s3 = shared.s3.as_ref().expect("checked above");
                s3.list_uploads(&target).await
            }
        });
        or_none_where_unsupported(listed.await)
    }
}

fn or_none_where_unsupported<T>(listed: Result<T, ObjectError>) -> Result<Option<T>, ObjectError> {
    match listed {
        Ok(listed) => Ok(Some(listed)),
        Err(ObjectError::Unsupported { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
