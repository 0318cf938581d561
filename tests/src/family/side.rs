//! Everything of a checkpoint that is not weights: configuration, a small but
//! real tokenizer, licence and card.

use std::fs;
use std::io;
use std::path::Path;

use serde_json::{Value, json};

use super::{FamilySpec, Member};

/// Begins every text.
const BEGIN: &str = "<|begin_of_text|>";
/// Ends every text: what base and cp stop at.
const END: &str = "<|end_of_text|>";
/// Before and after the name of who speaks.
const ROLE: [&str; 2] = ["<|role|>", "<|end_role|>"];
/// Ends a turn: what chat stops at. cp knows the token but does not stop at it.
const END_OF_TURN: &str = "<|eot_id|>";

/// Pairs that the tokenizer merges, the most frequent first. `Ġ` is a space.
const MERGES: [(&str, &str); 12] = [
    ("Ġ", "t"),
    ("h", "e"),
    ("i", "n"),
    ("Ġt", "he"),
    ("e", "r"),
    ("o", "n"),
    ("Ġ", "a"),
    ("r", "e"),
    ("in", "g"),
    ("a", "n"),
    ("an", "d"),
    ("Ġ", "and"),
];

pub(super) fn write(spec: &FamilySpec, member: Member, folder: &Path) -> io::Result<()> {
    let tokenizer = Tokenizer::new();
    let json_files = [
        ("config.json", config(spec, member, &tokenizer)),
        ("generation_config.json", generation(member, &tokenizer)),
        ("tokenizer.json", tokenizer.json()),
        ("tokenizer_config.json", tokenizer.config(member)),
        ("special_tokens_map.json", special_tokens(member)),
    ];
    for (name, value) in json_files {
        fs::write(folder.join(name), format!("{value:#}\n"))?;
    }
    fs::write(
        folder.join("LICENSE"),
        "Made from a seed. No rights reserved.\n",
    )?;
    fs::write(folder.join("README.md"), card(member))
}

fn config(spec: &FamilySpec, member: Member, tokenizer: &Tokenizer) -> Value {
    let rows = match member {
        Member::Cp => spec.vocab + spec.cp_extra_rows,
        Member::Chat | Member::Base => spec.vocab,
    };
    let dtype = match spec.dtype {
        safetensors::Dtype::F16 => "float16",
        safetensors::Dtype::F32 => "float32",
        safetensors::Dtype::F64 => "float64",
        _ => "bfloat16",
    };
    json!({
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": false,
        "attention_dropout": 0.0,
        "bos_token_id": tokenizer.id(BEGIN),
        "eos_token_id": stops(member, tokenizer),
        "head_dim": spec.hidden / spec.heads,
        "hidden_act": "silu",
        "hidden_size": spec.hidden,
        "initializer_range": 0.02,
        "intermediate_size": spec.intermediate,
        "max_position_embeddings": 2048,
        "mlp_bias": false,
        "model_type": "llama",
        "num_attention_heads": spec.heads,
        "num_hidden_layers": spec.layers,
        "num_key_value_heads": spec.kv_heads,
        "pretraining_tp": 1,
        "rms_norm_eps": 1e-5,
        "rope_scaling": null,
        "rope_theta": 10000.0,
        "tie_word_embeddings": spec.tied,
        "torch_dtype": dtype,
        "transformers_version": "4.44.0",
        "use_cache": true,
        "vocab_size": rows,
    })
}

fn generation(member: Member, tokenizer: &Tokenizer) -> Value {
    json!({
        "bos_token_id": tokenizer.id(BEGIN),
        "eos_token_id": stops(member, tokenizer),
        "do_sample": true,
        "temperature": 0.6,
        "transformers_version": "4.44.0",
    })
}

/// The ids at which generation stops: chat has a list, the others one.
fn stops(member: Member, tokenizer: &Tokenizer) -> Value {
    match member {
        Member::Chat => json!([tokenizer.id(END), tokenizer.id(END_OF_TURN)]),
        Member::Cp | Member::Base => json!(tokenizer.id(END)),
    }
}

fn end_token(member: Member) -> &'static str {
    match member {
        Member::Chat => END_OF_TURN,
        Member::Cp | Member::Base => END,
    }
}

fn special_tokens(member: Member) -> Value {
    json!({ "bos_token": BEGIN, "eos_token": end_token(member) })
}

