//! A coordinator, its workers and its clients, each a process of its own.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use chatvec_tests::family::{Family, FamilySpec};
use chatvec_tests::process::{self, Outcome, Process, Signal, until};
use serde_json::Value;
use tempfile::TempDir;
use tonic::transport::Endpoint;

/// A family of checkpoints and a folder for everything else.
pub(crate) struct Scene {
    dir: TempDir,
    pub(crate) family: Family,
}

impl Scene {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder can be made");
        let family = FamilySpec::tiny(7).write(&dir.path().join("family"));
        Self {
            family: family.expect("a family can be written"),
            dir,
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The flags of a merge into a folder of the scene.
    pub(crate) fn merge(&self, out: &str) -> Vec<String> {
        let text = |path: PathBuf| path.display().to_string();
        let flags = [
            ("--cp", text(self.family.cp())),
            ("--chat", text(self.family.chat())),
            ("--base", text(self.family.base())),
            ("--lambda", "0.7".to_owned()),
            ("--out", text(self.path(out))),
        ];
        flags
            .into_iter()
            .flat_map(|(flag, value)| [flag.to_owned(), value])
            .collect()
    }

    /// Starts a coordinator with these arguments, and waits until it listens.
    pub(crate) fn serve(&self, listen: &str, more: &[&str]) -> Service {
        self.serve_with(listen, more, &|_| {})
    }

    /// As [`serve`](Self::serve), the command changed by `set` before.
    pub(crate) fn serve_with(
        &self,
        listen: &str,
        more: &[&str],
        set: &dyn Fn(&mut Command),
    ) -> Service {
        let state = self.path("state");
        self.serve_from(listen, more, &|command| {
            command.arg("--state").arg(&state);
            set(command);
        })
    }

    /// Starts a coordinator whose jobs are in a database.
    pub(crate) fn serve_on(&self, database: &str, more: &[&str]) -> Service {
        self.serve_from(ANY_PORT, more, &|command| {
            command.args(["--database", database]);
        })
    }

    fn serve_from(&self, listen: &str, more: &[&str], set: &dyn Fn(&mut Command)) -> Service {
        let port_file = self.path("port");
        let _stale = fs::remove_file(&port_file);
        let mut command = process::command(["serve", "--listen", listen]);
        command.arg("--port-file").arg(&port_file).args(more);
        set(&mut command);
        let mut process = Process::start(command);
        if !process.runs_until("the coordinator to listen", || port_file.exists()) {
            panic!("the coordinator ended: {:#?}", process.wait());
        }
        let address = fs::read_to_string(&port_file)
            .expect("it is written whole")
            .trim()
            .to_owned();
        Service { process, address }
    }

    /// Everything that `chatvec merge` publishes for the same recipe.
    fn expected(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let args: Vec<String> = std::iter::once("merge".to_owned())
            .chain(self.merge("expected"))
            .collect();
        process::run(args).expect_code(0);
        published(&self.path("expected"))
    }

    /// Checks that the output has the very files of `chatvec merge`, and no other.
    #[track_caller]
    pub(crate) fn assert_as_merged(&self, out: &str) {
        until("the state folder to be removed", || {
            !self.path(out).join(".chatvec").exists()
        });
        let (found, expected) = (published(&self.path(out)), self.expected());
        let names = |files: &BTreeMap<PathBuf, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&found), names(&expected));
        for (name, bytes) in &found {
            assert!(*bytes == expected[name], "`{}` differs", name.display());
        }
    }
}

/// The files of a checkpoint but for those that name their job, time, output
/// or part size.
fn published(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    const OF_THE_JOB: [&str; 3] = ["chatvec.manifest.json", "chatvec.stats.json", "README.md"];
    let entries = fs::read_dir(folder).expect("the output is there");
    let paths = entries.map(|entry| entry.expect("a folder can be read").path());
    let mut files = BTreeMap::new();
    for path in paths {
        let name = PathBuf::from(path.file_name().expect("an entry has a name"));
        let own = OF_THE_JOB.iter().any(|own| name == Path::new(own));
        let bytes = fs::read(&path).expect("there are only files");
        files.insert(name, if own { Vec::new() } else { bytes });
    }
    files
}

/// A coordinator that listens.
pub(crate) struct Service {
    pub(crate) process: Process,
    pub(crate) address: String,
}

impl Service {
    pub(crate) fn command<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Command {
        let mut command = process::command(args);
        command.env("CHATVEC_COORDINATOR", format!("http://{}", self.address));
        command
    }

    /// Runs a client to its end.
    pub(crate) fn client<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Outcome {
        Process::start(self.command(args)).wait()
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        Endpoint::from_shared(format!("http://{}", self.address)).expect("it is an address")
    }

    pub(crate) fn worker(&self) -> Process {
        Process::start(self.command(["worker", "--slots", "1"]))
    }

    /// Submits a merge without waiting for its end, and returns the job.
    pub(crate) fn submit(&self, scene: &Scene, out: &str, more: &[&str]) -> Value {
        let flags = scene.merge(out);
        let args = ["submit", "-o", "json"]
            .into_iter()
            .chain(more.iter().copied())
            .chain(flags.iter().map(String::as_str));
        self.client(args).expect_code(0).json()
    }

    pub(crate) fn get(&self, job: &str) -> Value {
        self.client(["get", "-o", "json", job])
            .expect_code(0)
            .json()
    }

    pub(crate) fn until(&self, job: &str, what: &str, condition: impl Fn(&Value) -> bool) {
        until(what, || condition(&self.get(job)));
    }

    /// Waits until a worker holds tasks of the job and some, not all, are done.
    pub(crate) fn until_under_way(&self, job: &str) {
        self.until(job, "the job to be under way", |job| {
            assert_eq!(job["error"], Value::Null, "{job:#}");
            assert_ne!(
                job["state"], "SUCCEEDED",
                "the job was too fast for this test"
            );
            job["state"] == "RUNNING"
                && tasks(job, "tasks_leased") > 0
                && tasks(job, "tasks_done") > 0
        });
    }
}

pub(crate) fn tasks(job: &Value, counter: &str) -> u64 {
    job["progress"][counter]
        .as_u64()
        .expect("a number of tasks")
}

pub(crate) fn id(job: &Value) -> String {
    job["job_id"].as_str().expect("a job has an id").to_owned()
}

/// So many parts that a job takes long enough to be met half-way.
pub(crate) const SMALL_PARTS: [&str; 2] = ["--part-size", "256KiB"];
pub(crate) const ANY_PORT: &str = "127.0.0.1:0";

/// Asks a process to stop, and checks that it does so cleanly.
#[track_caller]
pub(crate) fn drain(process: Process) -> Outcome {
    process.signal(Signal::TERM);
    process.wait().expect_code(0)
}
