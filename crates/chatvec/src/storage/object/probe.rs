//! What a store does, found out by doing it with small objects.
//!
//! Stores that speak S3 differ where it matters most: some ignore conditional
//! writes, some ranges, some take a part that was replaced. Each check states
//! one promise that chatvec builds on, and what it means where a store does
//! not keep it.

use bytes::Bytes;
use chatvec_core::ids::{Crc64, PartOrdinal};
use chatvec_core::problem::Problem;

use super::{Bucket, ObjectError, ObjectUrl, PartBody, Put};
use crate::identity;

/// Where probes write, below the URL that is probed.
const FOLDER: &str = ".chatvec-probe";
/// Writers that race for one key.
const RACERS: usize = 8;
/// The least size of a part that is not the last one.
const PART_BYTES: usize = 5 << 20;
const NONCE: &str = "chatvec-probe";
/// The objects of the light checks.
const CREATE: &str = "create";
const RANGE: &str = "range";

/// A promise of object storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promise {
    /// `If-None-Match: *` writes where nothing stands, and nowhere else.
    Create,
    /// `If-Match` replaces the object of that ETag, and no other.
    Replace,
    /// Of several who create one key at once, one succeeds.
    Race,
    /// A range is answered with that range.
    Range,
    /// A read of an ETag that was replaced fails.
    StaleRead,
    /// Parts with checksums become one object with its nonce.
    Upload,
    /// An upload is completed with the very parts that are named, or not at all.
    StalePart,
    /// Completing twice does no harm.
    CompleteTwice,
    /// A part for an upload that was aborted is refused as such.
    AbortedUpload,
    /// The parts of an upload can be listed.
    ListParts,
    /// The unfinished uploads of a key can be listed.
    ListUploads,
}

/// What came of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was checked.
    pub promise: Promise,
    /// What the store does instead; `None` where it keeps the promise.
    pub weakness: Option<String>,
}

impl Promise {
    /// Its name, for scripts.
    pub fn name(self) -> &'static str {
        match self {
            Self::Create => "conditional-create",
            Self::Replace => "conditional-replace",
            Self::Race => "one-winner",
            Self::Range => "ranged-read",
            Self::StaleRead => "stale-read",
            Self::Upload => "multipart-upload",
            Self::StalePart => "stale-part",
            Self::CompleteTwice => "complete-twice",
            Self::AbortedUpload => "aborted-upload",
            Self::ListParts => "list-parts",
            Self::ListUploads => "list-uploads",
        }
    }

    /// What it means where a store does not keep it.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Create | Self::Replace | Self::Race => {
                "two jobs that publish to one URL from two databases may overwrite each other"
            }
            Self::Range => "checkpoints cannot be read from this store",
            Self::StaleRead => "an input that is replaced while a job reads it may go unnoticed",
            Self::Upload => "checkpoints cannot be written to this store",
            Self::StalePart => {
                "a late write of a worker that lost its lease is not noticed when the upload is completed"
            }
            Self::CompleteTwice => {
                "a coordinator that crashes while it publishes may leave its job stuck"
            }
            Self::AbortedUpload => "a worker learns late that its job was cancelled",
            Self::ListParts => "a part that proves stale is uploaded again instead of looked at",
            Self::ListUploads => {
                "an upload whose creation was cut off stays until the bucket's lifecycle rule removes it"
            }
        }
    }
}

impl Finding {
    fn of(promise: Promise, keeps: Result<(), String>) -> Self {
        let weakness = keeps.err();
        Self { promise, weakness }
    }

    /// The finding as a warning, where the promise is not kept.
    pub fn warning(&self, url: &ObjectUrl) -> Option<Problem> {
        let weakness = self.weakness.as_ref()?;
        let message = format!("the store {weakness}: {}", self.promise.meaning());
        let problem = Problem::new(url.to_string(), message);
        Some(problem.with_hint("`chatvec doctor --storage URL` shows what the store can do"))
    }
}

/// What a check did instead of an answer to it.
type Kept = Result<Result<(), String>, ObjectError>;

/// Checks every promise below `url`, and removes what it wrote.
///
/// # Errors
/// The store cannot be reached, listed or written at all.
pub async fn probe(bucket: &Bucket, url: &ObjectUrl) -> Result<Vec<Finding>, ObjectError> {
    let prober = Prober::new(bucket, url, &identity::instance_id());
    let findings = prober.all().await;
    prober.cleaned(findings, prober.clean()).await
}

