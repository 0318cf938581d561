//! Throughput by the number of workers: 1, 2, 4, … of them on a job that grows
//! with them, each with a network of its own that lets the same rate through.
//!
//! The store is the tests' emulator, the network a proxy for each worker, and
//! all share one machine: what it can carry at most is measured too.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bytes::Bytes;

use super::child;
use super::machine::{MachineTime, cores, own_cpu_s, server_cpu_s};
use super::scale_figures::{PlainClient, Requests, ScaleFigures, ScaleRun};
use crate::component::Access;
use crate::emulator::{Operation, Profile};
use crate::family::{Member, UNIFORM_FILE, Uniform};
use crate::fleet::{self, Coordinator, Fleet};
use crate::process::{Process, Signal, until_within};
use crate::proxy::{Direction, Path, Proxy};

/// A matrix of the family, in BF16: as large as a part of the scaling runs.
const ROWS: usize = 2048;
const COLUMNS: usize = 2048;
const MATRIX_BYTES: u64 = (ROWS * COLUMNS * 2) as u64;
/// Of the run that counts requests: the default of the program.
const LARGE_PART: &str = "64MiB";
const LARGE_PART_BYTES: u64 = 64 << 20;
/// After which a job counts as hanging.
const DEADLINE: Duration = Duration::from_secs(300);
/// After which the start of workers does.
const START_DEADLINE: Duration = Duration::from_secs(60);
/// What every worker's access key begins with.
const WORKER_KEY: &str = "worker-";

/// What to run, and with what.
#[derive(Debug, Clone)]
pub struct ScaleBench {
    /// This tool, which runs the plain client in a process of its own.
    pub lab: PathBuf,
    /// How many workers, ascending.
    pub workers: Vec<u32>,
    /// Tasks of one part that each worker gets, if all get the same.
    pub tasks_per_worker: u32,
    /// What each worker's network lets through in a direction, in MB/s.
    pub rate_mb_s: f64,
    /// Tasks at once, of each worker.
    pub slots: u32,
    /// Each worker's `--memory`, in MiB.
    pub memory_mib: u64,
    /// Parts of the default size that the runs without limits get.
    pub large_parts: u32,
}

/// Workers that have registered, and their networks.
struct Crowd {
    workers: Vec<Process>,
    proxies: Vec<Proxy>,
}

impl ScaleBench {
    /// Runs everything.
    ///
    /// # Errors
    /// A job that fails.
    ///
    /// # Panics
    /// If a service cannot be had.
    pub fn run(&self) -> anyhow::Result<ScaleFigures> {
        let fleet = Fleet::on_emulator(Profile::Aws);
        let coordinator = fleet.serve(&["--part-size", "8MiB"]);
        let mut runs = Vec::new();
        for workers in &self.workers {
            runs.push(self.scaled(&fleet, &coordinator, *workers, Some(self.rate_mb_s))?);
        }
        let most = *self.workers.last().context("no number of workers")?;
        let unlimited = self.scaled(&fleet, &coordinator, most, None)?;
        drop(coordinator);
        let plain = self.plain_client(&fleet)?;
        let requests = self.large(&fleet)?;
        Ok(ScaleFigures {
            rate_mb_s: self.rate_mb_s,
            slots: self.slots,
            tasks_per_worker: self.tasks_per_worker,
            cores: cores(),
            runs,
            unlimited,
            plain,
            requests,
        })
    }

    /// One job on so many workers.
    fn scaled(
        &self,
        fleet: &Fleet,
        coordinator: &Coordinator,
        workers: u32,
        rate_mb_s: Option<f64>,
    ) -> anyhow::Result<ScaleRun> {
        let tasks = workers * self.tasks_per_worker;
        put_family(fleet, u64::from(tasks) * MATRIX_BYTES)?;
        let crowd = self.crowd(fleet, coordinator, workers, rate_mb_s);
        let (machine, lab) = (MachineTime::now()?, own_cpu_s()?);
        let cpu_before = crowd.cpu_s();
        let job = merge(fleet, coordinator)?;
        let run = ScaleRun {
            workers,
            tasks: number(fleet, &job, "count(*)")?,
            bytes: number(fleet, &job, "sum(bytes)")?,
            wall_s: number(fleet, &job, "max(updated_at_ms) - min(leased_at_ms)")? / 1e3,
            tail_s: tail_s(fleet, &job)?,
            busiest_tasks: busiest(fleet, &job, workers)?,
            machine_busy: MachineTime::now()?.busy_since(machine),
            workers_cpu_s: crowd.cpu_s() - cpu_before,
            lab_cpu_s: own_cpu_s()? - lab,
            bytes_in: crowd.bytes(Direction::ToClient),
            bytes_out: crowd.bytes(Direction::ToServer),
        };
        crowd.end();
        fleet.emulator().clear();
        Ok(run)
    }

