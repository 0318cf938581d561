//! A worker's hand on the unfinished output file: direct I/O where the
//! filesystem takes it, buffered writes elsewhere, the same bytes either way.
//!
//! Direct I/O saves the copy into the page cache and its write-back, which
//! cost more than the merge itself.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use aligned_vec::{ABox, AVec, ConstAlign};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;

use super::LocalError;

/// Direct writes begin at multiples of this many bytes, in the file and in
/// memory, and are multiples of it long. No disk asks for more.
pub const ALIGNMENT: usize = 4096;

/// Memory that direct I/O accepts.
pub type AlignedBytes = ABox<[u8], ConstAlign<ALIGNMENT>>;

/// `len` zero bytes in aligned memory.
pub fn aligned_zeroes(len: usize) -> AlignedBytes {
    let mut bytes = AVec::<u8, ConstAlign<ALIGNMENT>>::with_capacity(ALIGNMENT, len);
    bytes.resize(len, 0);
    bytes.into_boxed_slice()
}

/// Whether to write around the page cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Direct {
    /// Where the filesystem takes it.
    #[default]
    WhereAccepted,
    /// Never: plain buffered writes.
    Never,
}

/// The unfinished output file, open for writing at any offset.
#[derive(Debug)]
pub struct PartialWriter {
    file: File,
    path: PathBuf,
    is_direct: bool,
}

impl PartialWriter {
    /// Opens the unfinished file of `size` bytes; never creates it.
    ///
    /// # Errors
    /// [`LocalError::Absent`] if the file is gone: the job was cleaned up.
    /// [`LocalError::WrongSize`] if it is not the one that was prepared.
    pub fn open(path: &Path, size: u64, direct: Direct) -> Result<Self, LocalError> {
        let writer = match direct {
            Direct::WhereAccepted => Self::open_as(path, true),
            Direct::Never => Self::open_as(path, false),
        }
        .map_err(|error| LocalError::io("open", path, error))?;
        let metadata = writer
            .file
            .metadata()
            .map_err(|error| LocalError::io("stat", path, error))?;
        if metadata.len() != size {
            return Err(LocalError::WrongSize {
                path: path.to_owned(),
                expected: size,
                found: metadata.len(),
            });
        }
        Ok(writer)
    }

