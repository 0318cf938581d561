//! chatvec next to what else could do the work, in one run: a plain copy of the
//! same bytes, and the loop in numpy that people write themselves.
//!
//! Inputs lie in the page cache and every side ends with its output on disk.
//! Rounds are interleaved, so that a slow minute of the machine hits all sides.

mod child;
mod claims;
mod fleet;
mod floor;
mod machine;
mod object_floor;
mod plan;
mod plot;
mod projection;
mod queue;
mod queue_figures;
mod record;
mod scale;
mod scale_figures;
mod simulated;
mod summary;

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::family::{Family, FamilySpec, Member, write_sparse};
use crate::python;
use crate::table::Table;
use child::Measured;

pub use claims::{ClaimsBench, ClaimsFigures};
pub use fleet::FleetBench;
pub use floor::{Floor, copy as floor};
pub use object_floor::{ObjectFloor, copy as object_floor};
pub use plan::{PlanBench, PlanFigures};
pub use projection::Projection;
pub use queue::QueueBench;
pub use queue_figures::QueueFigures;
pub use record::Figures;
pub use scale::ScaleBench;
pub use scale_figures::ScaleFigures;
pub use summary::summary;

/// λ of every merge here.
const LAMBDA: f64 = 0.5;
/// Runs of the small merge, whose time is that of starting and ending.
const SMALL_RUNS: usize = 20;

/// What to run, and with what.
#[derive(Debug, Clone)]
pub struct Bench {
    /// The release binary of chatvec.
    pub chatvec: PathBuf,
    /// This tool, which runs the floor in a process of its own.
    pub lab: PathBuf,
    /// Where families and outputs lie. Families stay for the next time.
    pub folder: PathBuf,
    /// Rounds of the side-by-side comparison.
    pub runs: usize,
    /// Whether to merge the family of four times the size too.
    pub large: bool,
}

/// A side of the comparison.
struct Side {
    name: &'static str,
    command: fn(&Bench, &Family, &Path) -> Command,
    measured: Vec<Measured>,
}

impl Bench {
    /// Runs everything and returns the results as Markdown.
    ///
    /// # Errors
    /// A side that fails, or whose output differs between two runs.
    pub fn run(&self) -> anyhow::Result<String> {
        fs::create_dir_all(&self.folder)?;
        let mut report = self.side_by_side()?;
        report.push_str(&self.small_and_planned()?);
        Ok(report)
    }

    fn side_by_side(&self) -> anyhow::Result<String> {
        let family = FamilySpec::llama_1b(1).write(&self.folder.join("llama-1b"))?;
        let mut sides = [
            Side {
                name: "read three, copy one (floor)",
                command: floor_command,
                measured: Vec::new(),
            },
            Side {
                name: "chatvec merge",
                command: chatvec_command,
                measured: Vec::new(),
            },
            Side {
                name: "numpy loop in f32",
                command: numpy_command,
                measured: Vec::new(),
            },
        ];
        for round in 0..self.runs {
            for (ordinal, side) in sides.iter_mut().enumerate() {
                let first = self.folder.join(format!("out-{ordinal}-first"));
                let out = match round {
                    0 => first.clone(),
                    _ => self.folder.join(format!("out-{ordinal}-again")),
                };
                remove(&out)?;
                warm(&family)?;
                let command = (side.command)(self, &family, &out);
                side.measured
                    .push(child::measure(command).with_context(|| side.name.to_owned())?);
                if round > 0 {
                    ensure_equal(&first, &out).with_context(|| side.name.to_owned())?;
                    remove(&out)?;
                }
            }
        }
        for ordinal in 0..sides.len() {
            remove(&self.folder.join(format!("out-{ordinal}-first")))?;
        }

        let floor = child::median(sides[0].measured.iter().map(|run| run.wall_s));
        let mut table = Table::new(&[
            "1.1 B parameters, 3 × 2.2 GB in, 2.2 GB out",
            "wall s",
            "CPU s",
            "peak anonymous MB",
            "wall / floor",
        ]);
        for side in &sides {
            let median =
                |field: fn(&Measured) -> f64| child::median(side.measured.iter().map(field));
            let wall = median(|run| run.wall_s);
            table.row(&[
                side.name.to_owned(),
                format!("{wall:.2}"),
                format!("{:.2}", median(|run| run.cpu_s)),
                format!("{:.0}", median(|run| run.anonymous_peak_mb)),
                format!("{:.2}", wall / floor),
            ]);
        }
        Ok(format!(
            "Medians of {} interleaved runs, λ = {LAMBDA}.\n\n{table}\n",
            self.runs
        ))
    }

