//! One worker between buckets next to a plain client that moves the same bytes,
//! what a tiny job takes from its submission, and what a fleet takes that has
//! nothing to do.
//!
//! All run against one SeaweedFS on the same machine, and rounds are
//! interleaved. Only the clients' own CPU time counts.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use super::child::{self, median};
use crate::component::Bucket;
use crate::family::{FamilySpec, Member};
use crate::fleet::{Coordinator, Fleet};
use crate::process::{Process, Signal};
use crate::table::Table;

/// λ of every merge here.
const LAMBDA: &str = "0.5";
/// Where the checkpoints lie in the bucket.
const FAMILY: &str = "family";
const TINY: &str = "tiny";
/// Tiny jobs, one after the other.
const TINY_JOBS: usize = 20;
/// After which a job counts as hanging.
const JOB_DEADLINE: Duration = Duration::from_secs(1200);

/// What to run, and with what.
#[derive(Debug, Clone)]
pub struct FleetBench {
    /// This tool, which runs the floor in a process of its own.
    pub lab: PathBuf,
    /// Where the family lies before it is uploaded. It stays for the next time.
    pub folder: PathBuf,
    /// The family.
    pub family: FamilySpec,
    /// Rounds of the side-by-side comparison.
    pub runs: usize,
    /// Parts at once, of the worker and of the floor.
    pub slots: u32,
    /// The worker's `--memory`, in MiB.
    pub memory_mib: u64,
    /// How long nothing is done.
    pub idle: Duration,
}

/// What a client took.
struct Taken {
    wall_s: f64,
    cpu_s: f64,
    peak_mib: f64,
}

impl FleetBench {
    /// Runs everything and returns the results as Markdown.
    ///
    /// # Errors
    /// A side that fails.
    ///
    /// # Panics
    /// If a service cannot be had.
    pub fn run(&self) -> anyhow::Result<String> {
        let fleet = Fleet::start();
        for (spec, name) in [(&self.family, FAMILY), (&FamilySpec::tiny(1), TINY)] {
            let family = spec.write(&self.folder.join(format!("bucket-{name}")))?;
            for member in Member::ALL {
                let prefix = format!("{name}/{}", member.folder());
                fleet.bucket.upload(&family.member(member), &prefix)?;
            }
        }
        let coordinator = fleet.serve(&[]);
        let mut report = self.side_by_side(&fleet, &coordinator)?;
        report.push_str(&self.tiny_and_idle(&fleet, &coordinator)?);
        Ok(report)
    }

    fn side_by_side(&self, fleet: &Fleet, coordinator: &Coordinator) -> anyhow::Result<String> {
        let (mut floors, mut workers) = (Vec::new(), Vec::new());
        for _ in 0..self.runs {
            floors.push(self.floor(fleet)?);
            workers.push(self.job(fleet, coordinator)?);
        }
        let of = |runs: &[Taken], field: fn(&Taken) -> f64| median(runs.iter().map(field));
        let wall = of(&workers, |run| run.wall_s) / of(&floors, |run| run.wall_s);
        let cpu = of(&workers, |run| run.cpu_s) / of(&floors, |run| run.cpu_s);
        let mut table = Table::new(&[
            "three checkpoints in, one out, over S3",
            "wall s",
            "CPU s",
            "peak MiB",
            "wall / floor",
            "CPU / floor",
        ]);
        for (name, runs, wall, cpu) in [
            ("plain client (floor)", &floors, 1.0, 1.0),
            ("one chatvec worker", &workers, wall, cpu),
        ] {
            table.row(&[
                name.to_owned(),
                format!("{:.2}", of(runs, |run| run.wall_s)),
                format!("{:.2}", of(runs, |run| run.cpu_s)),
                format!("{:.0}", of(runs, |run| run.peak_mib)),
                format!("{wall:.2}"),
                format!("{cpu:.2}"),
            ]);
        }
        Ok(format!(
            "Medians of {} interleaved runs, {} parts of 64 MiB at once, `--memory {}MiB`.\n\n{table}\n",
            self.runs, self.slots, self.memory_mib
        ))
    }

