//! What identifies a file that was planned.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

/// The pin of a file on a filesystem: inode, size, and modification time in
/// nanoseconds. Compared for equality only.
pub fn pin_of(metadata: &Metadata) -> String {
    format!(
        "ino={},size={},mtime={}.{:09}",
        metadata.ino(),
        metadata.size(),
        metadata.mtime(),
        metadata.mtime_nsec()
    )
}
