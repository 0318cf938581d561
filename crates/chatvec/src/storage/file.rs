//! Reading local files such that a later reader can tell whether they are
//! still the same.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use chatvec_core::problem::Problem;
use chatvec_core::task::SourceFile;

use super::pin::pin_of;

/// The longest side file that is read whole: tokenizers of large vocabularies
/// have tens of megabytes.
pub(super) const WHOLE_FILE_MAX: u64 = 256 << 20;

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It is not there.
    #[error("no such file or folder")]
    NotFound {
        /// The file.
        path: PathBuf,
    },
    /// A symbolic link whose target is not there.
    #[error("broken link: `{}` is not there", .target.display())]
    BrokenLink {
        /// The link.
        path: PathBuf,
        /// What it says.
        target: PathBuf,
    },
    /// This user may not read it.
    #[error("permission denied")]
    PermissionDenied {
        /// The file or folder.
        path: PathBuf,
    },
    /// Paths travel as text, and this one is none.
    #[error("the name is not UTF-8")]
    NotUtf8 {
        /// The file.
        path: PathBuf,
    },
    /// It is being written while it is read.
    #[error("the file changed while it was read")]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// More than any file of its kind has.
    #[error("expected at most {WHOLE_FILE_MAX} bytes, found {size}")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
    },
    /// Anything else that the system reports.
    #[error("{source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was reported.
        source: io::Error,
    },
}

impl FileError {
    /// Classifies what the system reports of a path.
    pub(super) fn of(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::PermissionDenied => Self::PermissionDenied { path },
            io::ErrorKind::NotFound => match fs::read_link(&path) {
                Ok(target) => Self::BrokenLink { path, target },
                Err(_) => Self::NotFound { path },
            },
            // A read at a fixed place that ends early: the file became shorter.
            io::ErrorKind::UnexpectedEof => Self::Changed { path },
            _ => Self::Io { path, source },
        }
    }

    /// The file or folder.
    pub fn path(&self) -> &Path {
        match self {
            Self::NotFound { path }
            | Self::BrokenLink { path, .. }
            | Self::PermissionDenied { path }
            | Self::NotUtf8 { path }
            | Self::Changed { path }
            | Self::TooLarge { path, .. }
            | Self::Io { path, .. } => path,
        }
    }

    /// The error as a problem of its path, with advice.
    pub fn problem(&self) -> Problem {
        let problem = Problem::new(self.path().display().to_string(), self.to_string());
        match self {
            Self::BrokenLink { .. } => problem.with_hint(
                "the download is incomplete or the link's target was removed: download the file again",
            ),
            Self::PermissionDenied { .. } => {
                problem.with_hint("let this user read it, or run as one who may")
            }
            Self::NotUtf8 { .. } => problem.with_hint("rename it"),
            Self::Changed { .. } => problem.with_hint("wait until it is written and try again"),
            Self::NotFound { .. } | Self::TooLarge { .. } | Self::Io { .. } => problem,
        }
    }
}

/// Opens a file, through links, with the pin of what was opened. The `url` is
/// the path behind all links: in a Hub cache that names the content.
pub(super) fn open_pinned(path: &Path) -> Result<(File, SourceFile), FileError> {
    let failed = |error| FileError::of(path, error);
    let target = fs::canonicalize(path).map_err(failed)?;
    let file = File::open(&target).map_err(failed)?;
    let source = source_of(target, &file.metadata().map_err(failed)?)?;
    Ok((file, source))
}

/// The pin of a file, through links, without opening it.
pub(super) fn pin(path: &Path) -> Result<SourceFile, FileError> {
    let failed = |error| FileError::of(path, error);
    let target = fs::canonicalize(path).map_err(failed)?;
    let metadata = fs::metadata(&target).map_err(failed)?;
    source_of(target, &metadata)
}

fn source_of(target: PathBuf, metadata: &fs::Metadata) -> Result<SourceFile, FileError> {
    match target.into_os_string().into_string() {
        Ok(url) => Ok(SourceFile {
            url,
            size: metadata.len(),
            pin: pin_of(metadata),
        }),
        Err(target) => Err(FileError::NotUtf8 {
            path: target.into(),
        }),
    }
}

