//! Tasks a second: a job of many tiny tasks, claimed and completed in batches
//! by simulated workers, on a Postgres that writes its log to the disk.
//!
//! Once with the database to itself, and once while another session holds a
//! transaction open, so that no row version may be removed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;

use super::machine::{MachineTime, own_cpu_s, server_cpu_s};
use super::record::{Figures, percentile};
use super::simulated::{Seen, Simulated, runtime};
use crate::emulator::Profile;
use crate::family::{Family, Member, Uniform};
use crate::fleet::{self, Coordinator, Fleet};
use crate::process::{Process, until_within};
use crate::table::Table;

/// A matrix of 2 KiB in BF16, which has an output file, and so a task, of its own.
const ROWS: usize = 16;
const COLUMNS: usize = 64;
const SHARD_SIZE: &str = "2KB";
/// After which a plan counts as hanging.
const PLAN_DEADLINE: Duration = Duration::from_secs(300);

/// What to run.
#[derive(Debug, Clone)]
pub struct ClaimsBench {
    /// Tasks that are done of each job, which has some more: nobody writes its
    /// files, so it must not end.
    pub tasks: usize,
    /// Simulated workers.
    pub workers: u32,
    /// Tasks that each claims, and completes, at once.
    pub batch: u32,
    /// How long the foreign transaction is open while jobs run.
    pub held: Duration,
}

/// What was found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ClaimsFigures {
    tasks: usize,
    workers: u32,
    batch: u32,
    alone: ClaimsRun,
    held: HeldRuns,
}

/// One job.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct ClaimsRun {
    /// From the first lease to the last report.
    wall_s: f64,
    tasks_per_s: f64,
    /// Per task, in milliseconds.
    coordinator_cpu_ms: f64,
    database_cpu_ms: f64,
    simulation_cpu_ms: f64,
    machine_busy: f64,
    acquire_p50_ms: f64,
    acquire_p99_ms: f64,
    report_p99_ms: f64,
    refused: u64,
}

/// Jobs under a foreign transaction, one after the other.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct HeldRuns {
    first: ClaimsRun,
    last: ClaimsRun,
    jobs: u32,
    open_s: f64,
}

impl ClaimsBench {
    /// Runs everything.
    ///
    /// # Errors
    /// A job that fails, or a call that does.
    ///
    /// # Panics
    /// If a service cannot be had.
    pub fn run(&self) -> anyhow::Result<ClaimsFigures> {
        let runtime = runtime()?;
        Ok(ClaimsFigures {
            tasks: self.tasks,
            workers: self.workers,
            batch: self.batch,
            alone: self.alone(&runtime)?,
            held: self.held(&runtime)?,
        })
    }

    /// With as many tasks more as workers may hold when the last one is done.
    fn scene(&self) -> anyhow::Result<Scene> {
        Scene::start(self.tasks + self.workers as usize * self.batch as usize)
    }

    fn alone(&self, runtime: &Runtime) -> anyhow::Result<ClaimsRun> {
        let scene = self.scene()?;
        self.job(runtime, &scene, 0)
    }

    fn held(&self, runtime: &Runtime) -> anyhow::Result<HeldRuns> {
        let scene = self.scene()?;
        let begin = Instant::now();
        let _open = scene.hold_a_transaction();
        let mut runs = Vec::new();
        while runs.is_empty() || begin.elapsed() < self.held {
            runs.push(self.job(runtime, &scene, runs.len())?);
        }
        ensure!(scene.is_held(), "the transaction has ended");
        let last = runs.last().cloned().context("there is one run at least")?;
        Ok(HeldRuns {
            last,
            jobs: runs.len() as u32,
            open_s: begin.elapsed().as_secs_f64(),
            first: runs.remove(0),
        })
    }

    /// Plans a job, has its tasks claimed and completed, and cancels what is left.
    fn job(&self, runtime: &Runtime, scene: &Scene, ordinal: usize) -> anyhow::Result<ClaimsRun> {
        let job = scene.submit(ordinal)?;
        let seen = Arc::new(Seen::default());
        let crowd = Simulated {
            address: scene.coordinator.address.clone(),
            workers: self.workers,
            batch: self.batch,
            work: Duration::ZERO,
        };
        let cpu = || -> anyhow::Result<[f64; 3]> {
            Ok([
                scene.coordinator.process.cpu_s(),
                server_cpu_s(scene.fleet.postgres.process().id())?,
                own_cpu_s()?,
            ])
        };
        let (machine, before) = (MachineTime::now()?, cpu()?);
        runtime.block_on(crowd.run(self.tasks as u64, &seen))?;
        let after = cpu()?;
        let machine_busy = MachineTime::now()?.busy_since(machine);
        let (done, wall_s) = scene.done(&job)?;
        ensure!(done >= self.tasks as f64, "only {done} tasks were done");
        scene.forget(&job);
        let per_task = |of: usize| (after[of] - before[of]) * 1e3 / done;
        let ms = |values: &std::sync::Mutex<Vec<f64>>, share| {
            percentile(&mut values.lock().expect("nobody panics with it"), share) * 1e3
        };
        Ok(ClaimsRun {
            wall_s,
            tasks_per_s: done / wall_s,
            coordinator_cpu_ms: per_task(0),
            database_cpu_ms: per_task(1),
            simulation_cpu_ms: per_task(2),
            machine_busy,
            acquire_p50_ms: ms(&seen.acquires_s, 0.5),
            acquire_p99_ms: ms(&seen.acquires_s, 0.99),
            report_p99_ms: ms(&seen.reports_s, 0.99),
            refused: seen.refused.load(std::sync::atomic::Ordering::Relaxed),
        })
    }
}