/// Checks the promises that publishing needs most, in the time of some four
/// requests, and removes what it wrote. Whoever is cut off leaves objects that
/// [`forget_probe`] finds by the same name.
///
/// # Errors
/// As [`probe`].
pub async fn probe_lightly(
    bucket: &Bucket,
    url: &ObjectUrl,
    name: &str,
) -> Result<Vec<Finding>, ObjectError> {
    let prober = Prober::new(bucket, url, name);
    let findings = prober.light().await;
    prober.cleaned(findings, prober.forget()).await
}

/// Removes what [`probe_lightly`] of this name has left, if it was cut off.
///
/// # Errors
/// The store cannot be asked, or refuses.
pub async fn forget_probe(bucket: &Bucket, url: &ObjectUrl, name: &str) -> Result<(), ObjectError> {
    Prober::new(bucket, url, name).forget().await
}

struct Prober<'a> {
    bucket: &'a Bucket,
    place: ObjectUrl,
}

impl<'a> Prober<'a> {
    fn new(bucket: &'a Bucket, url: &ObjectUrl, name: &str) -> Self {
        let place = url.join(FOLDER).join(name);
        Self { bucket, place }
    }

    fn key(&self, name: &str) -> String {
        self.place.key_of(name)
    }

    async fn light(&self) -> Result<Vec<Finding>, ObjectError> {
        let (create, range) = tokio::join!(self.create(), self.range());
        Ok(vec![
            Finding::of(Promise::Create, create?),
            Finding::of(Promise::Range, range?),
        ])
    }

    async fn all(&self) -> Result<Vec<Finding>, ObjectError> {
        // Credentials and permissions show here, before a promise is judged.
        self.bucket.list_folder(self.place.key()).await?;
        let mut findings = self.light().await?;
        let mut found = |promise, kept| findings.push(Finding::of(promise, kept));
        found(Promise::Replace, self.replace().await?);
        found(Promise::Race, self.race().await?);
        found(Promise::StaleRead, self.stale_read().await?);
        found(Promise::Upload, self.upload().await?);
        found(Promise::StalePart, self.stale_part().await?);
        found(Promise::CompleteTwice, self.complete_twice().await?);
        found(Promise::AbortedUpload, self.aborted_upload().await?);
        found(Promise::ListParts, self.list_parts().await?);
        found(Promise::ListUploads, self.list_uploads().await?);
        Ok(findings)
    }

    async fn create(&self) -> Kept {
        let key = self.key(CREATE);
        for (text, expected) in [("first", true), ("second", false)] {
            match self.bucket.put_new(&key, text.into(), NONCE).await {
                Ok(put) if matches!(put, Put::Done { .. }) == expected => {}
                Ok(Put::Done { .. }) => return weak("overwrites despite If-None-Match"),
                Ok(Put::Taken) => return weak("finds an object where there is none"),
                Err(error) => return judged(error),
            }
        }
        Ok(Ok(()))
    }

    async fn replace(&self) -> Kept {
        let key = self.key("replace");
        let Put::Done { etag } = self.bucket.put_new(&key, "first".into(), NONCE).await? else {
            return weak("finds an object where there is none");
        };
        for (text, expected) in [("second", true), ("third", false)] {
            let put = self.bucket.put_over(&key, text.into(), NONCE, &etag).await;
            match put {
                Ok(put) if matches!(put, Put::Done { .. }) == expected => {}
                Ok(Put::Done { .. }) => return weak("overwrites despite If-Match"),
                Ok(Put::Taken) => return weak("refuses If-Match with the right ETag"),
                Err(error) => return judged(error),
            }
        }
        Ok(Ok(()))
    }

    async fn race(&self) -> Kept {
        let key = self.key("race");
        let racers = (0..RACERS).map(|racer| {
            let body = Bytes::from(format!("racer {racer}"));
            self.bucket.put_new(&key, body, NONCE)
        });
        let puts = match futures_util::future::try_join_all(racers).await {
            Ok(puts) => puts,
            Err(error) => return judged(error),
        };
        let is_won = |put: &&Put| matches!(put, Put::Done { .. });
        match puts.iter().filter(is_won).count() {
            1 => Ok(Ok(())),
            winners => weak(format!("lets {winners} of {RACERS} writers win one key")),
        }
    }

