//! Output folders that hold something, are an input, or cannot be written.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use chatvec_tests::process::{self, Outcome, Process};

use super::scene::{Scene, contents, model, safetensors};

/// A user that owns nothing.
const NOBODY: u32 = 65_534;

#[test]
fn an_output_folder_that_holds_something_is_refused_with_the_way_to_replace_it() {
    let scene = Scene::new();
    scene.write("out/notes.txt", b"mine");
    let expected = "error: --out: expected an empty folder, `out` holds `notes.txt`\n  \
                    hint: choose another folder, or set `--overwrite` to replace what is there\n";
    assert_eq!(scene.refusal(), expected);

    for name in ["a", "b", "c/d"] {
        scene.write(&format!("out/{name}"), b"");
    }
    let recipe = "cp: cp\nvectors: [{ chat: chat, base: base, lambda: 1 }]\noutput: { url: out }\n";
    let expected = "error: output.url: expected an empty folder, `out` holds `a`, `b`, `c` and 1 more\n  \
                    hint: choose another folder, or set `output.overwrite: true` to replace what is there\n";
    assert_eq!(scene.recipe_refusal(recipe), expected);
}

#[test]
fn overwriting_leaves_nothing_that_a_loader_would_take_for_the_new_checkpoint() {
    let scene = Scene::new();
    scene.accepted(&scene.merge_into("fresh", &[]));
    for stale in [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
        "pytorch_model.bin",
        "adapter_config.json",
    ] {
        scene.write(&format!("out/{stale}"), b"stale");
    }
    scene.write("out/notes.txt", b"mine");
    scene.accepted(&scene.merge(&["--overwrite"]));
    let found = contents(&scene.path("out")).expect("it was published");
    let fresh = contents(&scene.path("fresh")).expect("it was published");
    let names = |of: &std::collections::BTreeMap<std::path::PathBuf, _>| {
        of.keys().cloned().collect::<Vec<_>>()
    };
    let mut expected = names(&fresh);
    expected.push("notes.txt".into());
    expected.sort();
    assert_eq!(names(&found), expected);
    let weights = std::path::Path::new("model.safetensors");
    assert_eq!(found[weights], fresh[weights]);
}

#[test]
fn an_old_checkpoint_stays_untouched_when_the_new_merge_cannot_be_planned() {
    let scene = Scene::new();
    scene.accepted(&scene.merge(&[]));
    scene.write("chat/model.safetensors", &safetensors(&model(0.75)[..1]));
    let before = contents(&scene.path("out"));
    let outcome = scene.merge(&["--overwrite"]);
    assert!(
        scene
            .refused(&outcome, &before)
            .contains("cp has this tensor, `vectors[0].chat` does not")
    );
}

#[test]
fn a_folder_with_nothing_but_a_state_folder_counts_as_empty() {
    let scene = Scene::new();
    fs::create_dir_all(scene.path("out/.chatvec")).unwrap();
    assert_eq!(scene.accepted(&scene.merge(&[])), "");
    assert!(!scene.path("out/.chatvec").exists());
}

#[test]
fn the_same_merge_again_says_that_it_is_done_and_changes_nothing() {
    let scene = Scene::new();
    scene.accepted(&scene.merge(&[]));
    let before = contents(&scene.path("out"));
    let outcome = scene.merge(&[]).expect_code(0);
    assert!(outcome.stdout.contains("already"), "{outcome:#?}");
    assert_eq!(contents(&scene.path("out")), before);
}

#[test]
fn a_file_in_the_place_of_the_output_folder_is_refused() {
    let scene = Scene::new();
    scene.write("out", b"mine");
    let said = scene.refusal();
    assert!(
        said.starts_with("error: --out: expected a folder at `out`"),
        "{said}"
    );

    let scene = Scene::new();
    scene.write("file", b"mine");
    let outcome = scene.merge_into("file/out", &[]);
    let said = scene.refused(&outcome, &None);
    assert!(
        said.starts_with("error: --out: expected a folder at `file/out`"),
        "{said}"
    );
    assert_eq!(fs::read(scene.path("file")).unwrap(), b"mine");
}

#[test]
fn an_output_that_is_a_link_to_nowhere_is_refused() {
    let scene = Scene::new();
    symlink("nowhere", scene.path("out")).unwrap();
    let outcome = scene.merge(&[]);
    let said = scene.refused(&outcome, &None);
    assert!(said.starts_with("error: --out: "), "{said}");
    assert!(!scene.path("nowhere").exists());
}

