//! What is taken, what is edited in the config, and what is told.

use super::*;

#[test]
fn config_is_published_last_and_the_others_by_path() {
    let cp = llama_3_cp();
    let plan = plan(&alone(&cp)).unwrap();
    let paths: Vec<&str> = plan.files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(
        paths,
        [
            "generation_config.json",
            "special_tokens_map.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "config.json"
        ]
    );
    assert!(plan.files.iter().all(|f| f.content == Content::Copy));
    assert_eq!(plan.skipped[0].0, "model.safetensors");
}

#[test]
fn another_output_type_changes_every_declaration_and_nothing_else() {
    let config = "{\n  \"dtype\": \"bfloat16\",\n  \"eps\": 1e-05,\n  \"quantization_config\": {\n    \"dtype\": \"x\"\n  },\n  \"text_config\": {\n    \"torch_dtype\": \"bfloat16\",\n    \"vocab_size\": 10\n  },\n  \"thinker_config\": {\n    \"text_config\": {\n      \"dtype\": \"bfloat16\"\n    }\n  }\n}\n";
    let cp = Model::of(&[("config.json", config)]);
    for (format, name) in [
        (FloatFormat::F32, "float32"),
        (FloatFormat::F16, "float16"),
        (FloatFormat::F64, "float64"),
    ] {
        let request = SideRequest {
            output_dtype: Some(format),
            ..alone(&cp)
        };
        assert_eq!(
            text(&plan(&request).unwrap(), "config.json"),
            config.replace("bfloat16", name)
        );
    }
    let same = plan(&SideRequest {
        output_dtype: Some(FloatFormat::Bf16),
        ..alone(&cp)
    })
    .unwrap();
    assert_eq!(*content(&same, "config.json"), Content::Copy);
}

#[test]
fn a_type_declared_as_something_else_than_a_string_is_an_error() {
    let cp = Model::of(&[("config.json", "{\"text_config\": {\"dtype\": 3}}")]);
    let problems = plan(&SideRequest {
        output_dtype: Some(FloatFormat::F32),
        ..alone(&cp)
    })
    .unwrap_err();
    assert_eq!(
        problems[0].to_string(),
        "cp/config.json: expected `text_config.dtype` to be a string"
    );
}

#[test]
fn untying_writes_false_at_the_top_and_where_the_text_config_says_otherwise() {
    let untied = |config: &str| {
        let cp = Model::of(&[("config.json", config)]);
        let request = SideRequest {
            untie: true,
            ..alone(&cp)
        };
        text(&plan(&request).unwrap(), "config.json")
    };
    assert_eq!(
        untied("{\n  \"a\": 1\n}\n"),
        "{\n  \"a\": 1,\n  \"tie_word_embeddings\": false\n}\n"
    );
    let nested = "{\n  \"text_config\": {\n    \"tie_word_embeddings\": true\n  },\n  \"tie_word_embeddings\": true\n}\n";
    assert_eq!(untied(nested), nested.replace("true", "false"));
    assert!(untied("{\"text_config\": {\"a\": 1}}").contains("\"text_config\": {\"a\": 1}"));
}

#[test]
fn what_travels_with_the_vector_is_named_with_both_values() {
    let cp = Model::of(&[(
        "config.json",
        "{\"rope_theta\": 1000000.0, \"max_position_embeddings\": 32768, \"hidden_act\": \"silu\", \"model_type\": \"llama\", \"rope_scaling\": null}",
    )]);
    let chat = Model::of(&[(
        "config.json",
        "{\"rope_parameters\": {\"rope_type\": \"llama3\", \"factor\": 8.0, \"rope_theta\": 500000}, \"max_position_embeddings\": 8192, \"hidden_act\": \"silu\", \"model_type\": \"mistral\", \"sliding_window\": 4096}",
    )]);
    let found = plan(&request(&cp, &chat)).unwrap().warnings;
    let messages: Vec<&str> = found.iter().map(|p| p.message.as_str()).collect();
    assert_eq!(
        messages,
        [
            "`model_type` is `\"llama\"` in cp and `\"mistral\"` in chat",
            "`max_position_embeddings` is `32768` in cp and `8192` in chat",
            "`sliding_window` is absent in cp and `4096` in chat",
            "`rope_theta` is `1000000.0` in cp and `500000` in chat",
            "`rope_scaling` is absent in cp and `{\"factor\":8.0,\"rope_type\":\"llama3\"}` in chat",
        ]
    );
}

#[test]
fn the_two_spellings_of_one_rope_are_no_difference() {
    let cp = Model::of(&[("config.json", "{\"rope_theta\": 500000.0}")]);
    let base = Model::of(&[(
        "config.json",
        "{\"text_config\": {\"rope_parameters\": {\"rope_theta\": 500000, \"rope_type\": \"default\"}}}",
    )]);
    let request = SideRequest {
        chat: None,
        base: Some(base.folder()),
        ..request(&cp, &cp)
    };
    assert_eq!(plan(&request).unwrap().warnings, []);
}

#[test]
fn broken_side_files_are_all_named_at_once() {
    let cp = llama_3_cp()
        .with("config.json", "{\"a\": 1, \"a\": 2}")
        .with("special_tokens_map.json", "{");
    let chat = llama_3_chat().with("generation_config.json", "{\"eos_token_id\": \"x\"}");
    let problems = plan(&SideRequest {
        untie: true,
        ..request(&cp, &chat)
    })
    .unwrap_err();
    let subjects: Vec<&str> = problems.iter().map(|p| p.subject.as_str()).collect();
    assert_eq!(
        subjects,
        [
            "chat/generation_config.json",
            "cp/config.json",
            "cp/special_tokens_map.json"
        ]
    );
    assert!(problems[1].message.contains("duplicate key `a`"));
}

#[test]
fn contents_that_were_not_read_are_a_problem_and_not_an_absence() {
    let mut cp = llama_3_cp();
    cp.texts.remove("generation_config.json");
    let chat = llama_3_chat();
    let problems = plan(&request(&cp, &chat)).unwrap_err();
    assert!(told(&problems).contains("cp/generation_config.json: listed in the folder"));
}

#[test]
fn weights_of_further_modules_are_warned_about() {
    let cp = Model::of(&[
        ("config.json", "{}"),
        ("2_Dense/config.json", "{}"),
        ("2_Dense/model.safetensors", "w"),
    ]);
    let plan = plan(&alone(&cp)).unwrap();
    assert_eq!(plan.warnings[0].subject, "cp/2_Dense/model.safetensors");
    assert_eq!(*content(&plan, "2_Dense/config.json"), Content::Copy);
}

#[test]
fn only_files_that_decide_something_are_read() {
    let paths = [
        "model.safetensors",
        "config.json",
        "merges.txt",
        "vocab.json",
    ];
    assert_eq!(texts_needed(&paths), ["config.json", "vocab.json"]);
}
