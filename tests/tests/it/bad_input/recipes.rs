//! Recipes and flags that cannot work, as the command tells of them.

use chatvec_tests::process;

use super::scene::{Scene, contents};

/// A whole recipe; each test breaks a line of it.
const RECIPE: &str =
    "cp: cp\nvectors:\n  - { chat: chat, base: base, lambda: 1.0 }\noutput: { url: out }\n";

#[track_caller]
fn refusal_of(recipe: &str) -> String {
    Scene::new().recipe_refusal(recipe)
}

#[test]
fn the_recipe_that_these_tests_break_is_whole() {
    let scene = Scene::new();
    assert_eq!(scene.accepted(&scene.merge_recipe(RECIPE)), "");
}

#[test]
fn an_unknown_field_gets_the_nearest_name() {
    let said = refusal_of(&RECIPE.replace("lambda", "lamda"));
    assert_eq!(
        said,
        "error: vectors[0].lamda: unknown field `lamda`\n  hint: did you mean `lambda`?\n"
    );
}

#[test]
fn several_problems_are_told_at_once_each_with_its_place() {
    let recipe = "cp: [1]\nvectors:\n  - { chat: chat, base: 5, lambda: big }\nmising: error\noutput: { dtype: fp4 }\n";
    let expected = "error: cp: expected a path or URL, found a list\n\
                    error: vectors[0].base: expected a path or URL, found the number `5`\n  \
                    hint: put it in quotes if it is a name\n\
                    error: vectors[0].lambda: expected a number such as `1.0`, found the text `big`\n\
                    error: mising: unknown field `mising`\n  \
                    hint: did you mean `missing`?\n\
                    error: output.dtype: expected `same`, `bf16`, `f16` or `f32`, found the text `fp4`\n\
                    error: output.url: this field is missing\n  \
                    hint: where to write, as in `url: /models/out`\n";
    let said = refusal_of(recipe);
    let sorted = |text: &str| {
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&said), sorted(expected), "{said}");
}

#[test]
fn what_is_to_come_is_told_as_not_supported_yet() {
    for (line, place) in [
        ("sweep: [0.5, 1.0]", "sweep"),
        ("rename: {}", "rename"),
        ("missing: copy_chat", "missing"),
        (
            "rules: [{ layers: [0, 4], action: keep_cp }]",
            "rules[0].layers",
        ),
    ] {
        let said = refusal_of(&format!("{RECIPE}{line}\n"));
        assert!(said.starts_with(&format!("error: {place}: ")), "{said}");
        assert!(said.contains("not supported yet"), "{said}");
    }
    let said = refusal_of(&RECIPE.replace("1.0", "[0.5, 1.0]"));
    assert!(
        said.starts_with("error: vectors[0].lambda: a list of lambdas is not supported yet\n"),
        "{said}"
    );
}

#[test]
fn a_text_that_is_no_recipe_is_refused() {
    for (text, expected) in [
        ("", "error: recipe: "),
        ("# nothing\n", "error: recipe: "),
        ("just words\n", "error: recipe: "),
        ("- a\n- b\n", "error: recipe: "),
        ("cp: [\n", "error: recipe: "),
        ("cp: cp\ncp: cp\n", "error: "),
        ("{ \"cp\": ", "error: recipe: "),
    ] {
        let said = refusal_of(text);
        assert!(said.starts_with(expected), "{text:?}: {said}");
    }
}

/// Runs a merge of a recipe file that is refused without a trace.
#[track_caller]
fn refusal_of_file(scene: &Scene, name: &str) -> String {
    let before = contents(&scene.path(""));
    let outcome = process::run(["merge", &scene.path(name).display().to_string()]).expect_code(2);
    assert_eq!(contents(&scene.path("")), before);
    scene.said(&outcome)
}

#[test]
fn a_recipe_file_that_cannot_be_read_is_named() {
    let scene = Scene::new();
    assert_eq!(
        refusal_of_file(&scene, "none.yaml"),
        "error: none.yaml: the recipe cannot be read: No such file or directory (os error 2)\n"
    );
    assert_eq!(
        refusal_of_file(&scene, "cp"),
        "error: cp: the recipe cannot be read: Is a directory (os error 21)\n  hint: give the recipe's file, not a folder\n"
    );
    scene.write("recipe.yaml", b"\x7fELF\x02\xff\xfe\0\0");
    assert_eq!(
        refusal_of_file(&scene, "recipe.yaml"),
        "error: recipe.yaml: the recipe cannot be read: stream did not contain valid UTF-8\n"
    );
    scene.write("recipe.yaml", b"\0\x01\x02\x03");
    let said = refusal_of_file(&scene, "recipe.yaml");
    assert!(said.starts_with("error: recipe: "), "{said}");
}

