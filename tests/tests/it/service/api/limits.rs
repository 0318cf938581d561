//! Recipes that are too large.

use std::fmt::Write as _;
use std::fs;

use chatvec_proto::status::{Reason, problems_of};
use chatvec_proto::{CLIENT_MESSAGE_BYTES_MAX, RECIPE_BYTES_MAX, v1};
use tonic::Code;

use super::scene::Api;

/// A merge with so many bytes of rules.
fn with_rules(api: &Api, bytes: usize) -> v1::CreateJobRequest {
    let mut request = api.merge("out");
    let rule = v1::Rule {
        r#match: Some("model.layers.1.*".to_owned()),
        effect: Some(v1::rule::Effect::KeepCp(v1::KeepCp {})),
        ..v1::Rule::default()
    };
    let recipe = request.recipe.as_mut().expect("it has a recipe");
    recipe.rules = vec![rule; bytes / "model.layers.1.*".len()];
    request
}

#[test]
fn a_recipe_of_10_mb_is_refused_with_the_limit_and_without_a_job() {
    let api = Api::start(&[]);
    let refused = |bytes| {
        let request = with_rules(&api, bytes);
        let answer = api
            .runtime
            .block_on(async { api.client().create_job(request).await });
        answer.expect_err("it is too large")
    };
    let large = refused(10_000_000);
    assert_eq!(Reason::of(&large), Some(Reason::BadRequest), "{large:?}");
    let problems = problems_of(&large);
    assert_eq!(problems[0].subject, "recipe");
    let limit = format!("expected at most {RECIPE_BYTES_MAX} bytes, found ");
    assert!(problems[0].message.starts_with(&limit), "{problems:?}");

    // Beyond the largest message nothing is read.
    let huge = refused(CLIENT_MESSAGE_BYTES_MAX);
    assert_eq!(huge.code(), Code::OutOfRange, "{huge:?}");
    let limit = CLIENT_MESSAGE_BYTES_MAX.to_string();
    assert!(huge.message().contains(&limit), "{huge:?}");

    let jobs = api.postgres.query("SELECT count(*) FROM job");
    assert_eq!(jobs, "0");
}

#[test]
fn a_recipe_file_of_10_mb_is_refused_with_the_limit_before_any_call() {
    let scene = crate::service::scene::Scene::new();
    let mut text = "cp: cp\nvectors: [{ chat: chat, base: base, lambda: 1 }]\n\
                    output: { url: out }\nrules:\n"
        .to_owned();
    while text.len() < 10_000_000 {
        let _ = writeln!(text, "  - {{ match: \"model.layers.1.*\", keep: cp }}");
    }
    let recipe = scene.path("recipe.yaml");
    fs::write(&recipe, text).expect("written");
    let file = recipe.to_str().expect("plain text");
    for args in [
        &["merge", file][..],
        &["plan", file],
        &["submit", file, "--coordinator", "http://127.0.0.1:1"],
    ] {
        let refused = chatvec_tests::process::run(args).expect_code(2);
        let expected = format!("error: {file}: expected a recipe of at most 1 MiB, found more\n");
        assert!(refused.stderr.starts_with(&expected), "{refused:#?}");
        assert!(refused.stderr.contains("hint: "), "{refused:#?}");
    }
}
