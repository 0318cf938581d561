//! A long queue: jobs of many tenants with different weights wait, simulated
//! workers take from them, and meanwhile clients ask for jobs, list them and
//! watch them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, ensure};
use chatvec::channel::{Connection, Coordinators};
use chatvec_proto::v1;
use chatvec_proto::v1::merge_service_client::MergeServiceClient;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::queue_figures::{Latency, QueueFigures, TenantShare};
use super::record::percentile;
use super::simulated::{Seen, Simulated, runtime};
use crate::emulator::Profile;
use crate::family::{Family, Member, Uniform};
use crate::fleet::{Coordinator, Fleet};
use crate::process::until_within;

/// Weights of the tenants, in turns.
const WEIGHTS: [u32; 4] = [1, 2, 3, 4];
/// Matrices of a family: 32 KiB a checkpoint, nine parts of 4 KiB.
const MATRICES: Uniform = Uniform {
    tensors: 16,
    rows: 16,
    columns: 64,
};
/// Of all tasks, those that are taken before the heaviest tenant runs out: a
/// little less than the mean weight is of the greatest.
const TAKEN_SHARE: f64 = 0.6;
/// Between two calls of one client.
const CALL_EVERY: Duration = Duration::from_millis(50);
/// Jobs of each tenant that are watched to their end.
const WATCHED_OF_TENANT: usize = 2;
/// Jobs of a page.
const PAGE: u32 = 50;
/// After which the queue counts as never planned.
const PLAN_DEADLINE: Duration = Duration::from_secs(600);

/// What to run.
#[derive(Debug, Clone)]
pub struct QueueBench {
    /// Jobs of all tenants together.
    pub jobs: usize,
    /// Tenants.
    pub tenants: usize,
    /// Simulated workers.
    pub workers: u32,
    /// Tasks that each takes at once.
    pub batch: u32,
    /// How long a batch takes.
    pub work: Duration,
}

/// What the clients measured: by call, seconds.
type Times = Arc<Mutex<BTreeMap<&'static str, Vec<f64>>>>;
type Client = MergeServiceClient<Connection>;

impl QueueBench {
    /// Runs everything.
    ///
    /// # Errors
    /// A job or a call that fails.
    ///
    /// # Panics
    /// If a service cannot be had.
    pub fn run(&self) -> anyhow::Result<QueueFigures> {
        let fleet = Fleet::durable(Profile::Aws);
        let coordinator = fleet.serve(&["--part-size", "4KiB"]);
        let family = MATRICES.write(&fleet.path("family"))?;
        let runtime = runtime()?;
        let begin = Instant::now();
        let jobs = runtime.block_on(self.submit(&fleet, &coordinator, &family))?;
        let planned = "SELECT count(*) FROM job WHERE state = 'QUEUED'";
        until_within(PLAN_DEADLINE, "the queue to be planned", || {
            fleet.postgres.query(planned) == self.jobs.to_string()
        });
        let queued_s = begin.elapsed().as_secs_f64();
        let tasks: u64 = fleet.postgres.query("SELECT count(*) FROM task").parse()?;
        let taken = (tasks as f64 * TAKEN_SHARE) as u64;
        let (seen, times) = (Arc::new(Seen::default()), Times::default());
        let begin = Instant::now();
        runtime.block_on(self.work(&coordinator, &jobs, taken, &seen, &times))?;
        let window_s = begin.elapsed().as_secs_f64();
        Ok(QueueFigures {
            jobs: self.jobs,
            tenants: self.tenants,
            tasks: taken,
            queued_s,
            window_s,
            shares: self.shares(&jobs, &seen, taken as usize)?,
            latencies: latencies(&times),
        })
    }

    fn weight(tenant: usize) -> u32 {
        WEIGHTS[tenant % WEIGHTS.len()]
    }

