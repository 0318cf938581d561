//! The side files while they are being decided.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::json::Object;
use super::select::{self, Choice};
use super::{Content, SideFile, SidePlan, Source};
use crate::problem::Problem;

/// The files that the output will have so far. JSON files that an edit looks at
/// are held parsed, and become bytes only if an edit changed them.
pub(super) struct Draft<'a> {
    cp: Source<'a>,
    files: BTreeMap<String, Content>,
    skipped: BTreeMap<String, String>,
    edited: BTreeMap<&'static str, Object>,
}

impl<'a> Draft<'a> {
    /// Starts with what the allow list takes of cp's folder.
    pub(super) fn from_skeleton(cp: Source<'a>, warnings: &mut Vec<Problem>) -> Self {
        let mut files = BTreeMap::new();
        let mut skipped = BTreeMap::new();
        for (path, _) in cp.folder.files {
            match select::choose(path) {
                Choice::Take => {
                    files.insert(path.clone(), Content::Copy);
                }
                Choice::Skip(why) => {
                    skipped.insert(path.clone(), why.to_owned());
                }
            }
            if select::is_module_weights(path) {
                warnings.push(
                    cp.problem(
                        path,
                        "weights of a further module are not part of the output",
                    )
                    .with_hint("copy the file into the output if its module is used"),
                );
            }
        }
        if !files.contains_key("config.json") {
            warnings.push(cp.problem(
                "config.json",
                "missing: the output has no config either, and loaders expect one",
            ));
        }
        Self {
            cp,
            files,
            skipped,
            edited: BTreeMap::new(),
        }
    }

    /// The folder of the skeleton.
    pub(super) fn cp(&self) -> Source<'a> {
        self.cp
    }

    /// One of cp's JSON files, to edit; `None` where cp has no such file.
    pub(super) fn edit(&mut self, path: &'static str) -> Result<Option<&mut Object>, Problem> {
        match self.edited.entry(path) {
            Entry::Occupied(entry) => Ok(Some(entry.into_mut())),
            Entry::Vacant(entry) => Ok(self.cp.object(path)?.map(|object| entry.insert(object))),
        }
    }

    /// One of cp's JSON files, to edit; an empty one where cp has no such file.
    pub(super) fn edit_or_create(&mut self, path: &'static str) -> Result<&mut Object, Problem> {
        if self.edit(path)?.is_none() {
            self.edited.insert(path, Object::default());
        }
        Ok(self.edited.get_mut(path).expect("one was just put there"))
    }

    /// Leaves a file of cp out, if there is such a file.
    pub(super) fn skip(&mut self, path: &str, why: &str) {
        if self.files.remove(path).is_some() {
            self.skipped.insert(path.to_owned(), why.to_owned());
        }
    }

    /// Takes a file of chat under its own path, in the place of any of cp's.
    pub(super) fn take_from_chat(&mut self, path: &str) {
        self.skipped.remove(path);
        let content = Content::CopyFromChat {
            path: path.to_owned(),
        };
        self.files.insert(path.to_owned(), content);
    }

    /// The paths of the files so far.
    pub(super) fn paths(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    /// The plan, in publishing order.
    pub(super) fn finish(mut self, warnings: Vec<Problem>) -> SidePlan {
        for (path, object) in self.edited {
            if object.is_changed() {
                let content = Content::Bytes(object.render());
                self.files.insert(path.to_owned(), content);
            }
        }
        let mut files: Vec<SideFile> = self
            .files
            .into_iter()
            .map(|(path, content)| SideFile { path, content })
            .collect();
        // Stable: the others stay sorted by path.
        files.sort_by_key(|file| file.path == "config.json");
        SidePlan {
            files,
            skipped: self.skipped.into_iter().collect(),
            warnings,
        }
    }
}
