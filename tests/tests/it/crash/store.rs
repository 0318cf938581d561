//! A store that refuses, forgets, loses and lies: rows 11, 12, 16 to 18 and 29.

use std::time::{Duration, Instant};

use chatvec::fault::Failpoint;
use chatvec_tests::cluster::{Cluster, Row, Setup, scaled, until_hit};
use chatvec_tests::emulator::{Action, Fault, Operation, Profile, Refusal};
use chatvec_tests::fleet::ACCESS_KEY;
use chatvec_tests::process::{Process, Signal, until};

use super::WORK;

/// The seed of the storm.
const SEED: u64 = 16;
/// Of the requests in a storm, so many are refused.
const STORM: f64 = 0.5;

#[test]
fn row_11_zombie_with_different_bytes() {
    let mut row = Row::new(11, "a late put replaces a reported part by other bytes");
    let cluster = Cluster::start();
    let go = cluster.path("go");
    let mut coordinator = cluster.serve(&Setup::default().pause(Failpoint::CommitReady, &go));
    let address = coordinator.address.clone();
    let _worker = cluster.worker(&address, &Setup::default());
    let job = cluster.submit(&address, "out", &[]);
    until_hit(&mut coordinator.process, Failpoint::CommitReady);
    let uploads = cluster.store().open_uploads();
    let weights = uploads.iter().find(|upload| upload.parts.len() > 1);
    let weights = weights.expect("a weight file has several parts");
    let part = weights.parts[&1].chunks.concat().len();
    let put = cluster
        .fleet
        .bucket
        .put_part(&weights.key, 0, vec![0; part]);
    put.expect("the upload is open");
    cluster.go(&go);
    cluster.succeeds(&address, &job, "out");
    assert!(refused_completions(&cluster) > 0, "the fault came");
    row.holds("the store refuses the completion, and golden bytes are published");
    row.at_most("tasks done again", 1, cluster.leased_again(&job));
    cluster.fleet.assert_nothing_else(&["out"]);
    row.record();
}

#[test]
fn row_12_zombie_where_every_put_has_another_etag() {
    let mut row = Row::new(
        12,
        "a late put of the same bytes, where each put has another ETag",
    );
    let cluster = Cluster::on(Profile::Kms);
    let zombie = late_put(&cluster, "out");
    assert!(refused_completions(&cluster) > 0, "the fault came");
    row.holds("the part is known by its checksum and adopted under its new ETag");
    zombie.signal(Signal::CONT);
    row.record();
}

/// The put of a worker that stands still takes effect when the job has been done
/// by another, right before the commit. The job succeeds, and no task is done
/// again for that.
pub(super) fn late_put(cluster: &Cluster, out: &str) -> Process {
    let go = cluster.path("go-late-put");
    let mut coordinator = cluster.serve(&Setup::default().pause(Failpoint::CommitReady, &go));
    let address = coordinator.address.clone();
    let held = Fault::new(Action::Hold(None))
        .on(Operation::PutPart)
        .by("zombie");
    let held = cluster.store().add(held.times(1));
    let zombie = cluster.worker(&address, &cluster.named("zombie").with_slots(1));
    let job = cluster.submit(&address, out, &[]);
    // Frozen earlier it would not have sent all of the part.
    until("the part to arrive", || {
        let history = cluster.store().history();
        let mut puts = history.of(Operation::PutPart);
        puts.any(|put| put.fault.is_some() && put.received.is_some())
    });
    zombie.freeze();
    let _other = cluster.worker(&address, &cluster.named("other"));
    until_hit(&mut coordinator.process, Failpoint::CommitReady);
    held.release();
    until("the late put to take effect", || {
        let history = cluster.store().history();
        let mut late = history.of(Operation::PutPart);
        late.any(|put| put.access_key == "zombie" && put.fault.is_some() && put.effect.is_some())
    });
    let again = cluster.leased_again(&job);
    cluster.go(&go);
    cluster.succeeds(&address, &job, out);
    assert_eq!(
        cluster.leased_again(&job),
        again,
        "no task was done again for it"
    );
    zombie
}

/// Completions that the store has refused.
fn refused_completions(cluster: &Cluster) -> usize {
    let history = cluster.store().history();
    let completions = history.of(Operation::CompleteUpload);
    completions
        .filter(|completion| completion.status == Some(400))
        .count()
}

