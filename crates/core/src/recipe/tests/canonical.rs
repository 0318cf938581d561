//! The canonical form, its texts and its digest.

use proptest::prelude::*;

use super::*;

#[test]
fn the_canonical_text_is_stable() {
    assert_eq!(
        parsed(LEAST).recipe.canonical_json(),
        r#"{"cp":"s3://m/cp","vectors":[{"chat":"s3://m/chat","base":"s3://m/base","lambda":1.0}],"rules":[],"missing":"error","nonfinite":"error","output":{"url":"s3://m/out","dtype":"same","shard_size":5000000000,"overwrite":false}}"#
    );
    assert_eq!(
        parsed(MOST).recipe.canonical_json(),
        r#"{"cp":"/models/cp","vectors":[{"chat":"/models/chat-1","base":"/models/base-1","lambda":0.5},{"chat":"/models/chat-2","base":"/models/base-2","lambda":2.0}],"rules":[{"kind":["embed","lm_head"],"action":"keep_cp"},{"match":"model.layers.*.input_layernorm.weight","action":"keep_cp"},{"match":"*.mlp.*","lambda_scale":0.5},{"kind":["norm"],"lambda_scale":2.0}],"missing":"keep_cp","nonfinite":"allow","chat_template":"cp","output":{"url":"/models/out","dtype":"bf16","shard_size":4500000000,"overwrite":true}}"#
    );
}

/// Jobs are found again by their recipe's digest, so it must not change between
/// versions. The second recipe has a λ whose text depends on the number writer.
#[test]
fn the_digest_is_stable() {
    assert_eq!(
        parsed(LEAST).recipe.digest().as_str(),
        "827d832c4b2e48613e66856f46ea387afe70df9b2d2d36098d7413da4e8dfb4a"
    );
    let tiny = least_with("lambda: 1.0", "lambda: 1e-7");
    assert_eq!(
        parsed(&tiny).recipe.digest().as_str(),
        "3636aa35cbe17e359d82eaff972e9bedc6b755b7eae82f486cc92d41084c9a9e"
    );
}

#[test]
fn recipes_that_mean_the_same_have_one_digest_and_others_do_not() {
    let digest = |text: &str| parsed(text).recipe.digest();
    let spelled_out = format!("{LEAST}missing: error\nrules: []\n");
    assert_eq!(digest(LEAST), digest(&spelled_out));
    assert_eq!(digest(LEAST), digest(&least_with("1.0", "1")));
    assert_eq!(
        digest(&least_with("1.0", "0.0")),
        digest(&least_with("1.0", "-0.0"))
    );
    let five = least_with("s3://m/out", "s3://m/out, shard_size: 5000MB");
    assert_eq!(digest(LEAST), digest(&five));
    assert_ne!(
        digest(LEAST),
        digest(&least_with("1.0", "1.0000000000000002"))
    );
    assert_ne!(
        digest(LEAST),
        digest(&format!("{LEAST}chat_template: chat\n"))
    );
    assert_ne!(digest(LEAST), digest(&format!("{LEAST}nonfinite: allow\n")));
}

#[test]
fn the_yaml_is_readable() {
    insta::assert_snapshot!(parsed(MOST).recipe.to_yaml(), @r#"
    cp: /models/cp
    vectors:
    - chat: /models/chat-1
      base: /models/base-1
      lambda: 0.5
    - chat: /models/chat-2
      base: /models/base-2
      lambda: 2.0
    rules:
    - kind: [embed, lm_head]
      action: keep_cp
    - match: model.layers.*.input_layernorm.weight
      action: keep_cp
    - match: "*.mlp.*"
      lambda_scale: 0.5
    - kind: [norm]
      lambda_scale: 2.0
    missing: keep_cp
    nonfinite: allow
    chat_template: cp
    output:
      url: /models/out
      dtype: bf16
      shard_size: 4500MB
      overwrite: true
    "#);
}

/// Text that YAML could take for something else, and any other.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        proptest::sample::select(vec![
            "null",
            "~",
            "true",
            "no",
            "1.0",
            "0x10",
            "010",
            "1_000",
            ".nan",
            "- a",
            "a: b",
            "a #b",
            "*a",
            "&a",
            "!a",
            "{a}",
            "[a]",
            "'a",
            "\"a\"",
            "|",
            ">",
            "%a",
            "@a",
            "2020-01-01",
            "<<",
            "=",
            "---",
            "...",
            "?",
            ":",
            "-",
            "😀",
            "a\\nb",
            "1e5",
            "+1",
            "{{x}}",
        ])
        .prop_map(str::to_owned),
        "[^\\p{C}\\s]([^\\p{C}]{0,80}[^\\p{C}\\s])?",
    ]
}

fn glob() -> impl Strategy<Value = Selector> {
    "[a-z0-9_.*:#&!' -]{0,8}[a-z.*]".prop_filter_map("white space at its beginning", |text| {
        let trimmed = text.trim() == text;
        trimmed.then(|| Selector::Match(Glob::new(&text).expect("no foreign characters")))
    })
}

