//! Workers that merge nothing: they speak the real protocol to a real
//! coordinator, and report at once what a task's description says they did.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use chatvec::channel::{Connection, Coordinators};
use chatvec_proto::v1::worker_service_client::WorkerServiceClient;
use chatvec_proto::{MESSAGE_BYTES_MAX, PROTOCOL_VERSION, v1};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tonic::Code;

/// How long a worker without tasks waits for some, in a call.
const WAIT_MS: u32 = 500;
/// A worker with nothing to report says this often that it is there.
const BEAT_EVERY: Duration = Duration::from_secs(5);

/// A crowd of simulated workers.
#[derive(Debug, Clone)]
pub(super) struct Simulated {
    /// Where the coordinator listens.
    pub(super) address: String,
    pub(super) workers: u32,
    /// Tasks that each asks for, and reports, at once.
    pub(super) batch: u32,
    /// How long a batch takes.
    pub(super) work: Duration,
}

/// What the crowd did and saw.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Seconds that calls took which brought tasks.
    pub(super) acquires_s: Mutex<Vec<f64>>,
    pub(super) reports_s: Mutex<Vec<f64>>,
    /// By the order of their leases, when each task came and of which job.
    pub(super) taken: Mutex<Vec<(Instant, String)>>,
    pub(super) done: AtomicU64,
    /// Calls that the coordinator was too busy for.
    pub(super) refused: AtomicU64,
}

/// A runtime for the crowd, and for clients beside it.
pub(super) fn runtime() -> anyhow::Result<Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    Ok(builder.worker_threads(2).enable_all().build()?)
}

impl Simulated {
    /// Works until so many tasks are done, all workers together.
    ///
    /// # Errors
    /// A call that fails for another reason than that the coordinator is busy.
    pub(super) async fn run(&self, tasks: u64, seen: &Arc<Seen>) -> anyhow::Result<()> {
        let mut crowd = JoinSet::new();
        for ordinal in 0..self.workers {
            let one = self.clone();
            let seen = Arc::clone(seen);
            crowd.spawn(async move { one.work(ordinal, tasks, &seen).await });
        }
        while let Some(ended) = crowd.join_next().await {
            ended??;
        }
        Ok(())
    }

    async fn work(&self, ordinal: u32, tasks: u64, seen: &Seen) -> anyhow::Result<()> {
        let connection = Coordinators::parse(&self.address)?.connect();
        let client = WorkerServiceClient::new(connection);
        let mut client = client.max_decoding_message_size(MESSAGE_BYTES_MAX);
        let me = self.description(ordinal);
        let mut beaten = Instant::now();
        while seen.done.load(Ordering::Relaxed) < tasks {
            if beaten.elapsed() > BEAT_EVERY {
                // Between batches, when it holds nothing.
                beat(&mut client, &me).await?;
                beaten = Instant::now();
            }
            let leased = self.acquire(&mut client, &me, seen).await?;
            if leased.is_empty() {
                continue;
            }
            if !self.work.is_zero() {
                tokio::time::sleep(self.work).await;
            }
            let done = leased.len() as u64;
            report(&mut client, &me, leased, seen).await?;
            seen.done.fetch_add(done, Ordering::Relaxed);
        }
        Ok(())
    }

    fn description(&self, ordinal: u32) -> v1::Worker {
        v1::Worker {
            worker_id: format!("simulated-{}-{ordinal}", std::process::id()),
            hostname: "simulated".to_owned(),
            version: "simulated".to_owned(),
            slots: self.batch,
            memory_bytes: 1 << 30,
            protocol_version: PROTOCOL_VERSION,
        }
    }

