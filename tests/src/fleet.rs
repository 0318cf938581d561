//! A fleet on this machine: a database, a bucket, and coordinators, workers and
//! clients that are processes of their own.

use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;
use tempfile::TempDir;

use crate::component::{Access, Bucket, Identity, Postgres, SeaweedFs};
use crate::emulator::{Emulator, Profile};
use crate::family::{Family, FamilySpec, Member};
use crate::process::{self, Outcome, Process, until};
use crate::published::{self, Files};

/// The access key by which an emulator knows the processes of a fleet.
pub const ACCESS_KEY: &str = "fleet";
/// What the keys of a fleet's family begin with.
pub const FAMILY: &str = "family";

/// A database with the program's schema, a bucket, and a folder.
#[derive(Debug)]
pub struct Fleet {
    /// The database of the jobs.
    pub postgres: Postgres,
    store: Store,
    /// How every process of the fleet is known to the store.
    pub access: Access,
    /// The store's bucket, for whom everything is allowed.
    pub bucket: Bucket,
    /// The build of `chatvec` that every process is.
    pub program: PathBuf,
    folder: TempDir,
    started: AtomicU32,
}

/// The store of the checkpoints.
#[derive(Debug)]
enum Store {
    /// A real one.
    SeaweedFs(SeaweedFs),
    /// One that does what a test wants.
    Emulator(Emulator),
}

/// A coordinator that listens.
#[derive(Debug)]
pub struct Coordinator {
    /// Its process.
    pub process: Process,
    /// Where it listens, as `http://HOST:PORT`.
    pub address: String,
}

impl Fleet {
    /// Starts the services and makes the database ready. Nothing of chatvec runs
    /// yet.
    ///
    /// # Panics
    /// If a service cannot be had.
    pub fn start() -> Self {
        let fleet = Self::unprepared();
        fleet.migrate().expect_code(0);
        fleet
    }

    /// The same with a database that is empty.
    ///
    /// # Panics
    /// If a service cannot be had.
    pub fn unprepared() -> Self {
        let seaweedfs = SeaweedFs::start();
        let (access, bucket) = (seaweedfs.access(Identity::Owner), seaweedfs.bucket());
        Self::on(
            Store::SeaweedFs(seaweedfs),
            access,
            bucket,
            Postgres::start(),
        )
    }

    /// As [`Fleet::start`], with an emulator for a store.
    ///
    /// # Panics
    /// If a service cannot be had.
    pub fn on_emulator(profile: Profile) -> Self {
        Self::with_emulator(profile, Postgres::start())
    }

    /// The same with a database whose commits are on the disk.
    ///
    /// # Panics
    /// If a service cannot be had.
    pub fn durable(profile: Profile) -> Self {
        Self::with_emulator(profile, Postgres::start_durable())
    }

    pub(crate) fn with_emulator(profile: Profile, postgres: Postgres) -> Self {
        let emulator = Emulator::start(profile);
        let (access, bucket) = (emulator.access(ACCESS_KEY), emulator.bucket());
        let fleet = Self::on(Store::Emulator(emulator), access, bucket, postgres);
        fleet.migrate().expect_code(0);
        fleet
    }

    fn on(store: Store, access: Access, bucket: Bucket, postgres: Postgres) -> Self {
        Self {
            postgres,
            access,
            bucket,
            program: process::chatvec(),
            store,
            folder: tempfile::tempdir().expect("a temporary folder"),
            started: AtomicU32::new(0),
        }
    }

    /// Its real store.
    ///
    /// # Panics
    /// If it has an emulator.
    pub fn seaweedfs(&self) -> &SeaweedFs {
        match &self.store {
            Store::SeaweedFs(seaweedfs) => seaweedfs,
            Store::Emulator(_) => panic!("this fleet has an emulator"),
        }
    }

