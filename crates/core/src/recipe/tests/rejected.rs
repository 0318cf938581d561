//! What is wrong with a recipe, in the exact words.

use super::*;

/// All problems of a recipe that must have some.
fn problems(text: &str) -> Vec<String> {
    match Recipe::parse(text) {
        Ok(_) => panic!("this should be rejected:\n{text}"),
        Err(problems) => lines(&problems),
    }
}

/// The one problem of [`LEAST`] after a replacement.
#[track_caller]
fn one(from: &str, to: &str, expected: &str) {
    let text = least_with(from, to);
    assert_eq!(problems(&text), [expected], "{text}");
}

/// The one problem of [`LEAST`] with this line added.
#[track_caller]
fn added(line: &str, expected: &str) {
    one("\ncp:", &format!("\n{line}\ncp:"), expected);
}

const VECTOR: &str = "{ chat: s3://m/chat, base: s3://m/base, lambda: 1.0 }";
const OUT: &str = "s3://m/out";

#[test]
fn a_bad_lambda_is_named_with_what_was_found() {
    let at = "vectors[0].lambda";
    for (found, expected) in [
        (
            "big",
            "expected a number such as `1.0`, found the text `big`",
        ),
        ("~", "expected a number such as `1.0`, found nothing"),
        ("true", "expected a number such as `1.0`, found `true`"),
        (
            "{ a: b }",
            "expected a number such as `1.0`, found a mapping",
        ),
        (
            "010",
            "expected a number such as `1.0`, found the text `010` (hint: write it plainly: no quotes, no leading zeros)",
        ),
        (
            "1_0",
            "expected a number such as `1.0`, found the text `1_0`",
        ),
        (".nan", "expected a finite number, found `NaN`"),
        ("-.inf", "expected a finite number, found `-inf`"),
        ("1e999", "expected a finite number, found `inf`"),
        (
            "'0.5'",
            "expected a number such as `1.0`, found the text `0.5` (hint: write it plainly: no quotes, no leading zeros)",
        ),
        (
            "[0.5, 1.0]",
            "a list of lambdas is not supported yet (hint: write one number, as in `lambda: 1.0`)",
        ),
    ] {
        one("1.0", found, &format!("{at}: {expected}"));
    }
    one(
        ", lambda: 1.0",
        "",
        "vectors[0].lambda: this field is missing (hint: as in `lambda: 1.0`)",
    );
}

#[test]
fn a_lambda_that_json_cannot_hold_is_rejected_as_null() {
    let mut value = parsed(LEAST).recipe.to_value();
    value["vectors"][0]["lambda"] = json!(f64::NAN);
    let problems = Recipe::from_value(&value).unwrap_err();
    assert_eq!(
        lines(&problems),
        ["vectors[0].lambda: expected a number such as `1.0`, found nothing"]
    );
}

#[test]
fn a_bad_vector_or_list_of_vectors_is_named() {
    one(
        VECTOR,
        "s3://m/chat",
        "vectors[0]: expected a mapping, found the text `s3://m/chat`",
    );
    one(
        "  - {",
        "  {",
        "vectors: expected a list, found a mapping (hint: begin each entry with `- `)",
    );
    let all = format!("\n  - {VECTOR}");
    one(
        &all,
        " []",
        "vectors: expected at least one vector, found none",
    );
    one(&all, "", "vectors: expected a list, found nothing");
    one(
        "chat: s3://m/chat, base: s3://m/base",
        "vector: s3://m/stored",
        "vectors[0].vector: field `vector` is not supported yet",
    );
}

