//! One function a rule.

use std::collections::BTreeSet;

use chatvec::coordinator::store::UploadState;
use chatvec_core::job::JobState;
use chatvec_core::task::TaskState;
use chatvec_tests::python;

use super::literals::{Literal, literals};
use super::tree::{File, Tree};

/// From the files to the places that break the rule.
pub(super) type Rule = fn(&Tree) -> Vec<String>;

/// Every rule with its name.
pub(super) const RULES: &[(&str, Rule)] = &[
    ("pure core", pure_core),
    ("roles apart", roles_apart),
    ("SQL in the store", sql_in_the_store),
    ("SQL has a name", sql_has_a_name),
    ("short files", short_files),
    ("no drawers", no_drawers),
    ("states as in the schema", states_as_in_the_schema),
    ("numbered decisions", numbered_decisions),
    ("no paths of one machine", no_paths_of_one_machine),
];

const CORE: &str = "crates/core";
const COORDINATOR: &str = "crates/chatvec/src/coordinator";
const WORKER: &str = "crates/chatvec/src/worker";
const STORE: &str = "crates/chatvec/src/coordinator/store";

/// Lines of a source file, tests included.
const LINES_MAX: usize = 600;

fn at(file: &File, line: usize, what: &str) -> String {
    format!("{}:{line}: {what}", file.path)
}

/// The identifiers of a line, in order.
fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !c.is_alphanumeric() && c != '_')
        .filter(|word| !word.is_empty())
}

/// Core computes from its arguments: no file, network, clock, chance or runtime.
fn pure_core(tree: &Tree) -> Vec<String> {
    const CRATES: [&str; 8] = [
        "tokio",
        "tonic",
        "sqlx",
        "object_store",
        "reqwest",
        "rand",
        "getrandom",
        "rustix",
    ];
    const TIMES: [&str; 2] = ["SystemTime", "Instant"];
    let mut found = Vec::new();
    for file in tree.files.iter().filter(|file| file.is_in(CORE)) {
        if file.path.ends_with("Cargo.toml") {
            for (ordinal, line) in file.content.lines().enumerate() {
                let name = words(line).next().unwrap_or_default();
                if CRATES.contains(&name) {
                    found.push(at(file, ordinal + 1, name));
                }
            }
        }
        // What only tests and benchmarks use does no harm.
        if !file.is_rust() || !file.is_in("crates/core/src") {
            continue;
        }
        for (number, line) in file.code_lines() {
            let uses_std = line.contains("std::");
            for word in words(line) {
                let is_std = matches!(word, "fs" | "net" | "env" | "process") && uses_std;
                let is_foreign = CRATES.contains(&word) && line.contains(&format!("{word}::"));
                if is_std || is_foreign || TIMES.contains(&word) {
                    found.push(at(file, number, word));
                }
            }
        }
    }
    found
}

/// Coordinator and worker talk over the wire and know nothing of each other.
fn roles_apart(tree: &Tree) -> Vec<String> {
    let mut found = Vec::new();
    for file in tree.rust() {
        let other = if file.is_in(COORDINATOR) {
            "worker"
        } else if file.is_in(WORKER) {
            "coordinator"
        } else {
            continue;
        };
        for (line, module) in modules_of_the_crate(file) {
            if module == other {
                found.push(at(file, line, &format!("`crate::{module}`")));
            }
        }
    }
    found
}

