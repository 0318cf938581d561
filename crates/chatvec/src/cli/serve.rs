//! `chatvec serve`: a coordinator that workers and clients call.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use chatvec_core::plan::PartSize;
use chatvec_core::problem::Problem;
use tokio_util::sync::CancellationToken;

use super::migrate::unusable;
use super::runtime::block_on;
use super::state_home::state_home;
use super::{Exit, Failure, signals, size};
use crate::coordinator::store::Store;
use crate::coordinator::{Coordinator, CoordinatorOptions};
use crate::server;
use crate::storage::lock;
use crate::storage::object::{ObjectStorage, ObjectStorageOptions};
use crate::telemetry::{self, LogFormat, Role};

/// The job store's file in the state folder.
const STORE_NAME: &str = "jobs.db";

/// Run a coordinator: it plans jobs, gives tasks to workers and publishes.
///
/// SIGTERM or Ctrl-C stops it; jobs go on when it runs again.
#[derive(Debug, Clone, clap::Args)]
pub struct ServeArgs {
    /// The address to listen on; port 0 takes a free one.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7070")]
    listen: SocketAddr,
    /// The Postgres database of the job store, `postgres://USER@HOST/NAME`, which
    /// any number of coordinators may share; made ready by `chatvec migrate`.
    #[arg(
        long,
        value_name = "URL",
        env = "CHATVEC_DATABASE_URL",
        hide_env_values = true,
        conflicts_with = "state"
    )]
    database: Option<String>,
    /// Without a database: the folder of the job store; by default `chatvec` in `$XDG_STATE_HOME` or `~/.local/state`.
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// How long a worker may be silent before its tasks go to another; too
    /// short and busy workers lose their tasks, too long and a dead worker's wait.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=3600))]
    lease: u32,
    /// How much of the output a lost worker costs at most, a multiple of 4096 bytes.
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = size::part_size)]
    part_size: PartSize,
    /// How long a job that is being planned waits for object storage that is
    /// out of reach before it fails.
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    storage_patience: u64,
    /// How long a job that is being published waits for a bucket that refuses it
    /// before it fails.
    #[arg(long, value_name = "SECONDS", default_value_t = 86_400)]
    commit_patience: u64,
    /// Delete the records of jobs that ended this long ago; without it they are
    /// kept. What they published stays.
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u64).range(1..=3650))]
    retention: Option<u64>,
    /// Write the address that it listens on to this file, as `host:port`.
    #[arg(long, value_name = "FILE")]
    port_file: Option<PathBuf>,
    /// Log text for people, or one JSON object a line.
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    log_format: LogFormat,
}

pub(super) fn run(args: &ServeArgs) -> Result<Exit, Failure> {
    let _telemetry = telemetry::init(Role::Coordinator, args.log_format);
    block_on(serve(args))?;
    Ok(Exit::Success)
}

async fn serve(args: &ServeArgs) -> Result<(), Failure> {
    let stop = signals::interrupt(|| tracing::info!("stopping: calls under way end first"))?;
    let storage = ObjectStorage::new(ObjectStorageOptions::from_environment());
    match &args.database {
        Some(url) => {
            let store = Store::open_postgres(url)
                .await
                .map_err(|error| unusable(&error))?;
            coordinate(args, store, storage, stop).await
        }
        None => {
            let folder = match &args.state {
                Some(state) => state.clone(),
                None => state_home()?,
            };
            let _lock = lock_folder(&folder)?;
            let store = Store::open_sqlite(&folder.join(STORE_NAME))
                .await
                .context("the job store cannot be opened")?;
            tracing::info!(state.folder = %folder.display(), "the job store is a file");
            coordinate(args, store, storage, stop).await
        }
    }
}

async fn coordinate(
    args: &ServeArgs,
    store: Store,
    storage: ObjectStorage,
    stop: CancellationToken,
) -> Result<(), Failure> {
    let listener = server::bind(args.listen).await?;
    let address = listener
        .local_addr()
        .context("the listener has no address")?;
    let options = CoordinatorOptions {
        lease_duration_ms: args.lease * 1000,
        part_size: args.part_size,
        storage_patience: Duration::from_secs(args.storage_patience),
        commit_patience: Duration::from_secs(args.commit_patience),
        retention: args.retention.map(|days| Duration::from_hours(24 * days)),
    };
    let coordinator = Coordinator::start(store, storage, options);
    if let Some(file) = &args.port_file {
        write_whole(file, &format!("{address}\n"))
            .with_context(|| format!("cannot write `{}`", file.display()))?;
    }
    tracing::info!(server.address = %address, "coordinator listens");
    let served = server::serve(&coordinator, listener, stop).await;
    coordinator.stop().await;
    tracing::info!("coordinator stopped");
    Ok(served?)
}

/// One coordinator at a time works on a file; the lock proves every earlier one
/// dead.
fn lock_folder(folder: &Path) -> Result<lock::FolderLock, Failure> {
    let taken =
        lock::take(folder).with_context(|| format!("cannot write to `{}`", folder.display()))?;
    taken.map_err(|held| {
        let message = format!("another coordinator (pid {}) runs on it", held.pid);
        Failure::try_again(
            Problem::new(folder.display().to_string(), message)
                .with_hint("give another folder by --state"),
        )
    })
}

/// A reader sees the whole file or none.
fn write_whole(file: &Path, text: &str) -> io::Result<()> {
    let mut unfinished = file.as_os_str().to_owned();
    unfinished.push(".tmp");
    fs::write(&unfinished, text)?;
    fs::rename(&unfinished, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_file_is_replaced_whole() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("port");
        fs::write(&file, "an older and longer text").unwrap();
        write_whole(&file, "127.0.0.1:1\n").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "127.0.0.1:1\n");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
