//! Reading a checkpoint below a prefix in object storage.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use chatvec_core::checkpoint::{ListedFile, WeightFile};
use chatvec_core::header;
use chatvec_core::sidefile::is_read_folder;
use chatvec_core::task::{SourceFile, TaskFailure};
use futures_util::StreamExt as _;

use super::error::failure_of;
use super::{SNAPSHOTS, SurveyError, all_or_problems, broken_header};
use crate::storage::Location;
use crate::storage::file::WHOLE_FILE_MAX;
use crate::storage::object::{Bucket, ObjectError, ObjectInfo, ObjectStorage, ObjectUrl};
use crate::storage::pin::pin_of_etag;

/// Headers under way at once; the bucket's limiter may let fewer through.
const READS_MAX: usize = 64;

/// What is read of a weight file at first. Nearly all headers fit, and a
/// second request costs more than bytes that are thrown away.
const FIRST_READ: u64 = 128 << 10;

/// The objects of a checkpoint, as they were listed.
#[derive(Debug, Clone)]
pub(super) struct Objects {
    storage: ObjectStorage,
    bucket: Bucket,
    by_name: Arc<BTreeMap<String, ObjectInfo>>,
}

/// Lists what lies below the prefix, as a folder of files would be listed.
pub(super) async fn list(
    storage: &ObjectStorage,
    location: &Location,
    url: &ObjectUrl,
) -> Result<(Vec<ListedFile>, Objects), SurveyError> {
    let bucket = storage.bucket(url)?;
    let mut listing = Vec::new();
    let mut by_name = BTreeMap::new();
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        let (objects, below) = bucket.list_folder(&url.key_of(&folder)).await?;
        for object in objects {
            let Some(name) = name_in(url, &object.key) else {
                continue;
            };
            let size = object.size;
            listing.push(ListedFile {
                name: name.clone(),
                size,
            });
            by_name.insert(name, object);
        }
        for key in below {
            let Some(name) = name_in(url, &key) else {
                continue;
            };
            let is_listed = folder.is_empty() && is_read_folder(&name);
            let folder = format!("{name}/");
            if is_listed || folder == SNAPSHOTS {
                folders.push(name);
            }
            listing.push(ListedFile {
                name: folder,
                size: 0,
            });
        }
    }
    if listing.is_empty() {
        let location = location.clone();
        // A key of the bucket itself is no object.
        let is_file = !url.key().is_empty() && bucket.head(url.key()).await?.is_some();
        return Err(if is_file {
            SurveyError::NotAFolder { location }
        } else {
            SurveyError::NotFound { location }
        });
    }
    listing.sort();
    let objects = Objects {
        storage: storage.clone(),
        bucket,
        by_name: Arc::new(by_name),
    };
    Ok((listing, objects))
}

/// The path of a key below the checkpoint.
fn name_in(url: &ObjectUrl, key: &str) -> Option<String> {
    let name = key.strip_prefix(url.key())?.trim_start_matches('/');
    (!name.is_empty()).then(|| name.to_owned())
}

impl Objects {
    /// Reads a small file, or nothing where none is listed.
    pub(super) async fn read(&self, name: &str) -> Result<Option<Bytes>, ObjectError> {
        match self.by_name.get(name) {
            Some(object) => self.read_listed(object).await.map(Some),
            None => Ok(None),
        }
    }

    /// The headers of all files in their order, many at once.
    pub(super) async fn read_headers(
        &self,
        names: &[String],
    ) -> Result<Vec<(SourceFile, WeightFile)>, SurveyError> {
        let reads: Vec<_> = names.iter().map(|name| self.read_header(name)).collect();
        let headers = futures_util::stream::iter(reads)
            .buffered(READS_MAX)
            .collect::<Vec<_>>();
        all_or_problems(headers.await)
    }

    /// As [`super::Surveyed::read_small`].
    pub(super) fn read_small(&self, name: &str) -> Result<(Vec<u8>, SourceFile), ObjectError> {
        let object = self.listed(name)?;
        let bytes = self.storage.block_on(self.read_listed(object))?;
        Ok((bytes.into(), self.source(object)))
    }

    /// As [`super::Surveyed::pin`]: what the listing said.
    pub(super) fn pin(&self, name: &str) -> Result<SourceFile, ObjectError> {
        Ok(self.source(self.listed(name)?))
    }

    /// Reads the state of an object that was listed.
    async fn read_listed(&self, object: &ObjectInfo) -> Result<Bytes, ObjectError> {
        if object.size > WHOLE_FILE_MAX {
            return Err(ObjectError::TooLarge {
                url: self.bucket.url(&object.key).to_string(),
                max: WHOLE_FILE_MAX,
                size: object.size,
            });
        }
        self.read_range(object, 0, object.size).await
    }

    async fn read_header(&self, name: &str) -> Result<(SourceFile, WeightFile), TaskFailure> {
        let object = self.listed(name).map_err(|error| failure_of(&error))?;
        let source = self.source(object);
        let size = object.size;
        let broken = |error| broken_header(source.url.clone(), &error);
        let read = async |from, to| {
            let bytes = self.read_range(object, from, to).await;
            bytes.map_err(|error| failure_of(&error))
        };
        let mut bytes = read(0, size.min(FIRST_READ)).await?;
        let length = header::parse_length(&bytes, size).map_err(broken)?;
        let end = 8 + length;
        if let Some(missing) = end.checked_sub(FIRST_READ)
            && missing > 0
        {
            let rest = read(FIRST_READ, end).await?;
            bytes = [bytes, rest].concat().into();
        }
        let end = usize::try_from(end).expect("headers are below 100 MB");
        let header = header::parse(&bytes[8..end], size).map_err(broken)?;
        let name = name.to_owned();
        Ok((source, WeightFile { name, size, header }))
    }

    async fn read_range(
        &self,
        object: &ObjectInfo,
        from: u64,
        to: u64,
    ) -> Result<Bytes, ObjectError> {
        let read = self.bucket.read_range(&object.key, &object.etag, from..to);
        Ok(read.await?.concat().into())
    }

    fn listed(&self, name: &str) -> Result<&ObjectInfo, ObjectError> {
        let listed = self.by_name.get(name);
        listed.ok_or_else(|| ObjectError::NotFound {
            url: name.to_owned(),
        })
    }

    fn source(&self, object: &ObjectInfo) -> SourceFile {
        SourceFile {
            url: self.bucket.url(&object.key).to_string(),
            size: object.size,
            pin: pin_of_etag(&object.etag),
        }
    }
}
