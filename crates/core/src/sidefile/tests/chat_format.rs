//! The chat template and the end-of-turn token.

use super::*;

#[test]
fn llama_3_ends_its_turns_in_all_four_files() {
    let (cp, chat) = (llama_3_cp(), llama_3_chat());
    let plan = plan(&request(&cp, &chat)).unwrap();
    assert_eq!(
        text(&plan, "generation_config.json"),
        "{\n  \"bos_token_id\": 128000,\n  \"eos_token_id\": [\n    128001,\n    128009\n  ],\n  \"temperature\": 0.6\n}\n"
    );
    assert_eq!(
        text(&plan, "config.json"),
        LLAMA_3_CONFIG.replace("128001", "[\n    128001,\n    128009\n  ]")
    );
    assert_eq!(
        text(&plan, "tokenizer_config.json"),
        "{\n  \"bos_token\": \"<|begin_of_text|>\",\n  \"eos_token\": \"<|eot_id|>\",\n  \"chat_template\": \"{{ a }}\"\n}\n"
    );
    assert_eq!(
        text(&plan, "special_tokens_map.json"),
        "{\n  \"eos_token\": {\n    \"content\": \"<|eot_id|>\",\n    \"lstrip\": false\n  }\n}\n"
    );
    assert_eq!(plan.warnings, []);
}

#[test]
fn an_id_is_mapped_by_its_token_where_the_vocabularies_differ() {
    let extended = LLAMA_3_TOKENIZER.replace("128009", "130000");
    let cp = llama_3_cp().with("tokenizer.json", &extended);
    let chat = llama_3_chat().with("generation_config.json", "{\"eos_token_id\": 128009}");
    let plan = plan(&request(&cp, &chat)).unwrap();
    let generation = text(&plan, "generation_config.json");
    assert!(
        generation.contains("[\n    130000,\n    128001\n  ]"),
        "{generation}"
    );
}

#[test]
fn qwen_2_brings_a_turn_end_that_only_the_tokenizer_names() {
    // The config of the chat model names the end of the text alone.
    let decoder = "\"added_tokens_decoder\": {\n    \"151643\": {\n      \"content\": \"<|endoftext|>\"\n    },\n    \"151645\": {\n      \"content\": \"<|im_end|>\"\n    }\n  }";
    let cp = Model::of(&[
        (
            "config.json",
            "{\n  \"eos_token_id\": 151643,\n  \"bos_token_id\": 151643\n}\n",
        ),
        (
            "tokenizer_config.json",
            &format!(
                "{{\n  {decoder},\n  \"chat_template\": \"old\",\n  \"eos_token\": \"<|endoftext|>\"\n}}\n"
            ),
        ),
        ("vocab.json", "{\"a\": 0}"),
    ]);
    let chat = Model::of(&[
        ("config.json", "{\"eos_token_id\": 151643}"),
        (
            "tokenizer_config.json",
            &format!(
                "{{\n  {decoder},\n  \"chat_template\": \"new\",\n  \"eos_token\": \"<|im_end|>\"\n}}\n"
            ),
        ),
        ("vocab.json", "{\"a\": 0}"),
    ]);
    let plan = plan(&request(&cp, &chat)).unwrap();
    let ids = "\"eos_token_id\": [\n    151643,\n    151645\n  ]";
    assert!(text(&plan, "config.json").contains(ids));
    assert_eq!(
        text(&plan, "generation_config.json"),
        format!("{{\n  \"bos_token_id\": 151643,\n  {ids}\n}}\n"),
        "what a loader derived from the config is not lost"
    );
    assert_eq!(
        text(&plan, "tokenizer_config.json"),
        format!(
            "{{\n  {decoder},\n  \"chat_template\": \"new\",\n  \"eos_token\": \"<|im_end|>\"\n}}\n"
        )
    );
}

