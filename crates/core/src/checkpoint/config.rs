//! What `config.json` says that matters to a merge.

use serde_json::Value;

/// A model's configuration. The default is that of a checkpoint without one.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Config {
    /// Whether the output head is the embedding: at the top, else in `text_config`.
    pub tie_word_embeddings: Option<bool>,
    /// The family of the model, such as `llama`.
    pub model_type: Option<String>,
    /// The classes that load it, such as `LlamaForCausalLM`.
    pub architectures: Vec<String>,
    /// Whether it says that the weights are quantised, and by which method.
    pub quantisation: Option<String>,
    /// All of it, for comparisons; null where there is none. The numbers that
    /// JSON lacks and Python writes are texts here: `"NaN"`, `"Infinity"`,
    /// `"-Infinity"`.
    pub raw: Value,
}

/// What can be wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not JSON.
    #[error("not valid JSON: {0}")]
    Json(serde_json::Error),
    /// JSON, but no object.
    #[error("expected a JSON object")]
    NotAnObject,
}

impl Config {
    /// Parses a `config.json`. Fields of an unexpected type count as absent,
    /// except that any `quantization_config` counts as quantised.
    ///
    /// # Errors
    /// Not a JSON object.
    pub fn parse(json: &[u8]) -> Result<Self, ConfigError> {
        let json = quote_python_numbers(json);
        let raw: Value = serde_json::from_slice(&json).map_err(ConfigError::Json)?;
        if !raw.is_object() {
            return Err(ConfigError::NotAnObject);
        }
        let mut config = Self {
            raw,
            ..Self::default()
        };
        let text = |value: &Value| value.as_str().map(str::to_owned);
        config.tie_word_embeddings = config.get("tie_word_embeddings").and_then(Value::as_bool);
        config.model_type = config.raw.get("model_type").and_then(text);
        config.architectures = match config.raw.get("architectures") {
            Some(Value::Array(names)) => names.iter().filter_map(text).collect(),
            _ => Vec::new(),
        };
        let quantisation = ["quantization_config", "compression_config"]
            .iter()
            .find_map(|key| config.get(key));
        config.quantisation = quantisation.map(|quantisation| {
            let method = quantisation.get("quant_method").and_then(text);
            method.unwrap_or_else(|| "unnamed".to_owned())
        });
        Ok(config)
    }

    /// A value at the top, else in `text_config`, where models of several
    /// modalities keep the language model's. Null counts as absent.
    pub fn get(&self, key: &str) -> Option<&Value> {
        let text_config = self.raw.get("text_config");
        [Some(&self.raw), text_config]
            .into_iter()
            .flatten()
            .filter_map(|object| object.get(key))
            .find(|value| !value.is_null())
    }
}

/// Python's JSON writer emits `NaN`, `Infinity` and `-Infinity` as bare words,
/// and published configurations hold them. Outside of texts these words are in
/// no valid JSON, so putting them in quotes changes no valid one.
fn quote_python_numbers(json: &[u8]) -> Vec<u8> {
    const WORDS: [&[u8]; 3] = [b"NaN", b"-Infinity", b"Infinity"];
    let mut quoted = Vec::with_capacity(json.len());
    let mut in_text = false;
    let mut rest = json;
    while let Some((&byte, behind)) = rest.split_first() {
        let word = WORDS
            .into_iter()
            .find(|word| !in_text && rest.starts_with(word));
        if let Some(word) = word {
            quoted.push(b'"');
            quoted.extend_from_slice(word);
            quoted.push(b'"');
            rest = &rest[word.len()..];
            continue;
        }
        quoted.push(byte);
        rest = behind;
        if in_text
            && byte == b'\\'
            && let Some((&escaped, behind)) = rest.split_first()
        {
            quoted.push(escaped);
            rest = behind;
        } else if byte == b'"' {
            in_text = !in_text;
        }
    }
    quoted
}
