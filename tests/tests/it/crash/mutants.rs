//! The checker, checked: each defect that can be planted in the program breaks
//! its invariant in a history in which the sound program breaks none. Both runs
//! go the same way.

use chatvec::fault::{Failpoint, Mutant};
use chatvec_tests::checker::{Invariant, assert_none};
use chatvec_tests::cluster::{Cluster, Setup, until_hit};
use chatvec_tests::emulator::Operation;
use chatvec_tests::process::{Signal, until_every};
use chatvec_tests::proxy::Traffic;

use super::LOOK_EVERY;

/// One of the two runs: a database, an output, and perhaps a defect.
struct Run<'a> {
    cluster: &'a Cluster,
    out: &'static str,
    database: Setup,
    mutant: Option<Mutant>,
}

impl Run<'_> {
    /// What a coordinator is started with.
    fn coordinator(&self) -> Setup {
        self.planted(self.database.clone())
    }

    /// What a worker of this name is started with.
    fn worker(&self, name: &str) -> Setup {
        self.planted(self.cluster.named(&format!("{name}-{}", self.out)))
    }

    fn planted(&self, setup: Setup) -> Setup {
        match self.mutant {
            Some(mutant) => setup.mutant(mutant),
            None => setup,
        }
    }

    /// A file that ends pauses of this run.
    fn file(&self, name: &str) -> std::path::PathBuf {
        self.cluster.path(&format!("{name}-{}", self.out))
    }

    /// Whether the run's database answers "true".
    fn is_true(&self, sql: &str) -> bool {
        self.database.query(sql) == "t"
    }

    fn until_true(&self, what: &str, sql: &str) {
        until_every(LOOK_EVERY, what, || self.is_true(sql));
    }
}

