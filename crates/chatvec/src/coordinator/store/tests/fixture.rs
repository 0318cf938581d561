//! Jobs, workers and reports for the tests. Each task of a fixture job has two
//! parts of ten bytes, all in file 3.

use chatvec_core::ids::{
    Crc64, Digest, FileOrdinal, JobId, PartOrdinal, RequestId, TaskOrdinal, WorkerId,
};
use chatvec_core::job::JobState;
use chatvec_core::problem::Problem;
use chatvec_core::submission::{Labels, Priority, Tenant};
use chatvec_core::task::{FailureKind, Lease, TaskFailure, TaskState};

use crate::coordinator::store::{
    Commit, Epoch, JobError, JobRow, NewJob, NewPart, NewPlan, NewTask, Store, StoreError, TaskRow,
    WorkerInfo,
};

pub(super) use crate::coordinator::store::Reaping;

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
        memory_bytes: 1 << 30,
    }
}

pub(super) fn new_job(name: &str) -> NewJob {
    NewJob {
        job_id: JobId(name.to_owned()),
        request_id: RequestId(format!("request/{name}")),
        tenant: Tenant::default(),
        priority: Priority::default(),
        labels: Labels::default(),
        recipe_json: format!("{{\"name\":\"{name}\"}}"),
        recipe_digest: Digest(format!("digest-{name}")),
        output_url: format!("s3://bucket/{name}/"),
        output_key: format!("s3://bucket/{name}"),
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
    plan(store, &job, tasks).await;
    job
}

/// Plans a job in PLANNING.
pub(super) async fn plan(store: &Store, job: &JobId, tasks: u32) {
    let epoch = planner(store, job).await;
    store
        .finish_planning(job, epoch, &new_plan(tasks))
        .await
        .unwrap();
}

pub(super) fn new_plan(tasks: u32) -> NewPlan {
    NewPlan {
        input_key: Digest("input".to_owned()),
        plan: b"plan".to_vec(),
        tasks: (0..tasks).map(new_task).collect(),
        warnings: Vec::new(),
    }
}

/// The epoch of a planner that nobody replaces for an hour.
pub(super) async fn planner(store: &Store, job: &JobId) -> Epoch {
    let started = store.start_planning(job, LONG_MS).await.unwrap();
    started.expect("nobody else plans the job")
}

/// The epoch of a finalizer whose lease has expired when it is given.
pub(super) async fn finalizer(store: &Store, job: &JobId) -> Epoch {
    let started = store.start_finalizing(job, EXPIRED_MS).await.unwrap();
    started.expect("nobody else publishes the job")
}

/// What whoever plans or publishes the job gets who fails it.
pub(super) async fn fail_job(store: &Store, job: &JobId) -> Result<JobRow, StoreError> {
    let epoch = job_of(store, job).await.epoch;
    store.fail_job(job, epoch, &job_error(), &[]).await
}

/// What a finalizer that comes now gets.
pub(super) async fn commit(store: &Store, job: &JobId) -> Option<Commit> {
    let epoch = finalizer(store, job).await;
    store.start_commit(job, epoch).await.unwrap()
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
