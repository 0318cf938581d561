//! Fetches the inputs of a task from remote stores, ahead of the merge.

mod chunks;
mod plan;

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::vec;

use bytes::Bytes;
use chatvec_core::task::{FailureKind, SourceFile, TaskSpec};
use tokio_util::task::AbortOnDropHandle;

pub(super) use self::chunks::Chunks;
use self::plan::{FetchSizes, Get, Stripe};
use super::{died, is_remote};
use crate::storage::object::{Bucket, ObjectError, ObjectStorage, ObjectUrl};
use crate::worker::failure::Stop;
use crate::worker::gate::LeaseGate;

/// What the pin of a remote source begins with; its ETag follows.
const ETAG_PIN: &str = "etag=";

/// Stripes of a task in memory at a time. One of them is merged while the other
/// comes; as merging takes a fraction of the time, both are almost always under
/// way.
const WINDOW: usize = 2;

/// The most bytes of inputs that a task has in memory.
pub(super) fn memory_bytes(spec: &TaskSpec) -> u64 {
    plan::window_bytes(&plan::stripes(spec, FetchSizes::DEFAULT), WINDOW)
}

/// The same of a usual task of which nothing is known yet.
pub(super) const MEMORY_EXPECTED: u64 = WINDOW as u64 * FetchSizes::DEFAULT.stripe_bytes;

/// What a request brings.
type Answer = Result<Vec<Bytes>, ObjectError>;

/// Makes a request; whoever drops what it returns ends it.
type Read = Box<dyn Fn(&Get) -> AbortOnDropHandle<Answer> + Send>;

/// The stripes of a task, in order.
pub(super) struct Fetched {
    storage: ObjectStorage,
    read: Read,
    /// Of each source of the task, whether it is fetched.
    is_fetched: Vec<bool>,
    ahead: vec::IntoIter<Stripe>,
    under_way: VecDeque<UnderWay>,
    chunks: Chunks,
    /// Where the stripe of `chunks` ends in the output file.
    end: u64,
}

/// A stripe whose requests have been made.
struct UnderWay {
    end: u64,
    gets: Vec<(Get, AbortOnDropHandle<Answer>)>,
}

/// The stripe in hand.
#[derive(Clone, Copy)]
pub(super) struct InHand<'a> {
    pub(super) chunks: &'a Chunks,
    is_fetched: &'a [bool],
    /// Where it ends in the output file.
    pub(super) end: u64,
}

impl InHand<'_> {
    /// Whether a source of the task is in the stripe's chunks.
    pub(super) fn has(&self, source: u32) -> bool {
        self.is_fetched[source as usize]
    }
}

impl Fetched {
    /// Plans the fetches of a task, and makes the first. `None` where all that it
    /// reads is local.
    ///
    /// # Errors
    /// A source that no store of this worker can have.
    pub(super) fn begin(spec: &TaskSpec, storage: &ObjectStorage) -> Result<Option<Self>, Stop> {
        let remote = |source: &SourceFile| match is_remote(&source.url) {
            true => RemoteSource::open(source, storage).map(Some),
            false => Ok(None),
        };
        let sources: Vec<_> = spec.sources.iter().map(remote).collect::<Result<_, _>>()?;
        let io = storage.clone();
        let read = Box::new(move |get: &Get| {
            let source = sources[get.source as usize].clone();
            let source = source.expect("only remote sources are planned");
            AbortOnDropHandle::new(io.spawn(source.read(get.range.clone())))
        });
        Ok(Self::begin_with(spec, storage, FetchSizes::DEFAULT, read))
    }

    fn begin_with(
        spec: &TaskSpec,
        storage: &ObjectStorage,
        sizes: FetchSizes,
        read: Read,
    ) -> Option<Self> {
        let stripes = plan::stripes(spec, sizes);
        if stripes.is_empty() {
            return None;
        }
        let is_fetched = spec.sources.iter().map(|source| is_remote(&source.url));
        let mut fetched = Self {
            storage: storage.clone(),
            read,
            is_fetched: is_fetched.collect(),
            ahead: stripes.into_iter(),
            under_way: VecDeque::new(),
            chunks: Chunks::default(),
            end: 0,
        };
        fetched.request();
        Some(fetched)
    }

