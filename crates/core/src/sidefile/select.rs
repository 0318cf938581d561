//! Which files of the skeleton's folder travel to the output: an allow list, so
//! that nothing unknown is published under the model's name.

/// Whether a file of the skeleton belongs to the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    /// It is copied, perhaps with edits.
    Take,
    /// It stays behind, for this reason.
    Skip(&'static str),
}

/// The folder of a repository's further chat templates.
pub(super) const ADDITIONAL_TEMPLATES: &str = "additional_chat_templates/";

/// File names that are taken at the top of the folder.
const TAKEN_NAMES: [&str; 19] = [
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "config.json",
    "config_sentence_transformers.json",
    "generation_config.json",
    "image_processor.json",
    "merges.txt",
    "modules.json",
    "sentence_bert_config.json",
    "special_tokens_map.json",
    "spiece.model",
    "tekken.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.bpe",
    "vocab.json",
    "vocab.txt",
];

/// Endings of weights, their indexes, and other formats of the same weights.
const WEIGHT_ENDINGS: [&str; 16] = [
    ".safetensors",
    ".safetensors.index.json",
    ".bin",
    ".bin.index.json",
    ".pt",
    ".pth",
    ".ckpt",
    ".h5",
    ".msgpack",
    ".gguf",
    ".ggml",
    ".onnx",
    ".onnx_data",
    ".npz",
    ".ot",
    ".tflite",
];

/// Beginnings of the file or folder names that training leaves behind.
const TRAINING_BEGINNINGS: [&str; 12] = [
    "optimizer",
    "scheduler.pt",
    "scaler.pt",
    "trainer_state",
    "training_args",
    "training_log",
    "rng_state",
    "all_results",
    "train_results",
    "eval_results",
    "events.out.tfevents",
    "zero_to_fp32",
];

/// Decides on one path, relative to the folder and with `/` between its parts.
pub(super) fn choose(path: &str) -> Choice {
    let parts: Vec<&str> = path.split('/').collect();
    let name = parts[parts.len() - 1];
    if parts.contains(&"") {
        return Choice::Skip("not a path inside the folder");
    }
    if parts.iter().any(|part| part.starts_with('.')) {
        return Choice::Skip("hidden file");
    }
    if parts.iter().any(|part| is_of_training(part)) {
        return Choice::Skip("left by training, not part of the model");
    }
    if WEIGHT_ENDINGS.iter().any(|ending| name.ends_with(ending)) {
        return Choice::Skip("weights: the output has its own");
    }
    if name.ends_with(".py") {
        return Choice::Take;
    }
    match parts[..] {
        [_] => choose_at_the_top(name),
        [folder, _] if is_taken_in(folder, name) => Choice::Take,
        _ => Choice::Skip("in a folder that loaders do not read"),
    }
}

fn choose_at_the_top(name: &str) -> Choice {
    if name.eq_ignore_ascii_case("readme.md") {
        return Choice::Skip("replaced by the model card");
    }
    if name.starts_with("chatvec.") {
        return Choice::Skip("the record of an earlier merge");
    }
    if name.starts_with("adapter_") {
        return Choice::Skip("of an adapter, which the output does not hold");
    }
    let taken = TAKEN_NAMES.contains(&name)
        || name.ends_with(".tiktoken")
        || (name.starts_with("sentencepiece") && name.ends_with(".model"))
        || name.ends_with("processor_config.json")
        || is_legal_text(name);
    if taken {
        Choice::Take
    } else {
        Choice::Skip("not a file that loaders read")
    }
}

/// Whether some file in a folder one level down may be taken.
pub(super) fn is_read_folder(folder: &str) -> bool {
    folder == ADDITIONAL_TEMPLATES.trim_end_matches('/') || is_module_folder(folder)
}

/// Whether a file one folder down is taken: chat templates, and the settings
/// (not the weights) of the modules of sentence-transformers.
fn is_taken_in(folder: &str, name: &str) -> bool {
    if folder == ADDITIONAL_TEMPLATES.trim_end_matches('/') {
        return name.ends_with(".jinja");
    }
    is_module_folder(folder) && name == "config.json"
}

/// Whether a folder holds a module of sentence-transformers: `1_Pooling`.
fn is_module_folder(folder: &str) -> bool {
    folder.split_once('_').is_some_and(|(number, module)| {
        !number.is_empty()
            && number.bytes().all(|b| b.is_ascii_digit())
            && module.starts_with(|c: char| c.is_ascii_uppercase())
    })
}

/// Whether a file holds weights of a module of sentence-transformers, which a
/// merge of the model itself leaves behind.
pub(super) fn is_module_weights(path: &str) -> bool {
    path.split_once('/').is_some_and(|(folder, name)| {
        is_module_folder(folder) && WEIGHT_ENDINGS.iter().any(|ending| name.ends_with(ending))
    })
}

fn is_of_training(part: &str) -> bool {
    part == "runs"
        || part.starts_with("global_step")
        || part.starts_with("checkpoint-")
        || TRAINING_BEGINNINGS.iter().any(|b| part.starts_with(b))
}

fn is_legal_text(name: &str) -> bool {
    let stem = name
        .strip_suffix(".md")
        .or_else(|| name.strip_suffix(".txt"))
        .unwrap_or(name);
    // Whatever follows the word (`LICENSE-MODEL`) is kept; an ending is not.
    !stem.contains('.')
        && ["LICENSE", "LICENCE", "NOTICE", "USE_POLICY"]
            .iter()
            .any(|word| stem.to_ascii_uppercase().starts_with(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_loaders_need_are_taken() {
        for path in [
            "config.json",
            "generation_config.json",
            "tokenizer.json",
            "tokenizer.model",
            "qwen.tiktoken",
            "sentencepiece.bpe.model",
            "chat_template.jinja",
            "additional_chat_templates/tool_use.jinja",
            "preprocessor_config.json",
            "video_preprocessor_config.json",
            "modeling_custom.py",
            "LICENSE",
            "LICENSE.txt",
            "Notice.md",
            "USE_POLICY.md",
            "1_Pooling/config.json",
            "2_Dense/config.json",
            "modules.json",
        ] {
            assert_eq!(choose(path), Choice::Take, "{path}");
        }
    }

    #[test]
    fn everything_else_stays_behind_with_a_reason() {
        for (path, reason) in [
            ("model-00001-of-00002.safetensors", "weights"),
            ("model.safetensors.index.json", "weights"),
            ("pytorch_model.bin", "weights"),
            ("2_Dense/model.safetensors", "weights"),
            ("original/consolidated.00.pth", "weights"),
            ("README.md", "model card"),
            ("/etc/x.py", "not a path inside"),
            ("../x.py", "hidden"),
            (".gitattributes", "hidden"),
            (".cache/huggingface/config.json", "hidden"),
            ("optimizer.pt", "training"),
            ("checkpoint-500/config.json", "training"),
            ("global_step10/x.json", "training"),
            ("chatvec.manifest.json", "earlier merge"),
            ("adapter_config.json", "adapter"),
            ("original/tokenizer.model", "folder"),
            ("additional_chat_templates/notes.txt", "folder"),
            ("figure.png", "not a file"),
            ("LICENSE.exe", "not a file"),
        ] {
            match choose(path) {
                Choice::Skip(why) => assert!(why.contains(reason), "{path}: {why}"),
                Choice::Take => panic!("{path} was taken"),
            }
        }
    }
}
