//! The walk of failpoints: every point where the program may crash, stand still
//! or fail, on every kind of store.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::{Duration, Instant};

use chatvec::fault::Failpoint;

use super::{Cluster, LEASE, Setup, until_hit};
use crate::checker::{Ends, assert_none};
use crate::emulator::Profile;
use crate::fleet::{Coordinator, submission};
use crate::process::{Process, Signal, until_every};

/// Jobs that run side by side.
const LANES: usize = 4;
/// As a process ends that a failpoint crashed.
const CRASHED: i32 = 137;
/// How long a process stands still: longer than any lease lasts.
const STANDS_STILL: Duration = LEASE.saturating_add(Duration::from_secs(1));
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What is done at a failpoint, at its first hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blow {
    /// The process ends.
    Crash,
    /// All of the process stands still for longer than a lease.
    Pause,
    /// What it was about to do fails.
    Error,
}

impl Blow {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Crash, Self::Pause, Self::Error];
}

/// Every kind of store that the emulator can be.
pub const PROFILES: [Profile; 4] = [Profile::Aws, Profile::Minio, Profile::R2, Profile::Kms];

/// One walk: a store, a blow, and what came of it at each failpoint.
#[derive(Debug)]
pub struct Walked {
    /// The failpoints in their order.
    pub steps: Vec<Step>,
    /// What the checker said in the end; `Err` with all violations.
    pub checked: Result<(), String>,
}

impl Walked {
    /// Every demand that was in vain, a text each.
    pub fn failures(&self) -> Vec<String> {
        let steps = self.steps.iter().filter_map(|step| {
            let error = step.outcome.as_ref().err()?;
            Some(format!("{}: {error}", step.point.name()))
        });
        let checker = self.checked.as_ref().err();
        let checker = checker.map(|error| format!("checker: {error}"));
        steps.chain(checker).collect()
    }
}

/// One failpoint of a walk, and what came of it.
#[derive(Debug)]
pub struct Step {
    /// The failpoint.
    pub point: Failpoint,
    /// How long its job took.
    pub took: Duration,
    /// `Err` with what was demanded in vain.
    pub outcome: Result<(), String>,
}

/// Who passes a failpoint, and what has to be done for that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// A coordinator, with any job.
    Coordinator,
    /// A coordinator, when a worker asks while there are tasks.
    Claim,
    /// A coordinator, when a worker has died.
    Reaper,
    /// A coordinator, when a job was cancelled.
    Cleaning,
    /// A worker, with any job.
    Worker,
}

/// There is none that a job below a prefix does not pass, so none is left out:
/// whoever adds a failpoint decides here how it is reached.
fn way_to(point: Failpoint) -> Way {
    use Failpoint::*;
    match point {
        PlanStarted | UploadsIntended | UploadCreated | UploadRecorded | PlanReady | PlanStored
        | ReportCommitted | PublishStarted | SmallFileStaged | CommitReady | CommitStarted
        | OutputClaimed | CompleteReady | CompleteDone | CompleteRecorded | WeightsComplete
        | SidesComplete | ManifestReady | ManifestFinal | CommitFinished => Way::Coordinator,
        ClaimUncommitted | ClaimCommitted => Way::Claim,
        ReapRead => Way::Reaper,
        LeftoversRemoved => Way::Cleaning,
        TaskBegun | PutReady | PutDone | ReportReady | ReportAnswered => Way::Worker,
    }
}

/// Which steps of the whole walk are taken: all, unless told otherwise.
#[derive(Debug, Clone, clap::Args)]
pub struct Chosen {
    /// Only on stores whose name holds this: aws, minio, r2, kms
    #[arg(long, default_value = "")]
    pub store: String,
    /// Only blows whose name holds this: crash, pause, error
    #[arg(long, default_value = "")]
    pub blow: String,
    /// Only failpoints whose name holds this
    #[arg(long, default_value = "")]
    pub point: String,
}