#[test]
fn a_bad_url_is_named_with_what_was_found() {
    for (found, expected) in [
        ("''", "an empty text"),
        ("' x'", "white space at an end of ` x`"),
        ("\"x\\n\"", "white space at an end of `x\\n`"),
        ("\"x\\0y\"", "a control character in `x\\0y`"),
        ("[x]", "a list"),
        (
            "5",
            "the number `5` (hint: put it in quotes if it is a name)",
        ),
        ("true", "`true` (hint: put it in quotes if it is a name)"),
    ] {
        one(
            "s3://m/chat",
            found,
            &format!("vectors[0].chat: expected a path or URL, found {expected}"),
        );
    }
    let long = "y".repeat(1_000);
    let [problem] = &problems(&least_with("1.0", &long))[..] else {
        panic!("one problem is expected");
    };
    assert!(problem.ends_with("yyy…`"), "{problem}");
    assert!(problem.len() < 200, "{problem}");
}

#[test]
fn a_missing_field_says_what_belongs_there() {
    one(
        "cp: s3://m/cp\n",
        "",
        "cp: this field is missing \
         (hint: the checkpoint that is added to, as in `cp: /models/cp`)",
    );
    one(
        "chat: s3://m/chat, ",
        "",
        "vectors[0].chat: this field is missing (hint: the chat-tuned checkpoint)",
    );
    one(
        "base: s3://m/base, ",
        "",
        "vectors[0].base: this field is missing (hint: the checkpoint that chat was tuned from)",
    );
    one(
        "output: { url: s3://m/out }",
        "",
        "output: this field is missing \
         (hint: where to write, as in `output: { url: /models/out }`)",
    );
    one(
        "url: s3://m/out",
        "",
        "output.url: this field is missing (hint: where to write, as in `url: /models/out`)",
    );
}

#[test]
fn a_misspelt_field_is_one_problem_with_the_nearest_name() {
    one(
        "lambda: 1.0",
        "lamda: 1.0",
        "vectors[0].lamda: unknown field `lamda` (hint: did you mean `lambda`?)",
    );
    one(
        "\ncp:",
        "\nCP:",
        "CP: unknown field `CP` (hint: did you mean `cp`?)",
    );
    one(
        "url:",
        "uri:",
        "output.uri: unknown field `uri` (hint: did you mean `url`?)",
    );
    added(
        "chat-template: cp",
        "chat-template: unknown field `chat-template` (hint: did you mean `chat_template`?)",
    );
    added(
        "skeletn: chat",
        "skeletn: unknown field `skeletn` \
         (hint: if `skeleton` is meant: it is not supported yet)",
    );
    added(
        "rules: [{ match: a, actoin: keep_cp }]",
        "rules[0].actoin: unknown field `actoin` (hint: did you mean `action`?)",
    );
    added(
        "\"learning\\nrate\": 5",
        "learning\\nrate: unknown field `learning\\nrate` (hint: a recipe has the fields `cp`, \
         `vectors`, `rules`, `missing`, `nonfinite`, `chat_template` and `output`)",
    );
}

#[test]
fn names_of_other_tools_get_the_right_name() {
    one(
        "\ncp:",
        "\nbase_model:",
        "base_model: unknown field `base_model` (hint: write `cp` for the checkpoint that is \
         added to, and `base` in each vector for the one that is subtracted)",
    );
    one(
        "\nvectors:",
        "\nmodels:",
        "models: unknown field `models` (hint: write `vectors`: a list whose entries have \
         `chat`, `base` and `lambda`)",
    );
    added(
        "merge_method: task_arithmetic",
        "merge_method: unknown field `merge_method` (hint: leave it out: \
         `cp + lambda × (chat − base)` is the only method)",
    );
    added(
        "dtype: bfloat16",
        "dtype: unknown field `dtype` (hint: write `output: { dtype: … }`)",
    );
    for name in ["alpha", "weight", "ratio", "λ"] {
        one(
            "lambda:",
            &format!("{name}:"),
            &format!("vectors[0].{name}: unknown field `{name}` (hint: write `lambda`)"),
        );
    }
    added(
        "rules: [{ filter: mlp, lambda_scale: 1 }]",
        "rules[0].filter: unknown field `filter` \
         (hint: write `match` with a pattern, or `kind`)",
    );
    added(
        "rules: [{ match: a, lambda: 0.5 }]",
        "rules[0].lambda: unknown field `lambda` (hint: write `lambda_scale`)",
    );
}

