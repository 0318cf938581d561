//! A small source file read whole, wherever it is.

use bytes::Bytes;
use chatvec_core::task::{SourceFile, TaskFailure};

use super::ObjectStorage;
use super::local::{LocalError, SourceReader};
use super::object::{ObjectError, ObjectUrl};
use super::pin::etag_of_pin;

/// Why a source cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is a file.
    #[error(transparent)]
    Local(#[from] LocalError),
    /// It is an object.
    #[error(transparent)]
    Object(#[from] ObjectError),
}

impl ReadError {
    /// Whether the source is not, or no longer, the one that was planned.
    pub fn is_changed(&self) -> bool {
        match self {
            Self::Local(error) => !matches!(error, LocalError::Io { .. }),
            Self::Object(error) => matches!(
                error,
                ObjectError::NotFound { .. } | ObjectError::Changed { .. }
            ),
        }
    }

    /// The class of the error, and what the user is told.
    pub fn failure(&self) -> TaskFailure {
        match self {
            Self::Local(error) => error.failure(),
            Self::Object(error) => error.failure(),
        }
    }
}

/// All bytes of a pinned source that fits in memory.
///
/// # Errors
/// [`ReadError::is_changed`] if it is not the one that was pinned.
pub async fn read_source(storage: &ObjectStorage, source: &SourceFile) -> Result<Bytes, ReadError> {
    let Ok(url) = ObjectUrl::parse(&source.url) else {
        let source = source.clone();
        let read = tokio::task::spawn_blocking(move || read_file(&source));
        return Ok(read.await.expect("reading a file does not panic")?.into());
    };
    let bucket = storage.bucket(&url)?;
    let etag = etag_of_pin(&source.pin).unwrap_or_default();
    let chunks = bucket.read_range(url.key(), etag, 0..source.size).await?;
    Ok(chunks.concat().into())
}

fn read_file(source: &SourceFile) -> Result<Vec<u8>, LocalError> {
    let size = usize::try_from(source.size).expect("a side file fits in memory");
    let mut bytes = vec![0; size];
    let reader = SourceReader::open(source)?;
    reader.read_exact_at(&mut bytes, 0)?;
    reader.verify()?;
    Ok(bytes)
}
