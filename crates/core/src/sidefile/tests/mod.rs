//! Whole plans over small folders.

mod chat_format;
mod settings;

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
