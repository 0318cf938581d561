//! The exclusive lock on a folder with a job store's state. The kernel drops it with
//! the process that holds it, however that ends: holding it proves every
//! earlier process dead.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// The lock's file in the state folder.
pub(crate) const LOCK_NAME: &str = "lock";

/// Held as long as the value lives.
#[derive(Debug)]
pub(crate) struct FolderLock {
    _file: File,
}

/// Who holds the lock.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) pid: String,
}

/// Takes the lock of a state folder, which it creates if need be.
pub(crate) fn take(state_dir: &Path) -> io::Result<Result<FolderLock, Held>> {
    loop {
        fs::create_dir_all(state_dir)?;
        let path = state_dir.join(LOCK_NAME);
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path);
        let mut file = match opened {
            // An ending process removed the folder in between.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            opened => opened?,
        };
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let mut pid = String::new();
                file.read_to_string(&mut pid)?;
                return Ok(Err(Held {
                    pid: pid.trim().to_owned(),
                }));
            }
            Err(error) => return Err(error.into()),
        }
        // The holder before may have removed the file that this is the lock of.
        let is_current = fs::metadata(&path)
            .is_ok_and(|now| file.metadata().is_ok_and(|mine| mine.ino() == now.ino()));
        if is_current {
            file.set_len(0)?;
            writeln!(file, "{}", std::process::id())?;
            return Ok(Ok(FolderLock { _file: file }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_taker_learns_who_holds_it_and_gets_it_after_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let held = take(&state).unwrap().unwrap();
        let other = take(&state).unwrap().unwrap_err();
        assert_eq!(other.pid, std::process::id().to_string());
        drop(held);
        assert!(take(&state).unwrap().is_ok());
    }
}
