//! `chatvec merge`: a whole merge on this machine.

mod summary;

use std::num::NonZero;
use std::time::Instant;

use chatvec_core::plan::PartSize;
use chatvec_core::problem::Problem;

use self::summary::{Earlier, Outcome, Summary, Work};
use super::progress::Progress;
use super::recipe::{Given, RecipeArgs};
use super::runtime::block_on;
use super::state_home::state_home;
use super::{Exit, Failure, OutputFormat, begin, output, signals, size, slots, text};
use crate::coordinator::planner;
use crate::embedded::{self, EarlierRun, EmbeddedError, EmbeddedOptions, Event, MergeEnd};
use crate::storage::object::{ObjectStorage, ObjectStorageOptions};
use crate::worker::memory_of_slots;

/// Merge on this machine.
///
/// When it stops early, what is done is kept: the same command goes on from
/// there.
#[derive(Debug, Clone, clap::Args)]
pub struct MergeArgs {
    #[command(flatten)]
    recipe: RecipeArgs,
    /// Tasks at once; by default twice the number of processor cores, 2 to 16, as
    /// far as the memory allows.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    workers: Option<u32>,
    /// The most memory that all tasks together may take. One between object stores
    /// takes some 50 MiB and its part, one between folders some 4 MiB.
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = size::bytes)]
    memory: u64,
    /// Discard what an interrupted merge left in the output folder and start over.
    #[arg(long)]
    restart: bool,
    /// How much is written between two checkpoints of progress, a multiple of 4096 bytes.
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = size::part_size)]
    part_size: PartSize,
    /// Print text for people, or one JSON object.
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    output: OutputFormat,
}

pub(super) fn run(args: &MergeArgs) -> Result<Exit, Failure> {
    let _telemetry = begin(args.output);
    let began = Instant::now();
    let workers = args.workers;
    let workers = slots::fitting(
        "--workers",
        workers,
        useful_workers(),
        args.memory,
        memory_of_slots,
    )
    .map_err(|problem| Failure::bad_input(vec![problem]))?;
    let given = args.recipe.read()?;
    // Rejects what cannot work before anything is created.
    let storage = ObjectStorage::new(ObjectStorageOptions::from_environment());
    given.check_inputs_exist(&storage)?;
    let draft = planner::draft(&storage, &given.recipe, args.part_size);
    let draft = draft.map_err(|error| given.unplannable(error))?;
    output::warnings(&draft.warnings);
    let work = Work::of(&draft);
    drop(draft);

    let progress = Progress::on_stderr();
    let merged = block_on(merge(args, workers, &given, &storage, &progress));
    progress.clear();
    let (end, kept) = merged?;
    let outcome = match end {
        MergeEnd::Published(_) => Outcome::Published,
        MergeEnd::AlreadyPublished => Outcome::AlreadyPublished,
        MergeEnd::Failed(kind, problems) => {
            return Err(Failure::Problems {
                exit: Exit::of_kind(kind),
                problems: given.named(problems),
            });
        }
        MergeEnd::Stalled(problem) => return Err(stalled(problem)),
        MergeEnd::Interrupted => return Err(Failure::Interrupted(interrupted(args.restart))),
    };
    let earlier = Earlier {
        kept_bytes: kept,
        warnings: given.warnings,
    };
    let summary = Summary::read(
        outcome,
        &storage,
        &given.recipe.output.url,
        began.elapsed(),
        work,
        earlier,
    )?;
    match args.output {
        OutputFormat::Text => output::print(|out| summary.write(out))?,
        OutputFormat::Json => output::print_json(&summary)?,
    }
    Ok(Exit::Success)
}

/// How the merge ended, and the bytes of output that an earlier run had done.
#[tracing::instrument(name = "merge checkpoint", skip_all)]
async fn merge(
    args: &MergeArgs,
    workers: u32,
    given: &Given,
    storage: &ObjectStorage,
    progress: &Progress,
) -> Result<(MergeEnd, u64), Failure> {
    let options = EmbeddedOptions {
        workers,
        memory_bytes: args.memory,
        part_size: args.part_size,
        earlier: if args.restart {
            EarlierRun::Restart
        } else {
            EarlierRun::Resume
        },
        state_home: state_home()?,
    };
    let stopping = progress.clone();
    let interrupt = signals::interrupt(move || {
        stopping.note("stopping: what is done is kept; once more stops at once");
    })?;
    let mut kept = 0;
    let watch = |event: Event<'_>| match event {
        Event::Resumed(resumed) => {
            kept = resumed.kept_bytes;
            let kept = text::size(kept);
            progress.note(&format!(
                "going on with an unfinished merge: {kept} are done and verified"
            ));
            if resumed.reopened_tasks > 0 {
                let tasks = text::counted(resumed.reopened_tasks as u64, "task");
                progress.note(&format!(
                    "{tasks} did not hold what was written, and will be done again"
                ));
            }
        }
        Event::Job(job) => progress.show(job),
    };
    let end = embedded::merge(
        storage.clone(),
        given.recipe.clone(),
        options,
        interrupt,
        watch,
    )
    .await;
    let end = end.map_err(|error| match error {
        EmbeddedError::Rejected(problems) => Failure::bad_input(given.named(problems)),
        EmbeddedError::Busy { output, pid } => Failure::try_again(busy(&output, &pid)),
        EmbeddedError::Other(error) => Failure::Other(error),
    })?;
    Ok((end, kept))
}

/// Two tasks a core: one computes while the other waits for the disk.
fn useful_workers() -> u32 {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    u32::try_from(cores.saturating_mul(2))
        .unwrap_or(u32::MAX)
        .clamp(2, 16)
}

fn busy(folder: &str, pid: &str) -> Problem {
    Problem::new(
        folder,
        format!("another process (pid {pid}) is merging into it"),
    )
    .with_hint("wait for it to end, or give another output folder")
}

fn stalled(problem: Problem) -> Failure {
    let again = "what is done is kept: the same command goes on from there";
    let hint = match &problem.hint {
        Some(hint) => format!("{hint}; {again}"),
        None => again.to_owned(),
    };
    Failure::try_again(problem.with_hint(hint))
}

fn interrupted(restarted: bool) -> String {
    let again = "interrupted: what is done is kept, the same command";
    if restarted {
        format!("{again} without `--restart` goes on from there")
    } else {
        format!("{again} goes on from there")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_workers_is_bounded() {
        assert!((2..=16).contains(&useful_workers()));
    }

    #[test]
    fn what_may_work_later_says_that_nothing_is_lost() {
        let failure = stalled(Problem::new("/out", "no space").with_hint("make room"));
        let Failure::Problems { exit, problems } = failure else {
            panic!("it has problems")
        };
        assert_eq!(exit, Exit::TryAgain);
        assert!(
            problems[0]
                .hint
                .as_deref()
                .unwrap()
                .starts_with("make room; what is done is kept")
        );
        assert!(interrupted(true).contains("without `--restart`"));
        assert!(!interrupted(false).contains("--restart"));
    }
}
