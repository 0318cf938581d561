//! Processes whose clock is wrong, by `libfaketime`.
//!
//! Only the time of day is shifted. Timers and time-outs run on other clocks,
//! as they do where a real clock is set.

use std::path::Path;

use crate::component::installed;

/// What a process has to be started with for its clock to be off by an offset
/// such as `+1h` or `-1h`.
///
/// # Panics
/// If the library cannot be had.
pub fn shifted(offset: &str) -> [(&'static str, String); 3] {
    [
        ("LD_PRELOAD", library()),
        ("FAKETIME", offset.to_owned()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
    ]
}

/// The same with an offset that is read from a file again and again, so that a
/// clock can jump.
///
/// # Panics
/// If the library cannot be had.
pub fn shifted_by_file(file: &Path) -> [(&'static str, String); 4] {
    [
        ("LD_PRELOAD", library()),
        ("FAKETIME_TIMESTAMP_FILE", file.display().to_string()),
        ("FAKETIME_NO_CACHE", "1".to_owned()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
    ]
}

fn library() -> String {
    installed("faketime.sh").display().to_string()
}