    async fn range(&self) -> Kept {
        let key = self.key(RANGE);
        let body: Vec<u8> = (0..4096u32).map(|at| (at % 251) as u8).collect();
        self.bucket
            .put_new(&key, body.clone().into(), NONCE)
            .await?;
        let Some(head) = self.bucket.head(&key).await? else {
            return weak("does not show an object right after it was written");
        };
        match self.bucket.read_range(&key, &head.etag, 1000..3000).await {
            Ok(chunks) if chunks.concat() == body[1000..3000] => Ok(Ok(())),
            Ok(_) => weak("answers a range with other bytes"),
            Err(error) => judged(error),
        }
    }

    async fn stale_read(&self) -> Kept {
        let key = self.key("stale-read");
        let Put::Done { etag } = self.bucket.put_new(&key, "first".into(), NONCE).await? else {
            return weak("finds an object where there is none");
        };
        self.bucket.delete(&key).await?;
        self.bucket.put_new(&key, "other".into(), NONCE).await?;
        match self.bucket.read_range(&key, &etag, 0..5).await {
            Err(ObjectError::Changed { .. }) => Ok(Ok(())),
            Ok(_) => weak("reads another object than If-Match asks for"),
            Err(error) => judged(error),
        }
    }

    async fn upload(&self) -> Kept {
        let key = self.key("upload");
        let bodies = [vec![1; PART_BYTES], vec![2; 1000]];
        let whole = crc64(&bodies.concat());
        let id = self.bucket.create_upload(&key, NONCE).await?;
        let mut ids = Vec::new();
        for (part, body) in bodies.into_iter().enumerate() {
            match self.put_part(&key, &id, part as u32, body).await {
                Ok(part_id) => ids.push(part_id),
                Err(error) => return judged(error),
            }
        }
        if let Err(error) = self.bucket.complete_upload(&key, &id, ids).await {
            return judged(error);
        }
        match self.bucket.head(&key).await? {
            None => weak("does not show an object right after its upload was completed"),
            Some(head) if head.nonce.as_deref() != Some(NONCE) => {
                weak("forgets the user metadata of an upload")
            }
            Some(head) if head.crc64.is_some_and(|found| found != whole) => {
                weak("tells another checksum than that of the bytes")
            }
            Some(_) => Ok(Ok(())),
        }
    }

    async fn stale_part(&self) -> Kept {
        let key = self.key("stale-part");
        let id = self.bucket.create_upload(&key, NONCE).await?;
        let stale = self.put_part(&key, &id, 0, vec![1; 1000]).await?;
        self.put_part(&key, &id, 0, vec![2; 1000]).await?;
        let completed = self.bucket.complete_upload(&key, &id, vec![stale]).await;
        let kept = match completed {
            Err(ObjectError::InvalidPart { .. }) => Ok(Ok(())),
            // A store that keeps every part it was given may take the named one.
            Ok(_) => match self.bucket.read_whole(&key, 1000).await?.0 {
                bytes if bytes == vec![1; 1000] => Ok(Ok(())),
                _ => weak("completes an upload with another part than the one that is named"),
            },
            Err(error) => judged(error),
        };
        self.bucket.abort_upload(&key, &id).await?;
        kept
    }

    async fn complete_twice(&self) -> Kept {
        let key = self.key("complete-twice");
        let id = self.bucket.create_upload(&key, NONCE).await?;
        let part = self.put_part(&key, &id, 0, vec![1; 1000]).await?;
        let parts = vec![part];
        self.bucket
            .complete_upload(&key, &id, parts.clone())
            .await?;
        // Either answer can be told from a failure.
        match self.bucket.complete_upload(&key, &id, parts).await {
            Ok(_) | Err(ObjectError::UploadGone { .. }) => Ok(Ok(())),
            Err(error) => judged(error),
        }
    }

    async fn aborted_upload(&self) -> Kept {
        let key = self.key("aborted");
        let id = self.bucket.create_upload(&key, NONCE).await?;
        self.bucket.abort_upload(&key, &id).await?;
        match self.put_part(&key, &id, 0, vec![1; 1000]).await {
            Err(ObjectError::UploadGone { .. }) => Ok(Ok(())),
            Ok(_) => weak("takes a part of an upload that was aborted"),
            Err(error) => judged(error),
        }
    }

