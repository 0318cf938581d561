//! The service as processes: a coordinator, workers and clients, over loopback.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use chatvec_tests::family::{Family, FamilySpec};
use chatvec_tests::process::{self, Outcome, Process, Signal, until};
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

/// A family of checkpoints and a folder for everything else.
struct Scene {
    dir: TempDir,
    family: Family,
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder can be made");
        let family = FamilySpec::tiny(7).write(&dir.path().join("family"));
        Self {
            family: family.expect("a family can be written"),
            dir,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The flags of a merge into a folder of the scene.
    fn merge(&self, out: &str) -> Vec<String> {
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
    fn serve(&self, listen: &str, more: &[&str]) -> Service {
        let port_file = self.path("port");
        let _stale = fs::remove_file(&port_file);
        let state = self.path("state");
        let mut command = process::command(["serve", "--listen", listen]);
        command
            .arg("--state")
            .arg(state)
            .arg("--port-file")
            .arg(&port_file)
            .args(more);
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
    fn assert_as_merged(&self, out: &str) {
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
struct Service {
    process: Process,
    address: String,
}

impl Service {
    fn command<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> std::process::Command {
        let mut command = process::command(args);
        command.env("CHATVEC_COORDINATOR", format!("http://{}", self.address));
        command
    }

    /// Runs a client to its end.
    fn client<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Outcome {
        Process::start(self.command(args)).wait()
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::from_shared(format!("http://{}", self.address)).expect("it is an address")
    }

    fn worker(&self) -> Process {
        Process::start(self.command(["worker", "--slots", "1"]))
    }

    /// Submits a merge without waiting for its end, and returns the job.
    fn submit(&self, scene: &Scene, out: &str, more: &[&str]) -> Value {
        let flags = scene.merge(out);
        let args = ["submit", "-o", "json"]
            .into_iter()
            .chain(more.iter().copied())
            .chain(flags.iter().map(String::as_str));
        self.client(args).expect_code(0).json()
    }

    fn get(&self, job: &str) -> Value {
        self.client(["get", "-o", "json", job])
            .expect_code(0)
            .json()
    }

    fn until(&self, job: &str, what: &str, condition: impl Fn(&Value) -> bool) {
        until(what, || condition(&self.get(job)));
    }

    /// Waits until a worker holds tasks of the job and some, not all, are done.
    fn until_under_way(&self, job: &str) {
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

fn tasks(job: &Value, counter: &str) -> u64 {
    job["progress"][counter]
        .as_u64()
        .expect("a number of tasks")
}

fn id(job: &Value) -> String {
    job["job_id"].as_str().expect("a job has an id").to_owned()
}

/// So many parts that a job takes long enough to be met half-way.
const SMALL_PARTS: [&str; 2] = ["--part-size", "256KiB"];
const ANY_PORT: &str = "127.0.0.1:0";

/// Asks a process to stop, and checks that it does so cleanly.
#[track_caller]
fn drain(process: Process) -> Outcome {
    process.signal(Signal::TERM);
    process.wait().expect_code(0)
}

#[test]
fn two_workers_make_the_bytes_of_a_merge_and_everything_drains() {
    let scene = Scene::new();
    let service = scene.serve(ANY_PORT, &["--part-size", "1MiB"]);
    let workers = [service.worker(), service.worker()];
    let flags = scene.merge("out");
    let args = ["submit", "--wait"]
        .into_iter()
        .chain(flags.iter().map(String::as_str));
    let outcome = service.client(args).expect_code(0);
    assert!(outcome.stdout.contains("SUCCEEDED"), "{outcome:#?}");
    scene.assert_as_merged("out");
    workers.map(drain);
    drain(service.process);
}

#[test]
fn a_repeat_of_a_request_finds_the_first_job_and_another_recipe_is_refused() {
    let scene = Scene::new();
    let service = scene.serve(ANY_PORT, &[]);
    let first = service.submit(&scene, "out", &["--request-id", "nightly"]);
    let again = service.submit(&scene, "out", &["--request-id", "nightly"]);
    assert_eq!(id(&first), id(&again));
    assert_eq!(first["request_id"], "nightly");

    let flags = scene.merge("elsewhere");
    let args = ["submit", "--request-id", "nightly"]
        .into_iter()
        .chain(flags.iter().map(String::as_str));
    let refused = service.client(args).expect_code(2);
    assert!(
        refused.stderr.starts_with("error: --request-id: "),
        "{refused:#?}"
    );
    assert!(
        refused
            .stderr
            .contains("`nightly` was used before with another recipe"),
        "{refused:#?}"
    );

    let other = service.submit(&scene, "other", &[]);
    assert_ne!(id(&first), id(&other));
    let listed = service.client(["list", "-o", "json"]).expect_code(0).json();
    let jobs: Vec<String> = listed["jobs"]
        .as_array()
        .expect("a list")
        .iter()
        .map(id)
        .collect();
    assert_eq!(
        jobs.len(),
        2,
        "nothing came of the refused request: {listed:#}"
    );
    assert!(jobs.contains(&id(&first)) && jobs.contains(&id(&other)));
    let text = service.client(["list"]).expect_code(0).stdout;
    assert!(
        text.starts_with("JOB ") && text.contains(&id(&other)),
        "{text}"
    );
}

#[test]
fn a_bad_recipe_is_refused_with_all_its_problems_and_leaves_no_job() {
    let scene = Scene::new();
    let service = scene.serve(ANY_PORT, &[]);
    let recipe = scene.path("recipe.yaml");
    fs::write(&recipe, "cp: cp\nvectors: [{ chat: chat, base: base, lamda: 1 }]\noutput: { url: out, dtype: fp4 }\n").unwrap();
    let refused = service
        .client([OsStr::new("submit"), recipe.as_os_str()])
        .expect_code(2);
    assert!(
        refused.stderr.contains(
            "error: vectors[0].lamda: unknown field `lamda`\n  hint: did you mean `lambda`?\n"
        ),
        "{refused:#?}"
    );
    assert!(
        refused.stderr.contains("error: output.dtype: "),
        "{refused:#?}"
    );
    let listed = service.client(["list", "-o", "json"]).expect_code(0).json();
    assert_eq!(listed["jobs"], serde_json::json!([]));
}

#[test]
fn inputs_that_cannot_work_fail_the_job_with_all_their_problems() {
    let scene = Scene::new();
    let service = scene.serve(ANY_PORT, &[]);
    for input in [scene.family.chat(), scene.family.base()] {
        fs::remove_file(input.join("model-00001-of-00002.safetensors")).unwrap();
    }
    let flags = scene.merge("out");
    let args = ["submit", "--wait"]
        .into_iter()
        .chain(flags.iter().map(String::as_str));
    let failed = service.client(args).expect_code(2);
    for role in ["vectors[0].chat", "vectors[0].base"] {
        let problem = format!("{role}: ");
        assert!(failed.stdout.contains(&problem), "{failed:#?}");
    }
    assert!(
        failed.stdout.contains("hint: the checkpoint is incomplete"),
        "{failed:#?}"
    );
    assert!(!scene.path("out").exists());
}

#[test]
fn an_unknown_job_is_told() {
    let scene = Scene::new();
    let service = scene.serve(ANY_PORT, &[]);
    for command in ["get", "watch", "cancel"] {
        let refused = service.client([command, "job-of-yesterday"]).expect_code(2);
        assert!(refused.stderr.contains("job-of-yesterday"), "{refused:#?}");
        assert_eq!(refused.stdout, "");
    }
}

#[test]
fn watching_shows_a_job_to_its_end() {
    let scene = Scene::new();
    let service = scene.serve(ANY_PORT, &[]);
    let job = id(&service.submit(&scene, "out", &[]));
    let watcher = Process::start(service.command(["watch", "-o", "json", &job]));
    service.until(&job, "the job to be planned", |job| {
        job["state"] == "QUEUED"
    });
    let _worker = service.worker();
    let seen = watcher.wait().expect_code(0);
    let states: Vec<Value> = seen
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).expect("an object a line"))
        .collect();
    assert!(states.iter().all(|seen| id(seen) == job));
    let revisions: Vec<_> = states
        .iter()
        .map(|seen| seen["revision"].as_u64().expect("a number"))
        .collect();
    assert!(revisions.is_sorted(), "{revisions:?}");
    let last = states.last().expect("the end is told");
    assert_eq!(last["state"], "SUCCEEDED");
    assert_eq!(
        last["progress"]["bytes_done"],
        last["progress"]["bytes_total"]
    );
    // A job that has ended is told once.
    let ended = service.client(["watch", "-o", "json", &job]).expect_code(0);
    assert_eq!(ended.stdout.lines().count(), 1, "{ended:#?}");
}

#[test]
fn a_job_that_is_cancelled_leaves_nothing_in_the_output_folder() {
    let scene = Scene::new();
    let service = scene.serve(ANY_PORT, &[]);
    let job = id(&service.submit(&scene, "out", &[]));
    service.until(&job, "the job to be planned", |job| {
        job["state"] == "QUEUED"
    });
    assert!(
        scene.path("out/.chatvec").exists(),
        "the unfinished files are there"
    );
    service.client(["cancel", &job]).expect_code(0);
    service.until(&job, "the end of the job", |job| {
        job["state"] == "CANCELLED"
    });
    until("the unfinished files to be removed", || {
        !scene.path("out/.chatvec").exists()
    });
    let left = fs::read_dir(scene.path("out")).map_or(0, Iterator::count);
    assert_eq!(left, 0);
    // Once more does no harm, and whoever waits learns of it.
    service.client(["cancel", &job]).expect_code(0);
    service.client(["watch", &job]).expect_code(1);
}

#[test]
fn a_job_is_cancelled_while_a_worker_is_at_it() {
    let scene = Scene::new();
    let service = scene.serve(ANY_PORT, &SMALL_PARTS);
    let job = id(&service.submit(&scene, "out", &[]));
    let worker = service.worker();
    service.until_under_way(&job);
    service.client(["cancel", &job]).expect_code(0);
    service.until(&job, "the end of the job", |job| {
        job["state"] == "CANCELLED"
    });
    until("the unfinished files to be removed", || {
        !scene.path("out/.chatvec").exists()
    });
    assert_eq!(
        fs::read_dir(scene.path("out")).map_or(0, Iterator::count),
        0
    );
    drain(worker);
}

#[test]
fn tasks_of_a_killed_worker_go_to_another() {
    let scene = Scene::new();
    let service = scene.serve(ANY_PORT, &[&SMALL_PARTS[..], &["--lease", "1"]].concat());
    let job = id(&service.submit(&scene, "out", &[]));
    let worker = service.worker();
    service.until_under_way(&job);
    worker.freeze();
    let then = service.get(&job);
    assert!(
        tasks(&then, "tasks_done") < tasks(&then, "tasks_total"),
        "it was killed half-way"
    );
    worker.kill();
    let _other = service.worker();
    service.client(["watch", &job]).expect_code(0);
    scene.assert_as_merged("out");
}

#[test]
fn a_job_goes_on_when_a_killed_coordinator_runs_again() {
    let scene = Scene::new();
    let service = scene.serve(ANY_PORT, &SMALL_PARTS);
    let job = id(&service.submit(&scene, "out", &[]));
    let worker = service.worker();
    service.until_under_way(&job);
    let watcher = Process::start(service.command(["watch", &job]));
    let address = service.address.clone();
    service.process.kill();
    assert!(
        !scene.path("out/chatvec.manifest.json").exists(),
        "it was killed before the end"
    );

    let service = scene.serve(&address, &SMALL_PARTS);
    watcher.wait().expect_code(0);
    assert_eq!(service.get(&job)["state"], "SUCCEEDED");
    scene.assert_as_merged("out");
    drain(worker);
    drain(service.process);
}

#[test]
fn a_worker_that_drains_gives_its_tasks_back_at_once() {
    let scene = Scene::new();
    // Nobody could wait for a lease of an hour.
    let service = scene.serve(ANY_PORT, &[&SMALL_PARTS[..], &["--lease", "3600"]].concat());
    let job = id(&service.submit(&scene, "out", &[]));
    let worker = service.worker();
    service.until_under_way(&job);
    drain(worker);
    let then = service.get(&job);
    assert_eq!(tasks(&then, "tasks_leased"), 0, "{then:#}");
    assert_eq!(
        tasks(&then, "retries"),
        0,
        "a drain is charged to nobody: {then:#}"
    );
    let _other = service.worker();
    service.client(["watch", &job]).expect_code(0);
    scene.assert_as_merged("out");
}

#[test]
fn a_client_that_hangs_keeps_no_coordinator_from_stopping() {
    let scene = Scene::new();
    let service = scene.serve(ANY_PORT, &[]);
    let runtime = client_runtime();
    let endpoint = service.endpoint();
    let call = runtime.block_on(async {
        let mut client = ServerReflectionClient::new(endpoint.connect().await.unwrap());
        client
            .server_reflection_info(tokio_stream::pending())
            .await
            .unwrap()
    });
    // Nothing drives the client's end of the connection any more.
    let stopped = drain(service.process);
    assert!(
        stopped
            .stderr
            .contains("clients keep their connections open"),
        "{stopped:#?}"
    );
    drop(call);
}

#[test]
fn a_second_coordinator_on_the_same_state_may_try_later() {
    let scene = Scene::new();
    let service = scene.serve(ANY_PORT, &[]);
    let mut command = process::command(["serve", "--listen", ANY_PORT, "--state"]);
    command.arg(scene.path("state"));
    let second = Process::start(command).wait().expect_code(75);
    assert!(
        second
            .stderr
            .contains(&format!("(pid {})", service.process.id())),
        "{second:#?}"
    );
    assert!(second.stderr.contains("hint: "), "{second:#?}");
    drain(service.process);
}

#[test]
fn a_coordinator_that_is_not_there_is_told_with_advice() {
    let scene = Scene::new();
    let service = scene.serve(ANY_PORT, &[]);
    let address = service.address.clone();
    drain(service.process);
    let flags = scene.merge("out");
    let submit: Vec<&str> = std::iter::once("submit")
        .chain(flags.iter().map(String::as_str))
        .collect();
    for args in [
        &["get", "x"][..],
        &["list"],
        &["watch", "x"],
        &["cancel", "x"],
        &submit,
    ] {
        let mut command = process::command(args);
        command.args(["--coordinator", &address]);
        let failed = Process::start(command).wait().expect_code(75);
        assert!(
            failed.stderr.contains(&format!(
                "error: {address}: the coordinator cannot be reached: "
            )),
            "{failed:#?}"
        );
        assert!(
            failed.stderr.contains("hint: start one by `chatvec serve`"),
            "{failed:#?}"
        );
    }
}

/// Drives a client in this process, on the thread that waits for it alone.
fn client_runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().expect("a runtime can be made")
}

/// What the services of an address are called, by reflection.
async fn services(channel: Channel) -> Vec<String> {
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut client = ServerReflectionClient::new(channel);
    let answers = client
        .server_reflection_info(tokio_stream::once(request))
        .await;
    let answer = answers.unwrap().into_inner().message().await.unwrap();
    match answer.and_then(|answer| answer.message_response) {
        Some(MessageResponse::ListServicesResponse(list)) => list
            .service
            .into_iter()
            .map(|service| service.name)
            .collect(),
        other => panic!("a list of services is expected, found {other:?}"),
    }
}

#[test]
fn health_and_reflection_answer() {
    let scene = Scene::new();
    let service = scene.serve(ANY_PORT, &[]);
    let (endpoint, runtime) = (service.endpoint(), client_runtime());
    let (health, names) = runtime.block_on(async {
        let channel = endpoint.connect().await.unwrap();
        let check = HealthCheckRequest {
            service: String::new(),
        };
        let health = HealthClient::new(channel.clone())
            .check(check)
            .await
            .unwrap();
        (health.into_inner().status(), services(channel).await)
    });
    // Its end closes the connection.
    drop(runtime);
    assert_eq!(health, ServingStatus::Serving);
    for name in [
        "chatvec.v1.MergeService",
        "chatvec.v1.WorkerService",
        "grpc.health.v1.Health",
    ] {
        assert!(names.iter().any(|found| found == name), "{name}: {names:?}");
    }
    let stopped = drain(service.process);
    assert!(
        !stopped.stderr.contains("closed"),
        "nobody had to be cut off: {stopped:#?}"
    );
}