#[test]
fn what_is_to_come_is_called_not_supported_yet() {
    for field in [
        "vocab",
        "special_tokens",
        "skeleton",
        "rename",
        "sweep",
        "config_from",
        "preset",
    ] {
        added(
            &format!("{field}: anything"),
            &format!("{field}: field `{field}` is not supported yet"),
        );
    }
    for field in ["layers", "regex"] {
        added(
            &format!("rules: [{{ {field}: '0..8', action: keep_cp }}]"),
            &format!("rules[0].{field}: field `{field}` is not supported yet"),
        );
    }
    added(
        "missing: copy_chat",
        "missing: `copy_chat` is not supported yet (hint: write `error` or `keep_cp`)",
    );
    added(
        "rules: [{ kind: norm, action: keep_skeleton }]",
        "rules[0].action: `keep_skeleton` is not supported yet (hint: write `keep_cp`)",
    );
    added(
        "chat_template: ./chat.jinja",
        "chat_template: the file `./chat.jinja` is not supported yet (hint: write `chat` or `cp`)",
    );
    added(
        "chat_template: { from: 1 }",
        "chat_template: a mapping is not supported yet (hint: write `chat` or `cp`)",
    );
    one(
        OUT,
        "s3://m/out, dtype: fp8",
        "output.dtype: `fp8` is not supported yet (hint: write `same`, `bf16`, `f16` or `f32`)",
    );
    one(
        OUT,
        "'s3://m/out-{lambda}'",
        "output.url: the placeholder `{lambda}` is not supported yet",
    );
}

#[test]
fn a_bad_choice_lists_the_good_ones() {
    added(
        "missing: eror",
        "missing: expected `error` or `keep_cp`, found the text `eror` \
         (hint: did you mean `error`?)",
    );
    added(
        "missing:",
        "missing: expected `error` or `keep_cp`, found nothing",
    );
    added(
        "nonfinite: 5",
        "nonfinite: expected `error` or `allow`, found the number `5`",
    );
    added(
        "chat_template: base",
        "chat_template: expected `chat` or `cp`, found the text `base`",
    );
    one(
        OUT,
        "o, overwrite: yes",
        "output.overwrite: expected `true` or `false`, found the text `yes`",
    );
    let dtypes = "output.dtype: expected `same`, `bf16`, `f16` or `f32`, found the text";
    for (found, hint) in [
        ("bfloat16", " (hint: did you mean `bf16`?)"),
        ("float32", " (hint: did you mean `f32`?)"),
        ("BF16", " (hint: did you mean `bf16`?)"),
        ("int8", ""),
    ] {
        one(
            OUT,
            &format!("o, dtype: {found}"),
            &format!("{dtypes} `{found}`{hint}"),
        );
    }
}

#[test]
fn a_rule_has_one_selector_and_one_action() {
    let both = "rules: [{ match: a, kind: mlp, action: keep_cp, lambda_scale: 1 }]";
    assert_eq!(
        problems(&format!("{LEAST}{both}")),
        [
            "rules[0]: expected `match` or `kind`, found `match` and `kind` \
             (hint: write two rules)",
            "rules[0]: expected `action: keep_cp` or `lambda_scale`, found `action` and \
             `lambda_scale` (hint: write two rules)",
        ]
    );
    assert_eq!(
        problems(&format!("{LEAST}rules: [{{}}]")),
        [
            "rules[0]: expected `match` or `kind`, found neither",
            "rules[0]: expected `action: keep_cp` or `lambda_scale`, found neither",
        ]
    );
    added(
        "rules: { kind: mlp, action: keep_cp }",
        "rules: expected a list, found a mapping (hint: begin each entry with `- `)",
    );
    added(
        "rules: [5]",
        "rules[0]: expected a mapping, found the number `5`",
    );
}

