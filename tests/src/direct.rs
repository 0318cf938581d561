//! Files written past the page cache, as fast as the disk takes them.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use aligned_vec::{AVec, ConstAlign};
use rustix::fs::{FallocateFlags, OFlags, fallocate, fcntl_getfl, fcntl_setfl};

/// What direct I/O wants buffers, offsets and lengths aligned to; more than any
/// disk in use asks for.
const ALIGNMENT: usize = 4096;
/// One write.
const BLOCK_BYTES: usize = 1 << 20;

/// A file of known size, written from its first byte to its last.
pub struct DirectWriter {
    file: File,
    buffer: AVec<u8, ConstAlign<ALIGNMENT>>,
    filled: usize,
    written: u64,
    size: u64,
}

impl DirectWriter {
    /// Creates the file and reserves `size` bytes for it. A filesystem without
    /// direct I/O gets ordinary writes.
    pub fn create(path: &Path, size: u64) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        let direct = options
            .clone()
            .custom_flags(OFlags::DIRECT.bits() as i32)
            .open(path);
        let file = match direct {
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INVAL.raw_os_error()) => {
                options.open(path)?
            }
            other => other?,
        };
        if size > 0 {
            match fallocate(&file, FallocateFlags::empty(), 0, size) {
                // Reserving is a favour to the disk, not a need.
                Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let mut buffer = AVec::with_capacity(ALIGNMENT, BLOCK_BYTES);
        buffer.resize(BLOCK_BYTES, 0);
        Ok(Self {
            file,
            buffer,
            filled: 0,
            written: 0,
            size,
        })
    }

    /// Appends all that `source` gives.
    pub fn write_from(&mut self, source: &mut impl Read) -> io::Result<()> {
        loop {
            let got = source.read(&mut self.buffer[self.filled..])?;
            if got == 0 {
                return Ok(());
            }
            self.filled += got;
            if self.filled == BLOCK_BYTES {
                self.flush_block()?;
            }
        }
    }

    /// Writes the rest and waits until the disk has everything.
    ///
    /// # Panics
    /// If not exactly the announced number of bytes was written.
    pub fn finish(mut self) -> io::Result<()> {
        if self.filled > 0 {
            // The tail is not a whole block: direct I/O refuses it.
            let flags = fcntl_getfl(&self.file)?;
            fcntl_setfl(&self.file, flags - OFlags::DIRECT)?;
            self.flush_block()?;
        }
        assert_eq!(
            self.written, self.size,
            "a file must get its announced size"
        );
        self.file.sync_all()
    }

    fn flush_block(&mut self) -> io::Result<()> {
        self.file
            .write_all_at(&self.buffer[..self.filled], self.written)?;
        self.written += self.filled as u64;
        self.filled = 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_arrive_whatever_the_sizes_of_the_pieces() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let bytes: Vec<u8> = (0..BLOCK_BYTES * 2 + 12_345)
            .map(|i| (i * 7 % 251) as u8)
            .collect();
        let path = folder.path().join("file");
        let mut writer = DirectWriter::create(&path, bytes.len() as u64).expect("created");
        for piece in bytes.chunks(99_991) {
            writer.write_from(&mut &piece[..]).expect("written");
        }
        writer.finish().expect("finished");
        assert!(std::fs::read(&path).expect("read back") == bytes);
    }

    #[test]
    #[should_panic(expected = "announced size")]
    fn a_short_file_is_not_finished() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let mut writer = DirectWriter::create(&folder.path().join("file"), 3).expect("created");
        writer.write_from(&mut &b"ab"[..]).expect("written");
        writer
            .finish()
            .expect("unreachable: the assertion comes first");
    }
}
