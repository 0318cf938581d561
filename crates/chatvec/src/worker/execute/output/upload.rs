//! A target in a remote store: parts are collected in memory and put as a
//! whole, each while the next one is merged.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use chatvec_core::ids::{Crc64, PartOrdinal};
use chatvec_core::task::{FailureKind, TaskSpec};
use crc_fast::{CrcAlgorithm, Digest};
use tokio_util::task::AbortOnDropHandle;

use super::pool::{CHUNK_BYTES, Chunk, ChunkPool, Expected};
use crate::fault::{self, Failpoint};
use crate::storage::object::{Bucket, ObjectStorage, ObjectUrl, PartBody};
use crate::worker::execute::died;
use crate::worker::failure::Stop;
use crate::worker::gate::LeaseGate;

/// Parts of a task in memory at a time: one is put while the next is filled.
const PARTS_MAX: usize = 2;

/// The upload that a task fills.
#[derive(Debug, Clone)]
pub(in crate::worker::execute) struct UploadTarget {
    storage: ObjectStorage,
    bucket: Bucket,
    key: Arc<str>,
    upload_id: Arc<str>,
    memory_bytes: u64,
}

/// The parts of an upload, on their way.
pub(in crate::worker::execute) struct UploadOutput<'a> {
    target: UploadTarget,
    pool: ChunkPool,
    _memory: Expected,
    gate: &'a Arc<LeaseGate>,
    progress: Progress<'a>,
    part: PartOrdinal,
    /// The chunk that is being filled.
    chunk: Chunk,
    /// The full chunks of the part.
    full: Vec<Bytes>,
    digest: Digest,
    under_way: Option<UnderWay>,
    /// What the store names the parts by that have arrived.
    part_ids: Vec<String>,
}

/// A part that is being put. Whoever drops it ends that.
struct UnderWay {
    len: u64,
    put: AbortOnDropHandle<Result<String, Stop>>,
}

impl UploadTarget {
    /// The target of a task.
    ///
    /// # Errors
    /// A target that no store of this worker can have, or no upload.
    pub(in crate::worker::execute) fn open(
        spec: &TaskSpec,
        upload_id: &str,
        storage: &ObjectStorage,
    ) -> Result<Self, Stop> {
        let impossible =
            |message: String| Stop::failed(FailureKind::Internal, &spec.target, message);
        if upload_id.is_empty() {
            return Err(impossible("expected an upload, found none".to_owned()));
        }
        let url = ObjectUrl::parse(&spec.target).map_err(|error| impossible(error.to_string()))?;
        let bucket = storage
            .bucket(&url)
            .map_err(|error| Stop::of_upload(&error))?;
        Ok(Self {
            storage: storage.clone(),
            bucket,
            key: url.key().into(),
            upload_id: upload_id.into(),
            memory_bytes: Self::memory_bytes(spec),
        })
    }

    /// What the parts of a task take in memory.
    pub(in crate::worker::execute) fn memory_bytes(spec: &TaskSpec) -> u64 {
        let largest = spec.parts.iter().map(|part| part.len).max().unwrap_or(0);
        spec.parts.len().min(PARTS_MAX) as u64 * ChunkPool::bytes_of_part(largest)
    }

    /// Puts a part for as long as the gate lets it. A lease that ran out and
    /// was renewed goes on.
    async fn put(
        self,
        part: PartOrdinal,
        body: PartBody,
        gate: Arc<LeaseGate>,
    ) -> Result<String, Stop> {
        fault::hit(Failpoint::PutReady, &self.key)
            .await
            .map_err(Stop::injected)?;
        loop {
            let may_start = || gate.may_write().is_ok();
            let put =
                self.bucket
                    .put_part(&self.key, &self.upload_id, part, body.clone(), may_start);
            match put.await {
                Ok(Some(part_id)) => {
                    fault::hit(Failpoint::PutDone, &self.key)
                        .await
                        .map_err(Stop::injected)?;
                    return Ok(part_id);
                }
                Ok(None) => gate.may_write()?,
                Err(error) => return Err(Stop::of_upload(&error)),
            }
        }
    }
}