#[test]
fn a_checkpoint_given_as_the_recipe_is_not_read_whole() {
    let scene = Scene::new();
    let weights = std::fs::File::create(scene.path("model.safetensors")).unwrap();
    weights.set_len(1 << 40).unwrap();
    let outcome = process::run([
        "merge",
        &scene.path("model.safetensors").display().to_string(),
    ])
    .expect_code(2);
    let said = scene.said(&outcome);
    assert!(
        said.starts_with("error: model.safetensors: expected a recipe of at most "),
        "{said}"
    );
}

/// Runs a merge with these arguments, which are refused, in a scene's folder.
#[track_caller]
fn refusal_of_flags(args: &[&str]) -> String {
    let scene = Scene::new();
    let before = contents(&scene.path(""));
    let mut command = process::command(["merge"].iter().chain(args));
    command.current_dir(scene.path(""));
    let outcome = process::Process::start(command).wait().expect_code(2);
    assert_eq!(outcome.stdout, "");
    assert_eq!(contents(&scene.path("")), before, "nothing changed");
    scene.said(&outcome)
}

const FLAGS: [&str; 10] = [
    "--cp", "cp", "--chat", "chat", "--base", "base", "--lambda", "1", "--out", "out",
];

/// The flags with the value of one of them replaced.
fn with<'a>(flag: &str, value: &'a str) -> Vec<&'a str> {
    let mut flags: Vec<&str> = FLAGS.to_vec();
    let at = flags
        .iter()
        .position(|one| *one == flag)
        .expect("one of the flags");
    flags[at + 1] = value;
    flags
}

#[test]
fn a_file_and_flags_together_are_refused() {
    let said = refusal_of_flags(&["recipe.yaml", "--cp", "cp"]);
    assert!(
        said.starts_with("error: the argument '[RECIPE]' cannot be used with '--cp <DIR>'\n"),
        "{said}"
    );
}

#[test]
fn an_unknown_flag_gets_the_nearest_name() {
    let said = refusal_of_flags(&[&FLAGS[..], &["--overwrit"]].concat());
    assert!(
        said.starts_with("error: unexpected argument '--overwrit' found\n"),
        "{said}"
    );
    assert!(
        said.contains("a similar argument exists: '--overwrite'"),
        "{said}"
    );
}

#[test]
fn flags_that_are_missing_are_told_at_once() {
    let missing = "missing: a merge without a recipe file needs it";
    assert_eq!(
        refusal_of_flags(&["--cp", "cp", "--chat", "chat"]),
        format!("error: --base: {missing}\nerror: --lambda: {missing}\nerror: --out: {missing}\n")
    );
    assert_eq!(
        refusal_of_flags(&[]),
        "error: recipe: expected a recipe file or flags, found neither\n  \
         hint: give RECIPE.yaml, or all of --cp, --chat, --base, --lambda and --out\n"
    );
}

#[test]
fn a_lambda_must_be_a_finite_number() {
    for text in ["big", "0,5", "1.0x", ""] {
        let said = refusal_of_flags(&with("--lambda", text));
        assert!(
            said.starts_with(&format!(
                "error: invalid value '{text}' for '--lambda <NUMBER>'"
            )),
            "{said}"
        );
    }
    for text in ["nan", "inf", "-1e999"] {
        let said = refusal_of_flags(&with("--lambda", text));
        assert!(
            said.starts_with("error: --lambda: expected a finite number"),
            "{said}"
        );
    }
}

#[test]
fn other_values_of_flags_are_told_with_what_is_expected() {
    for (flag, value, expected) in [
        (
            "--dtype",
            "fp4",
            "error: --dtype: expected `same`, `bf16`, `f16` or `f32`, found the text `fp4`\n",
        ),
        ("--shard-size", "0", "error: --shard-size: "),
        ("--shard-size", "5 parsecs", "error: --shard-size: "),
        (
            "--part-size",
            "5000",
            "error: invalid value '5000' for '--part-size <SIZE>'",
        ),
        (
            "--workers",
            "0",
            "error: invalid value '0' for '--workers <N>'",
        ),
    ] {
        let said = refusal_of_flags(&[&FLAGS[..], &[flag, value]].concat());
        assert!(said.starts_with(expected), "{said}");
    }
    let said = refusal_of_flags(&with("--cp", ""));
    assert!(
        said.starts_with("error: --cp: expected a path or URL, found an empty text\n"),
        "{said}"
    );
}
