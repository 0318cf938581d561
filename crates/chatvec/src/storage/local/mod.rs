//! Checkpoints as files of a local filesystem: pinned sources, the unfinished
//! output file, and the renames that publish it.
//!
//! Calls block. Run them on threads that may.

mod error;
mod partial;
mod publish;
mod source;
mod writer;

pub use error::LocalError;
pub use partial::PartialFile;
pub use publish::{rename, rename_noreplace, sync_dir};
pub use source::SourceReader;
pub use writer::{ALIGNMENT, AlignedBytes, Direct, PartialWriter, aligned_zeroes};
