//! The half of publishing that may still fail: everything is made durable
//! under `OUT/.chatvec/`.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

use super::super::small::{self, SmallFile};
use crate::coordinator::planner::Blueprint;
use crate::storage::Partials;
use crate::storage::local::{LocalError, sync_dir};

/// Writes the small files next to the weights, and syncs everything. A repeat
/// does the same again.
pub(in super::super) fn stage(
    blueprint: &Blueprint,
    partials: &Partials,
    small: &[SmallFile],
) -> Result<(), LocalError> {
    for file in small {
        write(&partials.path(&file.path), &file.bytes)?;
    }
    sync_all(blueprint, partials)
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), LocalError> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(|error| LocalError::io("create", folder, error))?;
    }
    let written = File::create(path).and_then(|mut file| file.write_all(bytes));
    written.map_err(|error| LocalError::io("write", path, error))
}

/// Files synced at once.
const SYNC_THREADS: usize = 8;

/// Syncs every staged file, a few at a time: a disk's journal takes many
/// syncs for the price of one.
fn sync_all(blueprint: &Blueprint, partials: &Partials) -> Result<(), LocalError> {
    let weights = blueprint.files.iter().map(|file| file.name.as_str());
    let names: Vec<_> = weights.chain(small::paths(blueprint)).collect();
    let share = names.len().div_ceil(SYNC_THREADS);
    std::thread::scope(|scope| {
        let syncs: Vec<_> = names
            .chunks(share)
            .map(|names| {
                scope.spawn(move || names.iter().try_for_each(|name| sync(&partials.path(name))))
            })
            .collect();
        syncs
            .into_iter()
            .try_for_each(|sync| sync.join().expect("a sync does not panic"))
    })?;
    sync_dir(&partials.path(""))
}

fn sync(path: &Path) -> Result<(), LocalError> {
    let synced = File::open(path).and_then(|file| file.sync_all());
    synced.map_err(|error| LocalError::io("sync", path, error))
}
