//! What cannot work is told, with the object's name and advice, and leaves
//! nothing behind.

use std::net::TcpListener;

use chatvec_tests::component::Identity;
use chatvec_tests::fleet::Fleet;
use chatvec_tests::process::{Process, Signal};
use serde_json::Value;

use super::scene::{ONE_SLOT, Place, SMALL_PARTS, Scene};

/// A port of loopback where nobody listens.
fn closed_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
    listener.local_addr().expect("it is bound").port()
}

/// Demands that a failed job's error is of this kind and says all this.
#[track_caller]
fn assert_told(job: &Value, kind: &str, words: &[&str]) {
    assert_eq!(job["error"]["kind"], kind, "{job:#}");
    let problems = job["error"]["problems"].to_string();
    for word in words {
        assert!(problems.contains(word), "`{word}` in {job:#}");
    }
}

#[test]
fn a_checkpoint_that_is_not_in_the_bucket_fails_the_job() {
    let scene = Scene::tiny();
    let coordinator = scene.fleet.serve(&[]);
    let mut merge = scene.merge(Place::Bucket, &scene.at(Place::Bucket, "out"));
    merge[1] = scene.at(Place::Bucket, "nothing/here");
    let job = scene.fleet.submit(&coordinator.address, &merge, &[]);
    let job = scene.fails(&coordinator.address, &job);
    assert_told(&job, "BAD_INPUT", &["s3://models/nothing/here"]);
    scene.fleet.assert_nothing_else(&[]);
}

#[test]
fn a_bucket_that_is_not_there_fails_the_job() {
    let scene = Scene::tiny();
    let coordinator = scene.fleet.serve(&[]);
    let mut merge = scene.merge(Place::Bucket, &scene.at(Place::Bucket, "out"));
    merge[1] = "s3://no-such-bucket/cp".to_owned();
    let job = scene.fleet.submit(&coordinator.address, &merge, &[]);
    let job = scene.fails(&coordinator.address, &job);
    assert_told(&job, "BAD_INPUT", &["s3://no-such-bucket"]);
}

#[test]
fn a_wrong_key_fails_the_job() {
    let mut scene = Scene::tiny();
    scene.fleet.access.secret_key = "guessed".to_owned();
    let coordinator = scene.fleet.serve(&[]);
    let job = scene.submit(&coordinator.address, "out", &[]);
    let job = scene.fails(&coordinator.address, &job);
    let words = [
        "s3://models/family/",
        "the store refused: SignatureDoesNotMatch",
        "AWS_SECRET_ACCESS_KEY",
    ];
    assert_told(&job, "PERMISSION_DENIED", &words);
}

#[test]
fn a_bucket_that_may_only_be_read_fails_the_job() {
    let mut scene = Scene::tiny();
    scene.fleet.access = scene.fleet.seaweedfs().access(Identity::Reader);
    let coordinator = scene.fleet.serve(&[]);
    let job = scene.submit(&coordinator.address, "out", &[]);
    let job = scene.fails(&coordinator.address, &job);
    assert_told(&job, "PERMISSION_DENIED", &["s3://models/out"]);
    scene.fleet.assert_nothing_else(&[]);
}

#[test]
fn a_worker_that_may_only_read_fails_the_job() {
    let mut scene = Scene::tiny();
    let coordinator = scene.fleet.serve(&SMALL_PARTS);
    scene.fleet.access = scene.fleet.seaweedfs().access(Identity::Reader);
    let _worker = scene.fleet.worker(&coordinator.address, &[]);
    let job = scene.submit(&coordinator.address, "out", &[]);
    let job = scene.fails(&coordinator.address, &job);
    assert_told(&job, "PERMISSION_DENIED", &["s3://models/out"]);
    scene.fleet.assert_nothing_else(&[]);
}

#[test]
fn a_source_that_is_replaced_during_the_job_fails_it() {
    let scene = Scene::of_many_tasks();
    let coordinator = scene.fleet.serve(&SMALL_PARTS);
    let worker = scene.fleet.worker(&coordinator.address, &ONE_SLOT);
    let job = scene.submit(&coordinator.address, "out", &[]);
    scene.until_under_way(&coordinator.address, &job);
    worker.freeze();
    let bucket = &scene.fleet.bucket;
    let keys = bucket.keys("family/cp").expect("listed");
    let weights = keys.iter().filter(|key| key.ends_with(".safetensors"));
    for key in weights {
        let mut bytes = bucket.get(key).expect("read");
        *bytes.last_mut().expect("it has weights") ^= 1;
        bucket.put(key, bytes).expect("replaced");
    }
    worker.signal(Signal::CONT);
    let job = scene.fails(&coordinator.address, &job);
    assert_told(&job, "SOURCE_CHANGED", &["s3://models/family/cp/model-"]);
    scene.fleet.assert_nothing_else(&[]);
}

#[test]
fn a_store_that_stays_out_of_reach_fails_the_job_when_patience_ends() {
    let mut scene = Scene::tiny();
    let real = scene.fleet.access.clone();
    scene.fleet.access.endpoint = format!("http://127.0.0.1:{}", closed_port());
    let coordinator = scene.fleet.serve(&["--storage-patience", "1"]);
    scene.fleet.access = real;
    let job = scene.submit(&coordinator.address, "out", &[]);
    let job = scene.fails(&coordinator.address, &job);
    assert_told(
        &job,
        "TRANSIENT",
        &["s3://models/family/", "no answer from"],
    );
}

#[test]
fn a_database_that_is_not_there_is_told_at_the_start() {
    let url = format!("postgres://chatvec@127.0.0.1:{}/postgres", closed_port());
    for command in ["serve", "migrate"] {
        let args = [command, "--database", &url];
        let failed = chatvec_tests::process::run(args).expect_code(75);
        assert!(failed.stderr.contains("error: --database: "), "{failed:#?}");
        assert!(
            failed
                .stderr
                .contains("hint: check the URL, and that the database runs"),
            "{failed:#?}"
        );
    }
}

#[test]
fn a_schema_of_another_version_is_refused_with_what_to_do() {
    let fleet = Fleet::unprepared();
    let refused = || {
        let (command, _) = fleet.serve_command("127.0.0.1:0", &[]);
        Process::start(command).wait().expect_code(2).stderr
    };
    let empty = refused();
    assert!(
        empty.contains("error: --database: ") && empty.contains("chatvec migrate"),
        "{empty}"
    );

    fleet.migrate().expect_code(0);
    let again = fleet.migrate().expect_code(0);
    assert!(again.stdout.contains("nothing to do"), "{again:#?}");

    // As a later version of this program would leave it.
    fleet.postgres.query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (9999, 'of the future', true, '', 0)",
    );
    let ahead = refused();
    assert!(ahead.contains("9999"), "{ahead}");
    assert_ne!(fleet.migrate().code, Some(0));

    fleet
        .postgres
        .query("DELETE FROM _sqlx_migrations WHERE version > 1");
    let behind = refused();
    assert!(behind.contains("chatvec migrate"), "{behind}");
}

#[test]
fn a_worker_waits_for_a_coordinator_that_is_not_there_yet() {
    let scene = Scene::tiny();
    let listen = format!("127.0.0.1:{}", closed_port());
    let mut worker = scene.fleet.worker(&format!("http://{listen}"), &[]);
    let told = worker.says("cannot be reached");
    assert!(told, "it ended instead: {:#?}", worker.wait());
    let coordinator = scene.fleet.serve_at(&listen, &[]);
    let job = scene.submit(&coordinator.address, "out", &[]);
    scene.succeeds(&coordinator.address, &job);
}