    /// Weighs the tenants and submits their jobs in turns; the jobs by tenant.
    async fn submit(
        &self,
        fleet: &Fleet,
        coordinator: &Coordinator,
        family: &Family,
    ) -> anyhow::Result<Vec<Vec<String>>> {
        let mut client = client(coordinator)?;
        for tenant in 0..self.tenants {
            let request = v1::UpdateTenantRequest {
                tenant: name(tenant),
                weight: Some(Self::weight(tenant)),
                ..v1::UpdateTenantRequest::default()
            };
            client.update_tenant(request).await?;
        }
        let text = |member| family.member(member).display().to_string();
        let mut jobs = vec![Vec::new(); self.tenants];
        for ordinal in 0..self.jobs {
            let tenant = ordinal % self.tenants;
            let out = fleet.path(&format!("out-{ordinal}"));
            let recipe = v1::Recipe {
                cp: text(Member::Cp),
                vectors: vec![v1::Vector {
                    chat: text(Member::Chat),
                    base: text(Member::Base),
                    weight: 0.7,
                }],
                output: Some(v1::Output {
                    url: out.display().to_string(),
                    ..v1::Output::default()
                }),
                ..v1::Recipe::default()
            };
            let request = v1::CreateJobRequest {
                recipe: Some(recipe),
                tenant: name(tenant),
                ..v1::CreateJobRequest::default()
            };
            let created = client.create_job(request).await?.into_inner();
            jobs[tenant].push(created.job.context("a job was created")?.job_id);
        }
        Ok(jobs)
    }

    /// Workers and clients together, until so many tasks are done.
    async fn work(
        &self,
        coordinator: &Coordinator,
        jobs: &[Vec<String>],
        taken: u64,
        seen: &Arc<Seen>,
        times: &Times,
    ) -> anyhow::Result<()> {
        let (stop, stopped) = watch::channel(false);
        let mut clients = JoinSet::new();
        let all: Arc<Vec<String>> = Arc::new(jobs.concat());
        for call in [Call::Get, Call::List, Call::ListTenant, Call::Watch] {
            let (client, all) = (client(coordinator)?, Arc::clone(&all));
            let (times, stopped) = (Arc::clone(times), stopped.clone());
            clients.spawn(async move { ask(client, call, &all, &times, stopped).await });
        }
        for job in jobs
            .iter()
            .flat_map(|jobs| jobs.iter().take(WATCHED_OF_TENANT))
        {
            let (client, job) = (client(coordinator)?, job.clone());
            let (times, stopped) = (Arc::clone(times), stopped.clone());
            clients.spawn(async move { watch_to_end(client, job, &times, stopped).await });
        }
        let crowd = Simulated {
            address: coordinator.address.clone(),
            workers: self.workers,
            batch: self.batch,
            work: self.work,
        };
        crowd.run(taken, seen).await?;
        stop.send_replace(true);
        while let Some(ended) = clients.join_next().await {
            ended??;
        }
        Ok(())
    }

    /// What each tenant got of the first tasks that were leased.
    fn shares(
        &self,
        jobs: &[Vec<String>],
        seen: &Seen,
        count: usize,
    ) -> anyhow::Result<Vec<TenantShare>> {
        let tenants: BTreeMap<&str, usize> = jobs
            .iter()
            .enumerate()
            .flat_map(|(tenant, jobs)| jobs.iter().map(move |job| (job.as_str(), tenant)))
            .collect();
        let mut taken = seen.taken.lock().expect("nobody panics with it").clone();
        taken.sort_by_key(|(at, _)| *at);
        ensure!(
            taken.len() >= count,
            "only {} tasks were leased",
            taken.len()
        );
        let mut got = vec![0u64; self.tenants];
        for (_, job) in &taken[..count] {
            got[tenants[job.as_str()]] += 1;
        }
        let weights: f64 = (0..self.tenants)
            .map(|one| f64::from(Self::weight(one)))
            .sum();
        let share = |(tenant, got): (usize, u64)| TenantShare {
            weight: Self::weight(tenant),
            fair: f64::from(Self::weight(tenant)) / weights,
            got: got as f64 / count as f64,
        };
        Ok(got.into_iter().enumerate().map(share).collect())
    }
}

fn name(tenant: usize) -> String {
    format!("tenant-{tenant:02}")
}

fn client(coordinator: &Coordinator) -> anyhow::Result<Client> {
    let coordinators = Coordinators::parse(&coordinator.address)?;
    Ok(MergeServiceClient::new(coordinators.connect()))
}

/// What a client asks, again and again.
#[derive(Debug, Clone, Copy)]
enum Call {
    Get,
    /// Pages of all jobs, one after the other.
    List,
    /// The first page of a tenant's running jobs.
    ListTenant,
    /// To the first message.
    Watch,
}

