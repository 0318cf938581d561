//! A cluster under attack: the real program with failpoints as coordinators,
//! workers and clients, a proxy wherever a test wants one, a model family to
//! merge, and the bytes that must come out.

mod checks;
mod matrix;
mod setup;
pub mod walk;

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use chatvec::fault::Failpoint;
use checks::Checks;
use serde_json::Value;

use crate::component::{Postgres, postgres};
use crate::emulator::{Emulator, Operation, Profile};
use crate::family::{Family, FamilySpec, Member};
use crate::fleet::{Coordinator, FAMILY, Fleet, merge_flags};
use crate::process::{self, Outcome, Process, until_every};
use crate::proxy::Proxy;
use crate::published::{self, Files, assert_same};

pub use matrix::{Row, write_into};
pub use setup::Setup;

/// The lease of every cluster. The bounds of the design are for 30 s.
pub const LEASE: Duration = Duration::from_secs(5);
/// Between two looks at a condition that takes a process to look at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A time of the design, in which a lease has 30 s, under the lease of a cluster.
pub fn scaled(design: Duration) -> Duration {
    design.mul_f64(LEASE.as_secs_f64() / 30.0)
}

/// The services, the family and the golden bytes. Coordinators and workers are
/// started by the test.
#[derive(Debug)]
pub struct Cluster {
    /// The services, and how processes are started.
    pub fleet: Fleet,
    family: Family,
    golden: OnceLock<Arc<Files>>,
    checks: Checks,
}

impl Cluster {
    /// With checkpoints of 40 MB in three files: a job has some ten tasks.
    ///
    /// # Panics
    /// If a service cannot be had.
    pub fn start() -> Self {
        Self::on(Profile::Aws)
    }

    /// The same on another kind of store.
    ///
    /// # Panics
    /// If a service cannot be had.
    pub fn on(profile: Profile) -> Self {
        Self::with(&some_tasks(), profile)
    }

    /// With checkpoints of 10 MB: a job has three tasks and takes no time.
    ///
    /// # Panics
    /// If a service cannot be had.
    pub fn tiny() -> Self {
        Self::tiny_on(Profile::Aws)
    }

    /// The same on another kind of store.
    ///
    /// # Panics
    /// If a service cannot be had.
    pub fn tiny_on(profile: Profile) -> Self {
        Self::with(&FamilySpec::tiny(7), profile)
    }

    /// As [`Cluster::start`], with a database whose clock can be set.
    ///
    /// # Panics
    /// If a service cannot be had.
    pub fn with_clock() -> Self {
        let fleet = Fleet::with_emulator(Profile::Aws, Postgres::with_clock());
        Self::of(fleet, &some_tasks())
    }

    fn with(spec: &FamilySpec, profile: Profile) -> Self {
        Self::of(Fleet::on_emulator(profile), spec)
    }

    fn of(mut fleet: Fleet, spec: &FamilySpec) -> Self {
        fleet.program = process::chatvec_faults();
        let checks = Checks::new(LEASE);
        checks.audit(&fleet.postgres.url());
        Self {
            family: fleet.upload(spec),
            fleet,
            golden: OnceLock::new(),
            checks,
        }
    }

    /// What it merges.
    pub(crate) fn family(&self) -> &Family {
        &self.family
    }

    /// A file that is not there yet, by which a pause is ended.
    pub fn path(&self, name: &str) -> PathBuf {
        self.fleet.path(name)
    }

