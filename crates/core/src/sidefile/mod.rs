//! The small files of the output: config, tokenizer, chat template, licence.
//! They come from the skeleton (cp) by an allow list; the chat template and the
//! end-of-turn token come from chat, in every file that names them, for a model
//! that never ends its turn is of no use. What an edit does not concern keeps
//! its bytes.

mod chat;
mod config;
mod draft;
mod json;
mod select;
mod vocabulary;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use self::draft::Draft;
use self::json::Object;
use crate::dtype::FloatFormat;
use crate::problem::Problem;
use crate::recipe::ChatTemplate;

/// One input's folder: what is in it, and the contents of what was asked for.
#[derive(Debug, Clone, Copy)]
pub struct Folder<'a> {
    /// Every file: its path relative to the folder, with `/`, and its size in bytes.
    pub files: &'a [(String, u64)],
    /// The contents of the files that [`texts_needed`] names.
    pub texts: &'a BTreeMap<String, Vec<u8>>,
}

/// Everything that decides the side files.
#[derive(Debug, Clone, Copy)]
pub struct SideRequest<'a> {
    /// The skeleton, whose files travel.
    pub cp: Folder<'a>,
    /// The first vector's chat; `None` where the vector has no such folder.
    pub chat: Option<Folder<'a>>,
    /// The first vector's base, compared with cp where there is no chat.
    pub base: Option<Folder<'a>>,
    /// As the recipe says; `None` takes chat's where chat has a template.
    pub chat_template: Option<ChatTemplate>,
    /// The type that the config declares; `None` leaves it as it is.
    pub output_dtype: Option<FloatFormat>,
    /// Whether the output stores a head of its own though the skeleton's was
    /// tied: `tie_word_embeddings` becomes false.
    pub untie: bool,
}

/// Where the bytes of a side file come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// The file of the same path in cp's folder.
    Copy,
    /// A file in the folder of the first vector's chat.
    CopyFromChat {
        /// Its path there.
        path: String,
    },
    /// These very bytes.
    Bytes(Vec<u8>),
}

/// One side file of the output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SideFile {
    /// Its path, relative to the output's folder.
    pub path: String,
    /// Its contents.
    pub content: Content,
}

/// The side files, decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SidePlan {
    /// In publishing order: by path, but `config.json` last.
    pub files: Vec<SideFile>,
    /// Files of cp that do not travel, by path, each with the reason.
    pub skipped: Vec<(String, String)>,
    /// What the user should look at though it stops nothing.
    pub warnings: Vec<Problem>,
}

/// The files whose contents decide something.
const TEXTS_NEEDED: [&str; 10] = [
    "README.md",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "config.json",
    "generation_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
];

/// Those of a folder's paths whose contents must be given in [`Folder::texts`],
/// in the order given. The same for cp, chat and base.
pub fn texts_needed(paths: &[&str]) -> Vec<String> {
    paths
        .iter()
        .filter(|path| TEXTS_NEEDED.contains(path))
        .map(|path| (*path).to_owned())
        .collect()
}

/// Whether a file of cp's folder would travel to the output. `path` is
/// relative to the folder, with `/` between its parts.
pub fn travels(path: &str) -> bool {
    select::choose(path) == select::Choice::Take
}

/// Whether files in this folder of a checkpoint, one level down, may travel.
pub fn is_read_folder(name: &str) -> bool {
    select::is_read_folder(name)
}

/// Decides every side file of the output.
///
/// # Errors
/// All the problems at once: a file that must be read and is broken, a chat
/// template that is asked for and does not exist, an end-of-turn token that
/// cp's vocabulary lacks or that cannot be looked up. The subject of a problem
/// is the file, after the input that it belongs to: `cp/config.json`.
pub fn plan(request: &SideRequest<'_>) -> Result<SidePlan, Vec<Problem>> {
    let cp = Source::new("cp", request.cp);
    let chat = request.chat.map(|folder| Source::new("chat", folder));
    let base = request.base.map(|folder| Source::new("base", folder));
    let mut problems = Vec::new();
    let mut warnings = Vec::new();
    let mut draft = Draft::from_skeleton(cp, &mut warnings);

    if let Err(problem) = config::edit(&mut draft, request.output_dtype, request.untie) {
        problems.push(problem);
    }
    chat::bring(
        &mut draft,
        chat.as_ref(),
        request.chat_template,
        &mut problems,
    );
    if let Some(relative) = chat.as_ref().or(base.as_ref()) {
        match config::differences(&cp, relative) {
            Ok(differences) => warnings.extend(differences),
            Err(problem) => problems.push(problem),
        }
    }
    // Two stages may stumble over the same broken file.
    problems.sort();
    problems.dedup();
    if problems.is_empty() {
        Ok(draft.finish(warnings))
    } else {
        Err(problems)
    }
}

/// A folder under the name that its input has in messages.
#[derive(Debug, Clone, Copy)]
struct Source<'a> {
    role: &'static str,
    folder: Folder<'a>,
}

impl<'a> Source<'a> {
    fn new(role: &'static str, folder: Folder<'a>) -> Self {
        Self { role, folder }
    }

    fn has(&self, path: &str) -> bool {
        self.folder.files.iter().any(|(name, _)| name == path)
    }

    /// The contents of a file; `None` where the folder has none of that path.
    fn text(&self, path: &str) -> Result<Option<&'a [u8]>, Problem> {
        if !self.has(path) {
            return Ok(None);
        }
        match self.folder.texts.get(path) {
            Some(text) => Ok(Some(text)),
            None => Err(self.problem(path, "listed in the folder, but its contents were not read")),
        }
    }

    /// A file that is a JSON object; `None` where the folder has no such file.
    fn object(&self, path: &str) -> Result<Option<Object>, Problem> {
        self.text(path)?
            .map(|text| {
                Object::parse(text)
                    .map_err(|error| self.problem(path, format!("expected a JSON object: {error}")))
            })
            .transpose()
    }

    /// A problem with one of the folder's files.
    fn problem(&self, path: &str, message: impl Into<String>) -> Problem {
        Problem::new(format!("{}/{path}", self.role), message)
    }
}
