//! The real services that chatvec works with, each a process of its own on
//! loopback: it is ready when it is returned, and ends with its handle.
//!
//! Each also ends with the thread that started it, whatever ends that: no test
//! that is killed leaves a server behind.

mod bucket;
pub mod postgres;
mod seaweedfs;

use std::ffi::OsStr;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::Command;

use crate::python::repository;

pub use bucket::{Access, Bucket};
pub use postgres::Postgres;
pub use seaweedfs::{BUCKET, Identity, SeaweedFs};

/// How often a server is started when somebody is quicker to take its ports.
const TRIES: usize = 5;

/// What a script of `tests/scripts` prints: where something is that it installs
/// where it is missing.
///
/// # Panics
/// If it cannot be had. A test that needs it must not pass without it.
pub(crate) fn installed(script: &str) -> PathBuf {
    let script = repository().join("tests/scripts").join(script);
    let output = Command::new(&script).output();
    let output = output.unwrap_or_else(|error| panic!("{}: {error}", script.display()));
    assert!(
        output.status.success(),
        "{}:\n{}",
        script.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())
}

/// Ports of loopback that were free a moment ago.
fn free_ports<const N: usize>() -> [u16; N] {
    // All are held until the last one is known, so that none comes twice.
    let listeners = [(); N]
        .map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has free ports"));
    listeners.map(|listener| listener.local_addr().expect("it is bound").port())
}

/// A command that gets this signal when the thread that started it ends.
fn bound(program: impl AsRef<OsStr>, signal: &str, more: &[String]) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", signal])
        .args(more)
        .arg("--")
        .arg(program);
    command
}
