//! A target on this machine: one buffer that is filled piece by piece, the
//! checksum of the part, and one gated write per chunk.

use std::sync::atomic::{AtomicU64, Ordering};

use chatvec_core::ids::Crc64;
use crc_fast::{CrcAlgorithm, Digest};

use crate::storage::local::PartialWriter;
use crate::worker::failure::Stop;
use crate::worker::gate::LeaseGate;

/// Bytes of output on their way to the file. The buffer is a chunk and a
/// little more: a piece may run over the end of its chunk.
pub(in crate::worker::execute) struct FileOutput<'a> {
    writer: PartialWriter,
    buffer: &'a mut [u8],
    chunk_bytes: usize,
    gate: &'a LeaseGate,
    progress: &'a AtomicU64,
    /// Where the buffer's first byte belongs in the file.
    offset: u64,
    filled: usize,
    digest: Digest,
}

impl<'a> FileOutput<'a> {
    pub(in crate::worker::execute) fn new(
        writer: PartialWriter,
        buffer: &'a mut [u8],
        chunk_bytes: usize,
        gate: &'a LeaseGate,
        progress: &'a AtomicU64,
    ) -> Self {
        assert!(buffer.len() > chunk_bytes);
        Self {
            writer,
            buffer,
            chunk_bytes,
            gate,
            progress,
            offset: 0,
            filled: 0,
            digest: Digest::new(CrcAlgorithm::Crc64Nvme),
        }
    }

    /// The next bytes are those of the part that begins at `offset`.
    pub(super) fn begin_part(&mut self, offset: u64) {
        assert_eq!(self.filled, 0, "the part before is finished");
        self.offset = offset;
        self.digest.reset();
    }

    /// Bytes until the chunk is full, never zero. Up to the buffer's surplus
    /// more may be written.
    pub(super) fn room(&self) -> usize {
        self.chunk_len() - self.filled
    }

    /// The next `len` bytes of the buffer, to be filled before [`Self::advance`].
    pub(super) fn space(&mut self, len: usize) -> &mut [u8] {
        &mut self.buffer[self.filled..][..len]
    }

    /// The next `len` bytes are there. Writes what is full.
    ///
    /// # Errors
    /// [`Stop`] of the gate or of the write.
    pub(super) fn advance(&mut self, len: usize) -> Result<(), Stop> {
        // Now, while they are still in the cache.
        self.digest.update(&self.buffer[self.filled..][..len]);
        self.filled += len;
        // More than once only where a kernel block is longer than a chunk.
        while self.filled >= self.chunk_len() {
            self.write(self.chunk_len())?;
        }
        Ok(())
    }

    /// Writes what is left of the part, and says its checksum.
    ///
    /// # Errors
    /// [`Stop`] of the gate or of the write.
    pub(super) fn finish_part(&mut self) -> Result<Crc64, Stop> {
        if self.filled > 0 {
            self.write(self.filled)?;
        }
        Ok(Crc64(self.digest.finalize()))
    }

    /// Chunks end at multiples of their size in the file, so the first one of
    /// a part may be shorter.
    fn chunk_len(&self) -> usize {
        self.chunk_bytes - (self.offset % self.chunk_bytes as u64) as usize
    }

    /// Writes the first `len` bytes; the rest moves to the front.
    fn write(&mut self, len: usize) -> Result<(), Stop> {
        self.gate.may_write()?;
        self.writer
            .write_all_at(&self.buffer[..len], self.offset)
            .map_err(|error| Stop::of_target(&error))?;
        self.progress.fetch_add(len as u64, Ordering::Relaxed);
        self.buffer.copy_within(len..self.filled, 0);
        self.offset += len as u64;
        self.filled -= len;
        Ok(())
    }
}
