//! A bucket: reading objects, looking for them, and removing them.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use chatvec_core::ids::Crc64;
use futures_util::{StreamExt as _, TryStreamExt as _};
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::{Attribute, GetOptions, GetRange, GetResult, ObjectStore, ObjectStoreExt as _};
use tokio::runtime::Handle;

use super::call::{Call, Repeat};
use super::connect::Connection;
use super::limiter::Limiter;
use super::s3::S3;
use super::{ObjectError, ObjectStorageOptions, ObjectUrl, Patience};

/// The user metadata that tells whose object it is.
pub(super) const NONCE: &str = "chatvec-nonce";

/// A listing takes as long as so many bytes: it may have hundreds of pages.
const TIME_FOR_LISTING: u64 = 1 << 30;

/// A bucket. Clones are the same one. Each method takes its place in the
/// limiter, repeats what may be repeated, and ends in bounded time.
#[derive(Clone)]
pub struct Bucket {
    pub(super) shared: Arc<Shared>,
}

/// What all users of a bucket share.
pub(super) struct Shared {
    pub(super) root: ObjectUrl,
    pub(super) endpoint: Arc<str>,
    pub(super) objects: Arc<dyn ObjectStore>,
    pub(super) uploads: Arc<dyn MultipartStore>,
    pub(super) s3: Option<S3>,
    pub(super) limiter: Limiter,
    pub(super) patience: Patience,
    pub(super) io: Handle,
    pub(super) forget_credentials: Option<Box<dyn Fn() + Send + Sync>>,
}

/// What a request is about.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) path: Path,
    pub(super) url: String,
    pub(super) endpoint: Arc<str>,
}

/// An object as it stands in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Its key in the bucket.
    pub key: String,
    /// Its size in bytes.
    pub size: u64,
    /// What changes with it, as the store writes it.
    pub etag: String,
}

/// What a store tells of an object without its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Its size in bytes.
    pub size: u64,
    /// What changes with it, as the store writes it.
    pub etag: String,
    /// Whose it is, where it is one of ours.
    pub nonce: Option<String>,
    /// The checksum of the whole object, where the store keeps one.
    pub crc64: Option<Crc64>,
}