#[test]
fn bad_patterns_and_kinds_are_named() {
    added(
        "rules: [{ match: 'layers.[0-9]', action: keep_cp }]",
        "rules[0].match: the pattern contains `[`, but only `*` is special in it \
         (hint: write `*` for any run of characters)",
    );
    added(
        "rules: [{ match: '', action: keep_cp }]",
        "rules[0].match: expected a pattern such as `model.layers.*.mlp.*`, found an empty text",
    );
    added(
        "rules: [{ kind: [], action: keep_cp }]",
        "rules[0].kind: expected at least one kind, found none",
    );
    added(
        "rules: [{ kind: [embed, norms], action: keep_cp }]",
        "rules[0].kind[1]: expected `embed`, `lm_head`, `norm`, `attn`, `mlp`, `router`, \
         `expert`, `vision` or `projector`, found the text `norms` \
         (hint: did you mean `norm`?)",
    );
    added(
        "rules: [{ kind: mlp, lambda_scale: .inf }]",
        "rules[0].lambda_scale: expected a finite number, found `inf`",
    );
}

#[test]
fn a_scale_that_makes_a_lambda_infinite_is_rejected() {
    let text = least_with("1.0", "-1e300");
    assert_eq!(
        problems(&format!(
            "{text}rules: [{{ match: a, lambda_scale: 1e300 }}]"
        )),
        [
            "rules[0].lambda_scale: expected a finite product with `vectors[0].lambda`, \
          found -1e300 × 1e300"
        ]
    );
}

#[test]
fn a_bad_shard_size_is_named_with_what_was_found() {
    let expected = "expected a size such as `5GB`, `500MB` or a number of bytes, found";
    let units = "(hint: units are `KB`, `MB`, `GB`, `TB`, after a number)";
    for (found, message) in [
        ("-5", format!("{expected} the number `-5`")),
        ("5e9", format!("{expected} the number `5000000000.0`")),
        ("", format!("{expected} nothing")),
        ("5gb", format!("{expected} the text `5gb` {units}")),
        (
            "5GiB",
            format!("{expected} the text `5GiB` (hint: units are decimal: `KB`, `MB`, `GB`, `TB`)"),
        ),
        (
            "999",
            "expected from 1000 to 9007199254740992 bytes, found 999".to_owned(),
        ),
        (
            "9007199254740993",
            "expected from 1000 to 9007199254740992 bytes, found 9007199254740993".to_owned(),
        ),
    ] {
        one(
            OUT,
            &format!("o, shard_size: {found}"),
            &format!("output.shard_size: {message}"),
        );
    }
}

#[test]
fn an_output_needs_a_place_of_its_own() {
    one(
        OUT,
        "s3://m/cp/",
        "output.url: expected a place of its own, found that of `cp`",
    );
    one(
        OUT,
        "s3://m/base",
        "output.url: expected a place of its own, found that of `vectors[0].base`",
    );
    one(
        "output: { url: s3://m/out }",
        "output: s3://m/out",
        "output: expected a mapping, found the text `s3://m/out` (hint: write `output: { url: … }`)",
    );
}

#[test]
fn text_that_is_no_yaml_is_rejected_with_line_and_column() {
    for (text, expected) in [
        (
            "cp: a\ncp: b",
            "line 2, column 1: duplicate mapping key `cp` is not allowed here",
        ),
        (
            "{\"cp\": 1,\n \"cp\": 2}",
            "line 2, column 2: duplicate mapping key `cp` is not allowed here",
        ),
        (
            "cp: a\n\tb: c",
            "line 1, column 5: while scanning a plain scalar, found a tab \
             (hint: YAML indents with spaces)",
        ),
        (
            "rules:\n- match: *norm*",
            "line 2, column 10: reference to unknown value (hint: a text that begins with `*` \
             needs quotes, as in `match: \"*norm*\"`)",
        ),
        ("cp: [", "line 1, column 5: unclosed bracket '['"),
        (
            "cp: a\n---\ncp: b",
            "line 3, column 1: only single YAML document expected but multiple found",
        ),
        ("cp: !env HOME", "line 1, column 10: unsupported tag `!env`"),
    ] {
        assert_eq!(problems(text), [format!("recipe: {expected}")], "{text}");
    }
}

