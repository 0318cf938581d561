//! Taking up a job that another process left half-way, on this machine.

use std::collections::BTreeSet;
use std::fs;

use anyhow::Context as _;
use chatvec_core::ids::{FileOrdinal, JobId, TaskOrdinal};
use chatvec_core::job::JobState;

use super::planner::Blueprint;
use super::store::{PartRow, Store};
use super::view::stored_recipe;
use crate::storage::local::{LocalError, PartialFile};
use crate::storage::{ObjectStorage, Output, Partials};

/// What an earlier process had done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Resumed {
    /// Bytes of output that are on the disk and proved right.
    pub kept_bytes: u64,
    /// Tasks that were done and whose bytes are not what was reported.
    pub reopened_tasks: usize,
}

/// Releases the leases of dead processes and verifies the checksum of every
/// part that they finished in a folder; a part that differs is made again. Parts
/// in object storage are verified when their upload is completed.
///
/// The caller has proved, by an exclusive lock, that no other process works on
/// the store.
///
/// # Errors
/// If the store or an unfinished file cannot be read.
pub async fn resume(
    store: &Store,
    storage: &ObjectStorage,
    job: &JobId,
) -> anyhow::Result<Resumed> {
    store.release_all_leases().await?;
    verify(store, storage, job).await
}

/// Where Linux names its current run.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// What names this run of this machine: another one may have lost what was not
/// synced.
///
/// # Errors
/// If the kernel does not tell.
pub(super) fn boot_id() -> anyhow::Result<String> {
    fs::read_to_string(BOOT_ID).with_context(|| format!("cannot read `{BOOT_ID}`"))
}

/// Verifies the checksum of every finished part in a folder; a task with one
/// that differs is made READY again.
pub(super) async fn verify(
    store: &Store,
    storage: &ObjectStorage,
    job: &JobId,
) -> anyhow::Result<Resumed> {
    let Some(row) = store.job(job).await? else {
        return Ok(Resumed::default());
    };
    if !matches!(row.state, JobState::Queued | JobState::Running) {
        return Ok(Resumed::default());
    }
    let plan = store.plan(job).await?.unwrap_or_default();
    let blueprint = Blueprint::decode(&plan)?;
    let output = Output::at(storage, &stored_recipe(&row)?.output.url)
        .map_err(|problem| anyhow::anyhow!("{problem}"))?;
    let parts = store.parts(job).await?;
    let bytes_done: u64 = parts.iter().map(|part| part.part.bytes).sum();
    let Output::Folder(folder) = output else {
        return Ok(Resumed {
            kept_bytes: bytes_done,
            reopened_tasks: 0,
        });
    };
    let partials = folder.partials(job);
    let (stale, stale_bytes) =
        tokio::task::spawn_blocking(move || stale_tasks(&blueprint, &partials, &parts)).await??;
    for task in &stale {
        store.reopen_task(job, *task).await?;
    }
    Ok(Resumed {
        kept_bytes: bytes_done - stale_bytes,
        reopened_tasks: stale.len(),
    })
}

/// Tasks of which some part's bytes are not those that were reported, and the
/// bytes of all their parts.
fn stale_tasks(
    blueprint: &Blueprint,
    partials: &Partials,
    parts: &[PartRow],
) -> Result<(BTreeSet<TaskOrdinal>, u64), LocalError> {
    let by_file: Vec<_> = parts.chunk_by(|a, b| a.part.file == b.part.file).collect();
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let files = by_file
            .iter()
            .map(|parts| scope.spawn(move || stale_in_file(blueprint, partials, parts)));
        // Collected first, so that the threads run side by side.
        let files: Vec<_> = files.collect();
        files
            .into_iter()
            .map(|file| file.join().expect("a verification does not panic"))
            .collect()
    });
    let mut stale = BTreeSet::new();
    for outcome in outcomes {
        stale.extend(outcome?);
    }
    let bytes = parts
        .iter()
        .filter(|part| stale.contains(&part.task))
        .map(|part| part.part.bytes)
        .sum();
    Ok((stale, bytes))
}

fn stale_in_file(
    blueprint: &Blueprint,
    partials: &Partials,
    parts: &[PartRow],
) -> Result<Vec<TaskOrdinal>, LocalError> {
    let FileOrdinal(ordinal) = parts[0].part.file;
    let file = &blueprint.files[ordinal as usize];
    let partial: PartialFile = partials.create(&file.name, file.size)?;
    let mut stale = Vec::new();
    for row in parts {
        let offset = u64::from(row.part.part.0) * blueprint.part_size.bytes();
        if partial.crc64_of_range(offset, row.part.bytes)? != row.part.crc64 {
            stale.push(row.task);
        }
    }
    Ok(stale)
}
