//! What it takes to plan a merge of the largest checkpoints in object storage:
//! 163 files with 91,000 tensors each, three times, of which only headers are
//! read. A job is submitted and planned, and no worker is there to begin it.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};

use super::child::median;
use super::record::Figures;
use crate::family::{Member, write_sparse};
use crate::fleet::Fleet;
use crate::process::until_within;
use crate::table::Table;

/// Where the checkpoints lie in the bucket.
const FAMILY: &str = "family";
/// After which a plan counts as hanging.
const PLAN_DEADLINE: Duration = Duration::from_secs(600);

/// What to run, and with what.
#[derive(Debug, Clone)]
pub struct PlanBench {
    /// Where the family lies before it is uploaded. It stays for the next time.
    pub folder: PathBuf,
    /// Jobs, each planned by a coordinator of its own.
    pub runs: usize,
}

impl PlanBench {
    /// Runs everything.
    ///
    /// # Errors
    /// A job that cannot be planned.
    ///
    /// # Panics
    /// If a service cannot be had.
    pub fn run(&self) -> anyhow::Result<PlanFigures> {
        let fleet = Fleet::start();
        let family = write_sparse(&self.folder.join("bucket-sparse"))?;
        for member in Member::ALL {
            let prefix = format!("{FAMILY}/{}", member.folder());
            upload(&fleet, &family.member(member), &prefix)?;
        }
        let (mut walls, mut peaks) = (Vec::new(), Vec::new());
        for run in 0..self.runs {
            let (wall_s, peak_mib) = plan(&fleet, &format!("out-{run}"))?;
            walls.push(wall_s);
            peaks.push(peak_mib);
        }
        Ok(PlanFigures {
            walls_s: walls,
            peak_mib: greatest(&peaks),
            tasks: fleet
                .postgres
                .query("SELECT max(task_no) + 1 FROM task")
                .parse()?,
        })
    }
}

/// What was found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PlanFigures {
    walls_s: Vec<f64>,
    /// The most memory of any run's coordinator.
    peak_mib: f64,
    tasks: u64,
}

impl PlanFigures {
    /// From the submission to the plan: the median.
    pub(super) fn wall_s(&self) -> f64 {
        median(self.walls_s.iter().copied())
    }

    pub(super) fn peak_mib(&self) -> f64 {
        self.peak_mib
    }
}

impl Figures for PlanFigures {
    const NAME: &'static str = "plan";

    fn markdown(&self) -> String {
        let mut table = Table::new(&["plan of 3 × 91,000 tensors in 3 × 163 files", "value"]);
        for (name, value) in [
            ("wall s, median", format!("{:.2}", self.wall_s())),
            ("wall s, slowest", format!("{:.2}", greatest(&self.walls_s))),
            ("coordinator, peak MiB", format!("{:.0}", self.peak_mib)),
            ("tasks", self.tasks.to_string()),
        ] {
            table.row(&[name.to_owned(), value]);
        }
        table.to_string()
    }
}

fn greatest(values: &[f64]) -> f64 {
    values.iter().copied().fold(0.0, f64::max)
}

/// Puts the files of a sparse checkpoint into the bucket as they are, holes and
/// all.
fn upload(fleet: &Fleet, folder: &Path, prefix: &str) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().context("a listed file has a name")?;
        let key = format!("{prefix}/{}", name.to_string_lossy());
        if path.extension().is_some_and(|kind| kind == "safetensors") {
            let (header, size) = header_of(&path)?;
            fleet.seaweedfs().put_with_hole(&key, header, size)?;
        } else {
            fleet.bucket.put(&key, fs::read(&path)?)?;
        }
    }
    Ok(())
}

/// The bytes of a weight file up to its weights, and its size.
fn header_of(path: &Path) -> anyhow::Result<(Vec<u8>, u64)> {
    let mut file = File::open(path)?;
    let mut bytes = vec![0; 8];
    file.read_exact(&mut bytes)?;
    let length = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"));
    file.by_ref().take(length).read_to_end(&mut bytes)?;
    Ok((bytes, file.metadata()?.len()))
}

/// Plans a job by a new coordinator; how long that took from the submission, and
/// the coordinator's most memory in MiB.
fn plan(fleet: &Fleet, out: &str) -> anyhow::Result<(f64, f64)> {
    let coordinator = fleet.serve(&[]);
    let url = |member: Member| fleet.bucket.url(&format!("{FAMILY}/{}", member.folder()));
    let job = fleet.client(
        &coordinator.address,
        &[
            "submit",
            "-o",
            "json",
            "--cp",
            &url(Member::Cp),
            "--chat",
            &url(Member::Chat),
            "--base",
            &url(Member::Base),
            "--lambda",
            "0.5",
            "--out",
            &fleet.bucket.url(out),
        ],
    );
    ensure!(job.code == Some(0), "the job was refused: {job:#?}");
    let job = job.json()["job_id"].as_str().unwrap_or_default().to_owned();
    let of_job = |what: &str| {
        let sql = format!("SELECT {what} FROM job WHERE job_id = '{job}'");
        fleet.postgres.query(&sql)
    };
    until_within(PLAN_DEADLINE, "the plan", || of_job("state") != "PLANNING");
    ensure!(of_job("state") == "QUEUED", "{}", of_job("error_message"));
    let taken_ms: f64 = of_job("planned_at_ms - created_at_ms").parse()?;
    let peak_mib = coordinator.process.peak_resident_bytes() as f64 / (1 << 20) as f64;
    let cancelled = fleet.client(&coordinator.address, &["cancel", &job]);
    ensure!(cancelled.code == Some(0), "{cancelled:#?}");
    Ok((taken_ms / 1e3, peak_mib))
}
