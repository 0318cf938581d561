//! `chatvec serve`: a coordinator that workers and clients call.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use chatvec_core::plan::PartSize;
use chatvec_core::problem::Problem;

use super::runtime::block_on;
use super::{Exit, Failure, signals, size};
use crate::coordinator::store::Store;
use crate::coordinator::{Coordinator, CoordinatorOptions, verify_after_reboot};
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
    /// The folder of the job store; by default `chatvec` in `$XDG_STATE_HOME` or `~/.local/state`.
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// How long a worker may be silent before its tasks go to another; too
    /// short and busy workers lose their tasks, too long and a dead worker's wait.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=3600))]
    lease: u32,
    /// How much of the output a lost worker costs at most, a multiple of 4096 bytes.
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = size::part_size)]
    part_size: PartSize,
    /// Write the address that it listens on to this file, as `host:port`.
    #[arg(long, value_name = "FILE")]
    port_file: Option<PathBuf>,
    /// Log text for people, or one JSON object a line.
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    log_format: LogFormat,
}

pub(super) fn run(args: &ServeArgs) -> Result<Exit, Failure> {
    let _telemetry = telemetry::init(Role::Coordinator, args.log_format);
    let state = match &args.state {
        Some(state) => state.clone(),
        None => default_state(|name| std::env::var_os(name).map(PathBuf::from))?,
    };
    block_on(serve(args, &state))?;
    Ok(Exit::Success)
}

async fn serve(args: &ServeArgs, state: &Path) -> Result<(), Failure> {
    let stop = signals::interrupt(|| tracing::info!("stopping: calls under way end first"))?;
    let taken =
        lock::take(state).with_context(|| format!("cannot write to `{}`", state.display()))?;
    let _lock = taken.map_err(|held| {
        let message = format!("another coordinator (pid {}) runs on it", held.pid);
        Failure::try_again(
            Problem::new(state.display().to_string(), message)
                .with_hint("give another folder by --state"),
        )
    })?;
    let listener = server::bind(args.listen).await?;
    let address = listener
        .local_addr()
        .context("the listener has no address")?;
    let store = Store::open_sqlite(&state.join(STORE_NAME))
        .await
        .context("the job store cannot be opened")?;
    verify_after_reboot(&store, state).await?;
    let options = CoordinatorOptions {
        lease_duration_ms: args.lease * 1000,
        part_size: args.part_size,
    };
    let storage = ObjectStorage::new(ObjectStorageOptions::from_environment());
    let coordinator = Coordinator::start(store, storage, options);
    if let Some(file) = &args.port_file {
        write_whole(file, &format!("{address}\n"))
            .with_context(|| format!("cannot write `{}`", file.display()))?;
    }
    tracing::info!(server.address = %address, state.folder = %state.display(), "coordinator listens");
    let served = server::serve(&coordinator, listener, stop).await;
    coordinator.stop().await;
    tracing::info!("coordinator stopped");
    Ok(served?)
}

/// A reader sees the whole file or none.
fn write_whole(file: &Path, text: &str) -> io::Result<()> {
    let mut unfinished = file.as_os_str().to_owned();
    unfinished.push(".tmp");
    fs::write(&unfinished, text)?;
    fs::rename(&unfinished, file)
}

/// By the XDG base directory specification: a path that is not absolute is
/// ignored.
fn default_state(variable: impl Fn(&str) -> Option<PathBuf>) -> Result<PathBuf, Failure> {
    let absolute = |name| variable(name).filter(|path| path.is_absolute());
    let folder = absolute("XDG_STATE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/state")));
    folder.map(|folder| folder.join("chatvec")).ok_or_else(|| {
        let problem = Problem::new(
            "--state",
            "expected a folder, found neither the flag nor `$HOME`",
        );
        Failure::bad_input(vec![
            problem.with_hint("give the folder of the job store by --state"),
        ])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_lies_where_the_desktop_keeps_state() {
        let state = |xdg: &'static str, home: &'static str| {
            let given =
                move |name: &str| Some(PathBuf::from(if name == "HOME" { home } else { xdg }));
            default_state(given).ok()
        };
        assert_eq!(state("/s", "/h"), Some("/s/chatvec".into()));
        assert_eq!(state("s", "/h"), Some("/h/.local/state/chatvec".into()));
        assert_eq!(state("", ""), None);
    }

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
