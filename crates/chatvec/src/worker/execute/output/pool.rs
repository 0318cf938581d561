//! Memory for the parts that a worker uploads.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use chatvec_core::kernel::BLOCK_ELEMENTS;

use crate::worker::execute::ELEMENT_BYTES_MAX;

/// Bytes after which a chunk is full: large enough that a part has few of them,
/// and small enough that the end of a part wastes little.
pub(super) const CHUNK_BYTES: usize = 1 << 20;
/// What a chunk holds: a kernel block may run over its end.
const CAPACITY: usize = CHUNK_BYTES + BLOCK_ELEMENTS * ELEMENT_BYTES_MAX;
/// Chunks that are kept for the next part. Fresh memory costs the kernel about
/// as much as the merge itself, but a pool without limit would keep memory that
/// other tasks count on.
const SPARE_MAX: usize = 32;

/// Chunks of one size that are used again. Cheap to clone; clones share it.
#[derive(Debug, Clone, Default)]
pub struct ChunkPool {
    spare: Arc<Mutex<Vec<Box<[u8]>>>>,
}

impl ChunkPool {
    /// The most that it keeps.
    pub(in crate::worker) const BYTES_MAX: u64 = (SPARE_MAX * CAPACITY) as u64;

    /// What the chunks of a part take, and the one that is taken next.
    pub(in crate::worker::execute) fn bytes_of_part(len: u64) -> u64 {
        (len.div_ceil(CHUNK_BYTES as u64) + 1) * CAPACITY as u64
    }

    /// An empty chunk; its bytes are left over from earlier ones.
    pub(super) fn take(&self) -> Chunk {
        let spare = self
            .spare
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        Chunk {
            bytes: spare.unwrap_or_else(|| vec![0; CAPACITY].into_boxed_slice()),
            filled: 0,
            pool: self.clone(),
        }
    }
}

/// Memory that goes back to its pool.
pub(super) struct Chunk {
    bytes: Box<[u8]>,
    filled: usize,
    pool: ChunkPool,
}

impl Chunk {
    pub(super) fn filled(&self) -> usize {
        self.filled
    }

    /// The next `len` bytes, to be filled before [`Self::advance`].
    pub(super) fn space(&mut self, len: usize) -> &mut [u8] {
        &mut self.bytes[self.filled..][..len]
    }

    /// The next `len` bytes are there; returns them.
    pub(super) fn advance(&mut self, len: usize) -> &[u8] {
        let begin = self.filled;
        self.filled += len;
        &self.bytes[begin..self.filled]
    }

    /// What is filled, to be shared; the memory goes back when nobody has it.
    pub(super) fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.filled]
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        let mut spare = self
            .pool
            .spare
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if spare.len() < SPARE_MAX {
            spare.push(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_used_again_when_the_last_holder_has_gone() {
        let pool = ChunkPool::default();
        let mut chunk = pool.take();
        chunk.space(3).copy_from_slice(b"abc");
        assert_eq!(chunk.advance(3), b"abc");
        let shared = chunk.freeze();
        let clone = shared.clone();
        drop(shared);
        assert_eq!(
            (&clone[..], pool.spare.lock().unwrap().len()),
            (&b"abc"[..], 0)
        );
        drop(clone);
        assert_eq!(pool.spare.lock().unwrap().len(), 1);
        assert_eq!(pool.take().filled(), 0);
    }

    #[test]
    fn the_pool_keeps_no_more_than_it_says() {
        let pool = ChunkPool::default();
        let chunks: Vec<_> = (0..SPARE_MAX + 5).map(|_| pool.take()).collect();
        drop(chunks);
        let spare = pool.spare.lock().unwrap();
        let bytes: usize = spare.iter().map(|chunk| chunk.len()).sum();
        assert_eq!(bytes as u64, ChunkPool::BYTES_MAX);
    }
}
