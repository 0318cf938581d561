//! The plan of a job: output files with every byte's place, parts and tasks.
//!
//! Pure and deterministic: the same recipe on the same inputs gives the same
//! plan, so any worker can compute any byte range of any output file at any
//! time, and it always comes out the same.

mod index;
mod layout;
mod split;

pub use index::{INDEX_NAME, index_of};
pub use layout::{OutputFile, PlacedTensor};
pub use split::{PartSize, TaskRange};

use crate::align::{Alignment, Decision, Inputs, align};
use crate::header::HeaderError;
use crate::ids::TaskOrdinal;
use crate::problem::Problem;
use crate::recipe::{Nonfinite, Recipe};
use crate::task::SourceFile;

/// Every decision of a job.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What happens to each tensor of cp.
    pub alignment: Alignment,
    /// The weight files, in the order of their names.
    pub files: Vec<OutputFile>,
    /// The weight files of all inputs, each once.
    pub sources: Vec<SourceFile>,
    /// Size of a part.
    pub part_size: PartSize,
    /// Every task, by file, then by part.
    pub tasks: Vec<TaskRange>,
    nonfinite_is_error: bool,
}

/// Aligns the inputs, lays out the output and splits it into tasks.
///
/// # Errors
/// All problems of the recipe on these inputs at once.
pub fn plan(
    recipe: &Recipe,
    inputs: &Inputs<'_>,
    sources: Vec<SourceFile>,
    part_size: PartSize,
) -> Result<Plan, Vec<Problem>> {
    let alignment = align(recipe, inputs)?;
    let files = layout::lay_out(&alignment.decisions, recipe.output.shard_size_bytes)
        .map_err(|error| vec![header_problem(&error)])?;
    let part_size = part_size.fitting(files.iter().map(|file| file.size));
    let tasks = split::tasks(&files, part_size);
    let nonfinite_is_error = recipe.nonfinite == Nonfinite::Error;
    Ok(Plan {
        alignment,
        files,
        sources,
        part_size,
        tasks,
        nonfinite_is_error,
    })
}

fn header_problem(error: &HeaderError) -> Problem {
    Problem::new("output.shard_size", error.to_string())
        .with_hint("a smaller shard_size gives smaller headers")
}

impl Plan {
    /// The decision on each tensor, by output ordinal.
    pub fn decisions(&self) -> &[Decision] {
        &self.alignment.decisions
    }

    /// Bytes of weights that the workers read.
    pub fn bytes_read(&self) -> u64 {
        self.decisions().iter().map(Decision::input_bytes).sum()
    }

    /// Bytes of the output's weight files.
    pub fn bytes_written(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }

    /// Tensors that are merged.
    pub fn merged(&self) -> usize {
        self.decisions()
            .iter()
            .filter(|decision| decision.is_merged())
            .count()
    }

    /// Every task with its ordinal.
    pub fn numbered_tasks(&self) -> impl Iterator<Item = (TaskOrdinal, &TaskRange)> {
        (0u32..).map(TaskOrdinal).zip(&self.tasks)
    }
}

#[cfg(test)]
mod tests;
