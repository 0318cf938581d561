//! A source file, opened once and proven to be the one that was planned.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use chatvec_core::task::SourceFile;

use super::LocalError;
use crate::storage::pin::pin_of;

/// An open source file. Bytes read from it are those of the plan if
/// [`SourceReader::verify`] succeeds *after* they were read.
#[derive(Debug)]
pub struct SourceReader {
    file: File,
    path: PathBuf,
    pin: String,
}

impl SourceReader {
    /// Opens the file that `source` pins.
    ///
    /// # Errors
    /// [`LocalError::Changed`] if the path leads to a file with another pin,
    /// [`LocalError::Absent`] if there is none.
    pub fn open(source: &SourceFile) -> Result<Self, LocalError> {
        let path = PathBuf::from(&source.url);
        // Before opening: to open a pipe that took the file's place would block.
        check_path(&path, &source.pin)?;
        let file = File::open(&path).map_err(|error| LocalError::io("open", &path, error))?;
        let reader = Self {
            file,
            path,
            pin: source.pin.clone(),
        };
        reader.check_open_file()?;
        Ok(reader)
    }

    /// Whether this is the very object that `source` names.
    pub fn is(&self, source: &SourceFile) -> bool {
        self.pin == source.pin && self.path.as_os_str() == source.url.as_str()
    }

    /// Fills `out` with the bytes that begin at `offset`.
    ///
    /// # Errors
    /// [`LocalError::Truncated`] if the file ends before `out` is full.
    pub fn read_exact_at(&self, out: &mut [u8], offset: u64) -> Result<(), LocalError> {
        let read = read_full_at(&self.file, out, offset)
            .map_err(|error| LocalError::io("read", &self.path, error))?;
        if read == out.len() {
            return Ok(());
        }
        Err(LocalError::Truncated {
            path: self.path.clone(),
            offset,
            expected: out.len() as u64,
            found: read as u64,
        })
    }

    /// Checks that neither the path nor the open file changed since the plan:
    /// the path would tell of a replacement, the open file of a write in place.
    ///
    /// # Errors
    /// [`LocalError::Changed`] or [`LocalError::Absent`].
    pub fn verify(&self) -> Result<(), LocalError> {
        self.check_open_file()?;
        check_path(&self.path, &self.pin)
    }

    fn check_open_file(&self) -> Result<(), LocalError> {
        let metadata = self
            .file
            .metadata()
            .map_err(|error| LocalError::io("stat", &self.path, error))?;
        check_pin(&self.path, &self.pin, pin_of(&metadata))
    }
}

/// Reads until `out` is full or the file ends; says how many bytes there were.
pub(super) fn read_full_at(file: &File, out: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < out.len() {
        match file.read_at(&mut out[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

fn check_path(path: &Path, pin: &str) -> Result<(), LocalError> {
    let metadata = fs::metadata(path).map_err(|error| LocalError::io("stat", path, error))?;
    check_pin(path, pin, pin_of(&metadata))
}

fn check_pin(path: &Path, expected: &str, found: String) -> Result<(), LocalError> {
    if found == expected {
        return Ok(());
    }
    Err(LocalError::Changed {
        path: path.to_owned(),
        expected: expected.to_owned(),
        found,
    })
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;

    use super::*;

    fn planned(path: &Path) -> SourceFile {
        let metadata = fs::metadata(path).unwrap();
        SourceFile {
            url: path.to_str().unwrap().to_owned(),
            size: metadata.len(),
            pin: pin_of(&metadata),
        }
    }

    #[test]
    fn an_untouched_file_reads_and_verifies() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        fs::write(&path, b"0123456789").unwrap();
        let reader = SourceReader::open(&planned(&path)).unwrap();
        let mut out = [0; 4];
        reader.read_exact_at(&mut out, 6).unwrap();
        assert_eq!(&out, b"6789");
        reader.verify().unwrap();
    }

    #[test]
    fn a_read_past_the_end_is_called_truncated() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        fs::write(&path, b"0123456789").unwrap();
        let reader = SourceReader::open(&planned(&path)).unwrap();
        let error = reader.read_exact_at(&mut [0; 8], 6).unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with("is truncated: expected 8 bytes at offset 6, found 4"),
            "{error}"
        );
    }

    #[test]
    fn a_replaced_file_is_refused_at_opening_and_at_verification() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("a"), dir.path().join("b"));
        fs::write(&path, b"0123456789").unwrap();
        fs::write(&other, b"0123456789").unwrap();
        let source = planned(&path);
        let reader = SourceReader::open(&source).unwrap();
        fs::rename(&other, &path).unwrap();
        assert!(matches!(reader.verify(), Err(LocalError::Changed { .. })));
        assert!(matches!(
            SourceReader::open(&source),
            Err(LocalError::Changed { .. })
        ));
    }

    #[test]
    fn a_write_in_place_and_a_truncation_fail_the_verification() {
        let dir = tempfile::tempdir().unwrap();
        for truncate in [false, true] {
            let path = dir.path().join("a");
            fs::write(&path, b"0123456789").unwrap();
            let file = OpenOptions::new().write(true).open(&path).unwrap();
            let earlier = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000);
            file.set_modified(earlier).unwrap();
            let reader = SourceReader::open(&planned(&path)).unwrap();
            if truncate {
                file.set_len(3).unwrap();
            } else {
                file.write_all_at(b"x", 5).unwrap();
            }
            let error = reader.verify().unwrap_err();
            assert!(matches!(error, LocalError::Changed { .. }), "{error}");
        }
    }

    #[test]
    fn a_removed_file_is_absent() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        fs::write(&path, b"0123456789").unwrap();
        let source = planned(&path);
        let reader = SourceReader::open(&source).unwrap();
        fs::remove_file(&path).unwrap();
        // The open file lives on, so only the path tells.
        assert!(matches!(reader.verify(), Err(LocalError::Absent { .. })));
        assert!(matches!(
            SourceReader::open(&source),
            Err(LocalError::Absent { .. })
        ));
    }
}
