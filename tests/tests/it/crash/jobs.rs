//! What happens to whole jobs: rows 25 to 32 but for clocks.

use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use chatvec::fault::Failpoint;
use chatvec_tests::cluster::{Cluster, Row, Setup, scaled, until_hit};
use chatvec_tests::fleet::addresses;
use chatvec_tests::process::{Process, Signal, until_every};

use super::{WORK, takeover};
use chatvec_tests::random::Random;

const LOOK_EVERY: Duration = Duration::from_millis(50);

#[test]
fn row_28_cancel_races_with_the_commit() {
    let mut row = Row::new(
        28,
        "a cancel races with the last report and with the commit",
    );
    let cluster = Cluster::tiny();
    for (point, outcome) in [
        (Failpoint::CommitReady, "CANCELLED"),
        (Failpoint::CommitStarted, "SUCCEEDED"),
        (Failpoint::ManifestReady, "SUCCEEDED"),
    ] {
        let out = point.name();
        let (setup, go) = (cluster.lane(&out.to_lowercase()), cluster.path(out));
        let mut coordinator = cluster.serve(&setup.pause(point, &go));
        let address = coordinator.address.clone();
        let _worker = cluster.worker(&address, &Setup::default());
        let job = cluster.submit(&address, out, &[]);
        until_hit(&mut coordinator.process, point);
        let cancel = cluster.fleet.client(&address, &["cancel", &job]);
        assert_eq!(
            cancel.code == Some(0),
            outcome == "CANCELLED",
            "{cancel:#?}"
        );
        cluster.go(&go);
        cluster.watch(&address, &job);
        assert_eq!(cluster.get(&address, &job)["state"], outcome);
        assert_one_outcome(&cluster, &address, &job, out);
    }
    row.holds("before the point of no return it wins, after it it is refused");

    let mut random = Random::seeded();
    let coordinators = [(); 2].map(|()| cluster.serve(&Setup::default()));
    let all = addresses(&coordinators);
    let _workers = [(); 2].map(|()| cluster.worker(&all, &Setup::default()));
    // As long as such a job takes.
    let begin = Instant::now();
    let job = cluster.submit(&all, "measured", &[]);
    cluster.succeeds(&all, &job, "measured");
    let job_time = begin.elapsed();
    let mut cancelled = 0;
    const RACES: u64 = 100;
    for race in 0..RACES {
        let out = format!("race-{race}");
        let job = cluster.submit(&all, &out, &[]);
        let (wait, begin) = (job_time.mul_f64(random.unit()), Instant::now());
        until_every(Duration::from_millis(2), "the moment", || {
            begin.elapsed() >= wait
        });
        let said = cluster.fleet.client(&all, &["cancel", &job]);
        cluster.watch(&all, &job);
        let state = cluster.get(&all, &job)["state"].clone();
        assert_eq!(said.code == Some(0), state == "CANCELLED", "{said:#?}");
        assert_one_outcome(&cluster, &all, &job, &out);
        cancelled += u64::from(state == "CANCELLED");
    }
    println!("{cancelled} of {RACES} cancels came in time");
    row.holds("of 100 jobs that are cancelled at random, each has one outcome");
    row.record();
}

/// A cancelled job leaves nothing, and one that succeeded is whole.
fn assert_one_outcome(cluster: &Cluster, coordinators: &str, job: &str, out: &str) {
    match cluster.get(coordinators, job)["state"].as_str() {
        Some("SUCCEEDED") => cluster.assert_golden(out),
        Some("CANCELLED") => {
            until_every(LOOK_EVERY, "what it left to go", || {
                let uploads = cluster.store().open_uploads();
                !uploads.iter().any(|upload| upload.key.starts_with(out))
            });
            let keys = cluster.fleet.bucket.keys(out).expect("listed");
            assert!(keys.is_empty(), "{keys:?}");
        }
        state => panic!("{state:?} is no end"),
    }
}

