//! What is told of a finished merge.

use std::fs;
use std::io::{self, Write};
use std::time::Duration;

use anyhow::Context as _;
use chatvec_core::manifest;
use chatvec_core::problem::Problem;
use chatvec_core::stats::report::{FILE_NAME, Report};
use serde::Serialize;

use super::super::Failure;
use super::super::output::write_warnings;
use super::super::text::{counted, duration, rate, size, write_rows, write_table};
use crate::coordinator::planner::Draft;
use crate::storage::{ObjectStorage, Output};

/// Tensors that are listed with their change.
const TOP_CHANGES: usize = 5;

/// What the command did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    /// The checkpoint was merged and published.
    Published,
    /// The very same merge stood there already; nothing was done.
    AlreadyPublished,
}

/// What the plan says of the work, whoever did it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Work {
    merged: u64,
    copied: u64,
    weight_files: u64,
    bytes_read: u64,
    bytes_written: u64,
}

impl Work {
    /// Of the plan of a job.
    pub(super) fn of(draft: &Draft) -> Self {
        let plan = &draft.plan;
        let merged = plan.merged() as u64;
        Self {
            merged,
            copied: plan.decisions().len() as u64 - merged,
            weight_files: plan.files.len() as u64,
            bytes_read: plan.bytes_read(),
            bytes_written: plan.bytes_written(),
        }
    }
}

/// What came before the work of this run.
#[derive(Debug, Clone)]
pub(super) struct Earlier {
    /// Bytes of output that an earlier run had done.
    pub(super) kept_bytes: u64,
    /// What is odd about the recipe.
    pub(super) warnings: Vec<Problem>,
}

/// All that is told: the JSON output is this object. Sizes are bytes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Summary {
    outcome: Outcome,
    /// The output folder.
    output: String,
    /// Every file that was published but the manifest.
    files: Vec<String>,
    weight_files: u64,
    weight_bytes: u64,
    tensors_merged: u64,
    tensors_copied: u64,
    /// From start to end of the command.
    seconds: f64,
    /// Bytes of inputs that the whole merge reads.
    input_bytes: u64,
    /// Of this run's share; `null` where nothing was merged.
    input_bytes_per_s: Option<u64>,
    output_bytes_per_s: Option<u64>,
    /// Bytes of output that an earlier run had done.
    resumed_bytes: u64,
    /// The most memory that the process had, page cache apart.
    peak_memory_bytes: Option<u64>,
    /// ‖t‖ / ‖cp‖ over the model.
    relative_change: Option<f64>,
    largest_changes: Vec<Change>,
    /// Of recipe, plan and statistics.
    warnings: Vec<Problem>,
}

/// A tensor that moved.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Change {
    tensor: String,
    /// ‖t‖ / ‖cp‖; `null` where cp is zero.
    relative_change: Option<f64>,
}

impl Summary {
    /// Reads what stands in the output folder.
    pub(super) fn read(
        outcome: Outcome,
        storage: &ObjectStorage,
        url: &str,
        took: Duration,
        work: Work,
        earlier: Earlier,
    ) -> Result<Self, Failure> {
        let output = Output::at(storage, url).map_err(|problem| anyhow::anyhow!("{problem}"))?;
        let read = |name: &str| {
            let read = storage.block_on(output.read(name));
            let read = read.with_context(|| format!("`{name}` of `{output}` cannot be read"))?;
            Ok::<_, anyhow::Error>(read.unwrap_or_default())
        };
        let manifest = manifest::parse(&read(manifest::FILE_NAME)?)
            .context("the published manifest cannot be read")?;
        let report: Report = serde_json::from_slice(&read(FILE_NAME)?)
            .context("the published statistics cannot be read")?;
        let share = 1.0 - earlier.kept_bytes as f64 / work.bytes_written.max(1) as f64;
        let worked = |bytes: u64| {
            let bytes = (bytes as f64 * share) as u64;
            (outcome == Outcome::Published).then(|| rate(bytes, took))
        };
        let changes = report
            .top_changes(TOP_CHANGES)
            .into_iter()
            .map(|tensor| Change {
                tensor: tensor.name.clone(),
                relative_change: tensor
                    .measures
                    .as_ref()
                    .and_then(|measures| measures.relative_change),
            });
        Ok(Self {
            outcome,
            output: output.to_string(),
            files: manifest.outputs.into_iter().map(|file| file.path).collect(),
            weight_files: work.weight_files,
            weight_bytes: work.bytes_written,
            tensors_merged: work.merged,
            tensors_copied: work.copied,
            seconds: took.as_secs_f64(),
            input_bytes: work.bytes_read,
            input_bytes_per_s: worked(work.bytes_read),
            output_bytes_per_s: worked(work.bytes_written),
            resumed_bytes: earlier.kept_bytes,
            peak_memory_bytes: peak_memory_bytes(),
            relative_change: report.totals.measures.relative_change,
            largest_changes: changes.collect(),
            warnings: [earlier.warnings, report.warnings].concat(),
        })
    }

