//! A small S3 server in this process, on loopback and in memory: it keeps the
//! rules of S3, breaks them where a test wants it, and remembers every request.
//!
//! It is no replacement for a real store, which most tests use: a test in
//! `tests/it/objects` holds the two against each other. Signatures are not
//! verified; the access key alone says who calls, so a test may give every
//! process a key of its own.

mod answer;
mod bucket;
mod call;
mod content;
mod fault;
mod history;
mod refused;
mod serve;
mod xml;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};

use crate::component::{Access, BUCKET, Bucket};
use content::Content;
use serve::{Changing, Shared, lock};

pub use fault::{Action, Fault, Refusal, Rule};
pub use history::{Condition, Effect, History, Operation, Received, Request};

/// The access key that every emulator knows.
const OWNER: &str = "owner";
/// The most entries of a page, as in S3.
const PAGE_MAX: usize = 1000;

/// Which store is imitated, where stores differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// S3 itself. An upload may be completed twice.
    Aws,
    /// An upload that was completed is gone: completing it again is
    /// `NoSuchUpload`.
    Minio,
    /// All parts of an upload but the last must be of one size.
    R2,
    /// S3 where it encrypts with a key of the user's: the ETag is another one at
    /// every put, even of the same bytes.
    Kms,
}

/// A server with one empty bucket. It ends when it is dropped.
#[derive(Debug)]
pub struct Emulator {
    address: SocketAddr,
    shared: Arc<Shared>,
    _runtime: Runtime,
}

/// An object as it lies in the bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredObject {
    /// Its bytes, in pieces.
    pub chunks: Vec<Bytes>,
    /// Its ETag, without quotes.
    pub etag: String,
    /// The CRC-64/NVME of what was sent.
    pub crc64: u64,
    /// Its user metadata, by name without the prefix.
    pub metadata: BTreeMap<String, String>,
}

/// An upload that is neither completed nor aborted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenUpload {
    /// The key of the object that it may become.
    pub key: String,
    /// Its id.
    pub id: String,
    /// The user metadata of that object.
    pub metadata: BTreeMap<String, String>,
    /// Its parts, by number from one.
    pub parts: BTreeMap<u32, StoredPart>,
}

/// The current part of a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPart {
    /// Its bytes, in pieces.
    pub chunks: Vec<Bytes>,
    /// Its ETag, without quotes.
    pub etag: String,
    /// The CRC-64/NVME of what was sent.
    pub crc64: u64,
}

impl Emulator {
    /// Starts to listen.
    ///
    /// # Panics
    /// If no port can be had.
    pub fn start(profile: Profile) -> Self {
        Self::with_pages_of(PAGE_MAX, profile)
    }

    /// The same with lists in pages of at most so many entries.
    ///
    /// # Panics
    /// If no port can be had.
    pub fn with_pages_of(page_max: usize, profile: Profile) -> Self {
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("emulator")
            .enable_all()
            .build()
            .expect("a runtime can be started");
        let listener = runtime
            .block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
            .expect("a port is free");
        let address = listener.local_addr().expect("a listener has an address");
        let shared = Arc::new(Shared {
            log: Arc::new(history::Log::new()),
            rules: Mutex::default(),
            access_keys: Mutex::new([OWNER.to_owned()].into()),
            bucket: Mutex::new(Changing {
                bucket: bucket::Bucket::new(profile),
                changes: 0,
            }),
            page_max,
        });
        runtime.spawn(serve::serve(listener, Arc::clone(&shared)));
        Self {
            address,
            shared,
            _runtime: runtime,
        }
    }

    /// What a client needs to call it under this name, which is its access key.
    pub fn access(&self, access_key: &str) -> Access {
        lock(&self.shared.access_keys).insert(access_key.to_owned());
        Access {
            endpoint: format!("http://{}", self.address),
            key_id: access_key.to_owned(),
            secret_key: format!("{access_key}-secret"),
        }
    }

    /// Its bucket, called under the name `owner`.
    pub fn bucket(&self) -> Bucket {
        Bucket::new(BUCKET, self.access(OWNER))
    }

    /// Where it listens, for a proxy in front of it.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Puts an object of this size: `head`, and behind it one block again and
    /// again, of which every copy is the same memory. Its ETag is that of one
    /// copy. It is no request.
    pub fn put_repeating(&self, key: &str, head: Vec<u8>, block: &Bytes, size: u64) {
        let mut chunks = vec![Bytes::from(head)];
        let md5 = Content::of(vec![chunks[0].clone(), block.clone()]).md5();
        let mut left = size.saturating_sub(chunks[0].len() as u64);
        while left > 0 {
            let some = left.min(block.len() as u64);
            chunks.push(block.slice(..some as usize));
            left -= some;
        }
        let content = Content::of(chunks);
        let crc64 = content.crc64();
        let body = bucket::Body {
            content,
            md5,
            crc64,
        };
        let metadata = BTreeMap::new();
        let put = self.shared.bucket().bucket.put(key, body, metadata, None);
        put.expect("without a condition nothing is in the way");
    }

    /// Removes every object. It is no request.
    pub fn clear(&self) {
        let mut changing = self.shared.bucket();
        let keys: Vec<String> = changing.bucket.objects().keys().cloned().collect();
        for key in keys {
            changing.bucket.delete(&key);
        }
    }

    /// From now on requests that fit meet this fault. Of several rules that fit,
    /// the one that was put in first acts.
    pub fn add(&self, fault: Fault) -> Rule {
        let rule = Rule::new(fault);
        lock(&self.shared.rules).push(rule.clone());
        rule
    }

    /// All requests so far.
    pub fn history(&self) -> History {
        self.shared.log.history()
    }

    /// The objects by key.
    pub fn objects(&self) -> BTreeMap<String, StoredObject> {
        let changing = self.shared.bucket();
        let objects = changing.bucket.objects().iter();
        objects
            .map(|(key, object)| (key.clone(), StoredObject::of(object)))
            .collect()
    }

    /// The object of a key.
    pub fn object(&self, key: &str) -> Option<StoredObject> {
        let changing = self.shared.bucket();
        changing.bucket.objects().get(key).map(StoredObject::of)
    }

    /// Whether an object has these bytes. Then it holds on to them and not to its
    /// own, so that many equal objects take the memory of one.
    pub fn share(&self, key: &str, bytes: &Bytes) -> bool {
        self.shared.bucket().bucket.share(key, bytes)
    }

    /// The uploads that are neither completed nor aborted, by key and age.
    pub fn open_uploads(&self) -> Vec<OpenUpload> {
        let changing = self.shared.bucket();
        let uploads = changing.bucket.uploads().iter();
        uploads
            .map(|((key, id), upload)| OpenUpload {
                key: key.clone(),
                id: id.clone(),
                metadata: upload.metadata.clone(),
                parts: upload
                    .parts
                    .iter()
                    .map(|(number, part)| (*number, StoredPart::of(part)))
                    .collect(),
            })
            .collect()
    }
}

impl StoredObject {
    fn of(object: &bucket::Object) -> Self {
        Self {
            chunks: object.content.chunks().to_vec(),
            etag: object.etag.clone(),
            crc64: object.crc64,
            metadata: object.metadata.clone(),
        }
    }

    /// Its bytes.
    pub fn bytes(&self) -> Vec<u8> {
        self.chunks.concat()
    }
}

impl StoredPart {
    fn of(part: &bucket::Part) -> Self {
        Self {
            chunks: part.content.chunks().to_vec(),
            etag: part.etag.clone(),
            crc64: part.crc64,
        }
    }
}