    fn floor(&self, fleet: &Fleet) -> anyhow::Result<Taken> {
        const OUT: &str = "floor";
        let mut command = Command::new(&self.lab);
        command
            .args(["object-floor", "--family", FAMILY, "--out", OUT])
            .args(["--slots", &self.slots.to_string()])
            .envs(fleet.access.environment());
        let measured = child::measure(command).context("the floor")?;
        remove(&fleet.bucket, OUT)?;
        Ok(Taken {
            wall_s: measured.wall_s,
            cpu_s: measured.cpu_s,
            peak_mib: measured.anonymous_peak_mb * 1e6 / (1 << 20) as f64,
        })
    }

    fn job(&self, fleet: &Fleet, coordinator: &Coordinator) -> anyhow::Result<Taken> {
        const OUT: &str = "job";
        let worker = self.worker(fleet, coordinator);
        let cpu_before = worker.cpu_s();
        let wall_s = submitted(fleet, coordinator, FAMILY, OUT)?;
        let taken = Taken {
            wall_s,
            cpu_s: worker.cpu_s() - cpu_before,
            peak_mib: worker.peak_resident_bytes() as f64 / (1 << 20) as f64,
        };
        worker.signal(Signal::TERM);
        worker.wait().expect_code(0);
        remove(&fleet.bucket, OUT)?;
        Ok(taken)
    }

    fn worker(&self, fleet: &Fleet, coordinator: &Coordinator) -> Process {
        let (slots, memory) = (self.slots.to_string(), format!("{}MiB", self.memory_mib));
        let flags = ["--slots", &slots, "--memory", &memory];
        fleet.worker(&coordinator.address, &flags)
    }

    fn tiny_and_idle(&self, fleet: &Fleet, coordinator: &Coordinator) -> anyhow::Result<String> {
        let mut worker = self.worker(fleet, coordinator);
        let mut walls = Vec::new();
        for _ in 0..TINY_JOBS {
            walls.push(submitted(fleet, coordinator, TINY, "tiny-out")?);
            remove(&fleet.bucket, "tiny-out")?;
        }
        let mut table = Table::new(&["job of 10 MB, from submission to success", "s"]);
        table.row(&[
            "median".to_owned(),
            format!("{:.3}", median(walls.iter().copied())),
        ]);
        let slowest = walls.into_iter().fold(0.0, f64::max);
        table.row(&[format!("slowest of {TINY_JOBS}"), format!("{slowest:.3}")]);

        let before = [coordinator.process.cpu_s(), worker.cpu_s()];
        ensure!(!worker.ends_within(self.idle), "the worker ended");
        let after = [coordinator.process.cpu_s(), worker.cpu_s()];
        let mut idle = Table::new(&["idle process", "CPU % of a core"]);
        for (name, ordinal) in [("coordinator", 0), ("worker", 1)] {
            let share = (after[ordinal] - before[ordinal]) / self.idle.as_secs_f64();
            idle.row(&[name.to_owned(), format!("{:.2}", share * 100.0)]);
        }
        Ok(format!(
            "{table}\nOver {} s with nothing to do:\n\n{idle}",
            self.idle.as_secs()
        ))
    }
}

/// Submits a merge and waits for its success; how long that took in all.
fn submitted(
    fleet: &Fleet,
    coordinator: &Coordinator,
    family: &str,
    out: &str,
) -> anyhow::Result<f64> {
    let url = |member: Member| fleet.bucket.url(&format!("{family}/{}", member.folder()));
    let mut command = fleet.client_command(&coordinator.address, &["submit", "--wait"]);
    command
        .args(["--cp", &url(Member::Cp)])
        .args(["--chat", &url(Member::Chat)])
        .args(["--base", &url(Member::Base)])
        .args(["--lambda", LAMBDA, "--out", &fleet.bucket.url(out)]);
    let begin = Instant::now();
    let mut client = Process::start(command);
    ensure!(client.ends_within(JOB_DEADLINE), "the job does not end");
    let wall_s = begin.elapsed().as_secs_f64();
    let outcome = client.wait();
    ensure!(outcome.code == Some(0), "the job failed: {outcome:#?}");
    Ok(wall_s)
}

fn remove(bucket: &Bucket, prefix: &str) -> anyhow::Result<()> {
    for key in bucket.keys(prefix)? {
        bucket.delete(&key)?;
    }
    Ok(())
}
