//! Coordinators that die or stand still: rows 1 and 3 to 5.

use std::thread;
use std::time::{Duration, Instant};

use chatvec::fault::Failpoint;
use chatvec_tests::cluster::{Cluster, Row, Setup, until_hit};
use chatvec_tests::fleet::{Coordinator, addresses, submission};
use chatvec_tests::process::Signal;

use super::{WORK, takeover};

/// As a process ends that a failpoint crashed.
const CRASHED: i32 = 137;
/// Jobs of a walk that run side by side.
const LANES: usize = 5;
/// Jobs after which it is no bad luck that no worker called the coordinator
/// that was to crash.
const TRIES: usize = 5;

#[test]
fn row_01_coordinator_killed_while_workers_claim() {
    let mut row = Row::new(1, "one of two coordinators is killed while workers claim");
    let cluster = Cluster::start();
    let outs = [
        (None, "idle"),
        (
            Some(Failpoint::ClaimUncommitted),
            "before the claim's COMMIT",
        ),
        (Some(Failpoint::ClaimCommitted), "after the claim's COMMIT"),
    ];
    let second = cluster.serve(&Setup::default());
    let mut tries = 0..;
    for (point, moment) in outs {
        let killed = (0..TRIES).any(|_| {
            let out = format!("out-{}", tries.next().expect("numbers do not end"));
            let setup = point.map_or(Setup::default(), |point| {
                Setup::default().at(point, "crash:3")
            });
            let mut first = cluster.serve(&setup);
            let both = addresses([&first, &second]);
            let _workers = [(); 3].map(|()| cluster.worker(&both, &Setup::default()));
            let job = cluster.submit(&both, &out, &[]);
            let was_hit = match point {
                None => {
                    cluster.until_done(&job, 1);
                    first.process.signal(Signal::KILL);
                    first.process.ends_within(Duration::from_secs(10))
                }
                Some(_) => {
                    let ended = || cluster.get(&second.address, &job)["state"] == "SUCCEEDED";
                    !first.process.runs_until("the crash", ended)
                }
            };
            let died = Instant::now();
            cluster.get(&both, &job);
            let gap = died.elapsed();
            cluster.succeeds(&both, &job, &out);
            if was_hit {
                row.within(
                    &format!("a client is answered ({moment})"),
                    Duration::from_secs(5),
                    gap,
                );
            }
            if point.is_none() {
                row.at_most("parts put again", 0, cluster.put_again(&out));
            }
            was_hit
        });
        assert!(killed, "no worker called the coordinator that was to crash");
    }
    row.record();
}

/// Runs a tiny job for each of these failpoints, some side by side, each in a
/// database of its own. Its first coordinator crashes there, and a second one must bring
/// the job to its end; returns the longest time that this took.
fn walk(cluster: &Cluster, crashes: &[(Failpoint, u32)]) -> Duration {
    let lane = |point: Failpoint, hit: u32| {
        let name = format!("{}_{hit}", point.name()).to_lowercase();
        let setup = cluster.lane(&name);
        let mut first = cluster.serve(&setup.clone().at(point, &format!("crash:{hit}")));
        let worker = cluster.worker(&first.address, &Setup::default());
        // The coordinator may be gone before it has answered: the request is
        // repeated, and finds the job.
        let request = ["--request-id", &name];
        let merge = cluster.merge(&name);
        let args = submission(&merge, &request);
        let _first_try = cluster.fleet.client(&first.address, &args);
        until_hit(&mut first.process, point);
        let died = Instant::now();
        first.process.wait().expect_code(CRASHED);
        let second = cluster.serve(&setup);
        let _workers = [worker, cluster.worker(&second.address, &Setup::default())];
        let job = cluster.submit(&second.address, &name, &request);
        cluster.watch(&second.address, &job).expect_code(0);
        let took = died.elapsed();
        cluster.assert_golden(&name);
        (name, took)
    };
    let mut ended = Vec::new();
    for crashes in crashes.chunks(LANES) {
        thread::scope(|scope| {
            let lanes = crashes
                .iter()
                .map(|(point, hit)| scope.spawn(move || lane(*point, *hit)));
            // Collected first, so that they run side by side.
            let lanes: Vec<_> = lanes.collect();
            let lanes = lanes.into_iter();
            ended.extend(lanes.map(|lane| lane.join().expect("its panic is on stderr")));
        });
    }
    let outs: Vec<&str> = ended.iter().map(|(name, _)| name.as_str()).collect();
    cluster.fleet.assert_nothing_else(&outs);
    let longest = ended.iter().map(|(_, took)| *took).max();
    longest.expect("there are lanes")
}