#[test]
fn llama_2_needs_no_vocabulary_because_nothing_differs() {
    let object = "{\"__type\": \"AddedToken\", \"content\": \"</s>\", \"lstrip\": false}";
    let cp = Model::of(&[
        ("config.json", "{\"eos_token_id\": 2}"),
        (
            "tokenizer_config.json",
            &format!("{{\"eos_token\": {object}}}"),
        ),
        ("tokenizer.model", "\0binary"),
    ]);
    let chat = Model::of(&[
        ("config.json", "{\"eos_token_id\": 2}"),
        ("generation_config.json", "{\"eos_token_id\": [2]}"),
        (
            "tokenizer_config.json",
            "{\"eos_token\": \"</s>\", \"chat_template\": \"t\"}",
        ),
        ("tokenizer.model", "\0binary"),
    ]);
    let plan = plan(&request(&cp, &chat)).unwrap();
    assert_eq!(*content(&plan, "config.json"), Content::Copy);
    assert_eq!(
        text(&plan, "tokenizer_config.json"),
        format!("{{\n  \"eos_token\": {object},\n  \"chat_template\": \"t\"\n}}\n")
    );
    assert!(
        plan.files
            .iter()
            .all(|f| f.path != "generation_config.json")
    );
}

#[test]
fn a_vocabulary_that_cannot_be_read_is_told_apart_from_one_that_lacks_the_token() {
    let chat = llama_3_chat();
    let cp = llama_3_cp()
        .without("tokenizer.json")
        .with("tokenizer.model", "\0");
    let problems = plan(&request(&cp, &chat)).unwrap_err();
    assert!(told(&problems).contains("cp has neither `tokenizer.json` nor `vocab.json`"));

    let lacking = LLAMA_3_TOKENIZER.replace("<|eot_id|>", "<|other|>");
    let cp = llama_3_cp().with("tokenizer.json", &lacking);
    let problems = plan(&request(&cp, &chat)).unwrap_err();
    assert_eq!(
        told(&problems),
        "chat_template: chat's end-of-turn token `<|eot_id|>` is not in the vocabulary of cp \
         [say `chat_template: cp` to keep cp's chat format, or extend the tokenizer of cp]"
    );
}

#[test]
fn an_end_of_turn_id_that_chat_itself_does_not_know_is_an_error() {
    let chat = llama_3_chat().with("generation_config.json", "{\"eos_token_id\": [7, 128009]}");
    let cp = llama_3_cp();
    let problems = plan(&request(&cp, &chat)).unwrap_err();
    assert!(told(&problems).contains("the end-of-turn id 7 is not in the vocabulary of chat"));
}

#[test]
fn unigram_vocabularies_number_their_tokens_by_position() {
    let unigram = |token: &str| {
        format!(
            "{{\"added_tokens\": [], \"model\": {{\"type\": \"Unigram\", \"vocab\": [[\"<unk>\", 0.0], [\"{token}\", -1.5], [\"</s>\", -2]]}}}}"
        )
    };
    let cp = Model::of(&[
        ("config.json", "{\"eos_token_id\": 2}"),
        ("tokenizer.json", &unigram("<end>")),
        ("tokenizer_config.json", "{\"eos_token\": \"</s>\"}"),
    ]);
    let chat = Model::of(&[
        ("config.json", "{\"eos_token_id\": [1]}"),
        ("tokenizer.json", &unigram("<end>")),
        (
            "tokenizer_config.json",
            "{\"eos_token\": \"<end>\", \"chat_template\": \"t\"}",
        ),
    ]);
    let plan = plan(&request(&cp, &chat)).unwrap();
    assert!(text(&plan, "config.json").contains("[\n    1,\n    2\n  ]"));
}

