//! The output side of a task: bytes that come piece by piece, the checksum of
//! each part, and where the bytes go.

mod file;
mod pool;
mod upload;

use chatvec_core::ids::Crc64;
use chatvec_core::task::PartRange;

pub(super) use self::file::FileOutput;
pub use self::pool::ChunkPool;
pub(super) use self::upload::{UploadOutput, UploadTarget};
use crate::worker::failure::Stop;

/// Where the bytes of a task go.
pub(super) enum Output<'a> {
    /// Into the unfinished file, chunk by chunk.
    File(FileOutput<'a>),
    /// Into the parts of an upload, part by part.
    Upload(UploadOutput<'a>),
}

impl Output<'_> {
    /// The next bytes are those of this part.
    pub(super) fn begin_part(&mut self, part: &PartRange) {
        match self {
            Self::File(file) => file.begin_part(part.offset),
            Self::Upload(upload) => upload.begin_part(part.part),
        }
    }

    /// Bytes until the chunk is full, never zero. Up to a kernel block more may
    /// be filled.
    pub(super) fn room(&self) -> usize {
        match self {
            Self::File(file) => file.room(),
            Self::Upload(upload) => upload.room(),
        }
    }

    /// The next `len` bytes, to be filled before [`Self::advance`].
    pub(super) fn space(&mut self, len: usize) -> &mut [u8] {
        match self {
            Self::File(file) => file.space(len),
            Self::Upload(upload) => upload.space(len),
        }
    }

    /// The next `len` bytes are there.
    ///
    /// # Errors
    /// [`Stop`] of the gate or of a write.
    pub(super) fn advance(&mut self, len: usize) -> Result<(), Stop> {
        match self {
            Self::File(file) => file.advance(len),
            Self::Upload(upload) => {
                upload.advance(len);
                Ok(())
            }
        }
    }

    /// The part is complete. Says its checksum; it may still be on its way.
    ///
    /// # Errors
    /// [`Stop`] of the gate, or of a write of this part or the one before.
    pub(super) fn finish_part(&mut self) -> Result<Crc64, Stop> {
        match self {
            Self::File(file) => file.finish_part(),
            Self::Upload(upload) => upload.finish_part(),
        }
    }

    /// Waits until all parts have arrived. Gives what the store names them by,
    /// in their order; on a filesystem nothing.
    ///
    /// # Errors
    /// [`Stop`] of the gate or of a write.
    pub(super) fn finish(&mut self) -> Result<Vec<String>, Stop> {
        match self {
            Self::File(_) => Ok(Vec::new()),
            Self::Upload(upload) => upload.finish(),
        }
    }
}