/// Reads a side file whole: at most 256 MiB, all of one state of the file.
///
/// # Errors
/// It cannot be read, is larger, or is being written.
pub fn read_pinned(path: &Path) -> Result<(Vec<u8>, SourceFile), FileError> {
    let (file, source) = open_pinned(path)?;
    if source.size > WHOLE_FILE_MAX {
        return Err(FileError::TooLarge {
            path: path.to_owned(),
            size: source.size,
        });
    }
    let failed = |error| FileError::of(path, error);
    let mut bytes = Vec::with_capacity(usize::try_from(source.size).unwrap_or(0));
    let read = (&file).take(source.size + 1).read_to_end(&mut bytes);
    read.map_err(failed)?;
    let pin_after = pin_of(&file.metadata().map_err(failed)?);
    if bytes.len() as u64 != source.size || pin_after != source.pin {
        return Err(FileError::Changed {
            path: path.to_owned(),
        });
    }
    Ok((bytes, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_with_the_pin_of_what_its_link_points_to() {
        let folder = tempfile::tempdir().unwrap();
        let (blob, link) = (folder.path().join("blob"), folder.path().join("link"));
        fs::write(&blob, b"abc").unwrap();
        std::os::unix::fs::symlink("blob", &link).unwrap();
        let (bytes, source) = read_pinned(&link).unwrap();
        assert_eq!(bytes, b"abc");
        let target = fs::canonicalize(&blob).unwrap();
        assert_eq!(Path::new(&source.url), target);
        assert_eq!(source.size, 3);
        assert_eq!(source.pin, pin_of(&fs::metadata(&blob).unwrap()));
        assert_eq!(pin(&link).unwrap(), source);
    }

    #[test]
    fn a_pin_changes_with_the_inode_the_size_and_the_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        fs::write(&path, b"abc").unwrap();
        let first = read_pinned(&path).unwrap().1.pin;
        assert_eq!(read_pinned(&path).unwrap().1.pin, first);

        let file = File::options().write(true).open(&path).unwrap();
        let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::new(7, 5);
        file.set_modified(time).unwrap();
        let touched = read_pinned(&path).unwrap().1.pin;
        assert_ne!(touched, first);
        assert!(touched.ends_with(",size=3,mtime=7.000000005"), "{touched}");

        file.set_len(2).unwrap();
        file.set_modified(time).unwrap();
        let cut = read_pinned(&path).unwrap().1.pin;
        assert!(cut.ends_with(",size=2,mtime=7.000000005"), "{cut}");

        let copy = folder.path().join("y");
        fs::copy(&path, &copy).unwrap();
        let copied = File::options().write(true).open(&copy).unwrap();
        copied.set_modified(time).unwrap();
        assert_ne!(read_pinned(&copy).unwrap().1.pin, cut);
    }

    #[test]
    fn each_error_names_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let absent = folder.path().join("absent");
        let error = read_pinned(&absent).unwrap_err();
        assert!(matches!(&error, FileError::NotFound { path } if *path == absent));

        let link = folder.path().join("link");
        std::os::unix::fs::symlink("../blobs/gone", &link).unwrap();
        let problem = read_pinned(&link).unwrap_err().problem();
        assert_eq!(problem.subject, link.display().to_string());
        assert_eq!(problem.message, "broken link: `../blobs/gone` is not there");

        // Root may read everything, so the system's answer is made up.
        let denied = FileError::of(&absent, io::ErrorKind::PermissionDenied.into());
        assert_eq!(denied.problem().subject, absent.display().to_string());
        assert_eq!(denied.problem().message, "permission denied");

        let large = folder.path().join("large");
        File::create(&large)
            .unwrap()
            .set_len(WHOLE_FILE_MAX + 1)
            .unwrap();
        let error = read_pinned(&large).unwrap_err();
        assert!(matches!(error, FileError::TooLarge { .. }));
    }
}