impl Bucket {
    pub(super) fn new(
        url: &ObjectUrl,
        connection: Connection,
        options: &ObjectStorageOptions,
        io: Handle,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                root: url.with_key(""),
                endpoint: connection.endpoint.into(),
                objects: connection.objects,
                uploads: connection.uploads,
                s3: connection.s3,
                limiter: Limiter::new(options.concurrency_max),
                patience: options.patience,
                io,
                forget_credentials: connection.forget_credentials,
            }),
        }
    }

    /// The URL of a key in this bucket.
    pub fn url(&self, key: &str) -> ObjectUrl {
        self.shared.root.with_key(key)
    }

    /// The objects right below `prefix`, taken as a folder, and the keys of the
    /// folders right below it.
    ///
    /// # Errors
    /// The bucket is not there, or cannot be listed.
    pub async fn list_folder(
        &self,
        prefix: &str,
    ) -> Result<(Vec<ObjectInfo>, Vec<String>), ObjectError> {
        let target = self.target(prefix)?;
        let call = Call {
            action: "list folder",
            target: &target,
            repeat: Repeat::Freely,
            time_max: self.shared.patience.for_body(TIME_FOR_LISTING),
        };
        let listed = self.shared.call(call, || {
            let (objects, target) = (Arc::clone(&self.shared.objects), Arc::clone(&target));
            async move {
                let listed = objects.list_with_delimiter(Some(&target.path)).await;
                listed.map_err(|error| ObjectError::of(&target, &error))
            }
        });
        let listed = listed.await?;
        let folders = listed.common_prefixes.into_iter().map(String::from);
        Ok((objects_below(&target, listed.objects)?, folders.collect()))
    }

    /// Every object below `prefix`, taken as a folder; all of the bucket for
    /// the empty one. In the store's order.
    ///
    /// # Errors
    /// The bucket is not there, or cannot be listed.
    pub async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, ObjectError> {
        let target = self.target(prefix)?;
        let call = Call {
            action: "list objects",
            target: &target,
            repeat: Repeat::Freely,
            time_max: self.shared.patience.for_body(TIME_FOR_LISTING),
        };
        let objects = self.shared.call(call, || {
            let (objects, target) = (Arc::clone(&self.shared.objects), Arc::clone(&target));
            async move {
                let listed = objects.list(Some(&target.path)).try_collect::<Vec<_>>();
                listed
                    .await
                    .map_err(|error| ObjectError::of(&target, &error))
            }
        });
        objects_below(&target, objects.await?)
    }

    /// What the store tells of an object, or `None` where there is none.
    ///
    /// # Errors
    /// The store cannot be asked.
    pub async fn head(&self, key: &str) -> Result<Option<Head>, ObjectError> {
        let target = self.target(key)?;
        let call = Call {
            action: "look at object",
            target: &target,
            repeat: Repeat::Freely,
            time_max: self.shared.patience.for_body(0),
        };
        let head = self.shared.call(call, || {
            let (shared, target) = (Arc::clone(&self.shared), Arc::clone(&target));
            async move {
                match &shared.s3 {
                    Some(s3) => s3.head(&target).await,
                    None => head_of(&shared, &target).await,
                }
            }
        });
        match head.await {
            Ok(head) => Ok(Some(head)),
            Err(ObjectError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads an object of at most `max` bytes whole, all of one state of it.
    ///
    /// # Errors
    /// It is not there, cannot be read, or is larger.
    pub async fn read_whole(
        &self,
        key: &str,
        max: u64,
    ) -> Result<(Bytes, ObjectInfo), ObjectError> {
        let target = self.target(key)?;
        let call = Call {
            action: "read object",
            target: &target,
            repeat: Repeat::Freely,
            time_max: self.shared.patience.for_body(max),
        };
        let whole = self.shared.call(call, || {
            let (shared, target) = (Arc::clone(&self.shared), Arc::clone(&target));
            async move {
                let got = get(&shared, &target, GetOptions::default()).await?;
                let info = info_of(got.meta.clone());
                if info.size > max {
                    let (url, size) = (target.url.clone(), info.size);
                    return Err(ObjectError::TooLarge { url, max, size });
                }
                let chunks = Mutex::default();
                drain(&shared, &target, got, info.size, &chunks).await?;
                Ok((joined(&take(&chunks)), info))
            }
        });
        whole.await
    }

    /// Reads bytes of the object that has this ETag: the pieces as they came,
    /// together `range` long. A body that breaks off is resumed where it
    /// ended.
    ///
    /// # Errors
    /// [`ObjectError::Changed`] where the object is another by now.
    pub async fn read_range(
        &self,
        key: &str,
        etag: &str,
        range: Range<u64>,
    ) -> Result<Vec<Bytes>, ObjectError> {
        let target = self.target(key)?;
        let call = Call {
            action: "read range of object",
            target: &target,
            repeat: Repeat::Freely,
            time_max: self.shared.patience.for_body(range.end - range.start),
        };
        let chunks = Arc::new(Mutex::new(Vec::new()));
        let read = self.shared.call(call, || {
            let (shared, target) = (Arc::clone(&self.shared), Arc::clone(&target));
            let (chunks, etag) = (Arc::clone(&chunks), etag.to_owned());
            let rest = range.start + length(&chunks)..range.end;
            async move { read_rest(&shared, &target, etag, rest, &chunks).await }
        });
        read.await?;
        Ok(take(&chunks))
    }

    /// Removes an object; one that is gone already is no error.
    ///
    /// # Errors
    /// The store cannot be asked, or refuses.
    pub async fn delete(&self, key: &str) -> Result<(), ObjectError> {
        let target = self.target(key)?;
        let call = Call {
            action: "delete object",
            target: &target,
            repeat: Repeat::Freely,
            time_max: self.shared.patience.for_body(0),
        };
        let deleted = self.shared.call(call, || {
            let (objects, target) = (Arc::clone(&self.shared.objects), Arc::clone(&target));
            async move {
                let deleted = objects.delete(&target.path).await;
                deleted.map_err(|error| ObjectError::of(&target, &error))
            }
        });
        match deleted.await {
            Err(ObjectError::NotFound { .. }) => Ok(()),
            outcome => outcome,
        }
    }

    pub(super) fn target(&self, key: &str) -> Result<Arc<Target>, ObjectError> {
        let url = self.url(key).to_string();
        match Path::parse(key) {
            Ok(path) => Ok(Arc::new(Target {
                path,
                url,
                endpoint: Arc::clone(&self.shared.endpoint),
            })),
            Err(error) => Err(ObjectError::Config {
                url,
                says: error.to_string(),
                hint: None,
            }),
        }
    }
}

impl std::fmt::Debug for Bucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Bucket").field(&self.shared.root).finish()
    }
}

