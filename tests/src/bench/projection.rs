//! What the measurements say of models and fleets that do not fit on this
//! machine: time, requests, and what is used up first.

use std::fmt::Write as _;

use super::claims::ClaimsFigures;
use super::plan::PlanFigures;
use super::record::Figures;
use super::scale_figures::ScaleFigures;
use crate::table::Table;

/// The models: name, bytes of a checkpoint in BF16.
const MODELS: [(&str, f64); 3] = [("70 B", 141e9), ("405 B", 812e9), ("671 B", 1342e9)];
const WORKERS: [f64; 3] = [16.0, 64.0, 256.0];
/// Networks in Gbit/s, each with the cores that a machine with it is taken to have.
const NETWORKS: [(f64, f64); 2] = [(10.0, 8.0), (25.0, 16.0)];
/// Bytes that a worker reads for one of output.
const READ_PER_WRITTEN: f64 = 3.0;
/// Prefixes that are read: those of the three checkpoints.
const PREFIXES_READ: f64 = 3.0;
/// What S3 takes for a prefix in a second, as AWS documents it.
const GETS_PER_S: f64 = 5500.0;
const PUTS_PER_S: f64 = 3500.0;
/// List prices of a thousand requests to S3 Standard in us-east-1, in dollars.
const DOLLARS_PER_1000_GETS: f64 = 0.0004;
const DOLLARS_PER_1000_PUTS: f64 = 0.005;
/// Up to here each part is a task; beyond, tasks grow, as `core::plan` has it.
const TASKS_AIM: f64 = 8192.0;

/// What the projection is computed from.
#[derive(Debug, Clone)]
pub struct Projection {
    /// Bytes of a part.
    part_bytes: f64,
    /// The share of a worker's network that a job fills.
    network_filled: f64,
    /// What is left of N times one worker, of the most workers before the
    /// machine was the limit.
    share: f64,
    gets_per_part: f64,
    puts_per_part: f64,
    worker_cpu_s_per_gb: f64,
    tasks_per_s: f64,
    coordinator_cpu_ms: f64,
    database_cpu_ms: f64,
    plan_s: f64,
}

/// A job on a fleet: how long each resource alone would take, by name.
struct Job {
    seconds: Vec<(&'static str, f64)>,
    tasks: f64,
    parts: f64,
}

impl Projection {
    /// From the figures of the last runs.
    ///
    /// # Errors
    /// If one of them was not measured.
    pub fn of_kept() -> anyhow::Result<Self> {
        Ok(Self::of(
            &ScaleFigures::kept()?,
            &ClaimsFigures::kept()?,
            &PlanFigures::kept()?,
        ))
    }

    fn of(scale: &ScaleFigures, claims: &ClaimsFigures, plan: &PlanFigures) -> Self {
        let requests = &scale.requests;
        let parts = requests.bytes / requests.part_bytes;
        let first = &scale.runs[0];
        let network = scale.rate_mb_s * 1e6 * f64::from(first.workers);
        let [coordinator_cpu_ms, database_cpu_ms] = claims.cpu_ms();
        Self {
            part_bytes: requests.part_bytes,
            network_filled: (first.bytes_in / first.wall_s / network).min(1.0),
            share: scale.linear().map_or(1.0, |run| scale.share(run)).min(1.0),
            gets_per_part: requests.gets / parts,
            puts_per_part: requests.puts / parts,
            worker_cpu_s_per_gb: requests.worker_cpu_s / (requests.bytes / 1e9),
            tasks_per_s: claims.tasks_per_s(),
            coordinator_cpu_ms,
            database_cpu_ms,
            plan_s: plan.wall_s(),
        }
    }

    fn job(&self, bytes: f64, workers: f64, (gbit_s, cores): (f64, f64)) -> Job {
        let parts = (bytes / self.part_bytes).ceil();
        let tasks = (parts / (parts / TASKS_AIM).ceil()).ceil();
        // The worker with the most tasks ends last.
        let most = (tasks / workers).ceil() * workers / tasks;
        let network = gbit_s / 8.0 * 1e9 * self.network_filled * self.share * workers;
        let cpu = bytes / 1e9 * self.worker_cpu_s_per_gb / (cores * workers);
        Job {
            seconds: vec![
                ("network", bytes * READ_PER_WRITTEN / network * most),
                ("worker CPU", cpu * most),
                ("coordinator and database", tasks / self.tasks_per_s),
                (
                    "GETs of a prefix",
                    parts * self.gets_per_part / PREFIXES_READ / GETS_PER_S,
                ),
                ("PUTs of a prefix", parts * self.puts_per_part / PUTS_PER_S),
            ],
            tasks,
            parts,
        }
    }

    fn times(&self) -> Table {
        let mut table = Table::new(&[
            "model, workers, network",
            "job",
            "GB/s of output",
            "tasks a worker",
            "cores a worker",
            "tasks/s",
            "GET/s a prefix",
            "PUT/s",
            "used up first",
            "next, and how far",
        ]);
        for network in NETWORKS {
            for (model, bytes) in MODELS {
                for workers in WORKERS {
                    let job = self.job(bytes, workers, network);
                    let (first, seconds) = job.longest(None);
                    let (next, next_s) = job.longest(Some(first));
                    let cpu_s = bytes / 1e9 * self.worker_cpu_s_per_gb;
                    let gets = job.parts * self.gets_per_part / PREFIXES_READ;
                    table.row(&[
                        format!("{model}, {workers}, {} Gbit/s", network.0),
                        duration(seconds),
                        format!("{:.1}", bytes / 1e9 / seconds),
                        format!("{:.0}", job.tasks / workers),
                        format!("{:.1}", cpu_s / seconds / workers),
                        format!("{:.0}", job.tasks / seconds),
                        format!("{:.0}", gets / seconds),
                        format!("{:.0}", job.parts * self.puts_per_part / seconds),
                        first.to_owned(),
                        format!("{next}, {:.0} %", next_s / seconds * 100.0),
                    ]);
                }
            }
        }
        table
    }