    /// Ends the pauses that wait for this file.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn go(&self, file: &Path) {
        fs::write(file, "").expect("a file in a folder of one's own");
    }

    /// A database of its own, made ready: a second fleet beside the first one.
    ///
    /// # Panics
    /// If it cannot be made.
    pub fn lane(&self, name: &str) -> Setup {
        let url = self.fleet.postgres.create_database(name);
        let migrate = self.fleet.command(["migrate", "--database", &url]);
        Process::start(migrate).wait().expect_code(0);
        self.checks.audit(&url);
        Setup::default().database(&url)
    }

    /// Starts a coordinator and waits until it listens.
    ///
    /// # Panics
    /// If it ends instead.
    pub fn serve(&self, setup: &Setup) -> Coordinator {
        self.serve_at("127.0.0.1:0", setup)
    }

    /// The same at this address.
    ///
    /// # Panics
    /// If it ends instead.
    pub fn serve_at(&self, listen: &str, setup: &Setup) -> Coordinator {
        let lease = LEASE.as_secs().to_string();
        let own = ["--part-size", "5MiB", "--lease", &lease];
        self.fleet.serve_with(listen, &own, |command| {
            setup.apply(command);
        })
    }

    /// Starts a coordinator and does not wait for it; the file will name its
    /// address when it listens.
    pub(crate) fn begin_serving(&self, setup: &Setup) -> (Process, PathBuf) {
        let lease = LEASE.as_secs().to_string();
        let own = ["--lease", &lease];
        let (mut command, port_file) = self.fleet.serve_command("127.0.0.1:0", &own);
        setup.apply(&mut command);
        (Process::start(command), port_file)
    }

    /// Starts a worker of two slots, which the store knows by a name of its own.
    pub fn worker(&self, coordinators: &str, setup: &Setup) -> Process {
        let (name, setup) = match setup.name() {
            Some(name) => (name.to_owned(), setup.clone()),
            None => {
                let name = self.checks.name_of_worker();
                let named = self.named(&name).and(setup);
                (name, named)
            }
        };
        let own = ["worker", "--coordinator", coordinators];
        let mut command = self.fleet.command(own);
        command.args(["--slots", &setup.slots().to_string(), "--memory", "256MiB"]);
        command.env("CHATVEC_WORKER_NAME", &name);
        setup.apply(&mut command);
        let worker = Process::start(command);
        self.checks.started(worker.id(), &name, &setup);
        worker
    }

    /// The store of the checkpoints.
    pub fn store(&self) -> &Emulator {
        self.fleet.emulator()
    }

    /// A setup by which the store knows a process by this name.
    pub fn named(&self, name: &str) -> Setup {
        let access = self.store().access(name);
        let environment = access.environment();
        let setup = Setup::default();
        environment
            .into_iter()
            .fold(setup, |setup, (variable, value)| {
                setup.variable(variable, value.to_owned())
            })
    }

    /// A proxy in front of the store.
    pub fn store_proxy(&self) -> Proxy {
        Proxy::start(self.store().address())
    }

    /// A proxy in front of the database.
    pub fn database_proxy(&self) -> Proxy {
        Proxy::start(self.fleet.postgres.address())
    }

    /// A proxy in front of a coordinator.
    pub fn coordinator_proxy(&self, coordinator: &Coordinator) -> Proxy {
        Proxy::start(address_of(coordinator))
    }

    /// The flags of a merge of the family's copy on disk into a folder.
    pub fn merge_on_disk(&self, out: &Path) -> Vec<String> {
        let input = |member: Member| self.family.member(member).display().to_string();
        merge_flags(input, &out.display().to_string())
    }

    /// Demands that what stands in a folder is what one process makes alone.
    ///
    /// # Panics
    /// If it is not.
    #[track_caller]
    pub fn assert_golden_on_disk(&self, out: &Path) {
        assert_same(&published::read(out), self.golden());
    }

    /// Submits a merge of the family into a prefix, and returns the job's id.
    ///
    /// # Panics
    /// If it is refused.
    pub fn submit(&self, coordinators: &str, out: &str, more: &[&str]) -> String {
        self.fleet.submit(coordinators, &self.merge(out), more)
    }

    /// The flags of a merge of the family into a prefix.
    pub fn merge(&self, out: &str) -> Vec<String> {
        let bucket = &self.fleet.bucket;
        let input = |member: Member| bucket.url(&format!("{FAMILY}/{}", member.folder()));
        merge_flags(input, &bucket.url(out))
    }

    /// Waits for the end of a job.
    pub fn watch(&self, coordinators: &str, job: &str) -> Outcome {
        self.fleet.client(coordinators, &["watch", job])
    }

    /// Waits for the success of a job, and demands that its output is golden.
    ///
    /// # Panics
    /// If it is not.
    #[track_caller]
    pub fn succeeds(&self, coordinators: &str, job: &str, out: &str) {
        self.watch(coordinators, job).expect_code(0);
        self.assert_golden(out);
    }

    /// Demands that what stands below a prefix is what one process makes alone.
    ///
    /// # Panics
    /// If it is not.
    #[track_caller]
    pub fn assert_golden(&self, out: &str) {
        assert_same(&self.fleet.published(out), self.golden());
    }

    /// What a merge in one process makes.
    pub fn golden(&self) -> &Arc<Files> {
        self.golden
            .get_or_init(|| self.merge_alone(&self.family, &[]).into())
    }

    /// What one process makes of a family alone.
    pub(crate) fn merge_alone(&self, family: &Family, more: &[&str]) -> Files {
        let out = tempfile::tempdir_in(self.path("")).expect("a folder of one's own");
        let out = out.path().join("golden");
        let input = |member: Member| family.member(member).display().to_string();
        let merge = merge_flags(input, &out.display().to_string());
        let more = more.iter().map(ToString::to_string);
        let args = std::iter::once("merge".to_owned()).chain(merge).chain(more);
        Process::start(process::command(args)).wait().expect_code(0);
        published::read(&out)
    }

    /// A number that the first database answers.
    ///
    /// # Panics
    /// If it is none.
    pub fn number(&self, sql: &str) -> u64 {
        let answer = self.fleet.postgres.query(sql);
        answer
            .parse()
            .unwrap_or_else(|error| panic!("`{answer}` to {sql}: {error}"))
    }

    /// How often tasks of a job were leased beyond the once that each must be.
    pub fn leased_again(&self, job: &str) -> u64 {
        self.number(&format!(
            "SELECT coalesce(sum(attempt), 0) - count(*) FROM task WHERE job_id = '{job}'"
        ))
    }

    /// How often parts of the weights below a prefix were put beyond the once that
    /// each must be. A task that was leased again may not have begun before.
    pub fn put_again(&self, out: &str) -> u64 {
        let history = self.store().history();
        let prefix = format!("{out}/");
        let puts = history.of(Operation::PutPart).filter(|put| {
            put.effect.is_some()
                && put.key.starts_with(&prefix)
                && put.key.ends_with(".safetensors")
        });
        let parts: Vec<_> = puts.map(|put| (&put.key, put.part_number)).collect();
        (parts.len() - parts.iter().collect::<BTreeSet<_>>().len()) as u64
    }

    /// Waits until the database answers a question with "true".
    ///
    /// # Panics
    /// If it does not in time.
    pub fn until_true(&self, what: &str, sql: &str) {
        until_every(LOOK_EVERY, what, || self.fleet.postgres.query(sql) == "t");
    }

    /// Waits until so many tasks of a job are DONE.
    ///
    /// # Panics
    /// If they are not in time.
    pub fn until_done(&self, job: &str, tasks: u64) {
        let sql = format!(
            "SELECT count(*) >= {tasks} FROM task WHERE job_id = '{job}' AND state = 'DONE'"
        );
        self.until_true("some tasks to be done", &sql);
    }

    /// A job as it stands.
    pub fn get(&self, coordinators: &str, job: &str) -> Value {
        self.fleet.get(coordinators, job)
    }
}

/// Checkpoints of 40 MB in three files: a job of them has some ten tasks.
pub(crate) fn some_tasks() -> FamilySpec {
    FamilySpec {
        layers: 4,
        hidden: 512,
        intermediate: 1408,
        heads: 8,
        kv_heads: 4,
        vocab: 8000,
        shard_bytes: 18_000_000,
        ..FamilySpec::tiny(7)
    }
}

/// Where a coordinator listens.
///
/// # Panics
/// If its address is none.
pub fn address_of(coordinator: &Coordinator) -> SocketAddr {
    let address = coordinator.address.trim_start_matches("http://");
    address.parse().expect("an address of loopback")
}

/// The URL of the first database through a proxy.
pub fn database_through(proxy: &Proxy) -> String {
    postgres::url(proxy.address(), "postgres")
}

/// Waits until a process tells that it passed an armed failpoint.
///
/// # Panics
/// If it ends, or does not in time.
#[track_caller]
pub fn until_hit(process: &mut Process, point: Failpoint) {
    let told = format!("failpoint {}:", point.name());
    if !process.says(&told) {
        panic!("{} was not hit: {}", point.name(), process.stderr());
    }
}
