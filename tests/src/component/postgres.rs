//! A Postgres server with an empty database.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::geteuid;
use tempfile::TempDir;

use super::{TRIES, bound, free_ports, installed};
use crate::clock;
use crate::process::{Process, Signal};
use crate::python::repository;

/// The superuser of the server, whom it trusts.
const USER: &str = "chatvec";
/// The database that every server begins with.
const DATABASE: &str = "postgres";
/// How long an orderly end may take.
const STOPS_WITHIN: Duration = Duration::from_secs(40);

/// A Postgres server of its own, with nothing in it.
#[derive(Debug)]
pub struct Postgres {
    process: Process,
    port: u16,
    manner: Manner,
    // Removed after the server has ended: fields are dropped after `drop`.
    folder: TempDir,
}

/// How a server runs, after a crash as before.
#[derive(Debug, Clone, Copy)]
struct Manner {
    settings: &'static [&'static str],
    /// Whether it has a clock of its own.
    own_clock: bool,
}

/// The machine does not crash under a test, and if it does, no matter.
const QUICK: Manner = Manner {
    settings: &["-c", "fsync=off"],
    own_clock: false,
};

impl Postgres {
    /// Starts a server and waits until it takes connections.
    ///
    /// # Panics
    /// If Postgres is not installed and cannot be, or does not start. A test
    /// that needs a database must not pass without it.
    pub fn start() -> Self {
        Self::start_with(QUICK)
    }

    /// The same with commits that are on the disk before they are answered, as
    /// where it is in earnest.
    ///
    /// # Panics
    /// As [`Postgres::start`].
    pub fn start_durable() -> Self {
        Self::start_with(Manner {
            settings: &[],
            ..QUICK
        })
    }

    /// As [`Postgres::start`], with a clock of its own, which is right until
    /// [`Postgres::shift_clock`].
    ///
    /// # Panics
    /// As [`Postgres::start`], or if `libfaketime` cannot be had.
    pub fn with_clock() -> Self {
        Self::start_with(Manner {
            own_clock: true,
            ..QUICK
        })
    }

    fn start_with(manner: Manner) -> Self {
        let programs = programs();
        let account = Account::unprivileged();
        let template = template(&programs, account);
        for _ in 0..TRIES {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let data = folder.path().join("data");
            copy(&template, &data);
            fs::write(clock_of(folder.path()), "+0").expect("a folder of one's own");
            own(folder.path(), account);
            let [port] = free_ports();
            let mut process =
                Process::start(serve(&programs, folder.path(), port, account, manner));
            if process.runs_until("Postgres to be ready", || is_ready(&data)) {
                return Self {
                    process,
                    port,
                    manner,
                    folder,
                };
            }
            let outcome = process.wait();
            assert!(
                outcome.stderr.contains("Address already in use"),
                "Postgres does not start: {outcome:#?}"
            );
        }
        panic!("Postgres found no port free in {TRIES} tries");
    }

    /// The URL of its empty database.
    pub fn url(&self) -> String {
        url(self.address(), DATABASE)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Makes another empty database, and returns its URL.
    pub fn create_database(&self, name: &str) -> String {
        self.query(&format!("CREATE DATABASE {name}"));
        url(self.address(), name)
    }

    /// Ends the server as a crash would: every transaction under way is lost and
    /// every connection closed, and the next start recovers from the log.
    ///
    /// # Panics
    /// If it does not end.
    pub fn crash(&mut self) {
        self.process.signal(Signal::QUIT);
        assert!(self.process.ends_within(STOPS_WITHIN), "it does not end");
    }

    /// Starts the server that crashed, and waits until it takes connections.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start_again(&mut self) {
        let (folder, account) = (self.folder.path(), Account::unprivileged());
        let data = folder.join("data");
        let command = serve(&programs(), folder, self.port, account, self.manner);
        self.process = Process::start(command);
        let is_ready = self
            .process
            .runs_until("Postgres to be ready again", || is_ready(&data));
        assert!(is_ready, "Postgres does not start again");
    }

    /// Sets the clock of a server that has its own forwards or back, by an offset
    /// from the right time such as `+1h`.
    ///
    /// # Panics
    /// If it has none.
    pub fn shift_clock(&self, offset: &str) {
        assert!(self.manner.own_clock, "it has the machine's clock");
        let file = clock_of(self.folder.path());
        let new = file.with_extension("new");
        // Readers see the old offset or the new one, never half of it.
        fs::write(&new, offset).expect("a folder of one's own");
        own(&new, Account::unprivileged());
        fs::rename(new, file).expect("a folder of one's own");
    }

    /// Its process, to be stopped and continued.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Runs a statement by Postgres's own client, and returns the rows as text,
    /// a line each.
    ///
    /// # Panics
    /// If the server does not take it.
    pub fn query(&self, sql: &str) -> String {
        query(&self.url(), sql)
    }

    /// Starts a session of its own that runs a statement.
    pub fn session(&self, sql: &str) -> Process {
        session(&self.url(), sql)
    }
}

/// The URL of a database of a server, or of a proxy in front of one.
pub fn url(server: SocketAddr, database: &str) -> String {
    format!("postgres://{USER}@{server}/{database}")
}

/// As [`Postgres::query`], of any database.
///
/// # Panics
/// If the server does not take it.
pub fn query(url: &str, sql: &str) -> String {
    let outcome = session(url, sql).wait().expect_code(0);
    outcome.stdout.trim_end().to_owned()
}

fn session(url: &str, sql: &str) -> Process {
    let mut command = Command::new(programs().join("psql"));
    command.args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align"]);
    command.args(["--command", sql, url]);
    Process::start(command)
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Its "immediate shutdown": nothing of a kill's shared memory stays.
        self.process.signal(Signal::QUIT);
        self.process.ends_within(STOPS_WITHIN);
    }
}