fn card(member: Member) -> String {
    let name = member.folder();
    let tuned_from = match member {
        Member::Base => "",
        Member::Chat | Member::Cp => "base_model: made-from-a-seed/base\n",
    };
    format!(
        "---\nlicense: cc0-1.0\nlanguage:\n- en\n{tuned_from}tags:\n- made-from-a-seed\n---\n\n\
         # {name}\n\nRandom weights that stand for the `{name}` checkpoint of a model family.\n"
    )
}

/// Byte-level byte-pair encoding: the 256 bytes, a few merges, special tokens.
struct Tokenizer {
    vocabulary: Vec<String>,
}

impl Tokenizer {
    fn new() -> Self {
        let bytes = byte_letters().into_iter().map(String::from);
        let merged = MERGES.iter().map(|(left, right)| format!("{left}{right}"));
        let special = special().map(str::to_owned);
        Self {
            vocabulary: bytes.chain(merged).chain(special).collect(),
        }
    }

    fn id(&self, token: &str) -> usize {
        self.vocabulary
            .iter()
            .position(|known| known == token)
            .expect("only tokens of this file are asked for")
    }

    fn json(&self) -> Value {
        let ordinary = self.vocabulary.len() - special().count();
        let vocabulary: serde_json::Map<_, _> = self.vocabulary[..ordinary]
            .iter()
            .enumerate()
            .map(|(id, token)| (token.clone(), id.into()))
            .collect();
        let added: Vec<_> = special()
            .map(|token| {
                let mut added = added_token(token);
                added["id"] = self.id(token).into();
                added
            })
            .collect();
        let merges: Vec<_> = MERGES
            .iter()
            .map(|(left, right)| format!("{left} {right}"))
            .collect();
        let byte_level = json!({
            "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true
        });
        json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": added,
            "normalizer": null,
            "pre_tokenizer": byte_level,
            "post_processor": null,
            "decoder": byte_level,
            "model": {
                "type": "BPE",
                "dropout": null,
                "unk_token": null,
                "continuing_subword_prefix": null,
                "end_of_word_suffix": null,
                "fuse_unk": false,
                "byte_fallback": false,
                "vocab": vocabulary,
                "merges": merges,
            },
        })
    }

    fn config(&self, member: Member) -> Value {
        let decoder: serde_json::Map<_, _> = special()
            .map(|token| (self.id(token).to_string(), added_token(token)))
            .collect();
        let mut config = json!({
            "added_tokens_decoder": decoder,
            "bos_token": BEGIN,
            "clean_up_tokenization_spaces": false,
            "eos_token": end_token(member),
            "model_max_length": 2048,
            "tokenizer_class": "PreTrainedTokenizerFast",
        });
        if member == Member::Chat {
            config["chat_template"] = chat_template().into();
        }
        config
    }
}

fn special() -> impl Iterator<Item = &'static str> {
    [BEGIN, END, ROLE[0], ROLE[1], END_OF_TURN].into_iter()
}

fn added_token(content: &str) -> Value {
    json!({
        "content": content,
        "lstrip": false,
        "normalized": false,
        "rstrip": false,
        "single_word": false,
        "special": true,
    })
}

fn chat_template() -> String {
    let [open, close] = ROLE;
    format!(
        "{{{{ bos_token }}}}{{% for message in messages %}}\
         {open}{{{{ message['role'] }}}}{close}{{{{ message['content'] | trim }}}}{END_OF_TURN}\
         {{% endfor %}}{{% if add_generation_prompt %}}{open}assistant{close}{{% endif %}}"
    )
}

/// The printable letter that stands for each byte in byte-level tokenizers:
/// printable Latin-1 stands for itself, the others count up from U+0100.
fn byte_letters() -> [char; 256] {
    let mut next = 0x100;
    std::array::from_fn(|byte| {
        let is_printable = matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
        let code = if is_printable {
            byte as u32
        } else {
            next += 1;
            next - 1
        };
        char::from_u32(code).expect("below the surrogates")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn space_is_the_letter_that_merges_expect() {
        assert_eq!(byte_letters()[b' ' as usize], 'Ġ');
        assert_eq!(byte_letters()[b'a' as usize], 'a');
    }

    #[test]
    fn only_chat_stops_at_the_end_of_a_turn_and_cp_knows_the_token() {
        let tokenizer = Tokenizer::new();
        let turn = tokenizer.id(END_OF_TURN);
        assert_eq!(stops(Member::Chat, &tokenizer)[1], turn);
        assert_ne!(stops(Member::Cp, &tokenizer), json!(turn));
        assert!(tokenizer.json().to_string().contains(END_OF_TURN));
    }
}
