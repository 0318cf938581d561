//! The checkpoints that a recipe names, surveyed: headers read, objects pinned.

use std::collections::BTreeMap;
use std::path::Path;

use chatvec_core::align::{Input, Inputs, Role, VectorInputs};
use chatvec_core::ids::Digest;
use chatvec_core::manifest::{self, InputFile};
use chatvec_core::problem::Problem;
use chatvec_core::recipe::Recipe;
use chatvec_core::sidefile;
use chatvec_core::task::{FailureKind, SourceFile};

use super::Unplannable;
use crate::storage::{Location, ObjectStorage, SurveyError, Surveyed, survey_all};

/// Small files of a checkpoint by their path in it, pinned.
pub(super) type SmallFiles = BTreeMap<String, SourceFile>;

/// Every checkpoint of a recipe, each surveyed once however often it is named.
#[derive(Debug)]
pub struct SurveyedInputs {
    surveyed: Vec<Surveyed>,
    /// By position in `surveyed`: the small files that decide something, or
    /// travel to the output, by path.
    small: Vec<SmallFiles>,
    /// Position in `surveyed` and of its first weight file among all sources.
    roles: BTreeMap<Role, usize>,
    first_sources: Vec<usize>,
}

impl SurveyedInputs {
    /// Surveys the checkpoints, several at a time.
    ///
    /// # Errors
    /// Everything that is wrong with any of them, under its path in the recipe.
    ///
    /// Blocks: not for a thread of a runtime.
    pub fn survey(storage: &ObjectStorage, recipe: &Recipe) -> Result<Self, Unplannable> {
        let mut locations: Vec<Location> = Vec::new();
        let mut roles = BTreeMap::new();
        let mut problems = Vec::new();
        let mut kind = FailureKind::BadInput;
        for (role, url) in named(recipe) {
            match Location::parse(url, Path::new("/")) {
                Ok(location) => {
                    let known = locations.iter().position(|other| *other == location);
                    let ordinal = known.unwrap_or_else(|| {
                        locations.push(location);
                        locations.len() - 1
                    });
                    roles.insert(role, ordinal);
                }
                Err(error) => problems.extend(
                    error
                        .problems()
                        .into_iter()
                        .map(|problem| of_role(role, problem)),
                ),
            }
        }
        let outcomes = survey_all(storage, &locations);
        let mut surveyed = Vec::new();
        let mut small = Vec::new();
        for (ordinal, outcome) in outcomes.into_iter().enumerate() {
            let role = *roles
                .iter()
                .find(|(_, named)| **named == ordinal)
                .expect("each location has a role")
                .0;
            let pinned = outcome.and_then(|one| {
                let small = small_files(&one)?;
                Ok((one, small))
            });
            match pinned {
                Ok((one, files)) => {
                    surveyed.push(one);
                    small.push(files);
                }
                Err(error) => {
                    // A repeat may help with all of them if it helps with one.
                    if kind != FailureKind::Transient && error.kind() != FailureKind::BadInput {
                        kind = error.kind();
                    }
                    let found = error.problems().into_iter();
                    problems.extend(found.map(|problem| of_role(role, problem)));
                }
            }
        }
        if !problems.is_empty() {
            return Err(Unplannable { kind, problems });
        }
        let mut next = 0;
        let first_sources = surveyed
            .iter()
            .map(|one| {
                let first = next;
                next += one.weight_files.len();
                first
            })
            .collect();
        Ok(Self {
            surveyed,
            small,
            roles,
            first_sources,
        })
    }

    /// Lets go of the tensors, once the plan is made.
    pub(super) fn forget_tensors(&mut self) {
        for one in &mut self.surveyed {
            one.checkpoint.forget_tensors();
        }
    }

    /// The survey of one input.
    ///
    /// # Panics
    /// If the recipe has no such input.
    pub fn of(&self, role: Role) -> &Surveyed {
        &self.surveyed[self.roles[&role]]
    }

    /// The small files of one input.
    pub(super) fn small_files(&self, role: Role) -> &SmallFiles {
        &self.small[self.roles[&role]]
    }

    /// Every input with its role.
    pub fn all(&self) -> impl Iterator<Item = (Role, &Surveyed)> {
        self.roles
            .iter()
            .map(|(role, ordinal)| (*role, &self.surveyed[*ordinal]))
    }

    /// Where the inputs are.
    pub fn locations(&self) -> Vec<&Location> {
        self.surveyed.iter().map(|one| &one.location).collect()
    }

    /// The inputs as core aligns them.
    pub fn inputs(&self) -> Inputs<'_> {
        let input = |role| {
            let ordinal: usize = self.roles[&role];
            let surveyed = &self.surveyed[ordinal];
            Input {
                checkpoint: &surveyed.checkpoint,
                files: &surveyed.weight_files,
                first_source: self.first_sources[ordinal],
            }
        };
        let vectors = (0..self.roles.len() / 2).map(|vector| VectorInputs {
            chat: input(Role::Chat(vector)),
            base: input(Role::Base(vector)),
        });
        Inputs {
            cp: input(Role::Cp),
            vectors: vectors.collect(),
        }
    }

    /// The weight files of all inputs, each once.
    pub fn sources(&self) -> Vec<SourceFile> {
        self.surveyed
            .iter()
            .flat_map(|one| one.weight_files.iter().cloned())
            .collect()
    }

    /// What the manifest says of the inputs.
    pub fn records(&self) -> Vec<manifest::Input> {
        let file = |(name, source): (&String, &SourceFile)| InputFile {
            name: name.clone(),
            size: source.size,
            pin: source.pin.clone(),
        };
        let record = |(role, surveyed): (Role, &Surveyed)| {
            let weights = surveyed
                .checkpoint
                .files
                .iter()
                .map(|file| &file.name)
                .zip(&surveyed.weight_files);
            manifest::Input {
                role: role.to_string(),
                url: surveyed.location.to_string(),
                files: weights.chain(self.small_files(role)).map(file).collect(),
            }
        };
        self.all().map(record).collect()
    }

    /// Names a job's work: the same recipe on the same objects. A resumed job
    /// must have the key that it had before.
    pub fn key(&self, recipe: &Recipe) -> Digest {
        Digest::of_parts(std::iter::once(recipe.digest().0).chain(
            self.records().into_iter().flat_map(|input| {
                let files = input
                    .files
                    .into_iter()
                    .map(|file| format!("{} {} {}", file.name, file.size, file.pin));
                std::iter::once(input.role).chain(files)
            }),
        ))
    }
}

/// Pins the files that decide something, or may travel to the output.
fn small_files(surveyed: &Surveyed) -> Result<SmallFiles, SurveyError> {
    let names = surveyed.listing.iter().map(|file| file.name.as_str());
    let small =
        names.filter(|name| sidefile::travels(name) || !sidefile::texts_needed(&[name]).is_empty());
    small
        .map(|name| Ok((name.to_owned(), surveyed.pin(name)?)))
        .collect()
}

/// The checkpoints that a recipe names.
fn named(recipe: &Recipe) -> impl Iterator<Item = (Role, &str)> {
    let vectors = recipe
        .vectors
        .iter()
        .enumerate()
        .flat_map(|(ordinal, vector)| {
            [
                (Role::Chat(ordinal), vector.chat.as_str()),
                (Role::Base(ordinal), vector.base.as_str()),
            ]
        });
    std::iter::once((Role::Cp, recipe.cp.as_str())).chain(vectors)
}

pub(super) fn of_role(role: Role, problem: Problem) -> Problem {
    Problem {
        subject: format!("{role}: {}", problem.subject),
        ..problem
    }
}