    async fn list_parts(&self) -> Kept {
        let key = self.key("list-parts");
        let id = self.bucket.create_upload(&key, NONCE).await?;
        self.put_part(&key, &id, 0, vec![1; 1000]).await?;
        let listed = self.bucket.list_parts(&key, &id).await;
        let kept = match listed {
            Ok(Some(parts)) if parts.len() == 1 && parts[0].size == 1000 => {
                // What the list names a part by must do to complete the upload.
                let adopted = vec![parts[0].part_id.clone()];
                match self.bucket.complete_upload(&key, &id, adopted).await {
                    Ok(_) => Ok(Ok(())),
                    Err(error) => judged(error),
                }
            }
            Ok(Some(parts)) => weak(format!("lists {} parts of one", parts.len())),
            Ok(None) => weak("cannot list the parts of an upload"),
            Err(error) => judged(error),
        };
        self.bucket.abort_upload(&key, &id).await?;
        kept
    }

    async fn list_uploads(&self) -> Kept {
        let key = self.key("list-uploads");
        let id = self.bucket.create_upload(&key, NONCE).await?;
        let listed = self.bucket.list_uploads(&key).await;
        self.bucket.abort_upload(&key, &id).await?;
        match listed {
            Ok(Some(ids)) if ids == [id] => Ok(Ok(())),
            Ok(Some(ids)) => weak(format!("lists {} uploads of one", ids.len())),
            Ok(None) => weak("cannot list unfinished uploads"),
            Err(error) => judged(error),
        }
    }

    async fn put_part(
        &self,
        key: &str,
        id: &str,
        part: u32,
        bytes: Vec<u8>,
    ) -> Result<String, ObjectError> {
        let body = PartBody {
            len: bytes.len() as u64,
            crc64: crc64(&bytes),
            chunks: vec![bytes.into()],
        };
        let put = self
            .bucket
            .put_part(key, id, PartOrdinal(part), body, || true);
        Ok(put.await?.expect("nothing kept it from being sent"))
    }

    /// The findings, once nothing is left of the probe. Of a store that cannot
    /// be asked nothing can be removed either: the first error is the one told.
    async fn cleaned(
        &self,
        findings: Result<Vec<Finding>, ObjectError>,
        cleaning: impl Future<Output = Result<(), ObjectError>>,
    ) -> Result<Vec<Finding>, ObjectError> {
        match findings {
            Err(ObjectError::Unreachable { .. }) => findings,
            Err(_) => {
                let _best_effort = cleaning.await;
                findings
            }
            Ok(_) => cleaning.await.and(findings),
        }
    }

    /// Removes what the light checks write.
    async fn forget(&self) -> Result<(), ObjectError> {
        let keys = [CREATE, RANGE].map(|name| self.key(name));
        let [create, range] = &keys;
        tokio::try_join!(self.bucket.delete(create), self.bucket.delete(range))?;
        Ok(())
    }

    /// Removes what was written, uploads that a failed check left among it.
    async fn clean(&self) -> Result<(), ObjectError> {
        for object in self.bucket.list(self.place.key()).await? {
            self.bucket.delete(&object.key).await?;
        }
        for name in ["upload", "complete-twice"] {
            let key = self.key(name);
            for id in self.bucket.list_uploads(&key).await?.unwrap_or_default() {
                self.bucket.abort_upload(&key, &id).await?;
            }
        }
        Ok(())
    }
}

fn weak(does: impl Into<String>) -> Kept {
    Ok(Err(does.into()))
}

/// What a store that was reached says instead is its weakness; one that cannot
/// be asked is not judged.
fn judged(error: ObjectError) -> Kept {
    match error {
        ObjectError::Unreachable { .. }
        | ObjectError::Denied { .. }
        | ObjectError::NoCredentials { .. }
        | ObjectError::ClockSkew { .. }
        | ObjectError::NoBucket { .. }
        | ObjectError::Config { .. }
        | ObjectError::Throttled { .. } => Err(error),
        error => weak(format!("fails: {}", error.problem().message)),
    }
}

fn crc64(bytes: &[u8]) -> Crc64 {
    Crc64(crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, bytes))
}