    /// Starts workers and waits until the coordinator knows them: their start is
    /// not part of a run.
    fn crowd(
        &self,
        fleet: &Fleet,
        coordinator: &Coordinator,
        workers: u32,
        rate_mb_s: Option<f64>,
    ) -> Crowd {
        let narrow = Path {
            bytes_per_s: rate_mb_s.map(|rate| rate * 1e6),
            ..Path::default()
        };
        let proxy = |_| {
            let proxy = Proxy::start(fleet.emulator().address());
            proxy.set(Direction::ToServer, narrow);
            proxy.set(Direction::ToClient, narrow);
            proxy
        };
        let proxies: Vec<Proxy> = (0..workers).map(proxy).collect();
        let (slots, memory) = (self.slots.to_string(), format!("{}MiB", self.memory_mib));
        let worker = |(ordinal, proxy): (usize, &Proxy)| {
            let access = Access {
                endpoint: format!("http://{}", proxy.address()),
                ..fleet.emulator().access(&format!("{WORKER_KEY}{ordinal}"))
            };
            let mut command = fleet.command(["worker", "--coordinator", &coordinator.address]);
            command
                .args(["--slots", &slots, "--memory", &memory])
                .envs(access.environment());
            Process::start(command)
        };
        let known = registered(fleet);
        let started = proxies.iter().enumerate().map(worker).collect();
        until_registered(fleet, known + u64::from(workers));
        Crowd {
            workers: started,
            proxies,
        }
    }

    /// A plain client without limits: what the emulator gives at least.
    fn plain_client(&self, fleet: &Fleet) -> anyhow::Result<PlainClient> {
        let bytes = u64::from(self.large_parts) * LARGE_PART_BYTES;
        put_family(fleet, bytes)?;
        let lab_before = own_cpu_s()?;
        let mut command = Command::new(&self.lab);
        command
            .args(["object-floor", "--family", fleet::FAMILY, "--out", OUT])
            .args(["--slots", "4"])
            .envs(fleet.access.environment());
        let measured = child::measure(command).context("the plain client")?;
        fleet.emulator().clear();
        Ok(PlainClient {
            bytes: bytes as f64,
            wall_s: measured.wall_s,
            client_cpu_s: measured.cpu_s,
            emulator_cpu_s: own_cpu_s()? - lab_before,
        })
    }

    /// One worker without limits and with parts of the default size: what a byte
    /// costs it in requests and CPU.
    fn large(&self, fleet: &Fleet) -> anyhow::Result<Requests> {
        put_family(fleet, u64::from(self.large_parts) * LARGE_PART_BYTES)?;
        let coordinator = fleet.serve(&["--part-size", LARGE_PART]);
        let mut command = fleet.command(["worker", "--coordinator", &coordinator.address]);
        let access = fleet.emulator().access(WORKER_KEY);
        command
            .args(["--slots", "4", "--memory", "1GiB"])
            .envs(access.environment());
        let known = registered(fleet);
        let worker = Process::start(command);
        until_registered(fleet, known + 1);
        let known = fleet.emulator().history().requests.len();
        let (cpu, database) = (worker.cpu_s(), server_cpu_s(fleet.postgres.process().id())?);
        let coordinator_cpu = coordinator.process.cpu_s();
        let job = merge(fleet, &coordinator)?;
        let mut counts: BTreeMap<Operation, u64> = BTreeMap::new();
        for request in &fleet.emulator().history().requests[known..] {
            if request.access_key.starts_with(WORKER_KEY) {
                *counts.entry(request.operation).or_default() += 1;
            }
        }
        let count = |operation| counts.get(&operation).copied().unwrap_or(0) as f64;
        let requests = Requests {
            part_bytes: LARGE_PART_BYTES as f64,
            tasks: number(fleet, &job, "count(*)")?,
            bytes: number(fleet, &job, "sum(bytes)")?,
            wall_s: number(fleet, &job, "max(updated_at_ms) - min(leased_at_ms)")? / 1e3,
            gets: count(Operation::Get),
            heads: count(Operation::Head),
            puts: count(Operation::PutPart) + count(Operation::Put),
            worker_cpu_s: worker.cpu_s() - cpu,
            coordinator_cpu_s: coordinator.process.cpu_s() - coordinator_cpu,
            database_cpu_s: server_cpu_s(fleet.postgres.process().id())? - database,
        };
        worker.signal(Signal::TERM);
        worker.wait().expect_code(0);
        fleet.emulator().clear();
        Ok(requests)
    }
}

impl Crowd {
    fn cpu_s(&self) -> f64 {
        self.workers.iter().map(Process::cpu_s).sum()
    }

    fn bytes(&self, direction: Direction) -> f64 {
        let counts = self.proxies.iter().map(Proxy::counts);
        counts
            .map(|counts| counts.bytes[direction as usize] as f64)
            .sum()
    }

