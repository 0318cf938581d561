//! Memory for the parts that a worker uploads.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use chatvec_core::kernel::BLOCK_ELEMENTS;

use crate::worker::execute::ELEMENT_BYTES_MAX;

/// Bytes after which a chunk is full: large enough that a part has few of them,
/// and small enough that the end of a part wastes little.
pub(super) const CHUNK_BYTES: usize = 1 << 20;
/// What a chunk holds: a kernel block may run over its end.
const CAPACITY: usize = CHUNK_BYTES + BLOCK_ELEMENTS * ELEMENT_BYTES_MAX;
/// Chunks that are kept beyond those that running tasks count on. Fresh memory
/// costs the kernel about as much as the merge itself, but a pool without limit
/// would keep memory that other tasks count on.
const SPARE_MAX: usize = 32;

/// Chunks of one size that are used again. Cheap to clone; clones share it.
///
/// Running tasks tell it how many chunks they count on, and it keeps so many:
/// what one task gives back is there for the others, which have the memory for
/// it anyway.
#[derive(Debug, Clone, Default)]
pub struct ChunkPool {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    spare: Vec<Box<[u8]>>,
    /// Chunks that somebody has.
    lent: usize,
    /// Chunks that the running tasks count on.
    expected: usize,
}

impl State {
    /// How many chunks may be spare.
    fn spare_max(&self) -> usize {
        (self.expected + SPARE_MAX).saturating_sub(self.lent)
    }
}

/// Chunks that a running task counts on, for as long as this lives.
#[derive(Debug)]
pub(super) struct Expected {
    chunks: usize,
    pool: ChunkPool,
}

impl ChunkPool {
    /// The most that it keeps beyond what running tasks count on.
    pub(in crate::worker) const BYTES_MAX: u64 = (SPARE_MAX * CAPACITY) as u64;

    /// What the chunks of a part take, and the one that is taken next.
    pub(in crate::worker::execute) fn bytes_of_part(len: u64) -> u64 {
        (len.div_ceil(CHUNK_BYTES as u64) + 1) * CAPACITY as u64
    }

    /// A task begins whose parts take so many bytes, by [`Self::bytes_of_part`].
    pub(super) fn expect(&self, bytes: u64) -> Expected {
        let chunks = usize::try_from(bytes / CAPACITY as u64).unwrap_or(usize::MAX);
        self.state().expected += chunks;
        Expected {
            chunks,
            pool: self.clone(),
        }
    }

    /// An empty chunk; its bytes are left over from earlier ones.
    pub(super) fn take(&self) -> Chunk {
        let spare = {
            let mut state = self.state();
            state.lent += 1;
            state.spare.pop()
        };
        Chunk {
            bytes: spare.unwrap_or_else(|| vec![0; CAPACITY].into_boxed_slice()),
            filled: 0,
            pool: self.clone(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        let mut state = self.pool.state();
        state.expected -= self.chunks;
        let kept = state.spare_max().min(state.spare.len());
        let surplus = state.spare.split_off(kept);
        // The system takes its time to get memory back.
        drop(state);
        drop(surplus);
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
        let mut state = self.pool.state();
        state.lent -= 1;
        if state.spare.len() < state.spare_max() {
            state.spare.push(std::mem::take(&mut self.bytes));
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
        assert_eq!((&clone[..], pool.state().spare.len()), (&b"abc"[..], 0));
        drop(clone);
        assert_eq!(pool.state().spare.len(), 1);
        assert_eq!(pool.take().filled(), 0);
    }

    fn take(pool: &ChunkPool, count: usize) -> Vec<Chunk> {
        (0..count).map(|_| pool.take()).collect()
    }

    #[test]
    fn the_pool_keeps_no_more_than_it_says() {
        let pool = ChunkPool::default();
        drop(take(&pool, SPARE_MAX + 5));
        let state = pool.state();
        let bytes: usize = state.spare.iter().map(|chunk| chunk.len()).sum();
        assert_eq!(bytes as u64, ChunkPool::BYTES_MAX);
    }

    #[test]
    fn what_running_tasks_count_on_is_kept_for_as_long_as_they_run() {
        let pool = ChunkPool::default();
        let part = 3 * CHUNK_BYTES as u64;
        let first = pool.expect(ChunkPool::bytes_of_part(part));
        let second = pool.expect(ChunkPool::bytes_of_part(part));
        drop(take(&pool, SPARE_MAX + 9));
        assert_eq!(pool.state().spare.len(), SPARE_MAX + 8);
        drop(first);
        assert_eq!(pool.state().spare.len(), SPARE_MAX + 4);
        // What is in use counts.
        let lent = take(&pool, SPARE_MAX + 2);
        drop(second);
        assert_eq!(pool.state().spare.len(), 0);
        drop(lent);
        assert_eq!(pool.state().spare.len(), SPARE_MAX);
    }
}