    /// Its emulator.
    ///
    /// # Panics
    /// If it has a real store.
    pub fn emulator(&self) -> &Emulator {
        match &self.store {
            Store::Emulator(emulator) => emulator,
            Store::SeaweedFs(_) => panic!("this fleet has a real store"),
        }
    }

    /// A place in the fleet's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `chatvec` with these arguments, which knows the store.
    pub fn command<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Command {
        let mut command = process::command_of(&self.program, args);
        command.envs(self.access.environment());
        command
    }

    /// Runs `chatvec migrate` to its end.
    pub fn migrate(&self) -> Outcome {
        Process::start(self.command(["migrate", "--database", &self.postgres.url()])).wait()
    }

    /// The command of a coordinator, and the file that will name its address.
    pub fn serve_command(&self, listen: &str, more: &[&str]) -> (Command, PathBuf) {
        let ordinal = self.started.fetch_add(1, Ordering::Relaxed);
        let port_file = self.path(&format!("port-{ordinal}"));
        let mut command = self.command(["serve", "--listen", listen]);
        command
            .env("CHATVEC_DATABASE_URL", self.postgres.url())
            .arg("--port-file")
            .arg(&port_file)
            .args(more);
        (command, port_file)
    }

    /// Starts a coordinator on any port and waits until it listens.
    ///
    /// # Panics
    /// If it ends instead.
    pub fn serve(&self, more: &[&str]) -> Coordinator {
        self.serve_at("127.0.0.1:0", more)
    }

    /// The same on this address.
    ///
    /// # Panics
    /// If it ends instead.
    pub fn serve_at(&self, listen: &str, more: &[&str]) -> Coordinator {
        self.serve_with(listen, more, |_| {})
    }

    /// The same by a command that is changed before it runs.
    ///
    /// # Panics
    /// If it ends instead.
    pub fn serve_with(
        &self,
        listen: &str,
        more: &[&str],
        change: impl FnOnce(&mut Command),
    ) -> Coordinator {
        let (mut command, port_file) = self.serve_command(listen, more);
        change(&mut command);
        let mut process = Process::start(command);
        if !process.runs_until("the coordinator to listen", || port_file.exists()) {
            panic!("the coordinator ended: {:#?}", process.wait());
        }
        let address = fs::read_to_string(port_file).expect("it is written whole");
        Coordinator {
            process,
            address: format!("http://{}", address.trim()),
        }
    }

    /// Starts a worker for these coordinators.
    pub fn worker(&self, coordinators: &str, more: &[&str]) -> Process {
        let mut command = self.command(["worker", "--coordinator", coordinators]);
        command.args(more);
        Process::start(command)
    }

    /// Runs a client of these coordinators to its end.
    pub fn client(&self, coordinators: &str, args: &[&str]) -> Outcome {
        Process::start(self.client_command(coordinators, args)).wait()
    }

    /// The command of a client of these coordinators.
    pub fn client_command(&self, coordinators: &str, args: &[&str]) -> Command {
        let mut command = self.command(args);
        command.env("CHATVEC_COORDINATOR", coordinators);
        command
    }

    /// Writes a family on disk and uploads it.
    ///
    /// # Panics
    /// If it cannot be written or uploaded.
    pub fn upload(&self, spec: &FamilySpec) -> Family {
        self.upload_as(FAMILY, spec)
    }

    /// The same below another prefix.
    ///
    /// # Panics
    /// As of [`Fleet::upload`].
    pub fn upload_as(&self, name: &str, spec: &FamilySpec) -> Family {
        let family = spec.write(&self.path(name)).expect("written");
        for member in Member::ALL {
            let prefix = format!("{name}/{}", member.folder());
            let uploaded = self.bucket.upload(&family.member(member), &prefix);
            uploaded.expect("uploaded");
        }
        family
    }