/// The top-level modules of its crate that a file names, and where.
fn modules_of_the_crate(file: &File) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let line_of = |at: usize| file.content[..at].matches('\n').count() + 1;
    let is_comment = |at: usize| {
        let begin = file.content[..at].rfind('\n').map_or(0, |end| end + 1);
        file.content[begin..].trim_start().starts_with("//")
    };
    let upwards = "super::".repeat(depth(file));
    let roots = ["crate::", &upwards];
    for (root, (position, _)) in roots
        .into_iter()
        .flat_map(|root| file.content.match_indices(root).map(move |hit| (root, hit)))
        .filter(|(_, (position, _))| !is_comment(*position))
    {
        let rest = &file.content[position + root.len()..];
        let Some(group) = rest.strip_prefix('{') else {
            found.extend(words(rest).next().map(|word| (line_of(position), word)));
            continue;
        };
        // Of a group, the first word of each item that is not inside another.
        let mut level = 0;
        let mut begins = true;
        for (offset, letter) in group.char_indices() {
            match letter {
                '{' => level += 1,
                '}' if level == 0 => break,
                '}' => level -= 1,
                ',' if level == 0 => begins = true,
                letter if begins && letter.is_alphabetic() => {
                    let place = line_of(position + root.len() + 1 + offset);
                    found.extend(words(&group[offset..]).next().map(|word| (place, word)));
                    begins = false;
                }
                _ => {}
            }
        }
    }
    found
}

/// How many modules below its crate's root a file of the product lies.
fn depth(file: &File) -> usize {
    let inside = file.path.split("/src/").nth(1).unwrap_or_default();
    let module = inside.trim_end_matches(".rs").trim_end_matches("/mod");
    module.split('/').count()
}

/// The SQL statements of a file: the line where each begins, and its name.
fn statements(file: &File) -> Vec<(usize, Option<String>)> {
    let statement = |Literal { line, text }| {
        let text = text.trim_start();
        match text.strip_prefix("-- ") {
            Some(named) => {
                let (name, sql) = named.split_once('\n')?;
                begins_sql(sql).then(|| (line, Some(name.trim().to_owned())))
            }
            None => begins_sql(text).then_some((line, None)),
        }
    };
    literals(&file.content)
        .into_iter()
        .filter_map(statement)
        .collect()
}

fn begins_sql(text: &str) -> bool {
    const FIRST: [(&str, &str); 5] = [
        ("SELECT", ""),
        ("INSERT", "INTO"),
        ("UPDATE", "SET"),
        ("DELETE", "FROM"),
        ("WITH", "AS"),
    ];
    let has = |word| words(text).any(|found| found == word);
    FIRST.iter().any(|(verb, noun)| {
        words(text).next() == Some(*verb) && text.trim() != *verb && (noun.is_empty() || has(*noun))
    })
}

/// Nobody but the store talks to the database.
fn sql_in_the_store(tree: &Tree) -> Vec<String> {
    let mut found = Vec::new();
    for file in tree.rust() {
        if !file.is_in("crates") || file.is_in(STORE) {
            continue;
        }
        for (line, _) in statements(file) {
            found.push(at(file, line, "a statement outside the store"));
        }
    }
    found
}

/// A statement begins with `-- name`, the name of the function or of the constant
/// that holds it: it is found again in the database's own logs. No two share one.
fn sql_has_a_name(tree: &Tree) -> Vec<String> {
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    let product = |file: &&File| file.is_in(STORE) && !file.is_test();
    let declares = |name: &str| {
        let function = [format!("fn {name}("), format!("fn {name}<")];
        let constant = format!("const {}:", name.to_uppercase());
        tree.rust().filter(product).any(|file| {
            file.content.contains(&constant) || function.iter().any(|f| file.content.contains(f))
        })
    };
    for file in tree.rust().filter(product) {
        for (line, name) in statements(file) {
            let Some(name) = name else {
                found.push(at(file, line, "a statement without `-- name` before it"));
                continue;
            };
            if !declares(&name) {
                let what = format!("no function and no constant is called `{name}`");
                found.push(at(file, line, &what));
            }
            if !seen.insert(name.clone()) {
                found.push(at(file, line, &format!("a second statement `{name}`")));
            }
        }
    }
    found
}

/// A file that does not fit the head is two files.
fn short_files(tree: &Tree) -> Vec<String> {
    tree.files
        .iter()
        .filter(|file| file.is_rust() || file.path.ends_with(".py"))
        .filter_map(|file| {
            let lines = file.content.lines().count();
            (lines > LINES_MAX).then(|| format!("{}: {lines} lines", file.path))
        })
        .collect()
}

