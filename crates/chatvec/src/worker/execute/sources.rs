//! The open source files of a slot.

use chatvec_core::task::SourceFile;

use crate::storage::local::{LocalError, SourceReader};

/// Open files a slot keeps: a merge of two vectors reads five files at a time,
/// and a process has room for a thousand.
const OPEN_MAX: usize = 32;

/// Source files open from an earlier read, least recently read first. They stay
/// open between tasks that share them.
#[derive(Debug, Default)]
pub(super) struct OpenSources {
    open: Vec<OpenSource>,
}

#[derive(Debug)]
struct OpenSource {
    reader: SourceReader,
    /// Read by this task, and not verified since.
    is_read: bool,
}

impl OpenSources {
    /// A task over these sources begins. Others are closed: an open file holds
    /// the disk space of a removed one.
    pub(super) fn begin_task(&mut self, sources: &[SourceFile]) {
        self.open
            .retain(|open| sources.iter().any(|source| open.reader.is(source)));
        for open in &mut self.open {
            open.is_read = false;
        }
    }

    /// The source, open, for a read.
    ///
    /// # Errors
    /// [`LocalError`] of opening this one, or of verifying the one that had to
    /// be closed for it.
    pub(super) fn get(&mut self, source: &SourceFile) -> Result<&SourceReader, LocalError> {
        match self.open.iter().rposition(|open| open.reader.is(source)) {
            Some(position) => self.open[position..].rotate_left(1),
            None => {
                if self.open.len() == OPEN_MAX {
                    let closed = self.open.remove(0);
                    if closed.is_read {
                        closed.reader.verify()?;
                    }
                }
                self.open.push(OpenSource {
                    reader: SourceReader::open(source)?,
                    is_read: false,
                });
            }
        }
        let last = self.open.last_mut().expect("moved or pushed just now");
        last.is_read = true;
        Ok(&last.reader)
    }

    /// Proves that all that this task has read came from the pinned files.
    ///
    /// # Errors
    /// [`LocalError`] of the first that is not the pinned one any more.
    pub(super) fn verify_read(&self) -> Result<(), LocalError> {
        self.open
            .iter()
            .filter(|open| open.is_read)
            .try_for_each(|open| open.reader.verify())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::storage::pin::pin_of;

    fn sources(dir: &Path, count: usize) -> Vec<SourceFile> {
        (0..count)
            .map(|i| {
                let path = dir.join(i.to_string());
                fs::write(&path, [i as u8; 8]).unwrap();
                let metadata = fs::metadata(&path).unwrap();
                SourceFile {
                    url: path.to_str().unwrap().to_owned(),
                    size: metadata.len(),
                    pin: pin_of(&metadata),
                }
            })
            .collect()
    }

    fn first_byte(open: &mut OpenSources, source: &SourceFile) -> Result<u8, LocalError> {
        let mut byte = [0];
        open.get(source)?.read_exact_at(&mut byte, 0)?;
        Ok(byte[0])
    }

    #[test]
    fn more_sources_than_may_be_open_are_all_read() {
        let dir = tempfile::tempdir().unwrap();
        let files = sources(dir.path(), OPEN_MAX + 5);
        let mut open = OpenSources::default();
        for round in 0..2 {
            for (i, source) in files.iter().enumerate() {
                let byte = first_byte(&mut open, source).unwrap();
                assert_eq!(usize::from(byte), i, "round {round}");
                assert!(open.open.len() <= OPEN_MAX);
            }
        }
        open.verify_read().unwrap();
    }

    #[test]
    fn a_source_that_changed_is_noticed_when_it_has_to_be_closed() {
        let dir = tempfile::tempdir().unwrap();
        let files = sources(dir.path(), OPEN_MAX + 1);
        let mut open = OpenSources::default();
        for source in &files[..OPEN_MAX] {
            first_byte(&mut open, source).unwrap();
        }
        fs::write(&files[0].url, b"longer than it was").unwrap();
        let error = first_byte(&mut open, &files[OPEN_MAX]).unwrap_err();
        assert!(matches!(error, LocalError::Changed { .. }), "{error}");
    }

    #[test]
    fn only_what_the_task_has_read_is_verified() {
        let dir = tempfile::tempdir().unwrap();
        let files = sources(dir.path(), 2);
        let mut open = OpenSources::default();
        first_byte(&mut open, &files[0]).unwrap();
        first_byte(&mut open, &files[1]).unwrap();
        open.begin_task(&files);
        first_byte(&mut open, &files[0]).unwrap();
        fs::write(&files[1].url, b"longer than it was").unwrap();
        open.verify_read().unwrap();
        fs::write(&files[0].url, b"longer than it was").unwrap();
        open.verify_read().unwrap_err();
    }

    #[test]
    fn sources_of_no_further_use_are_closed() {
        let dir = tempfile::tempdir().unwrap();
        let files = sources(dir.path(), 2);
        let mut open = OpenSources::default();
        first_byte(&mut open, &files[0]).unwrap();
        first_byte(&mut open, &files[1]).unwrap();
        open.begin_task(&files[1..]);
        assert_eq!(open.open.len(), 1);
        assert!(open.open[0].reader.is(&files[1]));
    }
}
