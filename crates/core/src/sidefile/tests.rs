use super::*;

/// A folder as its files and their contents.
struct Model {
    files: Vec<(String, u64)>,
    texts: BTreeMap<String, Vec<u8>>,
}

impl Model {
    fn of(files: &[(&str, &str)]) -> Self {
        Self {
            files: files
                .iter()
                .map(|(path, text)| ((*path).to_owned(), text.len() as u64))
                .collect(),
            texts: files
                .iter()
                .map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec()))
                .collect(),
        }
    }

    fn with(mut self, path: &str, text: &str) -> Self {
        self.files.retain(|(name, _)| name != path);
        self.files.push((path.to_owned(), text.len() as u64));
        self.texts.insert(path.to_owned(), text.as_bytes().to_vec());
        self
    }

    fn without(mut self, path: &str) -> Self {
        self.files.retain(|(name, _)| name != path);
        self.texts.remove(path);
        self
    }

    fn folder(&self) -> Folder<'_> {
        Folder {
            files: &self.files,
            texts: &self.texts,
        }
    }
}

fn request<'a>(cp: &'a Model, chat: &'a Model) -> SideRequest<'a> {
    SideRequest {
        cp: cp.folder(),
        chat: Some(chat.folder()),
        base: None,
        chat_template: None,
        output_dtype: None,
        untie: false,
    }
}

fn alone(cp: &Model) -> SideRequest<'_> {
    SideRequest {
        chat: None,
        ..request(cp, cp)
    }
}

fn content<'a>(plan: &'a SidePlan, path: &str) -> &'a Content {
    let file = plan.files.iter().find(|file| file.path == path);
    &file.unwrap_or_else(|| panic!("no {path}")).content
}

fn text(plan: &SidePlan, path: &str) -> String {
    match content(plan, path) {
        Content::Bytes(bytes) => String::from_utf8(bytes.clone()).unwrap(),
        other => panic!("{path} is {other:?}"),
    }
}

fn told(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems
        .iter()
        .map(|p| format!("{p} [{}]", p.hint.as_deref().unwrap_or("")))
        .collect();
    lines.join("\n")
}

const LLAMA_3_CONFIG: &str = "{\n  \"architectures\": [\n    \"LlamaForCausalLM\"\n  ],\n  \"bos_token_id\": 128000,\n  \"eos_token_id\": 128001,\n  \"rms_norm_eps\": 1e-05,\n  \"rope_theta\": 500000.0,\n  \"torch_dtype\": \"bfloat16\"\n}\n";

/// A Llama-3 base: generation ends at the end of the text only.
fn llama_3_cp() -> Model {
    Model::of(&[
        ("config.json", LLAMA_3_CONFIG),
        (
            "generation_config.json",
            "{\n  \"bos_token_id\": 128000,\n  \"eos_token_id\": 128001,\n  \"temperature\": 0.6\n}\n",
        ),
        (
            "tokenizer_config.json",
            "{\n  \"bos_token\": \"<|begin_of_text|>\",\n  \"eos_token\": \"<|end_of_text|>\"\n}\n",
        ),
        (
            "special_tokens_map.json",
            "{\n  \"eos_token\": \"<|end_of_text|>\"\n}\n",
        ),
        ("tokenizer.json", LLAMA_3_TOKENIZER),
        ("model.safetensors", "weights"),
    ])
}

const LLAMA_3_TOKENIZER: &str = r#"{"version":"1.0","added_tokens":[
    {"id":128001,"content":"<|end_of_text|>","special":true},
    {"id":128009,"content":"<|eot_id|>","special":true}],
    "model":{"type":"BPE","vocab":{"a":0,"\u00e9":1},"merges":[]}}"#;

fn llama_3_chat() -> Model {
    llama_3_cp()
        .with(
            "generation_config.json",
            "{\"eos_token_id\": [128001, 128009]}",
        )
        .with(
            "tokenizer_config.json",
            "{\n  \"chat_template\": \"{{ a }}\",\n  \"eos_token\": \"<|eot_id|>\"\n}\n",
        )
        .with(
            "special_tokens_map.json",
            "{\n  \"eos_token\": {\n    \"content\": \"<|eot_id|>\",\n    \"lstrip\": false\n  }\n}\n",
        )
}

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
