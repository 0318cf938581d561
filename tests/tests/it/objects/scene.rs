//! An emulator, and the program's own way to object storage in front of it.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use chatvec::storage::object::{
    Bucket, ObjectError, ObjectStorage, ObjectStorageOptions, ObjectUrl, PartBody, Patience,
};
use chatvec_core::ids::{Crc64, PartOrdinal};
use chatvec_tests::component::{Access, BUCKET};
use chatvec_tests::emulator::{Emulator, Operation, Profile, Request};

/// Whose objects all are.
pub(super) const NONCE: &str = "nonce-of-a-job";
/// The least size of a part that is not the last one.
pub(super) const PART_BYTES: usize = 5 << 20;
/// Requests under way at once.
pub(super) const CONCURRENCY_MAX: usize = 16;

/// As little as is needed on a busy machine.
const PATIENCE: Patience = Patience {
    answer: Duration::from_secs(2),
    stall: Duration::from_millis(500),
    completion: Duration::from_secs(2),
    throttling: Duration::from_secs(60),
    backoff_first: Duration::from_millis(1),
    backoff_max: Duration::from_millis(20),
};

/// A program's object storage.
pub(super) struct Client {
    storage: ObjectStorage,
    pub(super) bucket: Bucket,
}

/// A client of an emulator.
pub(super) struct Scene {
    pub(super) emulator: Emulator,
    pub(super) client: Client,
}

impl Client {
    /// As patient as the program is.
    pub(super) fn of(access: &Access) -> Self {
        Self::with(Patience::default(), access)
    }

    fn with(patience: Patience, access: &Access) -> Self {
        let variables = access.environment();
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let options = ObjectStorageOptions::from_variables(variables)
            .with_concurrency_max(CONCURRENCY_MAX)
            .with_patience(patience);
        let storage = ObjectStorage::new(options);
        let url = ObjectUrl::parse(&format!("s3://{BUCKET}")).expect("a URL");
        let bucket = storage.bucket(&url).expect("everything it needs is given");
        Self { storage, bucket }
    }

    /// Waits for what the bucket was asked.
    pub(super) fn run<T: Send>(&self, work: impl Future<Output = T> + Send) -> T {
        self.storage.block_on(work)
    }

    /// Creates an upload.
    pub(super) fn create_upload(&self, key: &str) -> String {
        let created = self.run(self.bucket.create_upload(key, NONCE));
        created.expect("created")
    }

    /// Puts a part, whatever may start.
    pub(super) fn put_part(
        &self,
        key: &str,
        id: &str,
        part: u32,
        bytes: &[u8],
    ) -> Result<String, ObjectError> {
        let put = self
            .bucket
            .put_part(key, id, PartOrdinal(part), body(bytes), || true);
        Ok(self.run(put)?.expect("nothing kept it from being sent"))
    }
}

impl Scene {
    pub(super) fn of(profile: Profile) -> Self {
        let emulator = Emulator::start(profile);
        let client = Client::with(PATIENCE, &emulator.access("chatvec"));
        Self { emulator, client }
    }

    /// Puts an object into the store, past the program, and returns its ETag as
    /// the store writes it.
    pub(super) fn put(&self, key: &str, bytes: &[u8]) -> String {
        let bucket = self.emulator.bucket();
        bucket.put(key, bytes.to_vec()).expect("put");
        format!("\"{}\"", self.emulator.objects()[key].etag)
    }

    /// The requests of a kind, as the program sent them.
    pub(super) fn requests(&self, operation: Operation) -> Vec<Request> {
        let history = self.emulator.history();
        let requests = history.of(operation);
        requests
            .filter(|request| request.access_key == "chatvec")
            .cloned()
            .collect()
    }

    /// The statuses of the answers to them.
    pub(super) fn statuses(&self, operation: Operation) -> Vec<Option<u16>> {
        let requests = self.requests(operation);
        requests.iter().map(|request| request.status).collect()
    }
}

/// Bytes that differ from place to place.
pub(super) fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8).collect()
}

pub(super) fn crc64(bytes: &[u8]) -> Crc64 {
    Crc64(crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, bytes))
}

/// The body of a part.
pub(super) fn body(bytes: &[u8]) -> PartBody {
    PartBody {
        len: bytes.len() as u64,
        crc64: crc64(bytes),
        chunks: vec![Bytes::copy_from_slice(bytes)],
    }
}