/// A name that says nothing collects everything.
fn no_drawers(tree: &Tree) -> Vec<String> {
    const DRAWERS: [&str; 9] = [
        "common", "util", "utils", "helper", "helpers", "type", "types", "manager", "misc",
    ];
    tree.rust()
        .filter(|file| {
            file.path
                .split('/')
                .any(|part| DRAWERS.contains(&part.trim_end_matches(".rs")))
        })
        .map(|file| file.path.clone())
        .collect()
}

/// The names that CHECK constraints list are those of the enums.
fn states_as_in_the_schema(tree: &Tree) -> Vec<String> {
    let set = |names: &[&str]| -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    };
    let jobs = set(&JobState::ALL.map(JobState::name));
    let tasks = set(&TaskState::ALL.map(TaskState::name));
    let uploads = set(&UploadState::ALL.map(UploadState::name));
    let all = [&jobs, &tasks, &uploads];
    let mut found = Vec::new();
    let (mut has_jobs, mut has_tasks) = (false, false);
    let migrations = tree
        .files
        .iter()
        .filter(|file| file.is_in("migrations") && file.path.ends_with(".sql"));
    for file in migrations {
        for (is_whole, names) in state_lists(&file.content) {
            has_jobs |= is_whole && names == jobs;
            has_tasks |= is_whole && names == tasks;
            // Other constraints speak of some states of one of them.
            let is_known = all.into_iter().any(|states| match is_whole {
                true => names == *states,
                false => names.is_subset(states),
            });
            if !is_known {
                found.push(format!("{}: the states {names:?} are nobody's", file.path));
            }
        }
    }
    if !has_jobs {
        found.push("no CHECK lists the states of a job".to_owned());
    }
    if !has_tasks {
        found.push("no CHECK lists the states of a task".to_owned());
    }
    found
}

/// Every list `state IN (…)`, and whether it is all that its CHECK says: then it
/// is the list of all states.
fn state_lists(sql: &str) -> Vec<(bool, BTreeSet<String>)> {
    let plain = sql.split_whitespace().collect::<Vec<_>>().join(" ");
    plain
        .match_indices("state IN (")
        .filter_map(|(position, opening)| {
            let (list, _) = plain[position + opening.len()..].split_once(')')?;
            let names = list
                .split(',')
                .map(|name| name.trim().trim_matches('\'').to_owned())
                .collect();
            Some((plain[..position].ends_with("CHECK ("), names))
        })
        .collect()
}

/// Decisions are read in order: `0001-title.md`.
fn numbered_decisions(tree: &Tree) -> Vec<String> {
    tree.files
        .iter()
        .filter_map(|file| file.path.strip_prefix("docs/decisions/"))
        .filter(|name| *name != "README.md")
        .filter(|name| {
            let bytes = name.as_bytes();
            let is_numbered = bytes.len() > 5
                && bytes[..4].iter().all(u8::is_ascii_digit)
                && bytes[4] == b'-'
                && name.ends_with(".md");
            !is_numbered
        })
        .map(|name| format!("docs/decisions/{name}"))
        .collect()
}

/// What lies in somebody's home is not there on another machine. Tests may use
/// such paths as data, but not the path of the repository that they lie in.
fn no_paths_of_one_machine(tree: &Tree) -> Vec<String> {
    const HOMES: [&str; 3] = ["/home/", "/root/", "/Users/"];
    let here = python::repository();
    let here = here.to_str().filter(|path| path.matches('/').count() > 1);
    let mut found = Vec::new();
    for file in &tree.files {
        for (ordinal, line) in file.content.lines().enumerate() {
            let homes = HOMES.into_iter().filter(|_| !file.is_test());
            for path in homes.chain(here) {
                // The end of a longer path is no home.
                let is_path = line.match_indices(path).any(|(position, _)| {
                    !line[..position].ends_with(|c: char| c.is_alphanumeric() || "/.}".contains(c))
                });
                if is_path {
                    found.push(at(file, ordinal + 1, path));
                }
            }
        }
    }
    found
}
