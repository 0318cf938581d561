//! The rules of the house that no compiler and no linter knows.
//!
//! Each rule is a function from the files of the repository to its violations.
//! It runs twice: over the repository, which has none, and over a few files with
//! one violation of each kind planted, which it must find.

mod literals;
mod rules;
mod tree;

use rules::RULES;
use tree::Tree;

#[test]
fn the_repository_keeps_every_rule() {
    let tree = Tree::of_repository();
    assert!(tree.files.len() > 50, "the walk found the repository");
    let violations: Vec<String> = RULES
        .iter()
        .flat_map(|(name, rule)| {
            rule(&tree)
                .into_iter()
                .map(move |at| format!("{name}: {at}"))
        })
        .collect();
    assert!(violations.is_empty(), "\n{}", violations.join("\n"));
}

/// A file with one violation, and the rule that must see it.
struct Mutant {
    rule: &'static str,
    path: &'static str,
    content: &'static str,
}

#[rustfmt::skip]
const MUTANTS: &[Mutant] = &[
    Mutant { rule: "pure core", path: "crates/core/src/a.rs", content: "use std::fs::File;\n" },
    Mutant { rule: "pure core", path: "crates/core/src/a.rs", content: "use std::{fmt, fs};\n" },
    Mutant { rule: "pure core", path: "crates/core/src/a.rs", content: "let t = std::time::Instant::now();\n" },
    Mutant { rule: "pure core", path: "crates/core/src/a.rs", content: "async fn f() { tokio::spawn(g()); }\n" },
    Mutant { rule: "pure core", path: "crates/core/Cargo.toml", content: "[dependencies]\nobject_store = \"1\"\n" },
    Mutant { rule: "pure core", path: "crates/core/Cargo.toml", content: "[dependencies]\nrand.workspace = true\n" },
    Mutant { rule: "roles apart", path: "crates/chatvec/src/worker/a.rs", content: "use crate::coordinator::Reaper;\n" },
    Mutant { rule: "roles apart", path: "crates/chatvec/src/coordinator/a.rs", content: "use crate::{clock, worker};\n" },
    Mutant { rule: "roles apart", path: "crates/chatvec/src/coordinator/a.rs", content: "use crate::{\n    clock,\n    worker::{Lease, run},\n};\n" },
    Mutant { rule: "roles apart", path: "crates/chatvec/src/coordinator/store/a.rs", content: "use super::super::super::worker::run;\n" },
    Mutant { rule: "SQL in the store", path: "crates/chatvec/src/worker/a.rs", content: "let q = \"SELECT id FROM jobs\";\n" },
    Mutant { rule: "SQL in the store", path: "crates/chatvec/src/coordinator/a.rs", content: "query(\"\n  UPDATE tasks SET state = 'DONE'\");\n" },
    Mutant { rule: "SQL has a name", path: "crates/chatvec/src/coordinator/store/a.rs", content: "let q = \"SELECT id FROM jobs\";\n" },
    Mutant { rule: "SQL has a name", path: "crates/chatvec/src/coordinator/store/a.rs", content: "fn b() { let q = \"-- other\nSELECT id FROM jobs\"; }\n" },
    Mutant { rule: "SQL has a name", path: "crates/chatvec/src/coordinator/store/a.rs", content: "const A: &str = \"-- a\nDELETE FROM t\"; const B: &str = \"-- a\nDELETE FROM u\";\n" },
    Mutant { rule: "no drawers", path: "crates/chatvec/src/utils.rs", content: "" },
    Mutant { rule: "no drawers", path: "crates/common/src/lib.rs", content: "" },
    Mutant { rule: "no drawers", path: "crates/core/src/types/mod.rs", content: "" },
    Mutant { rule: "states as in the schema", path: "migrations/0001_jobs.sql", content: "state TEXT CHECK (state IN ('PLANNING', 'QUEUED'))" },
    Mutant { rule: "states as in the schema", path: "migrations/0002_odd.sql", content: "state TEXT CHECK (state IN ('READY', 'LEASED', 'DONE', 'FAILED', 'CANCELED'))" },
    Mutant { rule: "states as in the schema", path: "migrations/0003_odd.sql", content: "CHECK ((ended IS NULL) = (state IN ('READY', 'RUNNING')))" },
    Mutant { rule: "numbered decisions", path: "docs/decisions/why-rust.md", content: "# Why\n" },
    Mutant { rule: "no paths of one machine", path: "docs/guide.md", content: "run /home/ada/chatvec\n" },
    Mutant { rule: "no paths of one machine", path: "Makefile", content: "X := \"/root/x\"\n" },
    Mutant { rule: "no paths of one machine", path: "tests/a.rs", content: concat!("let p = \"", env!("CARGO_MANIFEST_DIR"), "\";\n") },
];

#[test]
fn every_planted_violation_is_found_by_its_rule() {
    for mutant in MUTANTS {
        let tree = Tree::of_files(&[(mutant.path, mutant.content)]);
        let (_, rule) = RULES
            .iter()
            .find(|(name, _)| *name == mutant.rule)
            .expect("mutants name rules that exist");
        let content = mutant.content;
        // What the rule says of a repository without any file is not about this one.
        let nothing = rule(&Tree::of_files(&[]));
        let found = rule(&tree);
        assert!(
            found.iter().any(|violation| !nothing.contains(violation)),
            "`{}` misses {content:?} in {}",
            mutant.rule,
            mutant.path
        );
    }
}

#[test]
fn a_file_may_have_six_hundred_lines_and_not_one_more() {
    let (_, rule) = RULES
        .iter()
        .find(|(name, _)| *name == "short files")
        .expect("the rule exists");
    for (lines, violations) in [(600, 0), (601, 1)] {
        let content = "//\n".repeat(lines);
        let tree = Tree::of_files(&[("crates/core/src/a.rs", &content)]);
        assert_eq!(rule(&tree).len(), violations, "{lines} lines");
    }
}

#[test]
fn every_rule_has_a_mutant() {
    let untested: Vec<_> = RULES
        .iter()
        .map(|(name, _)| *name)
        .filter(|name| *name != "short files")
        .filter(|name| MUTANTS.iter().all(|mutant| mutant.rule != *name))
        .collect();
    assert!(untested.is_empty(), "{untested:?}");
}

#[test]
fn what_is_allowed_is_no_violation() {
    #[rustfmt::skip]
    let tree = Tree::of_files(&[
        ("crates/core/src/a.rs", "//! No std::fs, no tokio here.\nuse std::fmt;\n"),
        ("crates/core/Cargo.toml", "[dependencies]\nserde.workspace = true\n"),
        ("crates/chatvec/src/worker/a.rs", "// as the coordinator does\nuse crate::clock;\nlet m = \"select a model\";\n"),
        ("crates/chatvec/src/coordinator/store/a.rs", "async fn claim() { let q = \"-- claim\nUPDATE tasks SET fence = fence + 1\"; }\n"),
        ("crates/chatvec/src/coordinator/store/b.rs", "use super::worker::see;\nuse crate::{clock, job::{worker}};\nconst REAP: &str = \"-- reap\n  WITH x AS (SELECT 1) SELECT 2\";\n"),
        ("crates/chatvec/src/worker/execute.rs", ""),
        ("docs/decisions/0001-rust.md", "# Rust\n"),
        ("docs/guide.md", "read /proc and s3://models/x\n"),
    ]);
    for (name, rule) in RULES {
        // A tree without migrations rightly breaks the rule about them.
        if *name != "states as in the schema" {
            assert_eq!(rule(&tree), Vec::<String>::new(), "{name}");
        }
    }
}