    /// The finished checkpoint in the bucket below a prefix.
    ///
    /// # Panics
    /// If there is none.
    pub fn published(&self, prefix: &str) -> Files {
        let folder = self.path(&format!("downloaded-{prefix}"));
        let _before = fs::remove_dir_all(&folder);
        let downloaded = self.bucket.download(prefix, &folder);
        downloaded.expect("only files lie below the prefix");
        published::read(&folder)
    }

    /// Waits until no upload is unfinished, and demands that nothing lies in the
    /// bucket but the family and what is below these prefixes.
    ///
    /// # Panics
    /// If something does.
    #[track_caller]
    pub fn assert_nothing_else(&self, prefixes: &[&str]) {
        until("the unfinished uploads to end", || {
            self.bucket.unfinished_uploads().expect("listed").is_empty()
        });
        let mut keys = self.bucket.keys("").expect("listed");
        keys.retain(|key| {
            let mut known = std::iter::once(&FAMILY).chain(prefixes);
            !known.any(|prefix| key.starts_with(&format!("{prefix}/")))
        });
        assert_eq!(keys, Vec::<String>::new(), "left in the bucket");
    }

    /// Submits a merge by the flags that say what is merged, and returns the job's
    /// id.
    ///
    /// # Panics
    /// If it is refused.
    pub fn submit(&self, coordinators: &str, merge: &[String], more: &[&str]) -> String {
        let submission = submission(merge, more);
        let job = self.client(coordinators, &submission);
        let job = job.expect_code(0).json();
        job["job_id"].as_str().expect("a job has an id").to_owned()
    }

    /// A job as it stands.
    ///
    /// # Panics
    /// If no coordinator knows it.
    pub fn get(&self, coordinators: &str, job: &str) -> Value {
        self.client(coordinators, &["get", "-o", "json", job])
            .expect_code(0)
            .json()
    }

    /// Makes the database refuse every update of a table's row to which the
    /// condition applies, until [`Fleet::allow`]: whoever writes it is stopped
    /// at a known step.
    pub fn refuse(&self, table: &str, condition: &str) {
        self.postgres.query(&format!(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql
                 AS $$ BEGIN RAISE EXCEPTION 'refused by the test'; END $$;
             CREATE TRIGGER refuse BEFORE UPDATE ON {table}
                 FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION refuse()"
        ));
    }

    /// Ends what [`Fleet::refuse`] began.
    pub fn allow(&self) {
        self.postgres.query("DROP FUNCTION refuse CASCADE");
    }

    /// Waits for a condition on a job.
    ///
    /// # Panics
    /// If it does not hold in time.
    pub fn until(
        &self,
        coordinators: &str,
        job: &str,
        what: &str,
        condition: impl Fn(&Value) -> bool,
    ) {
        until(what, || condition(&self.get(coordinators, job)));
    }
}

/// The command line that submits a merge.
pub fn submission<'a>(merge: &'a [String], more: &[&'a str]) -> Vec<&'a str> {
    let args = ["submit", "-o", "json"].into_iter();
    let args = args.chain(more.iter().copied());
    args.chain(merge.iter().map(String::as_str)).collect()
}

/// The flags of a merge of a family whose members lie where `input` says.
pub fn merge_flags(input: impl Fn(Member) -> String, out: &str) -> Vec<String> {
    let flags = [
        ("--cp", input(Member::Cp)),
        ("--chat", input(Member::Chat)),
        ("--base", input(Member::Base)),
        ("--lambda", "0.7".to_owned()),
        ("--out", out.to_owned()),
    ];
    let flags = flags.into_iter();
    flags
        .flat_map(|(flag, value)| [flag.to_owned(), value])
        .collect()
}

/// The addresses of some coordinators as clients and workers take them.
pub fn addresses<'a>(coordinators: impl IntoIterator<Item = &'a Coordinator>) -> String {
    let addresses: Vec<&str> = coordinators
        .into_iter()
        .map(|coordinator| coordinator.address.as_str())
        .collect();
    addresses.join(",")
}