/// Whom the server runs as: Postgres refuses root.
#[derive(Debug, Clone, Copy)]
struct Account {
    user: u32,
    group: u32,
}

impl Account {
    /// An account to change to; `None` where this process is not root.
    fn unprivileged() -> Option<Self> {
        if !geteuid().is_root() {
            return None;
        }
        let number = |flag: &str, name: &str| {
            let output = Command::new("id").args([flag, name]).output();
            let output = output.expect("`id` can be run");
            String::from_utf8_lossy(&output.stdout).trim().parse().ok()
        };
        let account = ["postgres", "nobody"].iter().find_map(|name| {
            Some(Self {
                user: number("-u", name)?,
                group: number("-g", name)?,
            })
        });
        Some(account.expect("there is an account `postgres` or `nobody`"))
    }

    fn switch(self) -> Vec<String> {
        vec![
            format!("--reuid={}", self.user),
            format!("--regid={}", self.group),
            "--clear-groups".to_owned(),
        ]
    }
}

/// The folder of `initdb` and `postgres`.
fn programs() -> PathBuf {
    installed("postgres.sh")
}

/// A fresh data folder, made once by each version: copying it is ten times as
/// quick as `initdb`. Nobody starts a server on it.
fn template(programs: &Path, account: Option<Account>) -> PathBuf {
    let version = Command::new(programs.join("postgres"))
        .arg("--version")
        .output()
        .expect("`postgres --version` can be run");
    let version: String = String::from_utf8_lossy(&version.stdout)
        .chars()
        .filter(|letter| letter.is_ascii_digit() || *letter == '.')
        .collect();
    let target = repository().join("target");
    fs::create_dir_all(&target).expect("`target` can be made");
    let lock = File::create(target.join("postgres.lock")).expect("a lock file can be made");
    lock.lock().expect("a lock can be waited for");
    let template = target.join(format!("postgres-{version}"));
    if template.exists() {
        return template;
    }
    // Not in `target`: the other account may not see it.
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = folder.path().join("data");
    own(folder.path(), account);
    let mut command = bound(programs.join("initdb"), "KILL", &switch(account));
    command
        .args(["--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"])
        .arg(format!("--username={USER}"))
        .arg("--pgdata")
        .arg(&data)
        .current_dir(folder.path());
    Process::start(command).wait().expect_code(0);
    let unfinished = target.join(format!("postgres-{version}.tmp"));
    let _stale = fs::remove_dir_all(&unfinished);
    copy(&data, &unfinished);
    fs::rename(&unfinished, &template).expect("a folder can be renamed");
    template
}

fn serve(
    programs: &Path,
    folder: &Path,
    port: u16,
    account: Option<Account>,
    manner: Manner,
) -> Command {
    let data = folder.join("data");
    // What another clock leaves in shared memory belongs to whoever loads it
    // first: that must not be `setpriv`, which is somebody else.
    let mut command = bound("env", "QUIT", &switch(account));
    if manner.own_clock {
        let variables = clock::shifted_by_file(&clock_of(folder)).into_iter();
        command.args(variables.map(|(name, value)| format!("{name}={value}")));
    }
    command
        .arg(programs.join("postgres"))
        .arg("-D")
        .arg(&data)
        .args(["-p", &port.to_string()])
        .args(["-c", "listen_addresses=127.0.0.1"])
        .args(["-c", "unix_socket_directories="])
        .args(manner.settings)
        // Each coordinator of a test may have its pool.
        .args(["-c", "max_connections=500"])
        .current_dir(data);
    command
}

/// Where the offset of a server's own clock is.
fn clock_of(folder: &Path) -> PathBuf {
    folder.join("clock")
}

fn switch(account: Option<Account>) -> Vec<String> {
    account.map(Account::switch).unwrap_or_default()
}

/// Whether the server says so itself, in the last line of its lock file.
fn is_ready(data: &Path) -> bool {
    fs::read_to_string(data.join("postmaster.pid"))
        .is_ok_and(|status| status.trim_end().ends_with("ready"))
}

/// Copies a folder; the copy is this process's own.
fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-r").args([from, to]).status();
    assert!(status.is_ok_and(|status| status.success()), "cannot copy");
    let mode = fs::metadata(from).expect("it was copied").permissions();
    // `cp` takes the file mode of the caller, and Postgres insists on its own.
    fs::set_permissions(to, mode).expect("one's own folder can be changed");
}

/// Gives a folder and all that is in it to the account.
fn own(folder: &Path, account: Option<Account>) {
    let Some(account) = account else { return };
    chown(folder, Some(account.user), Some(account.group)).expect("root may give files away");
    if folder.is_dir() {
        for entry in fs::read_dir(folder).expect("a folder of one's own") {
            own(&entry.expect("a folder of one's own").path(), Some(account));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn two_servers_run_at_once_and_end_with_their_handles() {
        let (first, second) = (Postgres::start(), Postgres::start());
        let ports = [first.port, second.port];
        for port in ports {
            assert!(answers(port), "port {port}");
        }
        drop(first);
        assert!(TcpStream::connect(("127.0.0.1", ports[0])).is_err());
        assert!(answers(ports[1]));
    }

    /// Whether it answers a request for TLS, which is the shortest question that
    /// Postgres knows, by "no".
    fn answers(port: u16) -> bool {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream
            .write_all(&[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f])
            .unwrap();
        let mut answer = [0];
        stream.read_exact(&mut answer).unwrap();
        answer == *b"N"
    }
}
