//! The files that the rules look at.

use std::fs;
use std::path::Path;

use chatvec_tests::python;

/// Folders that hold nothing of ours.
const FOREIGN: [&str; 3] = ["target", ".git", "node_modules"];

/// One text file.
pub(super) struct File {
    /// From the root of the repository, with slashes.
    pub(super) path: String,
    pub(super) content: String,
}

impl File {
    pub(super) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Whether it holds nothing but tests.
    pub(super) fn is_test(&self) -> bool {
        self.path
            .split('/')
            .any(|part| part == "tests" || part == "tests.rs")
    }

    /// Whether it lies in the folder.
    pub(super) fn is_in(&self, folder: &str) -> bool {
        self.path
            .strip_prefix(folder)
            .is_some_and(|rest| rest.starts_with('/'))
    }

    /// Its lines without those that are comments, with their numbers.
    pub(super) fn code_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.content
            .lines()
            .enumerate()
            .map(|(ordinal, line)| (ordinal + 1, line))
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
    }
}

/// All text files of the repository, or a few that a test made up.
pub(super) struct Tree {
    pub(super) files: Vec<File>,
}

impl Tree {
    pub(super) fn of_repository() -> Self {
        let root = python::repository();
        let mut files = Vec::new();
        walk(&root, &root, &mut files);
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Self { files }
    }

    pub(super) fn of_files(files: &[(&str, &str)]) -> Self {
        let files = files
            .iter()
            .map(|(path, content)| File {
                path: (*path).to_owned(),
                content: (*content).to_owned(),
            })
            .collect();
        Self { files }
    }

    pub(super) fn rust(&self) -> impl Iterator<Item = &File> {
        self.files.iter().filter(|file| file.is_rust())
    }
}

fn walk(root: &Path, folder: &Path, files: &mut Vec<File>) {
    for entry in fs::read_dir(folder).expect("folders of the repository can be read") {
        let path = entry.expect("folders of the repository can be read").path();
        let name = path.file_name().expect("a listed file has a name");
        let name = name.to_string_lossy();
        if path.is_dir() {
            let is_foreign = FOREIGN.contains(&&*name) || name.starts_with(".venv");
            if !is_foreign {
                walk(root, &path, files);
            }
            continue;
        }
        // What is no text is no source either.
        if let Ok(content) = fs::read_to_string(&path) {
            let path = path
                .strip_prefix(root)
                .expect("it was found below the root");
            let path = path.to_string_lossy().into_owned();
            files.push(File { path, content });
        }
    }
}
