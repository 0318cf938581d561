//! Publishing below a prefix of a bucket: every file is a multipart upload
//! until the job commits, and appears when its upload is completed.

mod complete;
mod publish;
mod stage;

pub(super) use publish::publish;
pub(super) use stage::stage;

use chatvec_core::ids::FileOrdinal;

use super::{Finished, small};

/// The ordinals and paths of the small files: they follow the weight files.
fn small_files(finished: &Finished) -> impl Iterator<Item = (FileOrdinal, &str)> {
    let first = u32::try_from(finished.blueprint.files.len()).expect("ordinals are 32 bits");
    (first..)
        .map(FileOrdinal)
        .zip(small::paths(&finished.blueprint))
}
