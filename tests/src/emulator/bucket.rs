//! What the store keeps, and the rules by which it changes.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

use bytes::Bytes;
use crc_fast::{CrcAlgorithm, checksum_combine};
use md5::{Digest as _, Md5};

use super::Profile;
use super::content::{Content, hex};
use super::history::{Condition, Received};
use super::refused::{self, Refused};

/// The least size of a part that is not the last one.
const PART_BYTES_MIN: u64 = 5 << 20;
/// The greatest number of a part.
const PART_NUMBER_MAX: u32 = 10_000;

/// Everything in the one bucket.
#[derive(Debug)]
pub(super) struct Bucket {
    profile: Profile,
    objects: BTreeMap<String, Object>,
    uploads: BTreeMap<(String, String), Upload>,
    /// By id, the key and the ETag of what an upload became.
    completed: HashMap<String, (String, String)>,
    ids: u64,
    random: u64,
}

/// User metadata, by name without the prefix.
pub(super) type Metadata = BTreeMap<String, String>;

#[derive(Debug, Clone)]
pub(super) struct Object {
    pub(super) content: Content,
    pub(super) etag: String,
    pub(super) crc64: u64,
    pub(super) metadata: Metadata,
}

#[derive(Debug, Clone)]
pub(super) struct Upload {
    pub(super) metadata: Metadata,
    pub(super) parts: BTreeMap<u32, Part>,
}

#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) content: Content,
    pub(super) etag: String,
    pub(super) md5: [u8; 16],
    pub(super) crc64: u64,
}

/// A body with its digests.
#[derive(Debug, Clone)]
pub(super) struct Body {
    pub(super) content: Content,
    pub(super) md5: [u8; 16],
    pub(super) crc64: u64,
}

/// A part as a completion names it.
#[derive(Debug, Clone)]
pub(super) struct NamedPart {
    pub(super) number: u32,
    pub(super) etag: String,
    pub(super) crc64: Option<u64>,
}

/// What a list shows at one place.
#[derive(Debug)]
pub(super) enum Listed<'a> {
    Object(&'a str, &'a Object),
    Folder(String),
}

impl NamedPart {
    /// Its number and ETag, as the history has them.
    pub(super) fn name(&self) -> (u32, String) {
        (self.number, self.etag.clone())
    }
}

impl Listed<'_> {
    /// Behind which the next page begins.
    pub(super) fn place(&self) -> &str {
        match self {
            Self::Object(key, _) => key,
            Self::Folder(folder) => folder,
        }
    }
}

impl Body {
    pub(super) fn of(content: Content) -> Self {
        let (md5, crc64) = (content.md5(), content.crc64());
        Self {
            content,
            md5,
            crc64,
        }
    }

    pub(super) fn received(&self) -> Received {
        Received {
            bytes: self.content.len(),
            md5: hex(&self.md5),
            crc64: self.crc64,
        }
    }
}

impl Bucket {
    pub(super) fn new(profile: Profile) -> Self {
        Self {
            profile,
            objects: BTreeMap::new(),
            uploads: BTreeMap::new(),
            completed: HashMap::new(),
            ids: 0,
            random: 0,
        }
    }

    pub(super) fn objects(&self) -> &BTreeMap<String, Object> {
        &self.objects
    }

    /// The open uploads, by key and id.
    pub(super) fn uploads(&self) -> &BTreeMap<(String, String), Upload> {
        &self.uploads
    }

    pub(super) fn object(
        &self,
        key: &str,
        condition: Option<&Condition>,
    ) -> Result<&Object, Refused> {
        let object = self.objects.get(key).ok_or(refused::NO_SUCH_KEY)?;
        match condition {
            Some(Condition::Match(etag)) if *etag != object.etag => {
                Err(refused::PRECONDITION_FAILED)
            }
            _ => Ok(object),
        }
    }

    /// Writes an object, and returns its ETag.
    pub(super) fn put(
        &mut self,
        key: &str,
        body: Body,
        metadata: Metadata,
        condition: Option<&Condition>,
    ) -> Result<String, Refused> {
        self.check(key, condition)?;
        let etag = self.etag(hex(&body.md5));
        let object = Object {
            content: body.content,
            etag: etag.clone(),
            crc64: body.crc64,
            metadata,
        };
        self.objects.insert(key.to_owned(), object);
        Ok(etag)
    }

    /// Whether an object has these bytes; it keeps them then instead of its own.
    pub(super) fn share(&mut self, key: &str, bytes: &Bytes) -> bool {
        let Some(object) = self.objects.get_mut(key) else {
            return false;
        };
        let is_same = object.content.is(bytes);
        if is_same {
            object.content = Content::of(vec![bytes.clone()]);
        }
        is_same
    }

    /// Whether there was something to remove.
    pub(super) fn delete(&mut self, key: &str) -> bool {
        self.objects.remove(key).is_some()
    }