    fn end(self) {
        for worker in &self.workers {
            worker.signal(Signal::TERM);
        }
        for worker in self.workers {
            worker.wait().expect_code(0);
        }
    }
}

/// The prefix of every output.
const OUT: &str = "out";

/// Puts a family of this many bytes a checkpoint into the emulator.
fn put_family(fleet: &Fleet, bytes: u64) -> anyhow::Result<()> {
    let uniform = Uniform {
        tensors: (bytes / MATRIX_BYTES) as usize,
        rows: ROWS,
        columns: COLUMNS,
    };
    let (header, size) = uniform.header();
    for member in Member::ALL {
        let (folder, prefix) = (
            fleet.path(member.folder()),
            format!("{}/{}", fleet::FAMILY, member.folder()),
        );
        Uniform::write_side(member, &folder)?;
        fleet.bucket.upload(&folder, &prefix)?;
        let block = Bytes::from(Uniform::block(member));
        let key = format!("{prefix}/{UNIFORM_FILE}");
        fleet
            .emulator()
            .put_repeating(&key, header.clone(), &block, size);
        fs::remove_dir_all(folder)?;
    }
    Ok(())
}

/// How many workers have ever asked for work.
fn registered(fleet: &Fleet) -> u64 {
    let workers = fleet.postgres.query("SELECT count(*) FROM worker");
    workers.parse().expect("a count is a number")
}

/// Waits until so many have.
fn until_registered(fleet: &Fleet, workers: u64) {
    until_within(START_DEADLINE, "the workers to register", || {
        registered(fleet) == workers
    });
}

/// Merges the family to its end, and returns the job's id.
fn merge(fleet: &Fleet, coordinator: &Coordinator) -> anyhow::Result<String> {
    let input = |member: Member| {
        fleet
            .bucket
            .url(&format!("{}/{}", fleet::FAMILY, member.folder()))
    };
    let flags = fleet::merge_flags(input, &fleet.bucket.url(OUT));
    let submission = fleet::submission(&flags, &["--wait"]);
    let mut client = Process::start(fleet.client_command(&coordinator.address, &submission));
    ensure!(client.ends_within(DEADLINE), "the job does not end");
    let outcome = client.wait();
    ensure!(outcome.code == Some(0), "the job failed: {outcome:#?}");
    let job = "SELECT job_id FROM job ORDER BY created_at_ms DESC LIMIT 1";
    Ok(fleet.postgres.query(job))
}

/// A number about all tasks of a job, by the database's clock where it is a time.
fn number(fleet: &Fleet, job: &str, what: &str) -> anyhow::Result<f64> {
    let sql = format!("SELECT {what} FROM task WHERE job_id = '{job}'");
    let answer = fleet.postgres.query(&sql);
    answer
        .parse()
        .with_context(|| format!("`{what}`: {answer}"))
}

/// From the last report of the worker that was idle first to the last report.
fn tail_s(fleet: &Fleet, job: &str) -> anyhow::Result<f64> {
    let sql = format!(
        "SELECT max(last) - min(last) FROM (
             SELECT max(updated_at_ms) AS last FROM task
             WHERE job_id = '{job}' GROUP BY done_by) AS w"
    );
    Ok(fleet.postgres.query(&sql).parse::<f64>()? / 1e3)
}

/// The most tasks that a worker has done; every worker must have done some.
fn busiest(fleet: &Fleet, job: &str, workers: u32) -> anyhow::Result<f64> {
    let sql = format!(
        "SELECT count(*), max(tasks) FROM (
             SELECT count(*) AS tasks FROM task
             WHERE job_id = '{job}' GROUP BY done_by) AS w"
    );
    let answer = fleet.postgres.query(&sql);
    let (worked, most) = answer.split_once('|').context("two columns")?;
    ensure!(
        worked == workers.to_string(),
        "{worked} of {workers} workers did something"
    );
    Ok(most.parse()?)
}

#[cfg(test)]
mod tests {
    use super::super::Figures as _;
    use super::*;

    #[test]
    fn a_small_run_measures_every_worker() {
        let bench = ScaleBench {
            lab: crate::process::chatvec().with_file_name("chatvec-lab"),
            workers: vec![1, 2],
            tasks_per_worker: 3,
            rate_mb_s: 100.0,
            slots: 2,
            memory_mib: 256,
            large_parts: 1,
        };
        let figures = bench.run().unwrap();
        assert_eq!(figures.runs.len(), 2);
        for run in figures.runs.iter().chain([&figures.unlimited]) {
            // The header of a file is a part's worth of bytes less, or a part more.
            assert!(run.tasks >= f64::from(run.workers * 3), "{run:?}");
            assert!(run.bytes_in > 3.0 * f64::from(run.workers) * 3.0 * MATRIX_BYTES as f64);
        }
        assert!(figures.requests.gets > 0.0 && figures.requests.puts > 0.0);
        assert!(figures.markdown().contains("| workers"));
    }
}
