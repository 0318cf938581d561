//! Everything about a job that is stored once it is planned.

use chatvec_core::ids::{Digest, FileOrdinal, JobId};
use chatvec_core::plan::{PartSize, Plan};
use chatvec_core::problem::Problem;
use chatvec_core::recipe::Recipe;
use chatvec_proto::convert::encode_spec;

use super::{Blueprint, Draft, Unplannable, draft};
use crate::coordinator::resume::boot_id;
use crate::coordinator::store::{NewPlan, NewTask, NewUpload};
use crate::storage::{ObjectStorage, Output, OutputFolder, OutputPrefix, PART_BYTES_MIN, Standing};

/// A plan, encoded for the job store.
pub(super) struct Prepared {
    pub(super) tasks: Vec<NewTask>,
    /// The uploads that the weight files need; none in a folder.
    pub(super) uploads: Vec<NewUpload>,
    /// Where the uploads are made; `None` for a folder.
    pub(super) prefix: Option<OutputPrefix>,
    key: Digest,
    blueprint: Vec<u8>,
    /// What the user should know.
    pub(super) warnings: Vec<Problem>,
}

/// Drafts the plan and, in a folder, creates the unfinished output files.
pub(super) fn prepare(
    storage: &ObjectStorage,
    recipe: &Recipe,
    job: &JobId,
    part_size: PartSize,
) -> Result<Prepared, Unplannable> {
    let mut draft = draft(storage, recipe, part_size)?;
    // Of the largest models this, the specs and the blueprint are what counts in
    // the coordinator's memory: no two are held for longer than they must be.
    draft.inputs.forget_tensors();
    let output = Output::at(storage, &recipe.output.url)?;
    let (mut standing, mut boot) = (None, None);
    let mut uploads = Vec::new();
    match &output {
        Output::Folder(folder) => {
            create_files(folder, recipe, job, &draft.plan)?;
            boot = boot_id().ok();
        }
        Output::Prefix(prefix) => {
            standing = check_prefix(storage, prefix, recipe, &draft.plan)?.manifest;
            uploads = (0u32..)
                .zip(&draft.plan.files)
                .map(|(ordinal, file)| NewUpload {
                    file: FileOrdinal(ordinal),
                    url: prefix.url().join(&file.name).to_string(),
                    nonce: job.0.clone(),
                })
                .collect();
        }
    }
    let tasks = tasks(&draft, &output, job);
    let key = draft.inputs.key(recipe);
    let blueprint = Blueprint {
        boot_id: boot,
        standing,
        ..Blueprint::of(recipe, &draft)
    };
    let encoded = blueprint.encode();
    let warnings = blueprint.warnings;
    drop(draft);
    Ok(Prepared {
        tasks,
        uploads,
        key,
        blueprint: encoded,
        warnings,
        prefix: match output {
            Output::Folder(_) => None,
            Output::Prefix(prefix) => Some(prefix),
        },
    })
}

impl Prepared {
    pub(super) fn into_plan(self) -> NewPlan {
        NewPlan {
            input_key: self.key,
            plan: self.blueprint,
            warnings: self.warnings,
            tasks: self.tasks,
        }
    }
}

fn create_files(
    folder: &OutputFolder,
    recipe: &Recipe,
    job: &JobId,
    plan: &Plan,
) -> Result<(), Unplannable> {
    folder.check_usable(recipe.output.overwrite)?;
    let partials = folder.partials(job);
    for file in &plan.files {
        partials
            .create(&file.name, file.size)
            .map_err(|error| error.failure())?;
    }
    Ok(())
}

fn check_prefix(
    storage: &ObjectStorage,
    prefix: &OutputPrefix,
    recipe: &Recipe,
    plan: &Plan,
) -> Result<Standing, Unplannable> {
    let part_bytes = plan.part_size.bytes();
    if part_bytes < PART_BYTES_MIN && plan.files.iter().any(|file| file.size > part_bytes) {
        let message = format!(
            "expected parts of at least {PART_BYTES_MIN} bytes for object storage, found {part_bytes}"
        );
        let problem = Problem::new("--part-size", message);
        return Err(problem.with_hint("5MiB is the least").into());
    }
    let free = storage.block_on(prefix.check_free(recipe.output.overwrite));
    Ok(free.map_err(|error| error.failure())??)
}

fn tasks(draft: &Draft, output: &Output, job: &JobId) -> Vec<NewTask> {
    let plan = &draft.plan;
    let target = |file: FileOrdinal| {
        let name = &plan.files[file.0 as usize].name;
        match output {
            Output::Folder(folder) => folder
                .partials(job)
                .path(name)
                .to_string_lossy()
                .into_owned(),
            Output::Prefix(prefix) => prefix.url().join(name).to_string(),
        }
    };
    plan.numbered_tasks()
        .map(|(task, range)| NewTask {
            task,
            file: range.file,
            first_part: range.first_part,
            part_count: range.part_count,
            bytes: range.bytes,
            spec: encode_spec(plan.task_spec(task, target(range.file))),
        })
        .collect()
}