    async fn acquire(
        &self,
        client: &mut WorkerServiceClient<Connection>,
        me: &v1::Worker,
        seen: &Seen,
    ) -> anyhow::Result<Vec<v1::LeasedTask>> {
        let request = v1::AcquireTasksRequest {
            worker: Some(me.clone()),
            max_tasks: self.batch,
            wait_ms: WAIT_MS,
        };
        let begin = Instant::now();
        let tasks = match client.acquire_tasks(request).await {
            Ok(answer) => answer.into_inner().tasks,
            Err(status) if status.code() == Code::Unavailable => {
                seen.refused.fetch_add(1, Ordering::Relaxed);
                Vec::new()
            }
            Err(status) => return Err(status).context("acquire"),
        };
        if !tasks.is_empty() {
            push(&seen.acquires_s, begin.elapsed().as_secs_f64());
            let now = Instant::now();
            let jobs = tasks.iter().filter_map(|task| task.lease.as_ref());
            let taken = jobs.map(|lease| (now, lease.job_id.clone()));
            seen.taken
                .lock()
                .expect("nobody panics with it")
                .extend(taken);
        }
        Ok(tasks)
    }
}

async fn beat(client: &mut WorkerServiceClient<Connection>, me: &v1::Worker) -> anyhow::Result<()> {
    let request = v1::HeartbeatRequest {
        worker: Some(me.clone()),
        beats: Vec::new(),
        draining: false,
    };
    match client.heartbeat(request).await {
        Ok(_) => Ok(()),
        Err(status) if status.code() == Code::Unavailable => Ok(()),
        Err(status) => Err(status).context("heartbeat"),
    }
}

/// Reports a batch until it is taken.
async fn report(
    client: &mut WorkerServiceClient<Connection>,
    me: &v1::Worker,
    leased: Vec<v1::LeasedTask>,
    seen: &Seen,
) -> anyhow::Result<()> {
    let reports: Vec<_> = leased.into_iter().map(done).collect();
    let request = v1::ReportTasksRequest {
        worker_id: me.worker_id.clone(),
        reports,
    };
    loop {
        let begin = Instant::now();
        match client.report_tasks(request.clone()).await {
            Ok(answer) => {
                push(&seen.reports_s, begin.elapsed().as_secs_f64());
                let results = answer.into_inner().results;
                let recorded = v1::ReportResult::Recorded as i32;
                let all = results.iter().all(|result| *result == recorded);
                anyhow::ensure!(all, "a report did not count: {results:?}");
                return Ok(());
            }
            Err(status) if status.code() == Code::Unavailable => {
                seen.refused.fetch_add(1, Ordering::Relaxed);
            }
            Err(status) => return Err(status).context("report"),
        }
    }
}

/// The report of a task whose bytes are all zero.
fn done(leased: v1::LeasedTask) -> v1::TaskReport {
    let spec = leased.spec.unwrap_or_default();
    let part = |range: &v1::PartRange| v1::FinishedPart {
        part: range.part,
        part_id: format!("{:032x}", range.offset),
        crc64: range.offset,
        length: range.length,
        statistics: Some(statistics(&spec, range)),
    };
    let parts = spec.parts.iter().map(part).collect();
    let file = spec.file;
    v1::TaskReport {
        lease: leased.lease,
        outcome: Some(v1::task_report::Outcome::Done(v1::TaskDone { file, parts })),
    }
}

/// Sums of the tensors in a part, as many as a worker would send.
fn statistics(spec: &v1::TaskSpec, range: &v1::PartRange) -> v1::PartStatistics {
    let end = range.offset + range.length;
    let inside = spec
        .segments
        .iter()
        .filter(|segment| segment.offset < end && segment.offset + segment.length > range.offset);
    let sums = inside.filter_map(|segment| {
        let merged = match &segment.operation {
            Some(v1::segment::Operation::Merge(merge)) => merge,
            _ => return None,
        };
        let vectors = merged.terms.iter().map(|term| v1::VectorSums {
            vector: term.vector,
            ..v1::VectorSums::default()
        });
        Some(v1::TensorSums {
            tensor: segment.tensor?,
            elements: segment.length / 2,
            vectors: vectors.collect(),
            ..v1::TensorSums::default()
        })
    });
    v1::PartStatistics {
        tensors: sums.collect(),
    }
}

fn push(values: &Mutex<Vec<f64>>, value: f64) {
    values.lock().expect("nobody panics with it").push(value);
}