/// Runs a scenario without a defect, which must break nothing, and with it, which
/// must break this invariant.
#[expect(clippy::print_stdout, reason = "how a defect shows, for whoever looks")]
fn is_caught(mutant: Mutant, invariant: Invariant, scenario: fn(&Run<'_>)) {
    let cluster = Cluster::tiny();
    for (out, mutant) in [("sound", None), ("planted", Some(mutant))] {
        scenario(&Run {
            cluster: &cluster,
            out,
            database: cluster.lane(out),
            mutant,
        });
        let found = cluster.violations(|expected| expected);
        match mutant {
            None => assert_none(&found),
            Some(mutant) => {
                println!("{} breaks:", mutant.name());
                found.iter().for_each(|violation| println!("  {violation}"));
                let is_told = found.iter().any(|one| one.invariant == invariant);
                assert!(is_told, "{} must break {invariant}", mutant.name());
            }
        }
    }
    // It has been checked, and is broken on purpose.
    cluster.unchecked_all();
}

#[test]
fn no_fence_guard_is_caught() {
    is_caught(Mutant::NoFenceGuard, Invariant::ReportsStay, |run| {
        let [go, go_on] = ["go", "go-on"].map(|name| run.file(name));
        let coordinator = run.cluster.serve(&run.coordinator());
        let address = &coordinator.address;
        let zombie = run.worker("zombie").with_slots(1);
        let zombie = zombie.pause(Failpoint::ReportReady, &go);
        let mut zombie = run.cluster.worker(address, &zombie);
        let job = run.cluster.submit(address, run.out, &[]);
        until_hit(&mut zombie, Failpoint::ReportReady);
        zombie.freeze();
        let every_put = format!("pause={}:*", go_on.display());
        let other = run.worker("other").with_slots(3);
        let other = other.at(Failpoint::PutReady, &every_put);
        let _other = run.cluster.worker(address, &other);
        run.until_true(
            "another to hold what the zombie held",
            "SELECT count(*) > 0 FROM task WHERE state = 'LEASED' AND fence = 3",
        );
        run.cluster.go(&go);
        zombie.signal(Signal::CONT);
        let counts = "SELECT count(*) > 0 FROM task WHERE state = 'DONE' AND fence = 3";
        until_every(LOOK_EVERY, "an answer to the late report", || {
            zombie.stderr().contains("the report came after the lease") || run.is_true(counts)
        });
        run.cluster.go(&go_on);
        run.cluster.watch(address, &job).expect_code(0);
    });
}

#[test]
fn guard_by_worker_only_is_caught() {
    is_caught(Mutant::GuardByWorkerOnly, Invariant::ReportsStay, |run| {
        let [go, go_on] = ["go", "go-on"].map(|name| run.file(name));
        let coordinator = run.cluster.serve(&run.coordinator());
        let address = &coordinator.address;
        let job = run.cluster.submit(address, run.out, &[]);
        run.until_true("the plan", "SELECT count(*) > 0 FROM task");
        let tasks = run.database.query("SELECT count(*) FROM task");
        let tasks: u64 = tasks.parse().expect("a number");
        // It begins every task, and then one of them once more.
        let worker = run.worker("worker").with_slots(4);
        let worker = worker.pause(Failpoint::ReportReady, &go);
        let again = format!("pause={}:{}", go_on.display(), tasks + 1);
        let worker = worker.at(Failpoint::TaskBegun, &again);
        let mut worker = run.cluster.worker(address, &worker);
        until_hit(&mut worker, Failpoint::ReportReady);
        run.until_true(
            "the others to be done",
            "SELECT count(*) = 1 FROM task WHERE state <> 'DONE'",
        );
        worker.freeze();
        run.until_true(
            "its lease to be taken back",
            "SELECT count(*) > 0 FROM task WHERE state = 'READY' AND crashes = 1",
        );
        worker.signal(Signal::CONT);
        until_hit(&mut worker, Failpoint::TaskBegun);
        run.cluster.go(&go);
        let counts = "SELECT count(*) > 0 FROM task WHERE state = 'DONE' AND fence = 3";
        until_every(LOOK_EVERY, "an answer to the late report", || {
            worker.stderr().contains("the report came after the lease") || run.is_true(counts)
        });
        run.cluster.go(&go_on);
        run.cluster.watch(address, &job).expect_code(0);
    });
}

#[test]
fn no_self_fence_is_caught() {
    is_caught(Mutant::NoSelfFence, Invariant::SelfFence, |run| {
        let go = run.file("go");
        let coordinator = run.cluster.serve(&run.coordinator());
        let address = &coordinator.address;
        let proxy = run.cluster.coordinator_proxy(&coordinator);
        let through = format!("http://{}", proxy.address());
        let cut_off = run.worker("cut-off").with_slots(1);
        let cut_off = cut_off.pause(Failpoint::PutReady, &go);
        let mut cut_off = run.cluster.worker(&through, &cut_off);
        let job = run.cluster.submit(address, run.out, &[]);
        until_hit(&mut cut_off, Failpoint::PutReady);
        // No answer to a heartbeat tells it what it must see by its own clock.
        proxy.set_traffic(Traffic::Held);
        run.until_true(
            "its lease to be taken back",
            "SELECT count(*) > 0 FROM task WHERE state = 'READY' AND crashes = 1",
        );
        run.cluster.go(&go);
        let name = format!("cut-off-{}", run.out);
        until_every(LOOK_EVERY, "it to put the part, or to drop it", || {
            let history = run.cluster.store().history();
            let mut puts = history.of(Operation::PutPart);
            let has_put = puts.any(|put| put.access_key == name && put.effect.is_some());
            has_put || cut_off.stderr().contains("lease lost, the task is dropped")
        });
        let _other = run.cluster.worker(address, &run.worker("other"));
        run.cluster.watch(address, &job).expect_code(0);
    });
}

#[test]
fn complete_from_listing_is_caught() {
    is_caught(Mutant::CompleteFromListing, Invariant::GoldenBytes, |run| {
        let go = run.file("go");
        let setup = run.coordinator().pause(Failpoint::CommitReady, &go);
        let mut coordinator = run.cluster.serve(&setup);
        let address = coordinator.address.clone();
        let _worker = run.cluster.worker(&address, &run.worker("worker"));
        let job = run.cluster.submit(&address, run.out, &[]);
        until_hit(&mut coordinator.process, Failpoint::CommitReady);
        let uploads = run.cluster.store().open_uploads();
        let weights = uploads
            .iter()
            .find(|upload| upload.key.ends_with(".safetensors"));
        let weights = weights.expect("a job has weights");
        let part = weights.parts[&1].chunks.concat().len();
        let bucket = &run.cluster.fleet.bucket;
        let put = bucket.put_part(&weights.key, 0, vec![0; part]);
        put.expect("the upload is open");
        run.cluster.go(&go);
        run.cluster.watch(&address, &job).expect_code(0);
    });
}

#[test]
fn reaper_without_recheck_is_caught() {
    is_caught(
        Mutant::ReaperWithoutRecheck,
        Invariant::FairCharges,
        |run| {
            let [go, go_on] = ["go", "go-on"].map(|name| run.file(name));
            let setup = run.coordinator().pause(Failpoint::ReapRead, &go);
            let mut coordinator = run.cluster.serve(&setup);
            let address = coordinator.address.clone();
            let every_put = format!("pause={}:*", go_on.display());
            let slow = run.worker("slow").at(Failpoint::PutReady, &every_put);
            let mut slow = run.cluster.worker(&address, &slow);
            let job = run.cluster.submit(&address, run.out, &[]);
            until_hit(&mut slow, Failpoint::PutReady);
            slow.freeze();
            until_hit(&mut coordinator.process, Failpoint::ReapRead);
            slow.signal(Signal::CONT);
            // Where the reaper has locked what it read, no heartbeat gets at it.
            let renewed = "SELECT count(*) > 0 FROM task WHERE state = 'LEASED' AND
                       lease_expires_at_ms > extract(epoch FROM clock_timestamp()) * 1000";
            let locked = "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
            until_every(LOOK_EVERY, "a heartbeat to pass, or to wait", || {
                run.is_true(renewed) || run.is_true(locked)
            });
            run.cluster.go(&go);
            run.until_true(
                "the leases to be taken back",
                "SELECT count(*) > 0 FROM task WHERE crashes > 0",
            );
            run.cluster.go(&go_on);
            run.cluster.watch(&address, &job).expect_code(0);
        },
    );
}

#[test]
fn manifest_before_files_is_caught() {
    is_caught(
        Mutant::ManifestBeforeFiles,
        Invariant::ManifestLast,
        |run| {
            let coordinator = run.cluster.serve(&run.coordinator());
            let address = &coordinator.address;
            let _worker = run.cluster.worker(address, &run.worker("worker"));
            let job = run.cluster.submit(address, run.out, &[]);
            run.cluster.watch(address, &job).expect_code(0);
        },
    );
}

/// The list above has every defect that there is.
#[test]
fn no_mutant_is_forgotten() {
    let text = include_str!("mutants.rs")
        .split_whitespace()
        .collect::<String>();
    for mutant in Mutant::ALL {
        let name = format!("{{is_caught(Mutant::{},", mutant.name());
        assert_eq!(text.matches(&name).count(), 1, "{name}");
    }
}