/// Walks every failpoint, with every blow, on every kind of store, and tells
/// each step as a line, and a summary.
///
/// # Errors
/// If a step failed, or none was chosen.
///
/// # Panics
/// If a cluster cannot be had.
pub fn walk_all(chosen: &Chosen, tell: impl Fn(&str)) -> anyhow::Result<()> {
    let begin = Instant::now();
    let is_named = |name: &str, part: &str| name.to_lowercase().contains(&part.to_lowercase());
    let points = Failpoint::ALL.iter().copied();
    let points: Vec<_> = points
        .filter(|point| is_named(point.name(), &chosen.point))
        .collect();
    let places = PROFILES
        .into_iter()
        .flat_map(|profile| Blow::ALL.map(|blow| (profile, blow)))
        .filter(|(profile, blow)| {
            is_named(&format!("{profile:?}"), &chosen.store)
                && is_named(&format!("{blow:?}"), &chosen.blow)
        });
    let (mut steps, mut failures) = (0, Vec::new());
    for (profile, blow) in places {
        let place = format!("{profile:?} {blow:?}");
        let walked = walk(profile, blow, &points);
        for step in &walked.steps {
            let (name, took) = (step.point.name(), step.took.as_secs_f64());
            let outcome = if step.outcome.is_ok() { "ok" } else { "FAILED" };
            tell(&format!("{place:<12} {name:<18} {took:>5.1} s  {outcome}"));
        }
        steps += walked.steps.len();
        let failed = walked.failures().into_iter();
        failures.extend(failed.map(|failure| format!("{place} {failure}")));
    }
    for failure in &failures {
        tell(failure);
    }
    let (took, failed) = (begin.elapsed().as_secs(), failures.len());
    tell(&format!("{steps} steps in {took} s, {failed} failures"));
    anyhow::ensure!(steps > 0, "no step has these names");
    anyhow::ensure!(failures.is_empty(), "the walk has failed");
    Ok(())
}

/// Strikes at each of these failpoints in a job of its own, some side by side,
/// on one cluster. Each job must come to its end, with golden bytes; then the
/// history of all is checked.
///
/// # Panics
/// If the cluster cannot be had.
pub fn walk(profile: Profile, blow: Blow, points: &[Failpoint]) -> Walked {
    let cluster = Cluster::tiny_on(profile);
    let mut steps = Vec::new();
    for points in points.chunks(LANES) {
        thread::scope(|scope| {
            let step = |point: Failpoint| {
                let begin = Instant::now();
                let outcome = caught(|| strike(&cluster, blow, point));
                let took = begin.elapsed();
                Step {
                    point,
                    took,
                    outcome,
                }
            };
            let lanes = points.iter().map(|point| scope.spawn(move || step(*point)));
            // Collected first, so that they run side by side.
            let lanes: Vec<_> = lanes.collect();
            let ended = lanes.into_iter().map(|lane| lane.join());
            steps.extend(ended.map(|step| step.expect("a panic is caught inside")));
        });
    }
    let checked = caught(|| assert_none(&cluster.violations(|expected| expected.settled())));
    // Told already, and the walk goes on.
    cluster.unchecked_all();
    Walked { steps, checked }
}

/// What was demanded in vain.
fn caught(run: impl FnOnce()) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
        text.unwrap_or_else(|| "a panic without words".to_owned())
    })
}

/// One job, its failpoint, and whoever takes over.
struct Lane<'a> {
    cluster: &'a Cluster,
    blow: Blow,
    point: Failpoint,
    /// The name of the job's request, its output and its database.
    name: String,
    database: Setup,
}

fn strike(cluster: &Cluster, blow: Blow, point: Failpoint) {
    let name = format!("{blow:?}_{}", point.name()).to_lowercase();
    let lane = Lane {
        cluster,
        blow,
        point,
        database: cluster.lane(&name),
        name,
    };
    match way_to(point) {
        Way::Worker => lane.strikes_a_worker(),
        Way::Cleaning => lane.strikes_the_cleaning(),
        way => lane.strikes_a_coordinator(way),
    }
}

