//! Writes that succeed only on what is expected: how one of many coordinators
//! wins a key.

use std::sync::Arc;

use bytes::Bytes;
use object_store::{Attribute, Attributes, PutMode, PutOptions, UpdateVersion};

use super::bucket::NONCE;
use super::call::{Call, Repeat};
use super::{Bucket, ObjectError};

/// What came of a conditional write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Put {
    /// The object is ours.
    Done {
        /// Its ETag.
        etag: String,
    },
    /// Another object stands there, or none where one was expected.
    Taken,
}

impl Bucket {
    /// Writes an object where there is none.
    ///
    /// # Errors
    /// The store cannot be asked, or refuses for another reason.
    pub async fn put_new(&self, key: &str, bytes: Bytes, nonce: &str) -> Result<Put, ObjectError> {
        self.put_if(key, bytes, nonce, PutMode::Create).await
    }

    /// Writes an object over the one that has this ETag.
    ///
    /// # Errors
    /// The store cannot be asked, or refuses for another reason.
    pub async fn put_over(
        &self,
        key: &str,
        bytes: Bytes,
        nonce: &str,
        etag: &str,
    ) -> Result<Put, ObjectError> {
        let version = UpdateVersion {
            e_tag: Some(etag.to_owned()),
            version: None,
        };
        self.put_if(key, bytes, nonce, PutMode::Update(version))
            .await
    }

    async fn put_if(
        &self,
        key: &str,
        bytes: Bytes,
        nonce: &str,
        mode: PutMode,
    ) -> Result<Put, ObjectError> {
        let target = self.target(key)?;
        let call = Call {
            action: "put object",
            target: &target,
            repeat: Repeat::Freely,
            time_max: self.shared.patience.for_body(bytes.len() as u64),
        };
        let mut tries = 0;
        let put = self.shared.call(call, || {
            tries += 1;
            let (objects, target) = (Arc::clone(&self.shared.objects), Arc::clone(&target));
            let options = PutOptions {
                mode: mode.clone(),
                attributes: attributes(nonce),
                ..PutOptions::default()
            };
            let payload = bytes.clone().into();
            async move {
                let put = objects.put_opts(&target.path, payload, options).await;
                match put.map_err(|error| ObjectError::of(&target, &error)) {
                    Ok(put) => Ok(put.e_tag.unwrap_or_default()),
                    // Two conditional writes met, and neither was judged.
                    Err(ObjectError::Conflict { url, says }) => {
                        Err(ObjectError::Transient { url, says })
                    }
                    Err(error) => Err(error),
                }
            }
        });
        match put.await {
            Ok(etag) => Ok(Put::Done { etag }),
            Err(ObjectError::Changed { .. } | ObjectError::NotFound { .. }) if tries == 1 => {
                Ok(Put::Taken)
            }
            // An earlier try may have been carried out, and stand in the way
            // of this one.
            Err(ObjectError::Changed { .. }) => self.whether_ours(key, &bytes).await,
            Err(ObjectError::NotFound { .. }) => Ok(Put::Taken),
            Err(error) => Err(error),
        }
    }

    async fn whether_ours(&self, key: &str, bytes: &Bytes) -> Result<Put, ObjectError> {
        match self.read_whole(key, bytes.len() as u64).await {
            Ok((found, info)) if found == *bytes => Ok(Put::Done { etag: info.etag }),
            Ok(_) | Err(ObjectError::NotFound { .. } | ObjectError::TooLarge { .. }) => {
                Ok(Put::Taken)
            }
            Err(error) => Err(error),
        }
    }
}

/// The nonce as user metadata.
pub(super) fn attributes(nonce: &str) -> Attributes {
    Attributes::from_iter([(Attribute::Metadata(NONCE.into()), nonce.to_owned())])
}