    /// Writes it for people.
    pub(super) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        match self.outcome {
            Outcome::Published => writeln!(out, "published {}", self.output)?,
            Outcome::AlreadyPublished => {
                writeln!(
                    out,
                    "already published: {} holds this very merge",
                    self.output
                )?;
            }
        }
        let mut facts = vec![
            [
                "tensors".to_owned(),
                format!(
                    "{} merged, {} copied",
                    self.tensors_merged, self.tensors_copied
                ),
            ],
            [
                "weights".to_owned(),
                format!(
                    "{} in {}",
                    size(self.weight_bytes),
                    counted(self.weight_files, "file")
                ),
            ],
            ["files".to_owned(), format!("{} in all", self.files.len())],
        ];
        if let (Some(read), Some(written)) = (self.input_bytes_per_s, self.output_bytes_per_s) {
            let took = duration(Duration::from_secs_f64(self.seconds));
            facts.push([
                "time".to_owned(),
                format!("{took}: {}/s read, {}/s written", size(read), size(written)),
            ]);
        }
        if self.resumed_bytes > 0 {
            facts.push([
                "resumed".to_owned(),
                format!("{} were done by an earlier run", size(self.resumed_bytes)),
            ]);
        }
        if let Some(peak) = self.peak_memory_bytes {
            facts.push(["memory".to_owned(), format!("{} at most", size(peak))]);
        }
        if let Some(change) = self.relative_change {
            facts.push([
                "change".to_owned(),
                format!("{change:.3e} of the length of cp"),
            ]);
        }
        write_rows(&facts, "  ", out)?;
        let changes = self.largest_changes.iter().map(|change| {
            let relative = change
                .relative_change
                .map_or("cp is zero".to_owned(), |change| format!("{change:.3e}"));
            [relative, change.tensor.clone()]
        });
        write_table(
            "largest changes, ‖output − cp‖ / ‖cp‖",
            &changes.collect::<Vec<_>>(),
            out,
        )?;
        if !self.warnings.is_empty() {
            writeln!(out)?;
        }
        write_warnings(&self.warnings, out)
    }
}

/// The most physical memory that this process had, by the kernel's account.
fn peak_memory_bytes() -> Option<u64> {
    peak_of(&fs::read_to_string("/proc/self/status").ok()?)
}

fn peak_of(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(outcome: Outcome) -> Summary {
        Summary {
            outcome,
            output: "/m/out".to_owned(),
            files: vec!["model.safetensors".to_owned(), "config.json".to_owned()],
            weight_files: 1,
            weight_bytes: 2_000_000,
            tensors_merged: 3,
            tensors_copied: 1,
            seconds: 0.5,
            input_bytes: 6_000_000,
            input_bytes_per_s: (outcome == Outcome::Published).then_some(12_000_000),
            output_bytes_per_s: (outcome == Outcome::Published).then_some(4_000_000),
            resumed_bytes: 0,
            peak_memory_bytes: Some(30_000_000),
            relative_change: Some(0.012),
            largest_changes: vec![
                Change {
                    tensor: "a".to_owned(),
                    relative_change: None,
                },
                Change {
                    tensor: "b".to_owned(),
                    relative_change: Some(0.5),
                },
            ],
            warnings: vec![Problem::new("vectors[0].lambda", "is negative").with_hint("mind it")],
        }
    }

    #[test]
    fn the_text_says_what_was_done_and_how_fast() {
        let mut out = Vec::new();
        summary(Outcome::Published).write(&mut out).unwrap();
        let wanted = "published /m/out
  tensors  3 merged, 1 copied
  weights  2.00 MB in 1 file
  files    2 in all
  time     0.50 s: 12.00 MB/s read, 4.00 MB/s written
  memory   30.00 MB at most
  change   1.200e-2 of the length of cp

largest changes, ‖output − cp‖ / ‖cp‖
  cp is zero  a
  5.000e-1    b

warning: vectors[0].lambda: is negative
  hint: mind it
";
        assert_eq!(String::from_utf8(out).unwrap(), wanted);
    }

    #[test]
    fn a_merge_that_stands_already_has_no_rates() {
        let mut out = Vec::new();
        summary(Outcome::AlreadyPublished).write(&mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("already published: /m/out"));
        assert!(!text.contains("time"));
        let json = serde_json::to_value(summary(Outcome::AlreadyPublished)).unwrap();
        assert_eq!(json["outcome"], "already_published");
        assert_eq!(json["output_bytes_per_s"], serde_json::Value::Null);
    }

    #[test]
    fn the_peak_is_read_from_the_kernels_account() {
        assert_eq!(
            peak_of("VmPeak:\t  9 kB\nVmHWM:\t   2044 kB\n"),
            Some(2_093_056)
        );
        assert_eq!(peak_of("VmPeak:\t  9 kB\n"), None);
    }
}