#[test]
fn the_ids_of_a_text_config_change_too() {
    let nested =
        "{\n  \"text_config\": {\n    \"eos_token_id\": 128001,\n    \"x\": 1e-05\n  }\n}\n";
    let cp = llama_3_cp().with("config.json", nested);
    let chat = llama_3_chat();
    let plan = plan(&request(&cp, &chat)).unwrap();
    assert_eq!(
        text(&plan, "config.json"),
        nested.replace("128001", "[\n      128001,\n      128009\n    ]")
    );
}

#[test]
fn a_jinja_file_of_chat_replaces_the_template_inside_cps_config() {
    let chat = llama_3_chat()
        .with("tokenizer_config.json", "{\"eos_token\": \"<|eot_id|>\"}")
        .with("chat_template.jinja", "{{ chat }}")
        .with("additional_chat_templates/tool_use.jinja", "{{ tool }}");
    let cp = llama_3_cp()
        .with(
            "tokenizer_config.json",
            "{\"chat_template\": \"cp's\", \"eos_token\": \"<|end_of_text|>\"}",
        )
        .with("additional_chat_templates/rag.jinja", "{{ rag }}");
    let plan = plan(&request(&cp, &chat)).unwrap();
    for path in [
        "chat_template.jinja",
        "additional_chat_templates/tool_use.jinja",
    ] {
        let path = path.to_owned();
        assert_eq!(
            *content(&plan, &path.clone()),
            Content::CopyFromChat { path }
        );
    }
    assert_eq!(
        text(&plan, "tokenizer_config.json"),
        "{\n  \"eos_token\": \"<|eot_id|>\"\n}\n"
    );
    let rag = "additional_chat_templates/rag.jinja";
    assert!(plan.files.iter().all(|file| file.path != rag));
    assert!(
        plan.skipped
            .iter()
            .any(|(path, why)| path == rag && why.contains("chat"))
    );
}

#[test]
fn cps_jinja_goes_when_chats_template_is_a_list_in_its_config() {
    let list = "[{\"name\": \"default\", \"template\": \"x\"}]";
    let chat = llama_3_chat().with(
        "tokenizer_config.json",
        &format!("{{\"chat_template\": {list}, \"eos_token\": \"<|eot_id|>\"}}"),
    );
    let cp = llama_3_cp().with("chat_template.jinja", "{{ cp }}");
    let plan = plan(&request(&cp, &chat)).unwrap();
    assert!(
        plan.files
            .iter()
            .all(|file| file.path != "chat_template.jinja")
    );
    assert!(text(&plan, "tokenizer_config.json").contains(list));
}

#[test]
fn choosing_cp_keeps_every_byte() {
    let (cp, chat) = (llama_3_cp(), llama_3_chat());
    let plan = plan(&SideRequest {
        chat_template: Some(ChatTemplate::Cp),
        ..request(&cp, &chat)
    })
    .unwrap();
    assert!(plan.files.iter().all(|f| f.content == Content::Copy));
}

#[test]
fn without_a_template_the_default_is_cp_and_asking_for_chat_is_an_error() {
    let cp = llama_3_cp();
    let chat = llama_3_chat().with("tokenizer_config.json", "{\"chat_template\": null}");
    let by_default = plan(&request(&cp, &chat)).unwrap();
    assert!(by_default.files.iter().all(|f| f.content == Content::Copy));
    for chat in [Some(chat.folder()), None] {
        let problems = plan(&SideRequest {
            chat,
            chat_template: Some(ChatTemplate::Chat),
            ..request(&cp, &cp)
        })
        .unwrap_err();
        assert!(told(&problems).contains("has no chat template [say `chat_template: cp`"));
    }
}

#[test]
fn a_broken_tokenizer_is_named_when_an_id_is_looked_up() {
    for broken in [
        "{\"model\": {\"vocab\": 3}}",
        "{\"added_tokens\": [{}]}",
        "[",
    ] {
        let cp = llama_3_cp().with("tokenizer.json", broken);
        let chat = llama_3_chat();
        let problems = plan(&request(&cp, &chat)).unwrap_err();
        assert_eq!(problems[0].subject, "cp/tokenizer.json", "{broken}");
    }
}

