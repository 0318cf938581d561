//! How fast the embedded job store is: a large plan stored, and its tasks
//! claimed in batches and completed one by one. Prints rates; `cargo bench -p
//! chatvec --bench store`.
#![expect(clippy::print_stdout, reason = "the rates are what a benchmark is for")]

use std::time::Instant;

use chatvec::coordinator::store::{NewJob, NewPart, NewPlan, NewTask, Store, WorkerInfo};
use chatvec_core::ids::{
    Crc64, Digest, FileOrdinal, JobId, PartOrdinal, RequestId, TaskOrdinal, WorkerId,
};
use chatvec_core::submission::{Labels, Priority, Tenant};

const PLANNED: u32 = 20_000;
const COMPLETED: u32 = 2_000;
const CLAIMERS: u32 = 4;
const BATCH: u32 = 8;
const LEASE_MS: i64 = 30_000;
/// About the size of the description of a task of a few tensors.
const SPEC_BYTES: usize = 2_048;

#[tokio::main]
async fn main() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = Store::open_sqlite(&folder.path().join("jobs.db"))
        .await
        .expect("the store opens");
    let started = Instant::now();
    let large = plan(&store, "large", PLANNED).await;
    println!("plan of {PLANNED} tasks stored in {:?}", started.elapsed());
    store
        .cancel_job(&large)
        .await
        .expect("the job is cancelled");

    plan(&store, "small", COMPLETED).await;
    let started = Instant::now();
    let claimers: Vec<_> = (0..CLAIMERS)
        .map(|number| tokio::spawn(work(store.clone(), number)))
        .collect();
    let mut completed = 0;
    for claimer in claimers {
        completed += claimer.await.expect("the claimer ends");
    }
    let seconds = started.elapsed().as_secs_f64();
    assert_eq!(completed, COMPLETED);
    println!(
        "{COMPLETED} tasks claimed by {BATCH} and completed in {seconds:.3} s: {:.0} tasks/s",
        f64::from(COMPLETED) / seconds
    );
    store.close().await;
}

async fn plan(store: &Store, name: &str, tasks: u32) -> JobId {
    let job = JobId(name.to_owned());
    let new = NewJob {
        job_id: job.clone(),
        request_id: RequestId(name.to_owned()),
        tenant: Tenant::default(),
        priority: Priority::default(),
        labels: Labels::default(),
        recipe_json: "{}".to_owned(),
        recipe_digest: Digest(name.to_owned()),
        output_url: format!("/out/{name}"),
        output_key: format!("/out/{name}"),
        traceparent: None,
    };
    store.create_job(&new).await.expect("the job is created");
    let started = store.start_planning(&job, LEASE_MS).await;
    let epoch = started.expect("it is planned").expect("by nobody else");
    let tasks: Vec<NewTask> = (0..tasks)
        .map(|task| NewTask {
            task: TaskOrdinal(task),
            file: FileOrdinal(task / 100),
            first_part: PartOrdinal(task % 100),
            part_count: 1,
            bytes: 64 << 20,
            spec: vec![7; SPEC_BYTES],
        })
        .collect();
    let plan = NewPlan {
        input_key: Digest(name.to_owned()),
        plan: vec![1; 1 << 20],
        tasks,
        warnings: Vec::new(),
    };
    store
        .finish_planning(&job, epoch, &plan)
        .await
        .expect("the plan is stored");
    job
}

/// Claims and completes until nothing is left; returns how many tasks.
async fn work(store: Store, number: u32) -> u32 {
    let me = WorkerInfo {
        worker_id: WorkerId(format!("worker-{number}")),
        hostname: "here".to_owned(),
        version: "0".to_owned(),
        slots: BATCH,
        memory_bytes: 0,
    };
    let mut completed = 0;
    loop {
        let acquired = store
            .acquire_tasks(&me, BATCH, LEASE_MS)
            .await
            .expect("tasks are claimed");
        if acquired.is_empty() {
            return completed;
        }
        for acquired in acquired {
            let task = acquired.lease.task.0;
            let part = NewPart {
                file: FileOrdinal(task / 100),
                part: PartOrdinal(task % 100),
                part_id: "0123456789abcdef0123456789abcdef".to_owned(),
                crc64: Crc64(u64::from(task) << 40),
                bytes: 64 << 20,
                stats: vec![3; 256],
            };
            store
                .complete_task(&acquired.lease, &[part])
                .await
                .expect("the report is recorded");
            completed += 1;
        }
    }
}