#[test]
fn row_16_storm_of_slow_down() {
    let mut row = Row::new(16, "the store refuses half of all requests with 503");
    let cluster = Cluster::start();
    let coordinator = cluster.serve(&Setup::default());
    let address = &coordinator.address;
    let _workers = [(); 2].map(|()| cluster.worker(address, &Setup::default()));
    let job_takes = |out: &str| {
        let begin = Instant::now();
        let job = cluster.submit(address, out, &[]);
        cluster.watch(address, &job).expect_code(0);
        let took = begin.elapsed();
        cluster.assert_golden(out);
        (job, took)
    };
    let (_, before) = job_takes("before");
    let storm = Fault::new(Action::Refuse(Refusal::SlowDown)).with_probability(STORM, SEED);
    let storm = cluster.store().add(storm.by(ACCESS_KEY));
    let begin = Instant::now();
    let job = cluster.submit(address, "storm", &[]);
    storm.until_fired(20);
    until("the storm to pass", || {
        begin.elapsed() > scaled(Duration::from_secs(120))
    });
    storm.remove();
    cluster.succeeds(address, &job, "storm");
    let charged = format!("SELECT sum(failures + crashes) FROM task WHERE job_id = '{job}'");
    row.at_most("attempts charged", 0, cluster.number(&charged));
    let (_, after) = job_takes("after");
    // Jobs this short are mostly processes that start.
    row.within("the next job", before.mul_f64(1.0 / 0.8) + WORK / 2, after);
    row.record();
}

#[test]
fn row_17_slow_truncated_and_corrupted_bodies() {
    let mut row = Row::new(
        17,
        "bodies stand still, end early, or arrive with a flipped bit",
    );
    let cluster = Cluster::start();
    let faults = [
        Fault::new(Action::StallBody(1000))
            .on(Operation::Get)
            .by("worker")
            .after(6)
            .times(1),
        Fault::new(Action::TruncateBody(1000))
            .on(Operation::Get)
            .by("worker")
            .after(8)
            .times(3),
        Fault::new(Action::CorruptReceived(100))
            .on(Operation::PutPart)
            .by("worker")
            .times(2),
    ];
    let rules = faults.map(|fault| cluster.store().add(fault));
    let coordinator = cluster.serve(&Setup::default());
    let address = &coordinator.address;
    let _workers = [(); 2].map(|()| cluster.worker(address, &cluster.named("worker")));
    let begin = Instant::now();
    let job = cluster.submit(address, "out", &[]);
    cluster.watch(address, &job).expect_code(0);
    let took = begin.elapsed();
    cluster.assert_golden("out");
    for rule in &rules {
        assert!(rule.fired() > 0, "the fault came: {rule:?}");
    }
    row.within(
        "the job succeeds",
        scaled(Duration::from_secs(65)) + WORK * 2,
        took,
    );
    row.holds("a bit that is flipped on the way to the store is found by the checksum");
    row.record();
}

#[test]
fn row_18_doubtful_answers_to_completions() {
    let mut row = Row::new(
        18,
        "a completion is answered by an error in a 200, by nothing, by 409",
    );
    let mut again = 0;
    for profile in [Profile::Aws, Profile::Minio] {
        let cluster = Cluster::tiny_on(profile);
        let coordinator = cluster.serve(&Setup::default());
        let address = &coordinator.address;
        let _worker = cluster.worker(address, &Setup::default());
        for (out, action) in [
            ("error-in-ok", Action::RefuseInOk(Refusal::InternalError)),
            ("no-answer", Action::DropAfter),
            ("conflict", Action::Refuse(Refusal::Conflict)),
        ] {
            let fault = Fault::new(action).on(Operation::CompleteUpload);
            let rule = cluster.store().add(fault.times(2));
            let job = cluster.submit(address, out, &[]);
            cluster.succeeds(address, &job, out);
            assert!(rule.fired() > 0, "the fault came: {action:?}");
            rule.remove();
            again += cluster.leased_again(&job);
        }
        cluster
            .fleet
            .assert_nothing_else(&["error-in-ok", "no-answer", "conflict"]);
    }
    row.holds(
        "each file is completed once, on stores that repeat a completion and on those that do not",
    );
    row.at_most("tasks done again", 0, again);
    row.record();
}

#[test]
fn row_29_source_replaced_during_the_job() {
    let mut row = Row::new(29, "a source object is replaced while the job runs");
    let cluster = Cluster::start();
    let coordinator = cluster.serve(&Setup::default());
    let address = &coordinator.address;
    let slow = Setup::default().at(Failpoint::PutReady, "delay=300:*");
    let _worker = cluster.worker(address, &slow);
    let job = cluster.submit(address, "out", &[]);
    cluster.until_done(&job, 1);
    let bucket = &cluster.fleet.bucket;
    for key in bucket.keys("family/cp").expect("listed") {
        if key.ends_with(".safetensors") {
            let mut bytes = bucket.get(&key).expect("read");
            *bytes.last_mut().expect("it has weights") ^= 1;
            bucket.put(&key, bytes).expect("replaced");
        }
    }
    let replaced = Instant::now();
    assert_ne!(cluster.watch(address, &job).code, Some(0));
    row.within("the job fails", WORK * 2, replaced.elapsed());
    let failed = cluster.get(address, &job);
    assert_eq!(failed["error"]["kind"], "SOURCE_CHANGED", "{failed:#}");
    cluster.fleet.assert_nothing_else(&[]);
    row.holds("it names the object, and nothing is left behind");
    row.record();
}