/// A coordinator on a durable database, and a family of tiny matrices.
struct Scene {
    fleet: Fleet,
    coordinator: Coordinator,
    family: Family,
}

impl Scene {
    fn start(tasks: usize) -> anyhow::Result<Self> {
        let fleet = Fleet::durable(Profile::Aws);
        let uniform = Uniform {
            tensors: tasks,
            rows: ROWS,
            columns: COLUMNS,
        };
        let family = uniform.write(&fleet.path("family"))?;
        Ok(Self {
            coordinator: fleet.serve(&["--part-size", "4KiB"]),
            family,
            fleet,
        })
    }

    /// Submits a job and waits for its plan.
    fn submit(&self, ordinal: usize) -> anyhow::Result<String> {
        let input = |member: Member| self.family.member(member).display().to_string();
        let out = self.fleet.path(&format!("out-{ordinal}"));
        let flags = fleet::merge_flags(input, &out.display().to_string());
        let more = ["--shard-size", SHARD_SIZE];
        let job = self.fleet.submit(&self.coordinator.address, &flags, &more);
        let state = format!("SELECT state FROM job WHERE job_id = '{job}'");
        let state = || self.fleet.postgres.query(&state);
        until_within(PLAN_DEADLINE, "the plan", || state() != "PLANNING");
        ensure!(state() == "QUEUED", "the job was not planned: {}", state());
        Ok(job)
    }

    /// How many tasks were done, each at its first attempt, and from the first
    /// lease to the last report, by the database's clock.
    fn done(&self, job: &str) -> anyhow::Result<(f64, f64)> {
        let sql = format!(
            "SELECT count(*), max(updated_at_ms) - min(leased_at_ms) FROM task
             WHERE job_id = '{job}' AND state = 'DONE' AND attempt = 1"
        );
        let answer = self.fleet.postgres.query(&sql);
        let (done, wall_ms) = answer.split_once('|').context("two columns")?;
        Ok((done.parse()?, wall_ms.parse::<f64>()? / 1e3))
    }

    /// Ends a job and waits until its files are removed.
    fn forget(&self, job: &str) {
        let cancel = self
            .fleet
            .client(&self.coordinator.address, &["cancel", job]);
        cancel.expect_code(0);
        let cleaned = format!("SELECT cleaned_at_ms IS NOT NULL FROM job WHERE job_id = '{job}'");
        until_within(PLAN_DEADLINE, "the job to be cleaned up", || {
            self.fleet.postgres.query(&cleaned) == "t"
        });
    }

    /// A session that keeps every row version from being removed.
    fn hold_a_transaction(&self) -> Process {
        let sql = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT txid_current(); \
                   SELECT pg_sleep(3600)";
        let session = self.fleet.postgres.session(sql);
        until_within(PLAN_DEADLINE, "the foreign transaction", || self.is_held());
        session
    }

    fn is_held(&self) -> bool {
        let sql = "SELECT count(*) FROM pg_stat_activity
                   WHERE query LIKE '%pg_sleep%' AND backend_xmin IS NOT NULL
                     AND pid <> pg_backend_pid()";
        self.fleet.postgres.query(sql) == "1"
    }
}

impl ClaimsFigures {
    /// What a coordinator can hand out and take back at most.
    pub(super) fn tasks_per_s(&self) -> f64 {
        self.alone.tasks_per_s
    }

    /// The same after a foreign transaction was open for a while.
    pub(super) fn held_tasks_per_s(&self) -> f64 {
        self.held.last.tasks_per_s
    }

    /// CPU of the coordinator and of the database for a task, in milliseconds.
    pub(super) fn cpu_ms(&self) -> [f64; 2] {
        [self.alone.coordinator_cpu_ms, self.alone.database_cpu_ms]
    }
}

impl Figures for ClaimsFigures {
    const NAME: &'static str = "claims";

    fn markdown(&self) -> String {
        let mut table = Table::new(&[
            "a job of tiny tasks",
            "tasks/s",
            "job s",
            "coordinator CPU ms a task",
            "database",
            "simulation",
            "machine busy",
            "AcquireTasks p50 ms",
            "p99",
            "ReportTasks p99 ms",
        ]);
        let last = format!(
            "after {:.0} s of it, job {}",
            self.held.open_s, self.held.jobs
        );
        for (name, run) in [
            ("database to itself", &self.alone),
            ("foreign transaction open, job 1", &self.held.first),
            (last.as_str(), &self.held.last),
        ] {
            table.row(&[
                name.to_owned(),
                format!("{:.0}", run.tasks_per_s),
                format!("{:.1}", run.wall_s),
                format!("{:.3}", run.coordinator_cpu_ms),
                format!("{:.3}", run.database_cpu_ms),
                format!("{:.3}", run.simulation_cpu_ms),
                format!("{:.0} %", run.machine_busy * 100.0),
                format!("{:.0}", run.acquire_p50_ms),
                format!("{:.0}", run.acquire_p99_ms),
                format!("{:.0}", run.report_p99_ms),
            ]);
        }
        format!(
            "{} tasks a job, {} simulated workers, batches of {}:\n\n{table}",
            self.tasks, self.workers, self.batch
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_job_is_claimed_and_completed_once_with_and_without_a_foreign_transaction() {
        let bench = ClaimsBench {
            tasks: 200,
            workers: 4,
            batch: 8,
            held: Duration::ZERO,
        };
        let figures = bench.run().unwrap();
        assert!(figures.tasks_per_s() > 0.0);
        assert!(figures.held.jobs == 1 && figures.held.first.wall_s > 0.0);
        assert!(figures.markdown().contains("database to itself"));
    }
}