#[test]
fn row_03_coordinator_killed_in_planning() {
    use Failpoint::{
        PlanReady, PlanStarted, PlanStored, UploadCreated, UploadRecorded, UploadsIntended,
    };
    let mut row = Row::new(3, "the coordinator is killed at each step of planning");
    let cluster = Cluster::tiny();
    let longest = walk(
        &cluster,
        &[
            (PlanStarted, 1),
            (UploadsIntended, 1),
            (UploadCreated, 1),
            (UploadRecorded, 1),
            (PlanReady, 1),
            (PlanStored, 1),
        ],
    );
    let bound = takeover() + WORK;
    row.within("the job is planned anew and succeeds", bound, longest);
    row.holds("no upload is left behind");
    row.record();
}

#[test]
fn row_04_coordinator_killed_at_each_step_of_the_commit() {
    use Failpoint::{
        CommitFinished, CommitReady, CommitStarted, CompleteDone, CompleteReady, CompleteRecorded,
        ManifestFinal, ManifestReady, OutputClaimed, PublishStarted, SidesComplete,
        SmallFileStaged, WeightsComplete,
    };
    let mut row = Row::new(4, "the coordinator is killed at each step of the commit");
    let cluster = Cluster::tiny();
    let longest = walk(
        &cluster,
        &[
            (PublishStarted, 1),
            (SmallFileStaged, 2),
            (CommitReady, 1),
            (CommitStarted, 1),
            (OutputClaimed, 1),
            (CompleteReady, 1),
            (CompleteDone, 1),
            (CompleteDone, 3),
            (CompleteRecorded, 2),
            (WeightsComplete, 1),
            (SidesComplete, 1),
            (ManifestReady, 1),
            (ManifestFinal, 1),
            (CommitFinished, 1),
        ],
    );
    let bound = takeover() + WORK;
    row.within("another coordinator rolls it forward", bound, longest);
    row.holds("one complete manifest, golden bytes, no upload left behind");
    row.record();
}

#[test]
fn row_05_two_finalizers_of_one_job() {
    let mut row = Row::new(
        5,
        "a coordinator stands still in the commit and goes on after another has finished it",
    );
    let cluster = Cluster::tiny();
    let points = [
        Failpoint::CompleteReady,
        Failpoint::ManifestReady,
        Failpoint::ManifestFinal,
    ];
    thread::scope(|scope| {
        for point in points {
            let cluster = &cluster;
            scope.spawn(move || stands_still_at(cluster, point));
        }
    });
    cluster
        .fleet
        .assert_nothing_else(&points.map(Failpoint::name));
    row.holds("what the first one still does changes no byte");
    row.holds("its transaction is refused by the epoch, and it works on");
    row.record();
}

fn stands_still_at(cluster: &Cluster, point: Failpoint) {
    let out = point.name();
    let setup = cluster.lane(&out.to_lowercase());
    let go = cluster.path(&format!("go-{out}"));
    let mut first = cluster.serve(&setup.clone().pause(point, &go));
    let _worker = cluster.worker(&first.address, &Setup::default());
    let job = cluster.submit(&first.address, out, &[]);
    until_hit(&mut first.process, point);
    first.process.freeze();
    let second = cluster.serve(&setup);
    cluster.succeeds(&second.address, &job, out);
    let manifest = format!("{out}/chatvec.manifest.json");
    let before = cluster
        .fleet
        .bucket
        .get(&manifest)
        .expect("it is published");
    cluster.go(&go);
    first.process.signal(Signal::CONT);
    // It serves again, and whatever it had under way is over.
    let Coordinator { process, address } = first;
    assert_eq!(cluster.get(&address, &job)["state"], "SUCCEEDED");
    process.signal(Signal::TERM);
    process.wait().expect_code(0);
    cluster.assert_golden(out);
    let after = cluster
        .fleet
        .bucket
        .get(&manifest)
        .expect("it is published");
    assert!(before == after, "the manifest changed");
}