    fn small_and_planned(&self) -> anyhow::Result<String> {
        let mut table = Table::new(&["chatvec", "wall s", "CPU s", "peak anonymous MB"]);
        let mut row = |name: &str, runs: &[Measured]| {
            let median = |field: fn(&Measured) -> f64| child::median(runs.iter().map(field));
            table.row(&[
                name.to_owned(),
                format!("{:.3}", median(|run| run.wall_s)),
                format!("{:.2}", median(|run| run.cpu_s)),
                format!("{:.0}", median(|run| run.anonymous_peak_mb)),
            ]);
        };

        let tiny = FamilySpec::tiny(1).write(&self.folder.join("tiny"))?;
        let out = self.folder.join("out-tiny");
        let mut small = Vec::new();
        for _ in 0..SMALL_RUNS {
            remove(&out)?;
            small.push(child::measure(chatvec_command(self, &tiny, &out))?);
        }
        remove(&out)?;
        row("merge of 10 MB, start to exit", &small);

        if self.large {
            let family = FamilySpec::llama_4b(1).write(&self.folder.join("llama-4b"))?;
            let out = self.folder.join("out-4b");
            remove(&out)?;
            warm(&family)?;
            let run = child::measure(chatvec_command(self, &family, &out))?;
            remove(&out)?;
            row("merge of 8.8 GB (four times the size)", &[run]);
        }

        let sparse = write_sparse(&self.folder.join("mixture"))?;
        let recipe = self.folder.join("mixture.yaml");
        fs::write(
            &recipe,
            plan_recipe(&sparse, &self.folder.join("out-mixture")),
        )?;
        let plans: Vec<Measured> = (0..3)
            .map(|_| {
                let mut command = Command::new(&self.chatvec);
                command.arg("plan").arg(&recipe);
                child::measure(command)
            })
            .collect::<anyhow::Result<_>>()?;
        row("plan of 91,000 tensors in 3 × 163 files", &plans);
        Ok(format!("{table}"))
    }
}

fn chatvec_command(bench: &Bench, family: &Family, out: &Path) -> Command {
    let mut command = Command::new(&bench.chatvec);
    command
        .arg("merge")
        .arg("--cp")
        .arg(family.cp())
        .arg("--chat")
        .arg(family.chat())
        .arg("--base")
        .arg(family.base())
        .arg("--lambda")
        .arg(LAMBDA.to_string())
        .arg("--out")
        .arg(out);
    command
}

fn floor_command(bench: &Bench, family: &Family, out: &Path) -> Command {
    let mut command = Command::new(&bench.lab);
    command
        .arg("floor")
        .arg("--family")
        .arg(&family.root)
        .arg("--out")
        .arg(out);
    command
}

fn numpy_command(_: &Bench, family: &Family, out: &Path) -> Command {
    let mut command = Command::new(python::env());
    command
        .arg(python::script("numpy_loop.py"))
        .args([family.cp(), family.chat(), family.base()])
        .arg(LAMBDA.to_string())
        .arg(out);
    command
}

fn plan_recipe(family: &Family, out: &Path) -> String {
    format!(
        "cp: {}\nvectors:\n  - chat: {}\n    base: {}\n    lambda: {LAMBDA}\noutput:\n  url: {}\n",
        family.cp().display(),
        family.chat().display(),
        family.base().display(),
        out.display()
    )
}

/// Reads every weight, so that the page cache holds them.
fn warm(family: &Family) -> io::Result<()> {
    let mut block = vec![0; 1 << 20];
    for member in Member::ALL {
        for path in weights(&family.member(member))? {
            let mut file = fs::File::open(path)?;
            while file.read(&mut block)? > 0 {}
        }
    }
    Ok(())
}

/// The safetensors files of a folder, in the order of their names.
fn weights(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = fs::read_dir(folder)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<io::Result<Vec<_>>>()?;
    paths.retain(|path| {
        path.extension()
            .is_some_and(|ending| ending == "safetensors")
    });
    paths.sort();
    Ok(paths)
}

fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Checks that two outputs have the same weight files with the same bytes.
fn ensure_equal(first: &Path, again: &Path) -> anyhow::Result<()> {
    let (left, right) = (weights(first)?, weights(again)?);
    ensure!(!left.is_empty(), "no output in {}", first.display());
    let names = |paths: &[PathBuf]| -> Vec<_> {
        paths
            .iter()
            .map(|path| path.file_name().map(ToOwned::to_owned))
            .collect()
    };
    ensure!(
        names(&left) == names(&right),
        "two runs wrote different files"
    );
    let (mut a, mut b) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    for (left, right) in left.iter().zip(&right) {
        let (mut left_file, mut right_file) = (fs::File::open(left)?, fs::File::open(right)?);
        let size = left_file.metadata()?.len();
        ensure!(
            size == right_file.metadata()?.len(),
            "two runs wrote different sizes of {}",
            left.display()
        );
        let mut rest = size;
        while rest > 0 {
            let block = rest.min(a.len() as u64) as usize;
            left_file.read_exact(&mut a[..block])?;
            right_file.read_exact(&mut b[..block])?;
            ensure!(
                a[..block] == b[..block],
                "two runs wrote different bytes to {}",
                left.display()
            );
            rest -= block as u64;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_that_differ_in_one_byte_or_one_name_are_not_equal() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let write = |run: &str, name: &str, bytes: &[u8]| {
            let run = folder.path().join(run);
            fs::create_dir_all(&run).expect("a folder");
            fs::write(run.join(name), bytes).expect("written");
            run
        };
        let first = write("a", "model.safetensors", b"abc");
        assert!(ensure_equal(&first, &write("b", "model.safetensors", b"abc")).is_ok());
        assert!(ensure_equal(&first, &write("c", "model.safetensors", b"abX")).is_err());
        assert!(ensure_equal(&first, &write("d", "other.safetensors", b"abc")).is_err());
        assert!(ensure_equal(&folder.path().join("a"), &folder.path().join("none")).is_err());
    }
}