    /// The stripe with this byte of the output. Waits until its inputs are
    /// there; those of stripes before it are forgotten.
    ///
    /// # Errors
    /// [`Stop`] of the first request that failed, or when the gate is closed.
    pub(super) fn at(&mut self, offset: u64, gate: &LeaseGate) -> Result<InHand<'_>, Stop> {
        while offset >= self.end {
            // First of all: their memory is for the stripe after the next.
            self.chunks = Chunks::default();
            self.request();
            let next = self.under_way.pop_front();
            let next = next.expect("the stripes of a task reach to its end");
            self.end = next.end;
            self.chunks = self.storage.block_on(next.complete(gate))?;
        }
        Ok(InHand {
            chunks: &self.chunks,
            is_fetched: &self.is_fetched,
            end: self.end,
        })
    }

    /// Makes the requests of as many stripes as there is memory for.
    fn request(&mut self) {
        while self.under_way.len() < WINDOW
            && let Some(stripe) = self.ahead.next()
        {
            let gets = stripe.gets.into_iter().map(|get| {
                let read = (self.read)(&get);
                (get, read)
            });
            self.under_way.push_back(UnderWay {
                end: stripe.end,
                gets: gets.collect(),
            });
        }
    }
}

impl UnderWay {
    async fn complete(self, gate: &LeaseGate) -> Result<Chunks, Stop> {
        let mut chunks = Chunks::default();
        for (get, read) in self.gets {
            let read = tokio::select! {
                read = read => read.map_err(|error| died(&error))?,
                () = gate.closed() => return Err(gate.may_write().err().unwrap_or(Stop::LeaseLost)),
            };
            let read = read.map_err(|error| Stop::of_remote_source(&error))?;
            chunks.add(get.source, get.range.start, read);
        }
        Ok(chunks)
    }
}

/// What a remote source is read with.
#[derive(Clone)]
struct RemoteSource {
    bucket: Bucket,
    key: Arc<str>,
    etag: Arc<str>,
}

impl RemoteSource {
    fn open(source: &SourceFile, storage: &ObjectStorage) -> Result<Self, Stop> {
        let impossible =
            |message: String| Stop::failed(FailureKind::Internal, &source.url, message);
        let url = ObjectUrl::parse(&source.url).map_err(|error| impossible(error.to_string()))?;
        let etag = source.pin.strip_prefix(ETAG_PIN).ok_or_else(|| {
            impossible(format!(
                "expected the pin of an object, found `{}`",
                source.pin
            ))
        })?;
        let bucket = storage
            .bucket(&url)
            .map_err(|error| Stop::of_remote_source(&error))?;
        Ok(Self {
            bucket,
            key: url.key().into(),
            etag: etag.into(),
        })
    }

    async fn read(self, range: Range<u64>) -> Answer {
        self.bucket.read_range(&self.key, &self.etag, range).await
    }
}

#[cfg(test)]
use crate::storage::object::ObjectStorageOptions;

#[cfg(test)]
impl Fetched {
    /// Stripes as small as possible, each request answered by `answer` from a
    /// source and a range.
    pub(super) fn answered(
        spec: &TaskSpec,
        answer: impl Fn(u32, Range<u64>) -> Vec<Bytes> + Send + 'static,
    ) -> Option<Self> {
        let storage = ObjectStorage::new(ObjectStorageOptions::from_variables([]));
        let sizes = FetchSizes {
            stripe_bytes: 100 << 10,
            get_bytes_max: 20 << 10,
            gap_bytes_max: 256,
        };
        let io = storage.clone();
        let read = Box::new(move |get: &Get| {
            let chunks = answer(get.source, get.range.clone());
            AbortOnDropHandle::new(io.spawn(async move { Ok(chunks) }))
        });
        Self::begin_with(spec, &storage, sizes, read)
    }
}
