//! Configurations and tokenizers that are broken or do not fit together.

use serde_json::{Value, json};

use super::scene::{Scene, contents};

const TURN_END: &str = "<|eot|>";

/// A tokenizer that knows these tokens, with ids in their order.
fn tokenizer(tokens: &[&str]) -> Value {
    let vocabulary: serde_json::Map<_, _> = tokens
        .iter()
        .zip(0..)
        .map(|(token, id)| ((*token).to_owned(), json!(id)))
        .collect();
    json!({ "model": { "type": "BPE", "vocab": vocabulary, "merges": [] } })
}

/// `chat` ends its turns with a token, `cp` with another; `cp` knows these.
fn with_turn_ends(cp_knows: &[&str]) -> Scene {
    let scene = Scene::new();
    scene.write_json("chat/tokenizer.json", &tokenizer(&["a", "</s>", TURN_END]));
    scene.write_json(
        "chat/tokenizer_config.json",
        &json!({ "eos_token": TURN_END, "chat_template": "{{ messages }}" }),
    );
    scene.write_json("cp/tokenizer.json", &tokenizer(cp_knows));
    scene.write_json("cp/tokenizer_config.json", &json!({ "eos_token": "</s>" }));
    scene
}

#[test]
fn a_token_that_ends_turns_and_that_cp_lacks_is_refused() {
    let scene = with_turn_ends(&["a", "</s>"]);
    let said = scene.refusal();
    let expected = format!(
        "error: chat_template: chat's end-of-turn token `{TURN_END}` is not in the vocabulary of cp\n  \
         hint: say `chat_template: cp` to keep cp's chat format, or extend the tokenizer of cp\n"
    );
    assert_eq!(said, expected);

    let recipe = "cp: cp\nvectors: [{ chat: chat, base: base, lambda: 1 }]\noutput: { url: out }\nchat_template: cp\n";
    scene.accepted(&scene.merge_recipe(recipe));
    let scene = with_turn_ends(&["a", "</s>", "b", TURN_END]);
    scene.accepted(&scene.merge(&[]));
}

#[test]
fn a_broken_config_is_named_with_its_place() {
    for (role, flag) in [("cp", "--cp"), ("chat", "--chat"), ("base", "--base")] {
        let scene = Scene::new();
        scene.write(&format!("{role}/config.json"), b"{ \"model_type\": ");
        let expected = format!(
            "error: {flag}: {role}: config.json: not valid JSON: EOF while parsing a value at line 1 column 16\n"
        );
        assert_eq!(scene.refusal(), expected);
        scene.write(&format!("{role}/config.json"), b"[]");
        assert_eq!(
            scene.refusal(),
            format!("error: {flag}: {role}: config.json: expected a JSON object\n")
        );
    }
}

#[test]
fn a_broken_side_file_is_named_with_its_place() {
    for (role, flag) in [("cp", "--cp"), ("chat", "--chat")] {
        for name in [
            "tokenizer_config.json",
            "generation_config.json",
            "special_tokens_map.json",
        ] {
            let scene = with_turn_ends(&["a", "</s>", TURN_END]);
            scene.write(&format!("{role}/{name}"), b"{ \"chat_template\": \"x\", ");
            let said = scene.refusal();
            let expected =
                format!("error: {flag}: {name}: expected a JSON object: EOF while parsing ");
            assert!(said.starts_with(&expected), "{said}");
        }
        let scene = with_turn_ends(&["a", "</s>", TURN_END]);
        scene.write(&format!("{role}/tokenizer.json"), b"\xff\xfe");
        let said = scene.refusal();
        assert!(
            said.starts_with(&format!("error: {flag}: tokenizer.json: not readable: ")),
            "{said}"
        );
    }
}

#[test]
fn a_key_that_stands_twice_is_refused_as_readers_differ() {
    let scene = with_turn_ends(&["a", "</s>", TURN_END]);
    scene.write(
        "cp/generation_config.json",
        b"{ \"eos_token_id\": 1, \"eos_token_id\": 2 }",
    );
    let said = scene.refusal();
    assert!(
        said.starts_with("error: --cp: generation_config.json: expected a JSON object: "),
        "{said}"
    );
    assert!(said.contains("`eos_token_id`"), "{said}");
}

#[test]
fn a_template_that_is_asked_for_and_not_there_is_refused() {
    let scene = Scene::new();
    let before = contents(&scene.path("out"));
    let recipe = "cp: cp\nvectors: [{ chat: chat, base: base, lambda: 1 }]\noutput: { url: out }\nchat_template: chat\n";
    let said = scene.refused(&scene.merge_recipe(recipe), &before);
    assert!(said.contains("chat template"), "{said}");
}

#[test]
fn settings_that_travel_with_the_vector_and_differ_are_warnings() {
    let scene = Scene::new();
    scene.write_json(
        "chat/config.json",
        &json!({ "model_type": "llama", "rope_theta": 500_000.0 }),
    );
    scene.write_json(
        "cp/config.json",
        &json!({ "model_type": "llama", "rope_theta": 10_000.0 }),
    );
    let said = scene.accepted(&scene.merge(&[]));
    assert!(
        said.starts_with("warning: ") && said.contains("rope_theta"),
        "{said}"
    );
}