impl Call {
    fn name(self) -> &'static str {
        match self {
            Self::Get => "GetJob",
            Self::List => "ListJobs, page by page",
            Self::ListTenant => "ListJobs of a tenant and two states",
            Self::Watch => "WatchJob, to the first message",
        }
    }
}

/// Calls until it is stopped.
async fn ask(
    mut client: Client,
    call: Call,
    jobs: &[String],
    times: &Times,
    mut stopped: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let mut page_token = String::new();
    for ordinal in 0usize.. {
        // By a stride that meets every job before it meets one again.
        let job_id = jobs[ordinal * 37 % jobs.len()].clone();
        let begin = Instant::now();
        match call {
            Call::Get => {
                client.get_job(v1::GetJobRequest { job_id }).await?;
            }
            Call::List => {
                let request = v1::ListJobsRequest {
                    page_size: PAGE,
                    page_token,
                    ..v1::ListJobsRequest::default()
                };
                page_token = client
                    .list_jobs(request)
                    .await?
                    .into_inner()
                    .next_page_token;
            }
            Call::ListTenant => {
                let states = [v1::JobState::Queued, v1::JobState::Running];
                let request = v1::ListJobsRequest {
                    states: states.map(i32::from).to_vec(),
                    tenant: name(ordinal % WEIGHTS.len()),
                    page_size: PAGE,
                    ..v1::ListJobsRequest::default()
                };
                client.list_jobs(request).await?;
            }
            Call::Watch => {
                let after_revision = 0;
                let request = v1::WatchJobRequest {
                    job_id,
                    after_revision,
                };
                let mut watch = client.watch_job(request).await?.into_inner();
                watch.message().await?.context("a first message")?;
            }
        }
        note(times, call.name(), begin.elapsed().as_secs_f64());
        tokio::select! {
            _ = stopped.wait_for(|stopped| *stopped) => break,
            () = tokio::time::sleep(CALL_EVERY) => {}
        }
    }
    Ok(())
}

/// Watches a job; how much later than its end the news of it comes.
async fn watch_to_end(
    mut client: Client,
    job_id: String,
    times: &Times,
    mut stopped: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let after_revision = 0;
    let request = v1::WatchJobRequest {
        job_id,
        after_revision,
    };
    let mut watch = client.watch_job(request).await?.into_inner();
    loop {
        let message = tokio::select! {
            message = watch.message() => message?,
            _ = stopped.wait_for(|stopped| *stopped) => return Ok(()),
        };
        let Some(job) = message.and_then(|message| message.job) else {
            return Ok(());
        };
        if let Some(end) = job.end_time {
            let end = Duration::new(end.seconds as u64, end.nanos as u32);
            let now = now()?;
            note(
                times,
                "WatchJob, from a job's end to the news of it",
                now.saturating_sub(end).as_secs_f64(),
            );
            return Ok(());
        }
    }
}

/// Since the epoch, by the clock that the database has too.
#[expect(
    clippy::disallowed_methods,
    reason = "compared with a time of the database on the same machine"
)]
fn now() -> anyhow::Result<Duration> {
    Ok(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?)
}

fn note(times: &Times, call: &'static str, seconds: f64) {
    let mut times = times.lock().expect("nobody panics with it");
    times.entry(call).or_default().push(seconds);
}

fn latencies(times: &Times) -> Vec<Latency> {
    let mut times = times.lock().expect("nobody panics with it");
    let latency = |(call, seconds): (&&'static str, &mut Vec<f64>)| Latency {
        call: (*call).to_owned(),
        count: seconds.len(),
        p50_ms: percentile(seconds, 0.5) * 1e3,
        p99_ms: percentile(seconds, 0.99) * 1e3,
        max_ms: percentile(seconds, 1.0) * 1e3,
    };
    times.iter_mut().map(latency).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Figures as _;
    use super::*;

    #[test]
    fn a_short_queue_is_shared_by_weight_and_can_be_looked_at() {
        let bench = QueueBench {
            jobs: 24,
            tenants: 4,
            workers: 2,
            batch: 2,
            work: Duration::from_millis(10),
        };
        let figures = bench.run().unwrap();
        let [light, .., heavy] = &figures.shares[..] else {
            panic!("four tenants have shares");
        };
        assert!(heavy.got > 2.0 * light.got, "{figures:?}");
        assert!(figures.latencies.len() >= 4, "{figures:?}");
        assert!(figures.markdown().contains("GetJob"));
    }
}