fn selector() -> impl Strategy<Value = Selector> {
    let kinds: Vec<Kind> = Kind::NAMES.iter().map(|(_, kind)| *kind).collect();
    let count = kinds.len();
    prop_oneof![
        glob(),
        proptest::sample::subsequence(kinds, 1..=count).prop_map(|mut kinds| {
            kinds.sort_unstable();
            Selector::Kinds(kinds)
        }),
    ]
}

/// Small enough that no product of two is infinite.
fn number() -> impl Strategy<Value = f64> {
    use proptest::num::f64::{NEGATIVE, NORMAL, POSITIVE, SUBNORMAL, ZERO};
    (POSITIVE | NEGATIVE | NORMAL | SUBNORMAL | ZERO)
        .prop_map(|x| if x.abs() > 1e150 { x * 1e-200 } else { x } + 0.0)
}

fn one_of<T: Copy + std::fmt::Debug + 'static>(
    names: &'static [(&'static str, T)],
) -> impl Strategy<Value = T> {
    proptest::sample::select(names).prop_map(|(_, value)| value)
}

prop_compose! {
    fn vector()(chat in text(), base in text(), lambda in number()) -> Vector {
        Vector { chat, base, lambda }
    }
}

prop_compose! {
    fn rule()(
        select in selector(),
        action in prop_oneof![
            Just(Action::KeepCp),
            number().prop_map(Action::LambdaScale),
        ],
    ) -> Rule {
        Rule { select, action }
    }
}

prop_compose! {
    fn recipe()(
        cp in text(),
        vectors in proptest::collection::vec(vector(), 1..4),
        rules in proptest::collection::vec(rule(), 0..4),
        missing in one_of(Missing::NAMES),
        nonfinite in one_of(Nonfinite::NAMES),
        chat_template in proptest::option::of(one_of(ChatTemplate::NAMES)),
        url in text(),
        dtype in one_of(OutputDtype::NAMES),
        shard_size_bytes in 1_000..=(1_u64 << 53),
        overwrite: bool,
    ) -> Recipe {
        // A place of its own.
        let url = format!("out of {url}");
        let output = Output { url, dtype, shard_size_bytes, overwrite };
        Recipe { cp, vectors, rules, missing, nonfinite, chat_template, output }
    }
}

/// Values built from the names that recipes use, right or wrong.
fn value() -> impl Strategy<Value = serde_json::Value> {
    let names = proptest::sample::select(vec![
        "cp",
        "vectors",
        "output",
        "rules",
        "missing",
        "chat",
        "base",
        "lambda",
        "vector",
        "url",
        "match",
        "kind",
        "action",
        "lambda_scale",
        "layers",
        "filter",
        "uri",
        "alpha",
        "x",
    ]);
    let leaf = prop_oneof![
        Just(json!(null)),
        Just(json!(0.5)),
        Just(json!("a")),
        Just(json!("keep_cp")),
    ];
    leaf.prop_recursive(4, 40, 8, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(serde_json::Value::from),
            proptest::collection::btree_map(names.clone().prop_map(str::to_owned), inner, 0..8)
                .prop_map(|fields| json!(fields)),
        ]
    })
}

proptest! {
    #[test]
    fn the_canonical_value_gives_the_same_recipe(recipe in recipe()) {
        let again = Recipe::from_value(&recipe.to_value()).map(|parsed| parsed.recipe);
        prop_assert_eq!(again.as_ref(), Ok(&recipe));
        prop_assert_eq!(again.expect("just compared").digest(), recipe.digest());
    }

    /// Fails where the JSON reader rounds numbers carelessly.
    #[test]
    fn the_canonical_text_gives_the_same_recipe_by_either_reader(recipe in recipe()) {
        let json = recipe.canonical_json();
        let by_yaml = Recipe::parse(&json).map(|parsed| parsed.recipe);
        prop_assert_eq!(by_yaml.as_ref(), Ok(&recipe));
        let value: serde_json::Value = serde_json::from_str(&json).expect("it is JSON");
        let by_json = Recipe::from_value(&value).map(|parsed| parsed.recipe);
        prop_assert_eq!(by_json.as_ref(), Ok(&recipe));
    }

    #[test]
    fn the_yaml_gives_the_same_recipe(recipe in recipe()) {
        let yaml = recipe.to_yaml();
        let again = Recipe::parse(&yaml).map(|parsed| parsed.recipe);
        prop_assert_eq!(again.as_ref(), Ok(&recipe), "{}", yaml);
    }

    /// The walk never gives up without saying why.
    #[test]
    fn any_value_is_a_recipe_or_has_problems(value in value()) {
        if let Err(problems) = Recipe::from_value(&value) {
            prop_assert!(!problems.is_empty(), "{}", value);
        }
    }

    #[test]
    fn any_text_is_a_recipe_or_has_problems(text in ".{0,60}|[a-z:{}\\[\\],*&!|>' \n\t-]{0,60}") {
        if let Err(problems) = Recipe::parse(&text) {
            prop_assert!(!problems.is_empty());
        }
    }
}
