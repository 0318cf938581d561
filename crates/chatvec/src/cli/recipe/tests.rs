use clap::Parser as _;

use super::*;
use crate::storage::object::ObjectStorageOptions;

#[derive(Debug, clap::Parser)]
struct Command {
    #[command(flatten)]
    recipe: RecipeArgs,
}

const FLAGS: [&str; 10] = [
    "--cp", "cp", "--chat", "/m/chat", "--base", "../base", "--lambda", "-0.5", "--out", "out",
];

fn args(text: &[&str]) -> Result<RecipeArgs, clap::Error> {
    Command::try_parse_from(std::iter::once(&"chatvec").chain(text)).map(|command| command.recipe)
}

fn parse(text: &[&str]) -> Result<Given, Vec<Problem>> {
    args(text).unwrap().parse(Path::new("/here"))
}

#[test]
fn flags_make_the_recipe_that_a_file_would() {
    let more = ["--dtype", "bf16", "--shard-size", "4.5GB", "--overwrite"];
    let given = parse(&[&FLAGS[..], &more].concat()).unwrap();
    let file = "{cp: /here/cp, vectors: [{chat: /m/chat, base: /here/../base, lambda: -0.5}], \
                output: {url: /here/out, dtype: bf16, shard_size: 4.5GB, overwrite: true}}";
    assert_eq!(given.recipe, Recipe::parse(file).unwrap().recipe);
    assert_eq!(given.warnings.len(), 1);
    assert_eq!(given.warnings[0].subject, "--lambda");
}

#[test]
fn paths_in_a_file_are_relative_to_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let text =
        "{cp: cp, vectors: [{chat: /m/chat, base: s3://b/base, lambda: 1}], output: {url: ./out/}}";
    std::fs::write(folder.path().join("r.yaml"), text).unwrap();
    let file = folder.path().join("r.yaml");
    let recipe = parse(&[file.to_str().unwrap()]).unwrap().recipe;
    let inside = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    assert_eq!(recipe.cp, inside("cp"));
    assert_eq!(recipe.vectors[0].chat, "/m/chat");
    assert_eq!(recipe.vectors[0].base, "s3://b/base");
    assert_eq!(recipe.output.url, inside("out"));
}

#[test]
fn a_file_and_flags_exclude_each_other() {
    let error = args(&["r.yaml", "--cp", "x"]).unwrap_err().to_string();
    assert!(
        error.contains("'[RECIPE]' cannot be used with '--cp <DIR>'"),
        "{error}"
    );
    assert!(args(&["r.yaml", "--overwrite"]).is_err());
}

#[test]
fn every_missing_flag_is_named() {
    let subjects = |text: &[&str]| {
        parse(text)
            .unwrap_err()
            .into_iter()
            .map(|problem| problem.subject)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        subjects(&["--cp", "a", "--lambda", "1"]),
        ["--chat", "--base", "--out"]
    );
    assert_eq!(subjects(&[]), ["recipe"]);
    assert_eq!(subjects(&["--overwrite"]), ["recipe"]);
}

#[test]
fn problems_name_the_flag() {
    let more = ["--dtype", "fp4", "--shard-size", "1"];
    let problems = parse(&[&FLAGS[..], &more].concat()).unwrap_err();
    let subjects: Vec<_> = problems
        .iter()
        .map(|problem| problem.subject.as_str())
        .collect();
    assert_eq!(subjects, ["--dtype", "--shard-size"]);
    let nan: Vec<_> = FLAGS
        .iter()
        .map(|text| if *text == "-0.5" { "nan" } else { *text })
        .collect();
    assert_eq!(parse(&nan).unwrap_err()[0].subject, "--lambda");
    let problem = Problem::new("cp: /m/cp", "no").with_hint("set `output.overwrite: true`");
    let named = in_flags(problem);
    assert_eq!(
        (named.subject.as_str(), named.hint.as_deref()),
        ("--cp: /m/cp", Some("set `--overwrite`"))
    );
    assert_eq!(in_flags(Problem::new("cpx", "no")).subject, "cpx");
}

#[test]
fn a_name_of_the_hub_gets_advice_and_all_missing_inputs_are_told() {
    let flags = [
        "--cp",
        "meta-llama/Llama-3",
        "--chat",
        "none",
        "--base",
        "/",
        "--lambda",
        "1",
        "--out",
        "o",
    ];
    let folder = tempfile::tempdir().unwrap();
    let given = args(&flags).unwrap().parse(folder.path()).unwrap();
    let storage = ObjectStorage::new(ObjectStorageOptions::from_variables([]));
    let Err(Failure::Problems { problems, .. }) = given.check_inputs_exist(&storage) else {
        panic!("they are missing")
    };
    assert!(problems[0].subject.starts_with("--cp: "));
    assert!(
        problems[0]
            .hint
            .as_deref()
            .unwrap()
            .contains("hf download meta-llama/Llama-3")
    );
    assert!(
        problems
            .iter()
            .any(|problem| problem.subject.starts_with("--chat: "))
    );
}

#[test]
fn a_recipe_that_cannot_be_read_is_named_as_written() {
    let problems = parse(&["none.yaml"]).unwrap_err();
    assert_eq!(problems[0].subject, "none.yaml");
    assert!(parse(&["/"]).unwrap_err()[0].hint.is_some());
}
