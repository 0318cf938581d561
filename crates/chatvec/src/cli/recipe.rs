//! The recipe of a command: from a file, or from flags.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use chatvec_core::problem::Problem;
use chatvec_core::recipe::{Parsed, Recipe};
use chatvec_core::task::FailureKind;
use chatvec_proto::RECIPE_BYTES_MAX;
use serde_json::{Map, Value, json};

use super::text::binary_size;
use super::{Exit, Failure, output};
use crate::coordinator::planner::Unplannable;
use crate::storage::object::ObjectStorage;
use crate::storage::{Location, survey};

/// What is merged.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct RecipeArgs {
    /// The recipe, a YAML or JSON file; paths in it are relative to its folder.
    #[arg(conflicts_with_all = ["cp", "chat", "base", "lambda", "out", "dtype", "shard_size", "overwrite"])]
    pub recipe: Option<PathBuf>,
    /// The checkpoint that the chat vector is added to.
    #[arg(long, value_name = "DIR", help_heading = "Without a recipe file")]
    pub cp: Option<String>,
    /// The chat-tuned checkpoint.
    #[arg(long, value_name = "DIR", help_heading = "Without a recipe file")]
    pub chat: Option<String>,
    /// The checkpoint that `chat` was tuned from.
    #[arg(long, value_name = "DIR", help_heading = "Without a recipe file")]
    pub base: Option<String>,
    /// How much of the chat vector is added; most people begin with 1.0.
    #[arg(
        long,
        value_name = "NUMBER",
        allow_negative_numbers = true,
        help_heading = "Without a recipe file"
    )]
    pub lambda: Option<f64>,
    /// The folder that the merged checkpoint is written to.
    #[arg(long, value_name = "DIR", help_heading = "Without a recipe file")]
    pub out: Option<String>,
    /// The type of the output's floating-point tensors: same, bf16, f16 or f32.
    #[arg(long, value_name = "TYPE", help_heading = "Without a recipe file")]
    pub dtype: Option<String>,
    /// The most bytes of tensors in one weight file, such as 5GB.
    #[arg(long, value_name = "SIZE", help_heading = "Without a recipe file")]
    pub shard_size: Option<String>,
    /// Replace a checkpoint that stands in the output folder.
    #[arg(long, help_heading = "Without a recipe file")]
    pub overwrite: bool,
}

/// A recipe with absolute paths, and how the user wrote it.
#[derive(Debug, Clone)]
pub(super) struct Given {
    /// With absolute paths.
    pub(super) recipe: Recipe,
    /// What is odd about it but allowed.
    pub(super) warnings: Vec<Problem>,
    as_written: Recipe,
    relative_to: PathBuf,
    origin: Origin,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    File,
    Flags,
}

/// The flag behind each place in a recipe.
const FLAGS: [(&str, &str); 8] = [
    ("cp", "--cp"),
    ("vectors[0].chat", "--chat"),
    ("vectors[0].base", "--base"),
    ("vectors[0].lambda", "--lambda"),
    ("output.url", "--out"),
    ("output.dtype", "--dtype"),
    ("output.shard_size", "--shard-size"),
    ("output.overwrite", "--overwrite"),
];

impl RecipeArgs {
    /// Reads the recipe and prints its warnings.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub(super) fn read(&self) -> Result<Given, Failure> {
        let current = std::env::current_dir().context("the current folder cannot be found")?;
        let given = self.parse(&current).map_err(Failure::bad_input)?;
        output::warnings(&given.warnings);
        Ok(given)
    }

    fn parse(&self, current: &Path) -> Result<Given, Vec<Problem>> {
        let (parsed, relative_to, origin) = match &self.recipe {
            Some(file) => {
                let path = current.join(file);
                let text = read_text(file, &path).map_err(|problem| vec![problem])?;
                let folder = path.parent().unwrap_or(current).to_owned();
                (Recipe::parse(&text), folder, Origin::File)
            }
            None => {
                let value = self.flags_as_value()?;
                (
                    Recipe::from_value(&value),
                    current.to_owned(),
                    Origin::Flags,
                )
            }
        };
        let Parsed {
            recipe: as_written,
            warnings,
        } = parsed.map_err(|problems| origin.name(problems))?;
        let recipe = as_written
            .clone()
            .map_urls(|text| absolute(text, &relative_to));
        Ok(Given {
            recipe,
            warnings: origin.name(warnings),
            as_written,
            relative_to,
            origin,
        })
    }

    fn flags_as_value(&self) -> Result<Value, Vec<Problem>> {
        let needed = [
            ("--cp", self.cp.is_some()),
            ("--chat", self.chat.is_some()),
            ("--base", self.base.is_some()),
            ("--lambda", self.lambda.is_some()),
            ("--out", self.out.is_some()),
        ];
        if needed.iter().all(|(_, given)| !given) {
            let problem = Problem::new("recipe", "expected a recipe file or flags, found neither");
            return Err(vec![problem.with_hint(
                "give RECIPE.yaml, or all of --cp, --chat, --base, --lambda and --out",
            )]);
        }
        let missing = needed.iter().filter(|(_, given)| !given);
        let missing: Vec<_> = missing
            .map(|(flag, _)| Problem::new(*flag, "missing: a merge without a recipe file needs it"))
            .collect();
        if !missing.is_empty() {
            return Err(missing);
        }
        // JSON has no such numbers: there it would read as if nothing was given.
        if let Some(lambda) = self.lambda.filter(|lambda| !lambda.is_finite()) {
            let message = format!("expected a finite number, found `{lambda}`");
            return Err(vec![Problem::new("--lambda", message)]);
        }
        let mut output = Map::new();
        let mut insert = |name: &str, value: &Option<String>| {
            if let Some(value) = value {
                output.insert(name.to_owned(), value.as_str().into());
            }
        };
        insert("url", &self.out);
        insert("dtype", &self.dtype);
        insert("shard_size", &self.shard_size);
        output.insert("overwrite".to_owned(), self.overwrite.into());
        Ok(json!({
            "cp": self.cp,
            "vectors": [{ "chat": self.chat, "base": self.base, "lambda": self.lambda }],
            "output": output,
        }))
    }
}