#[test]
fn a_folder_without_tokenizer_config_gets_one_with_the_chat_format() {
    let cp = llama_3_cp()
        .without("tokenizer_config.json")
        .without("special_tokens_map.json");
    let chat = llama_3_chat();
    let plan = plan(&request(&cp, &chat)).unwrap();
    assert_eq!(
        text(&plan, "tokenizer_config.json"),
        "{\n  \"chat_template\": \"{{ a }}\",\n  \"eos_token\": \"<|eot_id|>\"\n}\n"
    );
    let map = "special_tokens_map.json";
    assert!(plan.files.iter().all(|file| file.path != map));
}

#[test]
fn a_token_object_of_one_file_becomes_a_string_in_the_other() {
    let object = "{\"__type\": \"AddedToken\", \"content\": \"<|eot_id|>\"}";
    let chat = llama_3_chat().without("special_tokens_map.json").with(
        "tokenizer_config.json",
        &format!("{{\"chat_template\": \"t\", \"eos_token\": {object}}}"),
    );
    let cp = llama_3_cp();
    let plan = plan(&request(&cp, &chat)).unwrap();
    assert!(text(&plan, "tokenizer_config.json").contains(object));
    assert_eq!(
        text(&plan, "special_tokens_map.json"),
        "{\n  \"eos_token\": \"<|eot_id|>\"\n}\n"
    );
}

#[test]
fn every_token_that_cp_lacks_is_named() {
    let chat = llama_3_chat().with(
        "generation_config.json",
        "{\"eos_token_id\": [0, 1, 128009]}",
    );
    let cp = llama_3_cp().with(
        "tokenizer.json",
        &LLAMA_3_TOKENIZER.replace("{\"a\":0,\"\\u00e9\":1}", "{\"b\":0}"),
    );
    let problems = plan(&request(&cp, &chat)).unwrap_err();
    let told = told(&problems);
    assert_eq!(problems.len(), 2, "{told}");
    assert!(told.contains("`a`") && told.contains("`é`"), "{told}");
}

#[test]
fn ids_in_another_order_are_no_difference() {
    let both = "{\"eos_token_id\": [128009, 128001]}";
    let eot = "{\"eos_token\": \"<|eot_id|>\"}";
    let cp = llama_3_cp()
        .with("generation_config.json", both)
        .with("tokenizer_config.json", eot)
        .with("special_tokens_map.json", eot)
        .without("tokenizer.json");
    let chat = llama_3_chat().without("tokenizer.json");
    let plan = plan(&request(&cp, &chat)).unwrap();
    assert_eq!(*content(&plan, "generation_config.json"), Content::Copy);
    assert_eq!(*content(&plan, "config.json"), Content::Copy);
    assert_eq!(*content(&plan, "special_tokens_map.json"), Content::Copy);
}

#[test]
fn a_template_of_another_kind_is_an_error() {
    for template in ["3", "[]", "[{\"name\": \"x\"}]", "{\"template\": \"x\"}"] {
        let config = format!("{{\"chat_template\": {template}}}");
        let chat = llama_3_chat().with("tokenizer_config.json", &config);
        let cp = llama_3_cp();
        let problems = plan(&request(&cp, &chat)).unwrap_err();
        assert_eq!(
            problems[0].subject, "chat/tokenizer_config.json",
            "{template}"
        );
    }
}

#[test]
fn files_that_no_loader_of_the_tokenizer_asks_are_not_read() {
    let cp = llama_3_cp().with("vocab.json", "{\"nested\": {}}");
    let chat = llama_3_chat();
    assert!(plan(&request(&cp, &chat)).is_ok());
    let cp = cp.without("tokenizer.json");
    let problems = plan(&request(&cp, &chat)).unwrap_err();
    assert_eq!(problems[0].subject, "cp/vocab.json");
}