#[test]
fn row_30_poison_task() {
    let mut row = Row::new(30, "a task takes down every worker that begins it");
    let cluster = Cluster::tiny();
    let coordinator = cluster.serve(&Setup::default());
    let address = &coordinator.address;
    let poison = Setup::default().at(Failpoint::TaskBegun, "crash:*@/poison/");
    // A worker that dies takes the tasks of its other slots down with it, and
    // those of the other job are not to be given up for that.
    let poison = poison.at(Failpoint::PutReady, "delay=1000:*").with_slots(4);
    let begin = Instant::now();
    let job = cluster.submit(address, "poison", &[]);
    // Its tasks are leased first, and are under way when a poisoned one begins.
    let other = cluster.submit(address, "other", &["--priority", "99"]);
    let state = |job: &str| cluster.get(address, job)["state"].clone();
    cluster.until_true("both plans", "SELECT count(DISTINCT job_id) = 2 FROM task");
    // Whoever dies is replaced, as an orchestrator does it. One at a time: the
    // next gets all that the last one held.
    let worker = Mutex::new(cluster.worker(address, &poison));
    let mut deaths = 0;
    until_every(LOOK_EVERY, "the poisoned job to end", || {
        let mut worker = worker.lock().expect("unshared");
        if worker.ends_within(Duration::ZERO) {
            deaths += 1;
            *worker = cluster.worker(address, &poison);
        }
        state(&job) == "FAILED"
    });
    let bound = scaled(Duration::from_secs(35)) * 3 + WORK;
    row.within("the job fails", bound, begin.elapsed());
    let failed = cluster.get(address, &job);
    assert_eq!(failed["error"]["kind"], "SUSPECTED_POISON", "{failed:#}");
    // Each of its tasks may have taken down a worker; one did it three times.
    assert!(deaths >= 3, "the fault came");
    let crashes = format!("SELECT max(crashes) FROM task WHERE job_id = '{job}'");
    row.at_most(
        "workers that one task takes down",
        3,
        cluster.number(&crashes),
    );
    let taken_down = format!("SELECT max(crashes) FROM task WHERE job_id = '{other}'");
    assert_eq!(cluster.number(&taken_down), 2, "it was in danger");
    cluster.succeeds(address, &other, "other");
    row.holds("another job is not affected");
    row.record();
}

#[test]
fn row_31_all_workers_vanish() {
    let mut row = Row::new(31, "all workers are killed at once, and others come later");
    let cluster = Cluster::start();
    let coordinator = cluster.serve(&Setup::default());
    let address = &coordinator.address;
    let slow = Setup::default().at(Failpoint::PutReady, "delay=200:*");
    let workers = [(); 2].map(|()| cluster.worker(address, &slow));
    let job = cluster.submit(address, "out", &[]);
    cluster.until_done(&job, 1);
    for worker in workers {
        worker.kill();
    }
    let died = Instant::now();
    until_every(LOOK_EVERY, "their leases to be taken back", || {
        let leased =
            format!("SELECT count(*) FROM task WHERE job_id = '{job}' AND state = 'LEASED'");
        cluster.number(&leased) == 0
    });
    row.within("their tasks are free", takeover(), died.elapsed());
    assert_eq!(cluster.get(address, &job)["state"], "RUNNING");
    row.holds("the job waits");
    let _others = [(); 2].map(|()| cluster.worker(address, &Setup::default()));
    cluster.succeeds(address, &job, "out");
    row.at_most(
        "tasks done again, of four slots",
        4,
        cluster.leased_again(&job),
    );
    row.record();
}

#[test]
fn row_32_rolling_update() {
    let mut row = Row::new(
        32,
        "coordinators and workers are replaced one by one during a job",
    );
    let cluster = Cluster::start();
    let listen = |_| cluster.serve(&Setup::default());
    let mut coordinators = [0, 1].map(listen);
    let addresses_of = |coordinators: &[_]| addresses(coordinators);
    let all = addresses_of(&coordinators);
    let ports = coordinators
        .each_ref()
        .map(chatvec_tests::cluster::address_of);
    let slow = Setup::default().at(Failpoint::PutReady, "delay=400:*");
    let mut workers: Vec<Process> = (0..3).map(|_| cluster.worker(&all, &slow)).collect();
    let job = cluster.submit(&all, "out", &[]);
    cluster.until_done(&job, 1);
    let drain = |process: Process| {
        process.signal(Signal::TERM);
        process.wait().expect_code(0).took
    };
    thread::scope(|scope| {
        let watch = scope.spawn(|| cluster.watch(&all, &job));
        for worker in &mut workers {
            let old = std::mem::replace(worker, cluster.worker(&all, &slow));
            drain(old);
        }
        for (coordinator, port) in coordinators.iter_mut().zip(ports) {
            let begin = Instant::now();
            coordinator.process.signal(Signal::TERM);
            assert!(coordinator.process.ends_within(Duration::from_secs(30)));
            row.within(
                "a coordinator drains",
                Duration::from_secs(10),
                begin.elapsed(),
            );
            *coordinator = cluster.serve_at(&port.to_string(), &Setup::default());
        }
        watch.join().expect("its panic is on stderr").expect_code(0);
    });
    cluster.assert_golden("out");
    row.holds("a client that watches sees no error");
    let charged = format!("SELECT sum(failures + crashes) FROM task WHERE job_id = '{job}'");
    row.at_most("attempts charged", 0, cluster.number(&charged));
    let again = cluster.leased_again(&job);
    row.at_most("tasks given back unbegun or half-way", 6, again);
    row.record();
}