    /// What lies below a prefix, behind a place, with what is below a folder
    /// shown as the folder.
    pub(super) fn list<'a>(
        &'a self,
        prefix: &'a str,
        delimiter: Option<&'a str>,
        after: &str,
    ) -> Vec<Listed<'a>> {
        let behind = (Bound::Excluded(after), Bound::Unbounded);
        let mut listed = Vec::new();
        for (key, object) in self.objects.range::<str, _>(behind) {
            let Some(rest) = key.strip_prefix(prefix) else {
                continue;
            };
            let folder = delimiter.and_then(|delimiter| rest.split_once(delimiter));
            let Some((name, _)) = folder else {
                listed.push(Listed::Object(key, object));
                continue;
            };
            let folder = format!("{prefix}{name}{}", delimiter.unwrap_or_default());
            let is_known = matches!(listed.last(), Some(Listed::Folder(last)) if *last == folder);
            // A page that ended with a folder goes on behind all that is in it.
            if !is_known && !after.starts_with(&folder) {
                listed.push(Listed::Folder(folder));
            }
        }
        listed
    }

    /// Creates an upload, and returns its id.
    pub(super) fn create_upload(&mut self, key: &str, metadata: Metadata) -> String {
        self.ids += 1;
        let id = format!("upload-{:06}", self.ids);
        let parts = BTreeMap::new();
        let upload = Upload { metadata, parts };
        self.uploads.insert((key.to_owned(), id.clone()), upload);
        id
    }

    pub(super) fn upload(&self, key: &str, id: &str) -> Result<&Upload, Refused> {
        let upload = self.uploads.get(&(key.to_owned(), id.to_owned()));
        upload.ok_or(refused::NO_SUCH_UPLOAD)
    }

    /// Keeps a part in place of what was there, and returns its ETag.
    pub(super) fn put_part(
        &mut self,
        key: &str,
        id: &str,
        number: u32,
        body: Body,
    ) -> Result<String, Refused> {
        self.upload(key, id)?;
        if !(1..=PART_NUMBER_MAX).contains(&number) {
            return Err(refused::INVALID_ARGUMENT);
        }
        let etag = self.etag(hex(&body.md5));
        let part = Part {
            content: body.content,
            etag: etag.clone(),
            md5: body.md5,
            crc64: body.crc64,
        };
        let upload = self.uploads.get_mut(&(key.to_owned(), id.to_owned()));
        let upload = upload.expect("it was found above");
        upload.parts.insert(number, part);
        Ok(etag)
    }

    /// Makes an object of an upload, and returns its ETag and whether that
    /// changed anything.
    pub(super) fn complete(
        &mut self,
        key: &str,
        id: &str,
        named: &[NamedPart],
        condition: Option<&Condition>,
    ) -> Result<(String, bool), Refused> {
        self.check(key, condition)?;
        if let Some((of, etag)) = self.completed.get(id)
            && of == key
            && self.profile != Profile::Minio
        {
            return Ok((etag.clone(), false));
        }
        let parts = self.named_parts(key, id, named)?;
        let mut md5s = Md5::new();
        for part in &parts {
            md5s.update(part.md5);
        }
        let digest: [u8; 16] = md5s.finalize().into();
        let crc64 = parts.iter().fold(0, |crc64, part| {
            let nvme = CrcAlgorithm::Crc64Nvme;
            checksum_combine(nvme, crc64, part.crc64, part.content.len())
        });
        let content = Content::joined(parts.iter().map(|part| &part.content));
        let etag = self.etag(hex(&digest));
        let etag = format!("{etag}-{}", named.len());
        let upload = self.uploads.remove(&(key.to_owned(), id.to_owned()));
        let object = Object {
            content,
            etag: etag.clone(),
            crc64,
            metadata: upload.expect("its parts were found").metadata,
        };
        self.objects.insert(key.to_owned(), object);
        let what = (key.to_owned(), etag.clone());
        self.completed.insert(id.to_owned(), what);
        Ok((etag, true))
    }

    /// The parts that a completion names, if it may.
    fn named_parts(&self, key: &str, id: &str, named: &[NamedPart]) -> Result<Vec<Part>, Refused> {
        let upload = self.upload(key, id)?;
        if named.is_empty() {
            return Err(refused::MALFORMED_XML);
        }
        if !named.is_sorted_by(|a, b| a.number < b.number) {
            return Err(refused::INVALID_PART_ORDER);
        }
        let mut parts = Vec::new();
        for name in named {
            let part = upload.parts.get(&name.number);
            let part = part.ok_or(refused::INVALID_PART)?;
            if part.etag != name.etag || name.crc64.is_some_and(|crc64| crc64 != part.crc64) {
                return Err(refused::INVALID_PART);
            }
            parts.push(part.clone());
        }
        // Every part here has a checksum.
        if named
            .last()
            .is_some_and(|last| last.number as usize != named.len())
        {
            return Err(refused::NOT_CONSECUTIVE);
        }
        let (_, all_but_last) = parts.split_last().expect("at least one is named");
        let sizes = || all_but_last.iter().map(|part| part.content.len());
        if sizes().any(|size| size < PART_BYTES_MIN) {
            return Err(refused::ENTITY_TOO_SMALL);
        }
        let first = parts[0].content.len();
        if self.profile == Profile::R2 && sizes().any(|size| size != first) {
            return Err(refused::UNEQUAL_PARTS);
        }
        Ok(parts)
    }

    pub(super) fn abort(&mut self, key: &str, id: &str) -> Result<(), Refused> {
        let upload = self.uploads.remove(&(key.to_owned(), id.to_owned()));
        upload.map(drop).ok_or(refused::NO_SUCH_UPLOAD)
    }

    fn check(&self, key: &str, condition: Option<&Condition>) -> Result<(), Refused> {
        let standing = self.objects.get(key);
        match condition {
            None => Ok(()),
            Some(Condition::Absent) if standing.is_none() => Ok(()),
            Some(Condition::Absent) => Err(refused::PRECONDITION_FAILED),
            Some(Condition::Match(etag)) => match standing {
                None => Err(refused::NO_SUCH_KEY),
                Some(object) if object.etag == *etag => Ok(()),
                Some(_) => Err(refused::PRECONDITION_FAILED),
            },
        }
    }

    /// The ETag of bytes with this MD5. Where the store encrypts with a key of
    /// the user's, it says nothing of the bytes and never comes twice.
    fn etag(&mut self, md5: String) -> String {
        if self.profile != Profile::Kms {
            return md5;
        }
        self.random += 1;
        hex(&Md5::digest(self.random.to_be_bytes()))
    }
}
