//! The recipe as a whole: what is read, what is rejected and in which words,
//! and the canonical form.

mod canonical;
mod rejected;

use serde_json::json;

use super::*;
use crate::problem::Problem;

/// The least that a recipe can say.
const LEAST: &str = "
cp: s3://m/cp
vectors:
  - { chat: s3://m/chat, base: s3://m/base, lambda: 1.0 }
output: { url: s3://m/out }
";

/// Every field that is read, none at its default.
const MOST: &str = r#"
cp: /models/cp
vectors:
  - chat: /models/chat-1
    base: /models/base-1
    lambda: 0.5
  - chat: /models/chat-2
    base: /models/base-2
    lambda: 2
rules:
  - { kind: [lm_head, embed, lm_head], action: keep_cp }
  - { match: "model.layers.*.input_layernorm.weight", action: keep_cp }
  - { match: "*.mlp.*", lambda_scale: 0.5 }
  - { kind: norm, lambda_scale: 2 }
missing: keep_cp
nonfinite: allow
chat_template: cp
output:
  url: /models/out
  dtype: bf16
  shard_size: 4.5GB
  overwrite: true
"#;

fn parsed(text: &str) -> Parsed {
    Recipe::parse(text).unwrap_or_else(|problems| panic!("{text}\n{problems:#?}"))
}

/// [`LEAST`] with one line of it replaced, or with lines added.
fn least_with(from: &str, to: &str) -> String {
    assert!(LEAST.contains(from), "{from}");
    LEAST.replacen(from, to, 1)
}

/// Problems as the user sees them: `subject: message`, then the hint.
fn lines(problems: &[Problem]) -> Vec<String> {
    problems
        .iter()
        .map(|problem| match &problem.hint {
            Some(hint) => format!("{problem} (hint: {hint})"),
            None => problem.to_string(),
        })
        .collect()
}

#[test]
fn the_least_recipe_has_the_documented_defaults() {
    let Parsed { recipe, warnings } = parsed(LEAST);
    assert!(warnings.is_empty());
    assert_eq!(
        recipe,
        Recipe {
            cp: "s3://m/cp".to_owned(),
            vectors: vec![Vector {
                chat: "s3://m/chat".to_owned(),
                base: "s3://m/base".to_owned(),
                lambda: 1.0,
            }],
            rules: vec![],
            missing: Missing::Error,
            nonfinite: Nonfinite::Error,
            chat_template: None,
            output: Output {
                url: "s3://m/out".to_owned(),
                dtype: OutputDtype::Same,
                shard_size_bytes: 5_000_000_000,
                overwrite: false,
            },
        }
    );
}

#[test]
fn every_field_is_read() {
    let Parsed { recipe, warnings } = parsed(MOST);
    assert!(warnings.is_empty());
    assert_eq!(recipe.vectors[1].lambda, 2.0);
    assert_eq!(recipe.vectors[1].base, "/models/base-2");
    assert_eq!(
        recipe.rules[0].select,
        Selector::Kinds(vec![Kind::Embed, Kind::LmHead])
    );
    assert_eq!(recipe.rules[2].action, Action::LambdaScale(0.5));
    assert_eq!(recipe.missing, Missing::KeepCp);
    assert_eq!(recipe.nonfinite, Nonfinite::Allow);
    assert_eq!(recipe.chat_template, Some(ChatTemplate::Cp));
    assert_eq!(recipe.output.dtype, OutputDtype::Bf16);
    assert_eq!(recipe.output.shard_size_bytes, 4_500_000_000);
    assert!(recipe.output.overwrite);
}

#[test]
fn every_name_of_a_value_is_read_as_that_value() {
    for (name, value) in Missing::NAMES {
        let recipe = parsed(&format!("{LEAST}missing: {name}\n")).recipe;
        assert_eq!(recipe.missing, *value);
    }
    for (name, value) in Nonfinite::NAMES {
        let recipe = parsed(&format!("{LEAST}nonfinite: {name}\n")).recipe;
        assert_eq!(recipe.nonfinite, *value);
    }
    for (name, value) in ChatTemplate::NAMES {
        let recipe = parsed(&format!("{LEAST}chat_template: {name}\n")).recipe;
        assert_eq!(recipe.chat_template, Some(*value));
    }
    for (name, value) in OutputDtype::NAMES {
        let text = least_with("s3://m/out", &format!("s3://m/out, dtype: {name}"));
        assert_eq!(parsed(&text).recipe.output.dtype, *value);
    }
    for (name, value) in Kind::NAMES {
        let text = format!("{LEAST}rules: [{{ kind: {name}, action: keep_cp }}]\n");
        let rule = &parsed(&text).recipe.rules[0];
        assert_eq!(rule.select, Selector::Kinds(vec![*value]));
    }
}

#[test]
fn the_first_rule_that_matches_decides() {
    let recipe = parsed(MOST).recipe;
    let norm = "model.layers.3.input_layernorm.weight";
    assert_eq!(recipe.decide(norm), Some((1, &Action::KeepCp)));
    let other_norm = "model.norm.weight";
    assert_eq!(
        recipe.decide(other_norm),
        Some((3, &Action::LambdaScale(2.0)))
    );
    let mlp = "model.layers.3.mlp.up_proj.weight";
    assert_eq!(recipe.decide(mlp), Some((2, &Action::LambdaScale(0.5))));
    assert_eq!(recipe.decide("lm_head.weight"), Some((0, &Action::KeepCp)));
    assert_eq!(
        recipe.decide("model.layers.3.self_attn.q_proj.weight"),
        None
    );
}

#[test]
fn json_is_read_like_yaml_with_tabs_and_escapes_too() {
    let json = "{\n\t\"cp\": \"/models/\\ud83d\\ude00\\/é\",\n\t\"vectors\": [{\t\"chat\": \"a\", \
                \"base\": \"b\", \"lambda\": 5E-1 }],\n\t\"output\": {\"url\": \"o\"}\n}";
    let yaml = "cp: /models/😀/é\nvectors:\n- chat: a\n  base: b\n  lambda: 0.5\noutput:\n  url: o";
    assert_eq!(parsed(json), parsed(yaml));
    let value: serde_json::Value = serde_json::from_str(json).unwrap();
    assert_eq!(Recipe::from_value(&value), Ok(parsed(yaml)));
}

#[test]
fn anchors_and_merge_keys_are_expanded() {
    let text = "
cp: a
vectors:
  - &first { chat: b, base: &base c, lambda: 0.5 }
  - { <<: *first, chat: d }
output: { url: o }
";
    let vectors = parsed(text).recipe.vectors;
    assert_eq!(vectors[1].chat, "d");
    assert_eq!(vectors[1].base, "c");
    assert_eq!(vectors[1].lambda, 0.5);
}

#[test]
fn odd_but_allowed_values_are_warned_of() {
    let text = "
cp: a
vectors:
  - { chat: b, base: c, lambda: -1 }
  - { chat: d/, base: d, lambda: -0.0 }
rules:
  - { match: '*', lambda_scale: 0 }
  - { kind: mlp, lambda_scale: -2 }
output: { url: o }
";
    let Parsed { recipe, warnings } = parsed(text);
    assert_eq!(
        lines(&warnings),
        [
            "vectors[0].lambda: is negative: the vector is subtracted",
            "vectors[1].lambda: is zero: the vector is not read and adds nothing",
            "vectors[1]: `chat` and `base` are the same: the vector is zero",
            "rules[0].lambda_scale: is zero: these tensors stay as they are in cp",
            "rules[1].lambda_scale: is negative: it turns every vector's sign",
        ]
    );
    assert!(recipe.vectors[1].lambda.is_sign_positive());
}

#[test]
fn urls_are_mapped_one_and_all() {
    let recipe = parsed(MOST).recipe.map_urls(|url| format!("/root{url}"));
    let mut expected = parsed(MOST).recipe;
    expected.cp = "/root/models/cp".to_owned();
    expected.vectors[0].chat = "/root/models/chat-1".to_owned();
    expected.vectors[0].base = "/root/models/base-1".to_owned();
    expected.vectors[1].chat = "/root/models/chat-2".to_owned();
    expected.vectors[1].base = "/root/models/base-2".to_owned();
    expected.output.url = "/root/models/out".to_owned();
    assert_eq!(recipe, expected);
}

#[test]
fn a_value_needs_no_yaml() {
    let value = json!({
        "cp": "s3://m/cp",
        "vectors": [{ "chat": "s3://m/chat", "base": "s3://m/base", "lambda": 1 }],
        "output": { "url": "s3://m/out", "shard_size": 5_000_000_000_u64 },
    });
    assert_eq!(Recipe::from_value(&value), Ok(parsed(LEAST)));
}

/// The recipes of the user's page, which stand there as YAML blocks.
#[test]
fn every_example_of_the_users_page_is_a_recipe() {
    let page = include_str!("../../../../docs/recipes.md");
    let examples: Vec<&str> = page
        .split("```yaml\n")
        .skip(1)
        .map(|rest| rest.split_once("```").expect("a block ends").0)
        .filter(|block| block.contains("cp:"))
        .collect();
    assert!(examples.len() >= 5, "found {}", examples.len());
    for example in examples {
        assert!(parsed(example).warnings.is_empty(), "{example}");
    }
}