/// Bytes as they come, kept when the connection breaks.
type Chunks = Mutex<Vec<Bytes>>;

async fn get(
    shared: &Shared,
    target: &Target,
    options: GetOptions,
) -> Result<GetResult, ObjectError> {
    let got = shared.objects.get_opts(&target.path, options);
    let got = shared.unless_stalled(target, got).await?;
    got.map_err(|error| ObjectError::of(target, &error))
}

async fn read_rest(
    shared: &Shared,
    target: &Target,
    etag: String,
    rest: Range<u64>,
    chunks: &Chunks,
) -> Result<(), ObjectError> {
    if rest.is_empty() {
        return Ok(());
    }
    let options = GetOptions {
        if_match: Some(etag.clone()),
        range: Some(GetRange::Bounded(rest.clone())),
        ..GetOptions::default()
    };
    let changed = || ObjectError::Changed {
        url: target.url.clone(),
        expected: etag.clone(),
    };
    let got = match get(shared, target, options).await {
        Err(ObjectError::Changed { .. }) => return Err(changed()),
        got => got?,
    };
    // Some stores ignore If-Match; all of them tell what they sent.
    if got.meta.e_tag.as_ref().is_some_and(|found| *found != etag) {
        return Err(changed());
    }
    drain(shared, target, got, rest.end - rest.start, chunks).await
}

/// Moves a body of exactly `expected` bytes into `chunks`.
async fn drain(
    shared: &Shared,
    target: &Target,
    got: GetResult,
    expected: u64,
    chunks: &Chunks,
) -> Result<(), ObjectError> {
    let mut stream = got.into_stream();
    let mut found = 0;
    while let Some(chunk) = shared.unless_stalled(target, stream.next()).await? {
        let chunk = chunk.map_err(|error| ObjectError::of(target, &error))?;
        found += chunk.len() as u64;
        if found > expected {
            break;
        }
        chunks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(chunk);
    }
    match found.cmp(&expected) {
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Less => Err(ObjectError::Transient {
            url: target.url.clone(),
            says: format!("the answer broke off: expected {expected} bytes, found {found}"),
        }),
        std::cmp::Ordering::Greater => Err(ObjectError::Defect {
            url: target.url.clone(),
            says: format!("it sends more than the {expected} bytes that were asked for"),
        }),
    }
}

/// What the library tells of an object, for stores that are not S3.
async fn head_of(shared: &Shared, target: &Target) -> Result<Head, ObjectError> {
    let options = GetOptions {
        head: true,
        ..GetOptions::default()
    };
    let got = get(shared, target, options).await?;
    let nonce = got.attributes.get(&Attribute::Metadata(NONCE.into()));
    Ok(Head {
        size: got.meta.size,
        nonce: nonce.map(|nonce| nonce.as_ref().to_owned()),
        etag: got.meta.e_tag.unwrap_or_default(),
        crc64: None,
    })
}

/// What was listed, without the folder itself, which may stand there as an
/// object of its own.
fn objects_below(
    target: &Target,
    listed: Vec<object_store::ObjectMeta>,
) -> Result<Vec<ObjectInfo>, ObjectError> {
    let below = listed
        .into_iter()
        .filter(|object| object.location != target.path);
    let objects: Vec<_> = below.map(info_of).collect();
    match objects.iter().find(|object| object.etag.is_empty()) {
        Some(object) => Err(ObjectError::Defect {
            url: target.url.clone(),
            says: format!("it lists `{}` without an ETag", object.key),
        }),
        None => Ok(objects),
    }
}

fn info_of(meta: object_store::ObjectMeta) -> ObjectInfo {
    ObjectInfo {
        key: meta.location.into(),
        size: meta.size,
        etag: meta.e_tag.unwrap_or_default(),
    }
}

fn take(chunks: &Chunks) -> Vec<Bytes> {
    std::mem::take(&mut *chunks.lock().unwrap_or_else(PoisonError::into_inner))
}

fn length(chunks: &Chunks) -> u64 {
    let chunks = chunks.lock().unwrap_or_else(PoisonError::into_inner);
    chunks.iter().map(|chunk| chunk.len() as u64).sum()
}

fn joined(chunks: &[Bytes]) -> Bytes {
    match chunks {
        [only] => only.clone(),
        chunks => chunks.concat().into(),
    }
}