#[test]
fn what_is_no_mapping_is_no_recipe() {
    let empty = "recipe: the recipe is empty \
                 (hint: write at least `cp`, `vectors` and `output`)";
    assert_eq!(problems(""), [empty]);
    assert_eq!(problems("# nothing yet\n"), [empty]);
    assert_eq!(
        problems("- cp"),
        ["recipe: expected a mapping, found a list"]
    );
    assert_eq!(
        problems("cp"),
        ["recipe: expected a mapping, found the text `cp`"]
    );
}

#[test]
fn a_recipe_that_is_too_long_or_too_deep_is_rejected() {
    let long = format!("{LEAST}#{}", " ".repeat(10_000_000 - LEAST.len() - 1));
    assert_eq!(parsed(&long), parsed(LEAST));
    assert_eq!(
        problems(&format!("{long} ")),
        ["recipe: expected at most 10000000 bytes, found 10000001"]
    );
    assert_eq!(problems(&"[".repeat(100_000)).len(), 1);
    let bomb = "a: &a [x,x,x,x,x,x,x,x,x,x]\n".to_owned()
        + &('a'..='y')
            .zip('b'..='z')
            .map(|(old, new)| format!("{new}: &{new} [{}*{old}]\n", format!("*{old},").repeat(9)))
            .collect::<String>();
    assert_eq!(problems(&bomb).len(), 1);
}

#[test]
fn all_problems_are_listed_at_once_in_the_order_of_the_document() {
    let text = "
output: { url: '', dtype: fp8, shard_size: 1B }
alpha: 0.5
vectors:
  - { chat: a, base: b, lambda: x }
  - chat: a
    bass: b
missing: skip
rules:
  - { kind: layernorm, action: drop }
  - lambda_scale: .nan
";
    assert_eq!(
        problems(text),
        [
            "output.url: expected a path or URL, found an empty text",
            "output.dtype: `fp8` is not supported yet (hint: write `same`, `bf16`, `f16` or `f32`)",
            "output.shard_size: expected a size such as `5GB`, `500MB` or a number of bytes, \
             found the text `1B` (hint: units are `KB`, `MB`, `GB`, `TB`, after a number)",
            "alpha: unknown field `alpha` (hint: write `lambda` in each entry of `vectors`)",
            "vectors[0].lambda: expected a number such as `1.0`, found the text `x`",
            "vectors[1].bass: unknown field `bass` (hint: did you mean `base`?)",
            "vectors[1].lambda: this field is missing (hint: as in `lambda: 1.0`)",
            "missing: expected `error` or `keep_cp`, found the text `skip`",
            "rules[0].kind: expected `embed`, `lm_head`, `norm`, `attn`, `mlp`, `router`, \
             `expert`, `vision` or `projector`, found the text `layernorm`",
            "rules[0].action: expected `keep_cp`, found the text `drop`",
            "rules[1].lambda_scale: expected a finite number, found `NaN`",
            "rules[1]: expected `match` or `kind`, found neither",
            "cp: this field is missing \
             (hint: the checkpoint that is added to, as in `cp: /models/cp`)",
        ]
    );
}

#[test]
fn messages_are_lower_case_without_a_full_stop() {
    let text = "cp: 5\nvectors: [{}, 5]\noutput: x\nrules: [{}]\nvocab: x\nalpha: 1";
    for problem in Recipe::parse(text).unwrap_err() {
        let first = problem.message.chars().next().expect("a message");
        assert!(!first.is_uppercase(), "{problem}");
        assert!(!problem.message.ends_with('.'), "{problem}");
    }
}
