use std::collections::BTreeMap;

use super::*;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

fn cached(repository: &str) -> String {
    format!("/home/me/.cache/hub/{repository}/snapshots/{COMMIT}")
}

fn input(role: &str, url: &str, lambda: Option<&str>) -> CardInput {
    CardInput {
        role: role.to_owned(),
        url: url.to_owned(),
        lambda: lambda.map(str::to_owned),
    }
}

fn card<'a>(title: &'a str, inputs: &'a [CardInput], readme: Option<&'a str>) -> Card<'a> {
    Card {
        title,
        inputs,
        recipe_yaml: "cp: s3://models/cp\n",
        merged: 290,
        copied: 1,
        chatvec_version: "0.1.0",
        cp_readme: readme.map(str::as_bytes),
    }
}

fn rendered(card: &Card<'_>) -> String {
    String::from_utf8(render(card)).unwrap()
}

/// The front matter as any YAML reader sees it.
fn matter(card: &Card<'_>) -> BTreeMap<String, serde_json::Value> {
    let text = rendered(card);
    let (matter, _) = text
        .strip_prefix("---\n")
        .and_then(|rest| rest.split_once("\n---\n"))
        .expect("front matter");
    serde_saphyr::from_str(matter).unwrap()
}

#[test]
fn hub_ids_come_from_cache_paths_alone() {
    for (url, id) in [
        (
            cached("models--meta-llama--Meta-Llama-3-8B"),
            Some("meta-llama/Meta-Llama-3-8B"),
        ),
        (
            format!("file://{}/", cached("models--a--b_1.5")),
            Some("a/b_1.5"),
        ),
        (cached("models--gpt2"), None),
        (cached("datasets--a--b"), None),
        (cached("models--a--b--c"), None),
        (cached("models--a--b.git"), None),
        (cached("models--a--.b"), None),
        (cached("models--a--b:c"), None),
        (cached("models--a--b..c"), None),
        (cached(&format!("models--a--{}", "b".repeat(94))), Some("")),
        (cached(&format!("models--a--{}", "b".repeat(95))), None),
        (
            "/x/models--a--b/snapshots/main-is-no-commit".to_owned(),
            None,
        ),
        ("/x/models--a--b/snapshots".to_owned(), None),
        ("s3://models/a/b".to_owned(), None),
        (String::new(), None),
    ] {
        let found = hub_id_of(&url);
        match id {
            Some("") => assert_eq!(found.map(|id| id.len()), Some(96)),
            id => assert_eq!(found.as_deref(), id, "{url}"),
        }
    }
}

#[test]
fn the_front_matter_names_models_of_the_hub_and_cps_licence() {
    let inputs = [
        input("cp", &cached("models--org--cp"), None),
        input(
            "vectors[0].chat",
            &cached("models--meta--chat"),
            Some("0.5"),
        ),
        input("vectors[0].base", "s3://bucket/base", Some("0.5")),
        input(
            "vectors[1].chat",
            &cached("models--meta--chat"),
            Some("1.0"),
        ),
    ];
    let readme = "---\nlicense: other\nlicense_name: 'it''s: \"mine\"'\nlicense_link: LICENSE\nlanguage:\n- ja\n- no\nwidget: {a: [1]}\n---\n# cp\n";
    let matter = matter(&card("out", &inputs, Some(readme)));
    assert_eq!(
        matter["base_model"],
        serde_json::json!(["org/cp", "meta/chat"])
    );
    assert_eq!(matter["base_model_relation"], "merge");
    assert_eq!(matter["library_name"], "transformers");
    assert_eq!(
        matter["tags"],
        serde_json::json!(["chatvec", "chat-vector", "merge", "task-arithmetic"])
    );
    assert_eq!(matter["license"], "other");
    assert_eq!(matter["license_name"], "it's: \"mine\"");
    assert_eq!(matter["license_link"], "LICENSE");
    assert_eq!(matter["language"], serde_json::json!(["ja", "no"]));
}

#[test]
fn without_models_of_the_hub_no_relation_is_claimed() {
    let inputs = [input("cp", "s3://bucket/cp", None)];
    let matter = matter(&card("out", &inputs, None));
    assert!(!matter.contains_key("base_model"));
    assert!(!matter.contains_key("base_model_relation"));
    assert!(!matter.contains_key("license"));
}

#[test]
fn a_card_of_cp_without_readable_front_matter_gives_nothing() {
    for readme in [
        "",
        "# cp\n",
        "---\nlicense: mit\n",
        "---\nlicense: [a\n---\n",
        "---\nlicense: {a: 1}\n---\n",
    ] {
        let matter = matter(&card("out", &[], Some(readme)));
        assert!(!matter.contains_key("license"), "{readme}");
    }
    // One value of another kind does not take the others with it.
    let mixed = matter(&card(
        "o",
        &[],
        Some("---\nlicense: mit\nlanguage: {a: 1}\n---\n"),
    ));
    assert_eq!(mixed["license"], "mit");
    assert!(!mixed.contains_key("language"));
    let windows = matter(&card("o", &[], Some("---\r\nlicense: mit\r\n---\r\n")));
    assert_eq!(windows["license"], "mit");
}

#[test]
fn hostile_values_of_cps_card_stay_values() {
    for hostile in [
        "a\n---\nbase_model: evil/model",
        "x: y # z",
        "\"quoted\"",
        "no",
        "~",
        "1e3",
        "{{ jinja }}",
        "!!python/object",
        "&anchor *alias",
        "\u{7f}\u{85}\u{2028}\u{feff}",
        "back\\slash\ttab",
        "日本語",
    ] {
        let readme = format!("---\nlicense_name: {}\n---\n", quoted(hostile));
        let matter = matter(&card("out", &[], Some(&readme)));
        assert_eq!(matter["license_name"], *hostile, "{hostile}");
        assert!(!matter.contains_key("base_model"));
    }
}

#[test]
fn hostile_names_break_neither_the_table_nor_the_page() {
    let inputs = [input(
        "cp",
        "s3://b/na|me\n| x | <script>alert(1)</script>`_[a](b)_",
        Some("0.5|1"),
    )];
    let text = rendered(&card("ti\n---\ntle <b>", &inputs, None));
    assert!(text.contains("# ti --- tle &lt;b&gt;\n"), "{text}");
    assert!(!text.contains("<script>"));
    let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| ")).collect();
    assert_eq!(rows.len(), 3, "{text}");
    assert_eq!(rows[2].replace("\\|", "").matches('|').count(), 4, "{text}");
}

#[test]
fn a_recipe_cannot_end_its_own_block() {
    let mut card = card("out", &[], None);
    card.recipe_yaml = "# ```` \ncp: \"```\"\n";
    let text = rendered(&card);
    assert!(
        text.contains("\n`````yaml\n# ```` \ncp: \"```\"\n`````\n"),
        "{text}"
    );
}

#[test]
fn the_page_shows_names_and_no_path_of_the_machine() {
    let inputs = [
        input("cp", &cached("models--org--cp"), None),
        input(
            "vectors[0].chat",
            "/home/me/models/chat-7b/",
            Some("[0.5, 1.0]"),
        ),
    ];
    let text = rendered(&card("out", &inputs, None));
    assert!(text.contains("| cp | org/cp |  |\n"), "{text}");
    assert!(
        text.contains("| vectors\\[0\\].chat | chat-7b | \\[0.5, 1.0\\] |\n"),
        "{text}"
    );
    assert!(!text.contains("/home/me"));
    assert!(text.contains("290 merged, 1 copied"));
    assert!(text.contains("2310.04799"));
    assert_eq!(text, rendered(&card("out", &inputs, None)));
}
