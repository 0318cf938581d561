//! All that can be decided from headers and small files: the plan of the
//! weights and the plan of the side files.

use std::collections::BTreeMap;

use chatvec_core::align::Role;
use chatvec_core::plan::{self, PartSize, Plan};
use chatvec_core::problem::Problem;
use chatvec_core::recipe::Recipe;
use chatvec_core::sidefile::{self, Folder, SidePlan, SideRequest};

use super::inputs::of_role;
use super::{SurveyedInputs, Unplannable};
use crate::storage::{ObjectStorage, Output, SurveyError};

/// A job decided to the last byte's place, and nothing written yet.
#[derive(Debug)]
pub struct Draft {
    /// What was read.
    pub inputs: SurveyedInputs,
    /// The weights.
    pub plan: Plan,
    /// The side files.
    pub sides: SidePlan,
    /// What the user should know and nothing stops for.
    pub warnings: Vec<Problem>,
    /// cp's README, for the model card.
    pub(super) cp_card: Option<Vec<u8>>,
}

/// Decides everything about a job.
///
/// # Errors
/// All problems of recipe, inputs and output at once.
///
/// Blocks: not for a thread of a runtime.
pub fn draft(
    storage: &ObjectStorage,
    recipe: &Recipe,
    part_size: PartSize,
) -> Result<Draft, Unplannable> {
    let output = Output::at(storage, &recipe.output.url)?;
    let inputs = SurveyedInputs::survey(storage, recipe)?;
    output.check_apart_from(&inputs.locations())?;
    let cp = Texts::read(&inputs, Role::Cp)?;
    let chat = Texts::read(&inputs, Role::Chat(0))?;
    let base = Texts::read(&inputs, Role::Base(0))?;

    let planned = plan::plan(recipe, &inputs.inputs(), inputs.sources(), part_size);
    let untie = planned.as_ref().is_ok_and(|plan| plan.alignment.untie);
    let sides = sidefile::plan(&SideRequest {
        cp: cp.folder(),
        chat: Some(chat.folder()),
        base: Some(base.folder()),
        chat_template: recipe.chat_template,
        output_dtype: recipe.output.dtype.format(),
        untie,
    })
    .map_err(|problems| problems.into_iter().map(in_recipe).collect::<Vec<_>>());
    let (plan, sides) = match (planned, sides) {
        (Ok(plan), Ok(sides)) => (plan, sides),
        (planned, sides) => {
            let problems = planned.err().into_iter().chain(sides.err());
            return Err(problems.flatten().collect::<Vec<_>>().into());
        }
    };
    let mut warnings = Vec::new();
    for (role, surveyed) in inputs.all() {
        let found = surveyed.checkpoint.warnings.iter().cloned();
        warnings.extend(found.map(|one| of_role(role, one)));
    }
    warnings.extend(plan.alignment.warnings.iter().cloned());
    warnings.extend(sides.warnings.iter().cloned().map(in_recipe));
    let cp_card = cp.texts.get("README.md").cloned();
    Ok(Draft {
        inputs,
        plan,
        sides,
        warnings,
        cp_card,
    })
}

/// A side file is named after its input, as in `chat/config.json`; here the
/// input gets the name of its place in the recipe.
fn in_recipe(problem: Problem) -> Problem {
    let roles = [
        ("cp/", Role::Cp),
        ("chat/", Role::Chat(0)),
        ("base/", Role::Base(0)),
    ];
    let subject = roles.iter().find_map(|(folder, role)| {
        let path = problem.subject.strip_prefix(folder)?;
        Some(format!("{role}: {path}"))
    });
    Problem {
        subject: subject.unwrap_or(problem.subject),
        ..problem
    }
}

/// The small files of one input that decide something, read whole.
struct Texts {
    files: Vec<(String, u64)>,
    texts: BTreeMap<String, Vec<u8>>,
}

impl Texts {
    fn read(inputs: &SurveyedInputs, role: Role) -> Result<Self, Unplannable> {
        let surveyed = inputs.of(role);
        let files: Vec<_> = surveyed
            .listing
            .iter()
            .map(|file| (file.name.clone(), file.size))
            .collect();
        let names: Vec<_> = files.iter().map(|(name, _)| name.as_str()).collect();
        let failed = |error: SurveyError| Unplannable {
            kind: error.kind(),
            problems: error
                .problems()
                .into_iter()
                .map(|problem| of_role(role, problem))
                .collect(),
        };
        let mut texts = BTreeMap::new();
        for name in sidefile::texts_needed(&names) {
            let (bytes, read) = surveyed.read_small(&name).map_err(failed)?;
            if inputs.small_files(role).get(&name) != Some(&read) {
                let problem = Problem::new(&read.url, "changed while the merge was planned")
                    .with_hint("try again");
                return Err(of_role(role, problem).into());
            }
            texts.insert(name, bytes);
        }
        Ok(Self { files, texts })
    }

    fn folder(&self) -> Folder<'_> {
        Folder {
            files: &self.files,
            texts: &self.texts,
        }
    }
}
