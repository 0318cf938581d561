//! What publishing needs of a plan, as the job store keeps it between the
//! planner and the finalizer.

use chatvec_core::align::Role;
use chatvec_core::card::{self, Card, CardInput};
use chatvec_core::manifest;
use chatvec_core::plan::{INDEX_NAME, PartSize, index_of};
use chatvec_core::problem::Problem;
use chatvec_core::recipe::Recipe;
use chatvec_core::sidefile::{Content, SideFile};
use chatvec_core::task::SourceFile;
use serde::{Deserialize, Serialize};

use super::Draft;
use super::tensors::{Decided, PlannedTensor, PlannedTensors};

/// The part of a plan that outlives planning. Between [`Blueprint::of`] and
/// [`Blueprint::encode`] its tensors are those of the plan, which are written
/// one by one: a copy of a hundred thousand takes tens of megabytes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Blueprint<T = PlannedTensors> {
    /// The inputs, for the manifest.
    pub inputs: Vec<manifest::Input>,
    /// Size of every part but the last of a file.
    pub part_size: PartSize,
    /// The weight files, by ordinal.
    pub files: Vec<PlannedFile>,
    /// The tensors, by ordinal.
    pub tensors: T,
    /// The side files in publishing order; `config.json` is the last of them.
    pub sides: Vec<PlannedSide>,
    /// The index, where there are several weight files.
    pub index: Option<PlannedSide>,
    /// What the user should know.
    pub warnings: Vec<Problem>,
    /// Of an output in a folder: the run of the machine in which its unfinished
    /// files were made.
    #[serde(default)]
    pub boot_id: Option<String>,
    /// The ETag of the manifest that this job's replaces, where an earlier
    /// checkpoint stands in object storage.
    #[serde(default)]
    pub standing: Option<String>,
}

/// A weight file of the output.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PlannedFile {
    /// Its name.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
}

/// A side file of the output.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PlannedSide {
    /// Its path in the output folder.
    pub path: String,
    /// Its contents.
    pub content: SideContent,
}

/// Where a side file's bytes come from.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum SideContent {
    /// This very text.
    Text(String),
    /// A pinned file of an input.
    Copy(SourceFile),
    /// The index of the blueprint's own tensors.
    Index,
}

impl<'a> Blueprint<Decided<'a>> {
    /// What publishing needs of a draft.
    pub fn of(recipe: &Recipe, draft: &'a Draft) -> Self {
        let plan = &draft.plan;
        let inputs = draft.inputs.records();
        let mut sides: Vec<_> = draft
            .sides
            .files
            .iter()
            .map(|side| planned_side(side, draft))
            .collect();
        sides.insert(
            0,
            PlannedSide {
                path: "README.md".to_owned(),
                content: SideContent::Text(model_card(recipe, draft)),
            },
        );
        let has_index = plan.files.len() > 1;
        let index = has_index.then(|| PlannedSide {
            path: INDEX_NAME.to_owned(),
            content: SideContent::Index,
        });
        let files = plan.files.iter().map(|file| PlannedFile {
            name: file.name.clone(),
            size: file.size,
        });
        Self {
            inputs,
            part_size: plan.part_size,
            files: files.collect(),
            tensors: Decided::of(plan),
            sides,
            index,
            warnings: draft.warnings.clone(),
            boot_id: None,
            standing: None,
        }
    }

    /// The bytes that the job store keeps.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts, numbers and lists always serialise")
    }
}

impl Blueprint {
    /// The text of the index, where there are several weight files.
    pub fn index_text(&self) -> String {
        let tensors = &self.tensors.0;
        let placed = tensors.iter().map(|tensor| {
            let file = &self.files[tensor.file as usize];
            (tensor.name.as_str(), file.name.as_str())
        });
        index_of(tensors.iter().map(PlannedTensor::bytes).sum(), placed)
    }

    /// Reads back what [`Blueprint::encode`] wrote.
    ///
    /// # Errors
    /// If the bytes are something else.
    pub fn decode(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }
}

fn planned_side(side: &SideFile, draft: &Draft) -> PlannedSide {
    let content = match &side.content {
        Content::Copy => SideContent::Copy(draft.inputs.small_files(Role::Cp)[&side.path].clone()),
        Content::CopyFromChat { path } => {
            SideContent::Copy(draft.inputs.small_files(Role::Chat(0))[path].clone())
        }
        Content::Bytes(bytes) => SideContent::Text(
            String::from_utf8(bytes.clone())
                .expect("edited side files are JSON or templates: text"),
        ),
    };
    PlannedSide {
        path: side.path.clone(),
        content,
    }
}

fn model_card(recipe: &Recipe, draft: &Draft) -> String {
    let lambdas = |role: Role| match role {
        Role::Cp => None,
        Role::Chat(vector) | Role::Base(vector) => Some(recipe.vectors[vector].lambda.to_string()),
    };
    let inputs = draft.inputs.all().map(|(role, surveyed)| CardInput {
        role: role.to_string(),
        url: surveyed.location.to_string(),
        lambda: lambdas(role),
    });
    let title = recipe
        .output
        .url
        .trim_end_matches('/')
        .rsplit('/')
        .next()
        .unwrap_or("merged model");
    let merged = draft.plan.merged() as u64;
    let card = card::render(&Card {
        title,
        inputs: &inputs.collect::<Vec<_>>(),
        recipe_yaml: &recipe.to_yaml(),
        merged,
        copied: draft.plan.decisions().len() as u64 - merged,
        chatvec_version: env!("CARGO_PKG_VERSION"),
        cp_readme: draft.cp_card.as_deref(),
    });
    String::from_utf8(card).expect("a card is made of text")
}
