//! The prefix of a bucket that a job publishes below.
//!
//! Nothing of a job is visible there before it commits: what is unfinished are
//! multipart uploads, which no listing shows and no reader can open.

use std::collections::BTreeMap;

use bytes::Bytes;
use chatvec_core::manifest::FILE_NAME as MANIFEST_NAME;
use chatvec_core::problem::Problem;

use super::not_empty;
use crate::storage::object::{Bucket, ObjectError, ObjectStorage, ObjectUrl};

/// The least bytes of a part that is not the last one of its object: what S3
/// and the stores that follow it take.
pub const PART_BYTES_MIN: u64 = 5 << 20;

/// Manifests and statistics of the largest models have some tens of megabytes.
const SMALL_BYTES_MAX: u64 = 256 << 20;

/// An output in object storage.
#[derive(Debug, Clone)]
pub struct OutputPrefix {
    url: ObjectUrl,
    bucket: Bucket,
}

/// What stands below the prefix before a job publishes there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The ETag of the manifest that a new one replaces; `None` if there is none.
    pub manifest: Option<String>,
}

impl OutputPrefix {
    /// The prefix at this URL. Nothing is looked up.
    ///
    /// # Errors
    /// If the store is not set up.
    pub fn at(storage: &ObjectStorage, url: ObjectUrl) -> Result<Self, Problem> {
        let bucket = storage.bucket(&url).map_err(|error| Problem {
            subject: "output.url".to_owned(),
            ..error.failure().problem
        })?;
        Ok(Self { url, bucket })
    }

    /// The URL of the prefix.
    pub fn url(&self) -> &ObjectUrl {
        &self.url
    }

    /// The bucket that it is in.
    pub fn bucket(&self) -> &Bucket {
        &self.bucket
    }

    /// The key of an object of the checkpoint.
    pub fn key(&self, name: &str) -> String {
        self.url.key_of(name)
    }

    /// How the prefix and an input overlap, as a verb; `None` where they don't.
    pub(super) fn relation_to(&self, input: &ObjectUrl) -> Option<&'static str> {
        if self.url == *input {
            Some("is")
        } else if self.url.is_within(input) {
            Some("lies inside")
        } else if input.is_within(&self.url) {
            Some("lies around")
        } else {
            None
        }
    }

    /// Refuses a prefix below which something stands that may not be overwritten.
    ///
    /// # Errors
    /// The outer error if the store cannot be asked; the inner one names the
    /// first objects that are in the way.
    pub async fn check_free(
        &self,
        overwrite: bool,
    ) -> Result<Result<Standing, Problem>, ObjectError> {
        let names: Vec<_> = self.sizes().await?.into_keys().collect();
        if !names.is_empty() && !overwrite {
            return Ok(Err(not_empty(&self.url, "prefix", names)));
        }
        let manifest = match names.iter().any(|name| name == MANIFEST_NAME) {
            true => self.manifest().await?.map(|(_, etag)| etag),
            false => None,
        };
        Ok(Ok(Standing { manifest }))
    }

    /// The sizes of the objects below the prefix, by their names relative to it.
    ///
    /// # Errors
    /// If the store cannot be asked.
    pub async fn sizes(&self) -> Result<BTreeMap<String, u64>, ObjectError> {
        let objects = self.bucket.list(self.url.key()).await?;
        let below = match self.url.key() {
            "" => String::new(),
            key => format!("{key}/"),
        };
        let relative = |key: &str| key.strip_prefix(&below).map(str::to_owned);
        let sized = objects
            .iter()
            .filter_map(|object| Some((relative(&object.key)?, object.size)));
        Ok(sized.collect())
    }

    /// The manifest that stands below the prefix, with its ETag.
    ///
    /// # Errors
    /// If it is there and cannot be read.
    pub async fn manifest(&self) -> Result<Option<(Bytes, String)>, ObjectError> {
        self.read(MANIFEST_NAME).await
    }

    /// A small object below the prefix, with its ETag; `None` if it is not there.
    ///
    /// # Errors
    /// If it is there and cannot be read.
    pub async fn read(&self, name: &str) -> Result<Option<(Bytes, String)>, ObjectError> {
        match self
            .bucket
            .read_whole(&self.key(name), SMALL_BYTES_MAX)
            .await
        {
            Ok((bytes, info)) => Ok(Some((bytes, info.etag))),
            Err(ObjectError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
