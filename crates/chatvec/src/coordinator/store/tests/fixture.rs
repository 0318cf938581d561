//! Jobs, workers and reports for the tests. Each task of a fixture job has two
//! parts of ten bytes, all in file 3.

use chatvec_core::ids::{
    Crc64, Digest, FileOrdinal, JobId, PartOrdinal, RequestId, TaskOrdinal, WorkerId,
};
use chatvec_core::job::JobState;
use chatvec_core::problem::Problem;
use chatvec_core::task::{FailureKind, Lease, TaskFailure, TaskState};

use crate::coordinator::store::{
    JobError, JobRow, NewJob, NewPart, NewTask, Store, TaskRow, WorkerInfo,
};

/// A lease that outlives any test.
pub(super) const LONG_MS: i64 = 3_600_000;
/// A lease that has expired when it is given.
pub(super) const EXPIRED_MS: i64 = 0;

pub(super) fn worker(name: &str) -> WorkerInfo {
    WorkerInfo {
        worker_id: WorkerId(name.to_owned()),
        hostname: "host".to_owned(),
        version: "0.1.0".to_owned(),
        slots: 4,
    }
}

pub(super) fn new_job(name: &str) -> NewJob {
    NewJob {
        job_id: JobId(name.to_owned()),
        request_id: RequestId(format!("request-{name}")),
        recipe_json: format!("{{\"name\":\"{name}\"}}"),
        recipe_digest: Digest(format!("digest-{name}")),
        output_url: format!("s3://bucket/{name}"),
        traceparent: Some(format!("00-{name}-01")),
    }
}

pub(super) fn new_task(number: u32) -> NewTask {
    NewTask {
        task: TaskOrdinal(number),
        file: FileOrdinal(3),
        first_part: PartOrdinal(number * 2),
        part_count: 2,
        bytes: 20,
        spec: spec(number),
    }
}

pub(super) fn spec(number: u32) -> Vec<u8> {
    vec![0, 0xff, number as u8]
}

/// A job in PLANNING.
pub(super) async fn submitted(store: &Store, name: &str) -> JobId {
    store.create_job(&new_job(name)).await.unwrap().0.job_id
}

/// A job in QUEUED with so many tasks.
pub(super) async fn queued(store: &Store, name: &str, tasks: u32) -> JobId {
    let job = submitted(store, name).await;
    let epoch = store.start_planning(&job).await.unwrap();
    let tasks: Vec<NewTask> = (0..tasks).map(new_task).collect();
    store
        .finish_planning(&job, epoch, &input_key(), b"plan".to_vec(), &tasks)
        .await
        .unwrap();
    job
}

pub(super) fn input_key() -> Digest {
    Digest("input".to_owned())
}

/// What a worker reports of a fixture task.
pub(super) fn parts(task: TaskOrdinal) -> Vec<NewPart> {
    (task.0 * 2..task.0 * 2 + 2)
        .map(|part| NewPart {
            file: FileOrdinal(3),
            part: PartOrdinal(part),
            part_id: format!("etag-{part}"),
            crc64: Crc64(u64::MAX - u64::from(part)),
            bytes: 10,
            stats: vec![part as u8, 0, 0xfe],
        })
        .collect()
}

/// Leases so many tasks for an hour; fails the test if there are fewer.
pub(super) async fn acquire(store: &Store, by: &str, tasks: u32) -> Vec<Lease> {
    acquire_for(store, by, tasks, LONG_MS).await
}

/// As [`acquire`], for a given time.
pub(super) async fn acquire_for(store: &Store, by: &str, tasks: u32, ms: i64) -> Vec<Lease> {
    let acquired = store.acquire_tasks(&worker(by), tasks, ms).await.unwrap();
    assert_eq!(acquired.len(), tasks as usize, "tasks to be leased");
    acquired
        .into_iter()
        .map(|acquired| acquired.lease)
        .collect()
}

/// Leases and finishes every task of the only job.
pub(super) async fn finish_all(store: &Store, tasks: u32) {
    for lease in acquire(store, "finisher", tasks).await {
        store
            .complete_task(&lease, &parts(lease.task))
            .await
            .unwrap();
    }
}

pub(super) fn failure(kind: FailureKind) -> TaskFailure {
    TaskFailure {
        kind,
        problem: Problem::new("disk", "on fire").with_hint("use water"),
    }
}

pub(super) fn job_error() -> JobError {
    JobError {
        kind: FailureKind::BadInput,
        problem: Problem::new("a", "tensor is missing"),
    }
}

pub(super) async fn job_of(store: &Store, job: &JobId) -> JobRow {
    store.job(job).await.unwrap().expect("the job exists")
}

pub(super) async fn state_of(store: &Store, job: &JobId) -> JobState {
    job_of(store, job).await.state
}

pub(super) async fn task_of(store: &Store, job: &JobId, task: u32) -> TaskRow {
    store.tasks(job).await.unwrap().remove(task as usize)
}

pub(super) async fn task_states(store: &Store, job: &JobId) -> Vec<TaskState> {
    let tasks = store.tasks(job).await.unwrap();
    tasks.into_iter().map(|task| task.state).collect()
}