impl Lane<'_> {
    /// A setup in which the blow comes.
    fn armed(&self, setup: Setup) -> Setup {
        match self.blow {
            Blow::Crash => setup.at(self.point, "crash"),
            Blow::Error => setup.at(self.point, "error"),
            Blow::Pause => setup.pause(self.point, &self.go()),
        }
    }

    fn go(&self) -> std::path::PathBuf {
        self.cluster.path(&format!("go-{}", self.name))
    }

    /// Submits the job, or finds it if it is there.
    fn submit(&self, coordinators: &str) -> String {
        let request = ["--request-id", self.name.as_str()];
        self.cluster.submit(coordinators, &self.name, &request)
    }

    /// Submits the job to a coordinator that may be gone before it answers.
    fn try_to_submit(&self, coordinators: &str) {
        let request = ["--request-id", self.name.as_str()];
        let merge = self.cluster.merge(&self.name);
        let args = submission(&merge, &request);
        let _first_try = self.cluster.fleet.client(coordinators, &args);
    }

    fn until_true(&self, what: &str, sql: &str) {
        until_every(LOOK_EVERY, what, || self.database.query(sql) == "t");
    }

    fn until_planned(&self) {
        self.until_true("the plan", "SELECT count(*) > 0 FROM task");
    }

    /// Waits until the failpoint is hit, and does what the blow is.
    fn takes_it(&self, process: &mut Process) {
        until_hit(process, self.point);
        match self.blow {
            Blow::Crash => {
                let ended = process.ends_within(Duration::from_secs(10));
                assert!(ended, "it crashes");
            }
            Blow::Pause => process.freeze(),
            Blow::Error => {}
        }
    }

    /// Lets a process that stands still go on, after its time.
    fn goes_on(&self, process: &Process, since: Instant) {
        if self.blow == Blow::Pause {
            until_every(LOOK_EVERY, "leases to end", || {
                since.elapsed() > STANDS_STILL
            });
            self.cluster.go(&self.go());
            process.signal(Signal::CONT);
        }
    }

    /// The job succeeds, and nothing of it is left but its output.
    fn succeeds(&self, coordinators: &str) {
        let job = self.submit(coordinators);
        self.cluster
            .expect(|expected| expected.job(&job, Ends::Succeeded));
        self.cluster.watch(coordinators, &job).expect_code(0);
        self.until_clean();
    }

    fn until_clean(&self) {
        let prefix = format!("{}/", self.name);
        until_every(LOOK_EVERY, "unfinished uploads to be aborted", || {
            let uploads = self.cluster.store().open_uploads();
            !uploads.iter().any(|upload| upload.key.starts_with(&prefix))
        });
    }

    fn strikes_a_coordinator(&self, way: Way) {
        let cluster = self.cluster;
        let mut first = cluster.serve(&self.armed(self.database.clone()));
        let mut workers = Vec::new();
        if way == Way::Coordinator {
            workers.push(cluster.worker(&first.address, &Setup::default()));
        }
        self.try_to_submit(&first.address);
        match way {
            Way::Claim => {
                // A claim that finds nothing would be hit, too.
                self.until_planned();
                workers.push(cluster.worker(&first.address, &Setup::default()));
            }
            Way::Reaper => {
                let dies = Setup::default().at(Failpoint::PutReady, "crash");
                cluster
                    .worker(&first.address, &dies)
                    .wait()
                    .expect_code(CRASHED);
            }
            _ => {}
        }
        self.takes_it(&mut first.process);
        let since = Instant::now();
        let second = (self.blow != Blow::Error).then(|| cluster.serve(&self.database));
        let serving = second.as_ref().unwrap_or(&first);
        workers.push(cluster.worker(&serving.address, &Setup::default()));
        self.goes_on(&first.process, since);
        self.succeeds(&serving.address);
    }

    fn strikes_a_worker(&self) {
        let cluster = self.cluster;
        let coordinator = cluster.serve(&self.database);
        let address = &coordinator.address;
        let mut first = cluster.worker(address, &self.armed(Setup::default()));
        self.submit(address);
        self.takes_it(&mut first);
        let since = Instant::now();
        let _second =
            (self.blow != Blow::Error).then(|| cluster.worker(address, &Setup::default()));
        self.goes_on(&first, since);
        self.succeeds(address);
    }

    fn strikes_the_cleaning(&self) {
        let cluster = self.cluster;
        let mut first = cluster.serve(&self.armed(self.database.clone()));
        let job = self.submit(&first.address);
        cluster.expect(|expected| expected.job(&job, Ends::Cancelled));
        self.until_planned();
        let cancel = ["cancel", job.as_str()];
        cluster.fleet.client(&first.address, &cancel).expect_code(0);
        self.takes_it(&mut first.process);
        let since = Instant::now();
        let _second: Option<Coordinator> =
            (self.blow != Blow::Error).then(|| cluster.serve(&self.database));
        self.goes_on(&first.process, since);
        self.until_true(
            "the job to be cleaned up",
            "SELECT count(*) > 0 FROM job WHERE state = 'CANCELLED' AND cleaned_at_ms IS NOT NULL",
        );
        self.until_clean();
    }
}
