//! `chatvec plan`: what a merge would do, from headers alone.

mod report;
mod text;

use chatvec_core::plan::PartSize;

use self::report::Report;
use super::recipe::RecipeArgs;
use super::{Exit, Failure, OutputFormat, output, size};
use crate::coordinator::planner;
use crate::storage::Output;
use crate::storage::object::{ObjectStorage, ObjectStorageOptions};

/// Show what a merge would do with every tensor and file, without doing it.
#[derive(Debug, Clone, clap::Args)]
pub struct PlanArgs {
    #[command(flatten)]
    recipe: RecipeArgs,
    /// List every tensor with what is decided for it.
    #[arg(long)]
    tensors: bool,
    /// The size of a part as the merge would be given it, a multiple of 4096 bytes.
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = size::part_size)]
    part_size: PartSize,
    /// Print text for people, or one JSON object.
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    output: OutputFormat,
}

pub(super) fn run(args: &PlanArgs) -> Result<Exit, Failure> {
    output::tell_as(args.output);
    let given = args.recipe.read()?;
    let storage = ObjectStorage::new(ObjectStorageOptions::from_environment());
    given.check_inputs_exist(&storage)?;
    let draft = planner::draft(&storage, &given.recipe, args.part_size);
    let draft = draft.map_err(|error| given.unplannable(error))?;
    // A warning: an earlier merge may stand there that this one would go on with.
    let output = Output::at(&storage, &given.recipe.output.url);
    let taken = output
        .and_then(|output| output.check_free(&storage, given.recipe.output.overwrite))
        .err();
    let warnings = given
        .warnings
        .iter()
        .chain(&draft.warnings)
        .cloned()
        .chain(given.named(Vec::from_iter(taken)));
    let report = Report::new(&given.recipe, &draft, warnings.collect(), args.tensors);
    match args.output {
        OutputFormat::Text => output::print(|out| text::write(&report, out))?,
        OutputFormat::Json => output::print_json(&report)?,
    }
    Ok(Exit::Success)
}
