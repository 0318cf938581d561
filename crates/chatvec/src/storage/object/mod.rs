//! Checkpoints in object storage: S3 and what speaks its protocol, and, behind
//! features, Google Cloud Storage and Azure.
//!
//! The library below is `object_store`; what it hides, this module brings
//! back. Its retries are off, because a hidden retry of a write may start
//! after the lease was lost, leaks uploads, and keeps 503s from the one place
//! that can slow down. One loop (`call`) sends everything instead: it takes
//! a place in the bucket's `limiter`, asks whether it may still start, bounds
//! the time by the size of the body, and repeats what may be repeated.
//! `answer` keeps the store's own words, from which `error` classifies.
//! What the library lacks (listing parts and uploads, checksums of objects) is
//! in `s3`, as requests that it signs.

mod answer;
mod bucket;
mod call;
mod conditional;
mod connect;
mod credentials;
mod error;
mod limiter;
#[cfg(any(feature = "gcs", feature = "azure"))]
mod other_stores;
mod probe;
mod s3;
mod settings;
mod upload;
mod url;

pub use bucket::{Bucket, Head, ObjectInfo};
pub use conditional::Put;
pub use error::ObjectError;
pub use probe::{Finding, Promise, forget_probe, probe, probe_lightly};
pub use settings::{ObjectStorageOptions, Patience};
pub use upload::{ListedPart, PartBody};
pub use url::{ObjectUrl, ObjectUrlError, Scheme};

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinHandle;

/// Threads of the I/O runtime. Sockets and TLS keep one busy at some GB/s.
const IO_THREADS: usize = 2;

/// A process's way to object storage: cheap to clone, and made once. It
/// connects to nothing and starts no thread before the first bucket is asked
/// for.
#[derive(Clone)]
pub struct ObjectStorage {
    shared: Arc<Shared>,
}

struct Shared {
    options: ObjectStorageOptions,
    io: OnceLock<Io>,
    buckets: Mutex<HashMap<(Scheme, String), Bucket>>,
}

/// The runtime of all sockets. Arithmetic on threads that sockets need makes
/// stores hang up, so it is apart from every other.
struct Io(Option<Runtime>);

impl ObjectStorage {
    /// A handle; nothing is read or reached yet.
    pub fn new(options: ObjectStorageOptions) -> Self {
        Self {
            shared: Arc::new(Shared {
                options,
                io: OnceLock::new(),
                buckets: Mutex::default(),
            }),
        }
    }

    /// The bucket of a URL, with the clients and the limiter that all users of
    /// this handle share. Reaches nothing.
    ///
    /// # Errors
    /// [`ObjectError::Config`] where the settings make no client, and
    /// [`ObjectError::Unsupported`] where this build lacks the kind of store.
    pub fn bucket(&self, url: &ObjectUrl) -> Result<Bucket, ObjectError> {
        let key = (url.scheme(), url.bucket().to_owned());
        let buckets = &self.shared.buckets;
        let mut buckets = buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = buckets.get(&key) {
            return Ok(bucket.clone());
        }
        let connection = connect::connect(url, &self.shared.options)?;
        let bucket = Bucket::new(url, connection, &self.shared.options, self.io().clone());
        buckets.insert(key, bucket.clone());
        Ok(bucket)
    }

    /// Waits for `work` on this thread, which must not be one of a runtime.
    pub fn block_on<T: Send>(&self, work: impl Future<Output = T> + Send) -> T {
        self.io().block_on(work)
    }

    /// Starts `work` on the I/O runtime. It must not compute.
    pub fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.io().spawn(work)
    }

    fn io(&self) -> &Handle {
        self.shared.io.get_or_init(Io::start).handle()
    }
}

impl Io {
    fn start() -> Self {
        let runtime = Builder::new_multi_thread()
            .worker_threads(IO_THREADS)
            .thread_name("chatvec-io")
            .enable_all()
            .build()
            .expect("a machine that cannot start two threads cannot work");
        Self(Some(runtime))
    }

    fn handle(&self) -> &Handle {
        let runtime = self.0.as_ref();
        runtime.expect("taken in `drop` alone").handle()
    }
}

impl Drop for Io {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // The last handle may be dropped by a task, which must not wait.
            runtime.shutdown_background();
        }
    }
}

impl std::fmt::Debug for ObjectStorage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ObjectStorage").finish_non_exhaustive()
    }
}
