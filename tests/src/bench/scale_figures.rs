//! What [`ScaleBench`](super::ScaleBench) found, as tables and as a plot.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::plot::Plot;
use super::record::Figures;
use crate::table::Table;

/// Of N times the first throughput, what N workers must reach.
pub(super) const SHARE_MIN: f64 = 0.95;

/// Everything that was found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ScaleFigures {
    pub(super) rate_mb_s: f64,
    pub(super) slots: u32,
    pub(super) tasks_per_worker: u32,
    pub(super) cores: usize,
    /// By the number of workers, ascending.
    pub(super) runs: Vec<ScaleRun>,
    /// The most workers, with nothing to limit them but the machine.
    pub(super) unlimited: ScaleRun,
    pub(super) plain: PlainClient,
    pub(super) requests: Requests,
}

/// One job on some workers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct ScaleRun {
    pub(super) workers: u32,
    pub(super) tasks: f64,
    /// Of output.
    pub(super) bytes: f64,
    /// From the first lease to the last report.
    pub(super) wall_s: f64,
    /// From the first idle worker to the last report.
    pub(super) tail_s: f64,
    pub(super) busiest_tasks: f64,
    /// Share of all cores.
    pub(super) machine_busy: f64,
    pub(super) workers_cpu_s: f64,
    /// Of the emulator and the proxies.
    pub(super) lab_cpu_s: f64,
    /// Through the workers' networks.
    pub(super) bytes_in: f64,
    pub(super) bytes_out: f64,
}

/// A client that computes nothing, against the emulator.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct PlainClient {
    /// Of one checkpoint: three times as much is read.
    pub(super) bytes: f64,
    pub(super) wall_s: f64,
    pub(super) client_cpu_s: f64,
    pub(super) emulator_cpu_s: f64,
}

/// What one worker asks of a store for parts of the default size.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Requests {
    pub(super) part_bytes: f64,
    pub(super) tasks: f64,
    pub(super) bytes: f64,
    pub(super) wall_s: f64,
    pub(super) gets: f64,
    pub(super) heads: f64,
    pub(super) puts: f64,
    pub(super) worker_cpu_s: f64,
    pub(super) coordinator_cpu_s: f64,
    pub(super) database_cpu_s: f64,
}

impl ScaleRun {
    pub(super) fn mb_s(&self) -> f64 {
        self.bytes / 1e6 / self.wall_s
    }
}

impl ScaleFigures {
    /// The throughput of a run, as a share of so many times the first run's.
    pub(super) fn share(&self, run: &ScaleRun) -> f64 {
        let first = &self.runs[0];
        let one = first.mb_s() / f64::from(first.workers);
        run.mb_s() / (one * f64::from(run.workers))
    }

    /// The run of the most workers that reach what they must.
    pub(super) fn linear(&self) -> Option<&ScaleRun> {
        let mut runs = self.runs.iter().rev();
        runs.find(|run| self.share(run) >= SHARE_MIN)
    }

    /// How many workers of this rate the machine carries.
    fn carries(&self) -> f64 {
        let first = &self.runs[0];
        self.unlimited.mb_s() / (first.mb_s() / f64::from(first.workers))
    }

    /// Draws the plot into a file.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn draw(&self, file: &Path) -> anyhow::Result<()> {
        let first = &self.runs[0];
        let points: Vec<_> = self
            .runs
            .iter()
            .map(|run| {
                let label = format!("{:.2}", self.share(run));
                (f64::from(run.workers), run.mb_s(), label)
            })
            .collect();
        let title = format!("Throughput of workers with {:.0} MB/s each", self.rate_mb_s);
        let plot = Plot {
            title: &title,
            x: "workers",
            y: "MB/s of output",
            points: &points,
            ideal: (
                "N times one worker; at the points, the share of it",
                first.mb_s() / f64::from(first.workers),
            ),
            ceiling: Some((
                "all that this machine carries, without limits",
                self.unlimited.mb_s(),
            )),
        };
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder)?;
        }
        Ok(fs::write(file, plot.svg())?)
    }

    fn table(&self) -> Table {
        let mut table = Table::new(&[
            "workers",
            "tasks",
            "job s",
            "MB/s of output",
            "of N × one",
            "tail s",
            "of the job",
            "machine busy",
            "CPU s of workers",
            "of store and proxies",
        ]);
        for (run, name) in self
            .runs
            .iter()
            .map(|run| (run, run.workers.to_string()))
            .chain([(
                &self.unlimited,
                format!("{}, no limit", self.unlimited.workers),
            )])
        {
            table.row(&[
                name,
                format!("{:.0}", run.tasks),
                format!("{:.1}", run.wall_s),
                format!("{:.1}", run.mb_s()),
                format!("{:.3}", self.share(run)),
                format!("{:.2}", run.tail_s),
                format!("{:.1} %", run.tail_s / run.wall_s * 100.0),
                format!("{:.0} %", run.machine_busy * 100.0),
                format!("{:.1}", run.workers_cpu_s),
                format!("{:.1}", run.lab_cpu_s),
            ]);
        }
        table
    }

    /// What the table says of the aims.
    fn verdict(&self) -> String {
        let linear = self.linear().map_or(0, |run| run.workers);
        let tail = self
            .runs
            .iter()
            .map(|run| run.tail_s / run.wall_s)
            .fold(0.0, f64::max);
        format!(
            "At least {SHARE_MIN} N up to {linear} workers; the longest tail is {:.1} % of its job.\n\
             Without limits {} workers reach {:.1} MB/s of output with {:.0} % of the {} cores: \
             the machine carries {:.1} workers of {:.0} MB/s.\n",
            tail * 100.0,
            self.unlimited.workers,
            self.unlimited.mb_s(),
            self.unlimited.machine_busy * 100.0,
            self.cores,
            self.carries(),
            self.rate_mb_s,
        )
    }

    /// The store alone, and a worker on it with parts of the default size.
    fn alone(&self) -> Table {
        let (plain, worker) = (&self.plain, &self.requests);
        let mut table = Table::new(&[
            "on the emulator, parts of 64 MiB, no limit",
            "MB/s of output",
            "client CPU s a GB",
            "GETs a part",
            "PUTs a part",
        ]);
        table.row(&[
            "plain client".to_owned(),
            format!("{:.0}", plain.bytes / 1e6 / plain.wall_s),
            format!("{:.2}", plain.client_cpu_s / (plain.bytes / 1e9)),
            String::new(),
            String::new(),
        ]);
        let parts = worker.bytes / worker.part_bytes;
        table.row(&[
            "one worker".to_owned(),
            format!("{:.0}", worker.bytes / 1e6 / worker.wall_s),
            format!("{:.2}", worker.worker_cpu_s / (worker.bytes / 1e9)),
            format!("{:.1}", worker.gets / parts),
            format!("{:.1}", worker.puts / parts),
        ]);
        table
    }
}

impl Figures for ScaleFigures {
    const NAME: &'static str = "scale";

    fn markdown(&self) -> String {
        let mut text = format!(
            "Networks of {:.0} MB/s in each direction, {} tasks of 8 MiB a worker, `--slots {}`:\n\n",
            self.rate_mb_s, self.tasks_per_worker, self.slots
        );
        writeln!(
            text,
            "{}\n![Throughput by workers](images/scaling.svg)\n\n{}\n{}",
            self.table(),
            self.verdict(),
            self.alone()
        )
        .expect("a string takes all");
        text
    }
}