#[test]
fn an_output_that_is_an_input_as_written_is_refused() {
    let scene = Scene::new();
    for (out, input) in [("cp", "cp"), ("base/", "vectors[0].base")] {
        let before = contents(&scene.path(""));
        let said = scene.refused(&scene.merge_into(out, &["--overwrite"]), &None);
        let expected =
            format!("error: --out: expected a place of its own, found that of `{input}`\n");
        assert_eq!(said, expected);
        assert_eq!(contents(&scene.path("")), before, "nothing changed");
    }
}

#[test]
fn an_output_inside_or_around_an_input_is_refused() {
    let scene = Scene::new();
    fs::create_dir_all(scene.path("x")).unwrap();
    for (out, relation, input) in [
        ("chat/merged", "lies inside", "chat"),
        ("", "lies around", "cp"),
        ("x/../cp", "is", "cp"),
    ] {
        let before = contents(&scene.path(""));
        let outcome = scene.merge_into(out, &["--overwrite"]).expect_code(2);
        let said = outcome.stderr;
        assert!(said.starts_with("error: --out: `"), "{said}");
        let relation = format!("` {relation} the input `{}`\n", scene.path(input).display());
        assert!(said.contains(&relation), "{said}");
        assert!(
            said.ends_with("\n  hint: give a folder apart from every input\n"),
            "{said}"
        );
        assert_eq!(contents(&scene.path("")), before, "nothing changed");
    }
}

#[test]
fn an_output_that_is_an_input_by_another_name_is_refused() {
    let scene = Scene::new();
    symlink("cp", scene.path("out")).unwrap();
    let before = contents(&scene.path("out"));
    let said = scene.refused(&scene.merge(&["--overwrite"]), &before);
    assert!(said.contains("` is the input `"), "{said}");

    fs::remove_file(scene.path("out")).unwrap();
    symlink("chat", scene.path("link")).unwrap();
    let said = scene.refused(&scene.merge_into("link/out", &[]), &None);
    assert!(said.contains("` lies inside the input `"), "{said}");
    assert!(!scene.path("chat/out").exists());
}

/// Runs a merge as a user who owns nothing, or as oneself if that is no
/// superuser, whom no permission stops.
fn merge_as_nobody(scene: &Scene) -> Outcome {
    let open = |mode| fs::Permissions::from_mode(mode);
    fs::set_permissions(scene.path(""), open(0o755)).expect("one's own folder");
    // The program may lie where nobody else can reach it.
    let program = scene.path("chatvec");
    fs::copy(process::chatvec(), &program).expect("the program can be copied");
    let mut command = Command::new(program);
    command.current_dir(scene.path(""));
    command.args([
        "merge", "--cp", "cp", "--chat", "chat", "--base", "base", "--lambda", "1", "--out", "out",
    ]);
    if rustix::process::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    Process::start(command).wait()
}

#[test]
fn an_output_that_may_not_be_written_is_refused_before_anything_is_read() {
    let scene = Scene::new();
    fs::create_dir(scene.path("out")).unwrap();
    fs::set_permissions(scene.path("out"), fs::Permissions::from_mode(0o555)).unwrap();
    let before = contents(&scene.path("out"));
    let said = scene.refused(&merge_as_nobody(&scene), &before);
    let expected = "error: --out: cannot write to `out`: Permission denied (os error 13)\n  \
                    hint: check the path and its permissions\n";
    assert_eq!(said, expected);
}

#[test]
fn an_output_on_a_filesystem_that_takes_no_folders_is_refused() {
    let scene = Scene::new();
    let outcome = scene.merge_into("../../../../../../../../sys/chatvec-out", &[]);
    let said = scene.refused(&outcome, &None);
    assert!(
        said.starts_with("error: --out: cannot write to `/sys/chatvec-out`: "),
        "{said}"
    );
    assert!(
        said.ends_with("\n  hint: check the path and its permissions\n"),
        "{said}"
    );
}

#[test]
fn an_input_that_may_not_be_read_is_named() {
    let scene = Scene::new();
    let weights = scene.path("chat/model.safetensors");
    fs::set_permissions(&weights, fs::Permissions::from_mode(0o000)).unwrap();
    let said = scene.refused(&merge_as_nobody(&scene), &None);
    let expected = "error: --chat: chat/model.safetensors: permission denied\n  \
                    hint: let this user read it, or run as one who may\n";
    assert_eq!(said, expected);
}
