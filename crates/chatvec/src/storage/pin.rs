//! What identifies a file or an object that was planned.

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

/// What the pin of an object begins with.
const ETAG: &str = "etag=";

/// The pin of an object: its ETag, as the store writes it.
pub fn pin_of_etag(etag: &str) -> String {
    format!("{ETAG}{etag}")
}

/// The ETag in the pin of an object, or `None` where it is the pin of a file.
pub fn etag_of_pin(pin: &str) -> Option<&str> {
    pin.strip_prefix(ETAG)
}
