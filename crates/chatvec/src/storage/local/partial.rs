//! The unfinished output file in the hands of the coordinator.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use chatvec_core::ids::Crc64;
use crc_fast::{CrcAlgorithm, Digest};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use super::source::read_full_at;
use super::{LocalError, sync_dir};

/// Bytes read at once to verify what is written already.
const VERIFY_BLOCK_BYTES: usize = 256 << 10;

/// The unfinished output file: its space is reserved before any worker writes
/// to it, so that a full disk shows at the start and not after hours.
#[derive(Debug)]
pub struct PartialFile {
    file: File,
    path: PathBuf,
}

impl PartialFile {
    /// Creates the file with space for `size` bytes, and makes its name
    /// durable. What an earlier process wrote into it stays: a repeat changes
    /// nothing. Where the filesystem can't reserve space the file is sparse.
    ///
    /// # Errors
    /// [`LocalError::WrongSize`] if a larger file is there already;
    /// [`LocalError::Io`] with `StorageFull` if the space is not there, and
    /// then a file that this call made is removed.
    pub fn create(path: &Path, size: u64) -> Result<Self, LocalError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(|error| LocalError::io("create", path, error))?;
        let found = file
            .metadata()
            .map_err(|error| LocalError::io("stat", path, error))?
            .len();
        if found > size {
            return Err(LocalError::WrongSize {
                path: path.to_owned(),
                expected: size,
                found,
            });
        }
        // Also for a file that has the size: the process that made it may have
        // died before all of its space was reserved.
        if let Err(error) = reserve(&file, found, size) {
            if found == 0 {
                // The error to tell is the first one.
                let _ = fs::remove_file(path);
            }
            return Err(LocalError::io("reserve space for", path, error));
        }
        if let Some(dir) = path.parent() {
            sync_dir(dir)?;
        }
        Ok(Self {
            file,
            path: path.to_owned(),
        })
    }

    /// CRC-64/NVME of `len` bytes from `offset` on, as they are now.
    ///
    /// # Errors
    /// [`LocalError::Truncated`] if the file ends before.
    pub fn crc64_of_range(&self, offset: u64, len: u64) -> Result<Crc64, LocalError> {
        let mut digest = Digest::new(CrcAlgorithm::Crc64Nvme);
        let mut block = vec![0; VERIFY_BLOCK_BYTES];
        let mut done = 0;
        while done < len {
            let wanted = (len - done).min(VERIFY_BLOCK_BYTES as u64) as usize;
            let read = read_full_at(&self.file, &mut block[..wanted], offset + done)
                .map_err(|error| LocalError::io("read", &self.path, error))?;
            digest.update(&block[..read]);
            done += read as u64;
            if read < wanted {
                return Err(LocalError::Truncated {
                    path: self.path.clone(),
                    offset,
                    expected: len,
                    found: done,
                });
            }
        }
        Ok(Crc64(digest.finalize()))
    }

    /// Returns when all bytes, whoever wrote them, are on the disk.
    ///
    /// # Errors
    /// [`LocalError::Io`]: what was written may be lost.
    pub fn sync(&self) -> Result<(), LocalError> {
        self.file
            .sync_all()
            .map_err(|error| LocalError::io("sync", &self.path, error))
    }
}

fn reserve(file: &File, found: u64, size: u64) -> io::Result<()> {
    if size == 0 {
        return Ok(());
    }
    match fallocate(file, FallocateFlags::empty(), 0, size) {
        Ok(()) => Ok(()),
        Err(Errno::OPNOTSUPP | Errno::NOSYS) if found < size => file.set_len(size),
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileExt, MetadataExt};

    use super::*;

    #[test]
    fn a_new_file_has_its_whole_size_and_space() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        PartialFile::create(&path, 100_001).unwrap();
        let metadata = fs::metadata(&path).unwrap();
        assert_eq!(metadata.len(), 100_001);
        assert!(metadata.blocks() * 512 >= 100_001);
    }

    #[test]
    fn creating_again_keeps_what_is_written_and_completes_the_size() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        fs::write(&path, b"written").unwrap();
        for _ in 0..2 {
            let partial = PartialFile::create(&path, 10).unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"written\0\0\0");
            partial.sync().unwrap();
        }
    }

    #[test]
    fn a_larger_file_is_refused_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        fs::write(&path, b"something else").unwrap();
        let error = PartialFile::create(&path, 3).unwrap_err();
        assert!(matches!(error, LocalError::WrongSize { found: 14, .. }));
        assert_eq!(fs::read(&path).unwrap(), b"something else");
    }

    #[test]
    fn the_checksum_of_a_range_is_that_of_its_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        let len = 2 * VERIFY_BLOCK_BYTES + 1000;
        let bytes: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
        let partial = PartialFile::create(&path, len as u64).unwrap();
        partial.file.write_all_at(&bytes, 0).unwrap();
        let crc = partial.crc64_of_range(100, len as u64 - 100).unwrap();
        assert_eq!(crc.0, crc_fast::crc64_nvme(&bytes[100..]));
        // The check value that the catalogue of CRCs gives.
        partial.file.write_all_at(b"123456789", 7).unwrap();
        let check = partial.crc64_of_range(7, 9).unwrap();
        assert_eq!(check.to_hex(), "ae8b14860a799888");
    }

    #[test]
    fn a_range_beyond_the_end_is_truncated() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        let partial = PartialFile::create(&path, 10).unwrap();
        let error = partial.crc64_of_range(4, 10).unwrap_err();
        assert!(matches!(error, LocalError::Truncated { found: 6, .. }));
    }
}