    fn open_as(path: &Path, is_direct: bool) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.write(true);
        if is_direct {
            options.custom_flags(OFlags::DIRECT.bits().cast_signed());
        }
        match options.open(path) {
            Ok(file) => Ok(Self {
                file,
                path: path.to_owned(),
                is_direct,
            }),
            // The filesystem has no direct I/O.
            Err(error) if is_direct && is_invalid(&error) => Self::open_as(path, false),
            Err(error) => Err(error),
        }
    }

    /// Whether writes still go around the page cache.
    pub fn is_direct(&self) -> bool {
        self.is_direct
    }

    /// Writes all of `bytes` at `offset`. Whole blocks of aligned memory at an
    /// aligned offset are written directly; the tail that is less than a block
    /// goes through the page cache. A filesystem that refuses direct I/O only
    /// when written to is written to through the page cache from then on.
    ///
    /// # Errors
    /// [`LocalError::Io`]; bytes before the failing one may have been written.
    pub fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> Result<(), LocalError> {
        let tail = if self.is_direct {
            bytes.len() % ALIGNMENT
        } else {
            0
        };
        let (blocks, tail) = bytes.split_at(bytes.len() - tail);
        self.write_blocks(blocks, offset)
            .and_then(|()| self.write_tail(tail, offset + blocks.len() as u64))
            .map_err(|error| LocalError::io("write to", &self.path, error))
    }

    fn write_blocks(&mut self, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.file.write_at(bytes, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    bytes = &bytes[written..];
                    offset += written as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if self.is_direct && is_invalid(&error) => {
                    self.set_direct(false)?;
                    self.is_direct = false;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn write_tail(&mut self, tail: &[u8], offset: u64) -> io::Result<()> {
        if tail.is_empty() {
            return Ok(());
        }
        if !self.is_direct {
            return self.file.write_all_at(tail, offset);
        }
        self.set_direct(false)?;
        let written = self.file.write_all_at(tail, offset);
        self.set_direct(true)?;
        written
    }

    fn set_direct(&self, on: bool) -> io::Result<()> {
        let mut flags = fcntl_getfl(&self.file)?;
        flags.set(OFlags::DIRECT, on);
        Ok(fcntl_setfl(&self.file, flags)?)
    }
}

fn is_invalid(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::INVAL)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn pattern(len: usize) -> AlignedBytes {
        let mut bytes = aligned_zeroes(len);
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = (i * 31 + i / 256) as u8 | 1;
        }
        bytes
    }

    fn empty_file(dir: &Path, len: usize) -> PathBuf {
        let path = dir.join("out");
        File::create(&path).unwrap().set_len(len as u64).unwrap();
        path
    }

    #[test]
    fn blocks_and_an_unaligned_tail_arrive_directly_and_buffered() {
        let len = 3 * ALIGNMENT + 77;
        for direct in [Direct::WhereAccepted, Direct::Never] {
            let dir = tempfile::tempdir().unwrap();
            let path = empty_file(dir.path(), len);
            let mut writer = PartialWriter::open(&path, len as u64, direct).unwrap();
            let was_direct = writer.is_direct();
            let bytes = pattern(len);
            writer.write_all_at(&bytes[ALIGNMENT..], 4096).unwrap();
            // After a tail the next blocks are written directly again.
            assert_eq!(writer.is_direct(), was_direct);
            let flags = fcntl_getfl(&writer.file).unwrap();
            assert_eq!(flags.contains(OFlags::DIRECT), was_direct);
            writer.write_all_at(&bytes[..ALIGNMENT], 0).unwrap();
            assert_eq!(fs::read(&path).unwrap(), bytes[..]);
        }
    }

    #[test]
    fn a_refused_direct_write_is_repeated_through_the_page_cache() {
        let dir = tempfile::tempdir().unwrap();
        let path = empty_file(dir.path(), 3 * ALIGNMENT);
        let size = 3 * ALIGNMENT as u64;
        let mut writer = PartialWriter::open(&path, size, Direct::WhereAccepted).unwrap();
        let expected_fault = writer.is_direct() && refuses_odd_memory(dir.path());
        let bytes = pattern(2 * ALIGNMENT + 1);
        // Memory at an odd address is what direct I/O refuses with `EINVAL`.
        writer.write_all_at(&bytes[1..], 4096).unwrap();
        assert!(!(writer.is_direct() && expected_fault));
        let written = fs::read(&path).unwrap();
        assert_eq!(written[..ALIGNMENT], [0; ALIGNMENT]);
        assert_eq!(written[ALIGNMENT..], bytes[1..]);
    }

    /// Filesystems in memory take any address, so that the fault can't fire there.
    fn refuses_odd_memory(dir: &Path) -> bool {
        let path = dir.join("probe");
        File::create(&path).unwrap();
        let mut options = OpenOptions::new();
        options.write(true);
        options.custom_flags(OFlags::DIRECT.bits().cast_signed());
        let file = options.open(&path).unwrap();
        let error = file.write_at(&pattern(ALIGNMENT + 1)[1..], 0).err();
        error.is_some_and(|error| is_invalid(&error))
    }

    #[test]
    fn a_file_that_cannot_be_opened_directly_is_opened_for_buffered_writes() {
        // The device refuses direct I/O when opened, and every write as on a full disk.
        let mut writer =
            PartialWriter::open(Path::new("/dev/full"), 0, Direct::WhereAccepted).unwrap();
        assert!(!writer.is_direct());
        let error = writer.write_all_at(&pattern(ALIGNMENT), 4096).unwrap_err();
        assert_eq!(error.io_kind(), Some(io::ErrorKind::StorageFull));
    }

    #[test]
    fn a_missing_file_is_absent_and_not_created() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        let error = PartialWriter::open(&path, 10, Direct::WhereAccepted).unwrap_err();
        assert!(matches!(error, LocalError::Absent { .. }));
        assert!(!path.exists());
    }

    #[test]
    fn a_file_of_another_size_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = empty_file(dir.path(), 10);
        let error = PartialWriter::open(&path, 11, Direct::WhereAccepted).unwrap_err();
        assert!(error.to_string().ends_with("expected 11 bytes, found 10"));
    }
}
