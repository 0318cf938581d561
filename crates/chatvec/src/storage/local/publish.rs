//! The renames that make finished files visible, and the syncs that make the
//! renames last.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::LocalError;

/// Renames `from` to `to`, in place of a file that may be there. The content
/// of `from` must have been synced before; the rename lasts once [`sync_dir`]
/// has returned for the folder of `to`. A repeat after success is
/// [`LocalError::Absent`].
///
/// # Errors
/// [`LocalError::Absent`] if `from` does not exist.
pub fn rename(from: &Path, to: &Path) -> Result<(), LocalError> {
    fs::rename(from, to).map_err(|error| LocalError::io("rename", from, error))
}

/// As [`rename`], but fails if `to` exists: of several callers one succeeds.
///
/// # Errors
/// [`LocalError::Io`] with `AlreadyExists` if `to` exists.
pub fn rename_noreplace(from: &Path, to: &Path) -> Result<(), LocalError> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => link_then_unlink(from, to),
        Err(error) => Err(io::Error::from(error)),
    }
    .map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => LocalError::io("rename", to, error),
        _ => LocalError::io("rename", from, error),
    })
}

/// A hard link never replaces; a crash in between leaves both names, and a
/// repeat then finds `to` taken.
fn link_then_unlink(from: &Path, to: &Path) -> io::Result<()> {
    fs::hard_link(from, to)?;
    fs::remove_file(from)
}

/// Makes the names in a folder durable.
///
/// # Errors
/// [`LocalError::Io`].
pub fn sync_dir(dir: &Path) -> Result<(), LocalError> {
    // The parent of a bare file name is the empty path.
    let dir = if dir.as_os_str().is_empty() {
        Path::new(".")
    } else {
        dir
    };
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(|error| LocalError::io("sync", dir, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rename_replaces_the_file_that_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("partial");
        fs::create_dir(&inner).unwrap();
        let (from, to) = (inner.join("a"), dir.path().join("a"));
        fs::write(&from, b"new").unwrap();
        fs::write(&to, b"old").unwrap();
        rename(&from, &to).unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"new");
        assert!(matches!(rename(&from, &to), Err(LocalError::Absent { .. })));
    }

    #[test]
    fn a_rename_without_replacement_leaves_an_existing_file_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("a"), dir.path().join("b"));
        fs::write(&from, b"first").unwrap();
        rename_noreplace(&from, &to).unwrap();
        fs::write(&from, b"second").unwrap();
        let error = rename_noreplace(&from, &to).unwrap_err();
        assert_eq!(error.io_kind(), Some(io::ErrorKind::AlreadyExists));
        assert_eq!(fs::read(&to).unwrap(), b"first");
        assert_eq!(fs::read(&from).unwrap(), b"second");
    }

    #[test]
    fn the_empty_path_is_the_working_directory() {
        sync_dir(Path::new("")).unwrap();
        let error = sync_dir(Path::new("/nowhere/at/all")).unwrap_err();
        assert!(matches!(error, LocalError::Absent { .. }));
    }

    #[test]
    fn a_link_and_an_unlink_do_the_same_where_the_flag_is_unknown() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("a"), dir.path().join("b"));
        fs::write(&from, b"first").unwrap();
        link_then_unlink(&from, &to).unwrap();
        assert!(!from.exists());
        fs::write(&from, b"second").unwrap();
        let error = link_then_unlink(&from, &to).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&to).unwrap(), b"first");
    }
}
