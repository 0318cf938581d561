//! All that can be decided from headers and small files: the plan of the
//! weights and the plan of the side files.

use std::collections::BTreeMap;

use chatvec_core::align::Role;
use chatvec_core::plan::{self, PartSize, Plan};
use chatvec_core::problem::Problem;
use chatvec_core::recipe::Recipe;
use chatvec_core::sidefile::{self, Folder, SidePlan, SideRequest};
use chatvec_core::task::SourceFile;

use super::SurveyedInputs;
use crate::storage::{OutputFolder, Surveyed};

/// A job decided to the last byte's place, and nothing written yet.
#[derive(Debug)]
pub struct Draft {
    /// What was read.
    pub inputs: SurveyedInputs,
    /// The weights.
    pub plan: Plan,
    /// The side files.
    pub sides: SidePlan,
    /// The small files of cp and of the first chat with their pins, by path.
    pub(super) pins: SmallFiles,
    /// What the user should know and nothing stops for.
    pub warnings: Vec<Problem>,
    /// cp's README, for the model card.
    pub(super) cp_card: Option<Vec<u8>>,
}

/// The pinned side files of the two folders that they may come from.
#[derive(Debug, Default)]
pub(super) struct SmallFiles {
    pub(super) cp: BTreeMap<String, SourceFile>,
    pub(super) chat: BTreeMap<String, SourceFile>,
}

/// Decides everything about a job.
///
/// # Errors
/// All problems of recipe, inputs and output at once.
pub fn draft(recipe: &Recipe, part_size: PartSize) -> Result<Draft, Vec<Problem>> {
    let output = OutputFolder::at(&recipe.output.url).map_err(|problem| vec![problem])?;
    let inputs = SurveyedInputs::survey(recipe)?;
    output.check_apart_from(&inputs.folders()).map_err(|problem| vec![problem])?;
    let cp = Texts::read(inputs.of(Role::Cp), "cp")?;
    let chat = Texts::read(inputs.of(Role::Chat(0)), "vectors[0].chat")?;
    let base = Texts::read(inputs.of(Role::Base(0)), "vectors[0].base")?;

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
            return Err(problems.flatten().collect());
        }
    };
    let mut warnings = Vec::new();
    for (role, surveyed) in inputs.all() {
        let of_role = surveyed.checkpoint.warnings.iter().cloned();
        warnings.extend(of_role.map(|one| Problem { subject: format!("{role}: {}", one.subject), ..one }));
    }
    warnings.extend(plan.alignment.warnings.iter().cloned());
    warnings.extend(sides.warnings.iter().cloned().map(in_recipe));
    let cp_card = cp.texts.get("README.md").cloned();
    let pins = SmallFiles { cp: cp.pins, chat: chat.pins };
    Ok(Draft { inputs, plan, sides, pins, warnings, cp_card })
}

/// A side file is named after its input, as in `chat/config.json`; here the
/// input gets the name of its place in the recipe.
fn in_recipe(problem: Problem) -> Problem {
    let roles = [("cp/", Role::Cp), ("chat/", Role::Chat(0)), ("base/", Role::Base(0))];
    let subject = roles.iter().find_map(|(folder, role)| {
        let path = problem.subject.strip_prefix(folder)?;
        Some(format!("{role}: {path}"))
    });
    Problem { subject: subject.unwrap_or(problem.subject), ..problem }
}

/// The small files of one input that decide something, read whole.
struct Texts {
    files: Vec<(String, u64)>,
    texts: BTreeMap<String, Vec<u8>>,
    pins: BTreeMap<String, SourceFile>,
}

impl Texts {
    fn read(surveyed: &Surveyed, role: &str) -> Result<Self, Vec<Problem>> {
        let files: Vec<_> = surveyed.listing.iter().map(|file| (file.name.clone(), file.size)).collect();
        let names: Vec<_> = files.iter().map(|(name, _)| name.as_str()).collect();
        let mut texts = BTreeMap::new();
        let mut pins = BTreeMap::new();
        let failed = |problem: Problem| vec![Problem { subject: format!("{role}: {}", problem.subject), ..problem }];
        for name in sidefile::texts_needed(&names) {
            let (bytes, pin) = surveyed.read_small(&name).map_err(failed)?;
            pins.insert(name.clone(), pin);
            texts.insert(name, bytes);
        }
        for (name, _) in &files {
            // A file that was read keeps the pin that it was read under.
            if !pins.contains_key(name) {
                pins.insert(name.clone(), surveyed.pin(name).map_err(failed)?);
            }
        }
        Ok(Self { files, texts, pins })
    }

    fn folder(&self) -> Folder<'_> {
        Folder { files: &self.files, texts: &self.texts }
    }
}
