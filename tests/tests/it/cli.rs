//! The command line as people and scripts meet it.

use std::collections::BTreeSet;

use chatvec_tests::process::{self, Process, Signal};
use chatvec_tests::python::repository;
use serde_json::{Value, json};

use crate::service::scene::{ANY_PORT, Scene, id};

/// The sub-commands below this one, by its help.
fn commands(of: &[&str]) -> Vec<String> {
    let args = of.iter().copied().chain(["--help"]);
    let help = process::run(args).expect_code(0).stdout;
    let Some((_, list)) = help.split_once("\nCommands:\n") else {
        return Vec::new();
    };
    list.lines()
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}

/// The long flags of a command, by its help.
fn flags(command: &[&str]) -> BTreeSet<String> {
    let args = command.iter().copied().chain(["--help"]);
    let help = process::run(args).expect_code(0).stdout;
    let first_words = help.lines().filter_map(|line| {
        let mut words = line
            .trim_start()
            .split([' ', ','])
            .filter(|w| !w.is_empty());
        words.find(|word| !word.starts_with('-') || word.starts_with("--"))
    });
    first_words
        .filter(|word| word.starts_with("--"))
        .map(str::to_owned)
        .collect()
}

/// The part of the reference below the heading that names this command.
fn section<'a>(page: &'a str, command: &str) -> &'a str {
    let sections = page.split("\n## ");
    let mut named = sections.filter(|section| {
        let heading = section.lines().next().unwrap_or_default();
        heading.starts_with("`chatvec") && heading.contains(&format!("{command}`"))
    });
    named
        .next()
        .unwrap_or_else(|| panic!("no section of `{command}`"))
}

#[test]
fn every_command_and_flag_stands_in_the_reference() {
    let page = std::fs::read_to_string(repository().join("docs/reference.md"));
    let page = page.expect("the page is there");
    let mut seen = 0;
    for command in commands(&[]) {
        assert!(page.contains(&format!("\nchatvec {command} ")), "{command}");
        let section = section(&page, &command);
        let mut all = flags(&[&command]);
        for below in commands(&[&command]) {
            assert!(section.contains(&format!("chatvec {command} {below}")));
            all.extend(flags(&[&command, &below]));
        }
        for flag in all {
            // What all have, and what makes a recipe, is told once.
            let everywhere = ["--help", "--output"].contains(&flag.as_str());
            let of_recipes = section.contains("the flags of `merge` that make a recipe")
                && self::section(&page, "merge").contains(&flag);
            assert!(
                everywhere || of_recipes || section.contains(&flag),
                "`{flag}` of `{command}`"
            );
            seen += 1;
        }
    }
    assert!(seen > 60, "{seen} flags were looked for");
}

/// What a process told beside its result, an object a line.
fn told(stderr: &str) -> Vec<Value> {
    let lines = stderr.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("`{line}` is no JSON")))
        .collect()
}

#[test]
fn where_results_are_json_errors_are_too() {
    let scene = Scene::new();
    let missing = scene.path("missing").display().to_string();
    for command in ["merge", "plan"] {
        let mut flags = scene.merge("out");
        flags[1].clone_from(&missing);
        let args = [command, "-o", "json"].map(str::to_owned).into_iter();
        let failed = process::run(args.chain(flags)).expect_code(2);
        assert_eq!(failed.stdout, "");
        let told = told(&failed.stderr);
        assert_eq!(told[0]["level"], "error", "{told:#?}");
        let subject = told[0]["subject"].as_str().expect("a text");
        assert!(subject.starts_with("--cp"), "{told:#?}");
        assert!(told[0]["message"].is_string(), "{told:#?}");
    }
    let failed = process::run(["inspect", "-o", "json", &missing]).expect_code(2);
    assert_eq!(told(&failed.stderr)[0]["level"], "error");
    let away = ["get", "x", "-o", "json", "--coordinator", "127.0.0.1:1"];
    let failed = process::run(away).expect_code(75);
    let [told] = &told(&failed.stderr)[..] else {
        panic!("one error: {failed:#?}")
    };
    assert_eq!(told["subject"], "127.0.0.1:1");
    let hint = told["hint"].as_str().expect("a text");
    assert!(hint.contains("chatvec serve"), "{told:#}");
}

#[test]
fn ctrl_c_ends_a_watch_and_not_the_job() {
    let scene = Scene::new();
    let service = scene.serve(ANY_PORT, &[]);
    let job = id(&service.submit(&scene, "out", &[]));
    let mut watch = Process::start(service.command(["watch", &job]));
    assert!(watch.says(&format!("{job}: ")), "{:#?}", watch.wait());
    watch.signal(Signal::INT);
    let ended = watch.wait().expect_code(130);
    let last = ended.stderr.lines().last().expect("it says so");
    assert_eq!(
        last,
        format!("the job goes on: `chatvec watch {job}`, `chatvec cancel {job}`")
    );
    assert_eq!(service.get(&job)["error"], Value::Null);
    let _worker = service.worker();
    service.client(["watch", &job]).expect_code(0);
}

#[test]
fn a_tenant_is_limited_and_freed_by_command() {
    let scene = Scene::new();
    let service = scene.serve(ANY_PORT, &[]);
    let set = |flags: &[&str]| {
        let args = ["tenants", "set", "team-a", "-o", "json"].iter();
        service.client(args.chain(flags)).expect_code(0).json()
    };
    let made = set(&["--weight", "3", "--open-jobs-max", "1"]);
    let expected = json!({
        "tenant": "team-a", "weight": 3, "open_jobs": 0, "open_jobs_max": 1,
        "leased_tasks": 0, "leased_tasks_max": null,
    });
    assert_eq!(made, expected);
    service.submit(&scene, "out", &["--tenant", "team-a"]);
    let flags = scene.merge("other");
    let second: Vec<&str> = ["submit", "--tenant", "team-a"]
        .into_iter()
        .chain(flags.iter().map(String::as_str))
        .collect();
    let refused = service.client(&second).expect_code(75);
    assert!(
        refused
            .stderr
            .contains("tenant `team-a` has as many open jobs as it may, 1"),
        "{refused:#?}"
    );
    let text = service.client(["tenants", "list"]).expect_code(0).stdout;
    let row = text.lines().find(|line| line.starts_with("team-a "));
    let row: Vec<_> = row.expect("it is listed").split_whitespace().collect();
    assert_eq!(row, ["team-a", "3", "1", "of", "1", "0"]);

    assert_eq!(set(&["--open-jobs-max", "none"])["weight"], 3);
    service.client(&second).expect_code(0);
    for wrong in [
        &["tenants", "set", "team-a"][..],
        &["tenants", "set", "team-a", "--weight", "0"],
        &["tenants", "set", "Team", "--weight", "1"],
    ] {
        service.client(wrong).expect_code(2);
    }
}