impl<'a> UploadOutput<'a> {
    pub(in crate::worker::execute) fn new(
        target: UploadTarget,
        pool: &ChunkPool,
        gate: &'a Arc<LeaseGate>,
        progress: &'a AtomicU64,
    ) -> Self {
        Self {
            _memory: pool.expect(target.memory_bytes),
            target,
            pool: pool.clone(),
            gate,
            progress: Progress {
                shown: progress,
                halves: 0,
            },
            part: PartOrdinal(0),
            chunk: pool.take(),
            full: Vec::new(),
            digest: Digest::new(CrcAlgorithm::Crc64Nvme),
            under_way: None,
            part_ids: Vec::new(),
        }
    }

    pub(super) fn begin_part(&mut self, part: PartOrdinal) {
        assert!(self.full.is_empty(), "the part before is finished");
        self.part = part;
        self.digest.reset();
    }

    pub(super) fn room(&self) -> usize {
        CHUNK_BYTES - self.chunk.filled()
    }

    pub(super) fn space(&mut self, len: usize) -> &mut [u8] {
        self.chunk.space(len)
    }

    pub(super) fn advance(&mut self, len: usize) {
        // Now, while they are still in the cache.
        self.digest.update(self.chunk.advance(len));
        self.progress.add(len as u64);
        if self.chunk.filled() >= CHUNK_BYTES {
            self.keep_chunk();
        }
    }

    fn keep_chunk(&mut self) {
        let chunk = std::mem::replace(&mut self.chunk, self.pool.take());
        self.full.push(chunk.freeze());
    }

    /// Begins to put the part, once the one before has arrived: the memory is
    /// for two.
    ///
    /// # Errors
    /// [`Stop`] of the part before.
    pub(super) fn finish_part(&mut self) -> Result<Crc64, Stop> {
        if self.chunk.filled() > 0 {
            self.keep_chunk();
        }
        let chunks = std::mem::take(&mut self.full);
        let body = PartBody {
            len: chunks.iter().map(|chunk| chunk.len() as u64).sum(),
            chunks,
            crc64: Crc64(self.digest.finalize()),
        };
        let (len, crc64) = (body.len, body.crc64);
        self.complete()?;
        let put = self
            .target
            .clone()
            .put(self.part, body, Arc::clone(self.gate));
        self.under_way = Some(UnderWay {
            len,
            put: AbortOnDropHandle::new(self.target.storage.spawn(put)),
        });
        Ok(crc64)
    }

    pub(super) fn finish(&mut self) -> Result<Vec<String>, Stop> {
        self.complete()?;
        Ok(std::mem::take(&mut self.part_ids))
    }

    /// Waits for the part that is under way, if any.
    fn complete(&mut self) -> Result<(), Stop> {
        let Some(under_way) = self.under_way.take() else {
            return Ok(());
        };
        let gate = self.gate;
        let part_id = self.target.storage.block_on(async {
            tokio::select! {
                put = under_way.put => put.map_err(|error| died(&error))?,
                () = gate.closed() => Err(gate.may_write().err().unwrap_or(Stop::LeaseLost)),
            }
        })?;
        self.part_ids.push(part_id);
        self.progress.add(under_way.len);
        Ok(())
    }
}

/// What is seen of a task: a byte counts half when it is merged and half when
/// its part has arrived, so a task that only waits for its store and one that
/// only computes are both seen to go on.
struct Progress<'a> {
    shown: &'a AtomicU64,
    halves: u64,
}

impl Progress<'_> {
    fn add(&mut self, halves: u64) {
        let before = self.halves / 2;
        self.halves += halves;
        self.shown
            .fetch_add(self.halves / 2 - before, Ordering::Relaxed);
    }
}