    fn costs(&self) -> Table {
        let mut table = Table::new(&[
            "model",
            "parts of 64 MiB",
            "tasks",
            "GETs",
            "PUTs",
            "requests $",
            "worker hours at 10 Gbit/s",
            "at 25 Gbit/s",
            "coordinator CPU s",
            "database CPU s",
        ]);
        for (model, bytes) in MODELS {
            let workers = WORKERS[0];
            let hours = |network| {
                let (_, seconds) = self.job(bytes, workers, network).longest(None);
                format!("{:.1}", seconds * workers / 3600.0)
            };
            let job = self.job(bytes, workers, NETWORKS[0]);
            let (gets, puts) = (
                job.parts * self.gets_per_part,
                job.parts * self.puts_per_part,
            );
            let dollars = gets / 1e3 * DOLLARS_PER_1000_GETS + puts / 1e3 * DOLLARS_PER_1000_PUTS;
            table.row(&[
                model.to_owned(),
                format!("{:.0}", job.parts),
                format!("{:.0}", job.tasks),
                format!("{gets:.0}"),
                format!("{puts:.0}"),
                format!("{dollars:.2}"),
                hours(NETWORKS[0]),
                hours(NETWORKS[1]),
                format!("{:.1}", job.tasks * self.coordinator_cpu_ms / 1e3),
                format!("{:.1}", job.tasks * self.database_cpu_ms / 1e3),
            ]);
        }
        table
    }

    fn basis(&self) -> Table {
        let mut table = Table::new(&["measured here", "value"]);
        for (name, value) in [
            (
                "share of a worker's network that a job fills",
                format!("{:.2}", self.network_filled),
            ),
            (
                "throughput of N workers over N times one, before the machine is the limit",
                format!("{:.2}", self.share),
            ),
            (
                "GETs a part of 64 MiB",
                format!("{:.1}", self.gets_per_part),
            ),
            (
                "PUTs a part of 64 MiB",
                format!("{:.1}", self.puts_per_part),
            ),
            (
                "worker CPU s a GB of output, without TLS",
                format!("{:.2}", self.worker_cpu_s_per_gb),
            ),
            (
                "tasks/s of one coordinator and its database on 2 cores",
                format!("{:.0}", self.tasks_per_s),
            ),
            (
                "coordinator CPU ms a task",
                format!("{:.3}", self.coordinator_cpu_ms),
            ),
            (
                "database CPU ms a task",
                format!("{:.3}", self.database_cpu_ms),
            ),
            (
                "plan of 91,000 tensors a checkpoint, s",
                format!("{:.1}", self.plan_s),
            ),
        ] {
            table.row(&[name.to_owned(), value]);
        }
        table
    }

    /// Everything as Markdown.
    pub fn markdown(&self) -> String {
        let mut text = String::new();
        write!(
            text,
            "{}\n### Time, and what is used up first\n\n{}\n### Requests and other costs\n\n{}",
            self.basis(),
            self.times(),
            self.costs()
        )
        .expect("a string takes all");
        text
    }
}

impl Job {
    /// The resource that takes the job the longest, but for one.
    fn longest(&self, but: Option<&str>) -> (&'static str, f64) {
        let others = self.seconds.iter().filter(|(name, _)| Some(*name) != but);
        others
            .copied()
            .max_by(|(_, a), (_, b)| a.total_cmp(b))
            .expect("there are several")
    }
}

/// A time as people say it.
fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0..=99 => format!("{seconds:.0} s"),
        _ => format!("{} min {:02} s", whole / 60, whole % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn projection() -> Projection {
        Projection {
            part_bytes: f64::from(64 << 20),
            network_filled: 1.0,
            share: 1.0,
            gets_per_part: 30.0,
            puts_per_part: 1.0,
            worker_cpu_s_per_gb: 2.0,
            tasks_per_s: 2000.0,
            coordinator_cpu_ms: 0.1,
            database_cpu_ms: 0.3,
            plan_s: 4.0,
        }
    }

    #[test]
    fn a_job_takes_as_long_as_its_scarcest_resource() {
        let job = projection().job(141e9, 16.0, (10.0, 8.0));
        let (first, seconds) = job.longest(None);
        // 3 × 141 GB through 16 × 1.25 GB/s, and a little for the last tasks.
        assert_eq!(first, "network");
        assert!((21.1..21.6).contains(&seconds), "{seconds}");
        let slow = Projection {
            tasks_per_s: 1.0,
            ..projection()
        };
        let (first, seconds) = slow.job(141e9, 16.0, (10.0, 8.0)).longest(None);
        assert_eq!((first, seconds), ("coordinator and database", 2102.0));
    }

    #[test]
    fn large_models_have_larger_tasks() {
        let job = projection().job(1342e9, 64.0, (25.0, 16.0));
        assert_eq!((job.parts, job.tasks), (19_998.0, 6_666.0));
    }

    #[test]
    fn every_model_and_fleet_has_a_row() {
        let text = projection().markdown();
        // And in two titles.
        assert_eq!(text.matches("Gbit/s").count(), 2 + 18);
    }
}