/// Reads a recipe. What is far larger than any is a checkpoint's file given by
/// mistake, and is not read to its end.
fn read_text(file: &Path, path: &Path) -> Result<String, Problem> {
    let mut text = String::new();
    let limit = RECIPE_BYTES_MAX as u64;
    let read = File::open(path)
        .and_then(|file| file.take(limit + 1).read_to_string(&mut text))
        .map_err(|error| unreadable(file, path, &error))?;
    if read > RECIPE_BYTES_MAX {
        let limit = binary_size(limit);
        let message = format!("expected a recipe of at most {limit}, found more");
        return Err(Problem::new(file.display().to_string(), message)
            .with_hint("give the recipe's file; a long list of rules is better told by patterns"));
    }
    Ok(text)
}

fn unreadable(file: &Path, path: &Path, error: &std::io::Error) -> Problem {
    let problem = Problem::new(
        file.display().to_string(),
        format!("the recipe cannot be read: {error}"),
    );
    if path.is_dir() {
        problem.with_hint("give the recipe's file, not a folder")
    } else {
        problem
    }
}

/// The absolute path or the URL's normal form, or the text itself where it is
/// neither: whoever looks for it says what is wrong.
fn absolute(text: &str, relative_to: &Path) -> String {
    match Location::parse(text, relative_to) {
        // Of a path that is not UTF-8 nothing can be said but its text.
        Ok(location) if location.folder().is_none_or(|path| path.to_str().is_some()) => {
            location.key()
        }
        _ => text.to_owned(),
    }
}

impl Given {
    /// Looks for inputs that are not there, and tells everything that is wrong
    /// with the inputs in the words that the user wrote.
    ///
    /// # Errors
    /// If an input does not exist.
    pub(super) fn check_inputs_exist(&self, storage: &ObjectStorage) -> Result<(), Failure> {
        let vectors = self
            .as_written
            .vectors
            .iter()
            .enumerate()
            .flat_map(|(i, vector)| {
                [
                    (format!("vectors[{i}].chat"), &vector.chat),
                    (format!("vectors[{i}].base"), &vector.base),
                ]
            });
        let inputs = std::iter::once(("cp".to_owned(), &self.as_written.cp)).chain(vectors);
        let inputs = inputs.filter_map(|(role, text)| {
            Some((role, Location::parse(text, &self.relative_to).ok()?))
        });
        let inputs: Vec<_> = inputs.collect();
        // Of objects only the survey can tell, which comes next anyway.
        let is_there = |location: &Location| location.folder().is_none_or(Path::exists);
        if inputs.iter().all(|(_, location)| is_there(location)) {
            return Ok(());
        }
        let problems = inputs.iter().flat_map(|(role, location)| {
            let found = survey(storage, location)
                .err()
                .map(|error| error.problems())
                .unwrap_or_default();
            found.into_iter().map(move |problem| Problem {
                subject: format!("{role}: {}", problem.subject),
                ..problem
            })
        });
        Err(Failure::bad_input(self.named(problems.collect())))
    }

    /// Why the recipe cannot be planned, in the words that the user wrote.
    pub(super) fn unplannable(&self, error: Unplannable) -> Failure {
        let exit = match error.kind {
            FailureKind::Transient => Exit::TryAgain,
            // Also what the user gives: paths, or credentials.
            FailureKind::PermissionDenied => Exit::BadInput,
            kind => Exit::of_kind(kind),
        };
        Failure::Problems {
            exit,
            problems: self.named(error.problems),
        }
    }

    /// The problems with the places that the user knows: flags where the
    /// recipe was made of flags.
    pub(super) fn named(&self, problems: Vec<Problem>) -> Vec<Problem> {
        self.origin.name(problems)
    }
}

impl Origin {
    fn name(self, problems: Vec<Problem>) -> Vec<Problem> {
        match self {
            Self::File => problems,
            Self::Flags => problems.into_iter().map(in_flags).collect(),
        }
    }
}

fn in_flags(problem: Problem) -> Problem {
    let flag = FLAGS.iter().find_map(|(place, flag)| {
        let rest = problem.subject.strip_prefix(place)?;
        (rest.is_empty() || rest.starts_with(':')).then(|| format!("{flag}{rest}"))
    });
    let hint = problem
        .hint
        .map(|hint| hint.replace("`output.overwrite: true`", "`--overwrite`"));
    Problem {
        subject: flag.unwrap_or(problem.subject),
        message: problem.message,
        hint,
    }
}

#[cfg(test)]
mod tests;
